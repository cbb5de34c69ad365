"""An epoch's order cut into reading tasks: samples that lie in one file and follow each other in the rank's sequence.

A sample's *place* counts through the rank's sequence: step x batch size + number in the batch.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from stoker.core.seed import derive
from stoker.core.units import KiB, MiB
from stoker.kernels.permuting import mix
from stoker.loader.epoch import EpochPlan
from stoker.loader.manifest import Manifest
from stoker.loader.order import Int64s, SampleSpace

# Planning many samples at once costs a third for each; the first batch does not wait for many.
_SEGMENT_SAMPLES_FIRST: Final = 1024
_SEGMENT_SAMPLES_MAX: Final = 8192
_SEGMENT_STEPS_MAX: Final = 512
_CHUNK_BYTES_MAX: Final = 256 * KiB
_CHUNK_TASKS_MAX: Final = 32
# Where a chunk is one call, what a call costs is shared by more, and a device's queue is filled by one reader.
_BATCHED_BYTES_MAX: Final = 16 * MiB
_BATCHED_TASKS_MAX: Final = 256
_FILES_MIN: Final = 16


class Task(msgspec.Struct, gc=False):
    """Samples of one file that take neighbouring places from `first_place` on, for the batches `step` to `last_step`.

    `size_bytes` is what reading it will take, exactly for whole files, else by the file's mean. `verify` asks for the
    file's checksum.
    """

    file: int
    samples: Sequence[int] | Int64s
    first_place: int
    step: int
    last_step: int
    size_bytes: int
    verify: bool = False


class Chunk(msgspec.Struct, gc=False):
    """What one reader takes at once: several small samples of one batch, or a single task. `step` is the first's."""

    tasks: list[Task]
    step: int
    size_bytes: int

    def releases(self) -> Iterator[tuple[int, int, int]]:
        """Yield each step at whose end bytes and a number of tasks leave the flight: step, bytes, tasks."""
        for task in self.tasks:
            yield task.last_step, task.size_bytes, 1


class Bundle(msgspec.Struct, gc=False):
    """Whole files of one sample each, for neighbouring places of the batch `step`, as columns of numbers."""

    files: Int64s
    first_place: int
    step: int
    size_bytes: int

    def releases(self) -> Iterator[tuple[int, int, int]]:
        """Yield what leaves the flight when the batch is handed over: step, bytes, tasks."""
        yield self.step, self.size_bytes, len(self.files)


Work = Chunk | Bundle


class FileChoice:
    """Draws the files whose checksum is compared: a share of `ratio`, another one for each key."""

    def __init__(self, ratio: float, seed: int, epoch: int) -> None:
        self.ratio = ratio
        self._key = np.uint64(derive(seed, "verify", epoch))
        self._limit = int(ratio * 2.0**64)

    def __contains__(self, file: int) -> bool:
        if self.ratio in (0.0, 1.0):
            return self.ratio == 1.0
        return int(mix(np.array([file], dtype=np.uint64) ^ self._key)[0]) < self._limit


class Planner:
    """Cuts what is left of a rank's epoch into work, in the order of the batches. Not safe from threads."""

    def __init__(
        self,
        plan: EpochPlan,
        manifest: Manifest,
        space: SampleSpace,
        choice: FileChoice,
        *,
        batched: bool = False,
        bundles: bool = False,
        alone_bytes: int = 0,
    ) -> None:
        """With `batched` a reader takes many ranges at once. With `bundles`, too, the files are read whole, hold one
        sample each, and are planned as columns; files of `alone_bytes` or more by themselves (0: none).
        """
        self.plan = plan
        self._bundles = bundles
        self._alone_bytes = alone_bytes or sys.maxsize
        self._bytes_max = _BATCHED_BYTES_MAX if batched else _CHUNK_BYTES_MAX
        self._tasks_max = _BATCHED_TASKS_MAX if batched else _CHUNK_TASKS_MAX
        self._manifest = manifest
        self._space = space
        self._choice = choice
        self._batch = plan.dealing.batch_size

    def work(self, open_batch: Callable[[int, Int64s], None], *, readers: int) -> Iterator[Work]:
        """Yield the work in order; `open_batch` is told each step and its sample numbers before any work for it."""
        if self._bundles:
            # One call costs as much as ten files: whole batches go to a reader, while the others read the next ones.
            return self._bundled(open_batch, max(1, min(self._tasks_max, max(self._batch // readers, _FILES_MIN))))
        return self._chunks(open_batch, max(1, min(self._tasks_max, self._batch // (2 * readers))))

    def _bundled(self, open_batch: Callable[[int, Int64s], None], files_max: int) -> Iterator[Bundle]:
        for first_step, ids, _ in self._segments(open_batch):
            files, _ = self._space.locate(ids)
            sizes_bytes = self._manifest.sizes_bytes[files]
            largest_bytes = max(1, int(sizes_bytes.max()))
            fitting = 1 if largest_bytes >= self._alone_bytes else _BATCHED_BYTES_MAX // largest_bytes
            stride = max(1, min(files_max, fitting))
            for at in range(0, len(files), self._batch):
                step = first_step + at // self._batch
                for start in range(at, at + self._batch, stride):
                    end = min(start + stride, at + self._batch)
                    yield Bundle(
                        files[start:end], first_step * self._batch + start, step, int(sizes_bytes[start:end].sum())
                    )

    def _chunks(self, open_batch: Callable[[int, Int64s], None], tasks_max: int) -> Iterator[Chunk]:
        chunk: list[Task] = []
        held_bytes = 0
        for task in self._tasks(open_batch):
            full = len(chunk) >= tasks_max or held_bytes + task.size_bytes > self._bytes_max
            if chunk and (full or task.step != chunk[0].step):
                yield Chunk(chunk, chunk[0].step, held_bytes)
                chunk, held_bytes = [], 0
            chunk.append(task)
            held_bytes += task.size_bytes
        if chunk:
            yield Chunk(chunk, chunk[0].step, held_bytes)

    def _tasks(self, open_batch: Callable[[int, Int64s], None]) -> Iterator[Task]:
        """Yield the tasks; a run of samples that goes on into the next segment is held back until it ends."""
        held: _Run | None = None
        for first_step, ids, windows in self._segments(open_batch):
            files, offsets = self._space.locate(ids)
            first_place = first_step * self._batch
            keys = self._keys(first_place, files, windows)
            for start, stop in _runs(keys):
                run = _Run(int(keys[start]), int(files[start]), [offsets[start:stop]], first_place + start)
                if held is not None and held.key == run.key:
                    held.samples.extend(run.samples)
                    continue
                if held is not None:
                    yield self._task(held)
                held = run
        if held is not None:
            yield self._task(held)

    def _segments(self, open_batch: Callable[[int, Int64s], None]) -> Iterator[tuple[int, Int64s, Int64s | None]]:
        plan, batch = self.plan, self._batch
        samples = _SEGMENT_SAMPLES_FIRST
        last = plan.first_step
        while last < plan.last_step:
            first = last
            last = min(first + max(1, min(samples // batch, _SEGMENT_STEPS_MAX)), plan.last_step)
            samples = min(2 * samples, _SEGMENT_SAMPLES_MAX)
            ids, windows = plan.order.at(plan.positions(first, last))
            for step in range(first, last):
                open_batch(step, ids[(step - first) * batch : (step - first + 1) * batch])
            yield first, ids, windows

    def _keys(self, first_place: int, files: Int64s, windows: Int64s | None) -> Int64s:
        """Return a number for each sample that is equal for neighbours which are read together."""
        if windows is not None:
            return windows
        steps = (first_place + np.arange(len(files))) // self._batch
        return steps * self._space.files + files

    def _task(self, run: "_Run") -> Task:
        samples = run.samples[0] if len(run.samples) == 1 else np.concatenate(run.samples)
        count = len(samples)
        file_bytes, file_samples = int(self._manifest.sizes_bytes[run.file]), int(self._manifest.samples[run.file])
        verify = bool(self._choice.ratio) and run.file in self._choice
        return Task(
            file=run.file,
            samples=samples.tolist() if count == 1 else samples,
            first_place=run.first_place,
            step=run.first_place // self._batch,
            last_step=(run.first_place + count - 1) // self._batch,
            size_bytes=file_bytes if count == file_samples else -(-file_bytes * count // file_samples),
            verify=verify,
        )


class _Run(msgspec.Struct):
    key: int
    file: int
    samples: list[Int64s]
    first_place: int


def _runs(keys: Int64s) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each stretch of equal keys."""
    borders = (np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist()
    yield from zip([0, *borders], [*borders, len(keys)], strict=True)
