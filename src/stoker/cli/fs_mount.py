"""`stoker fs mount` and `umount`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from stoker.bench.run.signals import SignalWatch
from stoker.cli.fs_volume import as_json, refuse_memory, volume_argument
from stoker.cli.screen import emit_json, emit_line, emit_pairs, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, EXIT_USAGE, StokerError, UsageError
from stoker.fs.fuse.options import MountOptions
from stoker.fs.meta import Volume
from stoker.fs.meta.engines.urls import parse_engine_url

if TYPE_CHECKING:
    from stoker.fs.store.interface import SliceStore

_WAIT_SECONDS: Final = 60.0
_PROGRAM: Final = "from stoker.cli.main import main; main()"
_LOG_BYTES_TOLD: Final = 2000


@click.command("mount")
@volume_argument
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the files' bytes. [default: PATH.data]")
@click.option("--foreground", is_flag=True, help="Serve here until it is unmounted, instead of in the background.")
@click.option("--read-only", is_flag=True, help="Let nothing be changed through this mount.")
@click.option("--allow-other", is_flag=True, help="Let other users in, within the permissions of the files.")
@click.option("--attr-ttl", type=float, default=1.0, show_default=True, help="Seconds to believe attributes.")
@click.option("--entry-ttl", type=float, default=1.0, show_default=True, help="Seconds to believe names.")
@click.option("--strict", is_flag=True, help="Believe nothing without asking: a write is seen everywhere at once.")
@click.option("--threads", type=int, default=16, show_default=True, help="Requests worked on at once.")
@click.option("--log", type=click.Path(path_type=Path), help="File for what goes wrong. [default: PATH.mount.log]")
@as_json
def mount(volume: str, mountpoint: Path, data: Path | None, log: Path | None, **chosen: Any) -> int:
    """Mount VOLUME at MOUNTPOINT, an existing directory."""
    from stoker.fs.client.places import data_folder

    json, foreground = chosen.pop("as_json"), chosen.pop("foreground")
    options = _options(**chosen)
    place = parse_engine_url(refuse_memory(volume), create=False).path()
    folder = data or data_folder(volume)
    if foreground:
        return _serve(volume, mountpoint, folder, options, json=json)
    told = _start(volume, mountpoint, folder, options, log or place.with_name(place.name + ".mount.log"))
    emit_json(told) if json else emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD


def _options(*, attr_ttl: float, entry_ttl: float, **given: Any) -> MountOptions:
    try:
        return msgspec.convert({"entry_seconds": entry_ttl, "attr_seconds": attr_ttl, **given}, MountOptions)
    except msgspec.ValidationError as error:
        raise UsageError("mount has a bad option", got=str(error)) from None


# -- in the foreground


def _serve(url: str, point: Path, folder: Path, options: MountOptions, *, json: bool) -> int:
    """Serve a mount until somebody unmounts it or a signal comes."""
    from stoker.fs.client.client import Client
    from stoker.fs.client.options import ClientOptions
    from stoker.fs.fuse.living import SignOfLife
    from stoker.fs.fuse.serving import Server
    from stoker.fs.fuse.table import mount_at, refuse_taken, refuse_within
    from stoker.fs.fuse.upkeep import Upkeep

    refuse_taken(point)
    refuse_within(point, parse_engine_url(url, create=False).path(), folder)
    with (
        SignalWatch() as watch,
        SignOfLife() as life,
        Volume.open(url) as volume,
        _store(url, volume, folder) as store,
        Upkeep(volume, store, _complain),
        Client(volume, store, ClientOptions(strict=options.strict)) as client,
    ):
        server = Server(client, point, options, source=url, free_bytes=lambda: _free_bytes(folder), complain=_complain)
        server.start()
        mounted = mount_at(point)
        life.show(mounted.device if mounted else "")
        told = _facts(url, point, folder, options)
        emit_line(told) if json else emit_text(f"mounted {harmless(url)} at {harmless(str(point))}")
        try:
            while not watch.received and not server.wait(0.2):
                pass
        finally:
            server.stop()
    return EXIT_GOOD


def _facts(url: str, point: Path, folder: Path, options: MountOptions) -> dict[str, Any]:
    return {
        "volume": url,
        "mountpoint": str(point),
        "data": str(folder),
        "pid": os.getpid(),
        "read_only": options.read_only,
        "allow_other": options.allow_other,
    }


@contextmanager
def _store(url: str, volume: Volume, folder: Path) -> Iterator["SliceStore"]:
    """Open the folder of a volume's bytes; make it when nothing is there. Raises UsageError for another volume's."""
    from stoker.fs.client.places import open_slices

    store = open_slices(url, volume, str(folder))
    try:
        yield store
    finally:
        store.close()


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _complain(text: str) -> None:
    click.echo(f"stoker: {harmless(text)}", err=True)


# -- in the background


def _start(url: str, point: Path, folder: Path, options: MountOptions, log: Path) -> dict[str, Any]:
    """Start a process that serves the mount, and return what it tells once the mount can be used.

    Raises StokerError with what it said when it ended instead.
    """
    words = [
        sys.executable, "-c", _PROGRAM, "fs", "mount", url, str(point), "--data", str(folder), "--foreground", "--json",
        "--attr-ttl", str(options.attr_seconds), "--entry-ttl", str(options.entry_seconds),
        "--threads", str(options.threads), *(["--read-only"] if options.read_only else []),
        *(["--allow-other"] if options.allow_other else []), *(["--strict"] if options.strict else []),
    ]  # fmt: skip
    with log.open("ab") as errors:
        start = errors.tell()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        rest = b"" if line.startswith(b'{"volume"') else process.stdout.read()
    if line.startswith(b'{"volume"'):
        return {**msgspec.json.decode(line), "log": str(log)}
    process.wait()
    _raise_told(line + rest)
    raise StokerError("volume was not mounted", where=str(point), got=_last_words(log, start), remedy=f"see {log}")


def _raise_told(document: bytes) -> None:
    """Raise the error that a server told when it did not come to serve; nothing when it told none."""
    try:
        told = msgspec.json.decode(document)["error"]
        kind = UsageError if told["exit_code"] == EXIT_USAGE else StokerError
        facts = {name: str(told[name]) for name in ("where", "expected", "got", "remedy")}
        error = kind(str(told["what"]), **facts)
    except (msgspec.DecodeError, KeyError, TypeError):
        return
    raise error


def _last_words(log: Path, start: int) -> str:
    """Return what the server said last, of one line."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read(1 << 20)[-_LOG_BYTES_TOLD:].decode(errors="replace").strip()
    return harmless(" ".join(text.split())) or "nothing was said"


# -- the end of a mount


@click.command("umount")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Although it is in use: it ends when nobody uses it any longer.")
@click.option("--force", is_flag=True, help="Cut off who waits for an answer.")
@as_json
def umount(mountpoint: Path, lazy: bool, force: bool, as_json: bool) -> int:
    """Unmount what is mounted at MOUNTPOINT, and wait until its server has written all and ended."""
    from stoker.fs.fuse.living import await_end, watch_life
    from stoker.fs.fuse.mounting import unmount
    from stoker.fs.fuse.table import mount_at

    found = mount_at(mountpoint)
    life = watch_life(found.device) if found is not None else None
    gone = unmount(mountpoint, lazy=lazy, force=force)
    ended = await_end(life, 0.0 if lazy else _WAIT_SECONDS)
    told = {"mountpoint": gone.point, "volume": gone.source, "ended": ended}
    if as_json:
        emit_json(told)
    elif not ended:
        emit_text(f"{harmless(gone.point)} is unmounted; its server has not ended yet")
    return EXIT_GOOD
