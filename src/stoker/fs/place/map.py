"""The cluster map: which disks there are, where they stand, how they fare, and what is placed by exception.

An immutable value with an epoch. Its bytes are canonical: two maps are equal when their bytes are. Who has an old one
is sent the difference. From a map alone follows where each shard of each slice is: see `mapping`.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from stoker.core.errors import CorruptError, UsageError
from stoker.fs.meta.storage_class import DOMAINS, Domain, StorageClass
from stoker.fs.place.straw import mix

Health = Literal["up", "suspect", "down", "maintenance", "out"]
"""What is known of a disk's server: answers, was silent for a moment, does not answer, stopped on purpose, given up."""

DISKS_MAX: Final = 65_535
WEIGHT_MAX: Final = 2**32 - 1
BITS_MAX: Final = 16
_GROUPS_PER_DISK: Final = 100
_MAP_BYTES_MAX: Final = 256 << 20


class Disk(msgspec.Struct, frozen=True, array_like=True):
    """A disk: where it stands, its weight (GiB as a rule), and how it fares.

    A disk that is draining is emptied and then given up by its owner's wish; one that is full or read-only is read.
    The number is given once; `uuid` is what the disk calls itself, empty while nothing has reported under the number.
    Until the moment `spared_until_ns` (since 1970) it is not given up, however silent: its owner works on it.
    """

    id: Annotated[int, msgspec.Meta(ge=0, le=DISKS_MAX)]
    weight: Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)]
    host: str
    rack: str = ""
    zone: str = ""
    region: str = ""
    address: str = ""
    health: Health = "up"
    draining: bool = False
    full: bool = False
    read_only: bool = False
    uuid: str = ""
    spared_until_ns: int = 0

    @property
    def answers(self) -> bool:
        """Tell whether it may be asked for what it holds."""
        return self.health in ("up", "suspect")

    @property
    def writable(self) -> bool:
        """Tell whether shards may be put on it now."""
        return self.answers and not self.full and not self.read_only

    @property
    def placeable(self) -> bool:
        """Tell whether shards belong on it: one that is down keeps its place until it is given up."""
        return self.health != "out" and not self.draining and self.weight > 0

    def domain(self, level: Domain) -> str:
        """Return the name of the failure domain that it is in: two disks share one when the names are equal."""
        path = [self.region, self.zone, self.rack, self.host, str(self.id)]
        return "/".join(path[: len(path) - DOMAINS.index(level)])


class Override(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A slot of a placement group that is not on the disk it would be drawn to."""

    group: int
    slot: int
    disk: int


class Before(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Where a placement group that moves was before, newest first: a disk for each slot, NO_DISK for none."""

    group: int
    rows: tuple[tuple[int, ...], ...]


NO_DISK: Final = 2**32 - 1


class Pool(msgspec.Struct, frozen=True, array_like=True):
    """2^bits placement groups of `width` shards, no two in one domain: what classes of one form share."""

    width: Annotated[int, msgspec.Meta(ge=1, le=32)]
    domain: Domain
    bits: Annotated[int, msgspec.Meta(ge=0, le=BITS_MAX)]
    overrides: tuple[Override, ...] = ()
    before: tuple[Before, ...] = ()

    @property
    def key(self) -> tuple[int, str]:
        """What tells pools apart."""
        return self.width, self.domain

    @property
    def groups(self) -> int:
        """How many placement groups there are."""
        return 1 << self.bits

    def group_of(self, slice_id: int) -> int:
        """Return the placement group of a slice."""
        return mix(slice_id) & self.groups - 1


class ClusterMap(msgspec.Struct, frozen=True, dict=True, array_like=True):
    """Disks by their numbers, pools by their form; with `repair_paused` nothing is repaired, whoever leads.

    Bytes that were written before there was that field say that repair is not paused.
    """

    epoch: Annotated[int, msgspec.Meta(ge=0)]
    disks: tuple[Disk, ...]
    pools: tuple[Pool, ...]
    form: Literal[1] = 1
    repair_paused: bool = False

    @cached_property
    def by_id(self) -> dict[int, Disk]:
        """The disks by their numbers."""
        return {disk.id: disk for disk in self.disks}

    def pool(self, width: int, domain: Domain) -> Pool:
        """Return the pool of a form. Raises UsageError for one that the map does not have."""
        for pool in self.pools:
            if pool.key == (width, domain):
                return pool
        known = ", ".join(f"{pool.width} shards by {pool.domain}" for pool in self.pools) or "none"
        raise UsageError("map has no pool for this form", expected=known, got=f"{width} shards by {domain}")


def new_map(disks: Iterable[Disk], classes: Iterable[StorageClass], epoch: int = 1) -> ClusterMap:
    """Return a map of disks with the pools that storage classes need. Raises UsageError for disks of one number."""
    ordered = tuple(sorted(disks, key=lambda disk: disk.id))
    return checked(ClusterMap(epoch, ordered, pools_for(classes, len(ordered))))


def pools_for(classes: Iterable[StorageClass], disks: int, there: Sequence[Pool] = ()) -> tuple[Pool, ...]:
    """Return pools for all forms of the classes; those that are there stay as they are."""
    pools = {pool.key: pool for pool in there}
    for one in classes:
        for shape in {one.shape(0), one.shape(one.small_bytes + 1)}:
            pools.setdefault((shape.width, one.domain), Pool(shape.width, one.domain, group_bits(disks, shape.width)))
    return tuple(pools[key] for key in sorted(pools))


def group_bits(disks: int, width: int) -> int:
    """Return how many bits number at least 100 placement groups for each `width` disks, and 16 at most."""
    wanted = max(-(-_GROUPS_PER_DISK * disks // width), 1)
    return min((wanted - 1).bit_length(), BITS_MAX)


def checked(made: ClusterMap) -> ClusterMap:
    """Return a map that is sound. Raises UsageError for one that is not."""
    wrong = _wrong_in(made)
    if wrong:
        raise UsageError("no such cluster map", where=f"epoch {made.epoch}", got=wrong)
    return made


def _wrong_in(made: ClusterMap) -> str:
    numbers = [disk.id for disk in made.disks]
    if numbers != sorted(set(numbers)):
        return "disks that are not in the order of different numbers"
    names = [disk.uuid for disk in made.disks if disk.uuid]
    if len(names) != len(set(names)):
        return "a disk under two numbers"
    if any("/" in name for disk in made.disks for name in (disk.host, disk.rack, disk.zone, disk.region)):
        return "a name of a place with a / in it"
    keys = [pool.key for pool in made.pools]
    if keys != sorted(set(keys)):
        return "pools that are not in the order of different forms"
    for pool in made.pools:
        places = [(one.group, one.slot) for one in pool.overrides]
        groups = [one.group for one in pool.before]
        if places != sorted(set(places)) or groups != sorted(set(groups)):
            return "placement groups that are not in order"
        if any(not (0 <= group < pool.groups and 0 <= slot < pool.width) for group, slot in places):
            return "an exception for a slot that is not there"
        rows = [row for one in pool.before for row in one.rows]
        if any(not 0 <= group < pool.groups for group in groups) or any(len(row) != pool.width for row in rows):
            return "a former place for a slot that is not there"
    return ""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(ClusterMap)


def pack_map(made: ClusterMap) -> bytes:
    """Return the canonical bytes of a map."""
    return _encoder.encode(made)


def unpack_map(data: bytes) -> ClusterMap:
    """Return a map from bytes. Raises CorruptError for bytes that are none."""
    if len(data) > _MAP_BYTES_MAX:
        raise CorruptError("cluster map is not readable", expected="256 MiB at most", got=f"{len(data)} bytes")
    try:
        return checked(_decoder.decode(data))
    except (msgspec.DecodeError, UsageError) as error:
        raise CorruptError("cluster map is not readable", got=str(error)) from error


# -- differences


class PoolChange(msgspec.Struct, frozen=True, array_like=True):
    """What differs in a pool: exceptions and former places that are new or others, and those that are gone."""

    width: int
    domain: Domain
    bits: int
    overrides: tuple[Override, ...] = ()
    dropped: tuple[tuple[int, int], ...] = ()
    before: tuple[Before, ...] = ()
    settled: tuple[int, ...] = ()


class MapDelta(msgspec.Struct, frozen=True, array_like=True):
    """What leads from the map of one epoch to that of another; pools that are gone are named."""

    base: int
    epoch: int
    disks: tuple[Disk, ...] = ()
    gone: tuple[int, ...] = ()
    pools: tuple[PoolChange, ...] = ()
    pools_gone: tuple[tuple[int, str], ...] = ()
    repair_paused: bool = False


Item = TypeVar("Item")


def difference(old: ClusterMap, new: ClusterMap) -> MapDelta:
    """Return what leads from one map to another."""
    was = {pool.key: pool for pool in old.pools}
    there = {pool.key for pool in new.pools}
    changes = [_pool_change(was.get(pool.key), pool) for pool in new.pools if was.get(pool.key) != pool]
    return MapDelta(
        old.epoch,
        new.epoch,
        tuple(disk for disk in new.disks if old.by_id.get(disk.id) != disk),
        tuple(disk.id for disk in old.disks if disk.id not in new.by_id),
        tuple(changes),
        tuple(key for key in was if key not in there),
        new.repair_paused,
    )


def _pool_change(was: Pool | None, now: Pool) -> PoolChange:
    if was is None or was.bits != now.bits:
        was = Pool(now.width, now.domain, now.bits)
    old, new = set(was.overrides), set(now.overrides)
    places = {(one.group, one.slot) for one in new}
    groups = {one.group for one in now.before}
    return PoolChange(
        now.width,
        now.domain,
        now.bits,
        tuple(sorted(new - old)),
        tuple(sorted((one.group, one.slot) for one in old if (one.group, one.slot) not in places)),
        tuple(sorted(set(now.before) - set(was.before))),
        tuple(sorted(one.group for one in was.before if one.group not in groups)),
    )


def applied(old: ClusterMap, delta: MapDelta) -> ClusterMap:
    """Return the map that a difference leads to. Raises UsageError for one from another epoch, or to no sound map."""
    if delta.base != old.epoch:
        raise UsageError("difference is from another map", expected=f"epoch {old.epoch}", got=f"epoch {delta.base}")
    disks = {**old.by_id, **{disk.id: disk for disk in delta.disks}}
    for number in delta.gone:
        disks.pop(number, None)
    pools = {pool.key: pool for pool in old.pools if pool.key not in set(delta.pools_gone)}
    for change in delta.pools:
        pools[change.width, change.domain] = _changed_pool(pools.get((change.width, change.domain)), change)
    ordered = tuple(disks[number] for number in sorted(disks))
    made = ClusterMap(
        delta.epoch, ordered, tuple(pools[key] for key in sorted(pools)), repair_paused=delta.repair_paused
    )  # fmt: skip
    return checked(made)


def _changed_pool(was: Pool | None, change: PoolChange) -> Pool:
    if was is None or was.bits != change.bits:
        was = Pool(change.width, change.domain, change.bits)
    overrides = {(one.group, one.slot): one for one in (*was.overrides, *change.overrides)}
    before = {one.group: one for one in (*was.before, *change.before)}
    for place in change.dropped:
        overrides.pop(place, None)
    for group in change.settled:
        before.pop(group, None)
    return Pool(
        change.width,
        change.domain,
        change.bits,
        tuple(overrides[place] for place in sorted(overrides)),
        tuple(before[group] for group in sorted(before)),
    )
