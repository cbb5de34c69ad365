"""Training as one rank sees it: batch, compute, barrier, until the epochs, the steps or the time are used up.

Every epoch reads the storage anew: the loader keeps nothing from one to the next, the dataset's cached pages are
dropped before it (each rank of a host its share), and its bytes are entered in a ledger of its own.

All ranks stop at the same step: whoever finds a reason (the time is up, a signal came) says so at the barrier, and the
barrier tells all. Where steps have no barrier, each stops by itself and the epoch's end makes all agree.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from stoker.bench.workloads import cache
from stoker.bench.workloads.accelerator import Accelerator
from stoker.bench.workloads.comm import Comm
from stoker.bench.workloads.counters import Sources
from stoker.bench.workloads.meters import Meters
from stoker.bench.workloads.progress import Progress, progress_of, step_histograms
from stoker.bench.workloads.rank_book import RankBook, seen_through
from stoker.bench.workloads.reading import reading_of
from stoker.bench.workloads.reports import PhaseNote, RankReport
from stoker.bench.workloads.source import dataset_manifest, evaluation_loader, store_facts, training_loader
from stoker.bench.workloads.steps import EVALUATION, TRAIN, Rows, StepRecorder, column
from stoker.bench.workloads.training_saves import TrainingSaves
from stoker.core import clock
from stoker.core.checkpoints import CheckpointNote
from stoker.core.histogram import merge_encoded
from stoker.core.plan import TrainingPlan
from stoker.core.seed import derive
from stoker.loader.batch import Batch
from stoker.loader.loader import Loader
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store
from stoker.storage.opening import open_store

_CAPACITY_MAX: Final = 1 << 20
_FIRST_BLOCK: Final = 0
NOT_EVICTED: Final = "the dataset's cached pages cannot be dropped here: parts of it may come from memory"


@dataclass(frozen=True)
class RankJob:
    """What a rank does, with whom, and whom it tells. `stopped` is asked before each barrier."""

    plan: TrainingPlan
    comm: Comm
    target_url: str
    folder: Path
    stopped: Callable[[], bool] = lambda: False
    on_progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True)
class _Split:
    """A split of the dataset with the loader that reads it and the accelerator that takes it."""

    kind: int
    manifest: Manifest
    loader: Loader
    accelerator: Accelerator
    steps: int
    barrier: bool


@dataclass(frozen=True)
class _Pass:
    """A training epoch or an evaluation under way; its steps begin at `first_row` of the recorder."""

    split: _Split
    epoch: int
    first_row: int


class _Batches(Protocol):
    """A pass over a dataset that can be broken off."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def close(self) -> None: ...


def run_rank(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured; its log in the run folder tells the same.

    Raises what the store, the dataset or the loader raise, and RunAborted when another rank failed; the log ends with
    the reason then.
    """
    with closing(open_store(job.target_url)) as store:
        return seen_through(_Rank(job, store))


class _Rank:
    """One rank's run."""

    def __init__(self, job: RankJob, store: Store) -> None:
        self._job, self._plan, self._comm, self._store = job, job.plan, job.comm, store
        self._recorder = StepRecorder(_expected_steps(job.plan))
        self._meters = Meters(Sources(store, host_wide=job.comm.host_rank == 0))
        self._pass: _Pass | None = None
        self._stop = False
        self._block = _FIRST_BLOCK
        self._deadline_ns = 0
        facts = store_facts(store, job.target_url)
        self._book = RankBook(job.comm, job.folder, facts, self._recorder, self._meters.snapshot, self._tell)
        self._report, self._log = self._book.report, self._book.log
        self._saver = self._made_saver()

    def _made_saver(self) -> TrainingSaves | None:
        """Return what saves the plan's checkpoints, None for a plan without."""
        if self._plan.checkpoint is None:
            return None
        return TrainingSaves(self._plan, self._comm, self._wants_stop, self._note_checkpoint)

    def _note_checkpoint(self, word: str, note: CheckpointNote) -> None:
        if word == "checkpoint_ended":
            self._report.checkpoints.append(note)
        self._log.event(word, checkpoint=note)

    def run(self) -> None:
        """Run all epochs and evaluations."""
        splits = [self._training_split()]
        try:
            if self._plan.evaluation is not None:
                splits.append(self._evaluation_split())
            epoch = 0
            while not self._stop and (self._plan.epochs == 0 or epoch < self._plan.epochs):
                epoch += 1
                for split in splits:
                    if self._has_turn(split, epoch):
                        self._run_pass(split, epoch)
        finally:
            for split in splits:
                split.loader.close()
            self._report.reading = reading_of(splits[0].loader)
            self._keep_histograms(splits)
            if self._saver is not None:
                self._saver.close()

    def _training_split(self) -> _Split:
        plan, rank = self._plan, self._comm.rank
        manifest = dataset_manifest(self._store, plan.dataset)
        loader = training_loader(self._store, manifest, plan, rank=rank)
        steps = min(loader.steps_per_epoch, plan.steps_max) if plan.steps_max else loader.steps_per_epoch
        accelerator = Accelerator(plan.computation, seed=plan.seed, rank=rank)
        return _Split(TRAIN, manifest, loader, accelerator, steps, plan.barrier)

    def _evaluation_split(self) -> _Split:
        """Return the evaluation's split; its steps have no barrier, for there are no gradients to exchange."""
        plan, rank = self._plan, self._comm.rank
        assert plan.evaluation is not None
        manifest = dataset_manifest(self._store, plan.evaluation.dataset)
        loader = evaluation_loader(self._store, manifest, plan, rank=rank)
        accelerator = Accelerator(plan.evaluation.computation, seed=derive(plan.seed, "evaluation"), rank=rank)
        return _Split(EVALUATION, manifest, loader, accelerator, loader.steps_per_epoch, barrier=False)

    def _has_turn(self, split: _Split, epoch: int) -> bool:
        """Tell whether the split is run in this epoch, or after it."""
        evaluation = self._plan.evaluation
        if self._stop or split.kind == TRAIN or evaluation is None:
            return not self._stop
        since = epoch - evaluation.after_epoch
        return since >= 0 and since % max(evaluation.epochs_between, 1) == 0

    def _run_pass(self, split: _Split, epoch: int) -> None:
        loader = split.loader
        note = PhaseNote(epoch, split.kind)
        self._pass = _Pass(split, epoch, len(self._recorder))
        if not self._empty_cache(split, note):
            self._stop = True
            return
        self._log.event("phase_started", phase=note)
        if self._plan.duration_seconds and not self._deadline_ns:
            self._deadline_ns = clock.monotonic_ns() + round(self._plan.duration_seconds * 1e9)
        batches = cast("_Batches", loader.epoch(epoch))
        with self._meters.window(loader) as window, closing(batches):
            self._take_steps(self._pass, batches)
        note.ledger = window.ledger
        self._complete(note, self._pass)
        if split.kind == TRAIN:
            self._report.reading = reading_of(loader)
        self._log.event("phase_ended", phase=note, snapshot=self._meters.snapshot(), reading=self._report.reading)
        self._stop = self._comm.barrier(self._wants_stop())
        if self._saver is not None and split.kind == TRAIN and not self._stop:
            self._stop = self._saver.after_epoch(epoch, split.steps)

    def _take_steps(self, phase: _Pass, batches: _Batches) -> None:
        """Take the steps of a pass until it ends or the run is to stop. The loop that is measured."""
        split, epoch = phase.split, phase.epoch
        self._block = _FIRST_BLOCK
        request_ns = clock.monotonic_ns()
        for step, batch in enumerate(batches):
            ready_ns = clock.monotonic_ns()
            start_ns, done_ns = split.accelerator.compute(epoch, step)
            wants_stop = self._wants_stop()
            stop = self._comm.barrier(wants_stop) if split.barrier else wants_stop
            end_ns = clock.monotonic_ns()
            times = (request_ns, ready_ns, start_ns, done_ns, end_ns)
            counts = (len(batch), batch.payload_bytes, batch.requested_bytes)
            self._recorder.add((epoch, split.kind, self._block, step, *times, *counts))
            if stop:
                return
            if self._log.failure is not None:
                raise self._log.failure
            del batch  # its buffers go back before the next one is waited for
            if self._saver is not None and split.kind == TRAIN and self._save_at(epoch, step + 1):
                return
            request_ns = clock.monotonic_ns()

    def _save_at(self, epoch: int, step: int) -> bool:
        """Save a checkpoint if one is due after this step, which ends a block; return whether the run is to stop."""
        assert self._saver is not None
        if not self._saver.is_due(step):
            return False
        self._block += 1
        self._stop = self._saver.save(epoch, step)
        return self._stop

    def _wants_stop(self) -> bool:
        late = bool(self._deadline_ns) and clock.monotonic_ns() >= self._deadline_ns
        return late or self._stop or self._job.stopped()

    def _empty_cache(self, split: _Split, note: PhaseNote) -> bool:
        """Drop this rank's share of the dataset from the page cache, if planned, and see what is left of all of it.

        Returns False when the run is to stop: the cache may then not be empty, so no step may be taken.
        """
        comm = self._comm
        mine = cache.share(split.manifest, host_rank=comm.host_rank, host_size=comm.host_size)
        if self._plan.evict and not cache.evict(self._store, split.manifest, mine, stopped=self._wants_stop):
            self._note(NOT_EVICTED)
        comm.barrier()
        found = cache.residency(self._store, split.manifest, mine)
        if found is not None:
            note.resident_bytes, note.probed_bytes = found
        return not comm.barrier(self._wants_stop())

    def _note(self, text: str) -> None:
        if text not in self._report.notes and self._store.capabilities.io_mode == "buffered":
            self._report.notes.append(text)

    def _complete(self, note: PhaseNote, done: _Pass) -> None:
        """Fill in what is known once a pass has ended.

        When it was cut short, what was made ready for steps that were not taken was not wanted after all.
        """
        loader = done.split.loader
        note.complete = len(self._recorder) - done.first_row == done.split.steps
        note.expected_samples = loader.expected_samples()
        note.dropped_samples = loader.dropped_samples
        note.digest = f"{loader.order_digest():016x}"
        if not note.complete:
            unwanted_bytes = note.ledger.wanted_bytes - note.ledger.delivered_bytes
            note.ledger.wanted_bytes -= unwanted_bytes
            self._meters.correct_wanted(unwanted_bytes)
        elif self._comm.rank == 0:
            note.expected_digest = f"{loader.expected_digest():016x}"
        self._report.phases.append(note)

    def _keep_histograms(self, splits: list[_Split]) -> None:
        """Keep the loaders' histograms and those of the training steps."""
        rows = self._recorder.rows()
        found = [split.loader.histograms for split in splits]
        found.append(step_histograms(rows[column(rows, "phase") == TRAIN]))
        encoded = [{name: histogram.encode() for name, histogram in part.items()} for part in found]
        encoded += [self._saver.histograms] if self._saver is not None else []
        self._report.histograms = merge_encoded(encoded)

    def _tell(self) -> None:
        """Tell how far this rank is; called on the log's thread."""
        phase = self._pass
        if phase is not None:
            rows = self._recorder.rows(phase.first_row)
            split = phase.split
            self._job.on_progress(progress_of(rows, phase=split.kind, epoch=phase.epoch, steps=split.steps))

    def broken_off(self, error: BaseException) -> None:
        """End the log with the reason: an error of this rank's own, or that of another."""
        report = self._report
        self._book.broken_off(error, report.notes, histograms=report.histograms, reading=report.reading)

    def ended(self) -> tuple[RankReport, Rows]:
        """End the log and return the report and the steps."""
        report = self._report
        report.snapshot, report.finished = self._meters.snapshot(), True
        self._log.event(
            "rank_ended",
            histograms=report.histograms,
            notes=report.notes,
            snapshot=report.snapshot,
            reading=report.reading,
        )
        self._log.close()
        return report, self._recorder.rows()


def _expected_steps(plan: TrainingPlan) -> int:
    """Return the steps to make room for beforehand, as far as they can be known."""
    steps = plan.dataset.samples // (plan.batch_size * plan.ranks)
    steps = min(steps, plan.steps_max) if plan.steps_max else steps
    return min(max(steps, 1) * max(plan.epochs, 1) + 1, _CAPACITY_MAX)
