"""The 95 % interval of a ratio of sums over steps: moving-block bootstrap.

Steps are correlated (a slow read delays several), so single steps must not be resampled; blocks of neighbours are
(Künsch 1989; block length as in Hall, Horowitz and Jing 1995, longer where the steps remember longer). With few
blocks a percentile interval is too narrow; its arms are stretched by Student's factor for the number of blocks.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.seed import derive

RESAMPLES: Final = 2000
STEPS_MIN: Final = 5
_GROUPS_MAX: Final = 20_000
_CELLS_MAX: Final = 1 << 21
_QUANTILES: Final = (0.025, 0.975)
_NORMAL: Final = 1.96
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_STUDENT: Final[tuple[float, ...]] = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)

Floats = NDArray[np.float64]


def ratio_interval(parts: Sequence[Floats], wholes: Sequence[Floats], *, seed: int) -> tuple[float, float]:
    """Return the interval of the mean over ranks of sum(part) / sum(whole), within 0..1.

    `parts[r]` and `wholes[r]` have a value a step, shape (n,), the same n for every rank; ranks are resampled
    together, for they are tied by the barrier. Under five steps, or with steps that took no time, nothing can be said:
    (0, 1).
    """
    steps = len(parts[0]) if parts else 0
    if steps < STEPS_MIN or min(float(whole.min()) for whole in wholes) <= 0:
        return 0.0, 1.0
    part, whole = _grouped(np.stack(parts)), _grouped(np.stack(wholes))
    length = block_length(whole.sum(axis=0) - part.sum(axis=0))
    resampled = _resampled_ratios(part, whole, length, np.random.default_rng(derive(seed, "bootstrap")))
    low, high = np.quantile(resampled, _QUANTILES)
    centre = float((part.sum(axis=1) / whole.sum(axis=1)).mean())
    stretch = _stretch(part.shape[1] // length)
    return (
        max(0.0, centre - stretch * max(centre - float(low), 0.0)),
        min(1.0, centre + stretch * max(float(high) - centre, 0.0)),
    )


def _grouped(values: Floats) -> Floats:
    """Return the sums of neighbours where there are more steps than it is worth resampling. Shape (ranks, groups)."""
    size = -(-values.shape[1] // _GROUPS_MAX)
    return values if size == 1 else np.add.reduceat(values, np.arange(0, values.shape[1], size), axis=1)


def block_length(series: Floats) -> int:
    """Return the block length for a series: n^(1/3), or twice as far as it remembers if that is longer; at most n/4."""
    count = len(series)
    least = int(np.ceil(count ** (1 / 3)))
    centred = series - series.mean()
    power = float(centred @ centred)
    if power <= 0:
        return min(least, max(count // 4, 1))
    spectrum = np.fft.rfft(centred, 2 * count)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), 2 * count)[: count // 2] / power
    forgotten = np.flatnonzero(np.abs(correlation) < 2 / np.sqrt(count))
    memory = int(forgotten[0]) if len(forgotten) else count // 2
    return max(1, min(max(least, 2 * memory), count // 4))


def _resampled_ratios(part: Floats, whole: Floats, length: int, generator: np.random.Generator) -> Floats:
    """Return the ratio of each resample, shape (RESAMPLES,). Blocks wrap around: every step is as likely."""
    count = part.shape[1]
    blocks = -(-count // length)
    part_sums, whole_sums = _circular_sums(part, length), _circular_sums(whole, length)
    batch = max(1, _CELLS_MAX // blocks)
    found = []
    for first in range(0, RESAMPLES, batch):
        starts = generator.integers(0, count, (min(batch, RESAMPLES - first), blocks))
        ratios = [p[starts].sum(axis=1) / w[starts].sum(axis=1) for p, w in zip(part_sums, whole_sums, strict=True)]
        found.append(np.mean(ratios, axis=0))
    return np.concatenate(found)


def _circular_sums(values: Floats, length: int) -> Floats:
    """Return the sum of `length` neighbours from each place on, around the end."""
    around = np.concatenate((np.zeros((len(values), 1)), values, values[:, : length - 1]), axis=1)
    sums = np.cumsum(around, axis=1)
    return sums[:, length:] - sums[:, :-length]


def _stretch(blocks: int) -> float:
    """Return by how much the arms of a percentile interval from so many blocks are too short."""
    free = max(blocks - 1, 1)
    student = _STUDENT[free - 1] if free <= len(_STUDENT) else _NORMAL + 2.4 / free
    return student / _NORMAL * float(np.sqrt(blocks / free))
