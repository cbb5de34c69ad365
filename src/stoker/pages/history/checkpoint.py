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
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stoker.core.errors import UsageError
from stoker.kernels.checking import crc32c, xxh3_128
from stoker.pages.columns import SIZE, PageColumns, columns_of, groups_of
from stoker.pages.disk import Disk, OsDisk, disk_error
from stoker.pages.frames import FORMAT_VERSION
from stoker.pages.history.index import Entries, Index, encode_index
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
    images: Iterable[PageImage] | PageColumns,
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
        self._parent = parent.pages if parent else Entries.none()
        self._entries = [Entries.none()]
        self._left = 0
        self._stored_bytes = 0
        self._packing: deque[Future[Packed]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._end = 0

    def write(self, images: Iterable[PageImage] | PageColumns, facts: CheckpointFacts) -> Written:
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                self._put(pool, [_superblock(facts)])
                for pages in columns_of(images, GROUP_BYTES):
                    own = self._own(pages)
                    for rows in groups_of(own.sizes, GROUP_BYTES):
                        self._packing.append(pool.submit(pack_group, own.rows(rows), self._codec))
                        self._settle(pool, _AHEAD)
                self._settle(pool, 0)
                entries = Entries.joined(self._entries)
                self._finish(pool, entries, facts)
                self._wait(0)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        page_bytes = int(entries.column(SIZE).sum())
        return Written(Path(), self._lsn, len(entries), page_bytes, self._stored_bytes, self._left)

    def _finish(self, pool: ThreadPoolExecutor, entries: Entries, facts: CheckpointFacts) -> None:
        root = xxh3_128(entries.whole_digest_input())
        index = encode_index(Index(entries, facts.max_generation, facts.marks, facts.sources))
        index_at = self._put(pool, [index])
        footer = FOOTER.pack(FOOTER_MAGIC, index_at, len(index), xxh3_128(index), root)
        footer = footer.ljust(FOOTER_BYTES - 4, b"\0")
        self._put(pool, [footer + crc32c(footer).to_bytes(4, "little")])

    def _own(self, pages: PageColumns) -> PageColumns:
        """Return the pages that are not left with the parent, and keep the entries of the others."""
        before = self._parent.numbers
        if not len(before):
            return pages
        rows = np.minimum(np.searchsorted(before[:, 0], pages.facts[:, 0]), len(before) - 1)
        left = (before[rows, : SIZE + 1] == pages.facts[:, : SIZE + 1]).all(axis=1)
        self._entries.append(self._parent.rows(rows[left]))
        self._left += int(left.sum())
        return pages.rows(~left)

    def _settle(self, pool: ThreadPoolExecutor, ahead: int) -> None:
        """Write the groups that are packed, in order, until only so many are on their way."""
        while len(self._packing) > ahead:
            packed = self._packing.popleft().result()
            packed.stored[:, 1] += self._put(pool, packed.pieces)
            self._entries.append(Entries.made(packed.pages, packed.stored, packed.digests, self._lsn))
            self._stored_bytes += int(packed.stored[:, 2].sum())
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
