"""What a child says goes to a file and on to who started us, byte by byte, until the last of its writers is gone."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

_CHUNK_BYTES: Final = 1 << 16
_JOIN_SECONDS: Final = 5.0
OnOutput = Callable[[], None]


class Tee:
    """A pipe that a thread empties into a file and, where told, into a stream of ours. `end` is for the child.

    A stream of ours that is gone changes nothing: the file gets all. `before` is called, on the pipe's thread, before
    something is passed on.
    """

    def __init__(self, file: Path, onward: BinaryIO | None, before: OnOutput = lambda: None) -> None:
        self._before = before
        self._file = file.open("wb")
        self._onward = onward
        self.error: OSError | None = None
        self._ours, self.end = os.pipe()
        self._thread = threading.Thread(target=self._pump, name=f"tee {file.name}", daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while data := os.read(self._ours, _CHUNK_BYTES):
            self._keep(data)
            self._pass_on(data)

    def _keep(self, data: bytes) -> None:
        """Write to the file; where that fails the child must go on, and what was kept is told to be torn."""
        if self.error is not None:
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self.error = error

    def _pass_on(self, data: bytes) -> None:
        if self._onward is None:
            return
        try:
            self._before()
            self._onward.write(data)
            self._onward.flush()
        except (OSError, ValueError):
            self._onward = None

    def close(self) -> None:
        """Close the child's end here and keep what is in the pipe; a writer that outlives it is not waited for."""
        os.close(self.end)
        self._thread.join(_JOIN_SECONDS)
        if not self._thread.is_alive():
            with suppress(OSError):
                os.close(self._ours)
            self._file.close()

    def __enter__(self) -> Self:
        """Return the pipe."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
