"""Masters and their journal under seeds of lost messages, crashes, partitions and stopped processes."""

from fs_ha_world import World

QUICK_SEEDS = range(8)
SLOW_SEEDS = range(1000, 2100)
SECONDS = 5.0


def played(seed: int) -> str:
    try:
        return World(seed).play(SECONDS)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def test_what_was_acknowledged_is_there_once_and_everywhere() -> None:
    for seed in QUICK_SEEDS:
        first = played(seed)
        if seed == 0:
            assert played(seed) == first, f"seed {seed} has two ends"
