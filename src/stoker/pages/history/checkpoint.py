"""Checkpoint files: all pages as of one LSN, written beside the log and made valid by one rename.

`checkpoint-<LSN, 20 digits>.stkc`:

| part | what |
|---|---|
| superblock, 4 KiB | magic, version, uuid, LSN, time, parent's LSN (0 for none), CRC-32C |
| pages | each at a multiple of 64 bytes, raw or zstd |
| index | MessagePack, columns over pages; marks, sources, largest generation |
| footer, 128 bytes | magic, offset and bytes of the index, its XXH3-128, digest over all pages' hashes, CRC-32C |

A page that is the same as in an earlier checkpoint can be left there: the index names that checkpoint.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from stoker.core.errors import UsageError
from stoker.kernels.checking import crc32c
from stoker.pages.disk import Disk, OsDisk, disk_error
from stoker.pages.frames import FORMAT_VERSION
from stoker.pages.history.packing import ALIGN, GROUP_BYTES, Packed, pack_group
from stoker.pages.history.state import State
from stoker.pages.images import PageImage

MAGIC: Final = b"STKCHKPT"
FOOTER_MAGIC: Final = b"STKCHEND"
SUPERBLOCK: Final = struct.Struct("<8sII16sQQQ")
SUPERBLOCK_BYTES: Final = 4096
FOOTER: Final = struct.Struct("<8sQQ16s16s")
FOOTER_BYTES: Final = 128
CODECS: Final = ("auto", "raw", "zstd")
_WORKERS: Final = 2
_AHEAD: Final = 3
"""Groups of pages under way beside the one that is being made."""


class CheckpointFacts(msgspec.Struct, frozen=True):
    """What a checkpoint is of. `parent_lsn` names the checkpoint that unchanged pages may be left in, 0 for none."""

    uuid: bytes
    lsn: int
    time_ns: int
    parent_lsn: int = 0
    max_generation: int = 0
    marks: dict[str, int] = {}
    sources: dict[int, str] = {}


class PageEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page in the index. `holder_lsn` is the LSN of the checkpoint that has its bytes."""

    page: int
    epoch: int
    lsn: int
    size_bytes: int
    state: int
    location: int
    residency: int
    elem_width: int
    flags: int
    meta: bytes
    codec: int
    offset: int
    stored_bytes: int
    digest: bytes
    holder_lsn: int


class Index(msgspec.Struct, frozen=True):
    """All that a checkpoint tells beside the bytes of its pages."""

    pages: list[PageEntry]
    max_generation: int
    marks: dict[str, int]
    sources: dict[int, str]


class Written(msgspec.Struct, frozen=True):
    """What writing a checkpoint did."""

    path: Path
    lsn: int
    pages: int
    page_bytes: int
    stored_bytes: int
    left_pages: int


def checkpoint_name(lsn: int) -> str:
    """Return the file name of a checkpoint."""
    return f"checkpoint-{lsn:020d}.stkc"


def write_checkpoint(
    folder: Path,
    images: Iterable[PageImage],
    facts: CheckpointFacts,
    *,
    codec: str = "auto",
    parent: Index | None = None,
    disk: Disk | None = None,
) -> Written:
    """Write a checkpoint, and return what that took; it is durable, or there is no file of its name.

    codec   `auto` compresses pages where a sample shrinks enough to be worth the time, `raw` none, `zstd` all
    parent  index of the parent: pages with the same epoch and LSN are left there

    Raises OutOfSpace and PagesError for the disk's failures, UsageError for an unknown codec.
    """
    if codec not in CODECS:
        raise UsageError("unknown codec of a checkpoint", expected=" or ".join(CODECS), got=codec)
    disk = disk or OsDisk()
    path = folder / checkpoint_name(facts.lsn)
    born = path.with_suffix(".new")
    try:
        if born.name in disk.names(folder):
            disk.unlink(born)
        handle = disk.open(born, create=True)
        try:
            writer = _Writer(disk, handle, codec, parent, facts.lsn)
            written = writer.write(images, facts)
            disk.sync(handle, full=True)
        finally:
            disk.close(handle)
        disk.rename(born, path)
        disk.sync_folder(folder)
    except OSError as error:
        _remove(disk, born)
        raise disk_error(error, "checkpoint cannot be written", path) from error
    except BaseException:
        _remove(disk, born)
        raise
    return msgspec.structs.replace(written, path=path)


def write_state(folder: Path, state: State, uuid: bytes) -> Written:
    """Write a state as a checkpoint of the store of this uuid; see `write_checkpoint`."""
    facts = CheckpointFacts(
        uuid,
        state.lsn,
        state.time_ns,
        max_generation=state.max_generation,
        marks=state.marks,
        sources=state.sources,
    )
    return write_checkpoint(folder, (state.pages[page] for page in sorted(state.pages)), facts)


def _remove(disk: Disk, path: Path) -> None:
    try:
        disk.unlink(path)
    except OSError:
        return  # it was never made, or the disk is gone; the next checkpoint removes it


class _Writer:
    """Streams pages into a file: group by group, in workers that hash and compress them and write what came before.

    Nothing but views of pages is held: only snapshots' pages come here, which do not change.
    """

    def __init__(self, disk: Disk, handle: int, codec: str, parent: Index | None, lsn: int) -> None:
        self._disk = disk
        self._handle = handle
        self._codec = codec
        self._lsn = lsn
        self._parent = {entry.page: entry for entry in parent.pages} if parent else {}
        self._entries: list[PageEntry] = []
        self._packing: deque[Future[Packed]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._end = 0

    def write(self, images: Iterable[PageImage], facts: CheckpointFacts) -> Written:
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                self._put(pool, [_superblock(facts)])
                for group in self._groups(images):
                    self._packing.append(pool.submit(pack_group, group, self._codec))
                    self._settle(pool, _AHEAD)
                self._settle(pool, 0)
                entries = sorted(self._entries, key=lambda entry: entry.page)
                self._finish(pool, entries, facts)
                self._wait(0)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        own = [entry for entry in entries if entry.holder_lsn == self._lsn]
        return Written(
            Path(),
            self._lsn,
            len(entries),
            sum(entry.size_bytes for entry in entries),
            sum(entry.stored_bytes for entry in own),
            len(entries) - len(own),
        )

    def _finish(self, pool: ThreadPoolExecutor, entries: list[PageEntry], facts: CheckpointFacts) -> None:
        root = xxhash.xxh3_128()
        for entry in entries:
            root.update(entry.page.to_bytes(8, "little") + entry.digest)
        index = msgspec.msgpack.encode(Index(entries, facts.max_generation, facts.marks, facts.sources))
        index_at = self._put(pool, [index])
        footer = FOOTER.pack(FOOTER_MAGIC, index_at, len(index), xxhash.xxh3_128_digest(index), root.digest())
        footer = footer.ljust(FOOTER_BYTES - 4, b"\0")
        self._put(pool, [footer + crc32c(footer).to_bytes(4, "little")])

    def _groups(self, images: Iterable[PageImage]) -> Iterator[list[PageImage]]:
        """Yield the pages that are not left with the parent, some MiB at a time."""
        group: list[PageImage] = []
        group_bytes = 0
        for image in images:
            size_bytes = image.size_bytes
            before = self._parent.get(image.page)
            if before and (before.epoch, before.lsn, before.size_bytes) == (image.epoch, image.lsn, size_bytes):
                self._entries.append(before)
                continue
            if group and group_bytes + size_bytes > GROUP_BYTES:
                yield group
                group, group_bytes = [], 0
            group.append(image)
            group_bytes += size_bytes
        if group:
            yield group

    def _settle(self, pool: ThreadPoolExecutor, ahead: int) -> None:
        """Write the groups that are packed, in order, until only so many are on their way."""
        while len(self._packing) > ahead:
            packed = self._packing.popleft().result()
            start = self._put(pool, packed.pieces)
            for image, (codec, offset, stored_bytes, digest) in zip(packed.images, packed.stored, strict=True):
                self._entries.append(
                    PageEntry(
                        image.page,
                        image.epoch,
                        image.lsn,
                        image.size_bytes,
                        image.state,
                        image.location,
                        image.residency,
                        image.elem_width,
                        image.flags,
                        image.meta,
                        codec,
                        start + offset,
                        stored_bytes,
                        digest,
                        self._lsn,
                    )
                )
            self._wait(ahead)

    def _wait(self, ahead: int) -> None:
        while len(self._writing) > ahead:
            self._writing.popleft().result()

    def _put(self, pool: ThreadPoolExecutor, pieces: Sequence[bytes | memoryview]) -> int:
        """Have pieces written behind all others, padded to a multiple of 64, and return where that is."""
        offset, size = self._end, sum(len(piece) for piece in pieces)
        pad = -size % ALIGN
        if size:
            padded = [*pieces, bytes(pad)] if pad else pieces
            self._writing.append(pool.submit(self._disk.write, self._handle, offset, padded))
        self._end = offset + size + pad
        return offset


def _superblock(facts: CheckpointFacts) -> bytes:
    body = SUPERBLOCK.pack(MAGIC, FORMAT_VERSION, 0, facts.uuid, facts.lsn, facts.time_ns, facts.parent_lsn).ljust(
        SUPERBLOCK_BYTES - 4, b"\0"
    )
    return body + crc32c(body).to_bytes(4, "little")


def entries_held(index: Index, lsn: int) -> Iterator[PageEntry]:
    """Yield the entries whose bytes lie in the checkpoint of this LSN."""
    return (entry for entry in index.pages if entry.holder_lsn == lsn)
