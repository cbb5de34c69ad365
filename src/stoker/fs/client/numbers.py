"""Numbers for slices and inodes, taken from the metadata many at a time, in the session that will use them."""

import threading
from collections.abc import Callable

from stoker.fs.meta.answers import Number
from stoker.fs.meta.calls import Request
from stoker.fs.meta.service import Metadata


class TakenNumbers:
    """Gives out numbers that nobody else gets; what is left at the end, or of a lost session, is never used.

    `taking` is the request that takes so many.
    """

    def __init__(self, metadata: Metadata, at_once: int, taking: Callable[[int], Request[Number]]) -> None:
        self._metadata = metadata
        self._at_once = at_once
        self._taking = taking
        self._mutex = threading.Lock()
        self._taken_in = 0
        self._next = self._end = 0

    def take(self, session: int) -> int:
        """Return a number that was taken in `session`."""
        with self._mutex:
            if self._next == self._end or self._taken_in != session:
                self._next = self._metadata.run(self._taking(self._at_once), session=session).value
                self._end = self._next + self._at_once
                self._taken_in = session
            number = self._next
            self._next += 1
            return number
