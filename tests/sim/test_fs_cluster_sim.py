"""The whole cluster under seeds of bad days: masters, disks, clients, care and garbage collection in one process."""

from typing import Any

import pytest
from fs_cluster_clients import Collector
from fs_cluster_world import World

from stoker.fs.cluster import ClusterStore
from stoker.fs.cluster.placing import Placed
from stoker.fs.journal.member import Member, Role
from stoker.fs.meta import machine
from stoker.fs.meta.answers import Done
from stoker.fs.meta.calls import PutMap
from stoker.fs.meta.cluster_map import _EPOCH
from stoker.fs.meta.context import Context
from stoker.fs.meta.keys import CLUSTER_MAP
from stoker.fs.meta.storage_class import Shape

QUICK_SEEDS = range(2)
SLOW_SEEDS = range(1000, 2000)
PARTS = 4
"""The thousand seeds are as many tests, so that several processes share them."""
MENDED_SEEDS = (3, 5, 1005, 1010, 1016, 2010, 2012, 2072)
"""What each of them found: see docs/design/fs_sim.md."""
TWICE = 25
PLANTED_SEEDS = 12


def played(seed: int) -> str:
    return World(seed).play()


def test_every_promise_holds_through_bad_days() -> None:
    digests = [played(seed) for seed in QUICK_SEEDS]
    assert played(QUICK_SEEDS[0]) == digests[0], "a seed has two ends"


def test_a_disk_that_was_lost_does_not_begin_again() -> None:
    world = World(0, faults=False)
    server = world.servers["d1"]
    world.loop.kill(server.process)
    world.restart_disk(server)
    assert server.process.alive
    world.loop.kill(server.process)
    del world.servers["d1"]
    world.restart_disk(server)
    assert not server.process.alive
    world.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", MENDED_SEEDS)
def test_what_a_seed_found_stays_mended(seed: int) -> None:
    played(seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_for_a_thousand_seeds(part: int) -> None:
    for seed in SLOW_SEEDS[part::PARTS]:
        first = played(seed)
        if seed % TWICE == 0:
            assert played(seed) == first, f"seed {seed} has two ends"


@pytest.mark.slow
def test_the_world_is_as_rough_as_it_should_be() -> None:
    totals: dict[str, int] = {}
    for seed in range(12):
        world = World(seed)
        world.play()
        for what, count in world.counts.items():
            totals[what] = totals.get(what, 0) + count
    rough = (
        "crash_master", "crash_disk", "crash_user", "cut", "stop", "etcd_outage", "rotten shards", "lost disks",
        "trouble_disk", "jump_clock", "storm", "lost messages", "doubled messages", "drained", "collected", "trims",
        "acknowledged writings", "reads", "held reads", "renamed", "unlinked", "puts", "files at the end",
    )  # fmt: skip
    assert all(totals.get(what, 0) > 0 for what in rough), sorted(totals.items())


# -- bugs that are planted, to show that the simulator finds them


def is_found(seeds: int = PLANTED_SEEDS) -> str:
    """Return what was found wrong with one of the first seeds, empty when nothing was."""
    for seed in range(seeds):
        try:
            played(seed)
        except AssertionError as error:
            return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_acknowledgement_one_short_of_the_policy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Placed.__init__

    def short(self: Placed, *facts: Any) -> None:
        made(self, *facts)
        self.shape = Shape(self.shape.k, self.shape.m, self.shape.needed - 1)

    monkeypatch.setattr(Placed, "__init__", short)
    assert "durable shards" in is_found()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_forgotten_sync_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterStore, "make_durable", lambda self, slices: None)
    assert "durable shards" in is_found()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_collection_without_grace_or_evidence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "grace_seconds", 0.0)
    monkeypatch.setattr("stoker.fs.meta.taken._is_over", lambda context, session: True)
    assert is_found()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stale_map_that_is_accepted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def put_map(context: Context, request: PutMap) -> Done:
        context.view.put(CLUSTER_MAP, _EPOCH.pack(request.epoch) + request.data)
        return Done()

    monkeypatch.setitem(machine._RUNS, PutMap, put_map)
    assert "is put over that of" in is_found()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_leader_that_serves_behind_its_lease_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "valid", lambda self, now_ns: self.role is Role.LEADING)
    assert "as fresh at once" in is_found()
