"""The event log: one JSON object a line, appended and made durable once a second.

A process killed at any instant leaves a readable log; the reader drops a torn last line and says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core import clock
from stoker.core.errors import CorruptError

SYNC_INTERVAL_SECONDS: Final = 1.0
LINE_BYTES_MAX: Final = 64 << 20


class EventLog:
    """Append-only JSON Lines. Each line has `event`, `at_ns` (monotonic) and `utc`, then the event's own fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._synced_ns = clock.monotonic_ns()

    def append(self, event: str, **fields: Any) -> None:
        """Append one event; it survives the death of this process at once, of the machine within a second."""
        now_ns = clock.monotonic_ns()
        line = msgspec.json.encode({"event": event, "at_ns": now_ns, "utc": clock.utc_text(), **fields}) + b"\n"
        written = os.write(self._descriptor, line)
        while written < len(line):
            written += os.write(self._descriptor, line[written:])
        if now_ns - self._synced_ns >= SYNC_INTERVAL_SECONDS * 1e9:
            self.sync()

    def sync(self) -> None:
        """Make everything appended so far durable."""
        os.fdatasync(self._descriptor)
        self._synced_ns = clock.monotonic_ns()

    def close(self) -> None:
        """Sync and close; closing twice is harmless."""
        if self._descriptor >= 0:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = -1


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log in order; a torn last line ends it silently, a torn line elsewhere is an error.

    Raises CorruptError for a bad line that is not the last, or one longer than 64 MiB.
    """
    with path.open("rb") as file:
        pending: bytes | None = None
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), start=1):
            if pending is not None:
                raise CorruptError("event log has a torn line before its end", where=f"{path}:{number - 1}")
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                pending = line
