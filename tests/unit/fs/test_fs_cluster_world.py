"""A cluster under seeds of bad days: whatever was acknowledged is read whole at any moment, and repaired in the end."""

import pytest
from fs_cluster_days import World

EVENTS = 100


def played(seed: int) -> str:
    try:
        return World(seed).run(EVENTS)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def test_nothing_acknowledged_is_lost_on_bad_days() -> None:
    first = played(0)
    assert played(0) == first
    played(1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_acknowledged_is_lost_on_bad_days_of_a_thousand_seeds() -> None:
    totals: dict[str, int] = {}
    for seed in range(1000, 2000):
        world = World(seed)
        try:
            world.run(EVENTS)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        for what, count in world.counts.items():
            totals[what] = totals.get(what, 0) + count
        if seed % 20 == 0:
            played(seed)
    rough = ("rebuilt", "copied", "wipe", "rot", "down", "break")
    assert all(totals.get(what, 0) > 100 for what in rough), sorted(totals.items())
