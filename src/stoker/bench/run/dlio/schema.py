"""What a key of a DLIO workload is: its path, type, default, meaning, and what comes of it here.

`effect` is one of
    honoured    it does here what it is for
    noted       accepted; done here in one way whatever it says, which the plan's notes tell
    inert       parsed and never read by DLIO itself
    not_run     it steers what this version does not run: told whenever it is given, refused when strict
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stoker.core.registry import nearest

HONOURED: Final = "honoured"
NOTED: Final = "noted"
INERT: Final = "inert"
NOT_RUN: Final = "not_run"


class Key(msgspec.Struct, frozen=True):
    """One row. `kind` names the type in `typed.py`; `when` is the workflow switch without which the key is idle."""

    path: str
    kind: str
    default: Any
    meaning: str
    effect: str = HONOURED
    choices: tuple[str, ...] = ()
    low: float | None = None
    when: str = ""

    @property
    def is_tree(self) -> bool:
        """Tell whether the value may be a mapping, so that paths below it belong to it."""
        return self.kind in ("duration", "mapping")


class Table:
    """The rows by path, and the names that people write by mistake."""

    def __init__(self, rows: Sequence[Key], misspellings: dict[str, str]) -> None:
        self._rows = {row.path: row for row in rows}
        self.misspellings = misspellings
        assert len(self._rows) == len(rows)
        assert all(path not in self._rows for path in misspellings)

    @property
    def rows(self) -> tuple[Key, ...]:
        """Return every row in order."""
        return tuple(self._rows.values())

    def row(self, path: str) -> Key:
        """Return the row of a path that is known to exist."""
        return self._rows[path]

    def owner(self, path: Sequence[str]) -> Key | None:
        """Return the row that `path` belongs to: its own, or that of a mapping above it; None for an unknown key."""
        for length in range(len(path), 0, -1):
            row = self._rows.get(".".join(path[:length]))
            if row is not None and (length == len(path) or row.is_tree):
                return row
        return None

    def suggestion(self, path: str) -> str:
        """Return the known path closest to an unknown one, an empty text when none is close."""
        if path in self.misspellings:
            return self.misspellings[path]
        section, _, name = path.rpartition(".")
        inside = [row.rpartition(".")[2] for row in self._rows if row.rpartition(".")[0] == section]
        close = nearest(name, inside)
        if close:
            return f"{section}.{close}" if section else close
        same = [row for row in self._rows if row.rpartition(".")[2] == name]
        sections = {row.rpartition(".")[0] for row in self._rows}
        return same[0] if same else "" if section in sections else nearest(section, sorted(sections))
