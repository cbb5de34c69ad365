"""What the kernel tells of this host and of a target without anything being written: space, inodes, mount, network."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from stoker.bench.run.gates.looking import LOCAL_SCHEMES, existing
from stoker.bench.workloads.mounts import mount_of
from stoker.storage.url import parse_url

NETWORK_KINDS: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "beegfs", "gpfs", "glusterfs", "9p", "afs", "orangefs", "wekafs")
)
_INTERFACES: Final = Path("/sys/class/net")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the place where a run will happen; None where it cannot be told.

    `networked` tells whether the target's bytes come over the network. `line_rate_bytes_per_second` is that of the
    fastest port of this host, which stands for all hosts.
    """

    free_bytes: int | None = None
    free_files: int | None = None
    networked: bool | None = None
    mount: str = ""
    apart: bool | None = None
    memory_bytes: int = 0
    line_rate_bytes_per_second: float | None = None
    line_told_by: str = ""


def look_around(target: str, results: Path | None = None) -> Surroundings:
    """Return what can be told of a target, which may be empty or not made yet, and of this host."""
    rate, port = line_rate()
    facts = Surroundings(memory_bytes=psutil.virtual_memory().total, line_rate_bytes_per_second=rate, line_told_by=port)
    if not target:
        return facts
    parsed = parse_url(target)
    if parsed.scheme not in LOCAL_SCHEMES:
        return msgspec.structs.replace(facts, networked=parsed.scheme not in ("mem", "null"), mount=parsed.scheme)
    folder = existing(Path(parsed.path))
    space, mount = os.statvfs(folder), mount_of(folder)
    kind = mount.kind if mount else ""
    return msgspec.structs.replace(
        facts,
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        networked=kind in NETWORK_KINDS or (None if kind.startswith("fuse") else False),
        mount=kind,
        apart=None if results is None else folder.stat().st_dev != existing(results).stat().st_dev,
    )


def line_rate(interfaces: Path = _INTERFACES) -> tuple[float | None, str]:
    """Return the bytes a second of the fastest port that is up, with its name; None where no driver tells any.

    Virtual ports tell no speed, or -1.
    """
    best, name = 0, ""
    with suppress(OSError):
        for place in sorted(interfaces.iterdir()):
            if not ((place / "device").exists() or (place / "bonding").exists()):
                continue  # bridges and tunnels make their speed up
            with suppress(OSError, ValueError):
                speed = int((place / "speed").read_text())
                if (place / "operstate").read_text().strip() in ("up", "unknown") and speed > best:
                    best, name = speed, place.name
    return (best * 1e6 / 8, name) if best > 0 else (None, "")
