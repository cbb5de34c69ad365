"""`stoker fs disks`, `drain`, `maintenance`, `repair`, `rebalance`, `explain` and `what-if`: the care of a cluster."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from stoker.cli.fs_glance import addresses_of, disk_document, marks_of, masters_option, repair_lines, spares
from stoker.cli.fs_volume import access, access_options, as_json
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.clock import wall_ns
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, UsageError
from stoker.core.units import format_bytes

if TYPE_CHECKING:
    from stoker.fs.care.explaining import Explained, IfLost
    from stoker.fs.care.messages import CareStatus, DiskReport
    from stoker.fs.care.opening import OpenedCluster
    from stoker.fs.master.remote import RemoteMetadata
    from stoker.fs.place import ClusterMap, Disk

Function = TypeVar("Function", bound=Callable[..., Any])
_SLICES_TOLD: Final = 1000
_PATIENCE_SECONDS: Final = 10.0
_MINUTE_NS: Final = 60 * 10**9


def _of_cluster(function: Function) -> Function:
    """Add the options by which a cluster is reached."""
    return masters_option(access_options(as_json(function)))


@contextmanager
def _metadata(masters: str) -> Iterator["RemoteMetadata"]:
    """Give the metadata of a cluster. Raises UsageError, UnavailableError."""
    addresses = addresses_of(masters)
    from stoker.fs.master.remote import RemoteMetadata

    reached = access()
    with RemoteMetadata(
        addresses, token=reached.token(), tls=reached.tls(), patience_seconds=_PATIENCE_SECONDS
    ) as metadata:
        yield metadata


@contextmanager
def _opened(masters: str) -> Iterator[tuple["RemoteMetadata", "OpenedCluster"]]:
    """Give the metadata of a cluster and its store."""
    from stoker.fs.care import open_cluster

    reached = access()
    with _metadata(masters) as metadata:
        store = open_cluster(metadata, token=reached.token(), tls=reached.tls())
        try:
            yield metadata, store
        finally:
            store.close()


# -- disks


@click.command("disks")
@_of_cluster
def disks(masters: str, as_json: bool) -> int:
    """List the disks of a cluster: where they stand, how they fare, what they hold."""
    from stoker.fs.care.messages import CARE_OF, CareOf

    with _metadata(masters) as metadata:
        care: CareStatus = metadata.converse(CARE_OF, CareOf())
    if as_json:
        emit_json({"epoch": care.epoch, "disks": [disk_document(one) for one in care.disks]})
    else:
        emit_text("\n".join(_disk_line(one) for one in care.disks) or "none yet")
    return EXIT_GOOD


def _disk_line(one: "DiskReport") -> str:
    disk = one.disk
    place = "/".join(name for name in (disk.region, disk.zone, disk.rack, disk.host) if name)
    told = f"{disk.id:>4}  {disk.health:<11}  {harmless(place):<20}  {harmless(disk.address):<21}"
    if one.capacity_bytes >= 0:
        told += f"  {format_bytes(one.free_bytes)} free of {format_bytes(one.capacity_bytes)}  {one.shards} shards"
    if one.bad_shards > 0:
        told += f", {one.bad_shards} damaged"
    marks = marks_of(one)
    return (f"{told}  {', '.join(marks)}" if marks else told).rstrip()


# -- changes of the map


def _choice(function: Function) -> Function:
    """Add the words by which disks are chosen."""
    with_host = click.option("--host", default="", help="All disks of this host.")(function)
    return click.argument("numbers", metavar="[DISK]...", nargs=-1, type=click.IntRange(0))(with_host)


@click.command("drain")
@_choice
@click.option("--undo", is_flag=True, help="Use the disks again.")
@_of_cluster
def drain(
    numbers: tuple[int, ...], host: str, undo: bool, masters: str, as_json: bool
) -> int:  # fmt: skip
    """Empty disks: what they hold is copied to others, and read from them until it is there.

    `disks` tells how many shards one still has. A disk that does not answer can be drained, too: then what it held
    is rebuilt at once.
    """
    from stoker.fs.care.orders import change_map, chosen, drained, moves

    with _metadata(masters) as metadata:
        before, after = change_map(
            metadata, lambda cluster: drained(cluster, chosen(cluster, numbers, host), undo=undo)
        )  # fmt: skip
    picked = [disk.id for disk in chosen(after, numbers, host)]
    moved = moves(before, after)
    if as_json:
        emit_json({"disks": picked, "draining": not undo, "epoch": after.epoch, "moves": msgspec.to_builtins(moved)})
        return EXIT_GOOD
    emit_text(f"disks {', '.join(map(str, picked))} are {'used again' if undo else 'being emptied'}")
    for one in moved:
        if one.moved_slots:
            emit_text(f"{one.moved_slots} of {one.slots} places of {one.width} shards by {one.domain} move")
        if one.degraded:
            emit_text(f"shards share failure domains then: {one.degraded}")
    return EXIT_GOOD


@click.command("maintenance")
@_choice
@click.option("--minutes", type=click.FloatRange(1, 60 * 24 * 30), default=30.0, show_default=True, help="For so long.")
@click.option("--undo", is_flag=True, help="The work is done.")
@_of_cluster
def maintenance(
    numbers: tuple[int, ...], host: str, *, minutes: float, undo: bool, masters: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Rebuild nothing of disks while one works on them, however long they are silent meanwhile.

    A chunk server that is stopped in order is spared for half an hour without this.
    """
    from stoker.fs.care.orders import change_map, chosen, spared

    until_ns = 0 if undo else wall_ns() + int(minutes * _MINUTE_NS)
    with _metadata(masters) as metadata:
        _, after = change_map(metadata, lambda cluster: spared(cluster, chosen(cluster, numbers, host), until_ns))
    picked = [disk.id for disk in chosen(after, numbers, host)]
    if as_json:
        emit_json({"disks": picked, "spared_until_ns": until_ns, "epoch": after.epoch})
    else:
        told = "are watched as usual" if undo else f"are spared for {minutes:g} minutes"
        emit_text(f"disks {', '.join(map(str, picked))} {told}")
    return EXIT_GOOD


@click.command("rebalance")
@click.option("--dry-run", is_flag=True, help="Only tell what would move.")
@_of_cluster
def rebalance(dry_run: bool, masters: str, as_json: bool) -> int:
    """Spread what disks hold more evenly, and the load of a repair over all of them, by moving some of it."""
    from stoker.fs.care.maps import MapSource
    from stoker.fs.care.orders import change_map, evened

    with _metadata(masters) as metadata:
        told = evened(MapSource(metadata)())[1]
        epoch = 0 if dry_run else change_map(metadata, lambda cluster: evened(cluster)[0])[1].epoch
    if as_json:
        emit_json({"dry_run": dry_run, "epoch": epoch, "pools": msgspec.to_builtins(told)})
        return EXIT_GOOD
    for one in told:
        emit_text(
            f"{one.width} shards by {one.domain}: {one.moved_slots} of {one.slots} places "
            f"{'would move' if dry_run else 'move'}; fullest disk {one.fullest_before:.2f} -> {one.fullest_after:.2f} "
            f"of its share, busiest partner {one.fan_out_before:.2f} -> {one.fan_out_after:.2f}"
        )
    if not told:
        emit_text("nothing to spread yet")
    return EXIT_GOOD


# -- repair


@click.command("repair")
@click.option("--now", "wanted", flag_value="examine", help="Look over all disks at once, not only in time.")
@click.option("--pause", "wanted", flag_value="pause", help="Repair nothing until --resume, whichever master leads.")
@click.option("--resume", "wanted", flag_value="resume", help="Go on.")
@_of_cluster
def repair(wanted: str | None, masters: str, as_json: bool) -> int:
    """Tell how repair stands, or have it look, pause, or go on. Exit code 3 when some slice cannot be read."""
    from stoker.fs.care.messages import CARE_OF, ORDER, CareOf, Order

    with _metadata(masters) as metadata:
        if wanted:
            metadata.converse(ORDER, msgspec.convert({"what": wanted}, Order))
        told = metadata.converse(CARE_OF, CareOf()).repair
    if as_json:
        emit_json(msgspec.to_builtins(told, str_keys=True))
    else:
        emit_text("\n".join(repair_lines(told)))
    return EXIT_NEGATIVE if any(spare < 0 for spare in told.exposure) else EXIT_GOOD


# -- why, and what if


@click.command("explain")
@click.argument("path", required=False, type=click.Path(path_type=str))
@click.option("--slice", "number", type=click.IntRange(0), help="The slice of this number, instead of a file's.")
@_of_cluster
def explain(
    path: str | None, number: int | None, masters: str, as_json: bool
) -> int:  # fmt: skip
    """Tell where the bytes of PATH are: its slices, their shards and disks, what they could lose, and what is wrong.

    Exit code 3 when something is not in its place.
    """
    if (path is None) == (number is None):
        raise UsageError("one thing can be explained", expected="a PATH, or --slice N")
    with _opened(masters) as (metadata, store):
        told = list(_explained(metadata, store, path, number))
    if as_json:
        emit_json({"slices": msgspec.to_builtins(told)})
    else:
        emit_text("\n".join(line for one in told for line in _explained_lines(one)) or "no bytes are stored for it")
    return EXIT_NEGATIVE if any(one.why for one in told) else EXIT_GOOD


def _explained(
    metadata: "RemoteMetadata", store: "OpenedCluster", path: str | None, number: int | None
) -> Iterator["Explained"]:
    from stoker.fs.care.explaining import explain as explained
    from stoker.fs.care.explaining import slices_of
    from stoker.fs.meta import Caller

    if path is not None:
        caller = Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))
        slices = slices_of(metadata, os.fsencode(path), caller)
    else:
        slices = (seen.slice for seen in store.examine(silent=[]) if seen.slice.id == number)
    for count, data in enumerate(slices):
        if count >= _SLICES_TOLD:
            return
        yield explained(store, store.classes(data.storage_class), data)


def _explained_lines(one: "Explained") -> Iterator[str]:
    data = one.slice
    yield (
        f"slice {data.id}.{data.generation}  {format_bytes(data.size_bytes)}  class {one.storage_class} "
        f"({one.code} by {one.domain})  group {one.group}  can lose {max(one.spare, 0)}"
    )
    for shard in one.shards:
        found = ", ".join(map(str, shard.found)) or "no disk"
        yield (
            f"  shard {shard.index:>2}  disk {shard.disk:>3} of {harmless(shard.host)} ({shard.health})  "
            f"{shard.state}, on {found}"
        )
    for why in one.why:
        yield f"  {why}"


@click.command("what-if")
@click.option("--lose-host", "hosts", multiple=True, metavar="HOST", help="All disks of this host; several times.")
@click.option("--lose-disk", "numbers", multiple=True, type=click.IntRange(0), help="This disk; several times.")
@_of_cluster
def what_if(
    hosts: tuple[str, ...], numbers: tuple[int, ...], masters: str, as_json: bool
) -> int:  # fmt: skip
    """Tell what the loss of disks would mean: what could be read still, and what repair would move. Changes nothing.

    Exit code 3 when bytes would be lost.
    """
    from stoker.fs.care.explaining import group_bytes, if_lost

    with _opened(masters) as (_, store):
        cluster = store.maps()
        lost = sorted({disk.id for disk in _lost(cluster, hosts, numbers)})
        told = if_lost(cluster, group_bytes(store.examine(silent=[]), store.classes), lost)
    if as_json:
        emit_json({"disks": lost, "forms": msgspec.to_builtins(told, str_keys=True)})
    else:
        emit_text("\n".join(_lost_line(one) for one in told) or "nothing is stored yet")
    return EXIT_NEGATIVE if any(one.lost_bytes for one in told) else EXIT_GOOD


def _lost(cluster: "ClusterMap", hosts: tuple[str, ...], numbers: tuple[int, ...]) -> list["Disk"]:
    from stoker.fs.care.orders import chosen

    found = [disk for host in hosts for disk in chosen(cluster, (), host)]
    return [*found, *(chosen(cluster, numbers, "") if numbers or not hosts else ())]


def _lost_line(one: "IfLost") -> str:
    told = f"{one.code} by {one.domain}: of {format_bytes(one.bytes)} "
    told += f"{format_bytes(one.lost_bytes)} would be lost" if one.lost_bytes else "all could be read"
    busiest = max(one.received_bytes.values(), default=0)
    return (
        f"{told}; groups: {spares(one.groups_by_spare)}; repair would read {format_bytes(one.read_bytes)}, write "
        f"{format_bytes(one.moved_bytes)}, {format_bytes(busiest)} of it to the busiest disk"
    )
