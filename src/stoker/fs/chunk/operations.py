"""What can be asked of a chunk server, and what it says to the masters: values of the protocol."""

from typing import Final

import msgspec

from stoker.core.units import KiB, MiB
from stoker.fs.disk.interface import SHARD_BYTES_MAX, HolderStatus, ShardHeader, ShardId, ShardPage
from stoker.fs.wire.messages import Fault
from stoker.fs.wire.operations import Operation

SHARDS_AT_ONCE_MAX: Final = 4096
"""Shards that one request may name."""
RANGES_AT_ONCE_MAX: Final = 1024
GET_MANY_SHARDS_MAX: Final = 256
GET_MANY_BYTES_MAX: Final = 8 * MiB
"""What one answer about many shards holds of them: their cells are in the server's memory meanwhile."""
PAGE_MAX: Final = 1024
"""Headers in one page of a listing."""
_HEADER_BODY_BYTES_MAX: Final = 96 * KiB
"""A header with the checksums of 16,384 cells."""


class Put(msgspec.Struct, frozen=True):
    """Store the shard whose bytes are the payload."""

    header: ShardHeader
    durable: bool


class Get(msgspec.Struct, frozen=True):
    """Send the cells that cover these ranges (offset, length), each of them once, in their order."""

    shard: ShardId
    ranges: list[tuple[int, int]]


class Cells(msgspec.Struct, frozen=True):
    """The payload holds runs of whole cells: for each its first cell, and the checksums that were stored with them.

    The rest is of the shard's header, too. Older servers do not tell it: then `k` is 0.
    """

    cell_bytes: int
    shard_bytes: int
    runs: list[tuple[int, bytes]]
    storage_class: int = 0
    k: int = 0
    m: int = 0
    slice_bytes: int = 0


class GetMany(msgspec.Struct, frozen=True):
    """Send for each of these shards the cells that `Get` would send, one behind the other."""

    wanted: list[Get]


class OneOfMany(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the payload holds of one shard, or why it holds nothing of it."""

    cells: Cells | None = None
    fault: Fault | None = None


class ManyCells(msgspec.Struct, frozen=True):
    """One for each shard that was asked for, in the same order."""

    found: list[OneOfMany]


class Shards(msgspec.Struct, frozen=True):
    """Some shards."""

    shards: list[ShardId]


class List(msgspec.Struct, frozen=True):
    """Tell what is there behind `after`, `limit` of it at most."""

    after: ShardId | None
    limit: int


class Nothing(msgspec.Struct, frozen=True):
    """Nothing to tell."""


class Checked(msgspec.Struct, frozen=True):
    """What reading a whole shard found: its first damaged cell, or None."""

    bad_cell: int | None


class Scrub(msgspec.Struct, frozen=True):
    """Read everything over and over at no more than so many bytes a second; 0 stops it."""

    bytes_per_second: int


class Pull(msgspec.Struct, frozen=True):
    """Fetch a shard from the chunk server at `source`, verify and store it."""

    shard: ShardId
    source: str
    durable: bool


class Heartbeat(msgspec.Struct, frozen=True):
    """A chunk server lives: whose disk it serves, where, and how that fares.

    `run` names this run of the process, and `seq` counts within it. With `leaving` it stops on purpose, and comes
    back soon or says nothing more. `host`, `rack`, `zone` and `region` are where the disk stands.
    """

    address: str
    run: str
    seq: int
    status: HolderStatus
    leaving: bool = False
    host: str = ""
    rack: str = ""
    zone: str = ""
    region: str = ""


class Noted(msgspec.Struct, frozen=True):
    """A master took note."""


PUT: Final = Operation(
    0x101, "put", Put, Nothing, payload_bytes_max=SHARD_BYTES_MAX, body_bytes_max=_HEADER_BODY_BYTES_MAX,
    own_checksums=True, idempotent=True,
)  # fmt: skip
GET: Final = Operation(
    0x102, "get", Get, Cells, body_bytes_max=_HEADER_BODY_BYTES_MAX, own_checksums=True, idempotent=True,
)  # fmt: skip
HEADER: Final = Operation(0x103, "header", ShardId, ShardHeader, body_bytes_max=_HEADER_BODY_BYTES_MAX, idempotent=True)
SYNC: Final = Operation(0x104, "sync", Shards, Nothing, idempotent=True)
REMOVE: Final = Operation(0x105, "remove", Shards, Nothing, idempotent=True)
LISTING: Final = Operation(0x106, "listing", List, ShardPage, body_bytes_max=1 * MiB - 64 * KiB, idempotent=True)
STATUS: Final = Operation(0x107, "status", Nothing, HolderStatus, idempotent=True)
CHECK: Final = Operation(0x108, "check", ShardId, Checked, idempotent=True)
SCRUB: Final = Operation(0x109, "scrub", Scrub, Nothing, idempotent=True)
PULL: Final = Operation(0x10A, "pull", Pull, Nothing, idempotent=True)
GET_MANY: Final = Operation(
    0x10B, "get_many", GetMany, ManyCells, answer_bytes_max=GET_MANY_BYTES_MAX, own_checksums=True, idempotent=True,
)  # fmt: skip
CHUNK_OPERATIONS: Final = (PUT, GET, HEADER, SYNC, REMOVE, LISTING, STATUS, CHECK, SCRUB, PULL, GET_MANY)

HEARTBEAT: Final = Operation(0x180, "heartbeat", Heartbeat, Noted, idempotent=True)
"""Asked of the masters."""
