"""Every command has help, a page and an example; every option of a command stands in its help."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stoker.cli.main import COMMANDS, cli

REPO = Path(__file__).resolve().parents[2]
COMMAND_PAGES = REPO / "docs" / "commands"


def leaves() -> list[str]:
    """Every command as it is typed, groups opened."""
    found = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found += [f"{name} {inner}" for inner in command.list_commands(click.Context(command))]
        else:
            found.append(name)
    return found


@pytest.mark.parametrize("words", leaves())
def test_command_has_help_a_page_and_a_tested_example(words: str) -> None:
    name = words.split(maxsplit=1)[0]
    pages = [page for page in COMMAND_PAGES.glob("*.md") if page.stem == name or page.stem.startswith(f"{name}_")]
    assert any(f"$ stoker {words}" in page.read_text() for page in pages), (
        f"docs/commands: no tested example of `stoker {words}`"
    )
    command: click.Command | None = cli
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None and command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"stoker {words} {parameter.opts} has no help"


def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=REPO,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
