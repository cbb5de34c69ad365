"""What a resumable loader must do, as tests: go on exactly where it stood, each sample once, whatever happened between.

Subclass `ResumeContract` in a test module and supply `make_loader`; pytest runs the rest:

    class TestMyLoader(ResumeContract):
        samples, batch_size = 53, 4

        def make_loader(self, folder, rank, world_size):
            return MyLoader(...)

The subclass must stand at the top of an importable module: one test runs it in a process of its own and kills that.
"""

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from stoker.core.files import write_atomic


class BatchLike(Protocol):
    """What the suite needs of a batch: the numbers of its samples in the dataset."""

    @property
    def sample_ids(self) -> Any: ...


class ResumableLoader(Protocol):
    """What the suite needs of a loader. Epochs count from 1; `next_epoch` is the one in progress or the next."""

    @property
    def next_epoch(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]:
        """Iterate over the epoch's batches, from where a loaded state stood."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands, as JSON-ready data."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from there."""

    def close(self) -> None:
        """Release everything."""


class ResumeContract:
    """The suite. `samples` in all, `batch_size` a rank; several steps an epoch on each of the world sizes used."""

    samples = 53
    batch_size = 4
    world_sizes: Sequence[int] = (1, 2, 3)

    def make_loader(self, folder: Path, rank: int, world_size: int) -> ResumableLoader:
        """Return a new loader over the same dataset as always; `folder` is there to be used."""
        raise NotImplementedError

    def crew(self, folder: Path, world_size: int, state: Mapping[str, Any] | None = None) -> "Crew":
        """Return a loader for each rank, all at `state`."""
        crew = Crew([self.make_loader(folder, rank, world_size) for rank in range(world_size)])
        if state is not None:
            crew.load([state] * world_size)
        return crew

    def whole(self, folder: Path, world_size: int, epoch: int) -> list[list[int]]:
        """Return the epoch's sample numbers, step by step, of a run that nobody interrupts."""
        crew = self.crew(folder, world_size)
        try:
            return crew.run(epoch)
        finally:
            crew.close()

    def check_once(self, seen: list[list[int]], left_max: int) -> None:
        """Assert that no sample came twice and at most `left_max` did not come."""
        counts = Counter(number for step in seen for number in step)
        assert max(counts.values()) == 1, "a sample came twice"
        assert self.samples - len(counts) <= left_max, "samples were lost"

    def test_an_epoch_visits_each_sample_at_most_once(self, tmp_path: Path) -> None:
        for world_size in self.world_sizes:
            seen = self.whole(tmp_path, world_size, 1)
            assert len(seen) >= 2
            self.check_once(seen, self.batch_size * world_size - 1)

    def test_resuming_goes_on_with_the_next_sample(self, tmp_path: Path) -> None:
        for world_size in self.world_sizes:
            expected = self.whole(tmp_path, world_size, 1)
            for done in range(len(expected)):
                state = self.state_after(tmp_path, world_size, done)
                crew = self.crew(tmp_path, world_size, state)
                assert crew.next_epoch == 1
                assert crew.run(1) == expected[done:]
                crew.close()

    def state_after(self, folder: Path, world_size: int, steps: int) -> dict[str, Any]:
        """Return rank 0's state after so many steps of the first epoch, as it comes back from JSON."""
        crew = self.crew(folder, world_size)
        try:
            crew.run(1, steps)
            state = json.loads(json.dumps(crew.states()[0]))
        finally:
            crew.close()
        assert isinstance(state, dict)
        return state

    def test_resuming_again_and_again_loses_nothing(self, tmp_path: Path) -> None:
        expected = self.whole(tmp_path, 1, 1) + self.whole(tmp_path, 1, 2)
        state: Mapping[str, Any] | None = None
        seen: list[list[int]] = []
        while len(seen) < len(expected):
            crew = self.crew(tmp_path, 1, state)
            seen += crew.run(crew.next_epoch, 1)
            state = crew.states()[0]
            crew.close()
        assert seen == expected

    def test_resuming_at_the_edge_of_an_epoch_begins_the_next(self, tmp_path: Path) -> None:
        first, second = self.whole(tmp_path, 2, 1), self.whole(tmp_path, 2, 2)
        crew = self.crew(tmp_path, 2, self.state_after(tmp_path, 2, len(first)))
        assert crew.next_epoch == 2
        assert crew.run(2) == second
        crew.close()

    def test_epochs_after_the_resumed_one_are_what_they_would_have_been(self, tmp_path: Path) -> None:
        crew = self.crew(tmp_path, 2, self.state_after(tmp_path, 2, 1))
        crew.run(1)
        assert crew.run(2) == self.whole(tmp_path, 2, 2)
        crew.close()

    @pytest.mark.parametrize("world_sizes", [(2, 1), (1, 3), (3, 2), (2, 3, 1), (1, 2, 3, 2)])
    def test_resuming_on_another_number_of_ranks_visits_each_sample_once(
        self, tmp_path: Path, world_sizes: tuple[int, ...]
    ) -> None:
        state: Mapping[str, Any] | None = None
        seen: list[list[int]] = []
        for number, world_size in enumerate(world_sizes):
            crew = self.crew(tmp_path, world_size, state)
            last = number == len(world_sizes) - 1
            assert crew.next_epoch == 1
            seen += crew.run(1, None if last else 1)
            state = crew.states()[-1]
            crew.close()
        self.check_once(seen, self.batch_size * world_sizes[-1] - 1)

    def test_after_sigkill_the_saved_state_continues(self, tmp_path: Path) -> None:
        expected = self.whole(tmp_path, 2, 1)
        file = tmp_path / "saved.json"
        process = multiprocessing.get_context("spawn").Process(
            target=run_and_die, args=(type(self), tmp_path, file, len(expected) // 2)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        saved = json.loads(file.read_text())
        crew = self.crew(tmp_path, 2)
        crew.load(saved["states"])
        assert saved["seen"] + crew.run(1) == expected
        crew.close()


class Crew:
    """One loader a rank, stepped together as a barrier would."""

    def __init__(self, loaders: Sequence[ResumableLoader]) -> None:
        self.loaders = loaders

    @property
    def next_epoch(self) -> int:
        """Return the epoch all are at."""
        (epoch,) = {loader.next_epoch for loader in self.loaders}
        return epoch

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Give each rank its state."""
        for loader, state in zip(self.loaders, states, strict=True):
            loader.load_state_dict(state)

    def states(self) -> list[dict[str, Any]]:
        """Return each rank's state."""
        return [loader.state_dict() for loader in self.loaders]

    def steps(self, epoch: int) -> Iterator[list[int]]:
        """Yield the sample numbers of all ranks, step by step; every rank has equally many steps."""
        for batches in zip(*(loader.epoch(epoch) for loader in self.loaders), strict=True):
            yield [int(number) for batch in batches for number in batch.sample_ids]

    def run(self, epoch: int, steps_max: int | None = None) -> list[list[int]]:
        """Return the sample numbers of the next steps, all that are left when not told how many."""
        seen: list[list[int]] = []
        if steps_max == 0:
            return seen
        for step in self.steps(epoch):
            seen.append(step)
            if len(seen) == steps_max:
                break
        return seen

    def close(self) -> None:
        """Close all loaders."""
        for loader in self.loaders:
            loader.close()


def run_and_die(contract: type[ResumeContract], folder: Path, file: Path, steps: int) -> None:
    """Run two ranks, saving after each step, and kill this process without warning in the middle of the epoch."""
    crew = contract().crew(folder, 2)
    seen: list[list[int]] = []
    for step in crew.steps(1):
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(step)
        write_atomic(file, json.dumps({"states": crew.states(), "seen": seen}).encode())
