"""Files in memory that lose power, for disks of shards, and a disk over them whose index loses power too."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from stoker.fs.disk.identity import Identity
from stoker.fs.disk.index import Index
from stoker.fs.disk.opening import open_state
from stoker.fs.disk.state import INDEX_NAME, DiskOptions, DiskState
from stoker.testing.crash_states import CrashDisk

FOLDER = Path("/disk")
VOLUME = "11111111-2222-3333-4444-555555555555"
IDENTITY = Identity("stoker disk", 1, VOLUME, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "07" * 16)
OPTIONS = DiskOptions(small_bytes=5000, segment_bytes=24_000, reserve_bytes=0, reserve_ratio=0.0, changes_max=40)


class CrashFiles(CrashDisk):
    """What `Files` adds to the disk of `stoker.pages`."""

    def open_reading(self, path: Path) -> int:
        return self.open(path)

    def fill(self, handle: int, offset: int, memory: memoryview) -> int:
        if self._fail:
            self._fail("fill")
        found = self._files[self._handles[handle]].seen[offset : offset + memory.nbytes]
        memory[: len(found)] = found
        return len(found)

    def length(self, handle: int) -> int:
        return len(self._files[self._handles[handle]].seen)

    def folders(self, folder: Path) -> list[Path]:
        depth = len(folder.parts)
        below = {path.parts[: depth + 1] for path in self._names if len(path.parts) > depth + 1}
        return sorted(Path(*parts) for parts in below if Path(*parts[:-1]) == folder)

    def make_folder(self, folder: Path) -> None:
        return None

    def room(self, folder: Path) -> tuple[int, int]:
        return 1 << 40, 1 << 40

    def is_read_only(self, folder: Path) -> bool:
        return False

    def content(self, path: Path) -> bytearray:
        """Return the very bytes of a file, to be changed."""
        return self._files[self._names[path]].seen

    def paths(self) -> list[Path]:
        """Return every file there is."""
        return sorted(self._names)

    def open_handles(self) -> int:
        """Return how many handles were not closed."""
        return len(self._handles)


def failing(when: Callable[[str], int]) -> Callable[[str], None]:
    """Return what raises the error number that `when` gives for an operation's name, nothing for 0."""

    def fail(operation: str) -> None:
        number = when(operation)
        if number:
            raise OSError(number, os.strerror(number))

    return fail


class CrashingDisk:
    """A disk over such files. `images` are the index as each commit left it, with the step it came at."""

    def __init__(self, index_folder: Path, files: CrashFiles | None = None, image: bytes | None = None) -> None:
        self.files = files or CrashFiles()
        self.images: list[tuple[int, bytes]] = []
        path = index_folder / INDEX_NAME
        for name in (path, path.with_name(path.name + "-wal")):
            name.unlink(missing_ok=True)
        if image is not None:
            path.write_bytes(image)
        self.state: DiskState = open_state(FOLDER, IDENTITY, self.files, OPTIONS, lambda: 1000.0, index_folder)
        self._watch(self.state.index)

    def _watch(self, index: Index) -> None:
        write = index._write

        def watched(facts: bytes) -> None:
            write(facts)
            self.images.append((self.files.step, index._db.serialize()))

        index._write = watched  # type: ignore[method-assign]
        self.images.append((self.files.step, index._db.serialize()))

    def image_at(self, step: int) -> bytes:
        """Return the index as the last commit before a step left it."""
        return [image for at, image in self.images if at <= step][-1]


__all__ = ["FOLDER", "IDENTITY", "OPTIONS", "VOLUME", "CrashFiles", "CrashingDisk", "errno", "failing"]
