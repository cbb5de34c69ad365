"""A batch: what the consumer gets, and how it is put together from decoded blocks."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.formats.api import Array, Block
from stoker.loader.lending import Lender
from stoker.loader.order import Int64s


class Columns(Protocol):
    """Decoded samples, one after the other, with every column they have."""

    @property
    def names(self) -> Sequence[str]: ...

    def values(self, name: str, wanted: Sequence[int] | Int64s) -> list[Array]: ...

    def row_bytes(self, wanted: Sequence[int] | Int64s) -> int: ...


class Part(msgspec.Struct, gc=False):
    """Some decoded samples of a batch: `samples[i]` goes to place `places[i]` and is row `wanted[i]` of `columns`."""

    samples: list[Array]
    places: range | list[int]
    wanted: Sequence[int] | Int64s
    columns: Columns
    payload_bytes: int


class BlockColumns:
    """The columns of a decoded block."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the columns."""
        return tuple(self._block.columns)

    def values(self, name: str, wanted: Sequence[int] | Int64s) -> list[Array]:
        """Return a column's values of some samples."""
        return picked(self._block.columns[name], wanted)

    def row_bytes(self, wanted: Sequence[int] | Int64s) -> int:
        """Return the bytes of all columns of some samples."""
        return sum(picked_bytes(values, wanted) for values in self._block.columns.values())


def picked(values: Array | Sequence[Array], wanted: Sequence[int] | Int64s) -> list[Array]:
    """Return the wanted ones of some samples; neighbours are taken as a slice, which costs a tenth."""
    if len(wanted) == 1:
        return [values[int(wanted[0])]]
    run = run_of(wanted)
    if run is not None:
        return list(values[run.start : run.stop])
    rows = list(values) if 2 * len(wanted) > len(values) else values  # taking all apart costs less than half of them
    return [rows[index] for index in (wanted.tolist() if isinstance(wanted, np.ndarray) else wanted)]


def picked_bytes(values: Array | Sequence[Array], wanted: Sequence[int] | Int64s) -> int:
    """Return the bytes of the wanted ones."""
    if isinstance(values, np.ndarray):
        return values.nbytes // max(len(values), 1) * len(wanted)
    return sum(sample.nbytes for sample in picked(values, wanted))


def run_of(numbers: Sequence[int] | Int64s) -> range | None:
    """Return ascending neighbours as a range, None for other numbers."""
    if isinstance(numbers, range):
        return numbers if numbers.step == 1 else None
    first, count = int(numbers[0]), len(numbers)
    if int(numbers[-1]) - first != count - 1:
        return None
    return range(first, first + count) if bool((np.diff(numbers) == 1).all()) else None


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
        for part in self._parts:
            if name not in part.columns.names:
                raise UsageError("no such column", where=name, expected=" or ".join(part.columns.names))
            put(values, part.places, part.columns.values(name, part.wanted))
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
        samples: list[Any] = [None] * len(batch)
        parts, slot.parts = slot.parts, []
        for part in parts:
            put(samples, part.places, part.samples)
            batch.payload_bytes += part.payload_bytes
        if self._stack:
            stacked = self._stacked(samples)
            batch.samples = stacked
            return stacked.nbytes
        if self._every_column:
            batch.payload_bytes = sum(part.columns.row_bytes(part.wanted) for part in parts)
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


def put(into: list[Any], places: range | list[int], values: list[Array]) -> None:
    """Put each value in its place."""
    if isinstance(places, range):
        into[places.start : places.stop] = values
        return
    for place, value in zip(places, values, strict=True):
        into[place] = value
