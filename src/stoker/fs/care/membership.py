"""Who belongs to a cluster, and how each fares: from signs of life and the time to the next map. No I/O, no clock.

A disk is known by what it calls itself; its number is given once. It is never dropped because it is gone: it is given
up, which moves what it held, and taken back when it returns. Time is what the watcher has watched: a step counts for a
second at most, so that a watcher that was stopped, or whose clock jumped, finds nobody silent for that.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.core.units import GiB
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap, Disk, new_map
from stoker.fs.place.changing import with_disks, with_pools
from stoker.fs.place.map import DISKS_MAX, Health, pools_for
from stoker.fs.place.watching import SECOND_NS, Event, Limits, Watched, may_give_up, step, taken_over

STEP_NS_MAX: Final = SECOND_NS
_STRANGERS_MAX: Final = 4096
_RUNS_MAX: Final = 16
_NAME_CHARACTERS_MAX: Final = 255
_USUAL_DISKS: Final = 32
"""Pools are made for so many disks at least: the first of a cluster come one after the other."""


class Rules(msgspec.Struct, frozen=True):
    """When a disk is what.

    full_ratio, full_bytes  with less free than either of these a disk is full
    roomy_factor            with so many times as much free it is no longer
    weight_ratio            a disk whose capacity differs from its weight by more than this is weighed anew
    adopt_ns                new disks are taken in when the first of them has waited so long: together, if they can be
    """

    limits: Limits = Limits()
    full_ratio: float = 0.05
    full_bytes: int = 1 * GiB
    roomy_factor: float = 1.5
    weight_ratio: float = 0.1
    adopt_ns: int = 2 * SECOND_NS


class Sign(msgspec.Struct, frozen=True):
    """The last that was heard of a disk: what it said, when it was watched, and which runs it had before."""

    beat: Heartbeat
    seen_ns: int
    first_ns: int
    earlier_runs: tuple[str, ...] = ()


def check_beat(beat: Heartbeat, volume: str) -> None:
    """Raise UsageError for a sign of life that cannot be one of this volume's."""
    if beat.status.volume != volume:
        raise UsageError("disk is of another volume", where=beat.status.disk[:64], expected=volume)
    names = (beat.host, beat.rack, beat.zone, beat.region, beat.address, beat.status.disk)
    if any(len(name) > _NAME_CHARACTERS_MAX or not name.isprintable() for name in names):
        raise UsageError("sign of life has a bad name", got="one that is too long, or not printable")
    if any("/" in name for name in names[:4]):
        raise UsageError("sign of life has a bad name", got="a name of a place with a / in it")
    if not beat.host or not beat.address or not beat.status.disk:
        raise UsageError("sign of life does not say of whom it is")


class Members:
    """What one watcher knows. `trouble` says what it could not do, by what it is about."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.signs: dict[str, Sign] = {}
        self.watched: dict[int, Watched] = {}
        self.trouble: dict[str, str] = {}
        self._fresh: set[str] = set()
        self.time_ns = 0
        self._stepped_ns: int | None = None

    # -- what happens

    def take_over(self, cluster: ClusterMap | None) -> None:
        """Begin to watch: who was silent before is given time to be heard."""
        disks = cluster.disks if cluster is not None else ()
        self.watched = {
            disk.id: taken_over(Watched(disk.health, since_ns=self.time_ns), self.time_ns) for disk in disks
        }  # fmt: skip
        self._stepped_ns = None

    def heard(self, beat: Heartbeat) -> None:
        """Take a sign of life, which `check_beat` has let through.

        One from a run that is over is not believed, unless the run that is believed has fallen silent: signs may be
        heard in another order than they were given, and the first of a new run before the last of the old one.
        """
        name = beat.status.disk
        known = self.signs.get(name)
        if known is None:
            if len(self.signs) >= DISKS_MAX + _STRANGERS_MAX:
                raise UsageError("there are too many disks", expected=f"{DISKS_MAX} at most")
            self.signs[name] = Sign(beat, self.time_ns, self.time_ns)
            self._fresh.add(name)
            return
        earlier = known.earlier_runs
        silent = self.time_ns - known.seen_ns >= self.rules.limits.suspect_ns
        if beat.run in earlier and not silent:
            self.trouble[f"disk {name}"] = f"served twice, at {known.beat.address} and {beat.address}"
            return
        if beat.run == known.beat.run and beat.seq <= known.beat.seq:
            return  # overtaken
        if beat.run != known.beat.run:
            others = tuple(run for run in earlier if run != beat.run)
            earlier = (*others, known.beat.run)[-_RUNS_MAX:]
            self.trouble.pop(f"disk {name}", None)
        self.signs[name] = Sign(beat, self.time_ns, known.first_ns, earlier)
        self._fresh.add(name)

    def passed(self, now_ns: int) -> None:
        """Let time pass up to `now_ns` of a clock, however that jumps."""
        if self._stepped_ns is not None:
            self.time_ns += min(max(now_ns - self._stepped_ns, 0), STEP_NS_MAX)
        self._stepped_ns = now_ns

    # -- what follows

    def next_map(
        self, cluster: ClusterMap | None, classes: Iterable[StorageClass], wall_ns: int
    ) -> ClusterMap | None:  # fmt: skip
        """Return the map that follows from what happened, None while the one that is there is right.

        What would move shards waits while too many moves are under way; all else is told at once.
        """
        wanted = tuple(classes)
        if cluster is None:
            disks = self._adopted(())
            return with_pools(new_map(disks, (), epoch=0), pools_for(wanted, _USUAL_DISKS)) if disks else None
        self._watch(cluster, wall_ns)
        changed = [now for disk in cluster.disks if (now := self._now(disk)) != disk]
        new = self._adopted(cluster.disks)
        pools = pools_for(wanted, max(len(cluster.disks) + len(new), _USUAL_DISKS), cluster.pools)
        if len(pools) > len(cluster.pools):
            return with_pools(cluster, pools)
        if not changed and not new:
            return None
        try:
            made = with_disks(cluster, [*changed, *new])
        except UsageError as error:
            self.trouble["moves"] = f"{error.what}: changes wait until the repair is done"
            given_up = [now for now in changed if now.health == "out" and cluster.by_id[now.id].health != "out"]
            if given_up:  # or else nothing would ever settle: a pass with silent disks proves nothing
                return with_disks(cluster, given_up, forgetting=True)
            return self._only_still(cluster, changed)
        self.trouble.pop("moves", None)
        return made

    def _only_still(self, cluster: ClusterMap, changed: Iterable[Disk]) -> ClusterMap | None:
        """Return the map with what moves no shards."""
        still = []
        for now in changed:
            was = cluster.by_id[now.id]
            kept = msgspec.structs.replace(
                now, weight=was.weight, host=was.host, rack=was.rack, zone=was.zone, region=was.region,
                health=now.health if _same_place(was, now.health) else "down" if was.health != "out" else "out",
            )  # fmt: skip
            if kept != was:
                still.append(kept)
        return with_disks(cluster, still) if still else None

    def _watch(self, cluster: ClusterMap, wall_ns: int) -> None:
        """Bring what is known of each disk to the present."""
        names = {disk.uuid: disk.id for disk in cluster.disks if disk.uuid}
        limits = self.rules.limits
        for disk in cluster.disks:
            self.watched.setdefault(disk.id, Watched(disk.health, self.time_ns, self.time_ns))
        for name in self._fresh & names.keys():
            event: Event = "stopping" if self.signs[name].beat.leaving else "heard"
            number = names[name]
            seen = self.watched[number]
            if event == "heard" or seen.health != "out":
                self.watched[number], _ = step(seen, self.signs[name].seen_ns, event, limits)
            self._fresh.discard(name)
        allowed = may_give_up(self.watched.values(), self.time_ns, limits)
        for disk in cluster.disks:
            may = allowed and disk.spared_until_ns <= wall_ns
            self.watched[disk.id], _ = step(self.watched[disk.id], self.time_ns, "tick", limits, may_give_up=may)
        silent = sum(one.health in ("suspect", "down") for one in self.watched.values())
        self.trouble.pop("silence", None)
        if not allowed:
            self.trouble["silence"] = f"{silent} of {len(self.watched)} disks are silent: none is given up"

    def _now(self, disk: Disk) -> Disk:
        """Return a disk as it is to stand in the map."""
        health = self.watched[disk.id].health
        sign = self.signs.get(disk.uuid)
        if sign is None:
            return msgspec.structs.replace(disk, health=health)
        beat = sign.beat
        return msgspec.structs.replace(
            disk, health=health, host=beat.host, rack=beat.rack, zone=beat.zone, region=beat.region,
            address=beat.address, weight=self._weight(disk.weight, beat.status.capacity_bytes),
            full=self._full(disk, beat), read_only=bool(beat.status.read_only),
        )  # fmt: skip

    def _weight(self, weight: int, capacity_bytes: int) -> int:
        now = weight_of(capacity_bytes)
        return now if abs(now - weight) > self.rules.weight_ratio * max(now, weight) else weight

    def _full(self, disk: Disk | None, beat: Heartbeat) -> bool:
        least_bytes = max(self.rules.full_ratio * beat.status.capacity_bytes, self.rules.full_bytes)
        factor = self.rules.roomy_factor if disk is not None and disk.full else 1.0
        return beat.status.free_bytes < factor * least_bytes

    def _adopted(self, there: Iterable[Disk]) -> list[Disk]:
        """Return new disks that have waited, or came with one that has, under numbers that nobody had."""
        known = {disk.uuid: disk.id for disk in there}
        limits = self.rules.limits
        new = {
            name: sign for name, sign in self.signs.items()
            if name not in known and not sign.beat.leaving and self.time_ns - sign.seen_ns < limits.suspect_ns
        }  # fmt: skip
        if not new or self.time_ns - min(sign.first_ns for sign in new.values()) < self.rules.adopt_ns:
            return []
        first = max(known.values(), default=-1) + 1
        ordered = sorted(new.values(), key=lambda sign: (sign.beat.host, sign.beat.address, sign.beat.status.disk))
        if first + len(ordered) > DISKS_MAX + 1:
            self.trouble["numbers"] = f"{len(ordered)} disks are too many: there are {DISKS_MAX} numbers"
            ordered = ordered[: DISKS_MAX + 1 - first]
        return [self._first(number, sign.beat) for number, sign in enumerate(ordered, first)]

    def _first(self, number: int, beat: Heartbeat) -> Disk:
        self.watched[number] = Watched("up", self.time_ns, self.time_ns)
        return Disk(
            number, weight_of(beat.status.capacity_bytes), beat.host, beat.rack, beat.zone, beat.region,
            beat.address, full=self._full(None, beat), read_only=bool(beat.status.read_only), uuid=beat.status.disk,
        )  # fmt: skip


def weight_of(capacity_bytes: int) -> int:
    """Return the weight of a disk: its GiB, 1 at least."""
    return max(capacity_bytes // GiB, 1)


def _same_place(was: Disk, health: Health) -> bool:
    """Tell whether a disk with another health keeps its shards."""
    return (was.health == "out") == (health == "out")


def health_counts(disks: Iterable[Disk]) -> Mapping[str, int]:
    """Return how many disks there are by their health."""
    counts: dict[str, int] = {}
    for disk in disks:
        counts[disk.health] = counts.get(disk.health, 0) + 1
    return counts
