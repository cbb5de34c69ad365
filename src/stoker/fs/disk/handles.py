"""Open files for reading, kept for the next reader: a bounded number, and none is closed while somebody uses it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from stoker.fs.disk.files import Files

About = TypeVar("About")


class Held(Generic[About]):
    """An open file in use: `handle`, and what was read from its beginning when it was opened."""

    __slots__ = ("about", "forgotten", "handle", "key", "users")

    def __init__(self, key: Hashable, handle: int, about: About) -> None:
        self.key = key
        self.handle = handle
        self.about = about
        self.users = 1
        self.forgotten = False


class Handles(Generic[About]):
    """Handles by key, the ones used longest ago closed first. A removed file stays readable for who holds it."""

    def __init__(self, files: Files, limit: int) -> None:
        self._files = files
        self._limit = limit
        self._held: OrderedDict[Hashable, Held[About]] = OrderedDict()
        self._mutex = threading.Lock()

    def take(self, key: Hashable, opening: Callable[[], tuple[int, About]]) -> Held[About]:
        """Return the open file of a key, opened if it is not; it is to be given back. Raises what `opening` raises."""
        with self._mutex:
            held = self._held.get(key)
            if held is not None:
                held.users += 1
                self._held.move_to_end(key)
                return held
        handle, about = opening()
        made: Held[About] = Held(key, handle, about)
        with self._mutex:
            other = self._held.get(key)
            if other is None:
                self._held[key] = made
                self._trim()
                return made
            other.users += 1
        self._files.close(handle)
        return other

    def _trim(self) -> None:
        for key in list(self._held):
            if len(self._held) <= self._limit:
                return
            if not self._held[key].users:
                self._files.close(self._held.pop(key).handle)

    def give(self, held: Held[About]) -> None:
        """Give back what was taken."""
        with self._mutex:
            held.users -= 1
            if held.forgotten and not held.users:
                self._files.close(held.handle)
            else:
                self._trim()

    def forget(self, key: Hashable) -> None:
        """Let nobody else have this file: it was removed, or replaced."""
        with self._mutex:
            held = self._held.pop(key, None)
            if held is None:
                return
            held.forgotten = True
            if not held.users:
                self._files.close(held.handle)

    def close(self) -> None:
        """Close what nobody uses; the rest when it is given back."""
        with self._mutex:
            keys = list(self._held)
        for key in keys:
            self.forget(key)
