"""The segment after next: a file of zeros that is on the disk before it is wanted.

A sync of bytes that lie in reserved room must also write down that this room is in use now, in the file system's own
journal; a sync of bytes over zeros that are on the disk already writes the bytes alone. On ext4 that halves the sync of
a group of commits, and the copying into the page cache too, for the zeros are in it. So, where commits wait for syncs,
a thread writes the zeros while the segment before is being filled. The file has no name until it becomes a segment:
who dies leaves nothing behind.
"""

import threading
from pathlib import Path
from typing import Final

from stoker.pages.disk import Disk

SPARE_BYTES_MIN: Final = 1 << 20
"""Smaller segments are full before a file of zeros would be there."""


class Spare:
    """One file of zeros at a time, of `size_bytes`, for a folder. What goes wrong with it leaves all as without it."""

    def __init__(self, disk: Disk, folder: Path, size_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._size_bytes = size_bytes
        self._handle: int | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ends = False

    def begin(self) -> None:
        """Have the file made by a thread, unless it is there, or being made, or could not be made."""
        if self._thread is None and self._size_bytes >= SPARE_BYTES_MIN:
            self._thread = threading.Thread(target=self.prepare, name="stoker-pages-spare", daemon=True)
            self._thread.start()

    def prepare(self) -> None:
        """Make the file."""
        try:
            handle = self._disk.nameless(self._folder, self._size_bytes, lambda: not self._ends)
        except OSError:
            return  # full, or no file system for this: the log goes on in a segment that is only reserved
        with self._lock:
            if handle is not None and not self._ends:
                self._handle = handle
                return
        if handle is not None:
            self._disk.close(handle)

    def take(self, at_least_bytes: int) -> tuple[int, int] | None:
        """Return handle and size of the file, which is the caller's then; None where none is there, or it is small."""
        with self._lock:
            handle, self._handle = (None, self._handle) if at_least_bytes > self._size_bytes else (self._handle, None)
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        return None if handle is None else (handle, self._size_bytes)

    def close(self) -> None:
        """End the thread, and remove the file."""
        self._ends = True
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            self._disk.close(handle)
