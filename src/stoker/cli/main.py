"""The entry point: finds the command, and turns every error into one sentence and a documented exit code."""

import importlib
import os
import sys
from typing import Any

import click
import msgspec

from stoker import __version__
from stoker.bench.run.signals import SignalStop, SignalWatch
from stoker.cli.groups import NearestGroup
from stoker.cli.screen import harmless
from stoker.core.errors import EXIT_GOOD, StokerError, UsageError

COMMANDS = {
    "feed": "Can this storage feed N accelerators? A quick, honest answer.",
    "run": "Run a workload against storage that holds its dataset.",
    "gen": "Make a dataset: parallel, resumable, verifiable.",
    "plan": "Show what a run would do, in files, bytes and seconds, without touching the target.",
    "dlio": "Run a DLIO workload: the same YAML, the same overrides, the same output files.",
    "mlperf": "MLPerf Storage 3.0: the same tree of commands, options and results.",
    "pages": "Look at stores of pages: versioned shared memory with a log.",
    "fs": "The distributed file system: volumes, mounts, masters, chunk servers, and their care.",
    "check": "Judge saved results and trees by the rules of MLPerf Storage.",
    "bundle": "Seal a folder of results: a hash tree over its files, signed, checked offline.",
    "report": "Turn a saved result into one self-contained HTML page.",
    "doctor": "Check this machine, and a target, before anything is started.",
    "config": "Tell where a value comes from: flag, environment, file, preset or default.",
    "completion": "Print the completion script for bash, zsh or fish.",
    "version": "Print the version, and those of what it stands on.",
}


_CONDUCTOR = "STOKER_CONDUCTOR"
_CONTROL = "STOKER_CONTROL_TOKEN"
_LAUNCHER_VARIABLES = ("OMPI_", "PMI_", "PMIX_", "PALS_", "SLURM_STEP_")


class LazyGroup(NearestGroup):
    """Imports a command's module only when the command is asked for, so that start-up stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a newcomer's path, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, importing its module."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"stoker.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stoker")
def cli() -> None:
    """Storage that keeps accelerators fed, and the benchmark that proves it.

    Exit codes: 0 good, 1 failed, 2 wrong use, 3 ran but the verdict is not yes, 4 ran but invalid, 5 preflight
    failed, 6 partial, 130 and 143 stopped by a signal.
    """


def main() -> None:
    """Run the command line and leave with the exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line `arguments` and return the exit code; a signal's is 128 and its number."""
    with SignalStop() as stop:
        try:
            if os.environ.get(_CONDUCTOR):
                code = _run_or_serve(arguments)
            else:
                code = _run_together(arguments) if _under_launcher() else _run_alone(arguments)
        except StokerError as error:  # a signal that came while an error was being told
            code = error.exit_code
    return _signal_code(arguments, stop.received) if stop.received else code


def _signal_code(arguments: list[str], number: int) -> int:
    """Return the exit code of a command that a signal ended: 128 and its number, or that of the MLPerf tree."""
    if arguments[:1] != ["mlperf"]:
        return 128 + number
    from stoker.bench.run.mlperf.exits import INTERRUPTED

    return INTERRUPTED


def _run_or_serve(arguments: list[str]) -> int:
    """Run the command line in the process with index 0 of several that meet over TCP; the others serve its ranks."""
    from stoker.bench.run.conduct_tcp import serve_ranks
    from stoker.bench.run.hosts.discover import discover

    try:
        found = discover()
    except StokerError as error:
        return _tell(error, arguments)
    return _run(arguments) if found is None or found.index == 0 else serve_ranks()


def _under_launcher() -> bool:
    """Tell whether an MPI launcher may have started this process; what it takes to be sure is costly to import."""
    return any(name.startswith(_LAUNCHER_VARIABLES) for name in os.environ)


def _run_alone(arguments: list[str]) -> int:
    """Run the command line; where a command of ours started this process, die with it and tell it how this ends."""
    if not os.environ.get(_CONTROL):
        return _run(arguments)
    from stoker.bench.run.hosts.control import attend, leave
    from stoker.bench.run.process import die_with_parent

    die_with_parent(os.getppid())
    attend(lambda _: os._exit(1))
    del os.environ[_CONTROL]  # what this process starts is its own
    code = _run(arguments)
    leave(code)
    return code


def _run_together(arguments: list[str]) -> int:
    """Run the command line on rank 0 alone: the other ranks follow it, and end as it ends."""
    with SignalWatch() as watch:  # a rank that left now would leave the others waiting
        from stoker.bench.run.conduct_mpi import dismiss, follow, meet
        from stoker.bench.run.hosts.control import leave
        from stoker.bench.run.launch_mpi import is_first_rank, is_one_of_several

        several = is_one_of_several()
        started = _keep_to_who_started_us(is_first_rank())
        if several and not is_first_rank():
            try:
                return follow()
            except StokerError as error:
                return _tell(error, [])
        if several:
            meet()
    code = 128 + watch.received
    try:
        if not watch.received:
            code = _run(arguments)
    except StokerError as error:
        code = error.exit_code
        raise
    finally:
        heard = started and leave(code)
        if several:
            dismiss(0 if heard else code)
    return 0 if heard else code


def _keep_to_who_started_us(first: bool) -> bool:
    """Under a launcher that stoker started, let no rank outlive it; return whether rank 0 can tell how it ends."""
    from stoker.bench.run.hosts.control import attend
    from stoker.bench.run.hosts.start import STARTED_VARIABLE
    from stoker.bench.run.launch_mpi import abort_all
    from stoker.bench.run.process import die_with_parent

    if STARTED_VARIABLE not in os.environ:
        return False
    die_with_parent(os.getppid())
    return first and attend(lambda reason: abort_all(f"who started the ranks is gone: {reason}"))


def _run(arguments: list[str]) -> int:
    try:
        code: Any = cli.main(args=arguments, prog_name="stoker", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_GOOD
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _tell(_usage_error(error), arguments)
    except StokerError as error:
        return _tell(error, arguments)
    except OSError as error:
        return _tell(StokerError(f"{error.strerror or error}", where=str(error.filename or "")), arguments)


def _usage_error(error: click.ClickException) -> UsageError:
    """Return our error for one of click's: the same sentence, and where to read more."""
    context = getattr(error, "ctx", None)
    remedy = f"see {context.command_path} --help" if context is not None else ""
    return UsageError(error.format_message().strip().rstrip("."), remedy=remedy)


def _facts(error: StokerError) -> dict[str, Any]:
    facts = {name: getattr(error, name) for name in ("what", "where", "expected", "got", "remedy")}
    return {"kind": type(error).__name__, **facts}


def _tell(error: StokerError, arguments: list[str]) -> int:
    """Say what went wrong: a sentence on stderr and, when JSON was asked for, an object on stdout. Return the code."""
    several: tuple[StokerError, ...] = getattr(error, "errors", ())
    click.echo(f"stoker: {harmless(error.what + ':' if several else str(error))}", err=True)
    for number, each in enumerate(several, 1):
        click.echo(f"  {number}. {harmless(str(each))}", err=True)
    if "--json" in arguments:
        document = {"error": {**_facts(error), "exit_code": error.exit_code}}
        if several:
            document["error"]["errors"] = [_facts(each) for each in several]
        try:
            click.echo(msgspec.json.encode(document).decode())
        except OSError:
            sys.stdout = None  # the reader is gone, or stdout is what failed: the sentence above is all there is
    return error.exit_code
