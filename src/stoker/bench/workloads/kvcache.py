"""The KV-cache workload as one rank sees it: a client with a cache of its own, in trials from an empty cache.

All ranks begin a trial together and end it by the same clock; each has its own folder, `rank_<n>`, below the target,
marked as ours, and removes at the end what it wrote there. Foreign files stay.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import psutil

from stoker.bench.workloads.comm import Comm
from stoker.bench.workloads.counters import Sources, device_under
from stoker.bench.workloads.kvcache_filling import prepare
from stoker.bench.workloads.kvcache_serving import WORKERS_MAX, Serving
from stoker.bench.workloads.meters import Meters
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.rank_book import RankBook, seen_through
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.source import store_facts
from stoker.bench.workloads.steps import SERVE, Rows, StepRecorder
from stoker.bench.workloads.training import RankJob
from stoker.core import clock, seed
from stoker.core.errors import PreflightError, StokerError
from stoker.core.histogram import merge_encoded
from stoker.core.kvcache import CPU, STORAGE, KvNote, KvPlan
from stoker.core.plan import TrainingPlan
from stoker.core.units import format_bytes
from stoker.kv.account import Account
from stoker.kv.cache import KvCache, Tier
from stoker.kv.memory import MemoryTier
from stoker.kv.storage_tier import StorageTier
from stoker.kv.trace_log import TraceLog
from stoker.kv.traffic.personas import PersonaSource
from stoker.kv.traffic.request import Source
from stoker.kv.traffic.traces import open_trace
from stoker.storage.api import Store, SupportsLocalPath
from stoker.storage.buffers import BufferPool
from stoker.storage.opening import open_store

FREE_SHARE: Final = 0.95
UNLIMITED_BYTES: Final = 1 << 62
NULL_NOTE: Final = "null:// keeps nothing, so nothing that was read was looked at"
NOT_EVICTED: Final = "the page cache cannot be emptied of an entry before it is read here: it may be read from memory"
_NAP_SECONDS: Final = 0.1
_SEEN_SECONDS: Final = 2.0
_MEMORY_SHARE: Final = 0.9
_LEASES_A_WORKER: Final = 4


def kv_plan(plan: TrainingPlan) -> KvPlan:
    """Return the plan's KV cache, of a plan that has one."""
    assert plan.kvcache is not None
    return plan.kvcache


def rank_folder(rank: int) -> str:
    """Return the folder of a rank's cache below the target."""
    return f"rank_{rank}"


def run_kvcache(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured; its log in the run folder tells the same.

    There are no steps. Raises what the store or the cache raise, and RunAborted when another rank failed; the log ends
    with the reason then.
    """
    with closing(open_store(job.target_url, create=True)) as store:
        return seen_through(_Rank(job, store))


@dataclass
class _Trial:
    """The trial that runs."""

    note: KvNote
    account: Account
    serving: Serving


class _Rank:
    """One rank's run."""

    def __init__(self, job: RankJob, store: Store) -> None:
        asked = kv_plan(job.plan)
        self._job, self._store = job, store
        self._what = msgspec.structs.replace(asked, seed=asked.seed + job.comm.rank)
        self._meters = Meters(Sources(store, host_wide=job.comm.host_rank == 0))
        recorder = StepRecorder(1)
        self._recorder = recorder
        facts = store_facts(store, job.target_url)
        facts = msgspec.structs.replace(facts, durable=_durable(store, asked))
        self._book = RankBook(job.comm, job.folder, facts, recorder, self._meters.snapshot, self._tick)
        self._report, self._log = self._book.report, self._book.log
        self._notes = _remarks(store)
        self._trial: _Trial | None = None
        self._seen_ns = 0

    def run(self) -> None:
        """Do all trials, and tidy up whatever happens."""
        what = self._what
        require_memory(what, self._job.comm.host_size)
        source = PersonaSource(what) if what.source == "personas" else open_trace(what)
        workers = min(WORKERS_MAX, what.users) + what.precondition_threads
        pool = BufferPool(_LEASES_A_WORKER * (workers + 1) * max(what.piece_bytes, 1 << 20))
        storage = StorageTier(self._store, rank_folder(self._job.comm.rank), pool, what.piece_bytes)
        storage.synced = what.fsync == "full"
        removed = storage.begin(self._report.start.host)
        if removed:
            self._notes.append(f"{removed} entries of a run that was killed were removed first")
        with self._cleaned(storage), TraceLog(_trace_path(what, self._job.comm.rank)) as trace:
            for number in range(1, what.trials + 1):
                if (number > 1 and self._pause()) or self._one(number, source, storage, pool, trace):
                    return

    @contextmanager
    def _cleaned(self, storage: StorageTier) -> Iterator[None]:
        """Remove at the end what this rank wrote."""
        try:
            yield
        except BaseException:
            with suppress(StokerError, OSError):  # the error that led here is the one to tell
                self._tidy(storage)
            raise
        self._tidy(storage)

    def _tidy(self, storage: StorageTier) -> None:
        if self._trial is not None:
            self._cache.clear()
        storage.end()

    def _tiers(self, storage: StorageTier) -> list[Tier]:
        what = self._what
        tiers = [Tier(CPU, MemoryTier(what.piece_bytes), what.cpu_bytes)] if what.cpu_bytes else []
        return [*tiers, Tier(STORAGE, storage, storage_capacity(self._store, what, self._job.comm))]

    def _one(self, number: int, source: Source, storage: StorageTier, pool: BufferPool, trace: TraceLog) -> bool:
        """Do one trial; return whether the run is to stop."""
        what, comm, stopped = self._what, self._job.comm, self._stop_wanted
        tiers = self._tiers(storage)
        content_seed = seed.derive(what.seed, "kv-content", comm.rank, number, clock.wall_ns())
        self._cache = KvCache(what, tiers, pool, content_seed=content_seed)
        names = [tier.name for tier in tiers]
        note = KvNote(number)
        account = Account(names, what.samples_max)
        self._trial = _Trial(note, account, Serving(what, self._cache, source, account, stopped))
        prepare(self._cache, what, number, stopped)
        if comm.barrier(stopped()):
            return True
        self._cache.begin(account, trace)
        note.started_utc, note.started_ns = clock.utc_text(), clock.monotonic_ns()
        self._log.event("trial_started", trial=note)
        with self._meters.window(account) as window:
            note.seconds = self._trial.serving.run()
            stop = comm.barrier(stopped())
        note.ledger, note.counters = window.ledger, window.counters
        self._cache.fill_levels()
        self._cache.clear()
        note.complete = not stop
        self._fill(note)
        note.histograms = account.encoded()
        self._report.trials.append(note)
        self._log.event("trial_ended", trial=note, snapshot=self._meters.snapshot())
        return stop

    def _fill(self, note: KvNote) -> None:
        """Enter into the note what was counted so far."""
        trial = self._trial
        assert trial is not None
        note.users, note.points, note.scaling = trial.serving.users, trial.serving.points, trial.serving.scaling
        note.tiers, note.counts, note.samples = trial.account.tiers, trial.account.counts, trial.account.samples

    def _stop_wanted(self) -> bool:
        if self._log.failure is not None:
            raise self._log.failure
        return self._job.stopped()

    def _pause(self) -> bool:
        """Sleep as long as the plan says between trials."""
        end_ns = clock.monotonic_ns() + round(self._what.pause_seconds * 1e9)
        while (left_ns := end_ns - clock.monotonic_ns()) > 0 and not self._stop_wanted():
            clock.sleep(min(left_ns / 1e9, _NAP_SECONDS))
        return False  # a wish to stop is told at the barrier, where all agree

    def _tick(self) -> None:
        """Tell how far this rank is, and log what was counted so far; called on the log's thread."""
        trial, now_ns = self._trial, clock.monotonic_ns()
        if trial is None or not trial.note.started_ns or trial.note.complete or not trial.serving.points:
            return
        seconds = (now_ns - trial.note.started_ns) / 1e9
        if now_ns - self._seen_ns > _SEEN_SECONDS * 1e9:
            self._seen_ns = now_ns
            seen = msgspec.structs.replace(trial.note, seconds=seconds, histograms=trial.account.encoded())
            seen.tiers, seen.counts = trial.account.tiers, trial.account.counts
            self._log.event("trial_seen", trial=seen, snapshot=self._meters.snapshot())
        told = trial.serving.told()
        self._job.on_progress(
            Progress(
                phase=SERVE,
                epoch=trial.note.number,
                step=min(int(seconds), round(self._what.duration_seconds)),
                steps=round(self._what.duration_seconds),
                bytes_per_second=told["bytes_per_second"],
            )
        )

    def broken_off(self, error: BaseException) -> None:
        """End the log with the reason: an error of this rank's own, or that of another."""
        self._book.broken_off(error, self._notes)

    def ended(self) -> tuple[RankReport, Rows]:
        """End the log and return the report, and no steps."""
        report = self._report
        report.snapshot, report.finished, report.notes = self._meters.snapshot(), True, self._notes
        report.histograms = merge_encoded(note.histograms for note in report.trials)
        self._log.event("rank_ended", notes=report.notes, snapshot=report.snapshot, histograms=report.histograms)
        self._log.close()
        return report, self._recorder.rows()


def _remarks(store: Store) -> list[str]:
    mode = store.capabilities.io_mode
    if mode == "null":
        return [NULL_NOTE]
    return [NOT_EVICTED] if mode == "buffered" and not store.capabilities.cache_evictable else []


def _durable(store: Store, what: KvPlan) -> bool:
    """Return whether a finished write survives power loss: what is put unsynced is synced by us, where it can be."""
    if what.fsync != "full":
        return False
    local = isinstance(store, SupportsLocalPath) and (store.capabilities.cache_evictable or _past_cache(store))
    return store.capabilities.durable or local


def _past_cache(store: Store) -> bool:
    return store.capabilities.io_mode == "direct"


def _trace_path(what: KvPlan, rank: int) -> str:
    """Return the path of a rank's trace: the first one's as told, the others' with their number before the ending."""
    if not rank or not what.trace_path:
        return what.trace_path
    stem, dot, ending = what.trace_path.partition(".csv")
    return f"{stem}.rank_{rank}{dot}{ending}"


def storage_capacity(store: Store, what: KvPlan, comm: Comm) -> int:
    """Return the bytes that one rank's storage tier holds: as told, else its share of 95 % of the free space.

    A device of this host's is shared by its ranks, what has no device here, such as a network file system, by all.
    """
    if what.storage_bytes:
        return what.storage_bytes
    if not isinstance(store, SupportsLocalPath):
        return UNLIMITED_BYTES
    told = os.statvfs(store.root)
    sharing = comm.size if device_under(store.root) is None else comm.host_size
    return int(told.f_bavail * told.f_frsize * FREE_SHARE / max(1, sharing))


def require_memory(what: KvPlan, ranks: int) -> None:
    """Raise PreflightError unless the memory tiers of so many ranks fit into this host's memory."""
    available = psutil.virtual_memory().available
    needed = what.cpu_bytes * ranks
    if needed > available * _MEMORY_SHARE:
        raise PreflightError(
            "the tier in memory does not fit into this host's memory",
            expected=f"at most {format_bytes(available * _MEMORY_SHARE)} for {ranks} ranks",
            got=format_bytes(needed),
            remedy="give --cpu-mem-gb less; 0 leaves the tier out",
        )
