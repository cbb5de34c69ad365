"""The figures of a training run, from its steps alone. Pure.

A step lasts from the end of the one before (the first of a block: from its request) to its own end, so the steps of a
block tile its wall time:

    |<------------------------- duration -------------------------->|
    end before   request    ready    compute start   compute end   end
       gap     |   wait    |   gap  |    compute    |   barrier   |

Ours, over the kept steps K of an epoch (docs/metrics):
    AU = sum of compute / sum of duration        rates = sum of samples, or of bytes / sum of duration
DLIO's, for comparison (`*_compatible`), a block of n steps with DLIO's window of exclusions:
    T = block wall - sum of (compute end - request) of the excluded steps
    AU = sum of compute of the kept / T          samples/s = (n - 2) x batch / T
The 2 does not follow the exclusions, and the end exclusion counts in steps of the epoch, even where a block is
shorter: both are DLIO's.
Over a run: ours pools the steps of all training epochs, DLIO's is the mean over epochs. AU is the mean over ranks,
rates are the sum.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.bench.workloads.bootstrap import ratio_interval
from stoker.bench.workloads.steps import PHASES, TRAIN, Rows, column
from stoker.core.plan import TrainingPlan
from stoker.core.result import Epoch, Metrics

Floats = NDArray[np.float64]


class Exclusion(msgspec.Struct, frozen=True):
    """Which steps of an epoch do not count: the first and last few, and `warmup_steps` at the start of the run."""

    start_steps: int = 1
    end_steps: int = 0
    warmup_steps: int = 0

    def leading(self, *, first: bool) -> int:
        """Return the steps left out at the start of an epoch: a warmed-up loader has its first step behind it."""
        return max(self.start_steps, self.warmup_steps if first else 0)


def exclusion_of(plan: TrainingPlan) -> Exclusion:
    """Return what the plan leaves out."""
    return Exclusion(plan.exclude_start_steps, plan.exclude_end_steps, plan.warmup_steps)


def blocks(rows: Rows) -> Iterator[Rows]:
    """Yield the runs of steps that share phase, epoch and block, in order."""
    if len(rows):
        keys = np.stack([column(rows, name) for name in ("phase", "epoch", "block")])
        yield from np.split(rows, np.flatnonzero(np.any(np.diff(keys, axis=1) != 0, axis=0)) + 1)


def durations_seconds(rows: Rows) -> Floats:
    """Return how long each step lasted. Shape (n,)."""
    parts = [column(block, "end_ns") - _begins(block) for block in blocks(rows)]
    return np.concatenate(parts) / 1e9 if parts else np.zeros(0)


def _begins(block: Rows) -> NDArray[np.int64]:
    return np.concatenate((column(block, "request_ns")[:1], column(block, "end_ns")[:-1]))


def compute_seconds(rows: Rows) -> Floats:
    """Return how long the accelerator computed in each step."""
    return _span(rows, "compute_start_ns", "compute_end_ns")


def wait_seconds(rows: Rows) -> Floats:
    """Return how long the accelerator waited for each step's batch."""
    return _span(rows, "request_ns", "ready_ns")


def barrier_seconds(rows: Rows) -> Floats:
    """Return the time from the end of each step's compute until the step was over: the others, and waking up."""
    return _span(rows, "compute_end_ns", "end_ns")


def gap_seconds(rows: Rows) -> Floats:
    """Return the time of each step in which this harness did its own bookkeeping."""
    return durations_seconds(rows) - wait_seconds(rows) - compute_seconds(rows) - barrier_seconds(rows)


def _span(rows: Rows, start: str, end: str) -> Floats:
    return (column(rows, end) - column(rows, start)) / 1e9


def kept(rows: Rows, exclusion: Exclusion) -> Rows:
    """Return the steps of the training epochs that count, in order. Shape (k, columns)."""
    return rows[_kept_index(rows, exclusion)]


def _kept_index(rows: Rows, exclusion: Exclusion) -> NDArray[np.intp]:
    found: list[NDArray[np.intp]] = []
    training = np.flatnonzero(column(rows, "phase") == TRAIN)
    numbers = column(rows, "epoch")[training]
    for epoch in _in_order(numbers):
        steps = training[numbers == epoch]
        end = len(steps) - exclusion.end_steps
        found.append(steps[exclusion.leading(first=not found) : max(end, 0)])
    return np.concatenate(found) if found else np.zeros(0, np.intp)


def _in_order(numbers: NDArray[np.int64]) -> list[int]:
    return list(dict.fromkeys(numbers.tolist()))


def rank_epochs(rows: Rows, exclusion: Exclusion) -> list[Epoch]:
    """Return the figures of each epoch and evaluation of one rank, in the order they ran."""
    found: list[Epoch] = []
    keys = list(dict.fromkeys(zip(column(rows, "phase").tolist(), column(rows, "epoch").tolist(), strict=True)))
    first_train = next((key for key in keys if key[0] == TRAIN), None)
    for phase, epoch in keys:
        steps = rows[(column(rows, "phase") == phase) & (column(rows, "epoch") == epoch)]
        window = Exclusion(exclusion.leading(first=(phase, epoch) == first_train), exclusion.end_steps)
        found.append(_epoch_figures(steps, window, epoch=epoch, phase=phase))
    return found


def _epoch_figures(rows: Rows, window: Exclusion, *, epoch: int, phase: int) -> Epoch:
    """Return the figures of one epoch; an evaluation keeps all its steps, but for DLIO's AU."""
    last = max(len(rows) - window.end_steps, 0)
    inside = slice(window.start_steps, last) if phase == TRAIN else slice(None)
    seconds, compute = durations_seconds(rows), compute_seconds(rows)
    kept_seconds = float(seconds[inside].sum())
    compatible_au, compatible_rate = compatible_figures(rows, window, evaluation=phase != TRAIN)
    return Epoch(
        epoch=epoch,
        phase=PHASES[phase],
        steps=len(rows),
        samples=int(column(rows, "samples").sum()),
        wall_seconds=float(column(rows, "end_ns")[-1] - column(rows, "request_ns")[0]) / 1e9,
        au_ratio=_share(float(compute[inside].sum()), kept_seconds),
        au_compatible_ratio=compatible_au,
        samples_per_second=_share(float(column(rows, "samples")[inside].sum()), kept_seconds),
        samples_per_second_compatible=compatible_rate,
        delivered_bytes_per_second=_share(float(column(rows, "delivered_bytes")[inside].sum()), kept_seconds),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def compatible_figures(rows: Rows, window: Exclusion, *, evaluation: bool = False) -> tuple[float, float]:
    """Return AU and samples/s of one rank's epoch by DLIO's formulas: the mean over its blocks, weighted by steps.

    A block of fewer than two steps has the rate 0 here, where DLIO's is negative. An evaluation's rate counts all
    steps and its whole wall time.
    """
    weighted = [
        (len(block), *_compatible_block(block, window, epoch_steps=len(rows), evaluation=evaluation))
        for block in blocks(rows)
    ]
    steps = sum(weight for weight, _, _ in weighted)
    return (
        _share(sum(weight * au for weight, au, _ in weighted), steps),
        _share(sum(weight * rate for weight, _, rate in weighted), steps),
    )


def _compatible_block(block: Rows, window: Exclusion, *, epoch_steps: int, evaluation: bool) -> tuple[float, float]:
    first, last = window.start_steps, max(epoch_steps - window.end_steps, 0)
    process = _span(block, "request_ns", "compute_end_ns")
    wall_seconds = float(column(block, "end_ns")[-1] - column(block, "request_ns")[0]) / 1e9
    measured_seconds = wall_seconds - float(process[:first].sum()) - float(process[last:].sum())
    credited_steps = len(block) if evaluation else max(len(block) - 2, 0)
    batch = float(column(block, "samples").max())
    return (
        _share(float(compute_seconds(block)[first:last].sum()), measured_seconds),
        _share(credited_steps * batch, wall_seconds if evaluation else measured_seconds),
    )


def combine_epochs(parts: Sequence[Epoch]) -> Epoch:
    """Return one epoch of the run from its parts, one a rank: AU is averaged, rates and samples are summed.

    Steps are those that all ranks took. What the steps do not tell (digest, coverage, cache) is left to the caller.
    """
    assert parts
    return Epoch(
        epoch=parts[0].epoch,
        phase=parts[0].phase,
        steps=min(part.steps for part in parts),
        samples=sum(part.samples for part in parts),
        wall_seconds=max(part.wall_seconds for part in parts),
        au_ratio=_mean([part.au_ratio for part in parts]),
        au_compatible_ratio=_mean([part.au_compatible_ratio for part in parts]),
        samples_per_second=sum(part.samples_per_second for part in parts),
        samples_per_second_compatible=sum(part.samples_per_second_compatible for part in parts),
        delivered_bytes_per_second=sum(part.delivered_bytes_per_second for part in parts),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def run_metrics(ranks: Sequence[Rows], epochs: Sequence[Epoch], exclusion: Exclusion, *, seed: int) -> Metrics:
    """Return the figures of the run that follow from the steps of all ranks and the run's epochs.

    Stalls, CPU and what the store counted are not in the steps: they stay at their defaults. `seed` draws the
    resamples of the interval.
    """
    metrics = Metrics(first_batch_seconds=max((_first_wait(rows) for rows in ranks), default=0.0))
    aus, lengths = [], []
    compute: list[Floats] = []
    duration: list[Floats] = []
    for rows in ranks:
        inside = _kept_index(rows, exclusion)
        seconds, computed = durations_seconds(rows)[inside], compute_seconds(rows)[inside]
        total = float(seconds.sum())
        aus.append(_share(float(computed.sum()), total))
        lengths.append(len(inside))
        compute.append(computed)
        duration.append(seconds)
        metrics.samples_per_second += _share(float(column(rows, "samples")[inside].sum()), total)
        metrics.delivered_bytes_per_second += _share(float(column(rows, "delivered_bytes")[inside].sum()), total)
    metrics.steps = min(lengths, default=0)
    metrics.au_ratio = _mean(aus)
    metrics.au_low_ratio, metrics.au_high_ratio = ratio_interval(
        [part[: metrics.steps] for part in compute], [part[: metrics.steps] for part in duration], seed=seed
    )
    metrics.au_low_ratio = min(metrics.au_low_ratio, metrics.au_ratio)
    metrics.au_high_ratio = max(metrics.au_high_ratio, metrics.au_ratio)
    counted = _counted_epochs(epochs)
    metrics.au_compatible_ratio = _mean([epoch.au_compatible_ratio for epoch in counted])
    metrics.samples_per_second_compatible = _mean([epoch.samples_per_second_compatible for epoch in counted])
    return metrics


def sustained_ratio(rows: Rows, exclusion: Exclusion, *, prefetch_batches: int) -> float:
    """Return the AU of one rank that its store has surely kept up.

    When an epoch's window opens, up to `prefetch_batches` batches are ready that were read before it: over few steps
    they flatter AU. Two bounds hold without them, and the better one counts: the window's AU with that many steps not
    credited, and the AU of whole epochs, where all that is consumed is read.
    """
    training = rows[column(rows, "phase") == TRAIN]
    whole = _share(float(compute_seconds(training).sum()), float(durations_seconds(training).sum()))
    inside = _kept_index(rows, exclusion)
    epochs = column(rows, "epoch")[inside]
    computed, seconds = compute_seconds(rows)[inside], durations_seconds(rows)[inside]
    credited = 0.0
    for epoch in _in_order(epochs):
        part = computed[epochs == epoch]
        credited += float(part.sum()) * max(len(part) - prefetch_batches, 0) / len(part)
    return max(whole, _share(credited, float(seconds.sum())))


def mean_sustained_ratio(ranks: Sequence[Rows], plan: TrainingPlan) -> float:
    """Return the mean over ranks of what was surely kept up."""
    exclusion = exclusion_of(plan)
    return _mean([sustained_ratio(rows, exclusion, prefetch_batches=plan.prefetch_batches) for rows in ranks])


def _first_wait(rows: Rows) -> float:
    return float(wait_seconds(rows[:1]).sum())


def _counted_epochs(epochs: Sequence[Epoch]) -> list[Epoch]:
    """Return the training epochs that DLIO would have seen through; the ones cut short when there is no other."""
    training = [epoch for epoch in epochs if epoch.phase == PHASES[TRAIN]]
    return [epoch for epoch in training if epoch.complete] or training


def limiting_stage(stall_seconds: dict[str, float]) -> tuple[str, float]:
    """Return the stage with the most stall time and its share of all; empty and 0.0 when nothing stalled."""
    total = sum(stall_seconds.values())
    if total <= 0:
        return "", 0.0
    stage = max(stall_seconds, key=lambda name: stall_seconds[name])
    return stage, stall_seconds[stage] / total
