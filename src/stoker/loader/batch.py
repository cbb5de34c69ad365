"""A batch: what the consumer gets, and how it is put together from decoded blocks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.formats.api import Array, Block
from stoker.loader.lending import Lender
from stoker.loader.order import Int64s

_APART_MAX: Final = 64
"""A part of more rows is taken apart when somebody asks for the samples: then that is most of what a row costs."""


class Columns(Protocol):
    """Decoded samples, one after the other, with every column they have."""

    @property
    def names(self) -> Sequence[str]: ...

    def rows(self, name: str) -> Array | Sequence[Array]: ...

    def row_bytes(self, wanted: Sequence[int] | Int64s) -> int: ...


class Part(msgspec.Struct, gc=False):
    """Some decoded samples of a batch: `rows[wanted[i]]` goes to place `places[i]`; other columns are in `columns`."""

    rows: Array | Sequence[Array]
    places: range | list[int]
    wanted: Sequence[int] | Int64s
    columns: Columns
    payload_bytes: int

    @property
    def is_costly(self) -> bool:
        """Tell whether taking the samples apart is work that should wait until somebody wants them."""
        return len(self.wanted) > _APART_MAX and isinstance(self.rows, np.ndarray)


class BlockColumns:
    """The columns of a decoded block."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the columns."""
        return tuple(self._block.columns)

    def rows(self, name: str) -> Array | Sequence[Array]:
        """Return a column's values of all samples of the block."""
        return self._block.columns[name]

    def row_bytes(self, wanted: Sequence[int] | Int64s) -> int:
        """Return the bytes of all columns of some samples."""
        if self._block.row_bytes is not None:
            return self._block.row_bytes * len(wanted)
        return sum(picked_bytes(values, wanted) for values in self._block.columns.values())


PartRows = tuple[Part, Array | Sequence[Array]]
"""A part with all values of one of its columns."""

Form = tuple[tuple[int, ...], np.dtype[Any]]
"""A sample's shape and dtype."""


def picked(values: Array | Sequence[Array], wanted: Sequence[int] | Int64s) -> list[Array]:
    """Return the wanted ones of some samples; neighbours are taken as a slice, which costs a tenth."""
    if len(wanted) == 1:
        return [values[int(wanted[0])]]
    run = run_of(wanted)
    if run is not None:
        if isinstance(values, list) and len(run) == len(values):
            return values
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
    payload_bytes   bytes of the samples; requested_bytes: what was asked of the store for it
    request_ns, ready_ns    monotonic: when it was asked for, and when it was handed over
    """

    __slots__ = (
        "_parts",
        "_samples",
        "epoch",
        "payload_bytes",
        "ready_ns",
        "request_ns",
        "requested_bytes",
        "sample_ids",
        "step",
    )

    def __init__(self, epoch: int, step: int, sample_ids: Int64s) -> None:
        self.epoch = epoch
        self.step = step
        self.sample_ids = sample_ids
        self.payload_bytes = 0
        self.requested_bytes = 0
        self.request_ns = 0
        self.ready_ns = 0
        self._parts: list[Part] = []
        self._samples: list[Array] | Array | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def samples(self) -> list[Array] | Array:
        """Return a list of arrays that look into what was read; with collate `stack` one array, sample axis first.

        Where files hold many rows that are read together, the list is made when it is first asked for.
        """
        if self._samples is None:
            self._samples = _apart(((part, part.rows) for part in self._parts), len(self))
        return self._samples

    def column(self, name: str) -> list[Array]:
        """Return another column's value for each sample, such as the label; only with collate `views`.

        Raises UsageError for a column the files do not have.
        """
        return _apart(self._rows(name), len(self))

    def array(self, name: str) -> Array:
        """Return a column's values as one new array, sample axis first: for many short rows that is far less work.

        Only with collate `views`. Raises UsageError for a column the files do not have, or whose rows differ in form.
        """
        rows = self._rows(name)
        return _stacked(rows, len(self), np.empty)

    def _rows(self, name: str) -> list[PartRows]:
        """Return each part with all its values of a column. Raises UsageError for a column the files do not have."""
        for part in self._parts:
            if name not in part.columns.names:
                raise UsageError("no such column", where=name, expected=" or ".join(part.columns.names))
        if not self._parts:
            raise UsageError("a stacked batch holds the samples alone", where=name, remedy="use collate=views")
        return [(part, part.columns.rows(name)) for part in self._parts]


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
        parts, slot.parts = slot.parts, []
        batch.payload_bytes += sum(part.payload_bytes for part in parts)
        if self._stack:
            stacked = _stacked([(part, part.rows) for part in parts], len(batch), self._lender.lend_array)
            batch._samples = stacked
            return stacked.nbytes
        if self._every_column:
            batch.payload_bytes = sum(part.columns.row_bytes(part.wanted) for part in parts)
        if not any(part.is_costly for part in parts):
            batch._samples = _apart(((part, part.rows) for part in parts), len(batch))
        batch._parts = parts
        return 0


def _apart(rows: Iterable[PartRows], count: int) -> list[Array]:
    """Return the values of all parts, each in its place of a batch of `count` samples."""
    values: list[Any] = [None] * count
    for part, own in rows:
        put(values, part.places, picked(own, part.wanted))
    return values


def _stacked(rows: Sequence[PartRows], count: int, make: Callable[[tuple[int, ...], np.dtype[Any]], Array]) -> Array:
    """Return the values of all parts in one array that `make` makes. Raises UsageError when they differ in form."""
    shape, dtype = _common_form(rows)
    stacked = make((count, *shape), dtype)
    for part, own in rows:
        if isinstance(own, np.ndarray):
            _copy_rows(own, part, stacked)
            continue
        for place, sample in zip(part.places, picked(own, part.wanted), strict=True):
            stacked[place] = sample
    return stacked


def _copy_rows(rows: Array, part: Part, into: Array) -> None:
    """Copy the wanted rows of an array to their places, in one call for all."""
    run = run_of(part.wanted)
    if not isinstance(part.places, range):
        into[part.places] = rows[np.asarray(part.wanted)]
        return
    target = into[part.places.start : part.places.stop]
    if run is not None:
        target[...] = rows[run.start : run.stop]
        return
    # Every number is known to be right; `raise`, the usual mode, would write to a copy of the target.
    np.take(rows, np.asarray(part.wanted), axis=0, out=target, mode="clip")


def _common_form(rows: Sequence[PartRows]) -> Form:
    """Return the shape and dtype that all samples have. Raises UsageError naming the first that differs."""
    first: tuple[int, Form] | None = None
    others: dict[Form, int] = {}
    for part, own in rows:
        for place, form in _forms(part, own):
            if first is None or place < first[0]:
                first = (place, form)
            others[form] = min(place, others.get(form, place))
    assert first is not None
    del others[first[1]]
    if others:
        form = min(others, key=lambda form: others[form])
        raise UsageError(
            "samples of one batch cannot be stacked",
            where=f"sample {others[form]} of the batch",
            expected=f"{first[1][0]} {first[1][1]}",
            got=f"{form[0]} {form[1]}",
            remedy="use collate=views, which keeps a list",
        )
    return first[1]


def _forms(part: Part, rows: Array | Sequence[Array]) -> Iterator[tuple[int, Form]]:
    """Yield places of a batch with the form of the sample there; the first is enough where all of a part are alike."""
    if isinstance(rows, np.ndarray):
        yield part.places[0], (rows.shape[1:], rows.dtype)
        return
    for place, sample in zip(part.places, picked(rows, part.wanted), strict=True):
        yield place, (sample.shape, sample.dtype)


def put(into: list[Any], places: range | list[int], values: list[Array]) -> None:
    """Put each value in its place."""
    if isinstance(places, range):
        into[places.start : places.stop] = values
        return
    for place, value in zip(places, values, strict=True):
        into[place] = value
