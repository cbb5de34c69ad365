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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import xxhash
import zstandard

from stoker.core.errors import UsageError
from stoker.kernels.checking import crc32c
from stoker.pages.disk import Disk, OsDisk, disk_error
from stoker.pages.frames import FORMAT_VERSION
from stoker.pages.history.state import State
from stoker.pages.images import PageImage

MAGIC: Final = b"STKCHKPT"
FOOTER_MAGIC: Final = b"STKCHEND"
SUPERBLOCK: Final = struct.Struct("<8sII16sQQQ")
SUPERBLOCK_BYTES: Final = 4096
FOOTER: Final = struct.Struct("<8sQQ16s16s")
FOOTER_BYTES: Final = 128
RAW, ZSTD = 0, 1
CODECS: Final = ("auto", "raw", "zstd")
_ALIGN: Final = 64
_SAMPLE_BYTES: Final = 1 << 16
_WORTH: Final = 0.9
"""A page is compressed where a sample of it shrinks below this part of itself."""
_WRITE_BYTES: Final = 4 << 20
_LEVEL: Final = 1


class CheckpointFacts(msgspec.Struct, frozen=True):
    """What a checkpoint is of. `parent_lsn` names the checkpoint that unchanged pages may be left in, 0 for none."""

    uuid: bytes
    lsn: int
    time_ns: int
    parent_lsn: int = 0
    max_generation: int = 0
    marks: dict[str, int] = {}
    sources: dict[int, str] = {}


class PageEntry(msgspec.Struct, frozen=True, array_like=True):
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

    codec   `auto` compresses pages where a sample shrinks by a tenth, `raw` none, `zstd` all
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
    """Streams pages into a file: large ones straight from where they lie, small ones gathered."""

    def __init__(self, disk: Disk, handle: int, codec: str, parent: Index | None, lsn: int) -> None:
        self._disk = disk
        self._handle = handle
        self._codec = codec
        self._lsn = lsn
        self._parent = {entry.page: entry for entry in parent.pages} if parent else {}
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._at = 0
        self._end = 0

    def write(self, images: Iterable[PageImage], facts: CheckpointFacts) -> Written:
        self._put(_superblock(facts))
        root = xxhash.xxh3_128()
        entries: list[PageEntry] = []
        for image in images:
            entry = self._page(image)
            root.update(entry.page.to_bytes(8, "little") + entry.digest)
            entries.append(entry)
        index = msgspec.msgpack.encode(Index(entries, facts.max_generation, facts.marks, facts.sources))
        index_at = self._put(index)
        footer = FOOTER.pack(FOOTER_MAGIC, index_at, len(index), xxhash.xxh3_128_digest(index), root.digest())
        footer = footer.ljust(FOOTER_BYTES - 4, b"\0")
        self._put(footer + crc32c(footer).to_bytes(4, "little"))
        self._flush()
        own = [entry for entry in entries if entry.holder_lsn == self._lsn]
        return Written(
            Path(),
            self._lsn,
            len(entries),
            sum(entry.size_bytes for entry in entries),
            sum(entry.stored_bytes for entry in own),
            len(entries) - len(own),
        )

    def _page(self, image: PageImage) -> PageEntry:
        before = self._parent.get(image.page)
        if before and (before.epoch, before.lsn, before.size_bytes) == (image.epoch, image.lsn, image.size_bytes):
            return before
        digest = xxhash.xxh3_128_digest(image.data.data)
        codec, stored = RAW, image.data.data
        if self._worth_compressing(image.data):
            packed = self._compressor.compress(stored)
            if len(packed) < image.size_bytes:
                codec, stored = ZSTD, memoryview(packed)
        offset = self._put(stored)
        return PageEntry(
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
            offset,
            len(stored),
            digest,
            self._lsn,
        )

    def _worth_compressing(self, data: np.ndarray) -> bool:
        if self._codec != "auto":
            return self._codec == "zstd"
        middle = max(0, data.size // 2 - _SAMPLE_BYTES // 2)
        sample = np.ascontiguousarray(data[middle : middle + _SAMPLE_BYTES])
        return len(self._compressor.compress(sample.data)) < _WORTH * sample.size

    def _put(self, data: bytes | memoryview) -> int:
        """Add bytes at the next multiple of 64, and return where that is."""
        offset = self._end
        for piece in (data, bytes(-len(data) % _ALIGN)):
            if len(piece):
                # A view of a page may change once the caller goes on: only snapshots' pages come here, which do not.
                self._waiting.append(piece)
                self._waiting_bytes += len(piece)
        self._end = self._at + self._waiting_bytes
        if self._waiting_bytes >= _WRITE_BYTES:
            self._flush()
        return offset

    def _flush(self) -> None:
        small = [piece for piece in self._waiting if len(piece) < _WRITE_BYTES // 4]
        pieces = [b"".join(self._waiting)] if len(small) == len(self._waiting) else self._waiting
        self._disk.write(self._handle, self._at, pieces)
        self._at, self._waiting, self._waiting_bytes = self._end, [], 0


def _superblock(facts: CheckpointFacts) -> bytes:
    body = SUPERBLOCK.pack(MAGIC, FORMAT_VERSION, 0, facts.uuid, facts.lsn, facts.time_ns, facts.parent_lsn).ljust(
        SUPERBLOCK_BYTES - 4, b"\0"
    )
    return body + crc32c(body).to_bytes(4, "little")


def entries_held(index: Index, lsn: int) -> Iterator[PageEntry]:
    """Yield the entries whose bytes lie in the checkpoint of this LSN."""
    return (entry for entry in index.pages if entry.holder_lsn == lsn)


def should_be_whole(whole_bytes: int, chain_stored_bytes: int, chain_length: int, *, length_max: int = 16) -> bool:
    """Tell whether the next checkpoint should hold every page: chains cost time to restore and files to keep.

    whole_bytes         of all pages
    chain_stored_bytes  stored by the incremental checkpoints since the last whole one
    """
    return chain_length >= length_max or chain_stored_bytes > whole_bytes // 2
