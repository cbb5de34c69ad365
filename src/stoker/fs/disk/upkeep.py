"""What a disk needs now and then: its index brought up to date, space taken back, everything read again.

`Upkeep` decides and does a share of it whenever it is asked; `Keeper` is the thread that asks once a second.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.core.units import MiB
from stoker.fs.disk.disk import Disk
from stoker.fs.disk.interface import ShardId

_TICK_SECONDS: Final = 1.0
_DAY_SECONDS: Final = 86_400.0
_LIGHT_SHARDS: Final = 256
_ELAPSED_SECONDS_MAX: Final = 10.0
"""After a pause of the machine no more than this much work is caught up with at once."""


class UpkeepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much upkeep there is.

    checkpoint_seconds   how long changes wait until the index is brought up to date
    compact_bytes_per_second   how fast dead space is taken back
    scrub_days   in how many days everything is read once
    scrub_bytes_per_second_min   though never slower than this
    light_days   how often the index is compared with the files
    """

    checkpoint_seconds: float = 5.0
    compact_bytes_per_second: int = 64 * MiB
    scrub_days: float = 14.0
    scrub_bytes_per_second_min: int = 1 * MiB
    light_days: float = 1.0


class Upkeep:
    """Does what is due. `last_error` is the newest failure, empty after a turn that went well."""

    def __init__(self, disk: Disk, options: UpkeepOptions | None = None) -> None:
        self._disk = disk
        self._options = options or UpkeepOptions()
        self._since_checkpoint_seconds = 0.0
        self._since_light_seconds = 0.0
        self._light_after: ShardId | None = None
        self._scrub_allowance_bytes = 0.0
        self.last_error = ""

    def turn(self, elapsed_seconds: float) -> None:
        """Do the share of so many seconds. A failure is kept in `last_error`: the disk's status tells of it too."""
        elapsed_seconds = min(elapsed_seconds, _ELAPSED_SECONDS_MAX)
        errors = [
            self._tried(work, elapsed_seconds) for work in (self._checkpoint, self._compact, self._scrub, self._light)
        ]
        self.last_error = next((error for error in errors if error), "")

    def _tried(self, work: Callable[[float], None], elapsed_seconds: float) -> str:
        try:
            work(elapsed_seconds)
        except StokerError as error:
            return str(error)
        return ""

    def _checkpoint(self, elapsed_seconds: float) -> None:
        self._since_checkpoint_seconds += elapsed_seconds
        if self._since_checkpoint_seconds >= self._options.checkpoint_seconds:
            self._since_checkpoint_seconds = 0.0
            if self._disk.changed():
                self._disk.checkpoint()

    def _compact(self, elapsed_seconds: float) -> None:
        if not self._disk.read_only():
            self._disk.compact(int(self._options.compact_bytes_per_second * elapsed_seconds))

    def _scrub(self, elapsed_seconds: float) -> None:
        used_bytes = self._disk.used_bytes()
        rate = max(self._options.scrub_bytes_per_second_min, used_bytes / (self._options.scrub_days * _DAY_SECONDS))
        self._scrub_allowance_bytes = min(self._scrub_allowance_bytes + rate * elapsed_seconds, 10 * rate)
        if (
            used_bytes
            and self._scrub_allowance_bytes > 0
            and self._disk.scrub_is_due(self._options.scrub_days * _DAY_SECONDS)
        ):
            report = self._disk.scrub(int(self._scrub_allowance_bytes))
            self._scrub_allowance_bytes -= report.checked_bytes

    def _light(self, elapsed_seconds: float) -> None:
        self._since_light_seconds += elapsed_seconds
        if self._light_after is None and self._since_light_seconds < self._options.light_days * _DAY_SECONDS:
            return
        report, self._light_after = self._disk.scrub_lightly(self._light_after, _LIGHT_SHARDS)
        self._since_light_seconds = 0.0
        if report.done:
            self._light_after = None


class _Turns(Protocol):
    def turn(self, elapsed_seconds: float) -> None: ...


class Keeper:
    """The thread that has upkeep done until it is closed."""

    def __init__(self, upkeep: _Turns, *, tick_seconds: float = _TICK_SECONDS) -> None:
        self._upkeep = upkeep
        self._tick_seconds = tick_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-disk-upkeep", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self._tick_seconds):
            now = time.monotonic()
            self._upkeep.turn(now - before)
            before = now

    def close(self) -> None:
        """End the thread, once it is done with what it is at; closing twice is harmless."""
        self._ended.set()
        self._thread.join()
