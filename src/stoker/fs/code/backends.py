"""Who multiplies: ISA-L of the system, the ISA-L that PyECLib's wheel brings, or NumPy. All give the same bytes.

A backend computes target[i] = sum over j of rows[i][j] * source[j] for buffers of one length. ISA-L is called through
ctypes, which drops the GIL for the length of the call. The environment variable STOKER_CODING (`auto`, `isal`,
`pyeclib`, `numpy`) chooses; `auto` takes the first that loads.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UnavailableError, UsageError
from stoker.fs.code.field import Rows, row_of_products

CHOICE_VARIABLE: Final = "STOKER_CODING"
REMEDY: Final = "apt install libisal2, or pip install 'stoker[coding]'"
_TABLE_BYTES: Final = 32
_SHORT_BYTES: Final = 64
_PLAIN_BLOCK_BYTES: Final = 256 << 10
Memory = NDArray[np.uint8]


class Backend(Protocol):
    """Multiplies buffers by a matrix."""

    name: str

    def multiply(self, rows: Rows, sources: Sequence[Memory], targets: Sequence[Memory]) -> None:
        """Set every target to the sum of the sources, each times its coefficient of the target's row.

        All are of one length; no target shares memory with another buffer.
        """


class IsaL:
    """ISA-L, by its C functions `ec_init_tables` and `ec_encode_data`."""

    def __init__(self, name: str, library: ctypes.CDLL) -> None:
        self.name = name
        self._init: Any = library.ec_init_tables
        self._init.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
        self._init.restype = None
        self._encode: Any = library.ec_encode_data
        self._encode.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, *[ctypes.c_void_p] * 2]
        self._encode.restype = None
        # The tables of a matrix are kept: there are few, and making them costs as much as 50 KiB of data.
        self._tables = cache(self._made_tables)

    def _made_tables(self, rows: Rows) -> Any:
        width = len(rows[0])
        tables = ctypes.create_string_buffer(_TABLE_BYTES * width * len(rows))
        self._init(width, len(rows), b"".join(rows), tables)
        return tables

    def multiply(self, rows: Rows, sources: Sequence[Memory], targets: Sequence[Memory]) -> None:
        """Set every target to the sum of the sources, each times its coefficient of the target's row."""
        length = len(sources[0])
        if length < _SHORT_BYTES:
            # The vector functions of some releases want whole vectors.
            Plain().multiply(rows, sources, targets)
            return
        self._encode(
            length, len(sources), len(rows), self._tables(rows), _pointers(sources), _pointers(targets)
        )  # fmt: skip


def _pointers(buffers: Sequence[Memory]) -> Any:
    return (ctypes.c_void_p * len(buffers))(*[buffer.__array_interface__["data"][0] for buffer in buffers])


class Plain:
    """NumPy and the interpreter's own translation of bytes by a table: no library is needed."""

    name = "numpy"

    def multiply(self, rows: Rows, sources: Sequence[Memory], targets: Sequence[Memory]) -> None:
        """Set every target to the sum of the sources, each times its coefficient of the target's row."""
        for start in range(0, len(sources[0]), _PLAIN_BLOCK_BYTES):
            here = slice(start, start + _PLAIN_BLOCK_BYTES)
            blocks = [source[here].tobytes() for source in sources]
            for row, target in zip(rows, targets, strict=True):
                target[here] = 0
                for coefficient, block in zip(row, blocks, strict=True):
                    if coefficient:
                        data = block.translate(row_of_products(coefficient)) if coefficient > 1 else block
                        target[here] ^= np.frombuffer(data, np.uint8)


def _system() -> IsaL:
    return IsaL("isal", ctypes.CDLL("libisal.so.2"))


def _of_pyeclib() -> IsaL:
    spec = find_spec("pyeclib")
    if spec is None or spec.origin is None:
        raise OSError("PyECLib is not installed")
    folder = Path(spec.origin).parent.parent / "pyeclib.libs"
    found = sorted(folder.glob("libisal*.so*"))
    if not found:
        raise OSError("PyECLib was installed without a library of its own")
    return IsaL("pyeclib", ctypes.CDLL(str(found[0])))


_MAKERS: Final[dict[str, Callable[[], Backend]]] = {"isal": _system, "pyeclib": _of_pyeclib, "numpy": Plain}


@cache
def backend(name: str = "") -> Backend:
    """Return the backend of a name, without one the chosen or the first that loads.

    Raises UsageError for an unknown name, UnavailableError for one that does not load here.
    """
    wanted = name or os.environ.get(CHOICE_VARIABLE, "auto")
    if wanted == "auto":
        return available_backends()[0]
    if wanted not in _MAKERS:
        expected = " or ".join(["auto", *_MAKERS])
        raise UsageError("no such backend of erasure coding", where=CHOICE_VARIABLE, expected=expected, got=wanted)
    try:
        return _MAKERS[wanted]()
    except (OSError, AttributeError) as error:
        raise UnavailableError("backend does not load", where=wanted, got=str(error), remedy=REMEDY) from error


@cache
def available_backends() -> tuple[Backend, ...]:
    """Return what loads here, the fastest first; NumPy always does."""
    found = []
    for name in _MAKERS:
        try:
            found.append(backend(name))
        except UnavailableError:
            continue
    return tuple(found)
