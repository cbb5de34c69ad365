"""Plug-ins by entry point: our own and strangers' enter by the same door.

An entry is imported only when it is asked for. Our entries point to classes or functions; when the
import fails because an optional package is absent, the remedy (the extra to install) is told.
"""

import difflib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from stoker.core.errors import MissingExtraError, UnknownNameError

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """Return the known name closest to `name`, or an empty text when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return close[0] if close else ""


class Registry(Generic[T]):
    """Names to objects of one kind, found in the entry-point group `group`.

    `extras` maps a name to the extra of this distribution that provides what it imports.
    """

    def __init__(self, group: str, *, kind: str, extras: Mapping[str, str] | None = None) -> None:
        self.group = group
        self.kind = kind
        self.extras = dict(extras or {})

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        return sorted(self._entries)

    def load(self, name: str) -> T:
        """Return the object registered as `name`.

        Raises UnknownNameError with the nearest name, MissingExtraError with the install command.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise self.unknown(name)
        try:
            return cast("T", entry.load())
        except ImportError as error:
            raise self.missing(name, error) from error

    def unknown(self, name: str) -> UnknownNameError:
        """Return the error for a name nobody registered."""
        close = nearest(name, self.names())
        remedy = f"did you mean {close!r}? " if close else ""
        return UnknownNameError(f"no {self.kind}", where=name, remedy=f"{remedy}known: {', '.join(self.names())}")

    def missing(self, name: str, error: ImportError) -> MissingExtraError:
        """Return the error for an entry whose package is absent."""
        extra = self.extras.get(name, "all")
        return missing_extra(f"{self.kind} {name!r}", extra, error)


def missing_extra(what: str, extra: str, error: ImportError) -> MissingExtraError:
    """Return the one sentence for an absent optional package: what needs it, and the install command."""
    package = error.name or str(error)
    return MissingExtraError(
        f"{what} needs the package {package!r}, which is not installed", remedy=f"run: pip install 'stoker[{extra}]'"
    )
