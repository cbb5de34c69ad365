"""What `lockfile verify --strict` asks besides: that nothing is installed which the lock does not name."""

from typing import Final

from stoker.bench.run.lockfile import LockReport, installed_versions

_OF_EVERY_PLACE: Final = frozenset(("pip", "setuptools", "wheel", "stoker"))


def unlocked(report: LockReport) -> list[str]:
    """Return the installed packages that the lock does not name, but for the tools that install packages, and us."""
    named = {each.name for each in report.results} | _OF_EVERY_PLACE
    return sorted(f"{name} {version}" for name, version in installed_versions().items() if name not in named)
