"""Reading shards: the cells that cover a range are verified before anybody is given a byte of them."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Self

import msgspec
import numpy as np

from stoker.core.errors import CorruptError, NotFoundError, StoreError, UsageError
from stoker.core.units import KiB, MiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.files import DiskFailingError, Files, telling, told
from stoker.fs.disk.index import IN_FILES, Entry
from stoker.fs.disk.interface import Bytes, ShardHeader, ShardId
from stoker.fs.disk.scanning import SegmentScan
from stoker.fs.disk.segments import Place, segment_path
from stoker.fs.disk.state import DiskState
from stoker.fs.disk.wholes import FileHead, bad_cell
from stoker.kernels import checking

_ATTEMPTS_MAX: Final = 100
_FEW_CELLS: Final = 4
_SCRATCH_BYTES: Final = 4 * MiB
_SCRATCH_FROM_BYTES: Final = 128 * KiB
_threads: Final = threading.local()
_READ_WHOLE_BYTES: Final = 64 * KiB
"""Records up to this size are read in one call, header and all."""


class Source:
    """A shard that is open for reading: `start` is where its first byte lies in the file `handle`."""

    __slots__ = ("_files", "_known", "entry", "handle", "header", "start")

    def __init__(
        self, files: Files, entry: Entry, handle: int, start: int, header: ShardHeader, known: memoryview
    ) -> None:
        self._files = files
        self.entry = entry
        self._known = known  # its first bytes, when they are read already
        self.handle = handle
        self.header = header
        self.start = start

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return bytes that were read together with the header, None where they were not."""
        return self._known[offset : offset + length] if offset + length <= len(self._known) else None

    def read(self, offset: int, length: int, scratch: memoryview | None = None) -> memoryview:
        """Return bytes of the shard, not verified, fewer where the file ends; in `scratch` if given. Raises OSError."""
        if offset + length <= len(self._known):
            return self._known[offset : offset + length]
        memory = memoryview(bytearray(length)) if scratch is None else scratch[:length]
        return memory[: self._files.fill(self.handle, self.start + offset, memory)]


def covering(header: ShardHeader, offset: int, length: int) -> tuple[int, int]:
    """Return the cells [first, end) that cover a range of a shard. Raises UsageError for one that leaves it."""
    if offset < 0 or length < 0 or offset + length > header.shard_bytes:
        raise UsageError(
            "range leaves its shard", where=str(header.shard), expected=f"within {header.shard_bytes} bytes",
            got=f"{length} bytes at {offset}",
        )  # fmt: skip
    first = offset // header.cell_bytes
    return first, max(first, -(-(offset + length) // header.cell_bytes)) if length else first


@contextmanager
def opened(state: DiskState, shard: ShardId) -> Iterator[Source]:
    """Give a shard's source; it can be read on even when the shard is removed or moved meanwhile.

    Raises NotFoundError, CorruptError, StoreError; what is damaged is marked so.
    """
    for _ in range(_ATTEMPTS_MAX):
        entry = state.index.get(shard)
        if entry is None:
            raise NotFoundError("no such shard", where=f"{shard} on {state.where}")
        source = _in_file if entry.place.segment == IN_FILES else _in_segment
        try:
            with source(state, entry) as found:
                yield found
                return
        except CorruptError:
            state.mark_bad(entry)
            raise
        except DiskFailingError as error:
            state.mark_bad(entry)
            raise StoreError("shard cannot be read", where=f"{shard} on {state.where}", got=error.got) from error
        except _ElsewhereError as error:
            if state.index.get(shard) == entry:
                state.mark_bad(entry)
                raise CorruptError(
                    "shard is damaged", where=f"{shard} on {state.where}", got=str(error.__cause__)
                ) from error
    raise StoreError("shard is moved faster than it can be read", where=f"{shard} on {state.where}")


class _ElsewhereError(Exception):
    """The shard is not where the index says: it was moved or removed meanwhile, or is damaged."""


@contextmanager
def _in_file(state: DiskState, entry: Entry) -> Iterator[Source]:
    shard, token = entry.header.shard, entry.place.offset
    try:
        held = state.file_handles.take((shard, token), lambda: state.wholes.open(shard))
    except (NotFoundError, CorruptError) as error:
        raise _ElsewhereError from error
    try:
        head = held.about
        if head.token != token:
            # Another writing of the same shard, which the index did not learn of before a crash.
            _learn(state, entry, head)
        yield Source(state.files, entry, held.handle, head.data_start, head.header, memoryview(b""))
    finally:
        state.file_handles.give(held)


def _learn(state: DiskState, entry: Entry, head: FileHead) -> None:
    """Note that a shard's file is another one than the index says: the file's own header is what counts."""
    shard = entry.header.shard
    with state.index.changing():
        if state.index.get(shard) == entry:
            size_bytes = head.data_start + head.header.shard_bytes
            bare = msgspec.structs.replace(head.header, crcs=b"")
            state.index.set(shard, Entry(bare, Place(IN_FILES, head.token, size_bytes)))


@contextmanager
def _in_segment(state: DiskState, entry: Entry) -> Iterator[Source]:
    number = entry.place.segment
    try:
        held = state.segment_handles.take(number, lambda: _open_segment(state, number))
    except (NotFoundError, CorruptError) as error:
        raise _ElsewhereError from error
    try:
        try:
            found = _record(state, entry, held.handle, held.about)
        except CorruptError as error:
            raise _ElsewhereError from error
        yield found
    finally:
        state.segment_handles.give(held)


def _open_segment(state: DiskState, number: int) -> tuple[int, int]:
    path = segment_path(state.segments_folder, number)
    salt = SegmentScan(state.files, state.segments_folder, state.identity, number).salt()
    with telling("segment cannot be read", str(path)):
        return state.files.open_reading(path), checking.crc32c(salt)


def _record(state: DiskState, entry: Entry, handle: int, salt_crc: int) -> Source:
    """Read the beginning of a record, or all of a short one. Raises CorruptError, StoreError."""
    place, where = entry.place, f"{entry.header.shard} on {state.where}"
    head_bytes = layout.PREFIX_BYTES + layout.HEADER_BYTES_MIN + 4 * entry.header.cells
    wanted = place.size_bytes if place.size_bytes <= _READ_WHOLE_BYTES else head_bytes
    memory = memoryview(bytearray(wanted))
    try:
        got = memory[: state.files.fill(handle, place.offset, memory)]
    except OSError as error:
        raise told(error, "shard cannot be read", where) from error
    prefix = layout.unpack_prefix(got, salt_crc, segment=place.segment, offset=place.offset)
    if prefix is None or prefix.kind != layout.KIND_SHARD:
        raise CorruptError("no record is here", where=where)
    header = layout.unpack_header(got[layout.PREFIX_BYTES : prefix.data_start], where)
    if header.shard != entry.header.shard or header.shard_bytes != prefix.data_bytes:
        raise CorruptError("record is another shard's", where=where, got=str(header.shard))
    return Source(state.files, entry, handle, place.offset + prefix.data_start, header, got[prefix.data_start :])


def read_ranges(state: DiskState, source: Source, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
    """Return the bytes of each range, verified. Raises CorruptError, UsageError, StoreError."""
    header = source.header
    cells = [covering(header, offset, length) for offset, length in ranges]
    runs = _runs([each for each in cells if each[0] < each[1]])
    starts = [first for first, _ in runs]
    inside: dict[int, list[int]] = {}
    for index, (first, end) in enumerate(cells):
        if first < end:
            inside.setdefault(bisect_right(starts, first) - 1, []).append(index)
    found: list[Bytes] = [b""] * len(ranges)
    for number, (first, end) in enumerate(runs):
        wanted_bytes = sum(ranges[index][1] for index in inside[number])
        run_bytes = (end - first) * header.cell_bytes
        # Little of much: fresh memory for all of it would cost more, page by page, than reading it.
        lends = _SCRATCH_FROM_BYTES <= run_bytes <= _SCRATCH_BYTES and wanted_bytes < run_bytes // 2
        data = _verified(state, source, first, end, _scratch() if lends else None)
        for index in inside[number]:
            start = ranges[index][0] - first * header.cell_bytes
            part = data[start : start + ranges[index][1]]
            found[index] = bytes(part) if lends else part
    return found


def read_unverified(
    state: DiskState, source: Source, offset: int, length: int, memory: Callable[[int], memoryview]
) -> memoryview:
    """Return bytes as they lie, in `memory` unless they are known. Raises CorruptError where they end, StoreError."""
    known = source.known(offset, length)
    if known is not None:
        return known
    where = f"{source.header.shard} on {state.where}"
    try:
        data = source.read(offset, length, memory(length))
    except OSError as error:
        raise DiskFailingError("shard cannot be read", where=where, got=str(error.strerror)) from error
    if len(data) != length:
        raise CorruptError("shard ends early", where=where, expected=f"{length} bytes at {offset}", got=f"{len(data)}")
    return data


def _scratch() -> memoryview:
    """Return memory of this thread, to be used until it reads again."""
    memory: memoryview | None = getattr(_threads, "scratch", None)
    if memory is None:
        memory = _threads.scratch = memoryview(bytearray(_SCRATCH_BYTES))
    return memory


def _runs(cells: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the union of half-open runs, in order: those that touch become one."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(cells):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((first, end))
    return joined


def _verified(state: DiskState, source: Source, first: int, end: int, scratch: memoryview | None) -> memoryview:
    header, where = source.header, f"{source.header.shard} on {state.where}"
    start = first * header.cell_bytes
    stop = min(end * header.cell_bytes, header.shard_bytes)
    try:
        data = source.read(start, stop - start, scratch)
    except OSError as error:
        raise DiskFailingError("shard cannot be read", where=where, got=str(error.strerror)) from error
    crcs = _crcs_of(data, header.cell_bytes)
    told_crcs = header.crcs[4 * first : 4 * end]
    if crcs == told_crcs and len(data) == stop - start:
        return data
    cell = first + next(
        (n for n in range(len(crcs) // 4) if crcs[4 * n : 4 * n + 4] != told_crcs[4 * n : 4 * n + 4]), 0
    )
    raise CorruptError(
        "bytes of a shard do not fit its checksum", where=where, got=f"a difference in cell {cell}",
        remedy="it is repaired from other copies, or by writing it again",
    )  # fmt: skip


def _crcs_of(data: memoryview, cell_bytes: int) -> bytes:
    """Return the checksums of the cells: of many in one call, of few without the arrays that it needs."""
    if len(data) <= _FEW_CELLS * cell_bytes:
        return cell_crcs([data], cell_bytes)
    starts = np.arange(0, len(data), cell_bytes)
    lengths = np.minimum(cell_bytes, len(data) - starts)
    return checking.crc32c_many(data, starts, lengths).astype(">u4").tobytes()


class Span:
    """Bytes of a file that hold whole cells of a shard, for `sendfile`; whoever gets them verifies them by `crcs`.

    `offset` and `length` are those in the file `handle`, which stays open until the span is closed, whatever happens
    to the shard. The cells are those from `first_cell` on.
    """

    __slots__ = ("_held", "crcs", "first_cell", "handle", "header", "length", "offset")

    def __init__(self, source: Source, cells: tuple[int, int], held: ExitStack) -> None:
        header, (first, end) = source.header, cells
        self.header = header
        self.handle = source.handle
        self.first_cell = first
        self.offset = source.start + first * header.cell_bytes
        self.length = max(0, min(end * header.cell_bytes, header.shard_bytes) - first * header.cell_bytes)
        self.crcs = header.crcs[4 * first : 4 * end]
        self._held = held

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        self._held.close()

    def __enter__(self) -> Self:
        """Hold the file until the block is left."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()


def span(state: DiskState, shard: ShardId, offset: int, length: int) -> Span:
    """Return where the cells that cover a range lie; close it. Raises as `opened`, and UsageError for a wrong range."""
    with ExitStack() as held:
        source = held.enter_context(opened(state, shard))
        cells = covering(source.header, offset, length)
        return Span(source, cells, held.pop_all())


def verify(state: DiskState, shard: ShardId) -> int | None:
    """Read a whole shard; return its first damaged cell, None when there is none; damage is marked.

    Raises NotFoundError, CorruptError for a shard whose header is damaged, StoreError.
    """
    with opened(state, shard) as source:
        try:
            cell = bad_cell(state.files, source.handle, source.start, source.header)
        except OSError as error:
            raise DiskFailingError("shard cannot be read", where=f"{shard} on {state.where}", got=str(error)) from error
        if cell is not None:
            state.mark_bad(source.entry)
    return cell
