"""Which file system a path lies on, as the kernel's table of mounts tells it."""

import os
import re
from pathlib import Path

import msgspec

from stoker.core.files import redact_url

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """A mounted file system: `kind` is its type (xfs, nfs4, tmpfs), `source` the device or export."""

    point: str
    kind: str
    source: str
    options: tuple[str, ...]


def mount_of(path: str | os.PathLike[str], *, table: Path = Path("/proc/self/mountinfo")) -> Mount | None:
    """Return the mount that `path` lies on: of the deepest matching mount points the one mounted last.

    None where the table cannot be read or knows no mount of it. Format: proc_pid_mountinfo(5).
    """
    try:
        mounts = parse_mounts(table.read_text(errors="replace"))
    except OSError:
        return None
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in mounts:
        if _holds(mount.point, real) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts of a mountinfo text, in its order; what may be a secret in their options is hidden."""
    return [mount for line in text.splitlines() if (mount := _parse(line)) is not None]


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _parse(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 3:
        return None
    options = dict.fromkeys((*fields[5].split(","), *rest[2].split(",")))
    return Mount(_plain(fields[4]), rest[0], redact_url(_plain(rest[1])), tuple(map(_safe, options)))


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _safe(option: str) -> str:
    """Return a mount option without what may be a secret: some file systems take passwords there."""
    name, equals, _ = option.partition("=")
    return f"{name}=[redacted]" if equals and name.lower() in _SECRET_OPTIONS else _plain(option)


_SECRET_OPTIONS = frozenset(
    ("password", "pass", "passwd", "password2", "secret", "key", "credentials", "cred", "token")
)
