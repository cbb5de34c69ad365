"""Large shards: a file each, in folders by their hash.

A file is named `.new` until its bytes are on the disk, and `.shard` from then on: what has that name was durable, and
what has the other is looked through after a crash before anybody is given it. The name only helps to find a file; what
it holds is told by the header in it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, StoreError
from stoker.core.units import MiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.checksums import cell_crcs, first_bad_cell
from stoker.fs.disk.files import Files, SyncFailedError, telling, told
from stoker.fs.disk.interface import Bytes, ShardHeader, ShardId
from stoker.kernels import checking

FOLDERS: Final = 256
NEW: Final = ".new"
DONE: Final = ".shard"
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{2})(\.new|\.shard)")
_PIECE_BYTES: Final = 4 * MiB


class FileHead(msgspec.Struct, frozen=True):
    """What the beginning of a file says."""

    header: ShardHeader
    token: int
    data_start: int


class Wholes:
    """The files below one folder."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._made: set[Path] = set()

    def folder_of(self, shard: ShardId) -> Path:
        """Return the folder that a shard's file belongs into."""
        key = b"%d.%d.%d" % (shard.slice_id, shard.generation, shard.index)
        return self._folder / f"{checking.crc32c(key) % FOLDERS:02x}"

    def path(self, shard: ShardId, suffix: str = DONE) -> Path:
        """Return the path of a shard's file."""
        return self.folder_of(shard) / f"{shard.slice_id:016x}-{shard.generation:016x}-{shard.index:02x}{suffix}"

    def write(self, header: ShardHeader, parts: Sequence[Bytes], token: int) -> tuple[int, int]:
        """Write a new file; return its handle and size, bytes. Of one that fails nothing is left. Raises StoreError."""
        path = self.path(header.shard, NEW)
        prefix = layout.pack_file_prefix(token, layout.pack_header(header))
        size_bytes = len(prefix) + header.shard_bytes
        with telling("shard cannot be written", str(path)):
            self._have_folder(path.parent)
            with suppress(FileNotFoundError):
                self._files.unlink(path)  # of a writing that failed
            handle = self._files.open(path, create=True)
            try:
                self._files.reserve(handle, size_bytes)
                pieces = [memoryview(prefix), *(memoryview(part).cast("B") for part in parts)]
                self._files.write_around(handle, 0, [piece for piece in pieces if len(piece)])
            except BaseException:
                self._files.close(handle)
                with suppress(OSError):
                    self._files.unlink(path)
                raise
        return handle, size_bytes

    def _have_folder(self, folder: Path) -> None:
        if folder not in self._made:
            self._files.make_folder(folder)
            self._made.add(folder)

    def finish(self, shard: ShardId, handle: int) -> None:
        """Make a file's bytes durable and give it its lasting name, which is durable when its folder is synced next.

        The handle is closed. Raises SyncFailedError, StoreError.
        """
        new = self.path(shard, NEW)
        try:
            self._files.sync(handle)
        except OSError as error:
            raise SyncFailedError("sync of a shard failed", where=str(new), got=str(error.strerror)) from error
        finally:
            self._files.close(handle)
        with telling("shard cannot be given its name", str(new)):
            self._files.rename(new, self.path(shard, DONE))

    def open(self, shard: ShardId) -> tuple[int, FileHead]:
        """Return a handle for reading and what the file's beginning says. Raises NotFoundError, CorruptError."""
        found: OSError | None = None
        for suffix in (DONE, NEW, DONE):  # it may be renamed in between
            path = self.path(shard, suffix)
            try:
                handle = self._files.open_reading(path)
            except FileNotFoundError as error:
                found = error
                continue
            except OSError as error:
                raise told(error, "shard cannot be read", str(path)) from error
            try:
                return handle, self._head(handle, path, shard)
            except BaseException:
                self._files.close(handle)
                raise
        raise NotFoundError("shard has no file", where=str(self.path(shard))) from found

    def _head(self, handle: int, path: Path, shard: ShardId | None) -> FileHead:
        memory = memoryview(bytearray(layout.FILE_ALIGN_BYTES))
        with telling("shard cannot be read", str(path)):
            start = memory[: self._files.fill(handle, 0, memory)]
            token, data_start = layout.unpack_file_prefix(start, str(path))
            if data_start > len(memory):
                memory = memoryview(bytearray(data_start))
                start = memory[: self._files.fill(handle, 0, memory)]
            header = layout.unpack_header(start[layout.FILE_PREFIX_BYTES : data_start], str(path))
            length = self._files.length(handle)
        if shard is not None and header.shard != shard:
            raise CorruptError("file holds another shard", where=str(path), got=str(header.shard))
        if length != data_start + header.shard_bytes:
            raise CorruptError(
                "file of a shard is torn", where=str(path), expected=f"{data_start + header.shard_bytes} bytes",
                got=f"{length}",
            )  # fmt: skip
        return FileHead(header, token, data_start)

    def look(self, path: Path, *, deep: bool) -> FileHead:
        """Return what a file says; `deep` verifies its bytes too. Raises CorruptError, StoreError."""
        with telling("shard cannot be read", str(path)):
            handle = self._files.open_reading(path)
        try:
            head = self._head(handle, path, None)
            if deep:
                cell = bad_cell(self._files, handle, head.data_start, head.header)
                if cell is not None:
                    raise CorruptError("file of a shard is torn", where=str(path), got=f"a difference in cell {cell}")
            return head
        finally:
            self._files.close(handle)

    def settle(self, path: Path, shard: ShardId) -> None:
        """Give a file that was found, and is whole, its lasting name and place, durable. Raises StokerError."""
        right = self.path(shard, DONE)
        if path == right:
            return
        with telling("shard cannot be given its name", str(path)):
            handle = self._files.open(path)
            try:
                self._files.sync(handle)
            finally:
                self._files.close(handle)
            self._have_folder(right.parent)
            self._files.rename(path, right)
            for folder in {path.parent, right.parent}:
                self._files.sync_folder(folder)

    def unlink(self, shard: ShardId) -> None:
        """Remove a shard's file, whatever it is called. Raises StoreError."""
        for suffix in (NEW, DONE):
            with suppress(NotFoundError), telling("shard cannot be removed", str(self.path(shard, suffix))):
                self._files.unlink(self.path(shard, suffix))

    def sync_folders(self, folders: Sequence[Path]) -> None:
        """Make the names in folders durable. Raises SyncFailedError."""
        for folder in folders:
            try:
                self._files.sync_folder(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SyncFailedError("sync of a folder failed", where=str(folder), got=str(error.strerror)) from error

    def walk(self) -> Iterator[Path]:
        """Yield every file that is called a shard, in whichever folder below ours it lies. Raises StoreError."""
        folders = [self._folder]
        while folders:
            folder = folders.pop()
            with telling("folder of shards cannot be read", str(folder)):
                folders += reversed(self._files.folders(folder))
                names = self._files.names(folder)
            yield from (folder / name for name in names if _NAME.fullmatch(name))


def shard_named(path: Path) -> ShardId:
    """Return which shard a file is called. Raises StoreError for another file's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise StoreError("file is not called a shard", where=str(path))
    return ShardId(*(int(match[number], 16) for number in (1, 2, 3)))


def bad_cell(files: Files, handle: int, data_start: int, header: ShardHeader) -> int | None:
    """Return the first cell whose bytes are not those of the header, None when all are. Raises OSError."""
    cells_a_piece = max(1, _PIECE_BYTES // header.cell_bytes)
    memory = memoryview(bytearray(min(cells_a_piece * header.cell_bytes, header.shard_bytes)))
    for first in range(0, header.cells, cells_a_piece):
        start = first * header.cell_bytes
        wanted = memory[: min(len(memory), header.shard_bytes - start)]
        got = files.fill(handle, data_start + start, wanted)
        if got < len(wanted):
            return first + got // header.cell_bytes
        cell = first_bad_cell(header, cell_crcs([wanted], header.cell_bytes), first)
        if cell is not None:
            return cell
    return None
