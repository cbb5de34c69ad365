"""Every command of records has help, help for each option, and an example on its page."""

from pathlib import Path

import click
import pytest

from stoker.cli.mlperf_records import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands" / "mlperf_records.md").read_text()


def leaves() -> list[tuple[str, click.Command]]:
    found = []
    for name, command in COMMANDS.items():
        inner = command.commands.items() if isinstance(command, click.Group) else ()
        found += [(f"{name} {each}", below) for each, below in inner] or [(name, command)]
    return found


@pytest.mark.parametrize(("words", "command"), leaves(), ids=[words for words, _ in leaves()])
def test_command_has_help_and_an_example(words: str, command: click.Command) -> None:
    assert f"$ stoker mlperf {words}" in PAGE
    assert command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{words} {parameter.opts} has no help"
