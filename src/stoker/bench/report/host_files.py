"""The hosts of a run in the shapes of MLPerf Storage: time series, cluster and system information.

Made from the columnar file, so that its users' programs read our runs; memory is needed for one host at a time but for
the documents themselves, which repeat every counter in every sample.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.errors import NotFoundError
from stoker.core.files import write_atomic
from stoker.core.host_series import Header, HostSeries, Values, load_hosts

CLUSTER_FILE: Final = "cluster_info.json"
_GROUPS: Final = {"vm": "vmstat", "mem": "meminfo"}
_LOAD: Final = {"1min": "1min_hundredths", "5min": "5min_hundredths", "15min": "15min_hundredths"}
_DISK_NAMES: Final = {"read_ms": "time_reading_ms", "write_ms": "time_writing_ms", "io_ms": "time_io_ms"}


def write_timeseries(run_folder: Path, out_folder: Path, benchmark: str, stamp: str) -> Path:
    """Write `<benchmark>_<stamp>_timeseries.json`, return its path. Raises NotFoundError without a series."""
    header, hosts = _loaded(run_folder)
    path = out_folder / f"{benchmark}_{stamp}_timeseries.json"
    _write(path, timeseries(header, hosts))
    return path


def write_cluster_info(run_folder: Path, out_folder: Path, name: str = CLUSTER_FILE) -> Path:
    """Write `cluster_info.json` of the run, return its path. Raises NotFoundError without a series."""
    header, hosts = _loaded(run_folder)
    path = out_folder / name
    _write(path, cluster_info(header, hosts))
    return path


def _loaded(run_folder: Path) -> tuple[Header, list[HostSeries]]:
    found = load_hosts(run_folder)
    if found is None:
        raise NotFoundError("no series of hosts was saved with this run", where=str(run_folder))
    return found[0], list(found[1])


def _write(path: Path, document: dict[str, Any]) -> None:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(document), indent=1))


def timeseries(header: Header, hosts: Iterable[HostSeries]) -> dict[str, Any]:
    """Return the document of the time series: whole groups of counters, once for every sample of every host."""
    by_host = {host.host: list(_samples(header, host)) for host in hosts}
    stamps = sorted(sample["timestamp"] for samples in by_host.values() for sample in samples)
    return {
        "collection_interval_seconds": header.interval_seconds,
        "start_time": stamps[0] if stamps else _stamp(header, 0),
        "end_time": stamps[-1] if stamps else _stamp(header, 0),
        "num_samples": max((len(samples) for samples in by_host.values()), default=0),
        "samples_by_host": by_host,
    }


def _samples(header: Header, host: HostSeries) -> Iterator[dict[str, Any]]:
    columns = {name: host.values(name) for name in host.columns}
    at_us = columns.get("at_us", [])
    for place in range(host.samples):
        moment = at_us[place] if place < len(at_us) else None
        yield {
            "timestamp": _stamp(header, moment or 0),
            "hostname": host.host,
            "diskstats": _devices(columns, "disk", "device", place),
            **{shown: _group(columns, group, place) for group, shown in _GROUPS.items()},
            "loadavg": _load(columns, place),
            "netdev": _devices(columns, "net", "interface", place),
            "errors": {},
        }


def _stamp(header: Header, at_us: int) -> str:
    """Return an ISO 8601 time in UTC, to the second and without zone, as the reference writes it."""
    began = datetime.fromisoformat(header.started_utc).astimezone(UTC)
    return (began + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S")


def _group(columns: dict[str, Values], group: str, place: int) -> dict[str, int]:
    start = f"{group}/"
    pairs = ((name[len(start) :], values[place]) for name, values in columns.items() if name.startswith(start))
    return {name: value for name, value in pairs if value is not None}


def _load(columns: dict[str, Values], place: int) -> dict[str, float]:
    found = _group(columns, "load", place)
    return {shown: found[name] / 100 for shown, name in _LOAD.items() if name in found}


def _devices(columns: dict[str, Values], group: str, label: str, place: int) -> list[dict[str, Any]]:
    devices: dict[str, dict[str, Any]] = {}
    for name, value in _group(columns, group, place).items():
        device, _, counter = name.rpartition("/")
        devices.setdefault(device, {label: device})[_DISK_NAMES.get(counter, counter)] = value
    return list(devices.values())


def system_info(header: Header, hosts: Iterable[HostSeries]) -> dict[str, Any]:
    """Return the sums over hosts, and each host by its name. A host that was not seen has blanks and is counted."""
    hosts = list(hosts)
    memories = [_memory_bytes(host) for host in hosts]
    known = [memory for memory in memories if memory]
    return {
        "num_hosts": len(hosts),
        "total_cores": sum(int(host.start.get("cpuinfo", {}).get("cores", 0)) for host in hosts),
        "total_memory_bytes": sum(memories),
        "min_memory_bytes": min(known, default=0),
        "max_memory_bytes": max(known, default=0),
        "collection_method": "+".join(dict.fromkeys(host.source for host in hosts)),
        "collection_timestamp": _stamp(header, 0),
        "hosts": [_host_info(header, host) for host in hosts],
    }


def _memory_bytes(host: HostSeries) -> int:
    return int(host.start.get("meminfo", {}).get("MemTotal", 0)) * 1024


def _host_info(header: Header, host: HostSeries) -> dict[str, Any]:
    cpu, memory = host.start.get("cpuinfo", {}), host.start.get("meminfo", {})
    kib = {"free": "MemFree", "active": "Active", "inactive": "Inactive", "buffers": "Buffers", "cached": "Cached"}
    found = {name: int(memory.get(key, 0)) * 1024 for name, key in {**kib, "shared": "Shmem"}.items()}
    total, available = _memory_bytes(host), int(memory.get("MemAvailable", 0)) * 1024
    return {
        "hostname": host.host,
        "collection_timestamp": _stamp(header, host.values("at_us")[0] or 0 if host.samples else 0),
        "memory": {"total": total, "available": available, "used": total - available, **found},
        "cpu": {
            "num_cores": cpu.get("cores", 0),
            "num_logical_cores": cpu.get("logical_cpus", 0),
            "model": cpu.get("model", ""),
            "architecture": host.start.get("architecture", ""),
        },
        "disks": [name for name, why_not in host.disks.items() if not why_not],
        "errors": host.errors,
    }


def cluster_info(header: Header, hosts: Iterable[HostSeries]) -> dict[str, Any]:
    """Return the system information with both snapshots of every host, and the names of hosts that were not seen."""
    hosts = list(hosts)
    return {
        **system_info(header, hosts),
        "failed_hosts": [host.host for host in hosts if not host.start],
        "snapshots": {host.host: {"start": host.start, "end": host.end} for host in hosts},
        "clock_offsets": {host.host: msgspec.to_builtins(host.offset) for host in hosts},
    }
