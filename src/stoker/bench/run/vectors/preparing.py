"""Before anything is timed: the collection as it is, its exact answers, and what is kept of both beside the run.

The exact answers are worked out here, over all that the collection holds, read through the database itself. Where an
exact copy is asked for (a FLAT collection, as the reference has it), the database answers from that, and the two are
held against each other; a copy of other data than the collection's is made anew, and one that is not ours is let be.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stoker.core import clock
from stoker.core.errors import PreflightError, StokerError, UsageError
from stoker.core.files import write_atomic
from stoker.core.vectors import COSINE, IndexSpec, TruthFacts, VectorPlan
from stoker.vectors.engine import CollectionFacts, CollectionSpec, VectorEngine, require_same
from stoker.vectors.making import Vectors, make, make_queries
from stoker.vectors.notes import fingerprint, note_of, read_note
from stoker.vectors.truth import Ids, Truth, TruthMaker, load_truth, require_truth, save_truth

TRUTH_FILE: Final = "truth.npz"
FACTS_FILE: Final = "vector_facts.json"
SCAN_ROWS: Final = 4096
_SAMPLED: Final = 64
_FLAT_BATCH: Final = 16
_FLAT: Final = "FLAT"


class Readied(msgspec.Struct, frozen=True):
    """What is known of the collection before the run."""

    engine_version: str
    index_found: dict[str, str]
    count: int
    dimension: int
    ours: bool
    truth: TruthFacts | None = None


Say = Callable[[str], None]


def is_loaded(engine: VectorEngine, what: VectorPlan) -> bool:
    """Tell whether the collection that a plan loads is there, whole.

    Raises UsageError for one of the name that holds something else.
    """
    if what.collection not in engine.names():
        return False
    facts = engine.describe(what.collection)
    note = read_note(facts.note)
    if note is None or (note.recipe, note.index) != (what.recipe, what.index):
        other = "another index" if note is not None and note.recipe == what.recipe else "vectors of another recipe"
        got = other if note is not None else "a collection that is not ours"
        raise UsageError(
            "the collection holds something else", where=what.collection, got=got, remedy="replace it with --force"
        )
    engine.load(what.collection)
    return engine.describe(what.collection).count == what.recipe.vectors


def looked_at(engine: VectorEngine, what: VectorPlan) -> tuple[VectorPlan, CollectionFacts]:
    """Return the plan as the collection is, which may be one that others have made, and what the database tells of it.

    Raises UsageError where there is none, StokerError for an index or vectors that are not the ones asked for.
    """
    engine.describe(what.collection)  # tells a collection that is not there
    engine.load(what.collection)
    facts = engine.describe(what.collection)
    note = read_note(facts.note)
    if note is None:
        recipe = msgspec.structs.replace(what.recipe, vectors=facts.count, dimension=facts.dimension)
        if facts.dimension != what.recipe.dimension:
            got = f"{facts.dimension}"
            raise UsageError(
                "vectors of another dimension", where=facts.name, expected=str(what.recipe.dimension), got=got
            )
        what = msgspec.structs.replace(what, recipe=recipe, ours=False)
    else:
        what = msgspec.structs.replace(what, recipe=note.recipe, ours=True)
        if facts.count != note.recipe.vectors:
            expected = f"{note.recipe.vectors} vectors"
            raise PreflightError(
                "the collection is not whole", where=facts.name, expected=expected, got=str(facts.count)
            )
        _require_content(engine, what)
    asked = IndexSpec(what.index.kind, what.index.metric, {})
    require_same(msgspec.structs.replace(asked, metric=facts.index.metric) if asked.kind == _FLAT else asked, facts)
    return msgspec.structs.replace(what, index=facts.index), facts


def _require_content(engine: VectorEngine, what: VectorPlan) -> None:
    """Raise PreflightError unless a sample of the collection is what its recipe makes."""
    recipe = what.recipe
    ids = np.unique(np.linspace(0, recipe.vectors - 1, min(_SAMPLED, recipe.vectors)).astype(np.int64))
    found = engine.fetch(what.collection, ids)
    wanted = np.concatenate([make(recipe, number, 1) for number in ids.tolist()])
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=0, atol=1e-6):
        expected = f"{recipe.distribution} vectors of seed {recipe.seed}"
        raise PreflightError(
            "the collection holds other vectors than it says", where=what.collection, expected=expected
        )


def ready(
    engine: VectorEngine,
    what: VectorPlan,
    facts: CollectionFacts,
    folder: Path,
    *,
    flat: str = "",
    truth: str = "",
    say: Say = lambda _: None,
) -> Readied:
    """Work out the exact answers and keep them in the run's `folder`.

    `flat` names an exact copy to answer from; `truth` a file of answers to use, or to write where there is none.
    """
    began_ns = clock.monotonic_ns()
    queries = make_queries(what.recipe, what.queries_made, what.query_seed)
    if flat:
        found, told = _from_copy(engine, what, facts, (flat, queries), say)
    else:
        found, told = _from_scan(engine, what, facts, queries, Path(truth) if truth else None)
    told = msgspec.structs.replace(told, seconds=(clock.monotonic_ns() - began_ns) / 1e9)
    folder.mkdir(parents=True, exist_ok=True)
    save_truth(folder / TRUTH_FILE, found)
    readied = Readied(engine.version, facts.told, facts.count, facts.dimension, what.ours, told)
    write_atomic(folder / FACTS_FILE, msgspec.json.format(msgspec.json.encode(readied), indent=1))
    return readied


def _told(
    truth: Truth, count: int, *, flat: str = "", reused: bool = False, agreement: float | None = None
) -> TruthFacts:
    key = truth.key
    return TruthFacts(
        ok=key.vectors == count,
        total=count,
        copied=key.vectors,
        metric=key.metric,
        k=key.k,
        data_hash=key.data_hash,
        queries_hash=key.queries_hash,
        flat=flat,
        reused=reused,
        agreement=agreement,
    )


def _from_scan(
    engine: VectorEngine, what: VectorPlan, facts: CollectionFacts, queries: Vectors, file: Path | None
) -> tuple[Truth, TruthFacts]:
    if file is not None and file.exists():
        truth = load_truth(file)
        require_truth(
            truth, queries, facts.index.metric, what.k, facts.count, lambda ids: engine.fetch(what.collection, ids)
        )
        return truth, _told(truth, facts.count, reused=True)
    truth = _scanned(engine, what, facts, queries, lambda _ids, _vectors: None)
    if file is not None:
        save_truth(file, truth)
    return truth, _told(truth, facts.count)


def _scanned(
    engine: VectorEngine,
    what: VectorPlan,
    facts: CollectionFacts,
    queries: Vectors,
    each: Callable[[Ids, Vectors], None],
) -> Truth:
    maker = TruthMaker(queries, facts.index.metric or COSINE, what.k)
    for ids, vectors in engine.scan(what.collection, SCAN_ROWS):
        maker.take(ids, vectors)
        each(ids, vectors)
    return maker.finish()


# -- an exact copy in the database -------------------------------------------------------------------------------------


def _from_copy(
    engine: VectorEngine, what: VectorPlan, facts: CollectionFacts, asked: tuple[str, Vectors], say: Say
) -> tuple[Truth, TruthFacts]:
    """Return the answers, and how much of the copy's answers they have in common."""
    flat, queries = asked
    source = fingerprint(what.recipe, facts.index.metric, facts.count)
    reused = _is_there(engine, flat, source, facts.count)
    if not reused:
        say(f"making the exact copy {flat} of {facts.count} vectors")
        if flat in engine.names():
            engine.drop(flat)
        note = note_of(what.recipe, what.index, copy_of=source)
        spec = CollectionSpec(flat, facts.dimension, IndexSpec(_FLAT, facts.index.metric), 1, note)
        engine.create(spec)
    copied = 0

    def copy(ids: Ids, vectors: Vectors) -> None:
        nonlocal copied
        if not reused:
            for first in range(0, len(ids), what.insert_batch):
                part = slice(first, first + what.insert_batch)
                copied += engine.insert(flat, ids[part], vectors[part])

    truth = _scanned(engine, what, facts, queries, copy)
    if not reused:
        engine.flush(flat)
        engine.build(flat, wait_seconds=what.monitor_seconds, on_progress=lambda _: None)
    engine.load(flat)
    there = engine.describe(flat)
    agreement = _agreement(engine, _as_metric(there, facts.index.metric), what, queries, truth)
    copied = there.count
    whole = copied == facts.count and truth.key.vectors == facts.count
    told = _told(truth, facts.count, flat=flat, reused=reused, agreement=agreement)
    reason = "" if whole else f"the exact copy holds {copied} of {facts.count} vectors"
    return truth, msgspec.structs.replace(told, ok=whole, copied=copied, reason=reason)


def _as_metric(facts: CollectionFacts, metric: str) -> CollectionFacts:
    """Return a collection without an index as one that is searched by a distance: it keeps none of its own."""
    return msgspec.structs.replace(facts, index=IndexSpec(_FLAT, metric, facts.index.parameters))


def _is_there(engine: VectorEngine, flat: str, source: str, count: int) -> bool:
    """Tell whether the copy is there and of this data. Raises UsageError for a collection that is no copy of ours."""
    if flat not in engine.names():
        return False
    engine.load(flat)
    facts = engine.describe(flat)
    note = read_note(facts.note)
    if note is None or not note.copy_of:
        raise UsageError("not an exact copy of ours", where=flat, remedy="name another with --gt-collection")
    return note.copy_of == source and facts.count == count


def _agreement(engine: VectorEngine, flat: CollectionFacts, what: VectorPlan, queries: Vectors, truth: Truth) -> float:
    """Return the share of the copy's answers that are as near as the exact k-th: 1, but for the database's rounding.

    Raises StokerError for a copy that answers otherwise.
    """
    searcher = engine.searcher(flat, what.k, what.effort)
    hits = 0
    for first in range(0, len(queries), _FLAT_BATCH):
        answers = searcher.search(queries[first : first + _FLAT_BATCH])
        for at, ids in enumerate(answers, first):
            hits += len(set(ids) & set(truth.ids[at].tolist()))
    found = hits / (len(queries) * what.k)
    if found < 0.99:
        got = f"{found:.4f} of its answers are exact"
        raise StokerError("the exact copy does not answer exactly", where=flat.name, expected="1", got=got)
    return found
