"""Membership as a pure function of signs of life and time: nobody is dropped, and no watcher's own trouble counts."""

from typing import Any

import msgspec
import pytest

from stoker.core.errors import UsageError
from stoker.core.units import GiB
from stoker.fs.care.membership import Members, Rules, check_beat
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.disk.interface import HolderStatus, ScrubStatus
from stoker.fs.meta.storage_class import StorageClass, coded
from stoker.fs.place import ClusterMap, Disk

VOLUME = "0" * 8 + "-0000-4000-8000-" + "0" * 12
PAIR = StorageClass(0, "pair", 1, 1)
SECOND_NS = 10**9


def beat(name: str, **facts: Any) -> Heartbeat:
    status = HolderStatus(VOLUME, name, 1, 100 * GiB, 90 * GiB, 10 * GiB, 7, 0, 0, True, "", ScrubStatus())
    given = {"address": f"{name}:1", "run": "first", "seq": 0, "host": f"host-{name}", **facts}
    return Heartbeat(status=msgspec.structs.replace(status, **given.pop("status", {})), **given)


class Watch:
    """Members, the map they lead to, and a clock."""

    def __init__(self, names: str = "") -> None:
        self.members = Members(Rules())
        self.map: ClusterMap | None = None
        self.alive = {name: {"host": f"host-{name}"} for name in names}
        self.now_ns = 5 * SECOND_NS
        self.seq = 0
        self.classes = [PAIR]
        self.made = 0

    def live(self, seconds: float, step_ns: int = SECOND_NS) -> None:
        for _ in range(int(seconds * SECOND_NS / step_ns)):
            self.now_ns += step_ns
            self.members.passed(self.now_ns)
            for name, facts in self.alive.items():
                self.seq += 1
                self.members.heard(beat(name, seq=self.seq, **facts))
            self.step()

    def step(self) -> None:
        made = self.members.next_map(self.map, self.classes, self.now_ns)
        if made is not None:
            assert made.epoch == (self.map.epoch if self.map else 0) + 1
            self.map, self.made = made, self.made + 1

    def disk(self, name: str) -> Disk:
        assert self.map is not None
        return next(disk for disk in self.map.disks if disk.uuid == name)

    def health(self, names: str) -> list[str]:
        return [self.disk(name).health for name in names]


def test_disks_that_come_together_are_taken_in_together() -> None:
    watch = Watch("cab")
    watch.live(1)
    assert watch.map is None
    watch.live(3)
    assert watch.map is not None
    assert [(disk.id, disk.uuid, disk.weight, disk.host) for disk in watch.map.disks] == [
        (0, "a", 100, "host-a"), (1, "b", 100, "host-b"), (2, "c", 100, "host-c"),
    ]  # fmt: skip
    assert [pool.key for pool in watch.map.pools] == [(2, "host")]
    watch.alive["0"] = {"host": "host-0"}
    watch.live(4)
    assert watch.disk("0").id == 3  # numbers go on, whatever the name
    assert watch.made == 2
    watch.live(100)
    assert watch.made == 2


def test_silence_is_suspect_then_down_then_out_and_ends() -> None:
    watch = Watch("abcd")
    watch.live(5)
    gone = watch.alive.pop("b")
    seen = []
    for _ in range(630):
        watch.live(1)
        if not seen or seen[-1][1] != watch.disk("b").health:
            seen.append((watch.now_ns // SECOND_NS - 10, watch.disk("b").health))
    assert seen == [(1, "up"), (3, "suspect"), (10, "down"), (610, "out")]
    assert watch.map is not None and len(watch.map.disks) == 4
    watch.alive["b"] = gone
    watch.live(3)
    assert watch.disk("b").health == "up"


def test_who_flaps_is_held_longer_each_time() -> None:
    watch = Watch("abcd")
    watch.live(5)
    holds = []
    for _ in range(4):
        gone = watch.alive.pop("a")
        watch.live(12)
        assert watch.disk("a").health == "down"
        watch.alive["a"] = gone
        holds.append(0)
        while watch.disk("a").health != "up":
            watch.live(1)
            holds[-1] += 1
    assert holds == [2, 3, 5, 9]


def test_nobody_is_given_up_while_most_are_silent() -> None:
    watch = Watch("abcd")
    watch.live(5)
    kept = watch.alive
    watch.alive = {"a": kept["a"]}
    watch.live(2000)
    assert watch.health("abcd") == ["up", "down", "down", "down"]
    assert "3 of 4 disks are silent" in watch.members.trouble["silence"]
    watch.alive = {name: kept[name] for name in "abc"}
    watch.live(5)
    assert watch.health("abcd") == ["up", "up", "up", "out"]
    assert "silence" not in watch.members.trouble


def test_a_watcher_that_was_stopped_finds_nobody_silent() -> None:
    watch = Watch("abcd")
    watch.live(5)
    before = watch.map
    for jump_ns in (3600 * SECOND_NS, -3600 * SECOND_NS, 10**15):
        watch.now_ns += jump_ns
        watch.live(1)
    watch.now_ns += 700 * SECOND_NS
    watch.members.passed(watch.now_ns)
    watch.step()  # before it has read what was sent meanwhile
    assert watch.map == before


def test_who_takes_over_gives_all_time_to_be_heard() -> None:
    watch = Watch("abcd")
    watch.live(5)
    del watch.alive["d"]
    watch.live(300)
    assert watch.disk("d").health == "down"
    other = Watch()
    other.map = watch.map
    other.members.take_over(watch.map)
    other.live(2)
    assert other.health("abcd") == ["up", "up", "up", "down"]
    other.alive = watch.alive
    other.live(500)
    assert other.disk("d").health == "down"  # ten minutes of its own watch are not over
    other.live(110)
    assert other.disk("d").health == "out"


def test_who_leaves_is_in_maintenance_and_an_operator_spares() -> None:
    watch = Watch("abcd")
    watch.live(5)
    gone = watch.alive.pop("c")
    watch.members.heard(beat("c", seq=10**6, leaving=True, **gone))
    watch.live(1700)
    assert watch.disk("c").health == "maintenance"
    watch.live(200)
    assert watch.disk("c").health == "down"
    assert watch.map is not None
    spared = msgspec.structs.replace(watch.disk("c"), spared_until_ns=watch.now_ns + 2000 * SECOND_NS)
    disks = tuple(spared if disk.uuid == "c" else disk for disk in watch.map.disks)
    watch.map = msgspec.structs.replace(watch.map, disks=disks)
    watch.live(1900)
    assert watch.disk("c").health == "down"
    watch.live(200)
    assert watch.disk("c").health == "out"


def test_what_a_disk_says_of_itself_is_in_the_map() -> None:
    watch = Watch("abc")
    watch.live(5)
    watch.alive["a"] = {"host": "host-a", "address": "elsewhere:2", "rack": "r1", "status": {"read_only": "it fails"}}
    watch.live(1)
    disk = watch.disk("a")
    assert (disk.address, disk.rack, disk.read_only) == ("elsewhere:2", "r1", True)
    watch.alive["a"]["status"] = {"capacity_bytes": 105 * GiB}
    watch.live(1)
    assert (watch.disk("a").weight, watch.disk("a").read_only) == (100, False)  # a little more moves nothing
    watch.alive["a"]["status"] = {"capacity_bytes": 200 * GiB}
    watch.live(1)
    assert watch.disk("a").weight == 200


def test_full_is_left_later_than_it_is_entered() -> None:
    watch = Watch("ab")
    watch.live(5)
    told = []
    for free_gib in (6, 5, 4, 5, 7, 8, 6):
        watch.alive["a"] = {"host": "host-a", "status": {"free_bytes": free_gib * GiB}}
        watch.live(1)
        told.append(watch.disk("a").full)
    assert told == [False, False, True, True, True, False, False]


def test_new_classes_get_pools() -> None:
    watch = Watch("abc")
    watch.live(5)
    watch.classes = [PAIR, coded("cold", 8, 4)]
    watch.live(1)
    assert watch.map is not None
    assert [pool.key for pool in watch.map.pools] == [(2, "host"), (5, "host"), (12, "host")]


def test_a_run_that_is_over_is_not_believed() -> None:
    watch = Watch("ab")
    watch.live(5)
    watch.members.heard(beat("a", run="second", address="new:1", seq=1))
    watch.members.heard(beat("a", run="first", address="old:1", seq=10**6))
    watch.step()
    assert watch.disk("a").address == "new:1"
    assert "served twice" in watch.members.trouble["disk a"]


def test_a_late_sign_of_the_run_before_does_not_shut_the_new_one_out() -> None:
    watch = Watch("ab")
    watch.live(5)
    watch.members = Members(Rules())  # another master, which has heard of nobody yet
    watch.members.take_over(watch.map)
    watch.alive["a"] = {"host": "host-a", "run": "second"}
    watch.live(1)
    watch.members.heard(beat("a", seq=10**6))  # it was given before the disk's process ended
    watch.live(1)
    assert "served twice" in watch.members.trouble["disk a"]
    watch.live(20)
    assert watch.health("ab") == ["up", "up"]
    assert "disk a" not in watch.members.trouble
    assert watch.members.signs["a"].beat.run == "second"


def test_of_two_that_serve_one_disk_the_one_that_is_believed_stays() -> None:
    watch = Watch("ab")
    watch.live(5)
    watch.alive["a"] = {"host": "host-a", "run": "second", "address": "new:1"}
    for _ in range(100):
        watch.live(1)
        watch.members.heard(beat("a", run="first", address="old:1", seq=10**6))
        watch.step()
        assert watch.disk("a").address == "new:1"


def test_more_moves_than_are_remembered_wait_and_the_rest_is_told() -> None:
    watch = Watch("abcdef")
    watch.live(5)
    for name in "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST":
        watch.alive[name] = {"host": f"host-{name}"}
        watch.live(4)
    assert "changes wait" in watch.members.trouble["moves"]
    assert watch.map is not None
    there = len(watch.map.disks)
    assert there < 46
    watch.alive["a"] = {"host": "host-a", "address": "elsewhere:2"}
    watch.live(1)
    assert watch.disk("a").address == "elsewhere:2"
    pools = tuple(msgspec.structs.replace(pool, before=()) for pool in watch.map.pools)
    watch.map = msgspec.structs.replace(watch.map, pools=pools)
    watch.live(1)
    assert len(watch.map.disks) == 46
    assert "moves" not in watch.members.trouble


def test_a_disk_is_given_up_however_many_moves_are_remembered() -> None:
    """While it is silent nothing settles: what waits for the moves to be done would wait for ever."""
    watch = Watch("abcdef")
    watch.live(5)
    for name in "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST":
        watch.alive[name] = {"host": f"host-{name}"}
        watch.live(4)
    assert "changes wait" in watch.members.trouble["moves"]
    del watch.alive["a"]
    watch.live(700)
    assert watch.health("a") == ["out"]
    assert watch.map is not None
    assert max(len(one.rows) for pool in watch.map.pools for one in pool.before) == 8


@pytest.mark.parametrize(
    "facts",
    [
        {"status": {"volume": "another"}},
        {"host": "a/b"},
        {"host": ""},
        {"address": ""},
        {"rack": "x" * 256},
        {"zone": "\x1b[2J"},
        {"status": {"disk": ""}},
    ],
)
def test_a_sign_of_life_that_cannot_be_one_is_refused(facts: dict[str, Any]) -> None:
    check_beat(beat("a"), VOLUME)
    with pytest.raises(UsageError):
        check_beat(beat("a", **facts), VOLUME)
