"""Shards and who holds them: the values that a disk, a chunk server and their callers share.

A shard is what one disk holds of a slice: of a slice of class k+m there are k+m shards, of one that is copied each
copy is a shard with k = 1. A shard is written once and never changes. Its bytes lie in cells of one size (the last may
be shorter), and the header, which lies on the disk with them, holds the CRC-32C of each: whoever reads a range
verifies the cells that cover it, on the disk and once more at the other end of a network.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from stoker.core.errors import StokerError, TransientError, UnavailableError, UsageError
from stoker.core.units import KiB, MiB

Bytes = bytes | bytearray | memoryview

FORMAT: Final = 1
CELL_BYTES_MIN: Final = 4 * KiB
CELL_BYTES: Final = 1 * MiB
"""The usual size of a cell; classes of small shards take smaller ones."""
SHARD_BYTES_MAX: Final = 64 * MiB
CODE_SHARDS_MAX: Final = 255
_NUMBER_MAX: Final = 2**64 - 1
_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ShardId(msgspec.Struct, frozen=True, order=True):
    """Names a shard within a volume: which slice, which writing of it, and which of its shards."""

    slice_id: int
    generation: int
    index: int

    def __str__(self) -> str:
        """Return the name as errors and logs tell it."""
        return f"{self.slice_id}.{self.generation}.{self.index}"


class ShardHeader(msgspec.Struct, frozen=True):
    """What is known of a shard besides its bytes; `crcs` holds 4 bytes for each cell, the highest first.

    `slice_bytes` is the size of the whole slice, `shard_bytes` that of this shard: zeros that only fill up a code's
    stripe are not stored.
    """

    volume: str
    shard: ShardId
    storage_class: int
    k: int
    m: int
    cell_bytes: int
    slice_bytes: int
    shard_bytes: int
    crcs: bytes

    @property
    def cells(self) -> int:
        """Return how many cells the shard has."""
        return -(-self.shard_bytes // self.cell_bytes)

    def crc(self, cell: int) -> int:
        """Return the CRC-32C of a cell."""
        return int.from_bytes(self.crcs[4 * cell : 4 * cell + 4], "big")


class ShardPage(msgspec.Struct, frozen=True):
    """A part of what lies on a disk, in the order of the ids.

    The headers come without their `crcs`. `bad` names those of them that were found damaged. With `more` there are
    others behind the last one. Only where `complete` is true on every page does absence prove anything: otherwise
    something on the disk could not be read.
    """

    headers: list[ShardHeader]
    bad: list[ShardId]
    more: bool
    complete: bool


class ScrubStatus(msgspec.Struct, frozen=True):
    """How far the reading of everything has come; `passes` counts those finished, ages are in seconds."""

    passes: int = 0
    done_ratio: float = 0.0
    checked_bytes: int = 0
    oldest_unscrubbed_seconds: float = 0.0


class HolderStatus(msgspec.Struct, frozen=True):
    """How a holder of shards fares; `read_only` says why nothing can be written, and is empty when it can."""

    volume: str
    disk: str
    format: int
    capacity_bytes: int
    free_bytes: int
    used_bytes: int
    shards: int
    bad_shards: int
    errors: int
    complete: bool
    read_only: str
    scrub: ScrubStatus


class Wanted(NamedTuple):
    """Ranges (offset, length) of a shard that are asked for together with those of others.

    With `checked` its header is wanted, too. `room_bytes` is the size of the cells that cover the ranges, as far as
    whoever asks knows it; 0 where they do not.
    """

    shard: ShardId
    ranges: Sequence[tuple[int, int]]
    checked: bool = False
    room_bytes: int = 0


class Found(NamedTuple):
    """The bytes of each range of a shard; and its header without checksums, if it was wanted or came by itself."""

    parts: list[Bytes]
    header: ShardHeader | None


Outcome = Found | StokerError
"""What came of one shard of many: an error of one is no error of the others."""


class ShardHolder(Protocol):
    """Holds shards: a disk in this process, or one behind a network. Every method is safe from many threads."""

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        """Store a shard, whose bytes are the parts one behind the other; whole or not at all.

        With `durable` it survives a power failure when this returns. The same shard may be put again (a retry).
        Raises CorruptError for bytes that the header's checksums do not fit, AlreadyExistsError where other bytes
        are stored under the same id, UsageError for another volume's, NoSpaceError, StoreError.
        """

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """Return the bytes of each range (offset, length), verified by the checksums of the cells that cover it.

        Raises NotFoundError, CorruptError naming the shard, the cell and the disk, UsageError for a range that
        leaves the shard, StoreError.
        """

    def get_many(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Return what `get` gives of each of many shards, or its error.

        What concerns the holder as a whole is raised: UnavailableError, TransientError.
        """
        return get_each(self, wanted)

    def header(self, shard: ShardId) -> ShardHeader:
        """Return the header of a shard. Raises NotFoundError, CorruptError."""

    def sync(self, shards: Sequence[ShardId]) -> None:
        """Return when these shards survive a power failure. Raises NotFoundError, StoreError."""

    def remove(self, shards: Sequence[ShardId]) -> None:
        """Remove shards for good; those that are not there are removed already."""

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        """Return up to `limit` shards behind `after`, from the first one on when it is None."""

    def status(self) -> HolderStatus:
        """Return how the holder fares."""


def get_each(holder: ShardHolder, wanted: Sequence[Wanted]) -> list[Outcome]:
    """Return what `get_many` does, one after the other: for a holder that is not far away."""
    return [_outcome(holder, one) for one in wanted]


def _outcome(holder: ShardHolder, wanted: Wanted) -> Outcome:
    try:
        header = holder.header(wanted.shard) if wanted.checked else None
        return Found(holder.get(wanted.shard, wanted.ranges), header)
    except (UnavailableError, TransientError):
        raise
    except StokerError as error:
        return error


def check_header(header: ShardHeader, *, bare: bool = False) -> None:
    """Raise UsageError unless the numbers of a header can be those of a shard; a bare one has no checksums."""
    wrong = _wrong_in(header, bare)
    if wrong:
        raise UsageError("no header of a shard", where=str(header.shard), got=wrong)


def _wrong_in(header: ShardHeader, bare: bool) -> str:
    shard = header.shard
    if not _UUID.fullmatch(header.volume):
        return f"volume {header.volume[:64]!r}"
    if not 0 <= shard.slice_id <= _NUMBER_MAX or not 0 <= shard.generation <= _NUMBER_MAX:
        return "an id outside of 64 bits"
    if not 1 <= header.k <= header.k + header.m <= CODE_SHARDS_MAX or header.m < 0:
        return f"a code of {header.k}+{header.m}"
    if not 0 <= shard.index < CODE_SHARDS_MAX or not 0 <= header.storage_class < 2**16:
        return f"index {shard.index} of storage class {header.storage_class}"
    if not CELL_BYTES_MIN <= header.cell_bytes <= SHARD_BYTES_MAX or header.cell_bytes % CELL_BYTES_MIN:
        return f"cells of {header.cell_bytes} bytes"
    if not 0 <= header.shard_bytes <= SHARD_BYTES_MAX or not 0 <= header.slice_bytes <= SHARD_BYTES_MAX:
        return f"{header.shard_bytes} bytes of a slice of {header.slice_bytes}"
    if not bare and len(header.crcs) != 4 * header.cells:
        return f"{len(header.crcs)} bytes of checksums for {header.cells} cells"
    return ""
