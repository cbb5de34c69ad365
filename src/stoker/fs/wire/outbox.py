"""What waits to be sent over a connection, so that a peer that reads slowly holds up nobody but itself.

Whoever has something to send gives it to the kernel at once if the line is free and the kernel takes it; the rest is
sent by a thread of the connection, which alone waits for the peer. How much may wait is bounded by who puts it here.
"""

import enum
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from stoker.core.errors import ShortReadError, StokerError
from stoker.core.units import KiB
from stoker.fs.wire.operations import Bytes, FileSpans, nothing
from stoker.fs.wire.streams import Stream, StreamClosed, behind

_AT_ONCE_BYTES_MAX: Final = 64 * KiB


class Outgoing(NamedTuple):
    """A frame to send: its parts in memory, what follows from files, and what is called when it is sent or lost."""

    parts: Sequence[Bytes]
    files: FileSpans | None = None
    done: Callable[[], None] = nothing


class _Line(enum.Enum):
    """Who sends at the moment: there is one at a time."""

    FREE = 0
    PUTTER = 1
    THREAD = 2


class Outbox:
    """Sends frames in the order in which they are put; `lost` is called when the connection breaks."""

    def __init__(self, stream: Stream, stall_seconds: float, lost: Callable[[str], None]) -> None:
        self._stream, self._stall_seconds, self._lost = stream, stall_seconds, lost
        self._waiting: deque[Outgoing] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._line = _Line.FREE
        self._ended = False
        self._thread: threading.Thread | None = None

    def put(self, outgoing: Outgoing) -> None:
        """Send a frame, or have it sent."""
        with self._lock:
            ended, mine = self._ended, False
            if not ended:
                self._waiting.append(outgoing)
                mine = self._line is _Line.FREE
                if mine:
                    self._line = _Line.PUTTER
        if ended:
            outgoing.done()
        elif mine:
            while self._send_next():
                pass

    def _send_next(self) -> bool:
        """Send the next frame if it is small and the kernel takes it; False when the line is no longer ours."""
        with self._lock:
            if self._ended or not self._waiting:
                self._line = _Line.FREE
                self._changed.notify_all()
                return False
            outgoing = self._waiting.popleft()
            if not _small(outgoing):
                self._leave_to_thread(outgoing)
                return False
        try:
            left = behind(list(outgoing.parts), self._stream.send_now(outgoing.parts))
        except StreamClosed as error:
            self._break(str(error), outgoing)
            return False
        if left:
            with self._lock:
                self._leave_to_thread(outgoing._replace(parts=left))
            return False
        outgoing.done()
        return True

    def _leave_to_thread(self, outgoing: Outgoing) -> None:
        """Let the thread go on with a frame; called with the lock held."""
        if self._ended:
            self._line = _Line.FREE
            outgoing.done()
            return
        self._waiting.appendleft(outgoing)
        self._line = _Line.THREAD
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="stoker-wire-send")
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._line is _Line.THREAD and not self._waiting:
                    self._line = _Line.FREE
                    self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or self._line is _Line.THREAD)
                if self._ended:
                    return
                outgoing = self._waiting.popleft()
            try:
                self._send_whole(outgoing)
            except (StreamClosed, StokerError, OSError) as error:
                self._break(str(error), outgoing)
                return
            outgoing.done()

    def _send_whole(self, outgoing: Outgoing) -> None:
        self._stream.send(outgoing.parts, self._stall_seconds)
        if outgoing.files is None:
            return
        try:
            for span in outgoing.files.spans:
                self._stream.send_span(span, self._stall_seconds)
        except (ShortReadError, OSError) as error:
            outgoing.files.failed(error)
            raise

    def _break(self, reason: str, outgoing: Outgoing) -> None:
        with self._lock:  # behind half a frame nothing else may follow
            self._ended, self._line = True, _Line.FREE
            self._changed.notify_all()
        outgoing.done()
        self._lost(reason)

    @property
    def idle(self) -> bool:
        """Tell whether nothing is being sent and nothing waits."""
        return self._line is _Line.FREE

    def drain(self, within_seconds: float) -> bool:
        """Return whether all was sent within the time."""
        with self._lock:
            return self._changed.wait_for(
                lambda: self._ended or (self._line is _Line.FREE and not self._waiting), within_seconds
            )

    def end(self) -> None:
        """Send nothing more; what waited is given up. Twice is harmless."""
        with self._lock:
            self._ended = True
            given_up, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for outgoing in given_up:
            outgoing.done()

    def join(self) -> None:
        """Return when nobody sends any more; called after `end` and once the stream is shut."""
        with self._lock:
            self._changed.wait_for(lambda: self._line is not _Line.PUTTER)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _small(outgoing: Outgoing) -> bool:
    return outgoing.files is None and sum(len(part) for part in outgoing.parts) <= _AT_ONCE_BYTES_MAX
