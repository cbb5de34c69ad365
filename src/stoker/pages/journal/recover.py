"""Finding the end of a journal after whatever happened, and cutting off what was never finished.

The log ends at the last commit of which every frame is valid. What lies behind it is a torn tail, unless the log is
known to have been synced farther, by a note in the segment or because a later segment was begun: then durable bytes are
damaged, and nothing is cut unasked.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from stoker.kernels.replaying import LSN, START
from stoker.pages.disk import Disk, OsDisk, disk_error
from stoker.pages.errors import CorruptLog, CorruptPages, FormatError
from stoker.pages.frames import HEADER
from stoker.pages.journal.scan import Segment, read_segment
from stoker.pages.journal.segments import (
    SEGMENT_HEADER_BYTES,
    SYNCED_OFFSETS,
    JournalEnd,
    SegmentHeader,
    segment_names,
    synced_lsn,
)

Policy = Literal["strict", "point_in_time"]
_ZEROS: Final = 1 << 20


class Recovered(msgspec.Struct, frozen=True):
    """What was found: where the log ends, its first LSN, and how many bytes of an unfinished tail were cut.

    aside  segments moved aside under `point_in_time`
    """

    end: JournalEnd
    header: SegmentHeader
    first_lsn: int
    cut_bytes: int = 0
    aside: tuple[str, ...] = ()

    @property
    def last_lsn(self) -> int:
        """LSN of the last commit."""
        return self.end.last_lsn


def recover(folder: Path, *, policy: Policy = "strict", disk: Disk | None = None, mend: bool = True) -> Recovered:
    """Return where the log in a folder ends, after zeroing and syncing what was never finished.

    policy  what to do about damage with valid frames behind it: `strict` raises CorruptLog; `point_in_time` ends the
            log before the damage and moves later segments aside, as `<name>.aside`
    mend    False only looks

    Raises FormatError where there is no log, CorruptLog, PagesError for the disk's failures.
    """
    disk = disk or OsDisk()
    names = segment_names(disk, folder)
    if not names:
        raise FormatError("no log is here", where=str(folder))
    whole, damage = _chain(disk, folder, names)
    if not whole:
        raise CorruptLog("first segment of the log cannot be read", where=str(folder), got=damage)
    last = whole[-1]
    offset, lsn, crc = _last_commit(whole)
    behind = names[names.index(last.name) + 1 :]
    synced = max([synced_lsn(last.data), *(int(name[4:24]) - 1 for name in behind)])
    if lsn < synced and policy == "strict":
        raise CorruptLog(
            "log is damaged before its end",
            where=str(folder / last.name),
            expected=f"LSN {lsn + 1} at byte {offset}",
            got=f"no sound frame, though all was synced up to LSN {synced}{': ' + damage if damage else ''}",
            remedy="recover to the last sound commit with policy point_in_time, or put the files back",
        )
    end = JournalEnd(last.header.first_lsn, offset, lsn, crc)
    cut_bytes = len(last.data[offset:].rstrip(b"\0"))
    if mend:
        _mend(disk, folder, last, offset, behind, forget=lsn < synced)
    first = whole[0].header.floor_lsn or whole[0].header.first_lsn
    return Recovered(end, last.header, first, cut_bytes, tuple(behind))


def _chain(disk: Disk, folder: Path, names: list[str]) -> tuple[list[Segment], str]:
    """Return the segments that follow each other without a gap, and why the next one does not."""
    whole: list[Segment] = []
    for name in names:
        try:
            segment = read_segment(disk, folder / name)
        except CorruptPages as error:
            return whole, str(error)
        if whole:
            before = whole[-1]
            _, lsn, crc = _last_commit(whole)
            lsn = max(lsn, before.header.covers_lsn)
            if segment.header.first_lsn != lsn + 1 or segment.header.uuid != before.header.uuid:
                return whole, f"{name} does not follow LSN {lsn}"
            if segment.header.previous_crc != crc:
                return whole, f"{name} follows another frame than LSN {lsn}"
            before.data = before.table.data = b""  # of those behind which others follow, all is known that matters
        whole.append(segment)
    return whole, ""


def _last_commit(whole: list[Segment]) -> tuple[int, int, int]:
    """Return offset behind the last commit in the last segment, its LSN and CRC."""
    last = whole[-1]
    ends = last.table.commit_ends()
    if len(ends):
        start, lsn = (int(number) for number in last.table.rows[ends[-1], [START, LSN]])
        length, crc = HEADER.unpack_from(last.data, start)[:2]
        return start + length, lsn, crc
    return SEGMENT_HEADER_BYTES, last.header.first_lsn - 1, last.header.previous_crc


def _mend(disk: Disk, folder: Path, last: Segment, offset: int, behind: list[str], *, forget: bool) -> None:
    try:
        for name in behind:
            disk.rename(folder / name, folder / f"{name}.aside")
        if behind:
            disk.sync_folder(folder)
        stale = len(last.data[offset:].rstrip(b"\0"))
        if stale or forget:
            handle = disk.open(folder / last.name)
            try:
                for note in SYNCED_OFFSETS if forget else ():
                    disk.write(handle, note, [bytes(12)])
                for start in range(offset, offset + stale, _ZEROS):
                    disk.write(handle, start, [bytes(min(_ZEROS, offset + stale - start))])
                disk.sync(handle)
            finally:
                disk.close(handle)
    except OSError as error:
        raise disk_error(error, "torn tail of the log cannot be cut", folder) from error
