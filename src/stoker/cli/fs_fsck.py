"""`stoker fs fsck`: whether a volume is sound, of one node or served by masters."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stoker.cli.fs_volume import access, as_json, data_option, metadata_of, refuse_memory, shown, volume_argument
from stoker.cli.screen import emit_json, emit_text
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, UsageError
from stoker.core.units import format_bytes
from stoker.fs.client.checking import check_data, used_slices
from stoker.fs.doors.places import is_served, open_slices
from stoker.fs.meta import Volume
from stoker.fs.meta import fsck as find_faults
from stoker.fs.meta.fsck import Fault, fsck_rows
from stoker.fs.meta.keys import INODES
from stoker.fs.meta.kv import Snapshot
from stoker.fs.meta.records import unpack_count

if TYPE_CHECKING:
    from stoker.fs.care.proving import Proven
    from stoker.fs.master.remote import RemoteMetadata

Told = dict[str, Any]


@click.command("fsck")
@volume_argument
@click.option("--bytes", "look", is_flag=True, help="Look, too, whether the bytes of all files are there.")
@click.option("--deep", is_flag=True, help="Read all bytes, which verifies their checksums.")
@data_option
@as_json
def fsck(volume: str, look: bool, deep: bool, as_json: bool) -> int:
    """Hold what VOLUME counts or stores twice against its rows; the exit code is 3 when anything is wrong.

    Of a volume that masters serve the rows of one revision are copied into a file of $TMPDIR first: masters go on
    meanwhile. With --deep each disk reads its own shards; no byte travels.
    """
    look = look or deep
    faults, told = _served(volume, look, deep) if is_served(volume) else _own(volume, look, deep)
    code = EXIT_NEGATIVE if faults else EXIT_GOOD
    if as_json:
        emit_json({"sound": not faults, **told, "faults": msgspec.to_builtins(faults), "exit_code": code})
        return code
    for fault in faults:
        emit_text(shown(f"{fault.rule}: {fault.where}: expected {fault.expected}, got {fault.got}".encode()))
    for line in _lines(told):
        emit_text(line)
    emit_text(f"sound, {told['inodes']} inodes" if not faults else f"{len(faults)} faults")
    return code


def _lines(told: Told) -> list[str]:
    """Return what is known of a cluster's slices."""
    found = told.get("cluster")
    if not found:
        return []
    text = f"slices  {found['slices']}, {format_bytes(found['bytes'])}; {found['exposed']} wait for a repair; "
    return [text + f"{found['orphans']} orphans of {format_bytes(found['orphan_bytes'])}, which are garbage"]


def _own(url: str, look: bool, deep: bool) -> tuple[list[Fault], Told]:
    """Look at a volume of one node."""
    access().refuse_network(url)
    with Volume.open(refuse_memory(url)) as opened:
        faults = find_faults(opened.engine)
        if look:
            faults += _data_faults(opened, url, deep=deep)
        with opened.engine.snapshot() as snapshot:
            return faults, {"inodes": _inodes(snapshot, faults)}


def _inodes(snapshot: Snapshot, faults: list[Fault]) -> int | None:
    """Return the number of inodes; None where there are faults: a counter that cannot be read is one."""
    return None if faults else unpack_count(snapshot.get(INODES))


def _data_faults(opened: Volume, url: str, *, deep: bool) -> list[Fault]:
    store = open_slices(url, opened, access())
    try:
        with opened.engine.snapshot() as snapshot:
            return check_data(snapshot, store, deep=deep)
    finally:
        store.close()


def _served(url: str, look: bool, deep: bool) -> tuple[list[Fault], Told]:
    """Look at a volume that masters serve, while they do."""
    from stoker.fs.master.remote import RemoteMetadata
    from stoker.fs.master.surveying import surveyed

    if access().data:
        raise UsageError("the bytes of a volume with masters are on chunk servers, in no folder", where=access().data)
    with metadata_of(url) as opened, tempfile.TemporaryDirectory(prefix="stoker-fsck-") as folder:
        assert isinstance(opened, RemoteMetadata)
        rows, address = surveyed(opened.masters, Path(folder))
        with rows:
            faults = fsck_rows(rows)
            told: Told = {"master": address, "revision": rows.revision}
            if look:
                proven = _proven(opened, rows, deep)
                faults += proven.faults
                told["cluster"] = {
                    name: value for name, value in msgspec.to_builtins(proven).items() if name != "faults"
                }
            return faults, {"inodes": _inodes(rows, faults), **told}


def _proven(opened: "RemoteMetadata", rows: Snapshot, deep: bool) -> "Proven":
    from stoker.fs.care.opening import open_cluster
    from stoker.fs.care.proving import check_cluster

    store = open_cluster(opened, token=access().token(), tls=access().tls())
    try:
        check = (lambda disk, shard: store.targets(disk).check(shard)) if deep else None
        return check_cluster(opened, store, rows, used_slices(rows), check)
    finally:
        store.close()
