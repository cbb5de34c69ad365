"""The vector-database workload as one rank sees it: load its share of the vectors, or ask queries until time is up.

A rank is one blocking client with a connection of its own. What a request took is noted between two looks at the
clock with nothing but the call between them; queries are chosen before, answers are kept after. Every rank asks the
queries in an order of its own, so that no two play the same ones to a cache at the same time.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from stoker.bench.workloads.comm import Comm
from stoker.bench.workloads.counters import BlockDevice, Sources, device_under
from stoker.bench.workloads.meters import Meters
from stoker.bench.workloads.mounts import mount_of
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.rank_book import RankBook, seen_through
from stoker.bench.workloads.reports import RankReport, StoreFacts
from stoker.bench.workloads.steps import INDEX as INDEX_PHASE
from stoker.bench.workloads.steps import INSERT as INSERT_PHASE
from stoker.bench.workloads.steps import SEARCH as SEARCH_PHASE
from stoker.bench.workloads.steps import Rows, StepRecorder
from stoker.bench.workloads.training import RankJob
from stoker.bench.workloads.vector_load import load_share
from stoker.bench.workloads.vector_metrics import Latencies, save_rank_files
from stoker.core import clock
from stoker.core.errors import EXIT_TIMEOUT, StokerError
from stoker.core.ledger import Ledger
from stoker.core.vectors import LOADING, QUERY_COUNT, Answer, VectorNote, VectorPlan
from stoker.storage.opening import open_store
from stoker.vectors.engine import Address, Searcher, VectorEngine, engine_kind, require_same
from stoker.vectors.making import Vectors, make_queries

FAILURES_MAX: Final = 5
"""So many requests in a row without an answer end a rank: the database is gone."""
ROWS_MAX: Final = 1 << 20
"""Requests that are kept one by one; those after them are counted in the histograms alone."""


def run_vectors(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured; its log in the run folder tells the same.

    Raises what the engine raises, and RunAborted when another rank failed; the log ends with the reason then.
    """
    what = job.plan.vectors
    assert what is not None
    with closing(engine_kind(what.engine).open(address_of(what))) as engine:
        return seen_through(_Rank(job, what, engine))


def address_of(what: VectorPlan) -> Address:
    """Return where a plan's database listens: `host:port`, and behind a bar the folder of an embedded one."""
    place, _, uri = what.address.partition("|")
    host, _, port = place.rpartition(":")
    return Address(host=host, port=int(port), uri=uri, database=what.database)


class _Counted:
    """What the meters ask; a database moves its bytes by itself, so the ledger holds failed requests alone."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.busy_seconds: dict[str, float] = {}
        self.stall_seconds: dict[str, float] = {}


class _Rank:
    """One rank's run."""

    def __init__(self, job: RankJob, what: VectorPlan, engine: VectorEngine) -> None:
        self._job, self._what, self._engine, self._comm = job, what, engine, job.comm
        folder = what.storage_root or engine.data_folder
        self._disk = Disk(folder, told_by=job.comm.host_rank == 0)
        store = open_store("null://")
        self._meters = Meters(Sources(store, host_wide=job.comm.host_rank == 0))
        self._counted, self._note = _Counted(), VectorNote()
        self._recorder = StepRecorder()
        self._latencies = Latencies()
        self._first: dict[int, Answer] = {}
        self._reports: list[dict[str, float]] = []
        self._told = self._reported = self._in_a_row = 0
        self._facts = self._store_facts(folder)
        self._book = RankBook(job.comm, job.folder, self._facts, self._recorder, self._meters.snapshot, self._tick)
        self._report, self._log = self._book.report, self._book.log

    def _store_facts(self, folder: str) -> StoreFacts:
        mount = mount_of(folder) if folder else None
        return StoreFacts(
            url=f"{self._what.engine}://{self._what.address.partition('|')[0]}",
            io_mode="database",
            io_mode_requested="database",
            kind=mount.kind if mount is not None else "",
            device=self._disk.name,
        )

    def run(self) -> None:
        """Load, or search."""
        if self._what.work == LOADING:
            with self._meters.window(self._counted), self._disk.counting(self._note):
                load_share(self._job, self._what, self._engine, self._note)
            self._note.complete = not self._job.stopped()
            return
        with ready_within(self._what.ready_seconds, self._comm):
            searcher, queries = self._ready()
            if self._comm.barrier(self._job.stopped()):
                return
        with self._meters.window(self._counted), self._disk.counting(self._note):
            self._search(searcher, queries)
        self._note.complete = not self._comm.barrier(self._job.stopped())

    def _ready(self) -> tuple[Searcher, Vectors]:
        """Return what searches, once it has answered: the first search of a connection costs more than the others."""
        what = self._what
        facts = self._engine.describe(what.collection)
        if what.ours:
            require_same(what.index, facts)
        queries = make_queries(what.recipe, what.queries_made, what.query_seed)
        searcher = self._engine.searcher(facts, what.k, what.effort)
        searcher.search(queries[: what.batch])
        return searcher, queries

    def _search(self, searcher: Searcher, queries: Vectors) -> None:
        """Ask until time or queries are up. Raises the error that several requests in a row ended in."""
        what, note = self._what, self._note
        begin_ns = clock.monotonic_ns()
        end_ns = begin_ns + round(what.seconds * 1e9)
        for row, asked in enumerate(self._batches(len(queries)), 1):
            if self._job.stopped() or (what.mode != QUERY_COUNT and clock.monotonic_ns() >= end_ns):
                break
            chosen, found = queries[asked], None
            start_ns = clock.monotonic_ns()
            try:
                found = searcher.search(chosen)
            except StokerError as error:
                self._failed(error)
            done_ns = clock.monotonic_ns()
            note.seconds = (done_ns - begin_ns) / 1e9
            self._keep(row, (start_ns, done_ns), asked, found)

    def _keep(self, row: int, times: tuple[int, int], asked: list[int], found: list[list[int]] | None) -> None:
        """Note one request: its times and, the first time that a query was answered, the answer."""
        note, count = self._note, len(asked) if found is not None else 0
        note.requests, note.queries = row, note.queries + count
        start_ns, done_ns = times
        if row <= ROWS_MAX:
            marks = (start_ns, done_ns, done_ns, done_ns, done_ns)
            self._recorder.add((1, SEARCH_PHASE, 0, row, *marks, count, 0, 0))
        if found is None:
            return
        self._in_a_row = 0
        if row % self._what.report_count == 0:
            self._reports.append({"requests": row, "queries": note.queries, "seconds": note.seconds})
        self._latencies.add(done_ns - start_ns, count)
        for query, ids in zip(asked, found, strict=True):
            if query not in self._first:
                self._first[query] = Answer(query, ids)

    def _failed(self, error: StokerError) -> None:
        note = self._note
        note.failed += 1
        note.error = note.error or str(error)
        self._counted.ledger.errors = note.failed
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_MAX:
            raise error

    def _batches(self, count: int) -> Iterator[list[int]]:
        """Yield the queries of each request: all of them in an order of this rank's own, over and over."""
        what, rank, ranks = self._what, self._comm.rank, self._comm.size
        order = np.random.Generator(np.random.Philox(key=what.recipe.seed + rank)).permutation(count)
        left = what.queries * (rank + 1) // ranks - what.queries * rank // ranks if what.mode == QUERY_COUNT else -1
        at = 0
        while left:
            size = what.batch if left < 0 else min(what.batch, left)
            yield [int(order[(at + step) % count]) for step in range(size)]
            at, left = (at + size) % count, left - size if left > 0 else left

    def _tick(self) -> None:
        """Tell how far this rank is, and log what it was answered so far; called on the log's thread."""
        note = self._note
        if self._what.work != LOADING and note.requests:
            answers, reports = list(self._first.values())[self._told :], self._reports[self._reported :]
            self._told, self._reported = self._told + len(answers), self._reported + len(reports)
            self._log.event(
                "vectors_seen", vectors=note, answers=answers, reports=reports, snapshot=self._meters.snapshot()
            )
        loading = INDEX_PHASE if note.building else INSERT_PHASE
        phase = loading if self._what.work == LOADING else SEARCH_PHASE
        done, every = self._share(note)
        if done:
            self._job.on_progress(Progress(phase=phase, epoch=1, step=done, steps=every))

    def _share(self, note: VectorNote) -> tuple[int, int]:
        """Return how much is done of how much; a timed search has no end in requests."""
        what, size = self._what, self._comm.size
        if what.work == LOADING and note.building:
            return note.indexed, what.recipe.vectors
        if what.work == LOADING:
            return note.vectors, max(1, what.recipe.vectors // size)
        return note.requests, max(1, what.queries // size // what.batch) if what.mode == QUERY_COUNT else 0

    def broken_off(self, error: BaseException) -> None:
        """End the log with the reason: an error of this rank's own, or that of another."""
        self._book.broken_off(error, (), vectors=self._note, histograms=self._latencies.encoded())

    def ended(self) -> tuple[RankReport, Rows]:
        """End the log and return the report and the requests."""
        report = self._report
        report.snapshot, report.finished = self._meters.snapshot(), True
        report.histograms, report.vectors = self._latencies.encoded(), self._note
        answers = list(self._first.values())
        report.answers = answers
        if self._note.requests > ROWS_MAX:
            report.notes = [f"rank {self._comm.rank}: requests after the first {ROWS_MAX} are in the histograms alone"]
        self._log.event(
            "rank_ended",
            vectors=self._note,
            answers=answers[self._told :],
            histograms=report.histograms,
            notes=report.notes,
            snapshot=report.snapshot,
        )
        self._log.close()
        if self._what.rank_folder:
            save_rank_files(Path(self._what.rank_folder), report, self._recorder.rows())
        return report, self._recorder.rows()


@contextmanager
def ready_within(seconds: float, comm: Comm) -> Iterator[None]:
    """End this process, with a sentence, when the ranks are not all ready within so many seconds."""

    def late() -> None:
        sys.stderr.write(f"stoker: rank {comm.rank}: not all ranks were ready within {seconds:g} s\n")
        sys.stderr.flush()
        os._exit(EXIT_TIMEOUT)

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Disk:
    """The block device under a folder of the database, as one rank of each host counts it.

    It is the device that the file system names, a partition where there is one: no parent, path or volume counts the
    same bytes again.
    """

    def __init__(self, folder: str, *, told_by: bool) -> None:
        self._device: BlockDevice | None = device_under(folder) if folder else None
        self._told_by = told_by
        self.name = self._device.name if self._device is not None else ""
        if not folder:
            self.reason = "the database keeps its data elsewhere: nothing on this host tells what it reads"
        elif self._device is None:
            self.reason = f"what lies under {folder} is no single block device"
        else:
            self.reason = ""

    @contextmanager
    def counting(self, note: VectorNote) -> Iterator[None]:
        """Enter into `note` what the device did meanwhile."""
        before = self._device.operations() if self._device is not None else None
        try:
            yield
        finally:
            after = self._device.operations() if self._device is not None else None
            note.disk_reason = self.reason
            if self._told_by and before is not None and after is not None:
                note.device = self.name
                note.device_reads, note.device_read_bytes = after[0] - before[0], after[1] - before[1]
                note.device_writes, note.device_write_bytes = after[2] - before[2], after[3] - before[3]
