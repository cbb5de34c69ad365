"""What can be said of a pass while it runs, and the histograms of its steps afterwards."""

from typing import Final

import msgspec
import numpy as np

from stoker.bench.workloads.metrics import compute_seconds, durations_seconds, wait_seconds
from stoker.bench.workloads.steps import Rows, column
from stoker.core.histogram import Histogram
from stoker.loader.tally import CountedHistogram, rounded

_LOOK_BACK_STEPS: Final = 1 << 16


class Progress(msgspec.Struct, frozen=True):
    """How far a rank is in its epoch or evaluation; the AU and the rate are those of its last steps."""

    phase: int
    epoch: int
    step: int
    steps: int
    au_ratio: float = 0.0
    bytes_per_second: float = 0.0


def progress_of(rows: Rows, *, phase: int, epoch: int, steps: int) -> Progress:
    """Return the progress of a pass, given its steps so far."""
    recent = rows[-_LOOK_BACK_STEPS:]
    seconds = float(durations_seconds(recent).sum())
    if seconds <= 0:
        return Progress(phase, epoch, len(rows), steps)
    au_ratio = float(compute_seconds(recent).sum()) / seconds
    rate = float(column(recent, "delivered_bytes").sum()) / seconds
    return Progress(phase, epoch, len(rows), steps, au_ratio, rate)


def step_histograms(rows: Rows) -> dict[str, Histogram]:
    """Return how long the steps lasted and how long each waited for its batch."""
    found: dict[str, Histogram] = {}
    for name, seconds in (("step", durations_seconds(rows)), ("stall", wait_seconds(rows))):
        histogram = CountedHistogram()
        values, counts = np.unique(rounded(np.rint(seconds * 1e9).astype(np.int64)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_counted(value, count)
        found[name] = histogram
    return found
