"""A copy of a store that follows it: pages in this process's memory, as of the follower's LSN."""

from collections.abc import Iterable

from stoker.pages.follow.tail import Follower, wait_for
from stoker.pages.history import State
from stoker.pages.images import PageImage


class Replica:
    """Pages that follow another store. `state` is the whole of them, as of `state.lsn`.

    images, lsn  what the copy begins with: pages as of that LSN, from a snapshot or a socket
    """

    def __init__(self, follower: Follower, images: Iterable[PageImage] = (), lsn: int = 0) -> None:
        self._follower = follower
        self.state = State.of(images, lsn)

    def catch_up(self) -> int:
        """Apply all that was committed and return the LSN."""
        while frames := self._follower.poll():
            for frame in frames:
                self.state.apply(frame)
        return self.state.lsn

    def wait(self, lsn: int, timeout_seconds: float = 60.0) -> int:
        """Apply frames until this LSN is reached. Raises Timeout."""
        while self.state.lsn < lsn:
            for frame in wait_for(self._follower, timeout_seconds):
                self.state.apply(frame)
        return self.state.lsn

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
