"""What was collected of the hosts, in the words of a system's description.

Facts come from the series of hosts in a run's folder, or from plain mappings of the same shape. Hosts that are alike
are one kind, counted. What the kernel cannot know (traffic of a port, cells of a drive, power supplies) stays blank.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.reading import dig, number, words
from stoker.core.errors import NotFoundError
from stoker.core.files import REDACTED, is_secret_name, redact_url
from stoker.core.host_series import HostSeries, load_hosts

ENVIRONMENT: Final = frozenset(
    (
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "LD_PRELOAD",
        "MALLOC_ARENA_MAX",
        "OMP_NUM_THREADS",
        "PYTHONMALLOC",
        "UV_THREADPOOL_SIZE",
    )
)
"""The variables that describe a system; those of one job, such as its number, do not."""
LISTED_MAX: Final = 1000
_KIB: Final = 1024
_GIB: Final = 1 << 30
_GB: Final = 10**9


class HostHardware(msgspec.Struct, frozen=True):
    """A host. Lists are sorted; a figure that is not known is None, a text that is not known is empty."""

    host: str
    chassis: str = ""
    cpu_model: str = ""
    cpu_qty: int | None = None
    cpu_cores: int | None = None
    memory_gib: int | None = None
    system: str = ""
    system_version: str = ""
    networking: tuple[tuple[str, str, float | None], ...] = ()  # type, state, Gbit/s
    drives: tuple[tuple[str, str, str, bool | None, float], ...] = ()  # vendor, model, interface, rotates, GB
    environment: tuple[tuple[str, str], ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return all but the name and the environment, which is the run's: hosts of one kind are alike."""
        return msgspec.structs.astuple(msgspec.structs.replace(self, host="", environment=()))


def hosts_of_run(run_folder: Path) -> list[HostHardware]:
    """Return the hosts of a saved run. Raises NotFoundError when none was seen, CorruptError for a bad file."""
    loaded = load_hosts(run_folder)
    found = [host_hardware(series) for series in loaded[1] if series.start] if loaded is not None else []
    if not found:
        raise NotFoundError("no facts of hosts were saved with this run", where=str(run_folder))
    return found


def host_hardware(series: HostSeries) -> HostHardware:
    """Return what the first snapshot tells; devices that only pass on what another one carried are left out."""
    facts = series.start
    drives = [each for each in _listed(facts, "drives") if not series.disks.get(str(each.get("name")), "")]
    ports = [
        each for each in _listed(facts, "ports") if not series.interfaces.get(str(each.get("name")), "not counted")
    ]
    return hardware(series.host, {**facts, "drives": drives, "ports": ports})


def hardware(host: str, facts: Mapping[str, Any]) -> HostHardware:
    """Return a host's hardware from a mapping of the shape of a snapshot; what it lacks is not known."""
    plain = dict(facts)
    memory_kib = number(plain, "meminfo.MemTotal")
    return HostHardware(
        host=host,
        chassis=words(plain, "product") or "",
        cpu_model=words(plain, "cpuinfo.model") or "",
        cpu_qty=_whole(plain, "cpuinfo.sockets"),
        cpu_cores=_whole(plain, "cpuinfo.cores"),
        memory_gib=round(memory_kib * _KIB / _GIB) if memory_kib else None,
        system=words(plain, "os_release.NAME") or "",
        system_version=words(plain, "os_release.VERSION_ID") or "",
        networking=tuple(sorted((_port(each) for each in _listed(plain, "ports")), key=repr)),
        drives=tuple(sorted((_drive(each) for each in _listed(plain, "drives")), key=repr)),
        environment=_settings(dig(plain, ["environment"]), ENVIRONMENT),
        sysctl=_settings(dig(plain, ["sysctl"])),
    )


def _whole(facts: Mapping[str, Any], key: str) -> int | None:
    value = number(facts, key)
    return int(value) if value else None


def _listed(facts: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = facts.get(key)
    return [each for each in found if isinstance(each, dict)][:LISTED_MAX] if isinstance(found, list) else []


def _port(facts: dict[str, Any]) -> tuple[str, str, float | None]:
    kind, state = words(facts, "type") or "other", words(facts, "state") or "down"
    return kind, state, number(facts, "speed_gbps")


def _drive(facts: dict[str, Any]) -> tuple[str, str, str, bool | None, float]:
    rotates = facts.get("rotational")
    size_gb = round((number(facts, "bytes") or 0.0) / _GB, 1)
    vendor, model = words(facts, "vendor") or "", words(facts, "model") or ""
    return vendor, model, words(facts, "interface") or "other", rotates if isinstance(rotates, bool) else None, size_gb


def _settings(found: Any, allowed: frozenset[str] | None = None) -> tuple[tuple[str, str], ...]:
    """Return names and values, secrets hidden; the kernel's names get their dots."""
    pairs = found.items() if isinstance(found, dict) else ()
    return tuple(
        sorted(
            (
                str(name).replace("/", "."),
                REDACTED if is_secret_name(str(name)) else redact_url(" ".join(str(value).split())),
            )
            for name, value in pairs
            if allowed is None or name in allowed
        )
    )


def nodes_of(hosts: Iterable[HostHardware]) -> list[dict[str, Any]]:
    """Return the hosts as nodes of a description: one entry for each kind, with blanks (None) to be filled in."""
    kinds: dict[tuple[Any, ...], list[HostHardware]] = {}
    environment: set[tuple[str, str]] = set()
    for host in hosts:
        kinds.setdefault(host.kind, []).append(host)
        environment |= set(host.environment)
    return [_node(alike[0], len(alike), sorted(environment)) for alike in kinds.values()]


def _node(host: HostHardware, quantity: int, environment: list[tuple[str, str]]) -> dict[str, Any]:
    power: dict[str, Any] = {"min_psus_active": None, "psus_configured": []}
    return {
        "friendly_description": "client",
        "quantity": quantity,
        "chassis": {
            "model_name": host.chassis or None,
            "rack_units": None,
            "cpu_model": host.cpu_model or None,
            "cpu_qty": host.cpu_qty,
            "cpu_cores": host.cpu_cores,
            "memory_capacity": host.memory_gib,
            "power": power,
        },
        "networking": [_network(port, count) for port, count in Counter(host.networking).items()],
        "drives": [_drives(drive, count) for drive, count in Counter(host.drives).items()],
        "operating_system": {"name": host.system or None, "version": host.system_version or None},
        "environment": [{"name": name, "value": value} for name, value in environment],
        "sysctl": [{"name": name, "value": value} for name, value in host.sysctl],
    }


def _network(port: tuple[str, str, float | None], count: int) -> dict[str, Any]:
    kind, state, gbps = port
    up: dict[str, Any] = {"speed": gbps, "traffic": [] if state == "down" else None} if state == "up" or gbps else {}
    return {"unit_count": count, "type": kind, "state": state, **up}


def _drives(drive: tuple[str, str, str, bool | None, float], count: int) -> dict[str, Any]:
    vendor, model, interface, rotates, size_gb = drive
    return {
        "unit_count": count,
        "vendor_name": vendor or None,
        "model_name": model or None,
        "interface": interface,
        "media_type": "HDD" if rotates and model else None,  # a virtual drive claims to rotate
        "capacity_in_GB": size_gb,
    }
