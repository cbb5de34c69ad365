"""A disk in memory that knows what a power loss may leave of it.

Between two syncs of a file any of its written sectors may have reached the disk, in any order, and not others; a
sector is whole or as it was. A name that was made, changed or removed since the last sync of its folder may be as it
was. This follows ALICE (Pillai et al., OSDI 2014) and B3 (Mohan et al., OSDI 2018); the sector is 512 bytes.

    disk = CrashDisk()
    ... write through it ...
    for crashed in disk.crash_states(seed=1, at_each=50):
        recover(folder, disk=crashed.disk)      # crashed.step tells how far the writer had come
"""

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512


@dataclass
class _File:
    """One file: as programs see it, as it surely is on the disk, and what was written since."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def copy(self) -> "_File":
        return _File(bytearray(self.seen), bytearray(self.durable), list(self.pending), list(self.sizes))


@dataclass(frozen=True)
class CrashState:
    """A disk as a power loss behind operation `step` may have left it."""

    step: int
    disk: "CrashDisk"


class CrashDisk:
    """Files in memory, for the `Disk` of `stoker.pages.disk`. `step` counts the operations that change something.

    record  whether to keep the states from which crash states are made
    fail    called with each operation's name; what it raises, the operation raises
    """

    def __init__(self, *, record: bool = True, fail: Callable[[str], None] | None = None) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[Path, int] = {}
        self._durable_names: dict[Path, int] = {}
        self._pending_names: list[tuple[Path, int | None]] = []
        self._handles: dict[int, int] = {}
        self._next = 1
        self._record = record
        self._fail = fail
        self._past: list[CrashDisk] = []
        self.step = 0

    # -- the interface of a disk ---------------------------------------------------------------------------------

    def open(self, path: Path, *, create: bool = False) -> int:
        """Return a handle; see `Disk`."""
        self._may_fail("open")
        if create:
            if path in self._names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            number = self._next
            self._files[number] = _File()
            self._name(path, number)
            self._done()
        elif path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._next += 1
        self._handles[self._next] = self._names[path]
        handle = self._next
        self._next += 1
        return handle

    def close(self, handle: int) -> None:
        """Close a handle."""
        del self._handles[handle]

    def write(self, handle: int, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write; see `Disk`."""
        self._may_fail("write")
        file, data = self._files[self._handles[handle]], b"".join(bytes(piece) for piece in pieces)
        self._grow(file, offset + len(data))
        file.seen[offset : offset + len(data)] = data
        position = offset
        while position < offset + len(data):
            end = min(offset + len(data), (position // SECTOR_BYTES + 1) * SECTOR_BYTES)
            file.pending.append((position, data[position - offset : end - offset]))
            position = end
        self._done()

    def write_around(self, handle: int, offset: int, pieces: Sequence[memoryview]) -> None:
        """Write past a cache: durable no sooner than what is written through it."""
        self.write(handle, offset, pieces)

    def _grow(self, file: _File, size_bytes: int) -> None:
        if size_bytes > len(file.seen):
            file.seen.extend(bytes(size_bytes - len(file.seen)))
            file.sizes.append(size_bytes)

    def reserve(self, handle: int, size_bytes: int) -> None:
        """Have room; see `Disk`."""
        self._may_fail("reserve")
        self._grow(self._files[self._handles[handle]], size_bytes)
        self._done()

    def nameless(self, folder: Path, size_bytes: int, going: Callable[[], bool]) -> int | None:
        """Make a file of durable zeros without a name; see `Disk`."""
        self._may_fail("nameless")
        if not going():
            return None
        self._files[self._next] = _File(bytearray(size_bytes), bytearray(size_bytes))
        self._handles[self._next + 1] = self._next
        self._next += 2
        self._done()
        return self._next - 1

    def link(self, handle: int, path: Path) -> None:
        """Name a nameless file; see `Disk`."""
        self._may_fail("link")
        if path in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._name(path, self._handles[handle])
        self._done()

    def start(self, handle: int, offset: int, size_bytes: int) -> None:
        """Begin to write; see `Disk`. What was written may be on the disk anyway, or not."""

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut or grow; see `Disk`."""
        self._may_fail("truncate")
        file = self._files[self._handles[handle]]
        self._grow(file, size_bytes)
        del file.seen[size_bytes:]
        file.sizes.append(size_bytes)
        self._done()

    def sync(self, handle: int, *, full: bool = False) -> None:
        """Make a file durable; see `Disk`."""
        self._may_fail("sync")
        file = self._files[self._handles[handle]]
        file.durable = bytearray(file.seen)
        file.pending, file.sizes = [], []
        self._done()

    def sync_folder(self, folder: Path) -> None:
        """Make names durable; see `Disk`."""
        self._may_fail("sync_folder")
        kept: list[tuple[Path, int | None]] = []
        for path, number in self._pending_names:
            if path.parent == folder:
                _set_name(self._durable_names, path, number)
            else:
                kept.append((path, number))
        self._pending_names = kept
        self._done()

    def rename(self, old: Path, new: Path) -> None:
        """Give another name; see `Disk`. Both names change at once, or neither does."""
        self._may_fail("rename")
        number = self._names.pop(old)
        self._names[new] = number
        self._pending_names += [(new, number), (old, None)]
        self._done()

    def unlink(self, path: Path) -> None:
        """Remove a name; see `Disk`."""
        self._may_fail("unlink")
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._name(path, None)
        self._done()

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """Return bytes; see `Disk`."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        seen = self._files[self._names[path]].seen
        return bytes(seen[offset:] if size_bytes < 0 else seen[offset : offset + size_bytes])

    def read_into(self, path: Path, offset: int, memory: memoryview) -> int:
        """Fill memory; see `Disk`."""
        found = self.read(path, offset, memory.nbytes)
        memory[: len(found)] = found
        return len(found)

    def size_bytes(self, path: Path) -> int:
        """Return a size; see `Disk`."""
        return len(self.read(path))

    def names(self, folder: Path) -> list[str]:
        """Return names; see `Disk`."""
        return sorted(path.name for path in self._names if path.parent == folder)

    # -- crashes -------------------------------------------------------------------------------------------------

    def _name(self, path: Path, number: int | None) -> None:
        _set_name(self._names, path, number)
        self._pending_names.append((path, number))

    def _may_fail(self, operation: str) -> None:
        if self._fail:
            self._fail(operation)

    def _done(self) -> None:
        self.step += 1
        if self._record:
            self._past.append(self._frozen())

    def _frozen(self) -> "CrashDisk":
        twin = type(self)(record=False)
        twin._files = {number: file.copy() for number, file in self._files.items()}
        twin._names, twin._durable_names = dict(self._names), dict(self._durable_names)
        twin._pending_names, twin.step, twin._next = list(self._pending_names), self.step, self._next
        return twin

    def crash_states(self, seed: int, at_each: int) -> Iterator[CrashState]:
        """Yield, for each operation, up to `at_each` disks that a power loss behind it may leave; the same for a seed.

        Among them are always the one with all that was written and the one with only what is durable; disks that are
        the same as another of the same operation come once.
        """
        chance = random.Random(seed)  # noqa: S311 - a choice of tests, not a secret
        for past in self._past:
            seen: set[int] = set()
            for index in range(at_each):
                part = (1.0, 0.0)[index] if index < 2 else chance.random()
                left = past._crashed(chance, part)
                mark = hash(tuple(sorted((str(path), bytes(left._files[n].seen)) for path, n in left._names.items())))
                if mark not in seen:
                    seen.add(mark)
                    yield CrashState(past.step, left)

    def _crashed(self, chance: random.Random, part: float) -> "CrashDisk":
        """Return a disk on which each pending change is with probability `part`."""
        left = type(self)(record=False)
        left._next = self._next
        for file_number, file in self._files.items():
            data = bytearray(file.durable)
            sizes = [size for size in file.sizes if chance.random() < part]
            for offset, sector in file.pending:
                if chance.random() < part:
                    data.extend(bytes(max(0, offset + len(sector) - len(data))))
                    data[offset : offset + len(sector)] = sector
            if sizes:
                data.extend(bytes(max(0, sizes[-1] - len(data))))
                del data[sizes[-1] :]
            left._files[file_number] = _File(data, bytearray(data))
        names = dict(self._durable_names)
        index = 0
        while index < len(self._pending_names):
            path, number = self._pending_names[index]
            # The two halves of a rename stand side by side, the new name first.
            pair = index + 1 < len(self._pending_names) and self._is_rename(index)
            if chance.random() < part:
                _set_name(names, path, number)
                if pair:
                    _set_name(names, self._pending_names[index + 1][0], None)
            index += 2 if pair else 1
        left._names, left._durable_names = names, dict(names)
        return left

    def _is_rename(self, index: int) -> bool:
        (_, number), (_, after) = self._pending_names[index], self._pending_names[index + 1]
        return number is not None and after is None


def _set_name(names: dict[Path, int], path: Path, number: int | None) -> None:
    if number is None:
        names.pop(path, None)
    else:
        names[path] = number
