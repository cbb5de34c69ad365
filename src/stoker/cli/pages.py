"""`stoker pages`."""

import click

from stoker.cli.groups import OrderedGroup
from stoker.cli.pages_care import checkpoint, compact, heal, sweep, verify
from stoker.cli.pages_look import ls, stat, top
from stoker.cli.pages_past import diff, history, log, replay


@click.group("pages", cls=OrderedGroup)
def command() -> None:
    """Look at stores of pages: versioned shared memory with a log.

    STORE is a folder, or the name of a store in memory. A folder that nobody has open is read as it lies there.
    """


for _leaf in (ls, stat, top, log, history, diff, replay, verify, heal, checkpoint, compact, sweep):
    command.add_command(_leaf)
