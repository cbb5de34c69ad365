"""The exact answers beside a naive search, and the files that keep them."""

from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import CorruptError, UsageError
from stoker.core.vectors import METRICS, Recipe
from stoker.vectors.making import Vectors, make, make_queries
from stoker.vectors.recall import recall_of
from stoker.vectors.truth import Ids, Truth, TruthMaker, load_truth, require_truth, save_truth

RECIPE = Recipe(700, 20, "clustered", seed=3)
DATA = make(RECIPE, 0, 700) * np.linspace(0.5, 2, 700, dtype=np.float32)[:, None]
QUERIES = make_queries(RECIPE, 25, seed=1003)
IDS = np.arange(700, dtype=np.int64)


def naive(metric: str, k: int) -> list[list[int]]:
    wide, asked = DATA.astype(np.float64), QUERIES.astype(np.float64)
    if metric == "L2":
        scores = -((asked[:, None, :] - wide[None, :, :]) ** 2).sum(axis=2)
    else:
        scores = asked @ wide.T
        if metric == "COSINE":
            scores /= np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(wide, axis=1)[None, :]
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


def truth_in(metric: str, pieces: list[Ids]) -> Truth:
    maker = TruthMaker(QUERIES, metric, 10)
    for piece in pieces:
        maker.take(piece, DATA[piece])
    return maker.finish()


@pytest.mark.parametrize("metric", METRICS)
def test_the_answers_are_those_of_a_naive_search(metric: str) -> None:
    whole = truth_in(metric, [IDS])
    assert whole.ids[:, :10].tolist() == naive(metric, 10)
    mixed = np.random.default_rng(1).permutation(IDS)
    parts = truth_in(metric, [mixed[:1], mixed[1:30], mixed[30:500], mixed[500:]])
    assert np.array_equal(parts.ids, whole.ids) and parts.key == whole.key
    assert np.all(np.diff(whole.scores, axis=1) <= 0)


def test_equal_vectors_are_ties_that_go_by_id_and_count_as_found() -> None:
    same = np.repeat(DATA[:1], 30, axis=0)
    maker = TruthMaker(QUERIES[:1], "COSINE", 10)
    maker.take(IDS[:30][::-1].copy(), same)
    truth = maker.finish()
    assert truth.ids[0, :10].tolist() == list(range(10))
    found = recall_of({0: list(range(10, 20))}, truth, 10)
    assert (found.mean, found.tolerant_mean) == (0.0, 1.0)


def test_recall_by_hand() -> None:
    truth = truth_in("L2", [IDS])
    exact = {query: truth.ids[query, :10].tolist() for query in range(25)}
    perfect = recall_of(exact, truth, 10)
    assert (perfect.mean, perfect.p5, perfect.missing, perfect.queries) == (1.0, 1.0, 0, 25)
    half = {0: [*exact[0][:5], -1, -2, -3, -4, -5], 1: exact[1], 2: [exact[2][0]] * 10, 99: [1]}
    found = recall_of(half, truth, 10)
    assert found.per_query == [0.5, 1.0, 0.1]
    assert found.mean == pytest.approx(1.6 / 3) and found.missing == 22 and found.low == 0.1
    assert found.p5 == pytest.approx(np.percentile([0.5, 1.0, 0.1], 5))
    assert recall_of({0: exact[0]}, truth, 3).mean == 1.0
    assert recall_of({}, truth, 10).mean == 0.0
    with pytest.raises(UsageError, match="recall of more neighbours"):
        recall_of(exact, truth, 11)


def fetch(ids: Ids) -> Vectors:
    return DATA[ids]


def test_kept_answers_are_taken_for_the_same_question_alone(tmp_path: Path) -> None:
    file = tmp_path / "truth.npz"
    save_truth(file, truth_in("COSINE", [IDS]))
    truth = load_truth(file)
    assert truth.ids[:, :10].tolist() == naive("COSINE", 10)
    require_truth(truth, QUERIES, "COSINE", 10, 700, fetch)
    for bad, word in (
        ((QUERIES, "L2", 10, 700, fetch), "distance"),
        ((QUERIES, "COSINE", 9, 700, fetch), "neighbours"),
        ((QUERIES, "COSINE", 10, 701, fetch), "vectors"),
        ((QUERIES[::-1].copy(), "COSINE", 10, 700, fetch), "queries"),
        ((QUERIES, "COSINE", 10, 700, lambda ids: fetch(ids) * 1.01), "other data"),
        ((QUERIES, "COSINE", 10, 700, lambda ids: fetch(ids)[:-1]), "other data"),
    ):
        with pytest.raises(UsageError, match=word):
            require_truth(truth, *bad)  # type: ignore[arg-type]


def test_the_hash_follows_every_vector_and_its_id() -> None:
    key = truth_in("COSINE", [IDS]).key
    maker = TruthMaker(QUERIES, "COSINE", 10)
    swapped = IDS.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    maker.take(swapped, DATA)
    assert maker.finish().key.data_hash != key.data_hash


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of exact answers"):
        load_truth(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "other.npz", ids=np.zeros(3))
    np.savez(tmp_path / "objects.npz", ids=np.array([{}], dtype=object))
    for name in ("text.npz", "other.npz", "objects.npz"):
        with pytest.raises(CorruptError, match="not a file of exact answers"):
            load_truth(tmp_path / name)


def test_fewer_vectors_than_neighbours_have_no_answer() -> None:
    maker = TruthMaker(QUERIES, "IP", 10)
    maker.take(IDS[:4], DATA[:4])
    with pytest.raises(UsageError, match="too few vectors"):
        maker.finish()
