"""A spec together with its format: everything that decides every byte of a split."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.formats.api import FORMATS, Format, SampleSpec
from stoker.loader.dataset.content import check_ratios, content_source
from stoker.loader.dataset.naming import FILES_MAX, FileKeys, file_index, file_key
from stoker.loader.dataset.shapes import payload_bytes, sample_spec
from stoker.loader.manifest import FOLDER, Manifest


class Prediction(msgspec.Struct, frozen=True):
    """What a split will take: `payload_bytes` of samples, `file_bytes` of files (side files not counted).

    `file_bytes` is exact for formats whose overhead does not depend on the content, else scaled from one file.
    """

    files: int
    payload_bytes: int
    file_bytes: int


class Recipe:
    """How each file of a split is made. Safe from many threads: it holds nothing that changes."""

    def __init__(self, spec: DatasetSpec, *, files_before: int = 0) -> None:
        """Check the spec. Raises UsageError for what cannot be made, UnknownNameError for the format."""
        check_spec(spec)
        if files_before < 0:
            raise UsageError("files before the split are negative", got=str(files_before))
        self.spec = spec
        self.files_before = files_before
        self.format: Format = FORMATS.load(spec.format)
        self.keys = FileKeys(spec)
        content_source(spec, 0, self.sample_spec(0))

    def sample_spec(self, index: int) -> SampleSpec:
        """Return what the format will really write into file `index`."""
        return self.format.check_spec(sample_spec(self.spec, index, files_before=self.files_before))

    def chunks(self, index: int) -> Iterator[memoryview]:
        """Yield the bytes of file `index` in order; calling again yields the same bytes."""
        sample = self.sample_spec(index)
        return self.format.encode(sample, content_source(self.spec, index, sample))

    def side_files(self, index: int) -> dict[str, bytes]:
        """Return key → content of the companions of file `index`."""
        key = file_key(self.spec, index)
        sides = self.format.side_files(self.sample_spec(index))
        return {self.format.side_key(key, suffix): data for suffix, data in sides.items()}

    @cached_property
    def side_suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of the companions each file has."""
        return tuple(self.format.side_files(self.sample_spec(0)))

    @cached_property
    def _first_file_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.chunks(0))

    def payload_bytes(self, indices: range) -> int:
        """Return the payload bytes of the files `indices` together."""
        return payload_bytes(self.spec, indices, files_before=self.files_before)

    def predict(self, indices: range | None = None) -> Prediction:
        """Return what the files `indices` (all when None) will take; the first file is encoded to measure it."""
        indices = range(self.spec.files) if indices is None else indices
        payload = self.payload_bytes(indices)
        first_payload = self.payload_bytes(range(1))
        overhead = self._first_file_bytes - first_payload
        # A few bytes around the payload are the same for every file; a packed or textual payload grows with it.
        if abs(overhead) <= max(64 * 1024, first_payload // 20):
            return Prediction(len(indices), payload, payload + overhead * len(indices))
        return Prediction(len(indices), payload, math.ceil(payload * self._first_file_bytes / first_payload))


def spec_facts(spec: DatasetSpec) -> dict[str, Any]:
    """Return the spec's fields by name, in the shape they have after a trip through JSON: so two can be compared."""
    facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec))
    return facts


def side_folder(file_format: Format, split: str, suffix: str) -> str:
    """Return what the keys of a split's companions of one suffix begin with."""
    return file_format.side_key(f"{split}/file", suffix).rpartition("/")[0] + "/"


def side_owner(spec: DatasetSpec, file_format: Format, key: str, suffix: str) -> int | None:
    """Return the index of the file whose companion `key` is, None when it is none of this spec's."""
    start = key.find(f"{spec.split}/") if key.endswith(suffix) else -1
    while start >= 0:
        owner = key[start : len(key) - len(suffix)]
        index = file_index(spec, owner)
        if index is not None and file_format.side_key(owner, suffix) == key:
            return index
        start = key.find(f"{spec.split}/", start + 1)
    return None


def read_options(manifest: Manifest, index: int) -> dict[str, Any]:
    """Return the options a format needs to read file `index`: the manifest's, and what we know the file holds.

    Formats that do not describe themselves cannot be read without shape, dtype and samples.
    """
    told: dict[str, Any] = dict(manifest.options)
    told["samples"] = int(manifest.samples[index])
    if manifest.spec is not None and isinstance(manifest.keys, FileKeys):
        number = manifest.keys.indices[index]
        sample = sample_spec(manifest.spec, number, files_before=manifest.files_before)
        real = FORMATS.load(manifest.format).check_spec(sample)
        told |= {"shape": real.shape, "dtype": real.dtype}
    return told


def check_spec(spec: DatasetSpec) -> None:
    """Raise UsageError, naming field, expected and got, for a spec that no dataset can have."""
    checks = [
        ("files", 1 <= spec.files <= FILES_MAX, f"1 to {FILES_MAX}"),
        ("samples_per_file", 1 <= spec.samples_per_file <= FILES_MAX, f"1 to {FILES_MAX}"),
        ("record_length_bytes", 1 <= spec.record_length_bytes < 2**48, "1 byte to 256 TiB"),
        ("record_length_stdev_bytes", 0 <= spec.record_length_stdev_bytes < 2**48, "at least 0"),
        ("record_dims", all(1 <= side < 2**48 for side in spec.record_dims), "sides of at least 1"),
        ("subfolders", 0 <= spec.subfolders <= spec.files, "0 to the number of files"),
        ("split", _is_name(spec.split) and not spec.split.startswith("."), "a plain folder name"),
        ("prefix", _is_name(spec.prefix), "a plain file name"),
        ("format", _is_name(spec.format), "a format's name"),
    ]
    for name, good, expected in checks:
        if not good:
            raise UsageError(
                "dataset spec is no good", where=f"dataset.{name}", expected=expected, got=repr(getattr(spec, name))
            )
    if spec.record_dims and spec.record_length_stdev_bytes:
        raise UsageError(
            "record_dims fixes the shape, so record_length_stdev_bytes cannot vary it", remedy="leave out one of them"
        )
    check_ratios(spec.compress_ratio, spec.duplicate_ratio)


def _is_name(text: str) -> bool:
    return bool(text) and text not in (".", "..", FOLDER) and not any(sign in text for sign in "/\\\0\n")
