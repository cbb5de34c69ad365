"""`stoker fs mkdir`, `mv`, `ln`, `rm` and `xattr`: what changes a volume's names."""

from typing import Any

import click

from stoker.cli.fs_volume import as_json, mode_option, octal, shown, tree_of, volume_argument
from stoker.cli.screen import emit_json, emit_text
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.fs.meta import Tree, Volume
from stoker.fs.meta.calls import EXCHANGE, NOREPLACE


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _told(as_json: bool, document: dict[str, Any]) -> int:
    if as_json:
        emit_json(document)
    return EXIT_GOOD


@click.command("mkdir")
@volume_argument
@click.argument("path")
@click.option("--parents", is_flag=True, help="Those above it too; one that is there is no error.")
@mode_option("777")
@as_json
def mkdir(volume: str, path: str, parents: bool, mode: str, as_json: bool) -> int:
    """Make the directory PATH in VOLUME; the umask applies."""
    bits = octal(mode)
    with tree_of(volume) as tree:
        if parents:
            tree.makedirs(_raw(path), bits)
        else:
            tree.mkdir(_raw(path), bits)
        made = tree.stat(_raw(path))
    return _told(as_json, {"path": shown(_raw(path)), "inode": made.ino})


@click.command("mv")
@volume_argument
@click.argument("source")
@click.argument("target")
@click.option("--no-replace", is_flag=True, help="Refuse a TARGET that is there.")
@click.option("--exchange", is_flag=True, help="Let both change places.")
@as_json
def mv(volume: str, source: str, target: str, no_replace: bool, exchange: bool, as_json: bool) -> int:
    """Rename SOURCE to TARGET in VOLUME, in one step; into TARGET when that is a directory."""
    if no_replace and exchange:
        raise UsageError("--no-replace and --exchange exclude each other", expected="one of them")
    with tree_of(volume) as tree:
        goal = _raw(target) if exchange else _goal(tree, _raw(source), _raw(target))
        tree.rename(_raw(source), goal, EXCHANGE if exchange else NOREPLACE if no_replace else 0)
    return _told(as_json, {"source": shown(_raw(source)), "target": shown(goal), "exchanged": exchange})


def _goal(tree: Tree, source: bytes, target: bytes) -> bytes:
    """Return where a name goes that is moved or linked to `target`: into it, when that is a directory."""
    if tree.exists(target) and tree.stat(target).attr.is_directory:
        return target.rstrip(b"/") + b"/" + source.rstrip(b"/").rpartition(b"/")[2]
    return target


@click.command("ln")
@volume_argument
@click.argument("target")
@click.argument("name")
@click.option("--symbolic", is_flag=True, help="A symbolic link, whose TARGET need not be there.")
@as_json
def ln(volume: str, target: str, name: str, symbolic: bool, as_json: bool) -> int:
    """Make NAME in VOLUME one more name of TARGET, or a symbolic link to it."""
    with tree_of(volume) as tree:
        goal = _goal(tree, _raw(target), _raw(name))
        made = tree.symlink(_raw(target), goal) if symbolic else tree.link(_raw(target), goal)
    return _told(as_json, {"path": shown(goal), "inode": made.ino, "links": made.attr.nlink})


@click.command("rm")
@volume_argument
@click.argument("path")
@click.option("--recursive", is_flag=True, help="A directory with all that is in it.")
@as_json
def rm(volume: str, path: str, recursive: bool, as_json: bool) -> int:
    """Remove PATH from VOLUME: a name, an empty directory, or with --recursive a whole one."""
    with tree_of(volume) as tree:
        raw = _raw(path)
        removed = 1
        if not tree.stat(raw, follow=False).attr.is_directory:
            tree.unlink(raw)
        elif recursive:
            removed = tree.remove_tree(raw)
        else:
            tree.rmdir(raw)
        if isinstance(tree.volume, Volume):
            tree.volume.tidy()
    return _told(as_json, {"path": shown(raw), "removed": removed})


@click.command("xattr")
@volume_argument
@click.argument("path")
@click.option("--get", "get", metavar="NAME", help="Print the value of one.")
@click.option("--set", "pair", metavar="NAME=VALUE", help="Set one.")
@click.option("--remove", "remove", metavar="NAME", help="Remove one.")
@as_json
def xattr(volume: str, path: str, get: str | None, pair: str | None, remove: str | None, as_json: bool) -> int:
    """List the extended attributes of PATH in VOLUME, or get, set or remove one, such as user.owner."""
    if sum(option is not None for option in (get, pair, remove)) > 1:
        raise UsageError("--get, --set and --remove exclude each other", expected="one of them")
    with tree_of(volume) as tree:
        told = _xattr(tree, _raw(path), get, pair, remove)
    if as_json:
        emit_json({"path": shown(_raw(path)), **told})
    elif "xattrs" in told:
        emit_text("\n".join(f"{name}={value}" for name, value in told["xattrs"].items()) or "no extended attributes")
    elif "value" in told:
        emit_text(told["value"])
    return EXIT_GOOD


def _xattr(tree: Tree, path: bytes, get: str | None, pair: str | None, remove: str | None) -> dict[str, Any]:
    if get is not None:
        return {"name": get, "value": shown(tree.getxattr(path, _raw(get)))}
    if pair is not None:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("--set has no value", where=pair, expected="NAME=VALUE")
        tree.setxattr(path, _raw(name), _raw(value))
        return {"set": name}
    if remove is not None:
        tree.removexattr(path, _raw(remove))
        return {"removed": remove}
    return {"xattrs": {shown(name): shown(tree.getxattr(path, name)) for name in tree.listxattr(path)}}
