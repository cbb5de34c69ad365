"""The numbers under which a session's calls are asked, and asked again."""

import threading


class Numbers:
    """The numbers of one session's calls: which come next, and below which all answers have come."""

    def __init__(self) -> None:
        self._next = 1
        self._open: set[int] = set()
        self._lock = threading.Lock()

    def take(self) -> tuple[int, int]:
        """Return a new number, and the one below which all answers have come."""
        with self._lock:
            number = self._next
            self._next += 1
            self._open.add(number)
            return number, min(self._open)

    def done(self, number: int) -> None:
        """Note that an answer has come."""
        with self._lock:
            self._open.discard(number)
