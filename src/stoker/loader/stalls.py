"""Why the consumer waited: each stalled `next()` split over the stages that were at work meanwhile. Pure.

At every instant of the wait the time goes in equal parts to the stages being worked on for the batch that is waited
for; when none is, to those worked on for later batches, which hold the workers; when nobody works at all, to `queue`.
So the parts add up to the wait.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.loader.order import Int64s

STAGES: Final = ("open", "read", "verify", "decode", "transform", "batch")
QUEUE: Final = "queue"
OPEN, READ, VERIFY, DECODE, TRANSFORM, BATCH = range(len(STAGES))
COLUMNS: Final = 4
"""A span is (stage, step, start_ns, end_ns): a piece of work done for a step's batch."""

_FEW_SPANS: Final = 48


class Stall(msgspec.Struct, frozen=True):
    """One wait for the batch of `step`. `unfinished` are the spans still under way when it ended, cut there."""

    step: int
    request_ns: int
    ready_ns: int
    unfinished: tuple[tuple[int, int, int, int], ...] = ()


def split_stall(stall: Stall, spans: Int64s) -> NDArray[np.float64]:
    """Return the nanoseconds of the stall for each of `STAGES`, and last for the queue.

    `spans` has shape (n, 4); spans that ended after the stall are left out, they stand in `unfinished`.
    """
    parts = np.zeros(len(STAGES) + 1)
    if stall.ready_ns <= stall.request_ns:
        return parts
    if stall.unfinished:
        late = np.array(stall.unfinished, dtype=np.int64)
        spans = np.concatenate((spans[spans[:, 3] <= stall.ready_ns], late))
    parts[:-1] = swept(stall, spans) if len(spans) <= _FEW_SPANS else counted(stall, spans)
    parts[-1] = max(stall.ready_ns - stall.request_ns - parts.sum(), 0.0)
    return parts


def swept(stall: Stall, spans: Int64s) -> list[float]:
    """Return the stages' parts, going from edge to edge: the plain form, and the faster one for a few spans."""
    edges: list[tuple[int, int, int, int]] = []
    for stage, step, begun_ns, done_ns in spans.tolist():
        start_ns, end_ns = max(begun_ns, stall.request_ns), min(done_ns, stall.ready_ns)
        if start_ns < end_ns:
            later = int(step > stall.step)
            edges += [(start_ns, later, stage, 1), (end_ns, later, stage, -1)]
    parts = [0.0] * len(STAGES)
    at_work = ([0] * len(STAGES), [0] * len(STAGES))
    before_ns = stall.request_ns
    for edge_ns, later, stage, change in sorted(edges):
        counts = at_work[0] if any(at_work[0]) else at_work[1]
        workers = sum(counts)
        if workers and edge_ns > before_ns:
            for number, count in enumerate(counts):
                parts[number] += (edge_ns - before_ns) * count / workers
        before_ns = edge_ns
        at_work[later][stage] += change
    return parts


def counted(stall: Stall, spans: Int64s) -> NDArray[np.float64]:
    """Return the stages' parts, for all stretches between edges at once: faster for many spans."""
    spans = spans[(spans[:, 3] > stall.request_ns) & (spans[:, 2] < stall.ready_ns)]
    starts = np.clip(spans[:, 2], stall.request_ns, stall.ready_ns)
    ends = np.clip(spans[:, 3], stall.request_ns, stall.ready_ns)
    edges = np.unique(np.concatenate((starts, ends, (stall.request_ns, stall.ready_ns))))
    urgent = spans[:, 1] <= stall.step
    at_work = _counts(edges, starts[urgent], ends[urgent], spans[urgent, 0])
    idle = at_work.sum(axis=1) == 0
    at_work[idle] = _counts(edges, starts[~urgent], ends[~urgent], spans[~urgent, 0])[idle]
    workers = at_work.sum(axis=1)
    busy = workers > 0
    parts: NDArray[np.float64] = ((np.diff(edges)[busy] / workers[busy])[:, np.newaxis] * at_work[busy]).sum(axis=0)
    return parts


def _counts(edges: Int64s, starts: Int64s, ends: Int64s, stages: Int64s) -> NDArray[np.float64]:
    """Return how many spans of each stage cover each stretch between two edges. Shape (edges - 1, stages)."""
    change = np.zeros((len(edges), len(STAGES)))
    np.add.at(change, (np.searchsorted(edges, starts), stages), 1)
    np.add.at(change, (np.searchsorted(edges, ends), stages), -1)
    return np.cumsum(change, axis=0)[:-1]
