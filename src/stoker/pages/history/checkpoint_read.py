"""Reading checkpoints: nothing is believed before its checksum is."""

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels.checking import crc32c, xxh3_128, xxh3_128_many
from stoker.pages.columns import FACTS, SIZE, groups_of
from stoker.pages.disk import Disk, OsDisk
from stoker.pages.errors import ChecksumError, CorruptPages, FormatError, PageNotFound
from stoker.pages.frames import FORMAT_VERSION
from stoker.pages.history.checkpoint import (
    FOOTER,
    FOOTER_BYTES,
    FOOTER_MAGIC,
    MAGIC,
    SUPERBLOCK,
    SUPERBLOCK_BYTES,
    CheckpointFacts,
    checkpoint_name,
)
from stoker.pages.history.index import CODEC, DIGEST_BYTES, HOLDER, OFFSET, STORED, Entries, Index, decode_index
from stoker.pages.history.packing import ALIGN, GROUP_BYTES, RAW, ZSTD
from stoker.pages.history.state import PAGE_BYTES_MAX, State
from stoker.pages.images import PageImage
from stoker.pages.reading_around import BLOCK_BYTES, LEAST_BYTES, fresh_memory, have_ready

_INDEX_BYTES_MAX: Final = 1 << 32
_WORKERS: Final = 2
_AHEAD: Final = 3
"""Runs of pages under way at once."""
_SLAB_BYTES: Final = 32 << 20
"""Memory that pages of one checkpoint share: large enough for large pages of the system, and to be freed with them."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose superblock, index and footer are sound; its pages are checked as they are read."""

    path: Path
    facts: CheckpointFacts
    index: Index
    root: bytes


def list_checkpoints(folder: Path, disk: Disk | None = None) -> list[int]:
    """Return the LSNs of the checkpoints in a folder, oldest first, sound or not."""
    names = (disk or OsDisk()).names(folder)
    return [int(name[11:31]) for name in names if name.startswith("checkpoint-") and name.endswith(".stkc")]


def open_checkpoint(path: Path, disk: Disk | None = None) -> Checkpoint:
    """Return what a checkpoint holds. Raises FormatError, ChecksumError, PageNotFound where there is none."""
    disk = disk or OsDisk()
    try:
        size_bytes = disk.size_bytes(path)
        head = disk.read(path, 0, SUPERBLOCK_BYTES)
        tail = disk.read(path, max(0, size_bytes - FOOTER_BYTES), FOOTER_BYTES)
    except FileNotFoundError as error:
        raise PageNotFound("no such checkpoint", where=str(path)) from error
    facts = _superblock(head, path)
    if len(tail) < FOOTER_BYTES or tail[:8] != FOOTER_MAGIC or size_bytes % 64:
        raise FormatError("checkpoint has no end", where=str(path))
    if crc32c(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        raise ChecksumError("end of the checkpoint is damaged", where=str(path))
    _, index_at, index_bytes, digest, root = FOOTER.unpack_from(tail)
    if index_bytes > min(_INDEX_BYTES_MAX, size_bytes):
        raise FormatError("index of the checkpoint is too long", where=str(path), got=f"{index_bytes} bytes")
    encoded = disk.read(path, index_at, index_bytes)
    if xxh3_128(encoded) != digest:
        raise ChecksumError("index of the checkpoint is damaged", where=str(path))
    try:
        index = decode_index(encoded)
    except CorruptError as error:
        raise FormatError("index of the checkpoint cannot be read", where=str(path), got=str(error)) from error
    facts = msgspec.structs.replace(
        facts, max_generation=index.max_generation, marks=index.marks, sources=index.sources
    )
    return Checkpoint(path, facts, index, root)


def _superblock(head: bytes, path: Path) -> CheckpointFacts:
    if len(head) < SUPERBLOCK_BYTES or head[:8] != MAGIC:
        raise FormatError("this is no checkpoint", where=str(path))
    if crc32c(head[:-4]) != int.from_bytes(head[-4:], "little"):
        raise ChecksumError("beginning of the checkpoint is damaged", where=str(path))
    _, version, _, uuid, lsn, time_ns, parent_lsn = SUPERBLOCK.unpack_from(head)
    if version != FORMAT_VERSION:
        raise FormatError("checkpoint has an unknown version", where=str(path), got=str(version))
    return CheckpointFacts(uuid, lsn, time_ns, parent_lsn)


def read_checkpoint(
    path: Path, *, pages: Collection[int] | None = None, uuid: bytes = b"", disk: Disk | None = None
) -> State:
    """Return the pages of a checkpoint, all or some, wherever their bytes lie.

    uuid  of the store that it must be of, empty for any

    Raises FormatError, ChecksumError, PageNotFound where there is none, or no such page in it.
    """
    disk = disk or OsDisk()
    checkpoint = open_checkpoint(path, disk)
    if uuid and checkpoint.facts.uuid != uuid:
        raise FormatError(
            "checkpoint is of another store", where=str(path), expected=uuid.hex(), got=checkpoint.facts.uuid.hex()
        )
    entries = checkpoint.index.pages
    if pages is not None:
        ids = np.unique(np.array(list(pages), np.uint64))
        missing = np.setdiff1d(ids, entries.numbers[:, 0])
        if len(missing):
            raise PageNotFound("checkpoint has no such page", where=str(path), got=str(missing[0]))
        entries = entries.rows(np.isin(entries.numbers[:, 0], ids))
    state = State()
    state.take(_images(disk, checkpoint, entries))
    if pages is None and xxh3_128(entries.whole_digest_input()) != checkpoint.root:
        raise ChecksumError("pages of the checkpoint are not those it was made of", where=str(path))
    state.lsn, state.time_ns = checkpoint.facts.lsn, checkpoint.facts.time_ns
    state.marks, state.sources = dict(checkpoint.index.marks), dict(checkpoint.index.sources)
    state.max_generation = max(state.max_generation, checkpoint.index.max_generation)
    return state


def _images(disk: Disk, checkpoint: Checkpoint, entries: Entries) -> list[PageImage]:
    """Return pages in the order of their entries; workers read and check what lies side by side."""
    order, runs = _runs(checkpoint, entries)
    placed = _Reading(disk, entries.rows(order))
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[None]] = deque()
        for holder, rows in runs:
            waiting.append(pool.submit(placed.read, holder, rows, placed.room(rows)))
            while len(waiting) > _AHEAD:
                waiting.popleft().result()
        for made in waiting:
            made.result()
    return placed.images(np.argsort(order, kind="stable"))


def _runs(checkpoint: Checkpoint, entries: Entries) -> tuple[NDArray[np.int64], list[tuple[Path, slice]]]:
    """Return the order in which entries lie in their files, and runs of that order: side by side, some MiB."""
    order = np.lexsort((entries.numbers[:, OFFSET], entries.numbers[:, HOLDER]))
    sizes, stored, offsets, holders = (entries.column(number)[order] for number in (SIZE, STORED, OFFSET, HOLDER))
    ends = offsets + stored
    bad = (sizes <= 0) | (sizes > PAGE_BYTES_MAX) | (stored < 0) | (stored > sizes) | (offsets < 0) | (ends < 0)
    if bad.any():
        size = entries.numbers[order][bad][0, SIZE]
        raise FormatError("page in the checkpoint has no size", where=str(checkpoint.path), got=str(size))
    gaps = offsets[1:] - ends[:-1]
    apart = (holders[1:] != holders[:-1]) | (gaps < 0) | (gaps >= ALIGN)
    borders = [0, *(np.flatnonzero(apart) + 1).tolist(), len(order)]
    runs = []
    for first, last in pairwise(borders):
        for rows in groups_of(np.diff(ends[first:last], prepend=offsets[first : first + 1]), GROUP_BYTES):
            holder = _holder(checkpoint, int(holders[first]))
            runs.append((holder, slice(first + rows.start, first + rows.stop)))
    return order, runs


def _holder(checkpoint: Checkpoint, lsn: int) -> Path:
    """Return the file that has pages. A checkpoint may have been given another name."""
    own = lsn == checkpoint.facts.lsn
    return checkpoint.path if own else checkpoint.path.with_name(checkpoint_name(lsn))


class _Reading:
    """Pages on their way from files into memory: entries in the order in which they lie."""

    def __init__(self, disk: Disk, entries: Entries) -> None:
        self._disk = disk
        self._entries = entries
        self._offsets, self._stored = entries.column(OFFSET), entries.column(STORED)
        self._ends = self._offsets + self._stored
        self._slab = np.empty(0, np.uint8)
        self._data: list[NDArray[np.uint8]] = [self._slab] * len(entries)

    def room(self, rows: slice) -> NDArray[np.uint8]:
        """Return memory for a run: of a slab that many share, so that the system maps large pages where it can."""
        begin, end = self._window(rows)
        wanted = end - begin
        if wanted > _SLAB_BYTES:
            return np.empty(0, np.uint8)  # larger than what a damaged index may ask for: its file is looked at first
        if self._slab.size < wanted:
            left = int(self._stored[rows.start :].sum()) + ALIGN * len(self._stored)
            left += 2 * BLOCK_BYTES * (left // GROUP_BYTES + 1)
            self._slab = fresh_memory(max(wanted, min(left, _SLAB_BYTES)))
        room, self._slab = self._slab[:wanted], self._slab[-(-wanted // BLOCK_BYTES * BLOCK_BYTES) :]
        have_ready(room)  # while workers read what was asked for before
        return room

    def _window(self, rows: slice) -> tuple[int, int]:
        """Return from where to where a run is read: whole blocks of the file, if it is large."""
        start, end = int(self._offsets[rows.start]), int(self._ends[rows.stop - 1])
        if end - start < LEAST_BYTES:
            return start, end
        return start // BLOCK_BYTES * BLOCK_BYTES, -(-end // BLOCK_BYTES) * BLOCK_BYTES

    def read(self, holder: Path, rows: slice, room: NDArray[np.uint8]) -> None:
        """Read a run and check its pages."""
        end = int(self._ends[rows.stop - 1])
        if end > self._disk.size_bytes(holder):
            raise ChecksumError("page in the checkpoint lies behind its end", where=str(holder))
        begin, stop = self._window(rows)
        room = room if room.size else fresh_memory(stop - begin)
        got = self._disk.read_into(holder, begin, room.data)
        if got < end - begin:
            raise ChecksumError("file of the checkpoint became shorter", where=str(holder))
        self._check(holder, rows, room, begin)

    def _check(self, holder: Path, rows: slice, room: NDArray[np.uint8], start: int) -> None:
        """Keep the pages of a run that was read to `room`, each a part of it where it is stored as it was."""
        entries = self._entries.rows(np.arange(rows.start, rows.stop))
        codecs, sizes = entries.column(CODEC), entries.column(SIZE)
        starts, stored = self._offsets[rows] - start, self._stored[rows]
        pieces = [room[at : at + size] for at, size in zip(starts.tolist(), stored.tolist(), strict=True)]
        for row in np.flatnonzero(codecs != RAW).tolist():
            pieces[row] = _unpacked(holder, int(codecs[row]), pieces[row], int(sizes[row]))
        found = np.empty((len(pieces), DIGEST_BYTES), np.uint8)
        plain = codecs == RAW
        found[plain] = xxh3_128_many(room.data, starts[plain], stored[plain])
        for row in np.flatnonzero(~plain).tolist():
            found[row] = np.frombuffer(xxh3_128(pieces[row].data), np.uint8)
        bad = (found != entries.digests()).any(axis=1) | (plain & (stored != sizes))
        if bad.any():
            page = entries.numbers[bad][0, 0]
            raise ChecksumError("page in the checkpoint is damaged", where=str(holder), got=f"page {page}")
        self._data[rows] = pieces

    def images(self, order: NDArray[np.int64]) -> list[PageImage]:
        """Return the pages that were read, in an order."""
        entries = self._entries.rows(order)
        data = self._data
        columns = entries.numbers[:, : len(FACTS)].T.tolist()
        return [
            PageImage(page, epoch, lsn, data[row], state, location, residency, width, flags, meta)
            for page, epoch, lsn, _, state, location, residency, width, flags, row, meta in zip(
                *columns, order.tolist(), entries.metas(), strict=True
            )
        ]


def _unpacked(holder: Path, codec: int, stored: NDArray[np.uint8], size_bytes: int) -> NDArray[np.uint8]:
    """Return a page from what is stored of it."""
    if codec != ZSTD:
        raise FormatError("page in the checkpoint has an unknown codec", where=str(holder), got=str(codec))
    try:
        plain = bytearray(zstandard.ZstdDecompressor().decompress(stored.data, max_output_size=size_bytes))
    except zstandard.ZstdError as error:
        raise ChecksumError("page in the checkpoint cannot be unpacked", where=str(holder)) from error
    if len(plain) != size_bytes:
        raise ChecksumError("page in the checkpoint has another size", where=str(holder), got=f"{len(plain)} bytes")
    return np.frombuffer(plain, np.uint8)


def verify_checkpoint(path: Path, *, uuid: bytes = b"", disk: Disk | None = None) -> list[str]:
    """Return what is wrong with a checkpoint (of the store of a uuid, where it is told), a sentence each."""
    try:
        read_checkpoint(path, uuid=uuid, disk=disk)
    except (CorruptPages, PageNotFound) as error:
        return [str(error)]
    except FileNotFoundError as error:
        return [f"checkpoint needs a file that is gone: {error.filename}"]
    return []


def latest_valid(
    folder: Path, *, at_most: int | None = None, uuid: bytes = b"", disk: Disk | None = None
) -> tuple[State, list[str]]:
    """Return the newest sound checkpoint, at or below an LSN, of the store of a uuid where it is told; an empty state
    where there is none. And what is wrong with those that were passed over."""
    wrong: list[str] = []
    for lsn in reversed(list_checkpoints(folder, disk)):
        if at_most is not None and lsn > at_most:
            continue
        path = folder / checkpoint_name(lsn)
        try:
            return read_checkpoint(path, uuid=uuid, disk=disk), wrong
        except (CorruptPages, PageNotFound) as error:
            wrong.append(str(error))
        except FileNotFoundError as error:
            wrong.append(f"checkpoint {path.name} needs a file that is gone: {error.filename}")
    return State(), wrong


def prune_checkpoints(folder: Path, keep: int, disk: Disk | None = None) -> list[str]:
    """Remove all but the newest `keep` checkpoints and those that they are built on; return the names.

    One that cannot be read is none that is kept, and goes when it is older than those. What stays is whole: of one that
    others are built on, all that it is built on stays too.
    """
    disk = disk or OsDisk()
    kept = _newest_readable(folder, keep, disk)
    needed = _built_on(folder, kept, disk)
    oldest = min(kept, default=0)
    gone = [checkpoint_name(lsn) for lsn in list_checkpoints(folder, disk) if lsn not in needed and lsn < oldest]
    for name in reversed(gone):  # the newest first: none may be left without those that hold its pages
        disk.unlink(folder / name)
        disk.sync_folder(folder)
    return gone


def oldest_kept(folder: Path, keep: int, disk: Disk | None = None) -> int:
    """Return the LSN of the oldest of the newest `keep` checkpoints that can be read, 0 for none."""
    return min(_newest_readable(folder, keep, disk or OsDisk()), default=0)


def _built_on(folder: Path, kept: dict[int, Checkpoint], disk: Disk) -> set[int]:
    """Return the LSNs of checkpoints and of all that hold pages of them, of those in turn, and so on."""
    known = dict(kept)
    needed: set[int] = set()
    waiting = set(kept)
    while waiting:
        lsn = waiting.pop()
        needed.add(lsn)
        with suppress(CorruptPages, PageNotFound):
            found = known.get(lsn) or open_checkpoint(folder / checkpoint_name(lsn), disk)
            waiting |= found.index.pages.holders() - needed
    return needed


def _newest_readable(folder: Path, keep: int, disk: Disk) -> dict[int, Checkpoint]:
    found: dict[int, Checkpoint] = {}
    for lsn in reversed(list_checkpoints(folder, disk)):
        if len(found) == keep:
            break
        with suppress(CorruptPages):
            found[lsn] = open_checkpoint(folder / checkpoint_name(lsn), disk)
    return found
