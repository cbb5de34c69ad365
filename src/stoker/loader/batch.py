"""A batch: what the consumer gets, and how it is put together from decoded blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.formats.api import Array, Block
from stoker.loader.lending import Lender
from stoker.loader.order import Int64s

Part = tuple[Block, Sequence[int] | Int64s, Sequence[int] | Int64s]
"""A block, which of its samples are wanted, and where in the batch each goes."""


class Batch:
    """One step's samples, in order. Yours as long as you keep it: its buffers are not used again before.

    step, epoch     `step` counts from 0 through the epoch, on across a resumption
    sample_ids      numbers of the samples in the dataset, int64, shape (batch_size,)
    samples         a list of arrays that look into the read buffers, or one array with the sample axis first
    payload_bytes   bytes of the samples; requested_bytes: what was asked of the store for it
    request_ns, ready_ns    monotonic: when it was asked for, and when it was handed over
    """

    __slots__ = (
        "_parts",
        "epoch",
        "payload_bytes",
        "ready_ns",
        "request_ns",
        "requested_bytes",
        "sample_ids",
        "samples",
        "step",
    )

    def __init__(self, epoch: int, step: int, sample_ids: Int64s) -> None:
        self.epoch = epoch
        self.step = step
        self.sample_ids = sample_ids
        self.samples: list[Array] | Array = []
        self.payload_bytes = 0
        self.requested_bytes = 0
        self.request_ns = 0
        self.ready_ns = 0
        self._parts: list[Part] = []

    def __len__(self) -> int:
        return len(self.sample_ids)

    def column(self, name: str) -> list[Array]:
        """Return another column's value for each sample, such as the label; only with collate `views`.

        Raises UsageError for a column the files do not have.
        """
        values: list[Any] = [None] * len(self)
        for block, wanted, places in self._parts:
            if name not in block.columns:
                raise UsageError("no such column", where=name, expected=" or ".join(block.columns))
            for sample, place in zip(wanted, places, strict=True):
                values[place] = block.columns[name][sample]
        if not self._parts:
            raise UsageError("a stacked batch holds the samples alone", where=name, remedy="use collate=views")
        return values


class Slot:
    """A batch in the making. Parts come in any order and from any thread; the last one completes it.

    `released_bytes` and `released_tasks` leave the flight when the batch is handed over.
    """

    __slots__ = ("batch", "held_seconds", "missing", "parts", "ready", "released_bytes", "released_tasks")

    def __init__(self, epoch: int, step: int, sample_ids: Int64s) -> None:
        self.batch = Batch(epoch, step, sample_ids)
        self.missing = len(sample_ids)
        self.parts: list[Part] = []
        self.ready = False
        self.held_seconds: NDArray[np.float64] | None = None
        self.released_bytes = 0
        self.released_tasks = 0


class Assembler:
    """Turns the parts of a slot into its batch. `every_column` counts all columns as payload, not the primary alone."""

    def __init__(self, lender: Lender, *, stack: bool, every_column: bool) -> None:
        self._lender = lender
        self._stack = stack
        self._every_column = every_column

    def finish(self, slot: Slot) -> int:
        """Fill in the batch and return the bytes copied for that. Raises UsageError for ragged samples to stack."""
        batch = slot.batch
        samples = _in_order(slot)
        batch.payload_bytes = sum(sample.nbytes for sample in samples)
        parts, slot.parts = slot.parts, []
        if self._stack:
            stacked = self._stacked(samples)
            batch.samples = stacked
            return stacked.nbytes
        if self._every_column:
            batch.payload_bytes = sum(_row_bytes(part) for part in parts)
        batch.samples = samples
        batch._parts = parts
        return 0

    def _stacked(self, samples: list[Array]) -> Array:
        first = samples[0]
        for number, sample in enumerate(samples):
            if sample.shape != first.shape or sample.dtype != first.dtype:
                raise UsageError(
                    "samples of one batch cannot be stacked",
                    where=f"sample {number} of the batch",
                    expected=f"{first.shape} {first.dtype}",
                    got=f"{sample.shape} {sample.dtype}",
                    remedy="use collate=views, which keeps a list",
                )
        stacked = self._lender.lend_array((len(samples), *first.shape), first.dtype)
        for place, sample in enumerate(samples):
            stacked[place] = sample
        return stacked


def _in_order(slot: Slot) -> list[Array]:
    samples: list[Any] = [None] * len(slot.batch)
    for block, wanted, places in slot.parts:
        primary = block.columns[block.primary]
        if len(wanted) == 1:
            samples[places[0]] = primary[wanted[0]]
            continue
        for sample, place in zip(wanted, places, strict=True):
            samples[place] = primary[sample]
    return samples


def _row_bytes(part: Part) -> int:
    block, wanted, _ = part
    total = 0
    for values in block.columns.values():
        if isinstance(values, np.ndarray):
            total += values.nbytes // max(len(values), 1) * len(wanted)
        else:
            total += sum(values[sample].nbytes for sample in wanted)
    return total
