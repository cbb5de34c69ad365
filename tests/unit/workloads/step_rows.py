"""Steps made by hand: what each took, in milliseconds, becomes a row of the recorder's columns."""

from collections.abc import Sequence

import numpy as np

from stoker.bench.workloads.steps import TRAIN, Rows
from stoker.core.result import STEP_COLUMNS

MS = 1_000_000


def rows_of(
    steps: Sequence[tuple[float, float, float]],
    *,
    epoch: int = 1,
    phase: int = TRAIN,
    block: int = 0,
    start_ms: float = 0.0,
    batch: int = 4,
    gap_ms: float = 0.0,
) -> Rows:
    """Return rows from (wait, compute, barrier) a step, in milliseconds, with a gap before each request and compute."""
    now = round(start_ms * MS)
    rows = []
    for number, (wait, compute, barrier) in enumerate(steps):
        request = now + round(gap_ms * MS) * (number > 0)
        ready = request + round(wait * MS)
        begun = ready + round(gap_ms * MS)
        done = begun + round(compute * MS)
        now = done + round(barrier * MS)
        rows.append((epoch, phase, block, number, request, ready, begun, done, now, batch, batch * 100, batch * 128))
    return np.array(rows, np.int64).reshape(-1, len(STEP_COLUMNS))


def joined(*parts: Rows) -> Rows:
    """Return several stretches of steps as one rank's."""
    return np.concatenate(parts)
