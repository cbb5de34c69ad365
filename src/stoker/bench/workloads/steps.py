"""The steps of a rank, a row each: recorded into preallocated columns, read back by name."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.core.result import STEP_COLUMNS

Rows = NDArray[np.int64]
COLUMN: Final = {name: index for index, name in enumerate(STEP_COLUMNS)}
TRAIN: Final = 0
EVALUATION: Final = 1
SAVE: Final = 2
LOAD: Final = 3
SERVE: Final = 4
INSERT: Final = 5
INDEX: Final = 6
SEARCH: Final = 7
PHASES: Final = ("train", "evaluation", "save", "load", "serve", "insert", "index", "search")
"""Steps are of the first two alone, requests to a database of the last; the others are told in progress."""
_FIRST_CAPACITY: Final = 1 << 14


class StepRecorder:
    """Grows by doubling. One thread adds; any thread may read what was added before it asked."""

    def __init__(self, capacity: int = _FIRST_CAPACITY) -> None:
        self._rows: Rows = np.zeros((max(capacity, 1), len(STEP_COLUMNS)), np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Sequence[int]) -> None:
        """Add a step: its values in the order of STEP_COLUMNS."""
        if self._count == len(self._rows):
            grown = np.zeros((2 * len(self._rows), len(STEP_COLUMNS)), np.int64)
            grown[: self._count] = self._rows
            self._rows = grown
        self._rows[self._count] = row
        self._count += 1  # last: a reader never sees a row that is not complete

    def rows(self, first: int = 0) -> Rows:
        """Return the steps from `first` on, shape (n, columns): a view, not to be written to."""
        count = self._count
        return self._rows[first:count]


def column(rows: Rows, name: str) -> NDArray[np.int64]:
    """Return one column of the steps."""
    return rows[:, COLUMN[name]]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return several stretches of steps as one."""
    return np.concatenate([np.zeros((0, len(STEP_COLUMNS)), np.int64), *parts])


def pack(rows: Rows) -> str:
    """Return steps as text: base64 of their columns' values, row after row, 64 bits little-endian."""
    return b64encode(rows.astype("<i8", copy=False).tobytes()).decode("ascii")


def unpack(text: str, *, where: str) -> Rows:
    """Return the steps that `pack` wrote. Raises CorruptError for anything else."""
    try:
        values = np.frombuffer(b64decode(text, validate=True), "<i8")
        return values.reshape(-1, len(STEP_COLUMNS)).astype(np.int64, copy=False)
    except (ValueError, TypeError) as error:
        raise CorruptError(
            "not packed steps", where=where, expected=f"rows of {len(STEP_COLUMNS)} columns", got=str(error)
        ) from error
