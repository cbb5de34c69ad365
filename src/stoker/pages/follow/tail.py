"""Following a log without asking anybody: through the ring in shared memory, or through the segment files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from stoker.core.clock import monotonic_ns, sleep
from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Word
from stoker.pages.errors import PagesError, Timeout
from stoker.pages.frames import Frame, decode_frame, frame_bytes
from stoker.pages.journal import scan

_POLL_SECONDS: Final = 0.0005
Chunk = tuple[int, bytes]
"""LSN of the first frame, and the bytes of whole commits."""


class FellBehind(PagesError):
    """Frames were overwritten before they were read: take a snapshot and go on from its LSN."""


class Follower(Protocol):
    """Something that gives the commits behind `lsn`, in order, each once."""

    lsn: int

    def poll(self) -> list[Frame]:
        """Return the frames of all whole commits since the last call, none when there are none."""

    def close(self) -> None:
        """Give back what it holds."""


def wait_for(follower: Follower, timeout_seconds: float) -> list[Frame]:
    """Return the next frames as soon as there are any. Raises Timeout."""
    deadline_ns = monotonic_ns() + int(timeout_seconds * 1e9)
    while not (frames := follower.poll()):
        if monotonic_ns() > deadline_ns:
            raise Timeout("nothing was committed in time", expected=f"a commit within {timeout_seconds:g} s")
        sleep(_POLL_SECONDS)
    return frames


class RingFollower:
    """Follows a store of this host through its shared memory; takes no lock and holds up nobody.

    since  LSN after which frames are wanted; None for the newest commit. Raises FellBehind when they are overwritten.
    """

    def __init__(self, arena: Arena, since: int | None = None) -> None:
        self._arena = arena
        self._words = arena.words
        if since is None:
            with arena.lock.held():
                self.lsn, self._position = self._words[Word.COMMITTED_LSN], self._words[Word.COMMITTED_POS]
        else:
            self.lsn, self._position = since, self._find(since)

    def _find(self, since: int) -> int:
        """Return the position behind the frame with this LSN."""
        with self._arena.lock.held():
            position, lsn = self._words[Word.FLOOR_POS], self._words[Word.FLOOR_LSN]
            if since + 1 < lsn:
                raise FellBehind("log ring begins later", expected=f"LSN {since + 1}", got=f"LSN {lsn}")
            for frame in self._arena.ring.frames(position, self._words[Word.COMMITTED_POS]):
                if frame.lsn > since:
                    break
                position = self._arena.ring.skip(position) + frame_bytes(frame)
            return int(position)

    def poll(self) -> list[Frame]:
        """Return the frames committed since the last call. Raises FellBehind when some were overwritten."""
        chunk = self.poll_bytes()
        return list(split(chunk[1], self._arena.ring.salt)) if chunk else []

    def poll_bytes(self) -> Chunk | None:
        """Return the same as bytes, None when there are none. Raises FellBehind."""
        end = self._words[Word.COMMITTED_POS]
        if end == self._position:
            return None
        ring = self._arena.ring
        if end - self._position > ring.ring_bytes:
            raise FellBehind("follower was too slow for the log ring", got=f"{end - self._position} bytes behind")
        copied = b"".join(bytes(piece) for piece in ring.pieces(self._position, end))
        if ring.overwritten(self._position):
            raise FellBehind("follower was too slow for the log ring", got=f"{end - self._position} bytes behind")
        first = self.lsn + 1
        self._position = end
        self.lsn = last_lsn(copied, ring.salt, first)
        return first, copied

    def close(self) -> None:
        """Nothing is held."""


class FileFollower:
    """Follows a store through its segment files alone: what was flushed; the store need not be open here."""

    def __init__(self, log_folder: Path, since: int = 0) -> None:
        self._folder = log_folder
        self.lsn = since

    def poll(self) -> list[Frame]:
        """Return the frames flushed since the last call. Raises FellBehind for a log that begins later."""
        frames = list(scan(self._folder, since=self.lsn + 1))
        if frames and frames[0].lsn != self.lsn + 1:
            raise FellBehind("log begins later", expected=f"LSN {self.lsn + 1}", got=f"LSN {frames[0].lsn}")
        if frames:
            self.lsn = frames[-1].lsn
        return frames

    def close(self) -> None:
        """Nothing is held."""


def split(chunk: bytes, salt: int) -> Iterator[Frame]:
    """Yield the frames of a chunk, payloads as views of it. Raises PagesError for a damaged one."""
    position = 0
    while (frame := decode_frame(chunk, position, salt)) is not None:
        yield frame
        position += frame_bytes(frame)
    if position != len(chunk):
        raise PagesError("frames cannot be read", expected=f"{len(chunk)} bytes of frames", got=f"{position}")


def last_lsn(chunk: bytes, salt: int, first: int) -> int:
    """Return the LSN of a chunk's last frame."""
    last = first - 1
    for frame in split(chunk, salt):
        last = frame.lsn
    return last
