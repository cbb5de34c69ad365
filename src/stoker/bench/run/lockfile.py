"""Lock files: hold what is installed against exact pins (PKG-03), and make a lock from a project (PKG-01).

The format is that of requirements files: `name==version`, with markers and hashes. Lines that name a URL or a
repository are skipped, as are packages that a skip pattern names; a requirement that is not pinned is a mismatch.
"""

import fnmatch
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from stoker.bench.run.lock_making import generate_lockfile
from stoker.core.errors import CorruptError, NotFoundError, PreflightError

__all__ = (
    "LockReport",
    "PackageState",
    "generate_lockfile",
    "not_as_locked",
    "require_locked",
    "verify_lockfile",
)

SKIP_DEFAULT: Final = ("mpi4py",)
LOCK_BYTES_MAX: Final = 16 << 20
TOLD_MAX: Final = 12
_MARKER_CHARACTERS_MAX: Final = 2_000
_BRACKETS_MAX: Final = 40
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)")
_EXACT: Final = re.compile(r"===?\s*([A-Za-z0-9][A-Za-z0-9._!+-]*)")
_REPOSITORY: Final = re.compile(r"(?:git|hg|svn|bzr)\+|[A-Za-z][A-Za-z0-9+.-]*://|[./]")


class Pin(msgspec.Struct, frozen=True):
    """A line of a lock: the plain name, the version it pins (empty: none), the marker, and the line as it stands.

    `skipped` says why the line cannot be held against what is installed.
    """

    name: str
    version: str
    marker: str = ""
    text: str = ""
    skipped: str = ""


class PackageState(msgspec.Struct, frozen=True):
    """A package of the lock: `status` is matched, mismatched, missing or skipped."""

    name: str
    expected: str
    actual: str
    status: str
    reason: str = ""


class LockReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed against a lock."""

    valid: bool
    lockfile_path: str
    total_packages: int
    matched: int
    mismatched: int
    missing: int
    skipped: int
    results: tuple[PackageState, ...]
    skip_patterns: tuple[str, ...]

    def of(self, *states: str) -> list[PackageState]:
        """Return the packages in one of the states."""
        return [each for each in self.results if each.status in states]

    def sentence(self) -> str:
        """Return the report in one line: the counts, and the packages that differ."""
        told = f"{self.matched} of {self.total_packages} packages as locked"
        bad = self.of("mismatched", "missing")
        names = [f"{each.name} {each.actual or 'not installed'} (locked {each.expected})" for each in bad[:TOLD_MAX]]
        names += [f"{len(bad) - TOLD_MAX} more"] if len(bad) > TOLD_MAX else []
        return f"{told}; {', '.join(names)}" if names else told


def verify_lockfile(path: str | Path, *, skip: Sequence[str] = (), allow_missing: bool = False) -> LockReport:
    """Hold the installed packages against a lock file.

    `skip` names patterns (`nvidia-*`) besides mpi4py, whose build differs by machine. A missing package is told, and
    makes the report invalid unless `allow_missing`.

    Raises NotFoundError without such a file, CorruptError for one that is no lock.
    """
    place = Path(path)
    patterns = tuple(dict.fromkeys((*SKIP_DEFAULT, *skip)))
    states = tuple(_states(parse_lock(_text(place), where=str(place)), installed_versions(), patterns))
    count = {state: sum(each.status == state for each in states) for state in _STATES}
    return LockReport(
        valid=not count["mismatched"] and (allow_missing or not count["missing"]),
        lockfile_path=str(place),
        total_packages=len(states),
        results=states,
        skip_patterns=patterns,
        **count,
    )


_STATES: Final = ("matched", "mismatched", "missing", "skipped")


def require_locked(path: str | Path, *, skip: Sequence[str] = (), allow_missing: bool = False) -> LockReport:
    """Return the report of a lock that holds. Raises PreflightError, with every package that differs, otherwise."""
    report = verify_lockfile(path, skip=skip, allow_missing=allow_missing)
    if report.valid:
        return report
    bad = len(report.of("mismatched", "missing"))
    raise PreflightError(
        f"{bad} of {report.total_packages} packages are not as locked (PKG-03), so nothing was started",
        where=report.lockfile_path,
        got=report.sentence(),
        remedy=f"pip install -r {report.lockfile_path}",
    )


def not_as_locked() -> list[str]:
    """Return the installed packages that differ from the lock this release ships, `name found (locked wanted)`.

    What is not installed is no difference: the lock holds for whatever extras are.
    """
    try:
        text = (files("stoker") / "locks" / "base.lock").read_text()
    except OSError:
        return []
    states = _states(parse_lock(text, where="base.lock"), installed_versions(), SKIP_DEFAULT)
    return [f"{each.name} {each.actual} (locked {each.expected})" for each in states if each.status == "mismatched"]


def installed_versions() -> dict[str, str]:
    """Return the versions of all installed packages by canonical name; of two of one name the first on the path."""
    found: dict[str, str] = {}
    for item in distributions():
        name = item.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), item.version)
    return found


def parse_lock(text: str, *, where: str = "") -> list[Pin]:
    """Return the requirements of a lock; options such as `--hash` and comments are left out.

    Raises CorruptError for a line that is neither.
    """
    pins = []
    for number, line in _lines(text):
        pin = _pin(line)
        if pin is None:
            raise CorruptError(
                "no requirement", where=f"{where}:{number}", expected="name==version", got=repr(line[:80])
            )
        pins.append(pin)
    return pins


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the logical lines that hold a requirement: continued ones joined, comments and options taken off."""
    whole, first = "", 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        first = first if whole else number
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        whole += line
        wanted = re.sub(r"(^|\s)#.*$", "", whole).strip()
        whole = ""
        if wanted and (not wanted.startswith("-") or wanted.startswith(("-e ", "--editable"))):
            yield first, re.split(r"\s--?[a-z]", wanted, maxsplit=1)[0].strip() if wanted[0] != "-" else wanted


def _pin(line: str) -> Pin | None:
    if line.startswith("-") or _REPOSITORY.match(line):
        return Pin(line, "", text=line, skipped="a URL, a folder or a repository")
    body, _, marker = line.partition(";")
    found = _REQUIREMENT.fullmatch(body.strip())
    if found is None:
        return None
    name, rest = canonicalize_name(found[1]), found[2].strip()
    if rest.startswith("@"):
        return Pin(name, "", marker.strip(), rest, skipped="a URL, a folder or a repository")
    exact = _EXACT.fullmatch(rest)
    if exact is None and rest and not re.match(r"[<>=!~(]", rest):
        return None
    return Pin(name, exact[1] if exact else "", marker.strip(), rest or "any version")


def _states(pins: Iterable[Pin], installed: dict[str, str], patterns: Sequence[str]) -> Iterator[PackageState]:
    """Yield the state of every package; of lines for other Pythons and platforms none counts unless all are such."""
    plain_patterns = [re.sub(r"[-_.]+", "-", pattern).lower() for pattern in patterns]
    packages: dict[str, list[Pin]] = {}
    for pin in pins:
        packages.setdefault(pin.name, []).append(pin)
    for name, lines in packages.items():
        actual = installed.get(name, "")
        here = [pin for pin in lines if _holds(pin.marker)]
        expected = " or ".join(pin.version or pin.text for pin in here or lines)
        pattern = next((each for each in plain_patterns if fnmatch.fnmatchcase(name, each)), "")
        why = f"matches {pattern}" if pattern else "" if here else "for other machines"
        why = why or next((pin.skipped for pin in here if pin.skipped), "")
        if why:
            yield PackageState(name, expected, actual, "skipped", why)
        elif not actual:
            yield PackageState(name, expected, "", "missing")
        elif any(pin.version and same_version(pin.version, actual) for pin in here):
            yield PackageState(name, expected, actual, "matched")
        else:
            reason = "" if any(pin.version for pin in here) else "not pinned to one version"
            yield PackageState(name, expected, actual, "mismatched", reason)


def _holds(marker: str) -> bool:
    """Tell whether a line concerns this machine; one whose marker cannot be read does, so that it is not overlooked."""
    try:
        return applies(marker)
    except ValueError:
        return True


def applies(marker: str, names: Mapping[str, str] | None = None) -> bool:
    """Tell whether a marker such as `python_full_version < '3.12'` holds: on this machine, but for what `names` has.

    Raises ValueError for a text that is none, and for a long one: readers of nested brackets go as deep as they do.
    """
    if not marker.strip():
        return True
    if len(marker) > _MARKER_CHARACTERS_MAX or marker.count("(") > _BRACKETS_MAX:
        raise ValueError(f"a marker of more than {_MARKER_CHARACTERS_MAX} characters or {_BRACKETS_MAX} brackets")
    try:
        return Marker(marker).evaluate(dict(names or {}))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise ValueError(f"no marker: {error}") from error


def same_version(pinned: str, actual: str) -> bool:
    """Tell whether an installed version is the pinned one: `1.0` is `1.0.0`; a local part counts if it is pinned."""
    try:
        one, other = Version(pinned), Version(actual)
    except InvalidVersion:
        return pinned.strip() == actual.strip()
    return one == other or (one.local is None and one == Version(other.public))


def _text(place: Path) -> str:
    try:
        facts = place.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise CorruptError("a lock is a regular file", where=str(place))
        if facts.st_size > LOCK_BYTES_MAX:
            raise CorruptError("too large for a lock", where=str(place), expected=f"at most {LOCK_BYTES_MAX} bytes")
        return place.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CorruptError("a lock is a text file", where=str(place), got=str(error)) from error
    except OSError as error:
        remedy = "make one: stoker mlperf lockfile generate"
        raise NotFoundError("no lock file", where=str(place), got=error.strerror or "", remedy=remedy) from error
