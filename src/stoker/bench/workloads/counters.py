"""What others count: the kernel for this process, the block device, the network interfaces. None where nobody does."""

import math
import os
import re
import resource
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.ledger import Counters
from stoker.storage.api import Store, SupportsLocalPath, SupportsRequestCount, SupportsWireCount

SECTOR_BYTES: Final = 512
_SECTORS_READ_FIELD: Final = 2
_SECTORS_WRITTEN_FIELD: Final = 6
_TRANSMIT_FIELD: Final = 8


class BlockDevice(msgspec.Struct, frozen=True):
    """A block device as the kernel names it, `nvme0n1p2`, and where its statistics stand."""

    name: str
    statistics: str

    def read_bytes(self) -> int | None:
        """Return the bytes read from it since the host started, None when that cannot be told."""
        return self._sectors(_SECTORS_READ_FIELD)

    def written_bytes(self) -> int | None:
        """Return the bytes written to it since the host started, None when that cannot be told."""
        return self._sectors(_SECTORS_WRITTEN_FIELD)

    def operations(self) -> tuple[int, int, int, int] | None:
        """Return reads, bytes read, writes and bytes written since the host started, None when that is not told."""
        try:
            fields = [int(word) for word in Path(self.statistics).read_text().split()]
            return fields[0], fields[2] * SECTOR_BYTES, fields[4], fields[6] * SECTOR_BYTES
        except (OSError, IndexError, ValueError):
            return None

    def _sectors(self, field: int) -> int | None:
        try:
            return int(Path(self.statistics).read_text().split()[field]) * SECTOR_BYTES
        except (OSError, IndexError, ValueError):
            return None


def device_under(path: str | os.PathLike[str], *, sys_root: Path = Path("/sys")) -> BlockDevice | None:
    """Return the block device that holds `path`.

    It is the one the file system itself names, a partition where there is one, so nothing is counted twice. None for
    what has no single device: overlay, tmpfs, network file systems, btrfs, ZFS.
    """
    try:
        number = os.stat(path).st_dev
        entry = sys_root / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
        if not (entry / "stat").is_file():
            return None
        return BlockDevice(entry.resolve().name, str(entry / "stat"))
    except OSError:
        return None


def process_io() -> tuple[int | None, int | None]:
    """Return this process's (all its threads') bytes from the block layer and bytes returned by read calls."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None, None
    fields = _io_fields(text)
    return fields.get("read_bytes"), fields.get("rchar")


def process_write_bytes() -> int | None:
    """Return the bytes this process (all its threads) caused to be written to the block layer, taken back ones not.

    What goes through the page cache counts as soon as it is dirtied.
    """
    try:
        fields = _io_fields(Path("/proc/self/io").read_text())
    except OSError:
        return None
    written = fields.get("write_bytes")
    return None if written is None else written - fields.get("cancelled_write_bytes", 0)


def _io_fields(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", text, re.MULTILINE)}


def network_transmit_bytes(*, proc_root: Path = Path("/proc"), sys_root: Path = Path("/sys")) -> int | None:
    """Return the bytes that this host's interfaces sent since they came up; which count is as for received ones."""
    return _network_bytes(_TRANSMIT_FIELD, proc_root, sys_root)


def network_receive_bytes(*, proc_root: Path = Path("/proc"), sys_root: Path = Path("/sys")) -> int | None:
    """Return the bytes that this host's interfaces received since they came up.

    Only interfaces with a device behind them count, for bridges, bonds and VLANs would count the same bytes again;
    where none has one (a container) all but the loopback do.
    """
    return _network_bytes(0, proc_root, sys_root)


def _network_bytes(field: int, proc_root: Path, sys_root: Path) -> int | None:
    try:
        lines = (proc_root / "net" / "dev").read_text().splitlines()[2:]
    except OSError:
        return None
    counted = {}
    for line in lines:
        name, _, values = line.partition(":")
        fields = values.split()
        if len(fields) > field and fields[field].isdecimal() and name.strip() != "lo":
            counted[name.strip()] = int(fields[field])
    real = [name for name in counted if (sys_root / "class" / "net" / name / "device").exists()]
    return sum(counted[name] for name in real or counted) if counted else None


def cpu_seconds() -> float:
    """Return the CPU time this process has used, all threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_memory_bytes() -> int:
    """Return the most resident memory this process had so far.

    getrusage(2) is second choice: across execve(2) it remembers the parent's peak.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def usable_cpus(*, proc_root: Path = Path("/proc"), cgroup_root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many CPUs this process may use: the affinity mask, or a control group's quota when that is less."""
    allowed = float(len(os.sched_getaffinity(0)))
    try:
        found = re.search(r"^0::/(.*)$", (proc_root / "self" / "cgroup").read_text(), re.MULTILINE)
    except OSError:
        return allowed
    group = cgroup_root / (found[1] if found else "")
    for folder in (group, *group.parents):
        if folder.is_relative_to(cgroup_root):
            allowed = min(allowed, _quota_cpus(folder / "cpu.max"))
    return allowed


def _quota_cpus(file: Path) -> float:
    try:
        quota, period = file.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


class Sources:
    """Where the counters of one rank come from. `host_wide` for one rank of each host: what it counts, all see."""

    def __init__(self, store: Store, *, host_wide: bool) -> None:
        self._wire = store if isinstance(store, SupportsWireCount) else None
        self._requests = store if isinstance(store, SupportsRequestCount) else None
        self._host_wide = host_wide
        self.device = device_under(store.root) if isinstance(store, SupportsLocalPath) else None

    def read(self) -> Counters:
        """Return the counters as they stand now, not what was counted since some beginning."""
        from_device, by_calls = process_io()
        sent = self._requests.request_counts if self._requests else {}
        requests = {f"http_{kind}_requests": number for kind, number in sent.items()}
        return Counters(
            process_read_bytes=from_device,
            process_syscall_bytes=by_calls,
            device_read_bytes=self.device.read_bytes() if self._host_wide and self.device else None,
            network_receive_bytes=network_receive_bytes() if self._host_wide else None,
            process_write_bytes=process_write_bytes(),
            device_write_bytes=self.device.written_bytes() if self._host_wide and self.device else None,
            network_transmit_bytes=network_transmit_bytes() if self._host_wide else None,
            http_body_bytes=self._wire.received_body_bytes if self._wire else None,
            http_gap_bytes=self._requests.gap_body_bytes if self._requests else None,
            **{name: number for name, number in requests.items() if name in Counters.__struct_fields__},
        )


def difference(later: Counters, earlier: Counters) -> Counters:
    """Return what was counted between two readings; None where either does not know."""
    found = Counters()
    for name in Counters.__struct_fields__:
        after, before = getattr(later, name), getattr(earlier, name)
        setattr(found, name, None if after is None or before is None else after - before)
    return found
