"""`stoker mlperf`: the commands of the MLPerf Storage tool."""

import importlib
from typing import Any

import click

from stoker.cli.groups import NearestGroup
from stoker.core.errors import StokerError


class Tree(NearestGroup):
    """The root: modules are imported when asked for, and errors leave with the exit codes of the reference tool."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(importlib.import_module("stoker.cli.mlperf_records").COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name."""
        found: click.Command | None = importlib.import_module("stoker.cli.mlperf_records").COMMANDS.get(cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command; an error of ours gets the reference tool's exit code."""
        from stoker.bench.run.mlperf.exits import exit_code_of

        try:
            return super().invoke(ctx)
        except StokerError as error:
            error.exit_code = exit_code_of(error)
            raise
        except OSError as error:
            raised = StokerError(error.strerror or str(error), where=str(error.filename or ""))
            raised.exit_code = exit_code_of(error)
            raise raised from error


@click.command("mlperf", cls=Tree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def command() -> None:
    """Keep and judge records of MLPerf Storage runs, with the reference tool's commands and exit codes."""
