"""Where the samples of a file lie: asked of the format when a file is first touched, kept within a bound.

Formats that are read whole need nothing but the manifest. For the others a file's `Layout` is read once and kept in
its smallest form; when all kept layouts together exceed the bound, those not used for longest go and are read again.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import CorruptError, NotFoundError, StokerError
from stoker.core.units import MiB
from stoker.formats.api import Extent, Format, Layout, whole_file_layout
from stoker.formats.columns import ColumnLayout, LaysOutColumns, column_layout
from stoker.loader.dataset.recipe import read_options
from stoker.loader.located import located
from stoker.loader.manifest import Manifest
from stoker.loader.order import Int64s
from stoker.storage.api import KnowsResidency, Reader, Store
from stoker.storage.buffers import fresh_view

LAYOUT_BYTES_MAX: Final = 256 * MiB
_EXTENT_BYTES: Final = 512
_RANGE_BYTES: Final = 256
"""What an extent takes for each range beyond the first, with what a format's context tells of it."""

_BASE_BYTES: Final = 1024
_PROBES: Final = 3


class Piece(msgspec.Struct, frozen=True, gc=False):
    """One extent to read, which of its samples are wanted, and at which places of the rank's sequence they go."""

    extent: Extent
    layout: Layout
    wanted: Sequence[int] | Int64s
    places: Sequence[int] | Int64s


class StoreSource:
    """One file of a store, as a format's `layout` wants to see it."""

    def __init__(self, store: Store, manifest: Manifest, layout_format: Format, file: int) -> None:
        self._store = store
        self._format = layout_format
        self._key = manifest.keys[file]
        # A dataset of our own has the companions its manifest names; another's may have any.
        self._suffixes = manifest.side_suffixes if manifest.spec is not None else None
        self.size_bytes = int(manifest.sizes_bytes[file])
        self.requested_bytes = 0
        self.cached_bytes = 0

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range."""
        return self._read(self._key, offset_bytes, length_bytes)

    def side_file(self, suffix: str) -> memoryview | None:
        """Return the whole companion, None when there is none."""
        if self._suffixes is not None and suffix not in self._suffixes:
            return None
        try:
            return self._read(self._format.side_key(self._key, suffix), 0, None)
        except NotFoundError:
            return None

    def _read(self, key: str, offset_bytes: int, length_bytes: int | None) -> memoryview:
        with self._store.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes) as reader:
            into = fresh_view(reader.range_bytes)
            self.cached_bytes += cached_part(reader)
            reader.read_into(into)
        self.requested_bytes += into.nbytes
        return into


class _NeedsReadingError(Exception):
    """A layout cannot be told from a file's size alone."""


class _SizeOnly:
    """A file of which nothing is known but its size."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        raise _NeedsReadingError

    def side_file(self, suffix: str) -> memoryview | None:
        raise _NeedsReadingError


class WholeFiles(msgspec.Struct, frozen=True):
    """Every file of a dataset is one sample from its first byte to its last; `context` is that of the layouts."""

    context: Any


def cached_part(reader: Reader) -> int:
    """Return how much of what a reader will give lies in this host's page cache; 0 when that is not known."""
    return (reader.cached_bytes() or 0) if isinstance(reader, KnowsResidency) else 0


class FileLayout:
    """One file's layout in its smallest form: `columns` of numbers where every extent is one range of one sample.

    Where the format allows, `join_samples` neighbours that touch are read as one: `joined` tells how many are. The
    last extent may have fewer.
    """

    __slots__ = ("_context", "_extents", "_firsts", "columns", "held_bytes", "joined", "samples", "samples_max")

    def __init__(self, layout: Layout | ColumnLayout, join_samples: int = 1) -> None:
        self._context = layout.context
        self.joined = 1
        self.columns = layout if isinstance(layout, ColumnLayout) else _as_columns(layout)
        if self.columns is not None:
            self.samples = self.columns.samples
            join_samples = min(join_samples, self.samples)
            if join_samples > 1 and self.columns.joins(join_samples):
                self.joined = join_samples
            self.samples_max = min(self.joined, self.samples)
            self.held_bytes = _BASE_BYTES + self.columns.held_bytes
            return
        assert isinstance(layout, Layout)
        self._extents = layout.extents
        self._firsts = np.array([extent.first_sample for extent in layout.extents], dtype=np.int64)
        counts = [extent.samples for extent in layout.extents]
        self.samples = sum(counts)
        self.samples_max = max(counts, default=0)
        more_ranges = sum(len(extent.ranges) - 1 for extent in layout.extents)
        self.held_bytes = _BASE_BYTES + _EXTENT_BYTES * len(counts) + _RANGE_BYTES * more_ranges

    def pieces(self, samples: Sequence[int] | Int64s, first_place: int) -> list[Piece]:
        """Return what to read for samples of the file that take neighbouring places from `first_place` on."""
        wanted = np.asarray(samples, dtype=np.int64)
        if self.columns is not None and self.joined == 1:
            return self._singles(self.columns, wanted, first_place)
        if len(wanted) > 1:
            ends = self._numbers(np.array([wanted.min(), wanted.max()]))
            if ends[0] == ends[1]:  # nearly always: what is read as one comes as one
                ((_, extent),) = self._extents_of(ends[:1])
                here = range(first_place, first_place + len(wanted))
                return [Piece(extent, Layout((extent,), self._context), wanted - extent.first_sample, here)]
        which = self._numbers(wanted)
        places = np.arange(first_place, first_place + len(wanted))
        pieces = []
        # Not np.unique, which drops the GIL in C++: a thread that finds Python gone when it comes back aborts there.
        for number, extent in self._extents_of(np.array(sorted(set(which.tolist())), dtype=np.int64)):
            here = which == number
            layout = Layout((extent,), self._context)
            pieces.append(Piece(extent, layout, wanted[here] - extent.first_sample, places[here]))
        return pieces

    def _numbers(self, wanted: Int64s) -> Int64s:
        """Return the number of the extent that holds each sample."""
        if self.columns is not None:
            return wanted // self.joined
        return np.searchsorted(self._firsts, wanted, side="right") - 1

    def _extents_of(self, numbers: Int64s) -> Iterator[tuple[int, Extent]]:
        if self.columns is None:
            yield from ((number, self._extents[number]) for number in numbers.tolist())
            return
        columns = (column.tolist() for column in (numbers, *self.columns.spans(numbers, self.joined)))
        for number, offset_bytes, length_bytes, count in zip(*columns, strict=True):
            yield number, Extent(((offset_bytes, length_bytes),), number * self.joined, count)

    def _singles(self, columns: ColumnLayout, wanted: Int64s, first_place: int) -> list[Piece]:
        offsets, lengths, _ = columns.spans(wanted)
        found = zip(wanted.tolist(), offsets.tolist(), lengths.tolist(), strict=True)
        pieces = []
        for place, (sample, offset_bytes, length_bytes) in enumerate(found, first_place):
            extent = Extent(((offset_bytes, length_bytes),), sample, 1)
            pieces.append(Piece(extent, Layout((extent,), self._context), (0,), (place,)))
        return pieces


def _lay_out(made: Format, source: StoreSource, options: Mapping[str, Any]) -> Layout | ColumnLayout:
    return made.layout_columns(source, options) if isinstance(made, LaysOutColumns) else made.layout(source, options)


def _as_columns(layout: Layout) -> ColumnLayout | None:
    """Return a layout as columns where every extent is one range of one sample, else None."""
    if not all(extent.samples == 1 and len(extent.ranges) == 1 for extent in layout.extents):
        return None
    spans = np.array([extent.ranges[0] for extent in layout.extents], dtype=np.int64).reshape(-1, 2)
    offsets, lengths = spans.T.copy()
    return column_layout(offsets, lengths, layout.context, joinable=layout.joinable)


class Layouts:
    """The layouts of a manifest's files. Safe from many threads; two that meet at a new file may both read it.

    `requested_bytes` is what finding them asked of the store, `cached_bytes` the part of it that was cached.
    """

    def __init__(self, store: Store, manifest: Manifest, layout_format: Format, *, join_bytes: int = 0) -> None:
        self._store = store
        self._manifest = manifest
        self._format = layout_format
        sample_bytes = manifest.total_bytes / max(manifest.total_samples, 1)
        self._join_samples = int(join_bytes / max(sample_bytes, 1))
        self._kept: OrderedDict[int, FileLayout] = OrderedDict()
        self._held_bytes = 0
        self.requested_bytes = 0
        self.cached_bytes = 0
        self._lock = threading.Lock()
        spec = manifest.spec
        self._same_options = spec is None or not spec.record_length_stdev_bytes
        self._options: dict[int, dict[str, Any]] = {}

    def pieces(self, file: int, samples: Sequence[int] | Int64s, first_place: int) -> list[Piece]:
        """Return what to read for samples of a file that take neighbouring places from `first_place` on.

        Raises what the store or the format raises, with the key; CorruptError when the file does not hold as many
        samples as the manifest says.
        """
        if self._format.whole_file:
            layout = whole_file_layout(int(self._manifest.sizes_bytes[file]), int(self._manifest.samples[file]))
            places = range(first_place, first_place + len(samples))
            return [Piece(layout.extents[0], layout, samples, places)]
        return self._find(file).pieces(samples, first_place)

    def knows(self, file: int) -> bool:
        """Tell whether `pieces` needs no I/O for this file now."""
        return self._format.whole_file or file in self._kept

    def whole_files(self) -> WholeFiles | None:
        """Return what decoding needs when all files hold one sample each and nothing else, None when not. No I/O."""
        manifest = self._manifest
        if not len(manifest) or int(manifest.samples.max()) != 1 or int(manifest.samples.min()) != 1:
            return None
        if self._format.whole_file:
            return WholeFiles(None)
        if not self._same_options or not isinstance(self._format, LaysOutColumns):
            return None
        size_bytes = int(manifest.sizes_bytes[0])
        try:
            columns = self._format.layout_columns(_SizeOnly(size_bytes), self._options_for(0))
        except (_NeedsReadingError, StokerError):  # what is wrong with the file is told when it is read
            return None
        offsets, lengths, _ = columns.spans(np.zeros(1, np.int64))
        return WholeFiles(columns.context) if (int(offsets[0]), int(lengths[0])) == (0, size_bytes) else None

    def window_samples(self) -> int:
        """Return how many samples are read as one: 0 where each can be read by itself, else the most seen.

        Where the format does not tell, the layouts of the first, the middle and the last file are looked at.
        """
        manifest = self._manifest
        if not len(manifest) or int(manifest.samples.max()) <= 1:
            return 0
        if self._format.whole_file:
            return int(manifest.samples.max())
        chosen = sorted({number * (len(manifest) - 1) // (_PROBES - 1) for number in range(_PROBES)})
        most = max(self._find(file).samples_max for file in chosen)
        return most if most > 1 else 0

    def _find(self, file: int) -> FileLayout:
        with self._lock:
            found = self._kept.get(file)
            if found is not None:
                self._kept.move_to_end(file)
                return found
        key = self._manifest.keys[file]
        source = StoreSource(self._store, self._manifest, self._format, file)
        try:
            options = self._options_for(file)
            found = FileLayout(_lay_out(self._format, source, options), self._join_samples)
        except Exception as error:
            raise located(error, key) from error
        expected = int(self._manifest.samples[file])
        if found.samples != expected:
            raise CorruptError(
                "file holds another number of samples than its manifest says",
                where=key,
                expected=str(expected),
                got=str(found.samples),
                remedy="generate the dataset again",
            )
        self._keep(file, found, source)
        return found

    def _keep(self, file: int, found: FileLayout, source: StoreSource) -> None:
        with self._lock:
            self.requested_bytes += source.requested_bytes
            self.cached_bytes += source.cached_bytes
            if file in self._kept:
                return
            self._kept[file] = found
            self._held_bytes += found.held_bytes
            while self._held_bytes > LAYOUT_BYTES_MAX and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._held_bytes -= oldest.held_bytes

    def _options_for(self, file: int) -> dict[str, Any]:
        """Return the reader's options; worked out once where all files of as many samples share them."""
        if not self._same_options:
            return read_options(self._manifest, file)
        samples = int(self._manifest.samples[file])
        if samples not in self._options:
            self._options[samples] = read_options(self._manifest, file)
        return self._options[samples]
