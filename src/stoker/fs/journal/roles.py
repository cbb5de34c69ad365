"""What a member of the journal is and does, as values: its roles, its timing, what happens to it, what it asks."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.journal.entries import Keys
from stoker.fs.journal.etcd import Compare, Delete, Get, Put, Txn

_MS: Final = 1_000_000


class Role(enum.Enum):
    """What a member does: it follows; or it has asked for power, reads what is there, fills gaps, waits, and leads."""

    FOLLOWING = "follows"
    CLAIMING = "claims"
    READING = "reads"
    FILLING = "fills"
    WAITING = "waits"
    LEADING = "leads"


class Timing(msgspec.Struct, frozen=True):
    """How long things take, in nanoseconds."""

    lease_ns: int = 200 * _MS
    """How long a leader's reads count as fresh behind his last sign of power; a new one waits this long."""
    check_ns: int = 80 * _MS
    """How often an idle leader looks whether he still is one."""
    retry_ns: int = 20 * _MS
    hedge_ns: int = 100 * _MS
    """When a request without an answer is sent once more: one in flight to a server that died is never answered."""
    poll_ns: int = 500 * _MS
    """How often a follower reads although nothing told him to."""
    window: int = 4
    """How many appends may be in flight."""
    page: int = 32
    """How many entries are read at a time."""


@dataclass(frozen=True, slots=True)
class Committed:
    """All entries up to `number` are in the log, and in the copy."""

    number: int


@dataclass(frozen=True, slots=True)
class Led:
    """The member leads from now on."""


@dataclass(frozen=True, slots=True)
class Deposed:
    """The member leads no more, or did not come to power; an error tells of its own failure."""

    error: StokerError | None


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The log begins behind what the copy has: it must be seeded from a snapshot."""

    floor: int


Event = Committed | Led | Deposed | FellBehind


@dataclass(slots=True)
class Flight:
    """An entry on its way into the log."""

    value: bytes
    done: bool = False
    tries: int = 0  # how many requests for it are in flight
    again_ns: int = 0  # when it is sent again, 0 before it is sent first


@dataclass(slots=True)
class Asked:
    """A request without an answer yet: who takes the answer, and when it was sent."""

    kind: Callable[..., None]
    argument: Any
    sent_ns: int


def append_request(keys: Keys, fence: int, number: int, value: bytes) -> Txn:
    """Return what appends an entry, once, where somebody leads still; a refusal brings what is there and who leads."""
    key = keys.entry(number)
    conditions = (Compare(keys.epoch, modified=fence), Compare(key, created=0))
    return Txn(conditions, (Put(key, value),), (Get(key), Get(keys.epoch)))


def check_request(keys: Keys, fence: int) -> Txn:
    """Return what asks whether somebody leads still; a refusal brings who does."""
    return Txn((Compare(keys.epoch, modified=fence),), (), (Get(keys.epoch),))


def trim_request(keys: Keys, fence: int, floor: int) -> Txn:
    """Return what forgets the entries before `floor`, where somebody leads still."""
    gone = Delete(keys.entry(0), keys.entry(floor))
    return Txn((Compare(keys.epoch, modified=fence),), (Put(keys.floor, b"%d" % floor), gone))


def poll_request(keys: Keys, start: int, page: int) -> Txn:
    """Return what reads the entries from a number on, who leads, and where the log begins, all of one revision."""
    return Txn(then=(keys.entries(start, page), Get(keys.epoch), Get(keys.floor)))
