"""The mounts of this machine, as /proc tells them."""

import re
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.fs.fuse.options import MOUNT_TYPE

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class Mounted(msgspec.Struct, frozen=True):
    """A mount: where, of which type, from what, and the number of its device."""

    point: str
    kind: str
    source: str
    device: str


def read_mounts(text: str) -> list[Mounted]:
    """Return the mounts in the text of /proc/self/mountinfo, in the order in which they were made."""
    found = []
    for line in text.splitlines():
        before, dash, behind = line.partition(" - ")
        fields, more = before.split(" "), behind.split(" ")
        if dash and len(fields) >= 5 and len(more) >= 2:
            found.append(Mounted(_plain(fields[4]), more[0], _plain(more[1]), fields[2]))
    return found


def _plain(text: str) -> str:
    """Return a path in which the kernel wrote spaces and the like as octal numbers."""
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0xFF), text)
    return raw.encode("latin-1", errors="ignore").decode("utf-8", errors="surrogateescape") if raw != text else text


def mount_at(point: Path) -> Mounted | None:
    """Return the mount whose root is `point`, the last one made there; None when nothing is mounted there.

    Neither the mount nor what is below it is touched: one whose server died is found, too.
    """
    wanted = str(resolved(point))
    here = [one for one in read_mounts(_MOUNTS.read_text(errors="surrogateescape")) if one.point == wanted]
    return here[-1] if here else None


def resolved(point: Path) -> Path:
    """Return the path of a mount point without links in it, and without asking what is mounted on it."""
    absolute = point.absolute()
    if absolute.name in ("", ".."):
        return absolute.resolve()
    try:
        absolute.readlink()
    except OSError:  # it is no link; a mount whose server died is none either
        return absolute.parent.resolve() / absolute.name
    return absolute.resolve()


def refuse_within(point: Path, *needed: Path) -> None:
    """Raise UsageError when something that serving a mount needs lies below it: it would wait for itself."""
    below = resolved(point)
    for path in needed:
        if path.resolve().is_relative_to(below):
            remedy = "mount beside it"
            raise UsageError("mount would hide what it needs", where=str(point), got=str(path), remedy=remedy)


def refuse_taken(point: Path) -> None:
    """Raise UsageError unless something can be mounted at `point`: a directory on which none of ours is mounted."""
    found = mount_at(point)
    if found is not None and found.kind == MOUNT_TYPE:
        remedy = f"unmount it first, with `stoker fs umount {point}`"
        raise UsageError("a volume is mounted there already", where=str(point), got=found.source, remedy=remedy)
    if not point.is_dir():
        raise UsageError("mount point is no directory", where=str(point), remedy="make it with `mkdir`")
