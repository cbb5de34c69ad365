"""How big each sample is: DLIO's rule, so that the same spec gives the same shapes there and here.

Without `record_dims` a sample is d x d elements, d = floor(sqrt(record_length_bytes)). With a standard deviation,
both sides of file i are draws 2i and 2i+1 of one sequence of normals N(d, stdev / 2 / sqrt(record_length_bytes))
from NumPy's legacy generator seeded with 10, cut to whole numbers of at least 1. The files of the training split
come first in the sequence; the validation split continues it (`files_before`).
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.plan import DatasetSpec
from stoker.formats.api import SampleSpec

DLIO_SEED: Final = 10
"""Fixed by DLIO: another seed gives other shapes, and datasets that cannot be compared."""

_CHUNK_FILES: Final = 1 << 16
_CHUNKS_KEPT: Final = 4


class SideTable:
    """The two sides of every file, by random access into a sequence that can only be drawn in order.

    The generator's state is kept every 65 536 files (2.5 KiB each), the last four pieces as numbers: a walk over
    50 million files holds 6 MiB. Safe from many threads.
    """

    def __init__(self, mean: int, deviation: float) -> None:
        self._mean = mean
        self._deviation = deviation
        # The legacy generator is what DLIO draws from; no other gives its numbers.
        self._states: list[Any] = [np.random.RandomState(DLIO_SEED).get_state()]
        self._chunks: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> tuple[int, int]:
        rows, columns = self._chunk(index // _CHUNK_FILES)[index % _CHUNK_FILES]
        return int(rows), int(columns)

    def chunks(self, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
        """Yield the sides of files `start` to `stop` - 1 in pieces of shape (n, 2)."""
        while start < stop:
            number, offset = divmod(start, _CHUNK_FILES)
            piece = self._chunk(number)[offset : offset + stop - start]
            yield piece
            start += len(piece)

    def _chunk(self, number: int) -> NDArray[np.int64]:
        with self._lock:
            if number not in self._chunks:
                for missing in range(min(number, len(self._states) - 1), number + 1):
                    self._chunks[missing] = self._draw(missing)
                    while len(self._chunks) > _CHUNKS_KEPT:
                        self._chunks.popitem(last=False)
            self._chunks.move_to_end(number)
            return self._chunks[number]

    def _draw(self, number: int) -> NDArray[np.int64]:
        generator = np.random.RandomState()
        generator.set_state(self._states[number])
        draws = generator.normal(self._mean, self._deviation, 2 * _CHUNK_FILES)
        if number + 1 == len(self._states):
            self._states.append(generator.get_state())
        return np.maximum(draws.astype(np.int64), 1).reshape(-1, 2)


def side_mean(spec: DatasetSpec) -> int:
    """Return d, the mean side of a sample, at least 1."""
    return max(1, math.floor(math.sqrt(spec.record_length_bytes)))


@lru_cache(maxsize=8)
def _table(mean: int, deviation: float) -> SideTable:
    return SideTable(mean, deviation)


def side_table(spec: DatasetSpec) -> SideTable | None:
    """Return the sides of all files, None when every file has the same shape."""
    if spec.record_dims or spec.record_length_stdev_bytes == 0:
        return None
    deviation = spec.record_length_stdev_bytes / 2 / math.sqrt(spec.record_length_bytes)
    return _table(side_mean(spec), deviation)


def sample_spec(spec: DatasetSpec, index: int, *, files_before: int = 0) -> SampleSpec:
    """Return what file `index` holds. `files_before` is the number of training files for the validation split."""
    table = side_table(spec)
    if table is not None:
        shape: tuple[int, ...] = table[files_before + index]
    else:
        shape = tuple(spec.record_dims) or (side_mean(spec),) * 2
    return SampleSpec(shape, spec.element_type, spec.samples_per_file, spec.options)


def payload_bytes(spec: DatasetSpec, indices: range, *, files_before: int = 0) -> int:
    """Return the payload bytes of the files `indices` (a positive step) together."""
    if not indices:
        return 0
    assert indices.step > 0
    table = side_table(spec)
    if table is None:
        return sample_spec(spec, indices[0]).payload_bytes * len(indices)
    elements = 0
    first = indices[0]
    position = 0
    for piece in table.chunks(files_before + first, files_before + indices[-1] + 1):
        picked = piece[-position % indices.step :: indices.step]
        elements += int((picked[:, 0] * picked[:, 1]).sum())
        position += len(piece)
    return elements * np.dtype(spec.element_type).itemsize * spec.samples_per_file
