"""Ranks as processes of this host, each started afresh and watched by this one.

A plain child process and a socket each, rather than `multiprocessing`: the caller's main module is not imported again,
nothing is pickled, no tracker process and no named semaphore is left over, and a rank's death shows at once as the end
of its socket. The ranks meet at a barrier of kernel counters (`event_comm`) without this process; what they measure
stands in their logs. So the launcher sleeps but for a line of progress from each rank twice a second.

Who ends whom: a rank that dies, fails or is not heard of for the deadline has the others called off; a wish to stop is
passed on as SIGTERM, which ends the run at the next step; whoever has not ended a grace later is killed. When this
process dies, however, the kernel kills the ranks.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

import stoker
from stoker.bench.run.event_comm import EventCounters
from stoker.bench.run.hosts.roll import SILENT, first_names
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.rank_process import RankTask, Told
from stoker.bench.workloads.progress import Progress
from stoker.core import clock
from stoker.core.plan import TrainingPlan
from stoker.core.result import RANKS_FOLDER

STOP_GRACE_SECONDS: Final = 2.5
ABORT_GRACE_SECONDS: Final = 1.0
OVERDUE_SECONDS: Final = 15.0
START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_REAP_SECONDS: Final = 5.0
_PIECE_BYTES: Final = 1 << 16
_LINE_BYTES_MAX: Final = 1 << 20

OnProgress = Callable[[dict[int, Progress]], None]


@dataclass
class Outcome:
    """How the ranks ended: `failure` names the first that died or failed; `killed` did not end when told to."""

    failure: str = ""
    killed: list[int] = field(default_factory=list)


@dataclass
class _Child:
    rank: int
    process: subprocess.Popen[bytes]
    control: socket.socket
    incoming: bytes = b""
    failure: str = ""
    heard_ns: int = 0
    began_ns: int = field(default_factory=clock.monotonic_ns)

    def silent_ns(self, now_ns: int) -> int:
        """Return how long nothing was heard; before its first word a process is given time to start."""
        return now_ns - (self.heard_ns or self.began_ns + round(START_SECONDS * 1e9))


def run_local(
    plan: TrainingPlan,
    target_url: str,
    folder: Path,
    *,
    stop_wanted: Callable[[], bool],
    on_progress: OnProgress = lambda _: None,
) -> Outcome:
    """Run all ranks of the plan to their end. No process of theirs is left when this returns or raises.

    `stop_wanted` is asked ten times a second. Raises OSError when processes cannot be started, and what `on_progress`
    raises.
    """
    ranks = _LocalRanks(plan, target_url, folder, on_progress)
    try:
        ranks.start()
        ranks.watch(stop_wanted)
        return ranks.outcome
    finally:
        ranks.end_all()


class _LocalRanks:
    """The ranks' processes."""

    def __init__(self, plan: TrainingPlan, target_url: str, folder: Path, on_progress: OnProgress) -> None:
        self._plan, self._target_url, self._folder, self._on_progress = plan, target_url, folder, on_progress
        self._counters = EventCounters(plan.ranks)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._progress: dict[int, Progress] = {}
        self._kill_at_ns = 0
        self._looked_ns = clock.monotonic_ns()
        self._overdue_at_ns = 0
        self.outcome = Outcome()

    def start(self) -> None:
        """Start all processes and give each its task."""
        for rank in range(self._plan.ranks):
            child = self._spawn(rank)
            self._children[rank] = child
            self._selector.register(child.control, selectors.EVENT_READ, child)
        for rank, child in self._children.items():
            task = RankTask(
                rank=rank,
                plan=self._plan,
                target_url=self._target_url,
                folder=str(self._folder),
                arrivals=self._counters.arrivals,
                releases=self._counters.of_rank(rank),
            )
            try:
                child.control.sendall(msgspec.json.encode(task) + b"\n")
            except OSError:
                continue  # it died already: watching tells of what
            child.control.setblocking(False)

    def _spawn(self, rank: int) -> _Child:
        ours, theirs = socket.socketpair()
        with ExitStack() as undo, theirs, self._error_file(rank).open("wb") as errors:
            undo.callback(ours.close)
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, and two numbers
                [sys.executable, "-P", "-m", "stoker.bench.run.rank_process", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(theirs.fileno(), *self._counters.descriptors(rank)),
                process_group=0,
                env=rank_environment(),
            )
            undo.pop_all()
        return _Child(rank, process, ours)

    def _error_file(self, rank: int) -> Path:
        return self._folder / RANKS_FOLDER / f"rank-{rank:04d}.stderr"

    def watch(self, stop_wanted: Callable[[], bool]) -> None:
        """Pass progress on and see to it that all ranks end."""
        while self._children:
            for key, _ in self._selector.select(_POLL_SECONDS):
                self._hear(key.data)
            now_ns = clock.monotonic_ns()
            self._look_for_silent(now_ns)
            if not self._kill_at_ns and (stop_wanted() or (self._overdue_at_ns and now_ns > self._overdue_at_ns)):
                self._signal_all(signal.SIGTERM)
                self._kill_at_ns = now_ns + round(STOP_GRACE_SECONDS * 1e9)
            elif self._kill_at_ns and now_ns > self._kill_at_ns:
                self.outcome.killed = sorted(self._children)
                return

    def _look_for_silent(self, now_ns: int) -> None:
        """Call the run off when a rank was not heard of for the deadline: it was stopped, or hangs."""
        deadline_ns = round(self._plan.rank_deadline_seconds * 1e9)
        if now_ns - self._looked_ns > deadline_ns // 2:  # it was we who were stopped
            for child in self._children.values():
                child.heard_ns = child.heard_ns and now_ns
        self._looked_ns = now_ns
        silent = [child for child in self._children.values() if child.silent_ns(now_ns) > deadline_ns]
        if silent and not self._kill_at_ns:
            told = first_names([f"rank {child.rank} (pid {child.process.pid})" for child in silent])
            seconds = silent[0].silent_ns(now_ns) / 1e9
            self._call_off(f"{told} on {local_name()} {SILENT} {seconds:.0f} s")

    def _call_off(self, reason: str) -> None:
        self.outcome.failure = reason
        self._counters.abort()
        self._signal_all(signal.SIGTERM)
        self._kill_at_ns = clock.monotonic_ns() + round(ABORT_GRACE_SECONDS * 1e9)

    def _hear(self, child: _Child) -> None:
        try:
            piece = child.control.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        child.incoming += piece
        child.heard_ns = clock.monotonic_ns()
        *lines, child.incoming = child.incoming.split(b"\n")
        for line in lines:
            self._take(child, msgspec.json.decode(line, type=Told))
        if not piece or len(child.incoming) > _LINE_BYTES_MAX:
            self._bury(child)

    def _take(self, child: _Child, told: Told) -> None:
        child.failure = told.failure or child.failure
        if told.progress is not None:
            if not self._progress and self._plan.duration_seconds:
                seconds = self._plan.duration_seconds + OVERDUE_SECONDS
                self._overdue_at_ns = clock.monotonic_ns() + round(seconds * 1e9)
            self._progress[child.rank] = told.progress
            self._on_progress(self._progress)

    def _bury(self, child: _Child) -> None:
        """See a process off that has closed its socket, and call the others off if it had not come to its end."""
        self._selector.unregister(child.control)
        del self._children[child.rank]
        failure = _how_it_ended(child)
        if not failure:
            return
        if self._kill_at_ns and child.process.returncode == -signal.SIGTERM:
            self._counters.abort()  # it was told to stop before it had begun: the others need not wait for it
        elif not self.outcome.failure:
            self._call_off(failure)

    def _signal_all(self, number: int) -> None:
        for child in self._children.values():
            child.process.send_signal(number)

    def end_all(self) -> None:
        """Kill what still runs, and release everything."""
        for child in self._children.values():
            child.process.kill()
        for child in self._children.values():
            child.process.wait()
            child.control.close()
        self._selector.close()
        self._counters.close()
        for rank in range(self._plan.ranks):
            file = self._error_file(rank)
            if file.exists() and file.stat().st_size == 0:
                file.unlink()


def _how_it_ended(child: _Child) -> str:
    """Return why a process that has closed its socket ended, an empty text when it came to its end."""
    child.control.close()
    try:
        code = child.process.wait(_REAP_SECONDS)
    except subprocess.TimeoutExpired:
        child.process.kill()
        code = child.process.wait()
    name = f"rank {child.rank} (pid {child.process.pid})"
    if child.failure:
        return f"{name} failed: {child.failure}"
    if code < 0:
        hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        return f"{name} was killed by {_signal_name(-code)}{hint}"
    return f"{name} ended with exit code {code}" if code else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def rank_environment() -> dict[str, str]:
    """Return the environment of a rank: ours, finding this very package, and without threads for linear algebra."""
    package_parent = str(Path(stoker.__file__).parents[1])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
