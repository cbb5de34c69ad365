"""What a format promises.

Writing: `encode` turns the samples of one file into byte chunks; `side_files` the small companions that belong to
it (indexes). Reading: `layout` asks, through a `RangeSource`, for just enough of a file to know where its samples
lie (a `Layout`); an `Extent` is the byte ranges that hold one or more whole samples; `decode` turns the bytes of
one extent into a `Block`. No format opens, lists or writes anything.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.core.registry import Registry

Array = NDArray[Any]
Int64s = NDArray[np.int64]

Columns = Mapping[str, Array | list[Array]]


class SampleSpec(msgspec.Struct, frozen=True):
    """One file's content: `samples` arrays of `shape` and `dtype` (a NumPy name), and the format's own `options`.

    `options` holds only what the format documents (compression, compression_level, chunk_dims, max_shape,
    num_dset_per_record, columns, row_group_size …); an unknown one is an error. Every format knows `compression`,
    and `shape`, `dtype`, `samples`, which tell a reader what to expect; None is not given.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    samples: int = 1
    options: Mapping[str, Any] = {}

    @property
    def sample_bytes(self) -> int:
        """Return the payload bytes of one sample."""
        count = 1
        for side in self.shape:
            count *= side
        return count * np.dtype(self.dtype).itemsize

    @property
    def payload_bytes(self) -> int:
        """Return the payload bytes of the file."""
        return self.sample_bytes * self.samples


class Extent(msgspec.Struct, frozen=True):
    """Byte ranges of a file that together hold `samples` whole samples, the first being number `first_sample`.

    `ranges` are (offset_bytes, length_bytes) in file order; their concatenation is what `decode` gets. Most formats
    have one range; Parquet has one for each run of neighbouring columns that are read.
    """

    ranges: tuple[tuple[int, int], ...]
    first_sample: int
    samples: int

    @property
    def length_bytes(self) -> int:
        """Return the bytes to read."""
        return sum(length for _, length in self.ranges)


class Layout(msgspec.Struct, frozen=True):
    """Where a file's samples lie: extents in order, every sample once. `context` is the format's own (a footer).

    joinable    neighbouring extents, each one range of one sample, may be read and decoded as one
    """

    extents: tuple[Extent, ...]
    context: Any = None
    joinable: bool = False


class Block:
    """The decoded samples of one extent.

    `columns` maps a name to an array (or a list of arrays for ragged columns) whose first axis is the sample.
    Arrays are views into the bytes given wherever the format allows; `copied_bytes` tells how much was not.
    The primary column, the training input, is `primary`. `row_bytes` is what a sample takes in all columns together,
    where the format says so and it is the same for all.
    """

    __slots__ = ("columns", "copied_bytes", "primary", "row_bytes", "samples")

    def __init__(
        self, columns: Columns, *, primary: str, samples: int, copied_bytes: int, row_bytes: int | None = None
    ) -> None:
        self.columns = columns
        self.row_bytes = row_bytes
        self.primary = primary
        self.samples = samples
        self.copied_bytes = copied_bytes

    def sample(self, index: int) -> Array:
        """Return sample `index` (0-based within the block) of the primary column."""
        return self.columns[self.primary][index]

    def row(self, index: int) -> dict[str, Array]:
        """Return every column's value for sample `index`."""
        return {name: values[index] for name, values in self.columns.items()}


class CorruptExtentError(CorruptError):
    """One of many extents is corrupt: `number` tells which, counted from 0."""

    number = -1


class DecodedMany:
    """The samples of many extents, in the order of the extents.

    samples         the primary column: views into the bytes given wherever the format allows
    payload_bytes   bytes of `samples`; row_bytes: of every column
    copied_bytes    how much of that was not viewed but copied, as in `Block`
    """

    __slots__ = ("_columns", "copied_bytes", "payload_bytes", "row_bytes", "samples")

    def __init__(
        self,
        samples: list[Array],
        columns: Mapping[str, Callable[[], list[Array]]],
        *,
        payload_bytes: int,
        row_bytes: int,
        copied_bytes: int,
    ) -> None:
        self.samples = samples
        self.payload_bytes = payload_bytes
        self.row_bytes = row_bytes
        self.copied_bytes = copied_bytes
        self._columns = columns

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns that every extent has."""
        return tuple(self._columns)

    def column(self, name: str) -> list[Array]:
        """Return one column's value for each sample; made when asked for. Raises UsageError for one not there."""
        if name not in self._columns:
            raise UsageError("no such column", where=name, expected=" or ".join(self._columns))
        return self._columns[name]()


class RangeSource(Protocol):
    """Gives byte ranges of one file and of its side files."""

    size_bytes: int

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range. Raises ShortReadError beyond the end."""

    def side_file(self, suffix: str) -> memoryview | None:
        """Return the whole side file with this name suffix (see `Format.side_files`), None when there is none."""


ContentSource = Callable[[int], Array]
"""Gives sample `index` of the file being encoded, as an array of the spec's shape and dtype."""


class Format(Protocol):
    """One file format. Stateless and safe from many threads.

    name        as in DLIO's `dataset.format`
    extension   of file names, without the dot (DLIO: the name verbatim)
    multi_sample    more than one sample a file is allowed
    whole_file      a file is one extent: no `layout` call is needed to read it (but then nothing the options tell,
                    such as shape, dtype or verify, is held against the file)
    primary     name of the main column of a block
    lossless    what is decoded equals what was encoded
    """

    name: str
    extension: str
    multi_sample: bool
    whole_file: bool
    primary: str
    lossless: bool

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec this format will really write (e.g. jpeg forces uint8, two dimensions).

        Raises UsageError for what the format cannot hold.
        """

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the file's bytes in order, in chunks; peak memory is a few samples, not the file, where possible."""

    def side_files(self, spec: SampleSpec) -> dict[str, bytes]:
        """Return suffix → content of the file's companions; {} for formats that have none."""

    def side_key(self, key: str, suffix: str) -> str:
        """Return the key of a companion of the file `key` (relative to the dataset's root, `train/…`)."""

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return where the samples lie, reading only what is needed for that. `options` as in `SampleSpec`.

        Raises CorruptError for a malformed file or index.
        """

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Decode the bytes of one extent. Never runs code from the data, never allocates beyond what its size
        justifies. Raises CorruptError for anything malformed, and when the samples found are not `extent.samples`."""


@runtime_checkable
class DecodesMany(Protocol):
    """What a format offers that decodes many extents at once, each of one range, for a microsecond a sample."""

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """Decode the extents that lie in the flat `data` at `starts`, `lengths` bytes each.

        `samples` tells how many each holds (a number: all the same), `context` is their layouts' (None for a
        `whole_file_layout`). All is as if each were given to `decode`: samples, copied bytes, errors. What they share
        is worked out once. Raises CorruptExtentError for the first corrupt extent, UsageError for extents outside
        `data`.
        """


Lend = Callable[[int], NDArray[np.uint8]]
"""Gives so many bytes of memory of undefined content, flat, for as long as somebody looks into it."""


@runtime_checkable
class DecodesInto(Protocol):
    """What a format offers that has to move the bytes: the memory they go to may be lent to it, and used again."""

    def decode_into(self, data: memoryview, extent: Extent, layout: Layout, lend: Lend) -> Block:
        """Do as `decode` does, with memory from `lend`."""


def reading_options(spec: SampleSpec) -> dict[str, Any]:
    """Return the options for reading a file written to the checked `spec`: its own, and what the file must hold."""
    return {**spec.options, "shape": spec.shape, "dtype": spec.dtype, "samples": spec.samples}


def whole_file_layout(size_bytes: int, samples: int) -> Layout:
    """Return the layout of a file that is read and decoded in one piece."""
    return Layout((Extent(((0, size_bytes),), 0, samples),))


FORMATS: Registry[Format] = Registry(
    "stoker.formats",
    kind="format",
    extras={"hdf5": "hdf5", "tfrecord": "tfrecord", "parquet": "parquet", "jpeg": "image", "png": "image"},
)
