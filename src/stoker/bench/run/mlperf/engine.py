"""Our engine as a child, or on many hosts: its output kept in the leaf and passed on, its end told."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.hosts.events import OnProgress
from stoker.bench.run.hosts.start import Ended, Launch, plan_launch, rank_program, start_here, start_program
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.tee import OnOutput, Tee
from stoker.core.errors import EXIT_GOOD, EXIT_INVALID, EXIT_NEGATIVE
from stoker.core.options import Setting

DEADLINE_SECONDS: Final = 60.0
COMPLETED: Final = (EXIT_GOOD, EXIT_NEGATIVE, EXIT_INVALID)
"""How the engine ends after a whole run, whatever its own verdict."""
_UNSET: Final = {
    "mpi_bin": Setting("mpirun"),
    "mpi_btl": Setting("auto"),
    "oversubscribe": Setting(value=True),
    "allow_run_as_root": Setting(value=True),
    "mpi_params": Setting(()),
}
"""What a family without the launcher's options has: clients of a database share cores, as in the reference."""
_BINARIES: Final = {"mpirun": "MPI_RUN_BIN", "mpiexec": "MPI_EXEC_BIN"}


class Engine(msgspec.Struct, frozen=True):
    """How the engine is started: on many hosts by a launcher, or as a child of this process where there is none."""

    launch: Launch | None

    @property
    def told(self) -> str:
        """Return it for people."""
        if self.launch is None:
            return "local processes"
        hosts = ", ".join(f"{host.name} {host.slots}" for host in self.launch.hosts)
        return f"{self.launch.launcher.told} on {hosts}"

    def command(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        """Return the command line as it is kept: the launcher's, or ours."""
        if self.launch is None:
            return shlex.join(["stoker", *arguments])
        return shlex.join(self.launch.words(rank_program(arguments), environment))


def engine_of(invocation: Invocation, environment: Mapping[str, str]) -> Engine:
    """Return how the engine of a command is started.

    Raises PreflightError without the launcher that was asked for, UsageError for hosts that do not hold the ranks.
    """
    if not invocation.over_mpi:
        return Engine(None)
    return Engine(plan_launch(launch_settings(invocation, environment), invocation.ranks))


def launch_settings(invocation: Invocation, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the launcher's settings; a variable may name the path of mpirun or mpiexec."""
    names = ("mpi_bin", "mpi_btl", "oversubscribe", "allow_run_as_root", "mpi_params")
    found = {name: invocation.settings.get(name, _UNSET[name]) for name in names}
    binary = str(found["mpi_bin"].value)
    path = environment.get(_BINARIES.get(binary, ""), "")
    found["mpi_bin"] = Setting(path or binary, found["mpi_bin"].origin)
    found["hosts"] = Setting(invocation.value("hosts") or ["127.0.0.1"], invocation.settings["hosts"].origin)
    return found


def start_engine(
    engine: Engine,
    arguments: Sequence[str],
    leaf: Path,
    name: str,
    *,
    on_progress: OnProgress,
    on_output: OnOutput,
    variables: Mapping[str, str],
) -> Ended:
    """Run `stoker` with `arguments`, keep what it says in `<name>.stdout.log` and `.stderr.log`, and return its end.

    `on_output` is called before something that it says is passed on.
    """
    return _started(leaf, name, on_output, lambda streams: _run(engine, arguments, streams, on_progress, variables))


def start_ranks_of(
    launch: Launch,
    program: Sequence[str],
    leaf: Path,
    name: str,
    *,
    on_progress: OnProgress,
    on_output: OnOutput,
    variables: Mapping[str, str],
) -> Ended:
    """Do the same with another program, on the hosts of `launch`."""

    def run(streams: tuple[int, int]) -> Ended:
        return start_program(
            launch,
            program,
            deadline_seconds=DEADLINE_SECONDS,
            on_progress=on_progress,
            streams=streams,
            more=variables,
        )

    return _started(leaf, name, on_output, run)


def _started(leaf: Path, name: str, on_output: OnOutput, run: Callable[[tuple[int, int]], Ended]) -> Ended:
    with ExitStack() as stack:
        out = stack.enter_context(Tee(leaf / f"{name}.stdout.log", sys.stdout.buffer, on_output))
        errors = stack.enter_context(Tee(leaf / f"{name}.stderr.log", sys.stderr.buffer, on_output))
        return run((out.end, errors.end))


def _run(
    engine: Engine,
    arguments: Sequence[str],
    streams: tuple[int, int],
    on_progress: OnProgress,
    variables: Mapping[str, str],
) -> Ended:
    if engine.launch is None:
        return start_here(
            arguments, deadline_seconds=DEADLINE_SECONDS, on_progress=on_progress, streams=streams, more=variables
        )
    return start_program(
        engine.launch,
        rank_program(arguments),
        deadline_seconds=DEADLINE_SECONDS,
        on_progress=on_progress,
        streams=streams,
        more=variables,
    )
