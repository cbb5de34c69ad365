"""A server of one mount: threads that take the kernel's requests from the device and answer them until it ends."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError, UnavailableError
from stoker.fs.client.client import Client
from stoker.fs.fuse import mounting
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import framed, refusal
from stoker.fs.fuse.dispatch import Answer, Dispatcher
from stoker.fs.fuse.files import Opened
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.state import State
from stoker.fs.fuse.table import refuse_taken
from stoker.fs.store.interface import Bytes

_OVER: Final = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)
_GONE: Final = (errno.ENOENT, errno.EINVAL)
_GREETING_SECONDS: Final = 10.0
_BUSY_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.05
_SAME_COMPLAINT_SECONDS: Final = 10.0


class Complaints:
    """Tells of failures, of each only once in a while: a broken disk must not fill another with messages."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._told: dict[str, float] = {}
        self._mutex = threading.Lock()

    def __call__(self, text: str) -> None:
        """Tell a sentence, unless it was told a moment ago."""
        with self._mutex:
            now = self._clock()
            if now - self._told.get(text, -_SAME_COMPLAINT_SECONDS) < _SAME_COMPLAINT_SECONDS:
                return
            if len(self._told) > 1000:
                self._told.clear()
            self._told[text] = now
        self._tell(text)


class Server:
    """Serves a mount until it is unmounted, by whomever."""

    def __init__(
        self,
        client: Client,
        point: Path,
        options: MountOptions,
        *,
        source: str,
        free_bytes: Callable[[], int],
        complain: Callable[[str], None],
    ) -> None:
        refuse_taken(point)
        self.point = point
        self._complaints = Complaints(complain)
        self._state = State(client, options, free_bytes=free_bytes, answer=self._answer_later, notify=self._write)
        self._dispatcher = Dispatcher(self._state, self._complaints)
        self._device = mounting.mount(point, options, source)
        self._threads = [
            threading.Thread(target=self._serve, name=f"stoker-fuse-{number}", daemon=True)
            for number in range(options.threads)
        ]

    def start(self) -> None:
        """Begin to serve; return when the mount can be used. Raises UnavailableError when the kernel does not greet."""
        self._threads[0].start()
        deadline = time.monotonic() + _GREETING_SECONDS
        while self._dispatcher.greeting is None:
            if time.monotonic() > deadline or not self._threads[0].is_alive():
                self.stop()
                raise UnavailableError("the kernel does not speak with the mount", where=str(self.point))
            time.sleep(0.001)
        for thread in self._threads[1:]:
            thread.start()
        mounting.raise_readahead(self.point)

    @property
    def is_over(self) -> bool:
        """Tell whether it is unmounted."""
        return not self._threads[0].is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is unmounted; tell whether it is."""
        self._threads[0].join(seconds)
        return self.is_over

    def stop(self) -> None:
        """Unmount, gently first; who still uses the mount is cut off after a moment. Then give everything back."""
        if not self.is_over:
            self._unmount()
        deadline = time.monotonic() + _BUSY_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0))
        self._state.locks.stop()
        for handle in self._state.handles.all(Opened):
            try:
                handle.file.close()
            except StokerError as error:
                self._complaints(f"a file that was open when the mount ended could not be closed: {error}")
        os.close(self._device)

    def _unmount(self) -> None:
        """Write what programs have changed in maps, then unmount as soon as nobody uses it, or anyway."""
        mounting.syncfs(self.point)
        deadline = time.monotonic() + _BUSY_SECONDS
        while not self.is_over:
            late = time.monotonic() > deadline
            try:
                mounting.unmount(self.point, lazy=late, force=late)
            except StokerError:
                if late:
                    return
            self.wait(_RETRY_SECONDS)

    # -- requests

    def _serve(self) -> None:
        """Take requests and answer them, in a buffer of this thread, until the mount is gone."""
        buffer = bytearray(p.REQUEST_BYTES_MAX)
        whole = memoryview(buffer)
        while True:
            try:
                length = os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno in _OVER:
                    return
                if error.errno not in (errno.ENOENT, errno.EAGAIN):
                    self._complaints(f"the FUSE device cannot be read: {error.strerror}")
                    time.sleep(0.01)
                continue
            if not length:
                return
            answer = self._dispatcher.answer(whole[:length])
            if answer is not None:
                self._send(answer)

    def _send(self, answer: Answer) -> None:
        """Give an answer to the kernel. What it no longer wants is taken back."""
        if not self._write(answer.buffers) and answer.undo is not None:
            try:
                answer.undo()
            except Exception as error:
                self._complaints(f"what the kernel no longer wants could not be taken back: {error}")

    def _write(self, buffers: list[Bytes]) -> bool:
        try:
            os.writev(self._device, buffers)
        except OSError as error:
            if error.errno not in (*_OVER, *_GONE):
                self._complaints(f"the FUSE device cannot be written: {error.strerror}")
            return False
        return True

    def _answer_later(self, unique: int, number: int) -> None:
        self._write(refusal(unique, number) if number else framed(unique, []))
