"""Which samples an epoch visits, in which order, and which it leaves out."""

import itertools

import numpy as np
import pytest
from loader_datasets import build

from stoker.core.errors import UsageError
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store


def epochs(
    store: Store, options: LoaderOptions, *, files: list[int], world_size: int, name: str = "raw", count: int = 2
):
    """Return, for each rank and epoch, the sample numbers in order."""
    manifest = build(store, name, files, (8,))
    orders = []
    for rank in range(world_size):
        with Loader(store, manifest, options, rank=rank, world_size=world_size) as loader:
            orders.append(
                [
                    np.concatenate([batch.sample_ids for batch in loader.epoch(epoch)]).tolist()
                    for epoch in range(1, count + 1)
                ]
            )
    return orders


def test_uneven_files_are_trimmed_by_samples_not_by_files(memory: Store) -> None:
    manifest = build(memory, "npz", [3] * 17, (8,))
    seen: list[int] = []
    for rank in range(2):
        with Loader(memory, manifest, LoaderOptions(batch_size=4), rank=rank, world_size=2) as loader:
            assert (loader.steps_per_epoch, loader.usable_samples, loader.dropped_samples) == (6, 48, 3)
            batches = list(loader.epoch(1))
            assert len(batches) == 6
            seen += itertools.chain.from_iterable(batch.sample_ids.tolist() for batch in batches)
    assert len(seen) == len(set(seen)) == 48


@pytest.mark.parametrize("name", ["raw", "npz"])
def test_dlio_order_ascends_through_each_ranks_contiguous_share(memory: Store, name: str) -> None:
    orders = epochs(memory, LoaderOptions(batch_size=2, order="dlio"), files=[5, 5, 5], world_size=3, name=name)
    assert orders == [[list(range(4))] * 2, [list(range(4, 8))] * 2, [list(range(8, 12))] * 2]


def test_sequential_order_lets_the_ranks_take_turns(memory: Store) -> None:
    orders = epochs(memory, LoaderOptions(batch_size=2, order="sequential"), files=[12], world_size=3, count=1)
    assert orders == [[[0, 1, 6, 7]], [[2, 3, 8, 9]], [[4, 5, 10, 11]]]


def test_shuffled_epochs_differ_and_move_samples_between_ranks(memory: Store) -> None:
    first, second = epochs(memory, LoaderOptions(batch_size=4), files=[1] * 32, world_size=2)
    assert first[0] != first[1]
    assert set(first[0]) != set(first[1])
    assert set(first[0]) | set(second[0]) == set(range(32)) == set(first[1]) | set(second[1])


def test_one_order_for_all_epochs_when_the_seed_is_not_to_change(memory: Store) -> None:
    (orders,) = epochs(memory, LoaderOptions(batch_size=4, seed_change_epoch=False), files=[1] * 32, world_size=1)
    assert orders[0] == orders[1]
    assert orders[0] != list(range(32))
    (other,) = epochs(memory, LoaderOptions(batch_size=4, seed=5), files=[1] * 32, world_size=1)
    assert other[0] != orders[0]


def test_files_of_several_samples_stay_together_and_are_shuffled_inside(memory: Store) -> None:
    (orders,) = epochs(memory, LoaderOptions(batch_size=4), files=[8] * 6, world_size=1, name="npz", count=1)
    runs = [list(group) for _, group in itertools.groupby(orders[0], key=lambda number: number // 8)]
    assert len(runs) == 6
    assert all(run != sorted(run) for run in runs)


def test_each_whole_file_is_read_by_about_one_rank(memory: Store) -> None:
    manifest = build(memory, "npz", [8] * 16, (8,))
    opened = 0
    for rank in range(4):
        with Loader(memory, manifest, LoaderOptions(batch_size=4), rank=rank, world_size=4) as loader:
            list(loader.epoch(1))
            opened += loader.ledger.files_opened
    assert opened <= 16 + 3


def test_too_few_samples_for_one_step_is_an_error_not_an_empty_epoch(memory: Store) -> None:
    manifest = build(memory, "raw", [3, 4], (8,))
    with pytest.raises(
        UsageError, match=r"too few samples.*at least 8 \(batch 2 x 4 ranks\).*got 7 samples in 2 files"
    ):
        Loader(memory, manifest, LoaderOptions(batch_size=2), world_size=4)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"read_threads": -1},
        {"queue_depth": -1},
        {"queue_depth": 4097},
        {"request_bytes": 1000},
        {"request_bytes": 2 << 30},
        {"decode_threads": -1},
        {"prefetch_batches": -1},
        {"order": "random"},
        {"collate": "list"},
        {"verify": 1.5},
        {"steps_max": -1},
        {"in_flight_bytes_max": -1},
    ],
)
def test_an_impossible_option_is_named(memory: Store, options: dict) -> None:
    manifest = build(memory, "raw", [4], (8,))
    (name,) = options
    with pytest.raises(UsageError, match=name):
        Loader(memory, manifest, LoaderOptions(**{"batch_size": 1, **options}))


def test_verifying_needs_checksums(memory: Store) -> None:
    manifest = build(memory, "raw", [4], (8,))
    manifest.checksums = None
    with pytest.raises(UsageError, match="no checksums"):
        Loader(memory, manifest, LoaderOptions(batch_size=1, verify=0.5))


def test_a_rank_outside_the_world_is_refused(memory: Store) -> None:
    manifest = build(memory, "raw", [4], (8,))
    with pytest.raises(UsageError, match="rank"):
        Loader(memory, manifest, LoaderOptions(batch_size=1), rank=2, world_size=2)


def test_the_order_can_be_kept(memory: Store) -> None:
    manifest = build(memory, "raw", [9], (8,))
    with Loader(memory, manifest, LoaderOptions(batch_size=3, capture_order=True)) as loader:
        batches = list(loader.epoch(1))
        assert [ids.tolist() for ids in loader.captured] == [batch.sample_ids.tolist() for batch in batches]
