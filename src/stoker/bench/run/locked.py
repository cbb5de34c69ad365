"""Installed versions held against the lock that ships with the package (PKG-03)."""

import re
from importlib.metadata import distributions
from importlib.resources import files


def not_as_locked() -> list[str]:
    """Return the installed packages that differ from the lock this release ships, `name found (locked wanted)`.

    A package that is locked to one version for each Python is as locked with any of them.
    """
    wanted: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", _lock_text(), re.MULTILINE):
        wanted.setdefault(_plain_name(name), []).append(version)
    installed = {_plain_name(item.name): item.version for item in distributions() if item.name}
    return [
        f"{name} {installed[name]} (locked {' or '.join(versions)})"
        for name, versions in wanted.items()
        if name in installed and installed[name] not in versions
    ]


def _plain_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lock_text() -> str:
    try:
        return (files("stoker") / "locks" / "base.lock").read_text()
    except OSError:
        return ""
