"""The metadata under a thousand seeds of lost messages, crashes, conflicts and sleeping clients."""

import pytest
from fs_meta_world import World

QUICK_SEEDS = range(24)
SLOW_SEEDS = range(1000, 2200)
EVENTS = 1200


def played(seed: int) -> str:
    try:
        return World(seed).run(EVENTS)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def test_all_invariants_hold_after_each_event() -> None:
    for seed in QUICK_SEEDS:
        first = played(seed)
        if seed % 8 == 0:
            assert played(seed) == first, f"seed {seed} has two ends"


def test_the_world_is_as_rough_as_it_should_be() -> None:
    totals: dict[str, int] = {}
    for seed in range(8):
        world = World(seed)
        world.run(EVENTS)
        for what, count in world.counts.items():
            totals[what] = totals.get(what, 0) + count
    rough = ("conflicts", "crashed before a commit", "crashed behind a commit", "repeated", "sessions lost", "writes")
    assert all(totals.get(what, 0) > 0 for what in rough), sorted(totals.items())


def test_a_store_that_overlooks_conflicts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.fs.meta.kv.find_conflict", lambda writer, reads: None)
    with pytest.raises(AssertionError):
        for seed in range(8):
            played(seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_invariants_hold_for_a_thousand_seeds() -> None:
    for seed in SLOW_SEEDS:
        first = played(seed)
        if seed % 20 == 0:
            assert played(seed) == first, f"seed {seed} has two ends"
