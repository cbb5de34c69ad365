"""Reading a journal: committed frames, in order, filtered."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stoker.pages.disk import Disk, OsDisk
from stoker.pages.errors import CorruptLog
from stoker.pages.frames import Frame, FrameType, decode_frame, frame_bytes, source_number
from stoker.pages.journal.segments import (
    COMPACTED,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_header,
    segment_names,
)


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


class Segment(msgspec.Struct):
    """One segment read into memory: its header, its bytes, and where its valid frames end."""

    name: str
    header: SegmentHeader
    data: bytes
    frames: list[tuple[int, Frame]]
    end_bytes: int


def read_segment(disk: Disk, path: Path) -> Segment:
    """Read a segment and its valid frames: LSNs without a gap, or only growing in a compacted one."""
    data = disk.read(path)
    header = decode_header(data[:SEGMENT_HEADER_BYTES], str(path))
    frames: list[tuple[int, Frame]] = []
    start, expected = SEGMENT_HEADER_BYTES, header.first_lsn
    loose = bool(header.flags & COMPACTED)
    while (frame := decode_frame(data, start, header.salt)) is not None:
        if frame.lsn != expected and not (loose and expected < frame.lsn <= header.covers_lsn):
            break
        frames.append((start, frame))
        start, expected = start + frame_bytes(frame), frame.lsn + 1
    return Segment(path.name, header, data, frames, start)


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
    disk = disk or OsDisk()
    names: dict[int, str] = {}
    for frame in _committed(disk, folder, since):
        if frame.type == FrameType.SOURCE:
            names[frame.source] = bytes(frame.payload).decode(errors="replace")
        if until is not None and frame.lsn > until:
            return
        wanted = frame.lsn >= since and (page is None or frame.page == page)
        wanted = wanted and (source is None or is_of(frame, source, names))
        if wanted and (kinds is None or frame.type in kinds):
            yield frame


def is_of(frame: Frame, source: str, names: dict[int, str]) -> bool:
    """Tell whether a source wrote the frame: by the name of its number or, where none is told, by the number."""
    told = names.get(frame.source)
    return frame.source == source_number(source) if told is None else told == source


def _committed(disk: Disk, folder: Path, since: int) -> Iterator[Frame]:
    names = segment_names(disk, folder)
    firsts = [int(name[4:24]) for name in names]
    waiting: list[Frame] = []
    expected = 0
    for index, name in enumerate(names):
        if index + 1 < len(names) and firsts[index + 1] <= since:
            continue
        segment = read_segment(disk, folder / name)
        if expected and segment.header.first_lsn != expected:
            raise CorruptLog(
                "log has a gap", where=name, expected=f"LSN {expected}", got=f"LSN {segment.header.first_lsn}"
            )
        for _, frame in segment.frames:
            waiting.append(frame)
            if frame.last:
                yield from waiting
                waiting = []
        last = segment.frames[-1][1].lsn if segment.frames else segment.header.first_lsn - 1
        expected = max(last, segment.header.covers_lsn) + 1


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
