"""What every command prints with: text for people or one JSON object, on stdout, whatever becomes of its reader."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from stoker.bench.report.text import plain
from stoker.core.errors import StokerError

if TYPE_CHECKING:
    from rich.console import Console

LINE_CHARACTERS_MAX: Final = 10_000
_without_reader: Final = threading.Event()


@contextmanager
def printing() -> Iterator[None]:
    """Let a reader that goes away (`| head -1`) change nothing: not what was done, and not the exit code.

    Raises StokerError when what is printed cannot be written for another reason.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        _without_reader.set()
    except OSError as error:
        _silence()
        raise StokerError(
            "output cannot be written", where="standard output", got=error.strerror or "", remedy="free some space"
        ) from error


def reader_is_gone() -> bool:
    """Tell whether nobody reads what is printed any more: a command that prints without end may then stop."""
    return _without_reader.is_set()


def _silence() -> None:
    """Point stdout elsewhere, so that what is still buffered does not fail again when the interpreter ends."""
    elsewhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, sys.stdout.fileno())
    os.close(elsewhere)


def emit_json(document: Any) -> None:
    """Print a document as one JSON object on stdout."""
    emit_text(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


def emit_line(document: Any) -> None:
    """Print a document as one JSON object on a line of its own: one of many."""
    emit_text(msgspec.json.encode(document).decode())


def emit_text(text: str) -> None:
    """Print lines on stdout."""
    with printing():
        click.echo(text)


@contextmanager
def screen() -> Iterator["Console"]:
    """Give a console on stdout for lines with colour. It takes no markup: a file's name may look like some.

    A command that was asked for colours, or for none, has said so in its context.
    """
    from rich.console import Console

    context = click.get_current_context(silent=True)
    color = context.color if context is not None else None

    class Screen(Console):
        """A console that leaves it to `printing` what a broken pipe means."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with printing():
        yield Screen(
            highlight=False,
            markup=False,
            emoji=False,
            force_terminal=True if color else None,
            no_color=True if color is False else None,
        )


def emit_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and what they stand for, one pair a line."""
    width = max(map(len, pairs))
    emit_text("\n".join(f"{name:{width}}  {harmless(text)}" for name, text in pairs.items()))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"warning: {harmless(text)}", err=True)


def harmless(text: str) -> str:
    """Return the text as one line that cannot steer a terminal: names of files may hold anything."""
    return plain(text, LINE_CHARACTERS_MAX)
