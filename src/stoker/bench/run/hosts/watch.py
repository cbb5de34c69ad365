"""Watching the ranks of an MPI job beside MPI: MPI itself waits for ever for a rank that hangs or was cut off.

Rank 0 listens; every other rank keeps a connection to it and gives signs of life. Whoever loses the other says so and
ends all it can reach: rank 0 the whole job, a rank that was cut off itself and its neighbours.
"""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from stoker.bench.run.hosts.control import pass_signals_to
from stoker.bench.run.hosts.lines import Place
from stoker.bench.run.hosts.meeting import Meeting
from stoker.bench.run.hosts.member import Attendance
from stoker.bench.run.hosts.roll import Roll, first_names
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.launch_mpi import MpiComm
from stoker.bench.workloads.progress import Progress
from stoker.core.errors import StokerError

_SPARE_FILES: Final = 512
_NEWS_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0


class MpiWatch:
    """The watch of one run. Made by all ranks at once; `on_lost` gets a sentence, on a thread of ours."""

    def __init__(self, comm: MpiComm, deadline_seconds: float, on_lost: Callable[[str], None]) -> None:
        self.notes: list[str] = []
        self._comm, self._deadline_seconds, self._on_lost = comm, deadline_seconds, on_lost
        self._meeting: Meeting | None = None
        self._attendance: Attendance | None = None
        self._over = False
        place = self._listen()
        failure = self._attend(place) if comm.rank and place is not None else ""
        failures = [text.decode() for text in comm.gather(failure.encode()) or [] if text]
        if failures:
            self.notes.append(f"ranks that are not watched, should they hang: {first_names(failures)}")

    @property
    def roll(self) -> Roll | None:
        """Return who is there, on rank 0."""
        return self._meeting.roll if self._meeting is not None else None

    def _listen(self) -> Place | None:
        """Let rank 0 listen; return where, on every rank, None when it cannot."""
        place = None
        if self._comm.rank == 0 and self._comm.size > 1:
            _allow_files(self._comm.size + _SPARE_FILES)
            try:
                self._meeting = Meeting(self._comm.size, deadline_seconds=self._deadline_seconds, on_lost=self._lost)
                self._meeting.take_part(local_name(), os.getpid())
                pass_signals_to(self._meeting.pass_on)
                place = self._meeting.place
            except OSError as error:
                self.notes.append(f"ranks are not watched, should they hang: {error.strerror}")
        return msgspec.json.decode(self._comm.broadcast(msgspec.json.encode(place)), type=Place | None)

    def _attend(self, place: Place) -> str:
        try:
            self._attendance = Attendance(
                place,
                self._comm.rank,
                local_name(),
                os.getpid(),
                on_lost=lambda reason: self._lost(f"rank 0: {reason}"),
                connect_seconds=_CONNECT_SECONDS,
            )
        except StokerError as error:
            return f"rank {self._comm.rank} on {local_name()} ({error})"
        return ""

    def _lost(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._on_lost(reason)

    def tell(self, progress: Progress) -> None:
        """Tell rank 0 how far this rank is."""
        if self._attendance is not None:
            self._attendance.tell(progress)
        if self._meeting is not None:
            self._meeting.note_own(progress)

    def told(self) -> dict[int, Progress]:
        """Return, on rank 0, how far the others are."""
        return self._meeting.roll.told() if self._meeting is not None else {}

    def finished(self) -> None:
        """Tell rank 0 that this rank has done its work."""
        if self._meeting is not None:
            self._meeting.note_own(None, finished=True)
        if self._attendance is not None:
            with suppress(OSError):
                self._attendance.give(b"")

    def await_finished(self) -> None:
        """Wait on rank 0 until all ranks told that they have done their work; they have, and the news travels."""
        if self._meeting is not None:
            self._meeting.wait(lambda meeting: meeting.roll.all_finished, _NEWS_SECONDS)

    def fail(self, reason: str) -> None:
        """Tell rank 0 why this rank ends all."""
        self._over = True
        if self._attendance is not None:
            self._attendance.fail(reason)

    def close(self) -> None:
        """End the watch, in good order on every rank; rank 0 waits for the others to have left."""
        self._over = True
        if self._attendance is not None:
            self._attendance.leave()
        if self._meeting is not None:
            pass_signals_to(None)
            self._meeting.wait(lambda meeting: meeting.roll.all_ended, 2.0)
            self._meeting.close()


def _allow_files(wanted: int) -> None:
    """Let this process hold so many files, as far as its hard limit allows: each rank is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
