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
from stoker.cli.fs_volume import access, as_json, data_option, refuse_memory, volume_argument
from stoker.cli.screen import emit_json, emit_line, emit_pairs, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, EXIT_USAGE, StokerError, UsageError
from stoker.fs.fuse.options import MountOptions
from stoker.fs.meta import Volume
from stoker.fs.meta.engines.urls import parse_engine_url

if TYPE_CHECKING:
    from stoker.fs.doors.places import Access, Place

_WAIT_SECONDS: Final = 60.0
_PROGRAM: Final = "from stoker.cli.main import main; main()"
_LOG_BYTES_TOLD: Final = 2000
_HOLD_SECONDS: Final = 3.0
"""How long the names of a directory are held at a time: so long others wait at most when a mount is killed."""


@click.command("mount")
@volume_argument
@click.argument("mountpoint", type=click.Path(path_type=Path))
@data_option
@click.option("--foreground", is_flag=True, help="Serve here until it is unmounted, instead of in the background.")
@click.option("--read-only", is_flag=True, help="Let nothing be changed through this mount.")
@click.option("--allow-other", is_flag=True, help="Let other users in, within the permissions of the files.")
@click.option("--attr-ttl", type=float, default=1.0, show_default=True, help="Seconds to believe attributes.")
@click.option("--entry-ttl", type=float, default=1.0, show_default=True, help="Seconds to believe names.")
@click.option("--strict", is_flag=True, help="Believe nothing without asking: a write is seen everywhere at once.")
@click.option("--threads", type=int, default=16, show_default=True, help="Requests worked on at once.")
@click.option("--log", type=click.Path(path_type=Path), help="File for what goes wrong. [default: PATH.mount.log]")
@as_json
def mount(volume: str, mountpoint: Path, log: Path | None, **chosen: Any) -> int:
    """Mount VOLUME at MOUNTPOINT, an existing directory."""
    json, foreground = chosen.pop("as_json"), chosen.pop("foreground")
    options = _options(**chosen)
    reached = access()
    if foreground:
        return _serve(refuse_memory(volume), mountpoint, reached, options, json=json)
    told = _start(refuse_memory(volume), mountpoint, reached, options, log or _log_beside(volume, mountpoint))
    emit_json(told) if json else emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD


def _log_beside(url: str, point: Path) -> Path:
    """Return where a mount's log is: beside the volume's file, else beside the mount point."""
    from stoker.fs.doors.places import is_served

    place = point.absolute() if is_served(url) else parse_engine_url(url, create=False).path()
    return place.with_name(place.name + ".mount.log")


def _options(*, attr_ttl: float, entry_ttl: float, **given: Any) -> MountOptions:
    try:
        return msgspec.convert({"entry_seconds": entry_ttl, "attr_seconds": attr_ttl, **given}, MountOptions)
    except msgspec.ValidationError as error:
        raise UsageError("mount has a bad option", got=str(error)) from None


# -- in the foreground


def _serve(url: str, point: Path, reached: "Access", options: MountOptions, *, json: bool) -> int:
    """Serve a mount until somebody unmounts it or a signal comes."""
    from stoker.fs.client.options import ClientOptions
    from stoker.fs.doors.places import is_served, opened_place
    from stoker.fs.fuse.living import SignOfLife
    from stoker.fs.fuse.serving import Server
    from stoker.fs.fuse.table import mount_at, refuse_taken

    refuse_taken(point)
    _refuse_within(url, point, reached)
    chosen = ClientOptions(strict=options.strict, hold_seconds=_HOLD_SECONDS if is_served(url) else 0.0)
    with (
        SignalWatch() as watch,
        SignOfLife() as life,
        opened_place(url, reached, options=chosen) as place,
        _upkeep(place),
    ):
        server = Server(
            place.client, point, options, source=url, free_bytes=place.free_bytes, complain=_complain
        )  # fmt: skip
        server.start()
        mounted = mount_at(point)
        life.show(mounted.device if mounted else "")
        told = _facts(url, point, reached, options)
        emit_line(told) if json else emit_text(f"mounted {harmless(url)} at {harmless(str(point))}")
        try:
            while not watch.received and not server.wait(0.2):
                pass
        finally:
            server.stop()
    return EXIT_GOOD


def _refuse_within(url: str, point: Path, reached: "Access") -> None:
    """Raise UsageError where the mount would hide the volume's own files."""
    from stoker.fs.doors.places import data_folder, is_served
    from stoker.fs.fuse.table import refuse_within

    if not is_served(url):
        refuse_within(
            point, parse_engine_url(url, create=False).path(), Path(reached.data) if reached.data else data_folder(url)
        )


@contextmanager
def _upkeep(place: "Place") -> Iterator[None]:
    """Tidy a volume without daemons now and then; masters do it for theirs."""
    from stoker.fs.fuse.upkeep import Upkeep

    if not isinstance(place.volume, Volume):
        yield
        return
    with Upkeep(place.volume, place.store, _complain):
        yield


def _facts(url: str, point: Path, reached: "Access", options: MountOptions) -> dict[str, Any]:
    from stoker.fs.doors.places import data_folder, is_served

    return {
        "volume": url,
        "mountpoint": str(point),
        "data": "" if is_served(url) else reached.data or str(data_folder(url)),
        "pid": os.getpid(),
        "read_only": options.read_only,
        "allow_other": options.allow_other,
    }


def _complain(text: str) -> None:
    click.echo(f"stoker: {harmless(text)}", err=True)


# -- in the background


def _start(url: str, point: Path, reached: "Access", options: MountOptions, log: Path) -> dict[str, Any]:
    """Start a process that serves the mount, and return what it tells once the mount can be used.

    Raises StokerError with what it said when it ended instead.
    """
    words = [
        sys.executable, "-c", _PROGRAM, "fs", "mount", url, str(point), "--foreground", "--json", *_words(reached),
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


def _words(reached: "Access") -> list[str]:
    """Return the options that say how a volume is reached."""
    given = msgspec.to_builtins(reached)
    return [word for name, value in given.items() if value for word in (f"--{name.replace('_', '-')}", value)]


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
