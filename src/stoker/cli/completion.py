"""`stoker completion`."""

import click
from click.shell_completion import get_completion_class

from stoker.cli.screen import emit_text


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL; for bash: eval "$(stoker completion bash)"."""
    from stoker.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(cli, {}, "stoker", "_STOKER_COMPLETE")
    # The bash class's own version check runs a bash that need not be here; the template is all that is wanted.
    emit_text(completion.source_template % completion.source_vars())
