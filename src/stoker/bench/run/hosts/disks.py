"""Which block devices and interfaces count towards a host's sum, so that no byte is counted twice. Pure.

The kernel tells of the same byte several times: of a partition and of its disk, of a logical volume or an array and of
the disks below it, of a multipath device and of its paths, of an NVMe head and of its `nvmeXcYnZ` paths, of a loop
device and of what holds its file. What counts is the lowest device that the kernel tells of, each once.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

_NVME_PATH: Final = re.compile(r"nvme(\d+)c\d+n(\d+)")
_PARTITION: Final = re.compile(r"(?:(.*\d)p\d+|(.*?[^\d])\d+)")
_IN_MEMORY: Final = re.compile(r"(?:ram|zram)\d+")
_LOOP: Final = re.compile(r"loop\d+")
_STACKED: Final = re.compile(r"(?:dm-|md|bcache|drbd)\d+")

Counters = tuple[int, ...]
COUNTERS: Final = 17
"""Numbers of a device in /proc/diskstats, after its name."""
DISK_FIELDS: Final = (
    "reads_completed",
    "reads_merged",
    "sectors_read",
    "read_ms",
    "writes_completed",
    "writes_merged",
    "sectors_written",
    "write_ms",
    "in_flight",
    "io_ms",
    "weighted_io_ms",
    "discards_completed",
    "discards_merged",
    "sectors_discarded",
    "discard_ms",
    "flushes_completed",
    "flush_ms",
)
_SECTORS_READ, _SECTORS_WRITTEN = 2, 6


class BlockFacts(msgspec.Struct, frozen=True):
    """What /sys/class/block tells of a device: whether it is a partition, of which disk, and what it stands on."""

    partition_of: str = ""
    stands_on: tuple[str, ...] = ()


def count_disks(statistics: Mapping[str, Counters], facts: Mapping[str, BlockFacts] | None = None) -> dict[str, str]:
    """Return for every device an empty text when it counts, else why it does not.

    Without `facts` (no /sys to be read) partitions and stacked devices are told by their names.
    """
    paths = _nvme_paths(statistics)
    return {name: _why_not(name, statistics, facts, paths) for name in statistics}


def _why_not(
    name: str, statistics: Mapping[str, Counters], facts: Mapping[str, BlockFacts] | None, paths: Mapping[str, str]
) -> str:
    if name in paths:
        head = paths[name]
        return "" if _silent_head(head, statistics, paths) else f"path of {head}"
    if name in paths.values() and _silent_head(name, statistics, paths):
        return "the kernel counts its paths alone"
    if _IN_MEMORY.fullmatch(name):
        return "lies in memory"
    if _LOOP.fullmatch(name):
        return "lies in a file of another device"
    if facts is None or name not in facts:
        return _why_not_by_name(name, statistics)
    found = facts[name]
    if found.partition_of in statistics:
        return f"partition of {found.partition_of}"
    if found.stands_on and all(below in statistics for below in found.stands_on):
        return f"stands on {', '.join(found.stands_on)}"
    return ""


def _why_not_by_name(name: str, statistics: Mapping[str, Counters]) -> str:
    match = _PARTITION.fullmatch(name)
    disk = (match[1] or match[2]) if match else ""
    if disk in statistics and not _STACKED.fullmatch(name):
        return f"partition of {disk}"
    lower = [other for other in statistics if not _STACKED.fullmatch(other) and not _LOOP.fullmatch(other)]
    return "stands on other devices" if _STACKED.fullmatch(name) and lower else ""


def _nvme_paths(statistics: Mapping[str, Counters]) -> dict[str, str]:
    """Return path -> head for the shadow devices whose head is there: nvme0c1n2 is a path of nvme0n2."""
    found = {name: match for name in statistics if (match := _NVME_PATH.fullmatch(name))}
    heads = {name: f"nvme{match[1]}n{match[2]}" for name, match in found.items()}
    return {name: head for name, head in heads.items() if head in statistics}


def _silent_head(head: str, statistics: Mapping[str, Counters], paths: Mapping[str, str]) -> bool:
    """Tell whether the kernel counts only the paths: before Linux 6.0 a head's counters stay zero."""
    busy = any(_sectors(statistics[path]) for path, of in paths.items() if of == head)
    return busy and not _sectors(statistics[head])


def _sectors(counters: Counters) -> int:
    return counters[_SECTORS_READ] + counters[_SECTORS_WRITTEN]


def count_interfaces(names: Mapping[str, bool]) -> dict[str, str]:
    """Return for every interface an empty text when it counts, else why not; `names` tells which have a device.

    Bridges, bonds and VLANs pass on what a device below them carried; where none has a device (a container), all but
    the loopback count.
    """
    real = any(has_device for name, has_device in names.items() if name != "lo")
    return {name: _interface_why_not(name, has_device, real) for name, has_device in names.items()}


def _interface_why_not(name: str, has_device: bool, real: bool) -> str:
    if name == "lo":
        return "never leaves the host"
    return "" if has_device or not real else "no device of its own"
