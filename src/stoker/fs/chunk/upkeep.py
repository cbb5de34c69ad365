"""What a disk needs while it is served: scrubbing within a budget, compaction, and an index that keeps up."""

import logging
import threading
from typing import Final, Protocol

from stoker.core.errors import StokerError
from stoker.core.units import MiB
from stoker.fs.disk.interface import HolderStatus

STEP_SECONDS: Final = 1.0
WHOLE_STORE_SECONDS: Final = 14 * 86_400
"""Within which everything is read again unless told otherwise."""
_SLOWEST_BYTES_PER_SECOND: Final = 1 * MiB
_CHECKPOINT_STEPS: Final = 10
_COMPACT_STEPS: Final = 30
_COMPACT_BYTES: Final = 64 * MiB
_log: Final = logging.getLogger("stoker.fs.chunk")


class KeptDisk(Protocol):
    """A disk that can be mended a piece at a time."""

    def status(self) -> HolderStatus:
        """Return how it fares."""

    def checkpoint(self) -> None:
        """Let the index catch up."""

    def compact(self, budget_bytes: int) -> int:
        """Take back dead space."""

    def scrub(self, budget_bytes: int) -> object:
        """Verify the next shards."""


def scrub_pace(used_bytes: int) -> int:
    """Return the bytes a second at which everything is read within two weeks."""
    return max(_SLOWEST_BYTES_PER_SECOND, used_bytes // WHOLE_STORE_SECONDS)


class Upkeep:
    """Mends a disk step by step. `pace` None is that of two weeks, 0 none at all."""

    def __init__(self, disk: KeptDisk, pace: int | None) -> None:
        self._disk, self._pace = disk, pace
        self._steps = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stoker-chunk-upkeep")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def set_pace(self, bytes_per_second: int) -> None:
        """Scrub at no more than so many bytes a second from now on; 0 stops it."""
        self._pace = max(0, bytes_per_second)

    def step(self) -> None:
        """Do what is due in one second."""
        self._steps += 1
        status = self._disk.status()
        pace = scrub_pace(status.used_bytes) if self._pace is None else self._pace
        if pace and status.shards:
            self._disk.scrub(pace)
        if status.read_only:
            return
        if self._steps % _CHECKPOINT_STEPS == 0:
            self._disk.checkpoint()
        if self._steps % _COMPACT_STEPS == 0:
            self._disk.compact(_COMPACT_BYTES)

    def _run(self) -> None:
        while not self._stopping.wait(STEP_SECONDS):
            try:
                self.step()
            except StokerError as error:  # a disk that fails is told by its status; the next step tries again
                _log.warning("upkeep: %s", error)
            except Exception:
                _log.exception("upkeep failed")

    def stop(self) -> None:
        """End after the step that is under way."""
        self._stopping.set()
        self._thread.join()
