"""What every command prints with: text for people or one JSON object, on stdout, whatever becomes of its reader."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console

from stoker.core.errors import StokerError


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
    except OSError as error:
        _silence()
        raise StokerError(
            "output cannot be written", where="standard output", got=error.strerror or "", remedy="free some space"
        ) from error


def _silence() -> None:
    """Point stdout elsewhere, so that what is still buffered does not fail again when the interpreter ends."""
    elsewhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, sys.stdout.fileno())
    os.close(elsewhere)


def emit_json(document: Any) -> None:
    """Print a document as one JSON object on stdout."""
    emit_text(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


def emit_text(text: str) -> None:
    """Print lines on stdout."""
    with printing():
        click.echo(text)


@contextmanager
def screen() -> Iterator[Console]:
    """Give a console on stdout for lines with colour. It takes no markup: a file's name may look like some."""
    with printing():
        yield _Screen(highlight=False, markup=False, emoji=False)


class _Screen(Console):
    """A console that leaves it to `printing` what a broken pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def emit_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and what they stand for, one pair a line."""
    width = max(map(len, pairs))
    emit_text("\n".join(f"{name:{width}}  {text}" for name, text in pairs.items()))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"warning: {text}", err=True)
