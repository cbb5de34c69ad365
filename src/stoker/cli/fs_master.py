"""`stoker fs master` and `stoker fs status`: the daemon that serves a volume, and how its masters are."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from stoker.cli.fs_glance import addresses_of, care_document, glance, is_well, masters_option
from stoker.cli.fs_volume import access, access_options, as_json
from stoker.cli.screen import emit_json, emit_line, emit_text, harmless
from stoker.core.clock import wall_ns
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, StokerError, UsageError
from stoker.core.units import parse_bytes

if TYPE_CHECKING:
    from stoker.fs.care.messages import CareStatus
    from stoker.fs.care.tending import CareOptions
    from stoker.fs.doors.places import Access
    from stoker.fs.meta.service import Metadata
    from stoker.fs.store import SliceStore
    from stoker.fs.wire.keys import TlsFiles

_REPACK_BYTES: Final = 256 << 20
"""What shows of sparse packs and is stored anew before each collection."""
_UNTIL_TOLD: Final = 3600.0
_PATIENCE_SECONDS = 5.0
_FILE = click.Path(path_type=Path, dir_okay=False)
_SECONDS = click.FloatRange(1.0, 1e6)


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
@click.option("--tls-cert", type=_FILE, help="Certificate that clients, other masters and chunk servers are shown.")
@click.option("--tls-key", type=_FILE, help="Its key.")
@click.option("--tls-ca", type=_FILE, help="Authority whose certificates all of them must show.")
@click.option("--down-after", type=_SECONDS, default=10.0, show_default=True, help="Seconds a disk may be silent.")
@click.option("--out-after", type=_SECONDS, default=600.0, show_default=True, help="Seconds down until it is rebuilt.")
@click.option("--examine-every", type=_SECONDS, default=1800.0, show_default=True, help="Seconds between inventories.")
@click.option(
    "--repair-rate",
    default="0",
    show_default=True,
    metavar="SIZE",
    help="Bytes a second that repair moves in the whole cluster; 0: no limit.",
)
@click.option("--collect-every", type=_SECONDS, default=3600.0, show_default=True, help="Seconds between collections.")
@click.option("--grace", type=_SECONDS, default=3600.0, show_default=True, help="Seconds that garbage is kept.")
@click.option("--repairs", type=click.IntRange(1, 64), default=4, show_default=True, help="Slices repaired at once.")
@as_json
def master(as_json: bool, **given: Any) -> int:
    """Serve a volume whose journal is in etcd, until stopped: one of its masters leads, the others stand by.

    The one that leads cares for the chunk servers that report to it, too. Certificates and user for etcd come from the
    environment: STOKER_ETCD_CA_FILE, STOKER_ETCD_CERT_FILE, STOKER_ETCD_KEY_FILE, STOKER_ETCD_USER,
    STOKER_ETCD_PASSWORD_FILE.
    """
    from stoker.core.registry import missing_extra
    from stoker.fs.wire.keys import read_token

    try:
        from stoker.fs.care.care import serve_master
        from stoker.fs.client.garbage import collect_garbage
        from stoker.fs.client.repacking import Repacked, repack
        from stoker.fs.master.daemon import MasterOptions
    except ImportError as error:
        raise missing_extra("the master", "ha", error) from error
    host, port = listen_place(given["listen"])
    options = MasterOptions(
        etcd=given["etcd"],
        volume=given["volume"],
        state=given["state"],
        snapshots=given["snapshots"],
        host=host,
        port=port,
        advertise=given["advertise"],
        token=read_token(given["token_file"]),
        tls=_tls(given),
    )
    grace_seconds = given["grace"]
    repacked = Repacked()

    def collect(metadata: "Metadata", store: "SliceStore") -> object:
        nonlocal repacked
        repacked = repack(metadata, store, after=repacked.after, budget_bytes=_REPACK_BYTES)
        return collect_garbage(metadata, store, grace_seconds, now_ns=wall_ns())

    with serve_master(options, _care_options(given), collect) as running:
        if as_json:
            emit_line({"address": running.address, "volume": running.volume})
        else:
            emit_text(f"serving {running.volume} on {running.address}")
        sys.stdout.flush()
        stop = threading.Event()
        while not stop.wait(_UNTIL_TOLD):
            pass
    return EXIT_GOOD


def _tls(given: dict[str, Any]) -> "TlsFiles | None":
    """Return how the master speaks TLS, None where it does not. Raises UsageError."""
    from stoker.cli.fs_chunkserver import tls_files

    files = tls_files(given)
    if files is not None and not files.authority:
        raise UsageError(
            "a master asks other masters and chunk servers, too, and must know whom to believe",
            remedy="give --tls-ca, the authority that signs their certificates and its own",
        )
    if files is not None:
        files.for_server()  # told before anything is reached
    return files


def _care_options(given: dict[str, Any]) -> "CareOptions":
    """Return how the cluster is cared for. Raises UsageError."""
    from stoker.fs.care.membership import Rules
    from stoker.fs.care.repairs import RepairOptions
    from stoker.fs.care.tending import CareOptions
    from stoker.fs.place.watching import Limits

    try:
        rate = parse_bytes(given["repair_rate"])
    except ValueError as error:
        raise UsageError("size is not readable", where="--repair-rate", got=str(error)) from error
    usual = Limits()
    down_ns = int(given["down_after"] * 1e9)
    limits = Limits(
        suspect_ns=min(usual.suspect_ns, down_ns), down_ns=down_ns, out_ns=int(given["out_after"] * 1e9)
    )  # fmt: skip
    repair = RepairOptions(bytes_per_second=rate, at_once=given["repairs"], pass_seconds=given["examine_every"])
    return CareOptions(Rules(limits), repair, collect_seconds=given["collect_every"])


@click.command("status")
@masters_option
@access_options
@as_json
def status(masters: str, as_json: bool) -> int:
    """Tell how a cluster is: masters, disks, what is exposed, and what is being repaired.

    Exit code 3 when nobody leads, a master or a disk does not answer, a slice cannot be read, or one that waits for
    repair can lose no shard more.
    """
    addresses, reached = addresses_of(masters), access()
    told = [_told(address, reached) for address in addresses]
    leaders = [one["address"] for one in told if one.get("role") == "leads"]
    care, why = _care_of(addresses, reached) if leaders else (None, "nobody leads")
    if as_json:
        cluster = care_document(care) if care is not None else None
        emit_json({"leader": leaders[0] if leaders else None, "masters": told, "cluster": cluster, "failure": why})
    else:
        for one in told:
            emit_text(_line(one))
        emit_text(f"leader  {leaders[0] if leaders else 'nobody'}")
        emit_text("\n".join(glance(care)) if care is not None else f"disks   not known: {harmless(why)}")
    good = len(leaders) == 1 and all(one["answers"] for one in told) and care is not None and is_well(care)
    return EXIT_GOOD if good else EXIT_NEGATIVE


def _care_of(addresses: list[str], reached: "Access") -> tuple["CareStatus | None", str]:
    from stoker.fs.care.messages import CARE_OF, CareOf
    from stoker.fs.master.remote import RemoteMetadata

    try:
        with RemoteMetadata(
            addresses, token=reached.token(), tls=reached.tls(), patience_seconds=_PATIENCE_SECONDS
        ) as metadata:
            return metadata.converse(CARE_OF, CareOf()), ""
    except StokerError as error:
        return None, str(error)


def _told(address: str, reached: "Access") -> dict[str, Any]:
    from stoker.fs.master.remote import ask_status

    token, tls = reached.token(), reached.tls()
    try:
        told = ask_status(address, token=token, tls=tls)
        return {"answers": True, **msgspec.to_builtins(told)}
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
