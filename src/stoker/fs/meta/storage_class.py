"""Storage classes as values: how many shards a slice has, and how far apart they lie.

A class is k+m: of k data shards and m parity shards any k give the bytes back. Copies are the case k = 1. Slices of
few bytes, for which a code costs more accesses than it saves bytes, are copied instead. What shards a slice has is a
pure function of its class and its size, so nothing of it is stored with a file.
"""

import re
from typing import Final, Literal

import msgspec

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import KiB, MiB

DOMAINS: Final = ("disk", "host", "rack", "zone", "region")
"""What two shards of a slice must not share, from the smallest to the largest."""
Domain = Literal["disk", "host", "rack", "zone", "region"]
Acknowledge = Literal["all", "k+2", "k+1"]
"""How many shards must be stored before a write is acknowledged; never more than there are."""

COPIES_MAX: Final = 9
DATA_SHARDS_MAX: Final = 16
PARITY_SHARDS_MAX: Final = 4
CELL_BYTES: Final = 256 * KiB
SMALL_BYTES: Final = 32 * KiB
DEFAULT_CLASS: Final = 0
_CELL_BYTES_MIN: Final = 4 * KiB
_CELL_BYTES_MAX: Final = 1 * MiB
_SMALL_BYTES_MAX: Final = 1 * MiB
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_SPARE: Final = {"k+2": 2, "k+1": 1}


class Shape(msgspec.Struct, frozen=True):
    """The shards of one slice: k and m, and how many must be stored before a write is acknowledged."""

    k: int
    m: int
    needed: int

    @property
    def width(self) -> int:
        """How many shards there are."""
        return self.k + self.m


class StorageClass(msgspec.Struct, frozen=True):
    """A class: k+m shards of cells of `cell_bytes`, no two in one `domain`; copies are k = 1.

    Slices of up to `small_bytes` are stored in `small_copies` copies instead.
    """

    id: int
    name: str
    k: int = 1
    m: int = 0
    cell_bytes: int = CELL_BYTES
    domain: Domain = "host"
    small_bytes: int = 0
    small_copies: int = 0
    acknowledge: Acknowledge = "k+2"

    def shape(self, slice_bytes: int) -> Shape:
        """Return the shards of a slice of so many bytes."""
        k, m = (1, self.small_copies - 1) if slice_bytes <= self.small_bytes else (self.k, self.m)
        return Shape(k, m, min(k + m, k + _SPARE.get(self.acknowledge, m)))

    @property
    def text(self) -> str:
        """The code as people write it: `8+4`, or `2` for two copies."""
        return f"{self.k}+{self.m}" if self.k > 1 else str(1 + self.m)


def coded(name: str, k: int, m: int, *, domain: Domain = "host", cell_bytes: int = CELL_BYTES) -> StorageClass:
    """Return a class of k+m with what is usual: small slices in copies that survive as many losses as the code."""
    small = (SMALL_BYTES, m + 1) if k > 1 else (0, 0)
    return StorageClass(0, name, k, m, cell_bytes, domain, *small)


def check_class(made: StorageClass) -> None:
    """Raise UsageError for a class that cannot be."""
    wrong = _wrong_in(made)
    if wrong:
        raise UsageError("no such storage class", where=made.name[:64], got=wrong)


def _wrong_in(made: StorageClass) -> str:
    if not _NAME.fullmatch(made.name):
        return "a name other than up to 63 letters, digits and . _ + -"
    copies = made.k == 1 and 0 <= made.m < COPIES_MAX
    if not copies and not (4 <= made.k <= DATA_SHARDS_MAX and 2 <= made.m <= PARITY_SHARDS_MAX):
        return f"{made.text}, where 1 to {COPIES_MAX} copies or 4+2 to {DATA_SHARDS_MAX}+{PARITY_SHARDS_MAX} can be"
    if not _CELL_BYTES_MIN <= made.cell_bytes <= _CELL_BYTES_MAX or made.cell_bytes % _CELL_BYTES_MIN:
        return f"cells of {made.cell_bytes} bytes, where 4 KiB to 1 MiB in steps of 4 KiB can be"
    if not 0 <= made.small_bytes <= _SMALL_BYTES_MAX:
        return f"small slices of up to {made.small_bytes} bytes, where up to 1 MiB can be"
    if bool(made.small_bytes) != bool(made.small_copies) or not 0 <= made.small_copies <= COPIES_MAX:
        return f"{made.small_copies} copies of slices of up to {made.small_bytes} bytes"
    return ""


def parse_code(text: str) -> tuple[int, int]:
    """Return k and m of `8+4`, or of `2`, which is two copies. Raises UsageError for what is neither."""
    found = re.fullmatch(r"(\d{1,2})(?:\+(\d{1,2}))?", text)
    if found is None or found[1] == "0":
        raise UsageError("code is not readable", where=text, expected="such as 8+4, or 2 for two copies")
    return (int(found[1]), int(found[2])) if found[2] is not None else (1, int(found[1]) - 1)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(StorageClass)


def pack_class(made: StorageClass) -> bytes:
    """Return a class as bytes."""
    return _encoder.encode(made)


def unpack_class(data: bytes) -> StorageClass:
    """Return a class from bytes. Raises CorruptError for bytes that are none."""
    try:
        made: StorageClass = _decoder.decode(data)
        check_class(made)
    except (msgspec.DecodeError, UsageError) as error:
        raise CorruptError("a storage class is not readable", got=str(error)) from error
    return made
