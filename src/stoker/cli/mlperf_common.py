"""What the commands of records have in common: the options of every command of the tool, and how notes are told.

Of the universal options those are here that mean something where nothing is run; the commands that run have them all.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core import clock

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_COLORS: Final = {"auto": None, "always": True, "never": False}
_TONES: Final = {"WARNING": "yellow", "ERROR": "red", "INFO": "green"}
_DEBUG_VARIABLE: Final = "MLPS_DEBUG"
_OFF: Final = ("", "0", "false", "no", "off")
results_dir_option = click.option(
    "--results-dir",
    "-rd",
    metavar="DIR",
    help="Results directory.  [env: MLPSTORAGE_RESULTS_DIR; else the recorded one]",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
dry_run_option = click.option("--dry-run", "--what-if", is_flag=True, help="Tell what would be done, and do nothing.")


class Voice:
    """Tells notes on stderr, a line with its level each; those below a level are left out."""

    def __init__(self, least: str, color: bool | None) -> None:
        self._least = LEVELS.index(least)
        self._color = sys.stderr.isatty() and not os.environ.get("NO_COLOR") if color is None else color

    def say(self, level: str, text: str) -> None:
        """Tell a note."""
        if LEVELS.index(level) >= self._least:
            tag = click.style(level, fg=_TONES.get(level)) if self._color else level
            click.echo(f"[{tag}] {harmless(text)}", err=True, color=self._color)


def say(level: str, text: str) -> None:
    """Tell a note of the command that runs."""
    voice = click.get_current_context().obj
    assert isinstance(voice, Voice)
    voice.say(level, text)


def tell_foreseen(what: str, listed: Sequence[str], *, as_json: bool) -> None:
    """Tell what a command would do, and to what: a dry run."""
    if as_json:
        emit_json({"would": what, "items": list(listed)})
    else:
        emit_text("\n".join([f"would {what}", *(f"  {harmless(line)}" for line in listed)]))


class RecordsCommand(click.Command):
    """A command with the universal options: how much is told, colours, and a lock that has to hold first."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params += _universal()

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command with what the universal options ask for."""
        given = {str(option.name): ctx.params.pop(str(option.name)) for option in _universal()}
        color = _COLORS[given["color"]]
        if color is not None:
            ctx.color = color
        ctx.obj = Voice(_least(given), color)
        start_ns = clock.monotonic_ns()
        self._before(given)
        try:
            return super().invoke(ctx)
        finally:
            ctx.obj.say("DEBUG", f"took {(clock.monotonic_ns() - start_ns) / 1e9:.3f} s")

    @staticmethod
    def _before(given: Mapping[str, Any]) -> None:
        from stoker.bench.run.mlperf.results_dir import earlier_spellings

        for hint in earlier_spellings(os.environ):
            say("WARNING", hint)
        if given["verify_lockfile"]:
            from stoker.bench.run.lockfile import require_locked

            say("INFO", require_locked(given["verify_lockfile"]).sentence())


def _least(given: Mapping[str, Any]) -> str:
    """Return the least level that is told: `--quiet` leaves out all but errors, `--debug` nothing."""
    if given["debug"] or given["verbose"] or os.environ.get(_DEBUG_VARIABLE, "").lower() not in _OFF:
        return "DEBUG"
    return "ERROR" if given["quiet"] else str(given["stream_log_level"])


def _universal() -> list[click.Option]:
    return [
        click.Option(["--debug"], is_flag=True, help=f"Tell everything besides the answer.  [env: {_DEBUG_VARIABLE}]"),
        click.Option(["--verbose"], is_flag=True, help="The same."),
        click.Option(["--quiet"], is_flag=True, help="Tell nothing but the answer and errors."),
        click.Option(
            ["--stream-log-level"],
            type=click.Choice(LEVELS),
            default="INFO",
            show_default=True,
            help="Least level of what is told besides the answer.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(list(_COLORS)),
            default="auto",
            show_default=True,
            help="Colour of the levels.",
        ),
        click.Option(["--verify-lockfile"], metavar="PATH", help="Hold what is installed against this lock first."),
    ]
