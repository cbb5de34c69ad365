"""Which files a dataset split has, how long each is, how many samples it holds, and its checksum.

The manifest stands beside the data (`.stoker/<split>.manifest`), so that a run never lists 50 million objects and
a changed or foreign file is noticed. It is put last: a split without one is not complete.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.plan import DatasetSpec

FOLDER = ".stoker"


class FileEntry(msgspec.Struct, frozen=True):
    """One file of the split. `checksum` is XXH3-64 of its bytes, None when not known."""

    key: str
    size_bytes: int
    samples: int
    checksum: int | None = None


class Manifest:
    """The files of one split, as columns: 10 million entries take 250 MB less than as objects.

    `format` and `options` say how to decode. `spec` is None for a dataset that we did not write; otherwise it and
    `files_before` (the training files, for a validation split) say what every byte should be. `side_suffixes`
    names the companions each file has (see `Format.side_files`). The last two are set by whoever knows them.
    """

    files_before: int = 0
    side_suffixes: tuple[str, ...] = ()

    def __init__(
        self,
        format_name: str,
        keys: Sequence[str],
        sizes_bytes: NDArray[np.int64],
        samples: NDArray[np.int64],
        checksums: NDArray[np.uint64] | None = None,
        *,
        spec: DatasetSpec | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        assert len(keys) == len(sizes_bytes) == len(samples)
        assert checksums is None or len(checksums) == len(keys)
        self.format = format_name
        self.keys = keys
        self.sizes_bytes = sizes_bytes
        self.samples = samples
        self.checksums = checksums
        self.spec = spec
        self.options = dict(options or {})

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> FileEntry:
        checksum = None if self.checksums is None else int(self.checksums[index])
        return FileEntry(self.keys[index], int(self.sizes_bytes[index]), int(self.samples[index]), checksum)

    def part(self, chosen: slice) -> "Manifest":
        """Return a manifest of the chosen files alone; its columns are views of this one's."""
        part = Manifest(
            self.format,
            self.keys[chosen],
            self.sizes_bytes[chosen],
            self.samples[chosen],
            None if self.checksums is None else self.checksums[chosen],
            spec=self.spec,
            options=self.options,
        )
        part.files_before, part.side_suffixes = self.files_before, self.side_suffixes
        return part

    @property
    def total_samples(self) -> int:
        """Return the samples of all files."""
        return _total(self.samples)

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all files."""
        return _total(self.sizes_bytes)


def _total(column: NDArray[np.int64]) -> int:
    """Return the sum; a constant column, one number in memory, is not walked."""
    if column.size and column.strides == (0,):
        return int(column[0]) * column.size
    return int(column.sum())
