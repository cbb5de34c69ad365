"""Segment files: `log-<LSN of the first frame, 20 digits>.stk`, a header of 4 KiB and frames.

| offset | type | field |
|---|---|---|
| 0 | 8 bytes | magic `STKLOG\\0\\0` |
| 8 | u32 | version 1 |
| 12 | u32 | salt of the frames |
| 16 | 16 bytes | uuid of the store |
| 32 | u64 | LSN of the first frame |
| 40 | u32 | CRC of the frame before it, in the segment before; 0 for none |
| 44 | u32 | flags: COMPACTED |
| 48 | u64 | in a compacted segment, the last LSN that it stands for |
| 56 | u64 | in a compacted segment, the first LSN from which single commits are there; 0 else |
| 508 | u32 | CRC-32C of the 508 bytes before |
| 512, 1024 | u64, u32 | an LSN up to which everything was synced, and its CRC-32C; the larger valid one counts |

A segment is preallocated with zeros; the log ends where no valid frame with the next LSN follows. Behind the last sync
a power loss may leave frames with holes between them: only what the synced LSN covers can be missed. It is written with
the frames that follow a sync, and when the store closes, so it costs no sync of its own. A segment is only begun when
everything before it is synced.
"""

import errno
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from stoker.kernels.checking import crc32c
from stoker.kernels.replaying import last_frame
from stoker.pages.disk import Disk, OsDisk, disk_error
from stoker.pages.errors import ChecksumError, FormatError, PagesError, Poisoned
from stoker.pages.frames import FORMAT_VERSION, HEADER, HEADER_BYTES, LAST
from stoker.pages.journal.spare import Spare

MAGIC: Final = b"STKLOG\0\0"
SEGMENT_HEADER_BYTES: Final = 4096
COMPACTED: Final = 1
FIRST_SEGMENT_BYTES: Final = 1 << 20
_WORTH_A_SPARE: Final = 4
"""Syncs while a segment was filled, from which on the next one is made of zeros."""
_HEADER: Final = struct.Struct("<8sII16sQIIQQ")
_CRC_OFFSET: Final = 508
_SYNCED: Final = struct.Struct("<QI")
SYNCED_OFFSETS: Final = (512, 1024)


class SegmentHeader(msgspec.Struct, frozen=True):
    """What a segment says of itself, as the table above."""

    uuid: bytes
    salt: int
    first_lsn: int
    previous_crc: int
    flags: int = 0
    covers_lsn: int = 0
    floor_lsn: int = 0


class JournalEnd(msgspec.Struct, frozen=True):
    """Where a journal ends: the segment, the offset behind its last frame, that frame's LSN and CRC."""

    segment_first_lsn: int
    offset_bytes: int
    last_lsn: int
    last_crc: int


def segment_name(first_lsn: int) -> str:
    """Return the file name of a segment."""
    return f"log-{first_lsn:020d}.stk"


def segment_names(disk: Disk, folder: Path) -> list[str]:
    """Return the segments' file names in the order of their LSNs."""
    return [name for name in disk.names(folder) if name.startswith("log-") and name.endswith(".stk")]


def encode_header(header: SegmentHeader) -> bytes:
    """Return a segment's first 4 KiB."""
    body = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        header.salt,
        header.uuid,
        header.first_lsn,
        header.previous_crc,
        header.flags,
        header.covers_lsn,
        header.floor_lsn,
    ).ljust(_CRC_OFFSET, b"\0")
    return (body + crc32c(body).to_bytes(4, "little")).ljust(SEGMENT_HEADER_BYTES, b"\0")


def synced_lsn(head: bytes) -> int:
    """Return the LSN up to which a segment's header knows that everything was synced, 0 for none."""
    found = [0]
    for offset in SYNCED_OFFSETS:
        lsn, crc = _SYNCED.unpack_from(head, offset)
        if crc == crc32c(head[offset : offset + 8]) and lsn:
            found.append(lsn)
    return max(found)


def decode_header(head: bytes, where: str) -> SegmentHeader:
    """Return what a segment says of itself. Raises FormatError, ChecksumError."""
    if len(head) < SEGMENT_HEADER_BYTES or head[:8] != MAGIC:
        raise FormatError("this is no segment of a log", where=where)
    if crc32c(head[:_CRC_OFFSET]) != int.from_bytes(head[_CRC_OFFSET : _CRC_OFFSET + 4], "little"):
        raise ChecksumError("header of a segment is damaged", where=where)
    _, version, salt, uuid, first_lsn, previous_crc, flags, covers_lsn, floor_lsn = _HEADER.unpack_from(head)
    if version != FORMAT_VERSION:
        raise FormatError("log has an unknown version", where=where, expected=str(FORMAT_VERSION), got=str(version))
    return SegmentHeader(uuid, salt, first_lsn, previous_crc, flags, covers_lsn, floor_lsn)


class Journal:
    """Appends frames. It knows nothing between calls but open files: who calls says where the journal ends, and that
    nobody else appends meanwhile. After a failure it refuses everything: what a failed sync left is unknown."""

    def __init__(
        self, folder: Path, header: SegmentHeader, *, segment_bytes: int = 64 << 20, disk: Disk | None = None
    ) -> None:
        self.folder = folder
        self._header = header
        self._segment_bytes = max(segment_bytes, 2 * SEGMENT_HEADER_BYTES)
        self._disk = disk or OsDisk()
        self._open: tuple[int, int, int] | None = None  # first LSN, handle, bytes reserved
        self._failed = 0
        self._noted: list[int] = [0, 0]
        self._spare = Spare(self._disk, folder, self._segment_bytes)
        self._syncs = 0  # since the segment began

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        uuid: bytes,
        salt: int,
        segment_bytes: int = 64 << 20,
        first_lsn: int = 1,
        disk: Disk | None = None,
    ) -> "Journal":
        """Begin a journal with an empty segment. Raises OutOfSpace, PagesError."""
        journal = cls(folder, SegmentHeader(uuid, salt, first_lsn, 0), segment_bytes=segment_bytes, disk=disk)
        journal._begin_segment(first_lsn, 0, 0)
        return journal

    @classmethod
    def open(cls, folder: Path, *, segment_bytes: int = 64 << 20, disk: Disk | None = None) -> "Journal":
        """Open a journal to append to it. Raises FormatError where there is none."""
        disk = disk or OsDisk()
        names = segment_names(disk, folder)
        if not names:
            raise FormatError("no log is here", where=str(folder))
        header = decode_header(disk.read(folder / names[-1], 0, SEGMENT_HEADER_BYTES), str(folder / names[-1]))
        return cls(folder, header, segment_bytes=segment_bytes, disk=disk)

    def start(self) -> JournalEnd:
        """Return the end of a journal that was just created."""
        return JournalEnd(self._header.first_lsn, SEGMENT_HEADER_BYTES, self._header.first_lsn - 1, 0)

    def _path(self, first_lsn: int) -> Path:
        return self.folder / segment_name(first_lsn)

    def _begin_segment(self, first_lsn: int, previous_crc: int, at_least_bytes: int) -> None:
        """Make a segment whose name and header are durable before any frame is in it: of the spare where that is there.

        Where none is, it is twice as large as the one before, from little on: then there will be one soon.
        """
        grown = 2 * self._open[2] if self._open else FIRST_SEGMENT_BYTES
        size_bytes = max(min(self._segment_bytes, grown), SEGMENT_HEADER_BYTES + at_least_bytes)
        path = self._path(first_lsn)
        born = path.with_suffix(".new")
        header = msgspec.structs.replace(
            self._header, first_lsn=first_lsn, previous_crc=previous_crc, flags=0, covers_lsn=0, floor_lsn=0
        )
        try:
            if born.name in self._disk.names(self.folder):
                self._disk.unlink(born)
            spare = self._spared(born, SEGMENT_HEADER_BYTES + at_least_bytes)
            handle, size_bytes = spare or (self._disk.open(born, create=True), size_bytes)
            self._close_segment()
            self._open = (first_lsn, handle, size_bytes)
            self._noted, self._syncs = [0, 0], 0
            if not spare:
                self._disk.reserve(handle, size_bytes)
            self._disk.write(handle, 0, [encode_header(header)])
            self._disk.sync(handle, full=True)
            self._disk.rename(born, path)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            self._failed = error.errno or errno.EIO
            raise disk_error(error, "segment of the log cannot be made", path) from error

    def _spared(self, born: Path, at_least_bytes: int) -> tuple[int, int] | None:
        """Return handle and size of the spare, under a name; None where there is none, or it cannot have one."""
        spare = self._spare.take(at_least_bytes)
        if spare is not None:
            try:
                self._disk.link(spare[0], born)
            except OSError:
                self._disk.close(spare[0])
                return None
        return spare

    def _close_segment(self) -> None:
        if self._open:
            self._disk.close(self._open[1])
            self._open = None

    def _handle(self, end: JournalEnd) -> int:
        if self._open is None or self._open[0] != end.segment_first_lsn:
            self._close_segment()
            path = self._path(end.segment_first_lsn)
            self._open = (end.segment_first_lsn, self._disk.open(path), self._disk.size_bytes(path))
            self._noted = [0, 0]
        return self._open[1]

    def append(self, end: JournalEnd, chunks: Sequence[bytes | memoryview], *, durable_lsn: int = 0) -> JournalEnd:
        """Write whole commits behind `end` and return the new end; nothing is durable before `sync`.

        Every frame's checksum is looked at once more: what was damaged in memory is never acknowledged.

        durable_lsn  up to which the caller knows everything to be synced; it is noted for recovery

        Raises OutOfSpace and PagesError for the disk's failures, and Poisoned ever after.
        """
        self._check()
        try:
            self._note(end, durable_lsn)
            grown = self._append_whole(end, chunks)
            if grown:
                return grown
            for run, last_lsn, last_crc in _commits(chunks, end, self._segment_bytes):
                if _last_of(run, end, self._header.salt) != (last_lsn, last_crc):
                    raise PagesError("frames to log are damaged", where=f"behind LSN {end.last_lsn}")
                self._note(end, durable_lsn)
                end = self._append_run(end, run, last_lsn, last_crc)
        except OSError as error:
            self._failed = error.errno or errno.EIO
            raise disk_error(error, "log cannot be written", self._path(end.segment_first_lsn)) from error
        return end

    def _append_whole(self, end: JournalEnd, chunks: Sequence[bytes | memoryview]) -> JournalEnd | None:
        """Append all frames as one run, where that is what they are and the segment has room; else return None.

        Whether they are is found out while the disk is at work already: what is written of others counts for nothing,
        and is written over.
        """
        views = [memoryview(chunk) for chunk in chunks if len(chunk)]
        size_bytes = sum(len(view) for view in views)
        handle = self._handle(end)
        assert self._open is not None
        if not views or end.offset_bytes + size_bytes > self._open[2]:
            return None
        self._disk.write(handle, end.offset_bytes, views)
        self._disk.start(handle, end.offset_bytes, size_bytes)
        last = _last_of(views, end, self._header.salt)
        if last is None:
            return None
        self._see_to_spare(end)
        return JournalEnd(end.segment_first_lsn, end.offset_bytes + size_bytes, *last)

    def _see_to_spare(self, end: JournalEnd) -> None:
        if self._syncs >= _WORTH_A_SPARE and self._open and 2 * end.offset_bytes > self._open[2]:
            self._spare.begin()

    def _append_run(self, end: JournalEnd, run: list[memoryview], last_lsn: int, last_crc: int) -> JournalEnd:
        size_bytes = sum(len(piece) for piece in run)
        handle = self._handle(end)
        assert self._open is not None
        if end.offset_bytes + size_bytes > self._open[2] and end.offset_bytes > SEGMENT_HEADER_BYTES:
            # What is behind us must be durable before a later segment can be.
            self._disk.sync(handle)
            self._begin_segment(end.last_lsn + 1, end.last_crc, size_bytes)
            end = JournalEnd(end.last_lsn + 1, SEGMENT_HEADER_BYTES, end.last_lsn, end.last_crc)
            handle = self._handle(end)
        self._disk.write(handle, end.offset_bytes, run)
        self._see_to_spare(end)
        return JournalEnd(end.segment_first_lsn, end.offset_bytes + size_bytes, last_lsn, last_crc)

    def _note(self, end: JournalEnd, lsn: int) -> None:
        """Write the synced LSN over the older of the two notes."""
        if lsn <= max(self._noted):
            return
        index = self._noted.index(min(self._noted))
        encoded = lsn.to_bytes(8, "little")
        note = encoded + crc32c(encoded).to_bytes(4, "little")
        self._disk.write(self._handle(end), SYNCED_OFFSETS[index], [note])
        self._noted[index] = lsn

    def note_durable(self, end: JournalEnd) -> None:
        """Note that everything up to `end` is synced, and sync the note: for a log that rests. Raises PagesError."""
        self._check()
        try:
            self._note(end, end.last_lsn)
            self._disk.sync(self._handle(end))
        except OSError as error:
            self._failed = error.errno or errno.EIO
            raise disk_error(error, "log cannot be made durable", self._path(end.segment_first_lsn)) from error

    def sync(self, end: JournalEnd, *, full: bool = False) -> None:
        """Make everything up to `end` durable. Raises PagesError, and Poisoned ever after."""
        self._check()
        try:
            self._disk.sync(self._handle(end), full=full)
            self._syncs += 1
            if full:
                self._disk.sync_folder(self.folder)
        except OSError as error:
            self._failed = error.errno or errno.EIO
            raise disk_error(error, "log cannot be made durable", self._path(end.segment_first_lsn)) from error

    def remove_below(self, lsn: int, *, archive: Path | None = None) -> list[str]:
        """Remove, or move to `archive`, the segments that hold only frames before this LSN; return their names."""
        names = segment_names(self._disk, self.folder)
        gone = []
        for name, following in pairwise(names):
            if int(following[4:24]) > lsn:
                break
            if archive:
                self._disk.rename(self.folder / name, archive / name)
            else:
                self._disk.unlink(self.folder / name)
            # One by one: a power loss must not bring an older one back without those behind it.
            self._disk.sync_folder(self.folder)
            gone.append(name)
        return gone

    def reaches(self, end: JournalEnd) -> bool:
        """Tell whether the files are as long as `end` says."""
        name = segment_name(end.segment_first_lsn)
        there = name in self._disk.names(self.folder)
        return there and self._disk.size_bytes(self.folder / name) >= end.offset_bytes

    def _check(self) -> None:
        if self._failed:
            raise Poisoned("log takes nothing more after a failure of its disk", where=str(self.folder))

    def close(self) -> None:
        """Close the open files. Twice is no error."""
        self._spare.close()
        self._close_segment()


def _last_of(views: Sequence[memoryview], end: JournalEnd, salt: int) -> tuple[int, int] | None:
    """Return LSN and CRC of the last of whole commits that follow `end`; None where that is not what they are."""
    expected, last = end.last_lsn + 1, 0
    for view in views:
        lsn, last, behind = last_frame(view, salt=salt, first_lsn=expected)
        if behind != len(view):
            return None
        expected = lsn + 1
    _, crc, lsn = HEADER.unpack_from(views[-1], last)[:3]
    return (lsn, crc) if views[-1][last + 43] & LAST else None


def _commits(
    chunks: Sequence[bytes | memoryview], end: JournalEnd, limit_bytes: int
) -> list[tuple[list[memoryview], int, int]]:
    """Cut frames into runs of whole commits, each at most `limit_bytes` unless one commit alone is longer.

    Raises PagesError for frames that do not follow `end`.
    """
    runs: list[tuple[list[memoryview], int, int]] = []
    expected = end.last_lsn + 1
    run, pending = _Stretch(), _Stretch()
    run_end = (0, 0)
    for given in chunks:
        chunk = memoryview(given)
        start = 0
        while start < len(chunk):
            length, crc, lsn = HEADER.unpack_from(chunk, start)[:3]
            if lsn != expected or not HEADER_BYTES <= length <= len(chunk) - start:
                raise PagesError("frames to log do not follow the log", expected=f"LSN {expected}", got=f"LSN {lsn}")
            last = chunk[start + 43] & LAST
            pending.add(chunk, start, start + length)
            expected, start = expected + 1, start + length
            if not last:
                continue
            if run.size_bytes and run.size_bytes + pending.size_bytes > limit_bytes - SEGMENT_HEADER_BYTES:
                runs.append((run.pieces(), *run_end))
                run = _Stretch()
            run.join(pending)
            run_end, pending = (lsn, crc), _Stretch()
    if pending.size_bytes:
        raise PagesError("frames to log end inside a commit")
    if run.size_bytes:
        runs.append((run.pieces(), *run_end))
    return runs


class _Stretch:
    """Parts of chunks, side by side where they can be one."""

    def __init__(self) -> None:
        self._parts: list[tuple[memoryview, int, int]] = []
        self.size_bytes = 0

    def add(self, chunk: memoryview, start: int, end: int) -> None:
        if self._parts and self._parts[-1][0] is chunk and self._parts[-1][2] == start:
            start = self._parts.pop()[1]
        self._parts.append((chunk, start, end))
        self.size_bytes = sum(stop - begin for _, begin, stop in self._parts)

    def join(self, other: "_Stretch") -> None:
        for part in other._parts:
            self.add(*part)

    def pieces(self) -> list[memoryview]:
        return [chunk[start:end] for chunk, start, end in self._parts]
