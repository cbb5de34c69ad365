"""The interval: how wide, how often right."""

import numpy as np

from stoker.bench.workloads.bootstrap import block_length, ratio_interval


def correlated(generator: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Waits around 3 ms that remember the one before."""
    noise = generator.normal(0, 1, count)
    state = np.zeros(count)
    for index in range(1, count):
        state[index] = memory * state[index - 1] + noise[index]
    return np.exp(0.4 * state) * 0.003


def interval(waits: np.ndarray, *, seed: int = 1) -> tuple[float, float]:
    compute = np.full(len(waits), 0.02)
    return ratio_interval([compute], [compute + waits], seed=seed)


def test_under_five_steps_nothing_is_said() -> None:
    assert interval(np.zeros(4)) == (0.0, 1.0)
    assert ratio_interval([], [], seed=1) == (0.0, 1.0)


def test_steps_that_are_all_alike_leave_no_doubt() -> None:
    low, high = interval(np.full(50, 0.005))
    assert abs(low - 0.8) < 1e-9
    assert abs(high - 0.8) < 1e-9


def test_it_narrows_with_the_number_of_steps() -> None:
    waits = np.random.default_rng(3).exponential(0.003, 4000)
    widths = [high - low for low, high in (interval(waits[:count]) for count in (10, 100, 1000, 4000))]
    assert widths == sorted(widths, reverse=True)


def test_correlation_widens_it() -> None:
    generator = np.random.default_rng(8)
    waits = correlated(generator, 2000, 0.95)
    shuffled = generator.permutation(waits)
    wide, narrow = interval(waits), interval(shuffled)
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_blocks_are_longer_where_steps_remember_longer() -> None:
    generator = np.random.default_rng(2)
    assert block_length(generator.normal(size=1000)) == 10
    assert block_length(correlated(generator, 1000, 0.95)) > 20
    assert block_length(np.ones(1000)) == 10
    assert block_length(np.ones(5)) == 1


def test_ninety_five_in_a_hundred_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(17)
    truth = 0.02 / (0.02 + correlated(generator, 200_000, 0.6).mean())
    trials, hits = 200, 0
    for trial in range(trials):
        low, high = interval(correlated(generator, 240, 0.6), seed=trial)
        hits += low <= truth <= high
    assert hits >= 0.90 * trials


def test_ranks_are_resampled_together() -> None:
    waits = np.random.default_rng(4).exponential(0.003, 400)
    compute = np.full(400, 0.02)
    one = ratio_interval([compute], [compute + waits], seed=2)
    twice = ratio_interval([compute, compute], [compute + waits] * 2, seed=2)
    assert np.allclose(one, twice)


def test_a_million_steps_are_grouped() -> None:
    waits = np.random.default_rng(4).exponential(0.003, 1_000_000)
    low, high = interval(waits)
    assert 0 < high - low < 0.002
