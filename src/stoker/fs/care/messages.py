"""What is told to, and asked of, the masters about the care of a cluster."""

from typing import Final, Literal

import msgspec

from stoker.core.units import MiB
from stoker.fs.care.repairs import RepairStatus
from stoker.fs.chunk.operations import Noted
from stoker.fs.disk.interface import ScrubStatus
from stoker.fs.meta.slices import Slice
from stoker.fs.place import Disk
from stoker.fs.wire import Operation

SLICES_AT_ONCE_MAX: Final = 1000


class NoteShort(msgspec.Struct, frozen=True):
    """Slices that a client found, or left, with fewer shards than they should have."""

    slices: tuple[Slice, ...]


class CareOf(msgspec.Struct, frozen=True):
    """Asks the leading master how its cluster is."""


class DiskReport(msgspec.Struct, frozen=True):
    """How a disk is: as it stands in the map, and what it said last; -1 for what it has not said to this master."""

    disk: Disk
    silent_seconds: float = -1.0
    capacity_bytes: int = -1
    free_bytes: int = -1
    used_bytes: int = -1
    shards: int = -1
    bad_shards: int = -1
    errors: int = -1
    read_only: str = ""
    scrub: ScrubStatus = ScrubStatus()


class CareStatus(msgspec.Struct, frozen=True):
    """How a cluster is, as the leading master sees it. `degraded` says of pools why shards share failure domains."""

    epoch: int
    disks: tuple[DiskReport, ...]
    repair: RepairStatus
    degraded: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


class Order(msgspec.Struct, frozen=True):
    """Has the leading master examine everything now, or all that will lead repair nothing until told to go on."""

    what: Literal["examine", "pause", "resume"]


NOTE_SHORT: Final = Operation(0x281, "note-short", NoteShort, Noted, idempotent=True)
CARE_OF: Final = Operation(0x282, "care-of", CareOf, CareStatus, body_bytes_max=16 * MiB, idempotent=True)
ORDER: Final = Operation(0x283, "order", Order, Noted, idempotent=True)
