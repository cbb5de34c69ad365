"""Saving and loading checkpoints as one rank does it, with the others at the barrier, and what came of each.

The clock of a save or a load starts when the barrier before it opens and stops when this rank's own files are written
(and synced) or read. Only when all ranks have written theirs does rank 0 commit the checkpoint.
"""

from collections.abc import Callable
from typing import Final

from stoker.bench.workloads.comm import Comm
from stoker.bench.workloads.meters import Meters
from stoker.checkpoint.layout import totals
from stoker.checkpoint.manifest import begin, commit, load_manifest, remove, require_same, shards
from stoker.checkpoint.read import Reader, evict, resident_bytes
from stoker.checkpoint.timing import StageClock
from stoker.checkpoint.write import Shard, Staging, Writer
from stoker.core import clock
from stoker.core.checkpoints import LOAD, SAVE, CheckpointNote, CheckpointPlan
from stoker.core.errors import InterruptedRunError
from stoker.core.histogram import merge_encoded
from stoker.core.ledger import Ledger
from stoker.core.plan import TrainingPlan
from stoker.storage.api import KnowsUnwritten, Store

NOT_EVICTED: Final = "the checkpoint's cached pages cannot be dropped here: parts of it may be read from memory"
NOT_KEPT: Final = "null:// keeps nothing, so no commit was looked at and nothing read was verified"
OnNote = Callable[[str, CheckpointNote], None]


def plan_of(plan: TrainingPlan) -> CheckpointPlan:
    """Return the plan's checkpoints, of a plan that has some."""
    assert plan.checkpoint is not None
    return plan.checkpoint


class CheckpointWork:
    """One rank's saves and loads. `on_note` gets what is to be logged, a word and the note it is about.

    What it counts is cumulative, as `Meters` wants it.
    """

    def __init__(
        self, plan: TrainingPlan, comm: Comm, store: Store, meters: Meters, stopped: Callable[[], bool], on_note: OnNote
    ) -> None:
        self._plan, self._what, self._comm, self._store = plan, plan_of(plan), comm, store
        self._meters, self._stopped, self._on_note = meters, stopped, on_note
        self._sums = totals(self._what.shape, plan.ranks)
        self._keeps = store.capabilities.io_mode != "null"
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self.current: CheckpointNote | None = None
        self.done: list[CheckpointNote] = []
        self.remarks: list[str] = [] if self._keeps else [NOT_KEPT]
        self.histograms: dict[str, str] = {}
        self._ledger = Ledger()
        self._stages: dict[str, float] = {}
        self._written: list[str] = []

    @property
    def ledger(self) -> Ledger:
        """Return a copy of the bytes entered so far."""
        ledger = Ledger()
        ledger.add(self._ledger)
        return ledger

    @property
    def stall_seconds(self) -> dict[str, float]:
        """Return how long this rank saved or loaded so far, by stage."""
        return dict(self._stages)

    busy_seconds = stall_seconds

    @property
    def written(self) -> list[str]:
        """Return the ids of the checkpoints that were committed and are kept, in order."""
        return list(self._written)

    def save(self, number: int, name: str) -> bool:
        """Save one checkpoint with all ranks under its id; return whether the run is to stop.

        Raises what the store raises, NoSpaceError among it: the checkpoint is torn then, and known to be.
        """
        if self._comm.rank == 0 and self._keeps:
            begin(self._store, self._what.folder, name)
        mine = self._shards(name, self._what.content_seed)
        writer = self._made_writer(mine)
        if self._comm.barrier(self._stopped()):
            return True
        note = self._start(SAVE, number, name)
        stop = self._timed(note, lambda timing: self._write(writer, mine, timing))
        if not stop:
            note.bytes, note.files = sum(shard.file.size_bytes for shard in mine), len(mine)
            self._commit(name, note)
            note.dirty_bytes = self._unwritten(mine)
            note.complete = True
        self._end(note)
        return stop or self._drop_old(name)

    def settle(self) -> bool:
        """Wait until rank 0 has committed what all saved, so that any may load it; True: the run is to stop."""
        return self._comm.barrier(self._stopped())

    def load(self, number: int, name: str) -> bool:
        """Load one checkpoint with all ranks; return whether the run is to stop.

        Raises CorruptError for a torn one and for bytes that were not written, UsageError for another model's.
        """
        mine = self._shards(name, self._seed_of(name))
        if self._keeps and self._plan.evict and not evict(self._store, mine) and NOT_EVICTED not in self.remarks:
            self.remarks.append(NOT_EVICTED)
        resident = resident_bytes(self._store, mine)
        reader = self._made_reader()
        if self._comm.barrier(self._stopped()):
            return True
        note = self._start(LOAD, number, name)
        note.resident_bytes = resident
        stop = self._timed(note, lambda timing: self._read(reader, mine, timing, note))
        if not stop:
            note.bytes, note.files = sum(shard.file.size_bytes for shard in mine), len(mine)
        note.complete = not stop
        self._end(note)
        return stop

    def _shards(self, name: str, content_seed: int) -> list[Shard]:
        what = self._what
        return shards(
            what.folder, name, what.shape, ranks=self._plan.ranks, rank=self._comm.rank, content_seed=content_seed
        )

    def _seed_of(self, name: str) -> int:
        if not self._keeps:
            return self._what.content_seed
        manifest = load_manifest(self._store, self._what.folder, name)
        require_same(manifest, self._what.shape, self._plan.ranks, where=f"{self._store.url} {name}")
        return manifest.content_seed

    def _start(self, operation: str, number: int, name: str) -> CheckpointNote:
        note = CheckpointNote(operation, number, name, clock.utc_text(), clock.monotonic_ns())
        self.current = note
        self._on_note("checkpoint_started", note)
        note.started_utc, note.started_ns = clock.utc_text(), clock.monotonic_ns()
        return note

    def _timed(self, note: CheckpointNote, work: Callable[[StageClock], None]) -> bool:
        """Do the work of a save or a load and wait for the others; return whether the run is to stop.

        The window in which others count ends when all are done: a host's device serves all of its ranks.
        """
        timing, interrupted = StageClock(), False
        with self._meters.window(self) as window:
            try:
                work(timing)
            except InterruptedRunError:
                interrupted = True
            note.seconds = (clock.monotonic_ns() - note.started_ns) / 1e9
            note.stage_seconds = _split(timing.seconds, note.seconds)
            for stage, seconds in note.stage_seconds.items():
                self._stages[stage] = self._stages.get(stage, 0.0) + seconds
            stop = self._meet(note, interrupted)
        note.ledger, note.counters = window.ledger, window.counters
        self.histograms = merge_encoded([self.histograms, timing.encoded()])
        return stop

    def _made_writer(self, mine: list[Shard]) -> Writer:
        what = self._what
        self._writer = self._writer or Writer(self._store, Staging(what.buffers, what.buffer_bytes, what.writers))
        self._writer.warm(mine)
        return self._writer

    def _write(self, writer: Writer, mine: list[Shard], timing: StageClock) -> None:
        writer.write(mine, timing, on_bytes=self._count_written, stopped=self._stopped)
        self._ledger.files_written += len(mine)

    def _made_reader(self) -> Reader:
        what = self._what
        ratio = what.verify_ratio if self._keeps else 0.0
        self._reader = self._reader or Reader(
            self._store, depth=what.depth, piece_bytes=what.buffer_bytes, verify_ratio=ratio
        )
        return self._reader

    def _read(self, reader: Reader, mine: list[Shard], timing: StageClock, note: CheckpointNote) -> None:
        note.verified_bytes = reader.read(mine, timing, self._ledger, on_bytes=self._count_read, stopped=self._stopped)

    def _count_written(self, size: int) -> None:
        self._ledger.written_bytes += size
        self._count_read(size)

    def _count_read(self, size: int) -> None:
        if self.current is not None:
            self.current.bytes += size

    def _meet(self, note: CheckpointNote, interrupted: bool) -> bool:
        """Wait for all ranks to be done; return whether any was broken off, so that nothing may be committed."""
        stop = self._comm.barrier(interrupted)
        now_ns = clock.monotonic_ns()
        note.all_seconds = (now_ns - note.started_ns) / 1e9
        if self._what.rank_sync:
            note.seconds = note.all_seconds
        return stop

    def _commit(self, name: str, note: CheckpointNote) -> None:
        if self._comm.rank == 0 and self._keeps:
            what = self._what
            commit(
                self._store,
                what.folder,
                name,
                shape=what.shape,
                ranks=self._plan.ranks,
                sums=self._sums,
                content_seed=what.content_seed,
            )
            note.all_seconds = (clock.monotonic_ns() - note.started_ns) / 1e9
        self._written.append(name)

    def _unwritten(self, mine: list[Shard]) -> int | None:
        """Return how much of what was written is not on the device yet."""
        if not self._keeps or not isinstance(self._store, KnowsUnwritten):
            return None
        found = [self._store.unwritten_bytes(shard.key) for shard in mine]
        return None if None in found else sum(each or 0 for each in found)

    def _end(self, note: CheckpointNote) -> None:
        self.current = None
        self.done.append(note)
        self._on_note("checkpoint_ended", note)

    def _drop_old(self, name: str) -> bool:
        """Remove what the keep policy lets go, once all ranks have seen the commit of `name`."""
        keep = self._what.keep
        if not keep or not self._keeps or len(self._written) <= keep:
            return False
        stop = self._comm.barrier()
        while len(self._written) > keep:
            self._remove(self._written.pop(0))
        return stop

    def clean(self) -> None:
        """Remove what this run wrote and still keeps."""
        self._comm.barrier()
        while self._written:
            self._remove(self._written.pop())

    def _remove(self, name: str) -> None:
        if self._comm.rank == 0 and self._keeps:
            remove(self._store, self._what.folder, name)


def _split(busy: dict[str, float], seconds: float) -> dict[str, float]:
    """Return the seconds that passed, split as the stages were at work: several at once share what passed."""
    whole = sum(busy.values())
    return {stage: seconds * part / whole for stage, part in busy.items()} if whole > 0 else {}
