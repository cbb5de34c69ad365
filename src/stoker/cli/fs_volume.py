"""How the commands of `stoker fs` open a volume, and `stoker fs format`, which makes one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from stoker.cli.screen import emit_json, emit_pairs, harmless
from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.fs.meta import Caller, Tree, Volume

Function = TypeVar("Function", bound=Callable[..., Any])
as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
volume_argument: Final = click.argument("volume")


def refuse_memory(url: str) -> str:
    """Return the URL. Raises UsageError for a volume in memory, which would end with the command."""
    if url.lower().startswith("memory:"):
        raise UsageError(
            "a volume in memory ends with the command", where=url, expected="sqlite:///path.db or lmdb:///folder"
        )
    return url


@contextmanager
def tree_of(url: str) -> Iterator[Tree]:
    """Open a volume, as the user who runs the command."""
    with Volume.open(refuse_memory(url)) as volume:
        yield Tree(volume, Caller(os.geteuid(), os.getegid(), tuple(os.getgroups())), umask=umask())


def umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def mode_option(default: str) -> Callable[[Function], Function]:
    """Return the option for a mode in octal digits."""
    return click.option("--mode", default=default, show_default=True, help="Permissions, in octal digits.")


def octal(text: str) -> int:
    """Return a mode. Raises UsageError for text that is none."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise UsageError("mode is not octal", where=text, expected="such as 755")
    return mode


def shown(name: bytes) -> str:
    """Return a name as it is printed: bytes that are no UTF-8 as escapes, and nothing that could steer a terminal."""
    return harmless(name.decode(errors="backslashreplace"))


def facts(volume: Volume) -> dict[str, Any]:
    """Return what a volume is."""
    settings = volume.settings
    return {
        "url": volume.engine.url,
        "name": settings.name,
        "uuid": settings.uuid,
        "made": utc_text_of_ns(settings.made_ns),
        "engine": volume.engine.name,
        "form": settings.version,
    }


@click.command("format")
@volume_argument
@click.option("--name", default="", help="A name for people.")
@mode_option("755")
@as_json
def format_volume(volume: str, name: str, mode: str, as_json: bool) -> int:
    """Make an empty VOLUME where nothing is; its root belongs to who runs this."""
    owner = Caller(os.geteuid(), os.getegid())
    with Volume.format(refuse_memory(volume), name=name, mode=octal(mode), owner=owner) as made:
        told = facts(made)
    if as_json:
        emit_json(told)
    else:
        emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD
