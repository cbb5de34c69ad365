"""The machine a run was made on: facts for whoever compares two runs, and nothing secret."""

import os
import platform
import re
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from stoker.bench.run.lockfile import not_as_locked
from stoker.bench.workloads.counters import device_under, usable_cpus
from stoker.bench.workloads.mounts import mount_of
from stoker.core.files import is_secret_name, redact_url
from stoker.storage.url import parse_url

PACKAGES: Final = (
    "stoker",
    "numpy",
    "msgspec",
    "hdrhistogram",
    "xxhash",
    "crc32c",
    "obstore",
    "h5py",
    "pyarrow",
    "pillow",
    "mpi4py",
    "mpich",
    "pymilvus",
    "milvus-lite",
    "psycopg",
)
# Variables that decide how a run behaves; everything else of the environment stays out of the result.
ENVIRONMENT_NAMES: Final = frozenset(
    (
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "CUDA_VISIBLE_DEVICES",
        "LD_PRELOAD",
        "MALLOC_ARENA_MAX",
        "OMPI_COMM_WORLD_SIZE",
        "OMP_NUM_THREADS",
        "PMI_SIZE",
        "PYTHONMALLOC",
        "SLURM_JOB_ID",
        "SLURM_JOB_NUM_NODES",
        "SLURM_NTASKS",
        "UV_THREADPOOL_SIZE",
    )
)
_OWN_PREFIX: Final = "STOKER_"
_LOCAL_SCHEMES: Final = ("file", "direct")


def machine_facts(target_url: str = "") -> dict[str, Any]:
    """Return what is known of this machine and, for a local target, of where it lies. JSON-ready."""
    memory = psutil.virtual_memory()
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count() or 0,
        "cpu_affinity": sorted(os.sched_getaffinity(0)),
        "cpu_usable": usable_cpus(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "kernel": platform.release(),
        "system": _system_name(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "python_implementation": sys.implementation.name,
        "clock_source": _first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "packages": _packages(),
        "packages_not_locked": not_as_locked(),
        "environment": safe_environment(dict(os.environ)),
    }
    if target_url:
        facts["target"] = _target_facts(target_url)
    return facts


def _cpu_model() -> str:
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def _system_name() -> str:
    found = re.search(r'^PRETTY_NAME="?(.*?)"?$', _text("/etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.system()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _first_line(path: str) -> str:
    return _text(path).strip().partition("\n")[0]


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def safe_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that may be kept: those on the list and our own, none that looks secret, URLs redacted."""
    return {
        name: redact_url(value)
        for name, value in sorted(environment.items())
        if (name in ENVIRONMENT_NAMES or name.startswith(_OWN_PREFIX)) and not is_secret_name(name)
    }


def _target_facts(target_url: str) -> dict[str, Any]:
    """Return where a target lies: its mount and device when it is local, its redacted URL always."""
    parsed = parse_url(target_url)
    facts: dict[str, Any] = {"url": parsed.redacted, "scheme": parsed.scheme}
    if parsed.scheme not in _LOCAL_SCHEMES:
        return facts
    mount, device = mount_of(parsed.path), device_under(parsed.path)
    if mount is not None:
        facts["mount"] = msgspec.to_builtins(mount)
    if device is not None:
        facts["device"] = device.name
        facts["device_model"] = _device_model(device.name)
    return facts


def _device_model(name: str) -> str:
    """Return the model of the disk that a device is, or is a partition of; empty where it has none."""
    folder = Path("/sys/class/block") / name
    try:
        parents = [folder.resolve(), folder.resolve().parent]
    except OSError:
        return ""
    return next((text for parent in parents if (text := _first_line(str(parent / "device" / "model")))), "")
