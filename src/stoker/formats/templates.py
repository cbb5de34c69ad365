"""Files recognised by comparing: what stands around the data of one file says where the data of its like lie.

A library that takes half a millisecond to find its way through a file always finds the same way when it reads the
same bytes. Once it has told where the columns of a file lie, files that are equal to it in length and in every byte
outside those columns need no library. That it does not look into the columns on its way is not assumed: it is asked
again with all their bytes inverted, and must give the same answer.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import CorruptError
from stoker.core.units import KiB
from stoker.formats.api import Array, RangeSource
from stoker.formats.ranges import MemorySource

Find = Callable[[RangeSource, memoryview], tuple[dict[str, Array], int]]
"""Gives the columns of a file, as views of the second argument, and the bytes copied; reads through the first."""

_AROUND_BYTES_MAX: Final = 16 * KiB
_TEMPLATES_MAX: Final = 4
"""For each length. A dataset has one; more are tried for in vain where files carry something of their own."""
_LENGTHS_MAX: Final = 256


class Place(msgspec.Struct, frozen=True):
    """Where a column lies: C-ordered, `offset_bytes` into the file."""

    name: str
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def end_bytes(self) -> int:
        """Return where the column ends."""
        size = int(self.dtype.itemsize)
        for side in self.shape:
            size *= side
        return self.offset_bytes + size


class Template(msgspec.Struct, frozen=True):
    """What all files of a kind have in common: pieces of bytes by their offsets, and where the columns lie."""

    pieces: tuple[tuple[int, bytes], ...]
    places: tuple[Place, ...]

    def fits(self, view: memoryview) -> bool:
        """Tell whether a file of the template's length is of its kind."""
        return all(bytes(view[at : at + len(piece)]) == piece for at, piece in self.pieces)

    def columns(self, view: memoryview) -> dict[str, Array]:
        """Return the columns of a file that fits."""
        columns = {}
        for place in self.places:
            flat = np.frombuffer(view[place.offset_bytes : place.end_bytes], place.dtype)
            columns[place.name] = flat.reshape(place.shape)
        return columns


class Templates:
    """The kinds of files seen so far, within a bound. Safe from many threads."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Template, ...]] = {}
        self._seen: dict[int, int] = {}
        self._lock = threading.Lock()

    def find(self, view: memoryview) -> Template | None:
        """Return the template that a file fits, None when there is none yet."""
        for template in self._known.get(len(view), ()):
            if template.fits(view):
                return template
        return None

    def offer(self, view: memoryview, columns: Mapping[str, Array], find: Find) -> None:
        """Make a template of a file whose columns were found, where that is possible and promises to be of use.

        The first file of a length is passed over: where lengths vary, templates are of no use.
        """
        size_bytes = len(view)
        with self._lock:
            tries = self._seen.get(size_bytes, 0)
            if tries > _TEMPLATES_MAX or (tries == 0 and len(self._seen) >= _LENGTHS_MAX):
                return
            self._seen[size_bytes] = tries + 1
        template = learn(view, columns, find) if tries else None
        if template is not None:
            with self._lock:
                self._known[size_bytes] = (*self._known.get(size_bytes, ()), template)


def learn(view: memoryview, columns: Mapping[str, Array], find: Find) -> Template | None:
    """Return the template of a file; None where the columns are no views of it, or what is around them decides less.

    `find` gave the columns and is asked once more.
    """
    places = _places(view, columns)
    pieces: list[tuple[int, bytes]] = []
    border = 0
    for place in sorted(places, key=lambda one: one.offset_bytes):
        if place.offset_bytes < border or place.offset_bytes - border > _AROUND_BYTES_MAX:
            return None
        pieces.append((border, bytes(view[border : place.offset_bytes])))
        border = place.end_bytes
    if not places or len(view) - border > _AROUND_BYTES_MAX:
        return None
    pieces.append((border, bytes(view[border:])))
    if sum(len(piece) for _, piece in pieces) > _AROUND_BYTES_MAX:
        return None
    try:
        again, _ = find(_Inverted(view, places), view)
    except CorruptError:
        return None
    return Template(tuple(piece for piece in pieces if piece[1]), places) if _places(view, again) == places else None


def _places(view: memoryview, columns: Mapping[str, Array]) -> tuple[Place, ...]:
    """Return where the columns lie in the file; () unless all of them do."""
    first = _address(np.frombuffer(view, np.uint8))
    places = []
    for name, array in columns.items():
        place = Place(name, _address(array) - first, array.shape, array.dtype)
        inside = 0 <= place.offset_bytes <= place.end_bytes <= len(view)
        if not inside or array.nbytes == 0 or not array.flags.c_contiguous:
            return ()
        places.append(place)
    return tuple(places)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


class _Inverted(MemorySource):
    """A file whose columns have every bit inverted."""

    def __init__(self, view: memoryview, places: tuple[Place, ...]) -> None:
        super().__init__(view)
        self._places = places

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range, changed where it touches a column."""
        data = np.frombuffer(bytearray(super().read(offset_bytes, length_bytes)), np.uint8)
        for place in self._places:
            first = max(place.offset_bytes - offset_bytes, 0)
            last = min(place.end_bytes - offset_bytes, length_bytes)
            if first < last:
                np.invert(data[first:last], out=data[first:last])
        return data.data
