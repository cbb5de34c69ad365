"""How a cluster is, as lines that one takes in at a glance."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from stoker.cli.screen import harmless
from stoker.core.errors import UsageError
from stoker.core.units import format_bytes

if TYPE_CHECKING:
    from stoker.fs.care.messages import CareStatus, DiskReport
    from stoker.fs.care.repairs import RepairStatus

masters_option: Final = click.option(
    "--masters", required=True, help="Addresses of the masters: host:port, several with commas."
)


def addresses_of(masters: str) -> list[str]:
    """Return the addresses in `--masters`. Raises UsageError when there is none."""
    addresses = [address.strip() for address in masters.split(",") if address.strip()]
    if not addresses:
        raise UsageError("no address of a master is given", expected="such as host:port,host:port")
    return addresses


def disk_document(one: "DiskReport") -> dict[str, Any]:
    """Return a disk for programs."""
    disk = {name: getattr(one.disk, name) for name in one.disk.__struct_fields__}
    return {**msgspec.to_builtins(one), "disk": disk}


def care_document(care: "CareStatus") -> dict[str, Any]:
    """Return how a cluster is, for programs."""
    told: dict[str, Any] = msgspec.to_builtins(care, str_keys=True)
    return {**told, "disks": [disk_document(one) for one in care.disks]}


def is_well(care: "CareStatus") -> bool:
    """Tell whether all disks answer and can be written, and nothing has no shard to spare but what never has any."""
    disks = all(one.disk.health == "up" or one.disk.draining for one in care.disks)
    lost = any(spare < 0 for spare in care.repair.exposure)
    waits = any(spare <= 0 for spare in care.repair.waiting_by_spare)
    return disks and not lost and not waits and not care.trouble


def glance(care: "CareStatus") -> list[str]:
    """Return the lines."""
    healths = Counter(one.disk.health for one in care.disks)
    told = ", ".join(f"{count} {health}" for health, count in sorted(healths.items())) or "none yet"
    marks = Counter(mark for one in care.disks for mark in marks_of(one))
    if marks:
        told += f"  ({', '.join(f'{count} {mark}' for mark, count in sorted(marks.items()))})"
    lines = [f"disks   {told}, map of epoch {care.epoch}", f"space   {_space(care)}"]
    lines += [f"slices  {_exposed(care.repair)}", f"repair  {_repair(care.repair)}"]
    lines += [f"uneven  {harmless(why)}" for why in care.degraded]
    lines += [f"trouble {harmless(why)}" for why in care.trouble]
    return lines + [f"waits   {harmless(name)}" for name in care.strangers]


def marks_of(one: "DiskReport") -> list[str]:
    """Return what is special about a disk."""
    disk = one.disk
    known = {"draining": disk.draining, "full": disk.full, "read-only": disk.read_only, "spared": bool(
        disk.spared_until_ns)}  # fmt: skip
    return [mark for mark, holds in known.items() if holds]


def _space(care: "CareStatus") -> str:
    known = [one for one in care.disks if one.capacity_bytes >= 0]
    free, all_of = sum(one.free_bytes for one in known), sum(one.capacity_bytes for one in known)
    used, shards = sum(one.used_bytes for one in known), sum(one.shards for one in known)
    return f"{format_bytes(free)} free of {format_bytes(all_of)}, {format_bytes(used)} in {shards} shards"


def spares(counts: Mapping[int, int]) -> str:
    """Return how many slices can lose how many shards."""
    return ", ".join(
        f"{count} lost" if spare < 0 else f"{count} can lose {spare}" for spare, count in sorted(counts.items())
    )


def _exposed(repair: "RepairStatus") -> str:
    if repair.pass_age_seconds < 0:
        return "not examined yet"
    told = f"{spares(repair.exposure) or 'none'}, as of {repair.pass_age_seconds:.0f} s ago"
    return f"{told}, {len(repair.silent_disks)} disks not asked" if repair.silent_disks else told


def _repair(repair: "RepairStatus") -> str:
    if repair.paused:
        state = "paused"
    elif repair.waiting or repair.active:
        state = "at work"
    else:
        state = "examining" if repair.examining else "idle"
    told = f"{state}, {repair.repaired} done, {repair.waiting + repair.active} waiting"
    if repair.waiting_bytes:
        eta = f"{repair.eta_seconds:.0f} s" if repair.eta_seconds >= 0 else "not known"
        told += f" ({spares(repair.waiting_by_spare)}; {format_bytes(repair.waiting_bytes)}, {eta} to go)"
    if repair.unsettled_groups:
        told += f", {repair.unsettled_groups} groups are moving"
    return f"{told}, {repair.failed} attempts failed: {harmless(repair.error)}" if repair.failed else told


def repair_lines(repair: "RepairStatus") -> list[str]:
    """Return how repair stands, line by line."""
    lines = [f"repair  {_repair(repair)}", f"slices  {_exposed(repair)}"]
    lines.append(
        f"done    {repair.rebuilt_shards} shards rebuilt, {repair.copied_shards} copied, "
        f"{format_bytes(repair.repaired_bytes)} moved"
    )
    if repair.waiting:
        lines.append(f"oldest  {repair.oldest_seconds:.0f} s")
    return lines
