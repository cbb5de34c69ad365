"""Reading a journal: committed frames, in order, filtered."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.kernels.replaying import KINDS, LSN, Rows, scan_frames
from stoker.pages.disk import Disk, OsDisk
from stoker.pages.errors import CorruptLog
from stoker.pages.frames import HEADER_BYTES, LAST, Frame, FrameType, asked_of, frame_bytes, source_number
from stoker.pages.journal.segments import (
    COMPACTED,
    SEGMENT_HEADER_BYTES,
    JournalEnd,
    SegmentHeader,
    decode_header,
    segment_name,
    segment_names,
)

_STEP_BYTES: Final = 4 << 20


class JournalStats(msgspec.Struct):
    """What a stretch of a log holds."""

    frames: int = 0
    commits: int = 0
    frame_bytes: int = 0
    first_lsn: int = 0
    last_lsn: int = 0
    first_ns: int = 0
    last_ns: int = 0
    by_type: dict[str, int] = {}
    by_source: dict[str, int] = {}


class FrameTable(msgspec.Struct):
    """Frames in a buffer: a row of numbers each, see `stoker.kernels.replaying`."""

    data: bytes
    rows: Rows

    def frame(self, index: int) -> Frame:
        """Return one of the frames, its payload a view of the buffer."""
        start, lsn, page, epoch, time_ns, kinds, source, payload_bytes = self.rows[index].tolist()
        body = memoryview(self.data)[start + HEADER_BYTES : start + HEADER_BYTES + payload_bytes]
        kind, codec, width, flags = (kinds >> shift & 0xFF for shift in (0, 8, 16, 24))
        return Frame(lsn, kind, page, epoch, time_ns, codec, width, flags, source, body)

    def frames(self) -> Iterator[Frame]:
        """Yield all frames."""
        return (self.frame(index) for index in range(len(self.rows)))

    def of_types(self, *types: FrameType) -> Iterator[Frame]:
        """Yield the frames of some types."""
        found = np.flatnonzero(np.isin(self.rows[:, KINDS] & np.uint64(0xFF), types))
        return (self.frame(int(index)) for index in found)

    def commit_ends(self) -> NDArray[np.intp]:
        """Return the indices of the last frames of commits."""
        return np.flatnonzero(self.rows[:, KINDS] >> np.uint64(24) & np.uint64(LAST))


def _read_used(disk: Disk, path: Path, start: int = 0) -> bytes:
    """Return a segment from an offset up to some MiB of zeros, which may lie inside a frame."""
    pieces: list[bytes] = []
    while piece := disk.read(path, start + len(pieces) * _STEP_BYTES, _STEP_BYTES):
        pieces.append(piece)
        if len(piece) < _STEP_BYTES or not np.frombuffer(piece, np.uint64).any():
            break
    return b"".join(pieces)


class Segment(msgspec.Struct):
    """One segment read into memory: its header, its bytes, its valid frames and where they end."""

    name: str
    header: SegmentHeader
    data: bytes
    table: FrameTable
    end_bytes: int

    @property
    def last_lsn(self) -> int:
        """LSN of the last valid frame, of an unfinished commit too; that before the first where there is none."""
        rows = self.table.rows
        return int(rows[-1, LSN]) if len(rows) else self.header.first_lsn - 1


def read_segment(disk: Disk, path: Path, *, whole: bool = True) -> Segment:
    """Read a segment and its valid frames: LSNs without a gap, or only growing in a compacted one.

    whole  also what lies behind the last frame: else mostly not, it is room for more
    """
    data = disk.read(path) if whole else _read_used(disk, path)
    header = decode_header(data[:SEGMENT_HEADER_BYTES], str(path))
    covers_lsn = header.covers_lsn if header.flags & COMPACTED else 0
    rows, end = scan_frames(
        data, SEGMENT_HEADER_BYTES, salt=header.salt, first_lsn=header.first_lsn, covers_lsn=covers_lsn
    )
    if not whole and data[end : end + 4] != bytes(4):
        return read_segment(disk, path)  # a frame may go on behind what was read
    return Segment(path.name, header, data, FrameTable(data, rows), end)


def scan(
    folder: Path,
    *,
    since: int = 0,
    until: int | None = None,
    page: int | None = None,
    source: str | None = None,
    kinds: frozenset[FrameType] | None = None,
    disk: Disk | None = None,
) -> Iterator[Frame]:
    """Yield committed frames with LSNs from `since` to `until`, of a page, of a source, of some types.

    A commit without its last frame is never seen. Raises CorruptLog where a segment is missing between two others.
    """
    names: dict[int, str] = {}
    for frame in (frame for table in scan_tables(folder, since=since, disk=disk) for frame in table.frames()):
        if frame.type == FrameType.SOURCE:
            names[frame.source] = bytes(frame.payload).decode(errors="replace")
        if until is not None and frame.lsn > until:
            return
        if frame.lsn >= since and (source is None or is_of(frame, source, names)):
            yield from asked_of(frame, page, kinds)


def is_of(frame: Frame, source: str, names: dict[int, str]) -> bool:
    """Tell whether a source wrote the frame: by the name of its number or, where none is told, by the number."""
    told = names.get(frame.source)
    return frame.source == source_number(source) if told is None else told == source


def scan_tables(folder: Path, *, since: int = 0, disk: Disk | None = None) -> Iterator[FrameTable]:
    """Yield the committed frames of each segment that has any from `since` on. Raises CorruptLog for a gap."""
    disk = disk or OsDisk()
    names = segment_names(disk, folder)
    firsts = [int(name[4:24]) for name in names]
    expected = 0
    for index, name in enumerate(names):
        if index + 1 < len(names) and firsts[index + 1] <= since:
            continue
        segment = read_segment(disk, folder / name, whole=False)
        if expected and segment.header.first_lsn != expected:
            raise CorruptLog(
                "log has a gap", where=name, expected=f"LSN {expected}", got=f"LSN {segment.header.first_lsn}"
            )
        ends = segment.table.commit_ends()
        if len(ends):
            yield FrameTable(segment.data, segment.table.rows[: int(ends[-1]) + 1])
        expected = max(segment.last_lsn, segment.header.covers_lsn) + 1


def scan_behind(folder: Path, end: JournalEnd, *, disk: Disk | None = None) -> Iterator[FrameTable]:
    """Yield the committed frames behind a place where the log once ended, without reading what lies before it.

    Raises CorruptLog where its segment is gone, or for a gap.
    """
    disk = disk or OsDisk()
    name = segment_name(end.segment_first_lsn)
    if name not in disk.names(folder):
        raise CorruptLog("segment of the log is gone", where=str(folder / name))
    header = decode_header(disk.read(folder / name, 0, SEGMENT_HEADER_BYTES), name)
    data = _read_used(disk, folder / name, end.offset_bytes)
    rows, _ = scan_frames(data, 0, salt=header.salt, first_lsn=end.last_lsn + 1)
    table = FrameTable(data, rows)
    ends = table.commit_ends()
    last_lsn = end.last_lsn
    if len(ends):
        last_lsn = int(rows[ends[-1], LSN])
        yield FrameTable(data, rows[: int(ends[-1]) + 1])
    if any(int(other[4:24]) > last_lsn for other in segment_names(disk, folder)):
        yield from scan_tables(folder, since=last_lsn + 1, disk=disk)


def sources(frames: Iterator[Frame]) -> dict[int, str]:
    """Return the names of sources that frames tell, by number."""
    return {
        frame.source: bytes(frame.payload).decode(errors="replace")
        for frame in frames
        if frame.type == FrameType.SOURCE
    }


def journal_stats(frames: Iterator[Frame]) -> JournalStats:
    """Return what frames amount to."""
    stats = JournalStats()
    names: dict[int, str] = {}
    kinds: Counter[str] = Counter()
    writers: Counter[str] = Counter()
    for frame in frames:
        if frame.type == FrameType.SOURCE:
            names[frame.source] = bytes(frame.payload).decode(errors="replace")
        stats.frames += 1
        stats.commits += frame.last
        stats.frame_bytes += frame_bytes(frame)
        stats.first_lsn, stats.first_ns = stats.first_lsn or frame.lsn, stats.first_ns or frame.time_ns
        stats.last_lsn, stats.last_ns = frame.lsn, frame.time_ns
        kinds[FrameType(frame.type).name] += 1
        writers[names.get(frame.source, "")] += 1
    stats.by_type, stats.by_source = dict(kinds), dict(writers)
    return stats
