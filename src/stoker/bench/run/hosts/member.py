"""The ranks' meeting over TCP, on a rank's side: signs of life from a thread of its own, the barrier, handing over.

When the conductor is not heard of for the deadline, or its connection ends before the rank's time, `on_lost` is told:
no rank outlives its conductor.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from stoker.bench.run.hosts.clocks import Probe
from stoker.bench.run.hosts.lines import BEATS_A_DEADLINE, Place, Said, Told, reach
from stoker.bench.run.hosts.roll import SILENT
from stoker.bench.run.signals import signal_self
from stoker.bench.workloads.comm import RunAborted
from stoker.bench.workloads.progress import Progress
from stoker.core import clock

CONNECT_SECONDS: Final = 15.0
_NEWS_SECONDS: Final = 0.5
_PIECE_BYTES: Final = 1 << 20
_BYE_SECONDS: Final = 5.0
_PROBES_MAX: Final = 31


class Attendance:
    """A rank at the meeting, until it leaves. `task` is what the conductor gave it; so is the deadline.

    `probes` are the last questions for the conductor's clock, one with each sign of life.
    """

    def __init__(
        self,
        place: Place,
        rank: int,
        host: str,
        pid: int,
        *,
        on_lost: Callable[[str], None],
        on_stop: Callable[[int], None] = signal_self,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        """Raises StokerError when the conductor cannot be reached or refuses."""
        self._wire, welcome = reach(place, Said("hello", rank=rank, host=host, pid=pid), seconds=connect_seconds)
        self.task = welcome.data
        self._deadline_seconds = float(welcome.text)
        self._on_lost, self._on_stop = on_lost, on_stop
        self._answers: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._leaving = threading.Event()
        self._left = threading.Event()
        self._news = threading.Event()
        self._progress: Progress | None = None
        self._text = ""
        self._asked_ns = 0
        self.probes: list[Probe] = []
        self._wire.socket.settimeout(self._deadline_seconds)
        self._threads = [
            threading.Thread(target=self._beat, name="stoker-beat", daemon=True),
            threading.Thread(target=self._listen, name="stoker-listen", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def tell(self, progress: Progress) -> None:
        """Let the next sign of life tell how far this rank is."""
        self._progress = progress

    def note(self, text: str) -> None:
        """Let the next sign of life carry a text, and come soon: somebody looks on."""
        self._text = text
        self._news.set()

    def arrive(self, stop: bool) -> bool:
        """Wait for all ranks; return whether any asked to stop. Raises RunAborted when the run is called off."""
        self._send(Said("arrive", stop=stop))
        told = self._answers.get()
        if told.kind != "go":
            self._answers.put(told)  # whoever asks again gets the same answer
            raise RunAborted(told.text or "the run was called off")
        return told.stop

    def give(self, data: bytes) -> None:
        """Hand over what the conductor gathers."""
        self._send(Said("give", data=data))

    def fail(self, reason: str) -> None:
        """Tell why this rank cannot go on."""
        with suppress(OSError):
            self._send(Said("failed", text=reason))

    def leave(self, code: int = 0) -> None:
        """Leave in good order, with the last text that was noted; leaving twice is harmless."""
        if not self._leaving.is_set():
            self._leaving.set()
            self._news.set()
            with suppress(OSError):
                self._send(Said("bye", code=code, text=self._text))
                self._left.wait(_BYE_SECONDS)
            self._wire.close()

    def _send(self, said: Said) -> None:
        with self._sending:
            self._wire.send(said)

    def _beat(self) -> None:
        every_seconds = self._deadline_seconds / BEATS_A_DEADLINE
        pause_seconds = min(_NEWS_SECONDS, every_seconds / 2)
        while not self._leaving.wait(pause_seconds):
            self._news.wait(every_seconds - pause_seconds)
            self._news.clear()
            if self._leaving.is_set():
                return
            progress, self._progress = self._progress, None
            self._asked_ns = clock.wall_ns()
            try:
                self._send(Said("beat", progress=progress, text=self._text))
            except OSError:
                return  # listening tells what happened

    def _listen(self) -> None:
        reason = "the conductor's connection ended"
        while True:
            began_ns = clock.monotonic_ns()
            try:
                piece = self._wire.socket.recv(_PIECE_BYTES)
                if not piece:
                    break
                if not all(self._take(line) for line in self._wire.take(piece)):
                    return
            except TimeoutError:
                silent_seconds = (clock.monotonic_ns() - began_ns) / 1e9
                reason = f"the conductor {SILENT} {silent_seconds:.0f} s"
                break
            except (OSError, ValueError, msgspec.DecodeError):
                break
        self._end(reason)

    def _take(self, line: bytes) -> bool:
        """Take a line; return whether to go on listening."""
        told = msgspec.json.decode(line, type=Told)
        if told.kind == "bye":
            self._left.set()
            return False
        if told.kind == "pong" and told.text.isdecimal():
            self.probes = [*self.probes[-_PROBES_MAX:], Probe(self._asked_ns, int(told.text), clock.wall_ns())]
        if told.kind == "stop" and told.text.isdecimal():
            self._on_stop(int(told.text))
        if told.kind == "go":
            self._answers.put(told)
        elif told.kind == "abort":
            self._end(told.text)
            return False
        return True

    def _end(self, reason: str) -> None:
        self._left.set()
        if not self._leaving.is_set():
            self._answers.put(Told("abort", text=reason))
            self._on_lost(reason)
