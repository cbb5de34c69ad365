"""A local rank's process: `python -m stoker.bench.run.rank_process DESCRIPTOR PARENT_PID`.

The descriptor is a socket to the launcher. One line of JSON comes in, the task; lines go out: progress, or why the
rank failed. Nothing else is said there: what the rank measures stands in its log. The terminal's Ctrl-C is not for
this process; SIGTERM asks it to stop at the next step.
"""

import faulthandler
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

from stoker.bench.run.event_comm import EventComm
from stoker.bench.run.hosts.lines import BEATS_A_DEADLINE
from stoker.bench.run.process import die_with_parent, keep_time_sharply
from stoker.bench.workloads.comm import RunAborted
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.rank_work import run_job
from stoker.bench.workloads.training import RankJob
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, StokerError
from stoker.core.plan import TrainingPlan

TASK_BYTES_MAX = 64 << 20


class RankTask(msgspec.Struct, frozen=True):
    """What the launcher tells a rank."""

    rank: int
    plan: TrainingPlan
    target_url: str
    folder: str
    arrivals: int
    releases: dict[int, int]


class Told(msgspec.Struct, frozen=True):
    """What a rank tells the launcher: how far it is, or why it failed."""

    progress: Progress | None = None
    failure: str = ""


class _Stop:
    """Set by SIGTERM."""

    asked = False

    def ask(self, _: int, __: FrameType | None) -> None:
        self.asked = True


def main(arguments: list[str]) -> int:
    """Run the rank; return its exit code."""
    descriptor, parent_pid = (int(word) for word in arguments)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    die_with_parent(parent_pid)
    faulthandler.enable()
    keep_time_sharply()
    with socket.socket(fileno=descriptor) as control:
        control.set_inheritable(False)
        with control.makefile("rb") as incoming:
            task = msgspec.json.decode(incoming.readline(TASK_BYTES_MAX), type=RankTask)
        return _run(task, control, stop)


def _run(task: RankTask, control: socket.socket, stop: _Stop) -> int:
    comm = EventComm(task.rank, task.plan.ranks, arrivals=task.arrivals, releases=task.releases)
    job = RankJob(
        plan=task.plan,
        comm=comm,
        target_url=task.target_url,
        folder=Path(task.folder),
        stopped=lambda: stop.asked,
        on_progress=lambda progress: _tell(control, Told(progress=progress)),
    )
    beating = threading.Event()
    threading.Thread(target=_beat, args=(task, control, beating), name="stoker-beat", daemon=True).start()
    try:
        run_job(job)
    except RunAborted:
        return EXIT_GOOD
    except Exception as error:
        traceback.print_exc()
        told = str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"
        _tell(control, Told(failure=told))
        return EXIT_FAILED
    finally:
        beating.set()
    return EXIT_GOOD


def _beat(task: RankTask, control: socket.socket, ending: threading.Event) -> None:
    """Give signs of life from the beginning on, however long the rank has nothing else to tell."""
    _tell(control, Told())
    while not ending.wait(task.plan.rank_deadline_seconds / BEATS_A_DEADLINE):
        _tell(control, Told())


_telling = threading.Lock()


def _tell(control: socket.socket, told: Told) -> None:
    with _telling, suppress(OSError):  # the launcher is gone, and the kernel is about to end this process too
        control.sendall(msgspec.json.encode(told) + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
