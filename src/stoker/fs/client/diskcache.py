"""Blocks of slices in a folder: what was read once need not come from the store again, even after a restart.

A file holds one block, behind a header with its checksum: a torn or damaged one is dropped and read again. Files appear
whole, by renaming, and are not waited for: the cache may lose what a power failure takes.
"""

import os
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

import crc32c

from stoker.fs.client.counters import Counters
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes

_MAGIC: Final = b"SKBC"
_HEADER: Final = struct.Struct(">4sQIIII")  # magic, slice, generation, block, length, checksum
_SUFFIX: Final = ".new"


class DiskCache:
    """A folder of blocks of one volume's slices, at most `capacity_bytes` of them, the least recently used go first.

    `free_ratio` of the file system stays free. What a disk refuses is no error: the block is read from the store.
    """

    def __init__(
        self, folder: Path, volume: str, block_bytes: int, capacity_bytes: int, counters: Counters, *,
        free_ratio: float = 0.1,
    ) -> None:  # fmt: skip
        self._folder = folder / f"{volume}-{block_bytes}"
        self._capacity_bytes = capacity_bytes
        self._free_ratio = free_ratio
        self._counters = counters
        self._mutex = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()  # name to bytes, in order of use
        self.held_bytes = 0
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._find()

    def _find(self) -> None:
        """Take up what an earlier client left; what it did not finish goes."""
        found: list[tuple[int, str, int]] = []
        with os.scandir(self._folder) as shelves:
            for shelf in shelves:
                if not shelf.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(shelf) as entries:
                    for entry in entries:
                        if entry.name.endswith(_SUFFIX):
                            Path(entry.path).unlink(missing_ok=True)
                            continue
                        facts = entry.stat(follow_symlinks=False)
                        found.append((facts.st_mtime_ns, f"{shelf.name}/{entry.name}", facts.st_size))
        for _, name, size_bytes in sorted(found):
            self._files[name] = size_bytes
            self.held_bytes += size_bytes
        self._shrink()

    def get(self, data: Slice, block: int, length: int) -> Bytes | None:
        """Return a block of `length` bytes, None when it is not here or not sound."""
        name = _name(data, block)
        with self._mutex:
            size_bytes = self._files.get(name)
            if size_bytes is None:
                return None
            self._files.move_to_end(name)
        content = self._read(name, data, block, length) if size_bytes == _HEADER.size + length else None
        if content is None:
            self._counters.disk_dropped += 1
            self._drop(name)
        return content

    def _read(self, name: str, data: Slice, block: int, length: int) -> Bytes | None:
        try:
            file = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                content = os.read(file, _HEADER.size + length + 1)
                os.utime(file)  # the order of use outlives a restart
            finally:
                os.close(file)
        except OSError:
            return None
        if len(content) != _HEADER.size + length:
            return None
        *facts, checksum = _HEADER.unpack_from(content)
        body = memoryview(content)[_HEADER.size :]
        if facts != [_MAGIC, data.id, data.generation, block, length] or crc32c.crc32c(body) != checksum:
            return None
        return body

    def put(self, data: Slice, block: int, content: Bytes) -> None:
        """Keep a block, if there is room."""
        name = _name(data, block)
        size_bytes = _HEADER.size + len(content)
        with self._mutex:
            if name in self._files or size_bytes > self._capacity_bytes:
                return
        path = self._folder / name
        fresh = path.with_name(f"{path.name}.{threading.get_ident()}{_SUFFIX}")
        header = _HEADER.pack(_MAGIC, data.id, data.generation, block, len(content), crc32c.crc32c(content))
        try:
            if not self._has_room(size_bytes):
                return
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fresh.write_bytes(b"".join((header, content)))
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            return
        with self._mutex:
            self.held_bytes += size_bytes - self._files.pop(name, 0)
            self._files[name] = size_bytes
        self._shrink()

    def _has_room(self, size_bytes: int) -> bool:
        facts = os.statvfs(self._folder)
        return facts.f_bavail * facts.f_frsize - size_bytes >= facts.f_blocks * facts.f_frsize * self._free_ratio

    def _shrink(self) -> None:
        while True:
            with self._mutex:
                if self.held_bytes <= self._capacity_bytes:
                    return
                name = next(iter(self._files))
            self._drop(name)

    def _drop(self, name: str) -> None:
        with self._mutex:
            self.held_bytes -= self._files.pop(name, 0)
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:
            return


def _name(data: Slice, block: int) -> str:
    return f"{data.id % 256:02x}/{data.id}.{data.generation}.{block}"
