"""Whatever the files, ranks, batches and interruptions: an order is a permutation, and nobody gets a sample twice."""

import json
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.loader.dealing import Dealing, joined
from stoker.loader.epoch import EpochPlan, complement, dealt_on
from stoker.loader.order import EpochOrder, OrderRule, SampleSpace, digest, permute, visited_digest
from stoker.loader.state import LoaderState, decode_state, encode_state, merge_states

KEYS = st.integers(0, 2**64 - 1)
FILES = st.lists(st.integers(1, 12), min_size=1, max_size=12)
WORLDS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=4)


@given(st.integers(1, 3000), KEYS)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    moved = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(moved), np.arange(size))


@given(st.lists(st.tuples(st.integers(1, 40), KEYS), min_size=1, max_size=8))
def test_many_small_permutations_at_once_equal_each_by_itself(parts: list[tuple[int, int]]) -> None:
    index = np.concatenate([np.arange(size) for size, _ in parts])
    sizes = np.concatenate([np.full(size, size) for size, _ in parts])
    keys = np.concatenate([np.full(size, key, np.uint64) for size, key in parts])
    alone = np.concatenate([permute(np.arange(size), size, key) for size, key in parts])
    assert np.array_equal(permute(index, sizes, keys), alone)


def test_permutations_of_a_large_domain_are_random_access() -> None:
    size = (1 << 20) + 7  # from here on there are fewer rounds
    whole = permute(np.arange(size), size, 99)
    some = np.array([0, 1, 17, 70_000, size - 1])
    assert np.array_equal(permute(some, size, 99), whole[some])
    assert len(np.unique(whole)) == size


def shuffles(size: int, count: int) -> np.ndarray:
    """Return `count` permutations of `range(size)`, one a row."""
    keys = np.array([OrderRule(seed=seed).key(1) for seed in range(count)], np.uint64)
    index = np.tile(np.arange(size), count)
    return permute(index, np.full(len(index), size), np.repeat(keys, size)).reshape(count, size)


def test_all_orders_of_few_samples_are_about_as_likely() -> None:
    _, counts = np.unique(shuffles(4, 4800), axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() >= 130
    assert counts.max() <= 270


def test_neighbours_are_not_kept_together() -> None:
    size, count = 61, 2000
    moved = shuffles(size, count)
    steps = np.bincount(((moved[:, 1:] - moved[:, :-1]) % size).reshape(-1), minlength=size)
    assert steps[0] == 0
    assert np.abs(steps[1:] - count).max() < 6 * np.sqrt(count)


@given(FILES, st.sampled_from(["shuffled", "sequential", "dlio"]), st.integers(0, 14), st.integers(1, 5))
def test_an_epoch_holds_every_sample_once_and_windows_side_by_side(
    files: list[int], order: str, window: int, epoch: int
) -> None:
    space = SampleSpace(np.array(files))
    rule = OrderRule(order, window_samples=window)
    ids, windows = EpochOrder(space, rule, epoch).at(np.arange(space.total))
    assert np.array_equal(np.sort(ids), np.arange(space.total))
    assert (windows is None) == (window == 0)
    if windows is not None:
        starts = np.flatnonzero(np.diff(windows)) + 1
        assert len(np.unique(windows)) == len(starts) + 1
        numbers, offsets = space.locate(ids)
        for run in np.split(np.arange(space.total), starts):
            assert len(set(numbers[run].tolist())) == 1
            assert len({offset // min(window, space.largest) for offset in offsets[run].tolist()}) == 1


@given(FILES, st.integers(0, 14), st.data())
def test_positions_may_be_asked_for_in_any_pieces(files: list[int], window: int, data: st.DataObject) -> None:
    space = SampleSpace(np.array(files))
    order = EpochOrder(space, OrderRule(window_samples=window), 3)
    whole = order.at(np.arange(space.total))[0]
    some = np.array(data.draw(st.lists(st.integers(0, space.total - 1), min_size=1, max_size=20)))
    assert np.array_equal(order.at(some)[0], whole[some])


def fresh(total: int, window: int, epoch: int = 1) -> LoaderState:
    rule = OrderRule(window_samples=window)
    return LoaderState(epoch, ((0, total),), rule, files=1, total_samples=total, total_bytes=total)


@given(st.integers(1, 200), st.sampled_from([0, 3]), WORLDS)
def test_resuming_on_any_worlds_any_number_of_times_deals_each_position_once(
    total: int, window: int, worlds: list[tuple[int, int, int]]
) -> None:
    state, taken = fresh(total, window), []
    for ranks, batch, steps in worlds:
        for rank in range(ranks):
            mine = dealt_on(state, batch_size=batch, world_size=ranks, rank=rank)
            dealing = mine.dealing()
            done = min(mine.step + steps, dealing.steps)
            taken += dealing.positions(rank, mine.step, done).tolist()
        state = decode_state(json.loads(json.dumps(encode_state(dealt_on_at(mine, done)))))
        left = [position for start, stop in state.left() for position in range(start, stop)]
        assert sorted(taken + left) == list(range(total))
        assert len(state.left()) <= 1 + sum(ranks for ranks, _, _ in worlds)


def dealt_on_at(state: LoaderState, step: int) -> LoaderState:
    return LoaderState(**{name: getattr(state, name) for name in state.__struct_fields__ if name != "step"}, step=step)


@given(
    st.integers(1, 120), st.sampled_from([0, 3]), st.integers(1, 3), st.lists(st.integers(0, 9), min_size=1, max_size=5)
)
def test_merged_states_leave_exactly_what_no_rank_has_taken(
    total: int, window: int, batch: int, steps: list[int]
) -> None:
    ranks, states, taken = len(steps), [], []
    for rank, done in enumerate(steps):
        mine = dealt_on(fresh(total, window), batch_size=batch, world_size=ranks, rank=rank)
        taken_steps = min(done, mine.dealing().steps)
        taken += mine.dealing().positions(rank, 0, taken_steps).tolist()
        states.append(encode_state(dealt_on_at(mine, taken_steps)))
    merged = decode_state(json.loads(json.dumps(merge_states(states))))
    left = [position for start, stop in merged.left() for position in range(start, stop)]
    assert sorted(taken + left) == list(range(total))


@given(FILES, st.integers(0, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5))
def test_the_ranks_digests_join_to_the_planned_one(
    files: list[int], window: int, batch: int, ranks: int, first: int, cap: int
) -> None:
    space = SampleSpace(np.array(files))
    rule = OrderRule(window_samples=window)
    order = EpochOrder(space, rule, 2)
    dealing = Dealing(((0, space.total),), batch_size=batch, ranks=ranks, wide=window > 0)
    first = min(first, dealing.steps)
    plan = EpochPlan(2, order, dealing, 0, first, min(first + cap, dealing.steps), 0, space.total)
    joint = 0
    for rank in range(ranks):
        joint ^= visited_digest(order, [dealing.positions(rank, plan.first_step, plan.last_step)])
    assert joint == plan.expected_digest()


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(0, 500))
def test_a_digest_tells_what_is_missing_or_doubled(numbers: set[int], extra: int) -> None:
    ids = np.array(sorted(numbers))
    assert digest(ids) == digest(ids[::-1])
    assert digest(ids) != digest(ids[1:])
    assert digest(ids) != digest(np.append(ids, extra))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)), max_size=8))
def test_joined_intervals_and_their_complement_make_up_everything(pairs: list[tuple[int, int]]) -> None:
    intervals = joined((start, start + length) for start, length in pairs)
    covered = {position for start, length in pairs for position in range(start, start + length)}
    assert {position for start, stop in intervals for position in range(start, stop)} == covered
    others = {position for start, stop in complement(intervals, 60) for position in range(start, stop)}
    assert others == set(range(60)) - covered


@settings(deadline=None, max_examples=4)
@given(st.sampled_from([0, 1000]), st.booleans())
def test_ten_million_samples_on_a_thousand_ranks_take_little_memory(window: int, uneven: bool) -> None:
    samples = np.full(10_000, 1000)
    if uneven:
        samples[::2] += 1
        samples[1::2] -= 1
    tracemalloc.start()
    try:
        space = SampleSpace(samples)
        order = EpochOrder(space, OrderRule(window_samples=window), 1)
        dealing = Dealing(((0, space.total),), batch_size=8, ranks=1024, wide=window > 0)
        ids, _ = order.at(dealing.positions(1023, 0, dealing.steps))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert space.total == 10_000_000
    assert len(ids) == dealing.steps * 8 == 9760
    assert peak_bytes < 16 << 20
