"""Where the facts of a host stand, read on this host or, with the same names, over SSH."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stoker.bench.run.hosts import parse
from stoker.bench.run.hosts.disks import DISK_FIELDS, count_disks, count_interfaces
from stoker.bench.run.hosts.hardware import drives_text, parse_drives, parse_ports, ports_text
from stoker.bench.run.machine import safe_environment
from stoker.core.host_series import HostSeries

DYNAMIC: Final = ("stat", "loadavg", "meminfo", "vmstat", "diskstats", "net/dev")
"""Below /proc: what changes while a run goes on."""
STATIC: Final = ("cpuinfo", "filesystems", "cgroups", "uptime", "version", "self/mountinfo")
OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release")
PRODUCT: Final = "/sys/class/dmi/id/product_name"
SYSCTLS: Final = (
    "kernel/io_uring_disabled",
    "kernel/pid_max",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/tcp_congestion_control",
    "vm/dirty_background_bytes",
    "vm/dirty_background_ratio",
    "vm/dirty_bytes",
    "vm/dirty_ratio",
    "vm/max_map_count",
    "vm/nr_hugepages",
    "vm/swappiness",
    "vm/vfs_cache_pressure",
)
"""The settings of the kernel that are kept; none of them is secret."""
HARDWARE: Final = ("cpuinfo", "os_release", "product", "architecture", "ports", "drives", "sysctl")
"""The parts of a snapshot that tell what a host is made of."""
TEXT_BYTES_MAX: Final = 8 << 20

Texts = dict[str, str]


def read_dynamic(proc_root: Path = Path("/proc")) -> tuple[Texts, dict[str, str]]:
    """Return the texts of what changes, and why any could not be read."""
    return _read({name: proc_root / name for name in DYNAMIC})


def read_all() -> tuple[Texts, dict[str, str]]:
    """Return the texts of everything for a snapshot of this host, and why any could not be read."""
    places = {name: Path("/proc") / name for name in (*DYNAMIC, *STATIC)}
    places |= {f"sys/{name}": Path("/proc/sys") / name for name in SYSCTLS if (Path("/proc/sys") / name).exists()}
    release = next((Path(name) for name in OS_RELEASE if Path(name).exists()), None)
    places |= {"os-release": release} if release is not None else {}
    places |= {"product": Path(PRODUCT)} if Path(PRODUCT).exists() else {}
    texts, errors = _read(places)
    texts |= {"blocks": _blocks(), "links": _links(), "arch": os.uname().machine}
    texts |= {"ports": ports_text(), "drives": drives_text()}
    return texts, errors


def _read(places: Mapping[str, Path]) -> tuple[Texts, dict[str, str]]:
    texts, errors = {}, {}
    for name, path in places.items():
        try:
            with path.open("rb") as file:
                texts[name] = file.read(TEXT_BYTES_MAX).decode("utf-8", "replace")
        except OSError as error:
            errors[name] = error.strerror or type(error).__name__
    return texts, errors


def _blocks(folder: Path = Path("/sys/class/block")) -> str:
    """Return a line `NAME PARTITION_OF STANDS_ON` for each block device, as the shell of `remote` does."""
    lines = []
    for device in sorted(folder.iterdir()) if folder.is_dir() else ():
        whole = device.resolve().parent.name if (device / "partition").exists() else "-"
        slaves = device / "slaves"
        below = ",".join(sorted(slave.name for slave in slaves.iterdir())) if slaves.is_dir() else ""
        lines.append(f"{device.name} {whole} {below or '-'}")
    return "\n".join(lines)


def _links(folder: Path = Path("/sys/class/net")) -> str:
    names = sorted(folder.iterdir()) if folder.is_dir() else ()
    return "\n".join(f"{name.name} {int((name / 'device').exists())}" for name in names)


def snapshot(texts: Texts, errors: Mapping[str, str]) -> dict[str, Any]:
    """Return the full facts of a host as plain data; why something is missing stands in `errors`. Pure."""
    disks = parse.parse_diskstats(texts.get("diskstats", ""))
    interfaces = parse.parse_netdev(texts.get("net/dev", ""))
    return {
        "cpuinfo": parse.parse_cpuinfo(texts.get("cpuinfo", "")),
        "meminfo": parse.parse_pairs(texts.get("meminfo", "")),
        "vmstat": parse.parse_pairs(texts.get("vmstat", "")),
        "loadavg": parse.parse_loadavg(texts.get("loadavg", "")),
        "cpu": parse.parse_cpu(texts.get("stat", "")),
        "diskstats": {name: dict(zip(DISK_FIELDS, row, strict=True)) for name, row in disks.items()},
        "netdev": {name: dict(zip(parse.NET_FIELDS, row, strict=True)) for name, row in interfaces.items()},
        "uptime_seconds": parse.parse_uptime(texts.get("uptime", "")),
        "version": texts.get("version", "").strip(),
        "os_release": parse.parse_os_release(texts.get("os-release", "")),
        "product": texts.get("product", "").strip(),
        "architecture": texts.get("arch", "").strip(),
        "filesystems": parse.parse_filesystems(texts.get("filesystems", "")),
        "cgroups": parse.parse_cgroups(texts.get("cgroups", "")),
        "mounts": parse.mount_rows(texts.get("self/mountinfo", "")),
        "ports": parse_ports(texts.get("ports", "")),
        "drives": parse_drives(texts.get("drives", "")),
        "sysctl": {name[4:]: texts[name].strip() for name in sorted(texts) if name.startswith("sys/")},
        "errors": dict(errors),
    }


def counted(texts: Texts) -> tuple[dict[str, str], dict[str, str]]:
    """Return which disks and which interfaces count, as `count_disks` and `count_interfaces` do. Pure."""
    blocks = parse.parse_blocks(texts.get("blocks", ""))
    links = parse.parse_links(texts.get("links", ""))
    interfaces = {name: links.get(name, False) for name in parse.parse_netdev(texts.get("net/dev", ""))}
    return count_disks(parse.parse_diskstats(texts.get("diskstats", "")), blocks or None), count_interfaces(interfaces)


def local_hardware() -> HostSeries:
    """Return what this host is made of, as a series without samples: what of a snapshot no run changes."""
    texts, errors = read_all()
    disks, interfaces = counted(texts)
    whole = snapshot(texts, errors)
    facts = {name: whole[name] for name in HARDWARE}
    facts["meminfo"] = {"MemTotal": whole["meminfo"].get("MemTotal", 0)}
    return HostSeries(local_name(), disks=disks, interfaces=interfaces, start=facts)


def local_name() -> str:
    """Return this host's name."""
    return socket.gethostname()


def kept_environment() -> dict[str, str]:
    """Return the variables of this process that decide how a run behaves, none of them secret."""
    return safe_environment(dict(os.environ))
