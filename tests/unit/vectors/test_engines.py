"""What every engine has to do, on real ones."""

import numpy as np
import pytest

from stoker.bench.run.vectors.places import Placed
from stoker.core.errors import StokerError, UnavailableError, UsageError
from stoker.core.vectors import IndexSpec, Recipe
from stoker.vectors.engine import Address, BuildProgress, CollectionSpec, VectorEngine, engine_kind, require_same
from stoker.vectors.making import make, make_queries
from stoker.vectors.notes import note_of, read_note
from stoker.vectors.recall import recall_of
from stoker.vectors.truth import truth_of

RECIPE = Recipe(1200, 16, "clustered", seed=11)
HNSW = IndexSpec("HNSW", "COSINE", {"M": 12, "efConstruction": 80})
QUERIES = make_queries(RECIPE, 20, seed=1011)


def loaded(engine: VectorEngine, name: str, index: IndexSpec) -> list[BuildProgress]:
    engine.create(CollectionSpec(name, RECIPE.dimension, index, 1, note_of(RECIPE, index)))
    for first in range(0, RECIPE.vectors, 400):
        assert engine.insert(name, np.arange(first, first + 400, dtype=np.int64), make(RECIPE, first, 400)) == 400
    engine.flush(name)
    seen: list[BuildProgress] = []
    engine.build(name, wait_seconds=0.05, on_progress=seen.append)
    engine.load(name)
    return seen


@pytest.mark.timeout(120)
def test_a_collection_from_its_making_to_its_end(engine: VectorEngine) -> None:
    seen = loaded(engine, "one", HNSW)
    assert seen and seen[-1].done and engine.names() == ["one"]
    facts = engine.describe("one")
    require_same(HNSW, facts)
    assert (facts.count, facts.dimension) == (1200, 16)
    note = read_note(facts.note)
    assert note is not None and note.recipe == RECIPE
    truth = truth_of(QUERIES, "COSINE", 10, engine.scan("one", 333))
    assert truth.key.vectors == 1200
    assert truth.key == truth_of(QUERIES, "COSINE", 10, [(np.arange(1200), make(RECIPE, 0, 1200))]).key
    searcher = engine.searcher(facts, 10, 100)
    alone = [searcher.search(QUERIES[at : at + 1])[0] for at in range(20)]
    together = searcher.search(QUERIES)
    assert alone == together and all(len(ids) == 10 for ids in alone)
    assert recall_of(dict(enumerate(alone)), truth, 10).mean > 0.95
    wanted = np.array([7, 0, 1199])
    assert np.allclose(engine.fetch("one", wanted), make(RECIPE, 0, 1200)[wanted], atol=1e-6)
    assert engine.compact("one") is True
    engine.drop("one")
    assert engine.names() == []
    with pytest.raises(UsageError, match="no such collection 'one'"):
        engine.describe("one")


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["COSINE", "L2", "IP"])
def test_a_flat_collection_answers_exactly(engine: VectorEngine, metric: str) -> None:
    index = IndexSpec("FLAT", metric)
    loaded(engine, "exact", index)
    facts = engine.describe("exact")
    assert facts.index.kind == "FLAT"
    truth = truth_of(QUERIES, metric, 10, engine.scan("exact", 4096))
    answers = engine.searcher(facts, 10, 10).search(QUERIES)
    assert recall_of(dict(enumerate(answers)), truth, 10).tolerant_mean == 1.0


@pytest.mark.slow
def test_more_candidates_find_more(engine: VectorEngine) -> None:
    index = IndexSpec("IVF_FLAT", "COSINE", {"nlist": 32})
    loaded(engine, "lists", index)
    facts = engine.describe("lists")
    require_same(index, facts)
    truth = truth_of(QUERIES, "COSINE", 10, engine.scan("lists", 4096))
    few, many = (
        recall_of(dict(enumerate(engine.searcher(facts, 10, effort).search(QUERIES))), truth, 10).mean
        for effort in (1, 32)
    )
    assert few < many == 1.0


def test_nobody_listens_there() -> None:
    for name in ("milvus", "pgvector"):
        with pytest.raises(UnavailableError, match="no database answers '127"):
            engine_kind(name).open(Address("127.0.0.1", 9))


@pytest.mark.slow
def test_a_folder_that_is_in_use_is_told(place: Placed) -> None:
    if place.engine != "milvus-lite":
        pytest.skip("a server takes many clients")
    kind = engine_kind(place.engine)
    with kind.serve(place.address), pytest.raises(UnavailableError, match="does not start"), kind.serve(place.address):
        pass


@pytest.mark.slow
def test_what_a_database_does_not_take_is_refused(engine: VectorEngine) -> None:
    with pytest.raises(StokerError):
        engine.create(CollectionSpec("bad", 16, IndexSpec("HNSW", "COSINE", {"M": 0, "efConstruction": 1}), 3, ""))
        engine.insert("bad", np.arange(2), make(RECIPE, 0, 2))
        engine.build("bad", wait_seconds=0.05, on_progress=lambda _: None)
        require_same(IndexSpec("HNSW", "COSINE", {"M": 99}), engine.describe("bad"))
