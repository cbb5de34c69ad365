"""Signs of life to the masters: one thread for each, so that one that is gone delays no other."""

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from stoker.core.errors import StokerError
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.operations import HEARTBEAT, Heartbeat, Noted
from stoker.fs.disk.interface import HolderStatus
from stoker.fs.wire.operations import Operation
from stoker.fs.wire.streams import Clock

EVERY_SECONDS: Final = 1.0
_WITHIN_SECONDS: Final = 2.0
_PARTING_SECONDS: Final = 0.5


class Place(NamedTuple):
    """Where a disk stands: shards of one slice are kept on different hosts, racks, zones or regions."""

    host: str
    rack: str = ""
    zone: str = ""
    region: str = ""


NOWHERE: Final = Place("")


class Master(Protocol):
    """A master that may be there or not."""

    def call(
        self, operation: Operation[Heartbeat, Noted], request: Heartbeat, *, within_seconds: float
    ) -> tuple[Noted, memoryview]:
        """Tell it; raises StokerError when it is not there, or does not want to hear it."""

    def close(self) -> None:
        """End the connection."""


class Reporter:
    """Tells every master how a disk fares, once a second; each answer keeps the fence open.

    `address` is where others reach the disk, `place` where it stands. Masters that are not there are tried again for
    ever.
    """

    def __init__(
        self,
        masters: Sequence[Master],
        address: str,
        status: Callable[[], HolderStatus],
        fence: Fence,
        clock: Clock,
        *,
        place: Place = NOWHERE,
    ) -> None:
        self._place = place
        self._masters, self._address, self._status, self._fence, self._clock = masters, address, status, fence, clock
        self._run = secrets.token_hex(8)
        self._seq = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._report, args=(master,), daemon=True, name=f"stoker-chunk-report-{number}")
            for number, master in enumerate(masters)
        ]

    def start(self) -> None:
        """Begin to report."""
        for thread in self._threads:
            thread.start()

    def tell(self, master: Master, *, leaving: bool = False) -> bool:
        """Tell one master; return whether it answered."""
        try:
            status = self._status()
            with self._lock:
                self._seq += 1
                beat = Heartbeat(self._address, self._run, self._seq, status, leaving, *self._place)
            sent = self._clock()
            master.call(HEARTBEAT, beat, within_seconds=_PARTING_SECONDS if leaving else _WITHIN_SECONDS)
        except StokerError:
            return False
        self._fence.heard(sent)
        return True

    def _report(self, master: Master) -> None:
        while True:
            self.tell(master)
            if self._stopping.wait(EVERY_SECONDS):
                break
        self.tell(master, leaving=True)
        with suppress(StokerError):
            master.close()

    def stop(self) -> None:
        """Tell the masters that the disk leaves, and end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
