"""`stoker fs master` and `stoker fs status`: the daemon that serves a volume, and how its masters are."""

import sys
import threading
from pathlib import Path
from typing import Any

import click
import msgspec

from stoker.cli.fs_volume import as_json
from stoker.cli.screen import emit_json, emit_line, emit_text
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, StokerError, UsageError

_UNTIL_TOLD = 3600.0


def listen_place(text: str) -> tuple[str, int]:
    """Return host and port. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError("not a place to listen", where=text, expected="HOST:PORT, port 0 for any")
    return host.strip("[]"), int(port)


@click.command("master")
@click.option("--etcd", required=True, help="Addresses of etcd's members: host:port, several with commas.")
@click.option("--volume", required=True, help="The volume's name in etcd.")
@click.option("--state", required=True, type=click.Path(path_type=Path), help="Folder of this master's copy.")
@click.option("--snapshots", required=True, help="URL of a store for snapshots, the same for all masters.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT to serve on.")
@click.option("--advertise", default="", help="HOST:PORT by which others reach this master.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token; else STOKER_FS_TOKEN.")
@as_json
def master(  # noqa: PLR0913, PLR0917 - one for each option
    etcd: str,
    volume: str,
    state: Path,
    snapshots: str,
    listen: str,
    advertise: str,
    token_file: Path | None,
    as_json: bool,
) -> int:
    """Serve a volume whose journal is in etcd, until stopped: one of its masters leads, the others stand by.

    Certificates and user for etcd come from the environment: STOKER_ETCD_CA_FILE, STOKER_ETCD_CERT_FILE,
    STOKER_ETCD_KEY_FILE, STOKER_ETCD_USER, STOKER_ETCD_PASSWORD_FILE.
    """
    from stoker.core.registry import missing_extra
    from stoker.fs.wire.keys import read_token

    try:
        from stoker.fs.master.daemon import Master, MasterOptions
    except ImportError as error:
        raise missing_extra("the master", "ha", error) from error
    host, port = listen_place(listen)
    options = MasterOptions(
        etcd=etcd,
        volume=volume,
        state=state,
        snapshots=snapshots,
        host=host,
        port=port,
        advertise=advertise,
        token=read_token(token_file),
    )
    with Master(options) as running:
        if as_json:
            emit_line({"address": running.address, "volume": volume})
        else:
            emit_text(f"serving {volume} on {running.address}")
        sys.stdout.flush()
        stop = threading.Event()
        while not stop.wait(_UNTIL_TOLD):
            pass
    return EXIT_GOOD


@click.command("status")
@click.option("--masters", required=True, help="Addresses of the masters: host:port, several with commas.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token; else STOKER_FS_TOKEN.")
@as_json
def status(masters: str, token_file: Path | None, as_json: bool) -> int:
    """Tell who leads, and how far the others follow. Exit code 3 when nobody leads or one does not answer."""
    from stoker.fs.wire.keys import read_token

    token = read_token(token_file)
    told = [_told(address.strip(), token) for address in masters.split(",") if address.strip()]
    if not told:
        raise UsageError("no address of a master is given", expected="such as host:port,host:port")
    leaders = [one["address"] for one in told if one.get("role") == "leads"]
    if as_json:
        emit_json({"leader": leaders[0] if leaders else None, "masters": told})
    else:
        for one in told:
            emit_text(_line(one))
        emit_text(f"leader  {leaders[0] if leaders else 'nobody'}")
    return EXIT_GOOD if len(leaders) == 1 and all(one["answers"] for one in told) else EXIT_NEGATIVE


def _told(address: str, token: str | None) -> dict[str, Any]:
    from stoker.fs.master.remote import ask_status

    try:
        return {"answers": True, **msgspec.to_builtins(ask_status(address, token=token))}
    except StokerError as error:
        return {"answers": False, "address": address, "failure": str(error)}


def _line(one: dict[str, Any]) -> str:
    if not one["answers"]:
        return f"{one['address']}  does not answer: {one['failure']}"
    text = (
        f"{one['address']}  {one['role']}  epoch {one['epoch']}  revision {one['revision']}  entry {one['entry']}"
        f"  behind {one['behind_entries']}  sessions {one['sessions']}  snapshot {one['snapshot_entry']}"
    )
    return text + (f"  {one['failure']}" if one["failure"] else "")
