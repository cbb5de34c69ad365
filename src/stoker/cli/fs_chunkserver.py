"""`stoker fs chunkserver`: serves disks in the foreground."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from stoker.cli.fs_volume import as_json
from stoker.cli.screen import emit_line, emit_pairs, harmless, warn
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.core.units import parse_bytes
from stoker.fs.chunk.daemon import Announced, Daemon, tasks_for
from stoker.fs.chunk.disk_process import DiskTask
from stoker.fs.chunk.reporting import Place
from stoker.fs.wire.keys import TlsFiles, parse_address, read_token
from stoker.fs.wire.stopping import StopWish

_FILE = click.Path(path_type=Path, dir_okay=False)
_NAME_CHARACTERS_MAX: Final = 255


@click.command("chunkserver")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--volume", default="", metavar="UUID", help="Make empty folders disks of this volume first.")
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the first disk is served, the others at the ports behind it; port 0 takes free ones.",
)
@click.option(
    "--advertise", default="", metavar="HOST", help="Host that masters are told; the one listened on unless told."
)
@click.option(
    "--masters", default="", metavar="HOST:PORT,...", help="Report to these, and write only while one answers."
)
@click.option(
    "--host-name", default="", metavar="NAME", help="The host the disks are in. [default: the machine's name]"
)
@click.option("--rack", default="", metavar="NAME", help="The rack they are in.")
@click.option("--zone", default="", metavar="NAME", help="The zone they are in.")
@click.option("--region", default="", metavar="NAME", help="The region they are in.")
@click.option("--token-file", type=_FILE, help="File with the token that clients must prove; else $STOKER_FS_TOKEN.")
@click.option("--tls-cert", type=_FILE, help="Certificate that clients are shown.")
@click.option("--tls-key", type=_FILE, help="Its key.")
@click.option("--tls-ca", type=_FILE, help="Authority whose certificate clients and masters must show.")
@click.option(
    "--admin", default="", metavar="HOST:PORT", help="Answer /health and /metrics over HTTP there, on loopback."
)
@click.option("--address-file", type=_FILE, help="Write there, once all disks are served, where they are.")
@click.option(
    "--scrub",
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="Read so much again a second; auto: all in 14 days.",
)
@click.option(
    "--reserve",
    default="1GiB",
    show_default=True,
    metavar="SIZE",
    help="Space of each disk to leave free; at least 1 %.",
)
@as_json
def chunkserver(folders: tuple[Path, ...], as_json: bool, **options: Any) -> int:
    """Serve the disks in DIR... until SIGTERM: one process for each, started again when it dies.

    It prints where each disk is served once all are. SIGTERM lets what runs finish and ends it with exit code 0.
    """
    tasks = tasks_for(folders, _task(options))
    daemon = Daemon(tasks, _announcer(as_json), warn, options["admin"], options["address_file"])
    with StopWish() as wish:
        daemon.run(wish.wanted)
    return EXIT_GOOD


def _task(options: dict[str, Any]) -> DiskTask:
    """Return what all disks' tasks have alike."""
    host, port = parse_address(options["listen"])
    return DiskTask(
        folder="",
        host=host,
        port=port,
        volume=options["volume"],
        token=read_token(options["token_file"]),
        tls=tls_files(options),
        masters=tuple(part for part in options["masters"].split(",") if part),
        advertise=options["advertise"],
        scrub_bytes_per_second=None if options["scrub"] == "auto" else _size("--scrub", options["scrub"]),
        reserve_bytes=_size("--reserve", options["reserve"]),
        place=_place(options),
    )


def _place(options: dict[str, Any]) -> Place:
    """Return where the disks stand. Raises UsageError for names that could not be told apart in a path of them."""
    place = Place(options["host_name"] or socket.gethostname(), options["rack"], options["zone"], options["region"])
    for name in place:
        if "/" in name or not name.isprintable() or len(name) > _NAME_CHARACTERS_MAX:
            raise UsageError(
                "name of a place is not good", where=harmless(name[:80]),
                expected=f"at most {_NAME_CHARACTERS_MAX} printable characters, no /",
            )  # fmt: skip
    return place


def _size(name: str, text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise UsageError("size is not readable", where=name, got=str(error)) from error


def tls_files(options: dict[str, Any]) -> TlsFiles | None:
    """Return how the command serves by TLS, None where it does not. Raises UsageError."""
    certificate, key, authority = (options[name] for name in ("tls_cert", "tls_key", "tls_ca"))
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise UsageError("TLS needs a certificate and its key", remedy="give --tls-cert and --tls-key")
    return TlsFiles(str(certificate), str(key), str(authority) if authority else "")


def _announcer(as_json: bool) -> Callable[[Announced], None]:
    def announce(announced: Announced) -> None:
        if as_json:
            emit_line(announced)
            return
        emit_pairs({ready.folder: f"{ready.address}  disk {ready.disk}" for ready in announced.disks})
        if announced.admin:
            emit_pairs({"admin": f"http://{announced.admin}/health"})

    return announce
