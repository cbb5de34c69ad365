"""`stoker fs info`, `ls`, `stat` and `fsck`: what a volume holds, and whether it is sound."""

import stat as modes
from typing import Any

import click

from stoker.cli.fs_volume import (
    as_json,
    facts,
    metadata_of,
    shown,
    tree_of,
    volume_argument,
)
from stoker.cli.screen import emit_json, emit_pairs, emit_text
from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import EXIT_GOOD
from stoker.core.units import format_bytes
from stoker.fs.meta import Tree, Volume
from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import Usage
from stoker.fs.meta.records import Attr


@click.command("info")
@volume_argument
@as_json
def info(volume: str, as_json: bool) -> int:
    """Print what VOLUME is and how much it holds."""
    with metadata_of(volume) as opened:
        used = opened.run(Usage())
        revision = opened.engine.revision() if isinstance(opened, Volume) else getattr(opened, "seen_revision", 0)
        told = {**facts(opened, volume), "revision": revision, "inodes": used.inodes, "file_bytes": used.bytes}
    if as_json:
        emit_json(told)
    else:
        told["file_bytes"] = f"{used.bytes} ({format_bytes(used.bytes)})"
        emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD


def _row(name: bytes, ino: int, attr: Attr, target: bytes = b"") -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": shown(name),
        "inode": ino,
        "mode": modes.filemode(attr.mode),
        "links": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
    }
    row["entries" if attr.is_directory else "size_bytes"] = attr.size_bytes
    row["modified"] = utc_text_of_ns(attr.mtime_ns)
    if target:
        row["target"] = shown(target)
    return row


def _target(tree: Tree, path: bytes, attr: Attr) -> bytes:
    return tree.readlink(path) if attr.is_symlink else b""


@click.command("ls")
@volume_argument
@click.argument("path", default="/")
@as_json
def ls(volume: str, path: str, as_json: bool) -> int:
    """List the directory PATH of VOLUME; of anything else, itself."""
    with tree_of(volume) as tree:
        raw = path.encode(errors="surrogateescape")
        found = tree.stat(raw, follow=False)
        if found.attr.is_symlink and tree.exists(raw):
            target = tree.stat(raw)
            found = target if target.attr.is_directory else found
        if found.attr.is_directory:
            entries = [(e.name, e.ino, e.attr) for e in tree.scandir(raw, plus=True) if e.attr is not None]
            rows = [_row(n, ino, a, _target(tree, raw + b"/" + n, a)) for n, ino, a in entries]
        else:
            rows = [_row(raw, found.ino, found.attr, _target(tree, raw, found.attr))]
    if as_json:
        emit_json({"path": shown(raw), "entries": rows})
        return EXIT_GOOD
    emit_text("\n".join(_line(row) for row in rows) if rows else "no entries")
    return EXIT_GOOD


def _line(row: dict[str, Any]) -> str:
    size = row.get("size_bytes", row.get("entries"))
    target = f" -> {row['target']}" if "target" in row else ""
    moment = row["modified"][:19].replace("T", " ")
    return f"{row['mode']} {row['links']:>4} {row['uid']:>6} {row['gid']:>6} {size:>12} {moment} {row['name']}{target}"


@click.command("stat")
@volume_argument
@click.argument("path")
@click.option("--follow", is_flag=True, help="Of a symbolic link, what it points to.")
@as_json
def stat(volume: str, path: str, follow: bool, as_json: bool) -> int:
    """Print the attributes of PATH in VOLUME."""
    with tree_of(volume) as tree:
        raw = path.encode(errors="surrogateescape")
        found: Entry = tree.stat(raw, follow=follow)
        attr = found.attr
        told = _row(raw, found.ino, attr, _target(tree, raw, attr))
        told["rdev"] = attr.rdev
        for name, time_ns in (("accessed", attr.atime_ns), ("changed", attr.ctime_ns), ("made", attr.btime_ns)):
            told[name] = utc_text_of_ns(time_ns)
        told["mode_octal"] = f"{attr.mode & 0o7777:04o}"
        told["xattrs"] = [shown(name) for name in tree.listxattr(raw, follow=follow)]
    if as_json:
        emit_json(told)
    else:
        told["xattrs"] = ", ".join(told["xattrs"]) or "none"
        emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD
