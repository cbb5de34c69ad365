"""Rank 0's line to the process that started the launcher: where the run's folder is, and how it ended.

Without it the launcher's exit code would be all that comes back, and of a launcher that hangs not even that.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.hosts.events import ProgressEvent
from stoker.bench.run.hosts.lines import place_of
from stoker.bench.run.hosts.member import Attendance
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.signals import signal_self
from stoker.core.errors import StokerError

VARIABLE: Final = "STOKER_CONTROL_TOKEN"


class _Line:
    """The one line of this process."""

    attendance: Attendance | None = None
    others: Callable[[int], None] | None = None


def attend(on_lost: Callable[[str], None]) -> bool:
    """Connect to who started us, if somebody did and can be reached; return whether. For rank 0."""
    place = place_of(os.environ.get(VARIABLE, ""))
    if place is None:
        return False
    try:
        _Line.attendance = Attendance(place, 0, local_name(), os.getpid(), on_lost=on_lost, on_stop=_stop)
    except StokerError:
        return False
    return True


def pass_signals_to(others: Callable[[int], None] | None) -> None:
    """Let a signal that who started us passes on go to the other ranks, too, from now on; None ends that."""
    _Line.others = others


def _stop(number: int) -> None:
    if _Line.others is not None:
        _Line.others(number)
    signal_self(number)


def tell_folder(folder: Path) -> None:
    """Tell where the run keeps its files."""
    if _Line.attendance is not None:
        _Line.attendance.give(str(folder.absolute()).encode())  # one rank, whose end nobody times


def tell_progress(event: ProgressEvent) -> None:
    """Tell how far the run is."""
    if _Line.attendance is not None:
        _Line.attendance.note(msgspec.json.encode(event).decode())


def leave(exit_code: int) -> bool:
    """Tell how the command ended; return whether somebody heard it."""
    attendance, _Line.attendance = _Line.attendance, None
    if attendance is None:
        return False
    attendance.leave(exit_code)
    return True
