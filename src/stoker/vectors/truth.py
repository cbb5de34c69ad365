"""The exact answers: a blocked matrix product over all vectors, near ties decided in float64, kept with hashes.

    truth.npz   ids int64 (queries, k + margin), scores float64 alike, sample_ids, sample_vectors, and `facts` as JSON

The file is refused for other vectors, queries or distances than it was made of: exact answers to another question look
like an index without recall, or, worse, like one with some.
"""

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.core.files import write_atomic
from stoker.core.vectors import COSINE, METRICS
from stoker.vectors.making import Vectors, digest

Ids = NDArray[np.int64]
Scores = NDArray[np.float64]
MARGIN: Final = 16
"""Neighbours kept beyond k: those as near as the k-th are found there, and rounding cannot hide one of the k."""
SAMPLES: Final = 32
FILE_BYTES_MAX: Final = 4 << 30
_BLOCK_ROWS: Final = 8192
_SCHEMA: Final = "stoker-truth/1"


class TruthKey(msgspec.Struct, frozen=True):
    """What the answers are answers to."""

    metric: str
    k: int
    vectors: int
    dimension: int
    data_hash: str
    queries_hash: str
    schema: str = _SCHEMA


class Truth(msgspec.Struct, frozen=True):
    """The nearest k + margin vectors of each query, nearest first; a higher score is nearer."""

    key: TruthKey
    ids: Ids
    scores: Scores
    sample_ids: Ids
    sample: Vectors

    def cut(self) -> Scores:
        """Return the score of each query's k-th neighbour."""
        last: Scores = self.scores[:, min(self.key.k, self.scores.shape[1]) - 1]
        return last


class TruthMaker:
    """Takes all vectors, a batch at a time and in any order, and keeps the best of each query.

    Memory: two times queries x `_BLOCK_ROWS` scores and a batch's vectors.
    """

    def __init__(self, queries: Vectors, metric: str, k: int) -> None:
        if metric not in METRICS:
            raise UsageError("unknown distance", where=metric, remedy=f"known: {', '.join(METRICS)}")
        self._queries, self._metric, self._k = np.ascontiguousarray(queries, np.float32), metric, k
        self._exact = _unit(queries.astype(np.float64)) if metric == COSINE else queries.astype(np.float64)
        self._fast = self._exact.astype(np.float32)
        self._ids = np.empty((len(queries), 0), np.int64)
        self._scores = np.empty((len(queries), 0), np.float64)
        self._seen = 0
        self._hash = 0
        self._sample_ids: list[int] = []
        self._sample: list[Vectors] = []

    @property
    def seen(self) -> int:
        """Return how many vectors were taken."""
        return self._seen

    def take(self, ids: Ids, vectors: Vectors) -> None:
        """Take vectors and their ids; no id may come twice."""
        for first in range(0, len(ids), _BLOCK_ROWS):
            self._take(ids[first : first + _BLOCK_ROWS], vectors[first : first + _BLOCK_ROWS])

    def _take(self, ids: Ids, vectors: Vectors) -> None:
        order = np.argsort(ids, kind="stable")
        ids, vectors = ids[order], vectors[order]
        self._hash ^= order_free_hash(ids, vectors)
        self._seen += len(ids)
        self._keep_sample(ids, vectors)
        wanted = self._k + MARGIN
        rows = np.ascontiguousarray(vectors, np.float32)
        fast = self._fast_scores(rows)
        count = min(wanted, len(ids))
        best = _best(fast, count)
        exact = np.stack([self._exact_scores(query, rows[chosen]) for query, chosen in enumerate(best)])
        self._merge(ids[best], exact, wanted)

    def _fast_scores(self, rows: Vectors) -> NDArray[np.float32]:
        if self._metric == COSINE:
            rows = _unit(rows)
        product: NDArray[np.float32] = self._fast @ rows.T
        if self._metric == "L2":
            product = 2 * product - np.einsum("ij,ij->i", rows, rows)[None, :]
        return product

    def _exact_scores(self, query: int, rows: Vectors) -> Scores:
        wide = rows.astype(np.float64)
        if self._metric == "L2":
            found: Scores = -np.square(wide - self._exact[query]).sum(axis=1)
            return found
        if self._metric == COSINE:
            wide = _unit(wide)
        told: Scores = wide @ self._exact[query]
        return told

    def _merge(self, ids: Ids, scores: Scores, wanted: int) -> None:
        """Keep the best of what was kept and what came; equal scores go by id."""
        all_ids = np.concatenate((self._ids, ids), axis=1)
        all_scores = np.concatenate((self._scores, scores), axis=1)
        order = np.lexsort((all_ids, -all_scores), axis=1)[:, :wanted]
        self._ids = np.take_along_axis(all_ids, order, axis=1)
        self._scores = np.take_along_axis(all_scores, order, axis=1)

    def _keep_sample(self, ids: Ids, vectors: Vectors) -> None:
        if len(self._sample_ids) < SAMPLES and len(ids):
            at = self._seen % len(ids)
            self._sample_ids.append(int(ids[at]))
            self._sample.append(np.array(vectors[at], np.float32))

    def finish(self) -> Truth:
        """Return the answers. Raises UsageError when fewer than k vectors came."""
        if self._seen < self._k:
            raise UsageError(
                "too few vectors for the exact answers", expected=f"at least {self._k}", got=str(self._seen)
            )
        key = TruthKey(
            metric=self._metric,
            k=self._k,
            vectors=self._seen,
            dimension=self._queries.shape[1],
            data_hash=f"{self._hash:032x}",
            queries_hash=digest(self._queries),
        )
        return Truth(key, self._ids, self._scores, np.array(self._sample_ids, np.int64), np.stack(self._sample))


def _best(scores: NDArray[np.float32], count: int) -> Ids:
    """Return where the best scores of each row stand, in no order; of equal ones at the edge the first."""
    chosen: Ids = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    edge = np.take_along_axis(scores, chosen, axis=1).min(axis=1)
    tied = np.flatnonzero((scores >= edge[:, None]).sum(axis=1) > count)
    for row in tied.tolist():
        chosen[row] = np.argsort(-scores[row], kind="stable")[:count]
    return chosen


def order_free_hash(ids: Ids, vectors: Vectors) -> int:
    """Return a hash of vectors under their ids that does not depend on the order in which they come."""
    told = 0
    for number, row in zip(ids.tolist(), np.ascontiguousarray(vectors, np.float32), strict=True):
        told ^= xxhash.xxh3_128_intdigest(row.view(np.uint8).data, seed=number & ((1 << 64) - 1))
    return told


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    found: NDArray[Any] = rows / np.where(lengths > 0, lengths, 1)[:, None]
    return found


def truth_of(queries: Vectors, metric: str, k: int, batches: Iterable[tuple[Ids, Vectors]]) -> Truth:
    """Return the exact answers over all batches."""
    maker = TruthMaker(queries, metric, k)
    for ids, vectors in batches:
        maker.take(ids, vectors)
    return maker.finish()


def save_truth(path: Path, truth: Truth) -> None:
    """Write the answers, whole or not at all."""
    buffer = io.BytesIO()
    facts = np.frombuffer(msgspec.json.encode(truth.key), np.uint8)
    arrays: dict[str, Any] = {"ids": truth.ids, "scores": truth.scores, "facts": facts}
    np.savez(buffer, **arrays, sample_ids=truth.sample_ids, sample=truth.sample)
    write_atomic(path, buffer.getvalue())


def load_truth(path: Path) -> Truth:
    """Return the answers in a file. Raises CorruptError for anything else, UsageError where there is none."""
    try:
        if os.stat(path).st_size > FILE_BYTES_MAX:
            raise CorruptError("exact answers are too large", where=str(path), expected="at most 4 GiB")
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("ids", "scores", "facts", "sample_ids", "sample")}
        key = msgspec.json.decode(found["facts"].tobytes(), type=TruthKey)
        truth = Truth(key, found["ids"], found["scores"], found["sample_ids"], found["sample"])
    except FileNotFoundError as error:
        raise UsageError("no file of exact answers", where=str(path)) from error
    except (OSError, ValueError, LookupError, EOFError, msgspec.MsgspecError) as error:
        raise CorruptError("not a file of exact answers", where=str(path), got=str(error)) from error
    _check_shapes(path, truth)
    return truth


def _check_shapes(path: Path, truth: Truth) -> None:
    kinds = [array.dtype.str for array in (truth.ids, truth.scores, truth.sample)]
    sound = kinds == ["<i8", "<f8", "<f4"] and truth.ids.ndim == 2 and truth.ids.shape == truth.scores.shape
    if not sound or truth.key.schema != _SCHEMA or truth.ids.shape[1] < truth.key.k:
        raise CorruptError("not a file of exact answers", where=str(path), expected=_SCHEMA)
    if truth.sample.shape != (len(truth.sample_ids), truth.key.dimension):
        raise CorruptError("exact answers without a sound sample", where=str(path), expected=_SCHEMA)


def require_truth(
    truth: Truth, queries: Vectors, metric: str, k: int, vectors: int, fetch: Callable[[Ids], Vectors]
) -> None:
    """Raise UsageError unless the answers are to these queries, over the vectors that the collection holds now.

    `fetch` gives the collection's vectors of some ids: a sample of them is held against what the answers were made of.
    """
    asked = {
        "distance": (truth.key.metric, metric),
        "neighbours": (truth.key.k, k),
        "vectors": (truth.key.vectors, vectors),
        "queries": (truth.key.queries_hash, digest(np.ascontiguousarray(queries, np.float32))),
    }
    for name, (there, wanted) in asked.items():
        if there != wanted:
            raise UsageError(
                f"exact answers are for other {name}", expected=str(wanted), got=str(there), remedy="make them anew"
            )
    found = fetch(truth.sample_ids)
    if found.shape != truth.sample.shape or not np.allclose(found, truth.sample, rtol=0, atol=1e-6):
        raise UsageError("exact answers are for other data", got="a sample differs", remedy="make them anew")
