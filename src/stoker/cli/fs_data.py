"""`stoker fs put`, `get`, `cat` and `gc`: the bytes of a volume's files."""

import os
import stat as modes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from stoker.cli.fs_volume import (
    access,
    as_json,
    data_option,
    metadata_of,
    myself,
    refuse_memory,
    shown,
    umask,
    volume_argument,
)
from stoker.cli.screen import emit_json, emit_text
from stoker.core.clock import utc_text_of_ns, wall_ns
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.core.units import format_bytes, parse_bytes, parse_seconds
from stoker.fs.client import FileTree
from stoker.fs.client.garbage import GRACE_SECONDS, Removed, collect_garbage
from stoker.fs.client.repacking import REPACK_BYTES, SPARSE_FRACTION, Repacked, repack
from stoker.fs.doors.places import open_slices, opened_place, tidy
from stoker.fs.meta.answers import Listed

_STEP_BYTES: Final = 4 << 20
recursive_option: Final = click.option("--recursive", is_flag=True, help="A directory with all that is in it.")


@contextmanager
def files_of(url: str) -> Iterator[FileTree]:
    """Open a volume with its bytes, as the user who runs the command."""
    with opened_place(refuse_memory(url), access()) as place:
        yield FileTree(place.client, myself(), umask=umask())


class _Copied:
    """What a copy has done so far."""

    def __init__(self) -> None:
        self.files = self.folders = self.links = self.bytes = 0
        self.skipped: list[str] = []

    def told(self, source: bytes, target: bytes) -> dict[str, Any]:
        return {"source": shown(source), "target": shown(target), **self.__dict__}


def _raw(text: str) -> bytes:
    return os.fsencode(text)


def _finish(copied: _Copied, source: bytes, target: bytes, json: bool) -> int:
    if json:
        emit_json(copied.told(source, target))
        return EXIT_GOOD
    emit_text(f"{copied.files} files, {copied.folders} directories, {copied.links} links, {format_bytes(copied.bytes)}")
    for name in copied.skipped:
        emit_text(f"left out, for it is no file, directory or link: {name}")
    return EXIT_GOOD


# -- into the volume


@click.command("put")
@volume_argument
@click.argument("source")
@click.argument("target", default="/")
@recursive_option
@data_option
@as_json
def put(volume: str, source: str, target: str, recursive: bool, as_json: bool) -> int:
    """Copy the local SOURCE to TARGET in VOLUME, into it when that is a directory; each file in one step, durably."""
    local = Path(source)
    if not os.path.lexists(source):
        raise UsageError("no such file or directory", where=source)
    if local.is_dir() and not local.is_symlink() and not recursive:
        raise UsageError("source is a directory", where=source, remedy="add --recursive")
    copied = _Copied()
    with files_of(volume) as tree:
        goal = _raw(target)
        if tree.exists(goal) and tree.stat(goal).attr.is_directory:
            goal = goal.rstrip(b"/") + b"/" + os.fsencode(local.absolute().name)
        _put(tree, local, goal, copied)
    return _finish(copied, _raw(source), goal, as_json)


def _put(tree: FileTree, local: Path, goal: bytes, copied: _Copied) -> None:
    """Copy what a local name stands for, in the order of its names; links as links."""
    facts = local.lstat()
    bits = facts.st_mode & 0o777
    if modes.S_ISLNK(facts.st_mode):
        tree.symlink(os.fsencode(local.readlink()), goal)
        copied.links += 1
    elif modes.S_ISDIR(facts.st_mode):
        tree.makedirs(goal, bits)
        copied.folders += 1
        for below in sorted(local.iterdir()):
            _put(tree, below, goal + b"/" + os.fsencode(below.name), copied)
    elif modes.S_ISREG(facts.st_mode):
        made = tree.write_bytes(goal, _parts(local), permissions=bits)
        copied.files += 1
        copied.bytes += made.attr.size_bytes
    else:
        copied.skipped.append(shown(os.fsencode(local)))


def _parts(local: Path) -> Iterator[bytes]:
    with local.open("rb", buffering=0) as file:
        while part := file.read(_STEP_BYTES):
            yield part


# -- out of the volume


@click.command("get")
@volume_argument
@click.argument("source")
@click.argument("target", default=".")
@recursive_option
@data_option
@as_json
def get(volume: str, source: str, target: str, recursive: bool, as_json: bool) -> int:
    """Copy SOURCE in VOLUME to the local TARGET, into it when that is a directory; each file appears whole."""
    copied = _Copied()
    raw, goal = _raw(source), Path(target)
    with files_of(volume) as tree:
        found = tree.stat(raw)
        if found.attr.is_directory and not recursive:
            raise UsageError("source is a directory", where=source, remedy="add --recursive")
        name = raw.rstrip(b"/").rpartition(b"/")[2]
        if goal.is_dir() and name not in (b"", b".", b".."):
            goal /= os.fsdecode(name)
        if found.attr.is_directory:
            _get_folder(tree, raw, goal, copied)
        elif found.attr.is_file:
            _get_file(tree, raw, goal, found.attr.mode, copied)
        else:
            raise UsageError("source is no file or directory", where=source)
    return _finish(copied, raw, os.fsencode(goal), as_json)


def _get_folder(tree: FileTree, source: bytes, goal: Path, copied: _Copied) -> None:
    """Copy a directory; links as links, and nothing is written through a local one."""
    if goal.is_symlink() or not goal.is_dir():
        goal.mkdir()
    copied.folders += 1
    for entry in tree.scandir(source, plus=True):
        _get_entry(tree, source.rstrip(b"/") + b"/" + entry.name, goal, entry, copied)


def _get_entry(tree: FileTree, path: bytes, folder: Path, entry: Listed, copied: _Copied) -> None:
    if entry.name in (b"", b".", b"..") or b"/" in entry.name or entry.attr is None:
        raise UsageError("directory of the volume holds a name that is none", where=shown(path))
    goal = folder / os.fsdecode(entry.name)
    if entry.attr.is_directory:
        _get_folder(tree, path, goal, copied)
    elif entry.attr.is_symlink:
        goal.symlink_to(os.fsdecode(tree.readlink(path)))
        copied.links += 1
    elif entry.attr.is_file:
        _get_file(tree, path, goal, entry.attr.mode, copied)
    else:
        copied.skipped.append(shown(path))


def _get_file(tree: FileTree, source: bytes, goal: Path, mode: int, copied: _Copied) -> None:
    """Write a file under another name first: it appears whole or not at all."""
    fresh = goal.with_name(f".{os.getpid()}.new")
    try:
        with tree.open(source) as file, fresh.open("xb") as local:
            while part := file.read(_STEP_BYTES):
                local.write(part)
                copied.bytes += len(part)
        fresh.chmod(mode & 0o777)
        fresh.replace(goal)
    finally:
        fresh.unlink(missing_ok=True)
    copied.files += 1


@click.command("cat")
@volume_argument
@click.argument("paths", nargs=-1, required=True)
@data_option
def cat(volume: str, paths: tuple[str, ...]) -> int:
    """Write the content of files in VOLUME to the standard output, one after the other."""
    with files_of(volume) as tree:
        for path in paths:
            with tree.open(_raw(path)) as file:
                while part := file.read(_STEP_BYTES):
                    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
    return EXIT_GOOD


# -- garbage


@click.command("gc")
@volume_argument
@click.option("--grace", default=f"{GRACE_SECONDS:.0f}s", show_default=True, help="How old garbage is when it goes.")
@click.option(
    "--sparse",
    type=click.FloatRange(0, 0.5),
    default=SPARSE_FRACTION,
    show_default=True,
    help="Packs of which at most this fraction shows are emptied, 0 for none.",
)
@click.option(
    "--repack-bytes",
    default=f"{REPACK_BYTES >> 20}MiB",
    show_default=True,
    help="How many bytes to store anew at most.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@data_option
@as_json
def gc(volume: str, grace: str, sparse: float, repack_bytes: str, dry_run: bool, as_json: bool) -> int:
    """Remove the bytes that no file of VOLUME shows any more, and those that were stored and never shown.

    Of packs that hold many small files, most of which are gone, the rest is stored anew first, so that they go, too.
    """
    budget_bytes = parse_bytes(repack_bytes)
    repacked = Repacked()
    removed: list[Removed] = []
    with metadata_of(volume) as opened:
        store = open_slices(volume, opened, access())
        try:
            if not dry_run:
                tidy(opened)
            if sparse and budget_bytes:
                repacked = repack(opened, store, fraction=sparse, budget_bytes=budget_bytes, dry_run=dry_run)
            done = collect_garbage(
                opened, store, parse_seconds(grace), now_ns=wall_ns(), dry_run=dry_run, tell=removed.append
            )
        finally:
            store.close()
    if as_json:
        facts = {"dry_run": dry_run, **msgspec.to_builtins(done), "repacked": msgspec.to_builtins(repacked)}
        emit_json({**facts, "removed": [_told(one) for one in removed]})
        return EXIT_GOOD
    for one in removed:
        facts = _told(one)
        reason = f"freed by inode {one.ino} at {facts['freed']}" if one.ino else "stored and never shown"
        emit_text(f"slice {one.slice.id}  {one.slice.size_bytes} bytes  {reason}")
    if repacked.packs:
        verb = "would be emptied" if dry_run else "emptied"
        moved, freed = format_bytes(repacked.moved_bytes), format_bytes(repacked.freed_bytes)
        emit_text(f"{verb}: {repacked.packs} packs of {freed}, of which {moved} showed")
    verb = "would go" if dry_run else "removed"
    emit_text(f"{verb}: {len(removed)} slices, {format_bytes(done.bytes)}; {done.waiting} wait for their grace")
    return EXIT_GOOD


def _told(one: Removed) -> dict[str, Any]:
    told: dict[str, Any] = {
        "slice": one.slice.id,
        "generation": one.slice.generation,
        "bytes": one.slice.size_bytes,
        "why": one.why,
    }
    if one.ino:
        told |= {"inode": one.ino, "freed": utc_text_of_ns(one.time_ns)}
    return told
