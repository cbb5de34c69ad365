"""Processes that end with who started them: each holds the reading end of a pipe, and its end is the wish to stop."""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from stoker.core.errors import InterruptedRunError, StokerError
from stoker.fs.wire.keys import TOKEN_VARIABLE

GRACE_SECONDS: Final = 10.0
_LOG_BYTES_TOLD: Final = 300
_POLL_SECONDS: Final = 0.05
_ORPHAN_SECONDS: Final = 15.0
"""So long a child that was asked to end may take. Who started it ends it sooner, unless that was killed itself."""
_COMMAND: Final = """
import os, signal, threading, time
def watch():
    while os.read(0, 4096):
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)  # it may wait in what others' signals do not end
    time.sleep({seconds:g})
    try:
        if {point!r}:
            from pathlib import Path
            from stoker.fs.fuse.mounting import unmount
            unmount(Path({point!r}), lazy=True, force=True)
    finally:
        os._exit(1)
threading.Thread(target=watch, daemon=True).start()
from stoker.cli.main import main
main()
"""


def command(*words: str, mountpoint: Path | None = None) -> list[str]:
    """Return the words of a Python that runs a command of ours until its standard input ends.

    When the command does not end by itself then, it is ended after a while, and what it mounts is no longer mounted.
    """
    point = "" if mountpoint is None else str(mountpoint)
    return ["-c", _COMMAND.format(seconds=_ORPHAN_SECONDS, point=point), *words]


class Child:
    """One process, in a session of its own: a Ctrl-C at the terminal is for who started it, who ends it in order."""

    def __init__(self, name: str, words: Sequence[str], log: Path, *, token: str | None = None) -> None:
        self.name, self._log = name, log
        given = {key: text for key, text in os.environ.items() if key != TOKEN_VARIABLE}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
                [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, env=given if token is None else {**given, TOKEN_VARIABLE: token},
            )  # fmt: skip
        self._first: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"stoker-demo-{name}", daemon=True)
        self._reader.start()

    @property
    def runs(self) -> bool:
        """Tell whether the process is there."""
        return self.process.poll() is None

    def _read(self) -> None:
        """Keep the first line, and let the others go."""
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self._first.put(output.readline())
            for _ in output:  # the pipe must not fill up
                continue

    def tell(self, line: bytes) -> None:
        """Write a line to its standard input; one that ended is told of by `ready`."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def ready(self, until: float, stop_wanted: Callable[[], bool]) -> bytes:
        """Return its first line. Raises StokerError with what it said when it ended, or is not ready in time."""
        while True:
            if stop_wanted():
                raise InterruptedRunError("demo was stopped", where=self.name)
            try:
                line = self._first.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() < until:
                    continue
                raise StokerError("process was not ready in time", where=self.name, got=self.last_words()) from None
            if line.endswith(b"\n"):
                return line
            raise StokerError("process ended as it started", where=self.name, got=self.last_words(line))

    def last_words(self, line: bytes = b"") -> str:
        """Return the end of its log, of one line."""
        text = line + self._log.read_bytes()[-_LOG_BYTES_TOLD:]
        return " ".join(text.decode(errors="replace").split()) or "nothing was said"

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._close()

    def ask_to_end(self) -> None:
        """Let it end; `close` waits for it."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End it: in order, within the grace, else at once. Closing twice is harmless."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_seconds)
        self.kill()

    def _close(self) -> None:
        self.ask_to_end()
        self._reader.join()
