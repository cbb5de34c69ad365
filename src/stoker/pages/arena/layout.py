"""Where everything lies in an arena: one shared memory file that every process may map at another address.

All numbers are little-endian 64-bit words at multiples of 8; offsets count from the start of the file, never from an
address. The native twin of this table is native/include/stoker/arena.hpp; a test holds the two equal.

| part | what it holds |
|---|---|
| header, 4 KiB | identity and geometry (never changed, under a CRC), locks, counters, heads of the free lists |
| reader table | a line of 64 bytes for each attached process, each snapshot, each edit, each thread that makes pages |
| page table | 128 bytes a slot; slot 0 is not used |
| retired table | a ring of 32-byte records: extents that snapshots may still read |
| ring | the log: frames, or a SKIP word where the next frame begins again at the ring's start |
| data | the extents of pages and of their metadata |
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from stoker.kernels.checking import crc32c
from stoker.pages.errors import ChecksumError, FormatError

MAGIC: Final = b"STKPAGES"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
READER_BYTES: Final = 64
SLOT_BYTES: Final = 128
RETIRED_BYTES: Final = 32
PAGE_ALIGN: Final = 4096
HUGE_BYTES: Final = 2 << 20
"""A huge page of the processor. What is as large begins with one, so that few addresses need translating."""
STATIC: Final = struct.Struct("<8sII16sIIQQQQQQQQQQ")
STATIC_CRC_OFFSET: Final = 248
SKIP: Final = 0xFFFF_FFFF
"""In place of a frame's length: go on at the ring's start."""


class Word(IntEnum):
    """Index of a 64-bit word of the header that changes."""

    COMMIT_LOCK = 32
    FLUSH_LOCK = 40
    COMMITTED_POS = 48
    COMMITTED_LSN = 49
    INTENT_POS = 50
    INTENT_LSN = 51
    RESERVED_POS = 52
    FLOOR_POS = 53
    FLOOR_LSN = 54
    WRAP_POS = 55
    FLUSHED_POS = 56
    FLUSHED_LSN = 57
    DURABLE_LSN = 58
    FLUSHES = 59
    POISON = 64
    GENERATION = 65
    STRUCTURE = 66
    """Changes with every page with metadata that comes or goes, and with all metadata: names are to be read again."""
    PIN_MAX = 67
    PIN_MIN = 68
    SLOTS_USED = 69
    SLOT_FREE = 70
    BREAK = 71
    BACKED = 72
    SLOTS_BACKED = 73
    LIVE_PAGES = 74
    LIVE_BYTES = 75
    RETIRED_FIRST = 76
    RETIRED_END = 77
    CLEAN = 78
    CHECKPOINT_LSN = 79
    FREE_LISTS = 80
    RETIRED_BACKED = 104
    FLUSH_ENDS = 112
    COUNTERS = 128


class Counter(IntEnum):
    """What is counted, under the commit lock, in words from Word.COUNTERS on."""

    COMMITS = 0
    FRAMES = 1
    DELTAS = 2
    DELTA_BYTES = 3
    CHANGED_BYTES = 4
    ALLOCATIONS = 5
    FREES = 6
    COPIES_ON_WRITE = 7
    SNAPSHOTS = 8
    RECOVERIES = 9
    CONFLICTS = 10
    UNCHANGED = 11
    UPDATE_NS = 12
    FLUSHES = 13
    SYNCS = 14
    SWEPT = 15
    IMAGES = 16


class FlushEnd(IntEnum):
    """Index of a word in one of the two records of where the journal ends; FLUSHES tells which one counts."""

    POS = 0
    LSN = 1
    SEGMENT_LSN = 2
    SEGMENT_OFFSET = 3
    SEGMENT_CRC = 4


class Slot(IntEnum):
    """Index of a 64-bit word in a slot of the page table."""

    SEQ = 0
    ID = 1
    EPOCH = 2
    LSN = 3
    OFFSET = 4
    SIZE = 5
    TRAITS = 6
    EXTENT = 7
    META_OFFSET = 8
    META = 9
    CREATED_LSN = 10
    NEXT_FREE = 11
    BYTES_LSN = 12
    """LSN of the frame that last changed the bytes or their place: snapshots of an older LSN may still read them."""


class Reader(IntEnum):
    """Index of a 64-bit word in a line of the reader table."""

    PID = 0
    START_TICKS = 1
    KIND = 2
    LSN = 3
    PAGE = 3  # of EDITED and COMPUTED; 0 for none at this moment


class Retired(IntEnum):
    """Index of a 64-bit word in a record of the retired table."""

    OFFSET = 0
    EXTENT = 1
    LSN = 2
    PAGE = 3


ATTACHED: Final = 1
PINNED: Final = 2
EDITED: Final = 3
COMPUTED: Final = 4
SMALL_CLASSES: Final = 21
"""64, 96, 128, 192 … 65536 bytes; above, an extent's class is 64 + its number of 4 KiB."""
CLASS_BYTES: Final = tuple(sorted([64 << power for power in range(11)] + [96 << power for power in range(10)]))
LARGE_CLASS: Final = 64


def extent_class(size_bytes: int) -> int:
    """Return the class of the smallest extent that holds so many bytes."""
    if size_bytes <= CLASS_BYTES[-1]:
        return next(index for index, limit in enumerate(CLASS_BYTES) if size_bytes <= limit)
    return LARGE_CLASS + -(-size_bytes // PAGE_ALIGN)


def class_bytes(extent: int) -> int:
    """Return the bytes of an extent of a class."""
    return CLASS_BYTES[extent] if extent < LARGE_CLASS else (extent - LARGE_CLASS) * PAGE_ALIGN


class Geometry(msgspec.Struct, frozen=True):
    """Sizes of an arena's parts, fixed when it is made. Offsets in bytes."""

    uuid: bytes
    salt: int
    page_slots: int
    reader_slots: int
    retired_slots: int
    reader_offset: int
    slot_offset: int
    retired_offset: int
    ring_offset: int
    ring_bytes: int
    data_offset: int
    data_bytes: int
    flags: int = 0

    @property
    def arena_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.data_offset + self.data_bytes


def aligned(value: int, step: int = PAGE_ALIGN) -> int:
    """Return the next multiple of `step`."""
    return -(-value // step) * step


def _step_of(size_bytes: int) -> int:
    return HUGE_BYTES if size_bytes >= HUGE_BYTES else PAGE_ALIGN


def plan_geometry(uuid: bytes, salt: int, *, data_bytes: int, page_slots: int, ring_bytes: int, flags: int) -> Geometry:
    """Lay out an arena for so many pages and bytes; sizes are rounded up to 4 KiB, and large parts begin with 2 MiB."""
    reader_slots, retired_slots = 512, max(4096, page_slots)
    reader = HEADER_BYTES
    slot = aligned(reader + reader_slots * READER_BYTES)
    retired = aligned(slot + (page_slots + 1) * SLOT_BYTES)
    ring = aligned(retired + retired_slots * RETIRED_BYTES, _step_of(ring_bytes))
    data = aligned(ring + aligned(ring_bytes), _step_of(data_bytes))
    return Geometry(
        uuid,
        salt,
        page_slots,
        reader_slots,
        retired_slots,
        reader,
        slot,
        retired,
        ring,
        aligned(ring_bytes),
        data,
        aligned(data_bytes),
        flags,
    )


def encode_static(geometry: Geometry) -> bytes:
    """Return the first 256 bytes of an arena."""
    g = geometry
    body = STATIC.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        g.uuid,
        g.salt,
        g.flags,
        g.page_slots,
        g.reader_slots,
        g.retired_slots,
        g.reader_offset,
        g.slot_offset,
        g.retired_offset,
        g.ring_offset,
        g.ring_bytes,
        g.data_offset,
        g.data_bytes,
    ).ljust(STATIC_CRC_OFFSET, b"\0")
    return body + crc32c(body).to_bytes(8, "little")


def decode_static(head: bytes, *, where: str, file_bytes: int) -> Geometry:
    """Return the geometry told by an arena's first 256 bytes.

    Raises FormatError for what is no arena, another version, or a file that is shorter than it says; ChecksumError for
    a damaged header.
    """
    if len(head) < 256 or head[:8] != MAGIC:
        raise FormatError("this is no arena of pages", where=where)
    fields = STATIC.unpack_from(head)
    if fields[1] != VERSION:
        raise FormatError("arena has an unknown version", where=where, expected=str(VERSION), got=str(fields[1]))
    if crc32c(head[:STATIC_CRC_OFFSET]) != int.from_bytes(head[STATIC_CRC_OFFSET:256], "little"):
        raise ChecksumError("header of the arena is damaged", where=where)
    _, _, _, uuid, salt, flags, *sizes = fields
    geometry = Geometry(**dict(zip(Geometry.__struct_fields__, (uuid, salt, *sizes, flags), strict=True)))
    if geometry.arena_bytes > file_bytes:
        raise FormatError(
            "arena is shorter than it says", where=where, expected=f"{geometry.arena_bytes} bytes", got=f"{file_bytes}"
        )
    return geometry
