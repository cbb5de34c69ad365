"""What to type to install a missing tool, on this distribution: told from os-release, never run."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stoker.bench.run.hosts.parse import parse_os_release
from stoker.bench.run.hosts.sources import OS_RELEASE

MANAGERS: Final = {
    "apt": "apt-get install",
    "dnf": "dnf install",
    "yum": "yum install",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "apk": "apk add",
    "brew": "brew install",
}
PACKAGES: Final = {
    "mpi": {
        "apt": "openmpi-bin libopenmpi-dev",
        "dnf": "openmpi openmpi-devel",
        "yum": "openmpi openmpi-devel",
        "zypper": "openmpi4",
        "pacman": "openmpi",
        "apk": "openmpi",
        "brew": "open-mpi",
    },
    "ssh": {
        "apt": "openssh-client",
        "dnf": "openssh-clients",
        "yum": "openssh-clients",
        "zypper": "openssh-clients",
        "pacman": "openssh",
        "apk": "openssh-client",
        "brew": "openssh",
    },
}
MACOS: Final = "macos"  # which has no os-release
_FAMILIES: Final = {
    "apt": ("debian", "ubuntu"),
    "dnf": ("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn"),
    "zypper": ("suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed"),
    "pacman": ("arch", "manjaro", "endeavouros"),
    "apk": ("alpine",),
    "brew": (MACOS,),
}
_DNF_SINCE: Final = {"rhel": 8, "centos": 8, "rocky": 8, "almalinux": 8, "ol": 8, "amzn": 2022}


def manager_of(release: Mapping[str, str]) -> str | None:
    """Return the package manager of a distribution by its os-release(5), None for one we do not know.

    The distribution's own name is looked for first, then those it is like, in its order.
    """
    for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()):
        for manager, family in _FAMILIES.items():
            if name in family:
                return "yum" if manager == "dnf" and _before_dnf(name, release) else manager
    return None


def _before_dnf(name: str, release: Mapping[str, str]) -> bool:
    major = release.get("VERSION_ID", "").partition(".")[0]
    return name in _DNF_SINCE and major.isdecimal() and int(major) < _DNF_SINCE[name]


def install_command(tool: str, release: Mapping[str, str] | None = None) -> str:
    """Return the words that install `tool` here, or which packages to look for where the distribution is unknown."""
    release = _here() if release is None else release
    manager, names = manager_of(release), PACKAGES[tool]
    if manager is None:
        return f"install {names['apt']} (its name on Debian) with the package manager of this system"
    return f"{MANAGERS[manager]} {names[manager]}"


def _here() -> dict[str, str]:
    if platform.system() == "Darwin":
        return {"ID": MACOS}
    for name in OS_RELEASE:
        if Path(name).is_file():
            return parse_os_release(Path(name).read_text(errors="replace"))
    return {}
