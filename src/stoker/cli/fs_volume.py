"""How the commands of `stoker fs` open a volume, and `stoker fs format`, which makes one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from stoker.cli.screen import emit_json, emit_pairs, harmless
from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.fs.meta import Caller, Tree, Volume

if TYPE_CHECKING:
    from stoker.fs.doors.places import Access
    from stoker.fs.meta.service import Metadata

Function = TypeVar("Function", bound=Callable[..., Any])
as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
local_volume_argument: Final = click.argument("volume")
_ACCESS: Final = "stoker.fs.access"
_REMEMBERED: Final = (
    ("--token-file", "FILE", "File with the token of masters and chunk servers; else $STOKER_FS_TOKEN."),
    ("--tls-ca", "FILE", "Authority of their certificates: everything is encrypted."),
    ("--tls-cert", "FILE", "Certificate to show them."),
    ("--tls-key", "FILE", "Its key."),
)


def _remember(context: click.Context, option: click.Parameter, value: str) -> None:
    context.meta.setdefault(_ACCESS, {})[str(option.name)] = value


def access_options(function: Function) -> Function:
    """Give a command the options by which masters and chunk servers are reached: see `access`."""
    for name, metavar, about in reversed(_REMEMBERED):
        function = click.option(
            name, default="", metavar=metavar, help=about, expose_value=False, callback=_remember
        )(function)  # fmt: skip
    return function


def volume_argument(function: Function) -> Function:
    """Give a command the argument VOLUME, and the options that reach one which masters serve: see `access`."""
    return click.argument("volume")(access_options(function))


def data_option(function: Function) -> Function:
    """Give a command the option for the folder of bytes: see `access`."""
    return click.option(
        "--data", default="", metavar="FOLDER", help="Where the bytes are: VOLUME's own path and `.data` unless told.",
        expose_value=False, callback=_remember,
    )(function)  # fmt: skip


def access() -> "Access":
    """Return how the running command reaches its volume."""
    from stoker.fs.doors.places import Access

    return Access(**click.get_current_context().meta.get(_ACCESS, {}))


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
    with metadata_of(url) as volume:
        yield Tree(volume, myself(), umask=umask())


@contextmanager
def metadata_of(url: str) -> Iterator["Metadata"]:
    """Open the metadata of a volume, in this process or at its masters."""
    from stoker.fs.doors.places import open_metadata

    opened = open_metadata(refuse_memory(url), access())
    try:
        yield opened
    finally:
        opened.close()


def myself() -> Caller:
    """Return the user who runs the command."""
    return Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))


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


def facts(volume: "Metadata", url: str) -> dict[str, Any]:
    """Return what a volume is."""
    settings = volume.settings
    engine = volume.engine if isinstance(volume, Volume) else None
    return {
        "url": engine.url if engine else url,
        "name": settings.name,
        "uuid": settings.uuid,
        "made": utc_text_of_ns(settings.made_ns),
        "engine": engine.name if engine else "masters",
        "form": settings.version,
    }


@click.command("format")
@local_volume_argument
@click.option("--name", default="", help="A name for people.")
@mode_option("755")
@as_json
def format_volume(volume: str, name: str, mode: str, as_json: bool) -> int:
    """Make an empty VOLUME where nothing is; its root belongs to who runs this."""
    owner = Caller(os.geteuid(), os.getegid())
    with Volume.format(refuse_memory(volume), name=name, mode=octal(mode), owner=owner) as made:
        told = facts(made, volume)
    if as_json:
        emit_json(told)
    else:
        emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD
