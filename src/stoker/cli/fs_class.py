"""`stoker fs class`: the storage classes of a volume, and which one a directory or file has."""

from typing import Any

import click
import msgspec

from stoker.cli.fs_volume import as_json, shown, tree_of, volume_argument
from stoker.cli.groups import OrderedGroup
from stoker.cli.screen import emit_json, emit_text
from stoker.core.errors import EXIT_GOOD, UnknownNameError, UsageError
from stoker.core.units import format_bytes, parse_bytes
from stoker.fs.meta import Tree
from stoker.fs.meta.calls import ListClasses, MakeClass, SetClass
from stoker.fs.meta.storage_class import DOMAINS, StorageClass, check_class, coded, parse_code


@click.group("class", cls=OrderedGroup)
def storage_class() -> None:
    """Make storage classes of VOLUME, and give them to directories and files.

    A class says how many shards a slice of a file has, any how many of them give its bytes back, and what no two of
    them may share.
    """


def _document(made: StorageClass) -> dict[str, Any]:
    return {**msgspec.to_builtins(made), "code": made.text}


def _line(made: StorageClass) -> str:
    small = f"  up to {format_bytes(made.small_bytes)} in {made.small_copies} copies" if made.small_copies else ""
    cells = format_bytes(made.cell_bytes)
    return f"{made.id:>4}  {made.name:<20} {made.text:>5}  by {made.domain:<6} cells of {cells}{small}"


def _classes(tree: Tree) -> tuple[StorageClass, ...]:
    return tree.volume.run(ListClasses(), caller=tree.caller).classes


@storage_class.command("list")
@volume_argument
@as_json
def list_(volume: str, as_json: bool) -> int:
    """List the storage classes of VOLUME."""
    with tree_of(volume) as tree:
        classes = _classes(tree)
    if as_json:
        emit_json({"classes": [_document(made) for made in classes]})
    else:
        emit_text("\n".join(_line(made) for made in classes))
    return EXIT_GOOD


@storage_class.command("make")
@volume_argument
@click.argument("name")
@click.argument("code")
@click.option("--domain", type=click.Choice(DOMAINS), default="host", show_default=True, help="What is not shared.")
@click.option("--cell", default="256KiB", show_default=True, help="How many bytes a shard has one behind the other.")
@click.option("--small", "small", help="Slices of up to so many bytes are copied; 0 for none. [default: 32KiB of k+m]")
@click.option("--small-copies", type=int, help="In how many copies. [default: m+1, which survive as many losses]")
@click.option(
    "--acknowledge", type=click.Choice(["all", "k+2", "k+1"]), default="k+2", show_default=True,
    help="How many shards must be stored before a write is done.",
)  # fmt: skip
@as_json
def make(  # noqa: PLR0913 - one for each option
    volume: str, name: str, code: str, *, domain: Any, cell: str, small: str | None, small_copies: int | None,
    acknowledge: Any, as_json: bool,
) -> int:  # fmt: skip
    """Make the storage class NAME in VOLUME, which nothing changes later.

    CODE is k+m, such as 8+4, or a number of copies.
    """
    k, m = parse_code(code)
    usual = coded(name, k, m)
    small_bytes = usual.small_bytes if small is None else parse_bytes(small)
    copies = (usual.small_copies or m + 1) if small_copies is None else small_copies
    if not small_bytes and small_copies:
        raise UsageError("--small-copies needs --small", expected="for example --small 32KiB")
    wanted = StorageClass(
        0, name, k, m, parse_bytes(cell), domain, small_bytes, copies if small_bytes else 0, acknowledge
    )  # fmt: skip
    check_class(wanted)
    with tree_of(volume) as tree:
        number = tree.volume.run(MakeClass(wanted), caller=tree.caller).value
    made = msgspec.structs.replace(wanted, id=number)
    if as_json:
        emit_json(_document(made))
    else:
        emit_text(_line(made))
    return EXIT_GOOD


@storage_class.command("set")
@volume_argument
@click.argument("path")
@click.argument("name")
@as_json
def set_(volume: str, path: str, name: str, as_json: bool) -> int:
    """Give PATH in VOLUME the storage class NAME.

    A directory gives it to what is made in it from now on, a file to what is written to it from now on.
    """
    with tree_of(volume) as tree:
        classes = _classes(tree)
        number = next((made.id for made in classes if made.name == name), None)
        if number is None:
            known = ", ".join(made.name for made in classes)
            raise UnknownNameError("no such storage class", where=name, expected=known)
        raw = path.encode(errors="surrogateescape")
        tree.volume.run(SetClass(tree.stat(raw).ino, number), caller=tree.caller)
    if as_json:
        emit_json({"path": shown(raw), "storage_class": name})
    return EXIT_GOOD


@storage_class.command("get")
@volume_argument
@click.argument("path")
@as_json
def get(volume: str, path: str, as_json: bool) -> int:
    """Print the storage class of PATH in VOLUME."""
    with tree_of(volume) as tree:
        raw = path.encode(errors="surrogateescape")
        number = tree.stat(raw).attr.storage_class
        made = next(made for made in _classes(tree) if made.id == number)
    if as_json:
        emit_json({"path": shown(raw), "storage_class": made.name, **_document(made)})
    else:
        emit_text(_line(made))
    return EXIT_GOOD
