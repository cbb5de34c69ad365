"""Which files are made already: small numbered objects, put as the work goes on, never changed.

Every store can put an object whole, few can append; so the journal is a folder of parts, `.stoker/<split>.parts/
<session>-<rank>-<number>`. The pause between parts grows with the time spent, so that there are a few hundred at
most and a kill loses the record (not the files) of at most one per cent of the time.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import monotonic_ns
from stoker.core.errors import CorruptError
from stoker.core.seed import run_id
from stoker.loader.dataset.columns import pack, unpack
from stoker.loader.dataset.marker import Marker
from stoker.loader.dataset.naming import parts_prefix
from stoker.storage.api import Store

_KIND: Final = "part"
_VERSION: Final = 1
_FILES_MAX: Final = 1 << 16
_PAUSE_SECONDS_MIN: Final = 1.0
_PAUSE_RATIO: Final = 0.01


class Made(msgspec.Struct, frozen=True):
    """One finished file. `adopted`: it was there already, and every byte was found to be right."""

    index: int
    size_bytes: int
    checksum: int
    adopted: bool = False
    retries: int = 0


class _Facts(msgspec.Struct, frozen=True):
    identity: str


class Part(msgspec.Struct, frozen=True):
    """The files of one part, as columns."""

    indices: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    checksums: NDArray[np.uint64]


class Journal:
    """Writes the parts of one rank."""

    def __init__(self, store: Store, marker: Marker, rank: int) -> None:
        self._store = store
        self._marker = marker
        self._head = f"{parts_prefix(marker.spec.split)}{run_id()}-{rank:05d}"
        self._made: list[Made] = []
        self._number = 0
        self._start_ns = self._last_ns = monotonic_ns()

    def add(self, made: Made) -> None:
        """Remember a finished file."""
        self._made.append(made)

    def tick(self) -> None:
        """Put a part when the last one is long enough ago."""
        now_ns = monotonic_ns()
        pause_seconds = max(_PAUSE_SECONDS_MIN, _PAUSE_RATIO * (now_ns - self._start_ns) / 1e9)
        if len(self._made) >= _FILES_MAX or (now_ns - self._last_ns) / 1e9 >= pause_seconds:
            self.flush()

    def flush(self) -> None:
        """Put what is not in a part yet; nothing is forgotten when that fails."""
        self._last_ns = monotonic_ns()
        if not self._made:
            return
        columns = {
            "index": np.array([made.index for made in self._made], np.int64),
            "size_bytes": np.array([made.size_bytes for made in self._made], np.int64),
            "checksum": np.array([made.checksum for made in self._made], np.uint64),
        }
        data = pack(_KIND, _VERSION, _Facts(self._marker.identity), columns, rows=len(self._made))
        self._store.put(f"{self._head}-{self._number:06d}", b"".join(data))
        self._number += 1
        self._made.clear()


def read_parts(store: Store, marker: Marker) -> Iterator[Part | str]:
    """Yield every part of the split begun with `marker`; for a damaged one, a sentence instead.

    A store that loses power before it wrote may leave a damaged part: its files are then held against their content
    again, so nothing is lost but time.
    """
    for info in store.list(parts_prefix(marker.spec.split)):
        where = f"{store.url} {info.key}"
        try:
            table = unpack(store.get_range(info.key), _KIND, _VERSION, where=where)
            facts = msgspec.json.decode(table.facts, type=_Facts)
            part = Part(table.columns["index"], table.columns["size_bytes"], table.columns["checksum"])
            if facts.identity == marker.identity and table.rows and _fits(part, marker.spec.files):
                yield part
        except (CorruptError, KeyError, msgspec.DecodeError) as error:
            yield f"{info.key} is damaged and was not used: {error}"


def _fits(part: Part, files: int) -> bool:
    """Tell whether every index names a file. Raises CorruptError when one does not."""
    if part.indices.min() < 0 or part.indices.max() >= files or part.sizes_bytes.min() < 0:
        raise CorruptError("part names a file that the split does not have")
    return True


def delete_parts(store: Store, split: str) -> None:
    """Remove every part of the split."""
    for key in [info.key for info in store.list(parts_prefix(split))]:
        store.delete(key)
