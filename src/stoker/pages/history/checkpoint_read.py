"""Reading checkpoints: nothing is believed before its checksum is."""

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import xxhash
import zstandard

from stoker.kernels.checking import crc32c
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
    Index,
    PageEntry,
    checkpoint_name,
)
from stoker.pages.history.packing import ALIGN, GROUP_BYTES, RAW, ZSTD
from stoker.pages.history.state import PAGE_BYTES_MAX, State
from stoker.pages.images import PageImage

_INDEX_BYTES_MAX: Final = 1 << 32
_WORKERS: Final = 2
_AHEAD: Final = 3
"""Runs of pages under way at once."""


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
    if xxhash.xxh3_128_digest(encoded) != digest:
        raise ChecksumError("index of the checkpoint is damaged", where=str(path))
    try:
        index = msgspec.msgpack.decode(encoded, type=Index)
    except msgspec.MsgspecError as error:
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
        missing = set(pages) - {entry.page for entry in entries}
        if missing:
            raise PageNotFound("checkpoint has no such page", where=str(path), got=str(min(missing)))
        entries = [entry for entry in entries if entry.page in set(pages)]
    state = State()
    root = xxhash.xxh3_128()
    for image in _images(disk, checkpoint, entries):
        state.put(image)
    for entry in entries:
        root.update(entry.page.to_bytes(8, "little") + entry.digest)
    if pages is None and root.digest() != checkpoint.root:
        raise ChecksumError("pages of the checkpoint are not those it was made of", where=str(path))
    state.lsn, state.time_ns = checkpoint.facts.lsn, checkpoint.facts.time_ns
    state.marks, state.sources = dict(checkpoint.index.marks), dict(checkpoint.index.sources)
    state.max_generation = max(state.max_generation, checkpoint.index.max_generation)
    return state


def _images(disk: Disk, checkpoint: Checkpoint, entries: list[PageEntry]) -> Iterator[PageImage]:
    """Yield pages in the order of their ids; workers read and check what lies side by side."""
    found: dict[int, PageImage] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[list[PageImage]]] = deque()
        for run in _runs(checkpoint, entries):
            waiting.append(pool.submit(_run_images, disk, run))
            while len(waiting) > _AHEAD:
                found.update((image.page, image) for image in waiting.popleft().result())
        for made in waiting:
            found.update((image.page, image) for image in made.result())
    return (found[entry.page] for entry in entries)


def _runs(checkpoint: Checkpoint, entries: list[PageEntry]) -> Iterator[tuple[Path, list[PageEntry]]]:
    """Yield the entries that lie side by side in one file, some MiB at a time."""
    path, run = checkpoint.path, list[PageEntry]()

    def holder(entry: PageEntry) -> Path:
        """A checkpoint may have been given another name."""
        own = entry.holder_lsn == checkpoint.facts.lsn
        return path if own else path.with_name(checkpoint_name(entry.holder_lsn))

    for entry in sorted(entries, key=lambda entry: (entry.holder_lsn, entry.offset)):
        if not 0 < entry.size_bytes <= PAGE_BYTES_MAX or entry.stored_bytes > entry.size_bytes:
            raise FormatError("page in the checkpoint has no size", where=str(path), got=str(entry.size_bytes))
        last = run[-1] if run else entry
        beside = last.holder_lsn == entry.holder_lsn and 0 <= entry.offset - last.offset - last.stored_bytes < ALIGN
        if run and not (beside and entry.offset + entry.stored_bytes - run[0].offset <= GROUP_BYTES):
            yield holder(last), run
            run = []
        run.append(entry)
    if run:
        yield holder(run[0]), run


def _run_images(disk: Disk, run: tuple[Path, list[PageEntry]]) -> list[PageImage]:
    holder, entries = run
    start = entries[0].offset
    data = bytearray(disk.read(holder, start, entries[-1].offset + entries[-1].stored_bytes - start))
    return [_image(holder, entry, memoryview(data)[entry.offset - start :][: entry.stored_bytes]) for entry in entries]


def _image(holder: Path, entry: PageEntry, stored: memoryview) -> PageImage:
    """Return a page from what is stored of it, which becomes its memory where it is as it was."""
    plain: memoryview | bytearray = stored
    if entry.codec == ZSTD:
        try:
            plain = bytearray(zstandard.ZstdDecompressor().decompress(stored, max_output_size=entry.size_bytes))
        except zstandard.ZstdError as error:
            raise ChecksumError("page in the checkpoint cannot be unpacked", where=str(holder)) from error
    elif entry.codec != RAW:
        raise FormatError("page in the checkpoint has an unknown codec", where=str(holder), got=str(entry.codec))
    if len(plain) != entry.size_bytes or xxhash.xxh3_128_digest(plain) != entry.digest:
        raise ChecksumError("page in the checkpoint is damaged", where=str(holder), got=f"page {entry.page}")
    return PageImage(
        entry.page,
        entry.epoch,
        entry.lsn,
        np.frombuffer(plain, np.uint8),
        entry.state,
        entry.location,
        entry.residency,
        entry.elem_width,
        entry.flags,
        entry.meta,
    )


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
            waiting |= {entry.holder_lsn for entry in found.index.pages} - needed
    return needed


def _newest_readable(folder: Path, keep: int, disk: Disk) -> dict[int, Checkpoint]:
    found: dict[int, Checkpoint] = {}
    for lsn in reversed(list_checkpoints(folder, disk)):
        if len(found) == keep:
            break
        with suppress(CorruptPages):
            found[lsn] = open_checkpoint(folder / checkpoint_name(lsn), disk)
    return found
