"""Directories by their paths, believed for a while: many files that are made in one directory ask for it once.

It is as if each path was walked along a moment before. Whoever is told that the directory is gone walks anew.
"""

import threading
from typing import Final

from stoker.fs.meta.calls import Caller, Rename, Request, Rmdir, SetAttr, SetXattr, Unlink

_FOLDERS_MAX: Final = 10_000
_MOVES: Final = (Rename, Rmdir, Unlink, SetAttr, SetXattr)
"""What this client does itself it sees at once: names that lead elsewhere now, and who may go along them."""
PLAIN: Final = (b"", b".", b"..")


class Folders:
    """Numbers of directories, by who walked which path to them."""

    def __init__(self, believed_seconds: float) -> None:
        self._believed_ns = int(believed_seconds * 1e9)
        self._found: dict[tuple[Caller, bytes], tuple[int, int]] = {}
        self._mutex = threading.Lock()

    def get(self, caller: Caller, path: bytes, now_ns: int) -> int:
        """Return the number of a directory, 0 where it is to be asked for."""
        found = self._found.get((caller, path))
        if found is None or not 0 <= now_ns - found[1] <= self._believed_ns:
            return 0
        return found[0]

    def put(self, caller: Caller, path: bytes, ino: int, now_ns: int) -> None:
        """Keep the number of a directory, found at `now_ns` or later."""
        if not self._believed_ns:
            return
        with self._mutex:
            if len(self._found) >= _FOLDERS_MAX:
                self._found.clear()
            self._found[caller, path] = (ino, now_ns)

    def changed(self, request: Request[object]) -> None:
        """Forget all where a request of this client may have changed what paths lead to."""
        if isinstance(request, _MOVES) and self._found:
            self.forget()

    def forget(self) -> None:
        """Forget all."""
        with self._mutex:
            self._found.clear()


def split(raw: bytes) -> tuple[bytes, bytes]:
    """Return the path of a directory and the name in it; no name for a path that does not end with a plain one."""
    folder, _, name = raw.rpartition(b"/")
    return (folder or b"/", b"") if name in PLAIN else (folder or b"/", name)
