"""The loader resumes exactly: the shipped suite, and what it does not ask of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from loader_datasets import build

from stoker.core.errors import UsageError
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.loader.state import merge_states
from stoker.storage.api import Store
from stoker.storage.opening import open_store
from stoker.testing.resume import ResumeContract


class _LoaderResumes(ResumeContract):
    format_name = "raw"
    files = (9, 20, 1, 23)
    options = LoaderOptions(batch_size=4, read_threads=2)

    def make_loader(self, folder: Path, rank: int, world_size: int) -> Loader:
        store = open_store(f"file://{folder}?fsync=none")
        manifest = build(store, self.format_name, list(self.files), (16,))
        return Loader(store, manifest, self.options, rank=rank, world_size=world_size)


class TestSampleBySample(_LoaderResumes):
    """Samples that are read one by one."""


class TestWholeFiles(_LoaderResumes):
    """Files of several samples that are read in one piece."""

    format_name = "npz"


class TestDlioOrder(_LoaderResumes):
    """Ascending shares."""

    options = LoaderOptions(batch_size=4, order="dlio", read_threads=1, decode_threads=0, prefetch_batches=0)


def make(store: Store, rank: int = 0, world_size: int = 1, **options: Any) -> Loader:
    manifest = build(store, "npz", [5, 6, 7, 8, 9], (8,))
    return Loader(store, manifest, LoaderOptions(**{"batch_size": 2, **options}), rank=rank, world_size=world_size)


def test_digest_of_the_rest_is_known_after_a_resumption(memory: Store) -> None:
    for world_size in (2, 3):
        with make(memory) as first:
            for batch in first.epoch(1):
                if batch.step == 4:
                    break
            state = first.state_dict()
        digest = samples = 0
        for rank in range(world_size):
            with make(memory, rank, world_size) as loader:
                loader.load_state_dict(state)
                batches = list(loader.epoch(1))
                assert batches[0].step == 5
                samples += sum(len(batch) for batch in batches)
                digest ^= loader.order_digest()
                expected, count = loader.expected_digest(), loader.expected_samples()
        assert (digest, samples) == (expected, count)


def test_ranks_at_different_steps_are_joined_without_loss(memory: Store) -> None:
    states, seen = [], []
    for rank, steps in enumerate((1, 3, 5)):
        with make(memory, rank, 3) as loader:
            for number, batch in enumerate(loader.epoch(1), 1):
                seen += batch.sample_ids.tolist()
                if number == steps:
                    break
            states.append(loader.state_dict())
    with make(memory) as loader:
        loader.load_state_dict(merge_states(states[::-1]))
        for batch in loader.epoch(1):
            seen += batch.sample_ids.tolist()
    assert len(seen) == len(set(seen)) >= 34


def test_a_state_of_another_run_is_refused(memory: Store) -> None:
    with make(memory, seed=1) as loader:
        state = loader.state_dict()
        with make(memory, seed=2) as other, pytest.raises(UsageError, match=r"another dataset, seed or order.*rule"):
            other.load_state_dict(state)
        with pytest.raises(UsageError, match="different runs"):
            merge_states([{**state, "rank": 0, "world_size": 2}, {**state, "rank": 1, "world_size": 2, "files": 4}])
        with pytest.raises(UsageError, match="every rank"):
            merge_states([])
        with pytest.raises(UsageError, match="all ranks"):
            merge_states([{**state, "world_size": 2}])


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": 0},
        {"step": -1},
        {"step": 10_000},
        {"intervals": [[0, 99]]},
        {"intervals": [[5, 9], [0, 3]]},
        {"intervals": "all"},
        {"format": "stoker-loader-state/9"},
        {"rank": 1},
        {"surprise": 1},
        {"rule": {"order": "by taste"}},
    ],
)
def test_a_damaged_state_is_refused(memory: Store, damage: Mapping[str, Any]) -> None:
    with make(memory) as loader, pytest.raises(UsageError, match="state is no good"):
        loader.load_state_dict({**loader.state_dict(), **damage})


def test_only_the_loaded_epoch_can_be_continued(memory: Store) -> None:
    with make(memory) as loader:
        next(loader.epoch(3))
        state = loader.state_dict()
        loader.load_state_dict(state)
        with pytest.raises(UsageError, match="middle of another epoch"):
            loader.epoch(4)
        assert len(list(loader.epoch(loader.next_epoch))) == 16
        assert loader.next_epoch == 4


def test_an_epoch_asked_for_again_begins_at_the_beginning(memory: Store) -> None:
    with make(memory) as loader:
        whole = [batch.sample_ids.tolist() for batch in loader.epoch(1)]
        for batch in loader.epoch(1):
            assert batch.sample_ids.tolist() == whole[0]
            break
        assert [batch.sample_ids.tolist() for batch in loader.epoch(1)] == whole


def test_a_cap_of_steps_holds_across_a_resumption(memory: Store) -> None:
    with make(memory, steps_max=5) as loader:
        assert loader.steps_per_epoch == 5
        steps = loader.epoch(1)
        seen = [next(steps), next(steps)]
        loader.load_state_dict(loader.state_dict())
        seen += list(loader.epoch(1))
        assert [batch.step for batch in seen] == list(range(5))
        assert loader.next_epoch == 2
        assert loader.order_digest() == loader.expected_digest()


class _Forgetful(Loader):
    """Forgets where it stood, as so many do."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "step": 0})


class _Repeating(Loader):
    """Takes up one step too early."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "step": max(int(state["step"]) - 1, 0)})


class _Skipping(Loader):
    """Takes up one step too late."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "step": int(state["step"]) + 1})


@pytest.mark.parametrize("kind", [_Forgetful, _Repeating, _Skipping])
def test_the_suite_finds_loaders_that_resume_wrongly(tmp_path: Path, kind: type[Loader]) -> None:
    class Judged(_LoaderResumes):
        def make_loader(self, folder: Path, rank: int, world_size: int) -> Loader:
            good = super().make_loader(folder, rank, world_size)
            return kind(good._store, good._manifest, self.options, rank=rank, world_size=world_size)

    suite = Judged()
    with pytest.raises(AssertionError):
        suite.test_resuming_goes_on_with_the_next_sample(tmp_path)
    with pytest.raises(AssertionError):
        suite.test_resuming_on_another_number_of_ranks_visits_each_sample_once(tmp_path, (2, 1))
