"""Loading a collection: the first rank makes it, every rank inserts its share, the first one has the index built."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np

from stoker.bench.workloads.training import RankJob
from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.vectors import VectorNote, VectorPlan
from stoker.vectors.engine import BuildProgress, CollectionSpec, VectorEngine, engine_kind, require_same
from stoker.vectors.making import chunks
from stoker.vectors.notes import note_of

STALLED_SECONDS: Final = 7200.0
"""An index of which nothing more was built for so long is not being built: an engine may lack its kind."""
_COUNT_LOOKS: Final = 60
_COUNT_SECONDS: Final = 0.5


def load_share(job: RankJob, what: VectorPlan, engine: VectorEngine, note: VectorNote) -> None:
    """Do this rank's part. Raises StokerError when the database did not take every vector, or built another index."""
    comm, stopped = job.comm, job.stopped
    if comm.rank == 0:
        if what.collection in engine.names():
            engine.drop(what.collection)
        spec = CollectionSpec(
            what.collection, what.recipe.dimension, what.index, what.shards, note_of(what.recipe, what.index)
        )
        engine.create(spec)
    if comm.barrier(stopped()):
        return
    begin_ns = clock.monotonic_ns()
    _insert(job, what, engine, note)
    if comm.barrier(stopped()):
        note.seconds = (clock.monotonic_ns() - begin_ns) / 1e9
        return
    if comm.rank == 0:
        with suppress(_Stopped):
            _finish(job, what, engine, note)
    note.seconds = (clock.monotonic_ns() - begin_ns) / 1e9
    comm.barrier(stopped())


def _insert(job: RankJob, what: VectorPlan, engine: VectorEngine, note: VectorNote) -> None:
    recipe, rank, ranks = what.recipe, job.comm.rank, job.comm.size
    if engine_kind(what.engine).single_writer:
        if rank:
            return
        ranks = 1
    first, end = recipe.vectors * rank // ranks, recipe.vectors * (rank + 1) // ranks
    for begin, vectors in chunks(recipe, first, end, what.chunk):
        for at in range(0, len(vectors), what.insert_batch):
            if job.stopped():
                return
            part = vectors[at : at + what.insert_batch]
            ids = np.arange(begin + at, begin + at + len(part), dtype=np.int64)
            taken = engine.insert(what.collection, ids, part)
            if taken != len(part):
                raise StokerError("the database took fewer vectors", expected=str(len(part)), got=str(taken))
            note.requests += 1
            note.vectors += taken


class _Stopped(Exception):
    """The run is to stop while an index is built."""


def _building(job: RankJob, note: VectorNote) -> Callable[[BuildProgress], None]:
    """Return who is told how far an index is: the note, whoever watches it, and, when the run stops, the wait."""
    changed = {"indexed": -1, "at_ns": clock.monotonic_ns()}

    def tell(progress: BuildProgress) -> None:
        note.indexed, note.building = progress.indexed, True
        if job.stopped():
            raise _Stopped
        now_ns = clock.monotonic_ns()
        if progress.indexed != changed["indexed"]:
            changed.update(indexed=progress.indexed, at_ns=now_ns)
        elif not progress.done and now_ns - changed["at_ns"] > STALLED_SECONDS * 1e9:
            got = f"{progress.indexed} of {progress.total} vectors for {STALLED_SECONDS / 60:.0f} min"
            raise StokerError("the index does not get built", got=got, remedy="look in the database's log")

    return tell


def _finish(job: RankJob, what: VectorPlan, engine: VectorEngine, note: VectorNote) -> None:
    """Have all written down, built and compacted; hold against what was asked for what the database tells then."""
    begin_ns = clock.monotonic_ns()
    engine.flush(what.collection)
    tell = _building(job, note)
    engine.build(what.collection, wait_seconds=what.monitor_seconds, on_progress=tell)
    if what.compact:
        engine.compact(what.collection)
        engine.build(what.collection, wait_seconds=what.monitor_seconds, on_progress=tell)
    engine.load(what.collection)
    note.built_seconds = (clock.monotonic_ns() - begin_ns) / 1e9
    facts = engine.describe(what.collection)
    for _ in range(_COUNT_LOOKS):  # a server may count late what it has taken
        if facts.count >= what.recipe.vectors:
            break
        clock.sleep(_COUNT_SECONDS)
        facts = engine.describe(what.collection)
    require_same(what.index, facts)
    if facts.count != what.recipe.vectors:
        expected = f"{what.recipe.vectors} vectors"
        raise StokerError("the collection is not whole", where=facts.name, expected=expected, got=str(facts.count))
