"""Starting the ranks on many hosts: the same command again, under mpirun or mpiexec, watched until all has ended.

The launcher is our child and speaks on our terminal. A signal goes to rank 0 over its line to us, and from there to all
ranks, for launchers leave those little time: Open MPI 5 kills them half a second after a signal. The launcher gets it
where there is no such line, when that did not help, and when a second one comes; in the end it is killed. The ranks end
by themselves when their launcher or the first rank is gone (see `watch`).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

import stoker
from stoker.bench.run.hosts.control import VARIABLE
from stoker.bench.run.hosts.events import OnProgress, ProgressEvent
from stoker.bench.run.hosts.meeting import Meeting
from stoker.bench.run.hosts.mpirun import (
    Launcher,
    MpiOptions,
    address_towards,
    command_line,
    find_launcher,
    identify,
    launch_environment,
    launcher_variables,
    options_from,
    passed_variables,
)
from stoker.bench.run.hosts.names import Host, parse_hosts, spread
from stoker.bench.run.launch_mpi import is_one_of_several
from stoker.core.errors import EXIT_FAILED, UsageError

STOP_SECONDS: Final = 20.0
_GENTLE_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.2
STARTED_VARIABLE: Final = "STOKER_STARTED_WITH"
_PROGRAM: Final = "from stoker.cli.main import main; main()"


class Launch(msgspec.Struct, frozen=True):
    """How the ranks are started: by which launcher, where, with which options."""

    launcher: Launcher
    hosts: tuple[Host, ...]
    options: MpiOptions

    def words(self, program: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Return the command line that starts `program` on every rank."""
        return command_line(self.launcher, self.hosts, self.options, program, passed_variables(environment))


def launch_wanted(settings: Mapping[str, Any]) -> bool:
    """Tell whether this process is to start the ranks elsewhere: hosts were named, and nobody started us as a rank.

    Raises UsageError for hosts with local ranks.
    """
    if not settings["hosts"].value or STARTED_VARIABLE in os.environ or is_one_of_several():
        return False
    if settings["launcher"].value == "local":
        raise UsageError("--hosts with local ranks", remedy="leave out --launcher local, or --hosts")
    return True


def plan_launch(settings: Mapping[str, Any], ranks: int) -> Launch:
    """Return how to start `ranks` ranks on the hosts asked for.

    Raises UsageError for hosts that do not hold them, PreflightError without a launcher that we know.
    """
    hosts = spread(parse_hosts(settings["hosts"].value), ranks)
    options = msgspec.structs.replace(
        options_from(settings), own_address=address_towards(hosts), folder=str(Path.cwd())
    )
    launcher = identify(find_launcher(options.binary))
    launch = Launch(launcher, hosts, options)
    launch.words((), {})
    return launch


def started_with(environment: Mapping[str, str]) -> str:
    """Return what a result tells of the launcher: how we started it, and the variables that change what it does."""
    started = environment.get(STARTED_VARIABLE, "")
    variables = ", ".join(f"{name}={value}" for name, value in launcher_variables(environment).items())
    return (f", started by {started}" if started else "") + (f", with {variables}" if variables else "")


def rank_program(arguments: Sequence[str]) -> list[str]:
    """Return the words of a rank: this interpreter, this command."""
    return [sys.executable, "-P", "-c", _PROGRAM, *arguments]


def rank_environment(launch: Launch) -> dict[str, str]:
    """Return the environment of the launcher: ours, finding this very package, and told how it came to be."""
    parent = str(Path(stoker.__file__).parents[1])
    paths = [parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    hosts = ",".join(f"{host.name}:{host.slots}" for host in launch.hosts)
    ours = {
        "PYTHONPATH": os.pathsep.join(paths),
        STARTED_VARIABLE: f"{launch.launcher.told} on {hosts}",
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
    }
    return launch_environment(launch.launcher, {**os.environ, **ours})


def heard_of(launch: Launch, program: Sequence[str], *, seconds: float) -> "subprocess.CompletedProcess[str] | None":
    """Run a short program on all ranks, by the very command line that the run will use; return what it said.

    None when it did not end within `seconds`.
    """
    environment = rank_environment(launch)
    try:
        return subprocess.run(  # noqa: S603 - the launcher that was asked for
            launch.words(program, environment),
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return None


class Ended(msgspec.Struct, frozen=True):
    """How a command on many hosts ended. `told` is False when rank 0 did not come to say; `reason` why not."""

    exit_code: int
    told: bool
    reason: str = ""
    folder: str = ""


def start_ranks(
    launch: Launch,
    arguments: Sequence[str],
    *,
    deadline_seconds: float,
    on_progress: OnProgress = lambda _: None,
    streams: tuple[int | None, int | None] = (None, None),
    more: Mapping[str, str] | None = None,
) -> Ended:
    """Run this command on all ranks, wait for its end, and return how it ended.

    The launcher's output is ours, or goes to the descriptors `streams`; `more` is added to the environment. Rank 0 is
    lost when it is not heard of for the deadline.
    """
    return start_program(
        launch,
        rank_program(arguments),
        deadline_seconds=deadline_seconds,
        on_progress=on_progress,
        streams=streams,
        more=more,
    )


def start_program(
    launch: Launch,
    program: Sequence[str],
    *,
    deadline_seconds: float,
    on_progress: OnProgress = lambda _: None,
    streams: tuple[int | None, int | None] = (None, None),
    more: Mapping[str, str] | None = None,
) -> Ended:
    """Do the same with any program on all ranks."""
    environment = {**rank_environment(launch), **(more or {})}
    lost: list[str] = []
    with closing(Meeting(1, deadline_seconds=deadline_seconds, on_lost=lost.append)) as meeting:
        environment = launch_environment(launch.launcher, {**environment, VARIABLE: meeting.place.text()})
        words = launch.words(program, environment)
        return Supervised(words, environment, meeting, lost, on_progress, streams).run()


def start_here(
    arguments: Sequence[str],
    *,
    deadline_seconds: float,
    on_progress: OnProgress = lambda _: None,
    streams: tuple[int | None, int | None] = (None, None),
    more: Mapping[str, str] | None = None,
) -> Ended:
    """Run this command as a child on this host, whose local ranks are its own, and return how it ended."""
    parent = str(Path(stoker.__file__).parents[1])
    paths = os.pathsep.join([parent, *filter(None, [os.environ.get("PYTHONPATH")])])
    lost: list[str] = []
    with closing(Meeting(1, deadline_seconds=deadline_seconds, on_lost=lost.append)) as meeting:
        environment = {**os.environ, "PYTHONPATH": paths, VARIABLE: meeting.place.text(), **(more or {})}
        return Supervised(rank_program(arguments), environment, meeting, lost, on_progress, streams).run()


class Supervised:
    """A launcher as our child, in a process group of its own so that it can be ended with all it started here."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        meeting: Meeting,
        lost: Sequence[str],
        on_progress: OnProgress = lambda _: None,
        streams: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self._streams = streams
        self._words, self._environment, self._meeting, self._lost = list(words), dict(environment), meeting, lost
        self._on_progress, self._shown = on_progress, ""
        self._asked, self._signals, self._passed, self._gently = 0, 0, 0, False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Ended:
        """Run it to its end and return how that came."""
        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in watched}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the launcher that was asked for
                self._words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._streams[0],
                stderr=self._streams[1],
                process_group=0,
            )
            code = self._wait(self._process)
        finally:
            if self._process is not None:
                _end_group(self._process)
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._ended(code)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._asked = self._asked or number
        self._signals += 1

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the launcher; once it was asked to end, or rank 0 has ended or is lost, not for long."""
        left_seconds = STOP_SECONDS
        while True:
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                self._show()
                self._pass_on(process, late=left_seconds <= STOP_SECONDS - _GENTLE_SECONDS)
                over = self._asked or self._lost or (self._meeting.roll.members and self._meeting.roll.all_ended)
                left_seconds -= _POLL_SECONDS if over else 0.0
                if left_seconds <= 0:
                    return -signal.SIGKILL

    def _pass_on(self, process: subprocess.Popen[bytes], *, late: bool) -> None:
        """Pass the first signal on to rank 0 where it is there to hear it, else, or when `late`, to the launcher."""
        if self._signals <= self._passed and not (late and self._gently):
            return
        number = signal.SIGINT if self._asked == signal.SIGINT else signal.SIGTERM
        self._gently = self._passed == 0 and self._signals == 1 and bool(self._meeting.roll.members)
        self._passed = self._signals
        if self._gently:
            self._meeting.pass_on(number)
        else:
            process.send_signal(number)

    def _show(self) -> None:
        said = self._meeting.said.get(0)
        if said is not None and said.kind in ("beat", "bye") and said.text and said.text != self._shown:
            self._shown = said.text
            with suppress(msgspec.DecodeError):
                self._on_progress(msgspec.json.decode(said.text, type=ProgressEvent))

    def _ended(self, code: int) -> Ended:
        self._show()
        said = self._meeting.said.get(0)
        folder = self._meeting.given.get(0, b"").decode()
        if said is not None and said.kind == "bye":
            return Ended(128 + self._asked if self._asked else said.code, told=True, folder=folder)
        reason = self._lost[0] if self._lost else f"the launcher ended with {_code_words(code)}"
        if self._asked:
            return Ended(128 + self._asked, told=False, reason=reason, folder=folder)
        return Ended(code if code > 0 else EXIT_FAILED, told=False, reason=reason, folder=folder)


def _code_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of what the launcher started on this host."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
