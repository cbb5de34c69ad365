"""From a URL to an engine: `memory://NAME`, `sqlite:///path.db`, `lmdb:///folder?map_bytes=1TiB`,
`postgresql://host/database/volume`."""

import errno
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from stoker.core.errors import StokerError, StoreError, UsageError
from stoker.core.files import redact_url
from stoker.core.registry import Registry, nearest
from stoker.fs.meta.kv import Engine

_SAME: Final = {"postgres": "postgresql"}
"""Schemes that name an engine by another word, as libpq has it."""


@dataclass(frozen=True, slots=True)
class EngineURL:
    """The parts of a URL. `place` is what stands behind `://`, unquoted: a name or a path."""

    scheme: str
    place: str
    query: Mapping[str, str]
    text: str
    create: bool

    def options(self, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """Return the options that were given, converted. Raises UsageError for one that the engine does not have."""
        for name in self.query:
            if name not in known:
                close = nearest(name, list(known))
                remedy = f"did you mean {close!r}?" if close else ""
                told = ", ".join(sorted(known)) or "none"
                raise UsageError("engine has no such option", where=name, expected=told, remedy=remedy)
        return {name: known[name](value) for name, value in self.query.items()}

    def path(self) -> Path:
        """Return the place as a path. Raises UsageError when it is empty or holds a NUL."""
        if not self.place or "\0" in self.place:
            raise UsageError(
                "URL names no path", where=self.text, expected=f"{self.scheme}:///path or {self.scheme}://path"
            )
        return Path(self.place)


class Opener(Protocol):
    """What an entry point of the group `stoker.meta_engines` names.

    With `url.create` it makes a new place and refuses one that is taken; without it, it opens one that was made.
    """

    def __call__(self, url: EngineURL) -> Engine: ...


ENGINES: Final[Registry[Opener]] = Registry(
    "stoker.meta_engines", kind="metadata engine", extras={"lmdb": "lmdb", "etcd": "ha", "postgresql": "postgres"}
)


def open_engine(url: str, *, create: bool = False) -> Engine:
    """Open the engine that `url` names, or make it.

    Raises UnknownNameError for a scheme nobody registered, UsageError for a place that is taken, missing or not of
    this engine, MissingExtraError with the install command, CorruptError for a torn file.
    """
    parsed = parse_engine_url(url, create=create)
    return ENGINES.load(parsed.scheme)(parsed)


def parse_engine_url(url: str, *, create: bool) -> EngineURL:
    """Return the parts of `url`. Raises UsageError for text that is none, credentials, or an option given twice."""
    if "://" not in url:
        raise UsageError("not the URL of a volume", where=url, expected="such as sqlite:///path.db or lmdb:///folder")
    try:
        parts = urlsplit(url, allow_fragments=False)
    except ValueError as error:
        raise UsageError(f"URL cannot be read ({error})", where=url.partition("://")[0]) from None
    if "@" in parts.netloc:
        raise UsageError("URL holds credentials", where=redact_url(url))
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in query:
            raise UsageError("option is given twice in the URL", where=name)
        query[name] = value
    scheme = _SAME.get(parts.scheme, parts.scheme)
    return EngineURL(scheme, unquote(parts.netloc + parts.path), query, redact_url(url), create)


def refuse_taken(path: Path, url: str) -> None:
    """Raise UsageError unless nothing is at `path` and the folder around it exists."""
    if os.path.lexists(path):
        raise UsageError("place is taken", where=url, expected="a path where nothing is")
    if not path.parent.is_dir():
        raise UsageError("folder does not exist", where=str(path.parent))


def unfinished(path: Path) -> Path:
    """Return a place beside `path` where nobody else makes something at the same time."""
    return path.with_name(f".{secrets.token_hex(8)}.new")


def not_made(error: OSError, url: str) -> StokerError:
    """Return the error of a place that could not be given its name: somebody else has it, or the system says why."""
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return UsageError("place is taken", where=url, expected="a path where nothing is")
    return StoreError("volume cannot be made", where=url, got=error.strerror or str(error))


def sync_choice(text: str) -> bool:
    """Return whether each commit waits for the disk. Raises UsageError for other words than `full` and `off`."""
    if text not in ("full", "off"):
        raise UsageError("option sync has a bad value", expected="full or off", got=text)
    return text == "full"


def check_version(what: str, url: str, version: int, known: int) -> None:
    """Raise UsageError for something that a newer release wrote."""
    if version > known:
        raise UsageError(
            f"{what} is of a newer release",
            where=url,
            expected=f"form {known}",
            got=f"form {version}",
            remedy="update stoker",
        )
