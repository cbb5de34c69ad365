"""Recall: how many of the exact nearest neighbours the answers hold."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from stoker.core.errors import UsageError
from stoker.core.vectors import RecallFigures
from stoker.vectors.truth import Truth

TIE_TOLERANCE: Final = 1e-6


def recall_of(answers: Mapping[int, Sequence[int]], truth: Truth, k: int) -> RecallFigures:
    """Return the recall at k of answers by query; an id that stands twice in an answer counts once.

    Raises UsageError for more neighbours than the exact answers have.
    """
    if not 1 <= k <= truth.key.k:
        raise UsageError("recall of more neighbours than are known", expected=f"1 to {truth.key.k}", got=str(k))
    strict, tolerant = [], []
    for query in sorted(query for query in answers if 0 <= query < len(truth.ids)):
        got = set(list(answers[query])[:k])
        strict.append(len(got & set(truth.ids[query, :k].tolist())) / k)
        cut = truth.scores[query, k - 1]
        near = truth.ids[query][truth.scores[query] >= cut - TIE_TOLERANCE * max(1.0, abs(cut))]
        tolerant.append(min(1.0, len(got & set(near.tolist())) / k))
    return _figures(strict, tolerant, k, len(truth.ids) - len(strict))


def _figures(strict: list[float], tolerant: list[float], k: int, missing: int) -> RecallFigures:
    told = np.array(strict or [0.0])
    p5, median, p95, p99 = (float(value) for value in np.percentile(told, (5, 50, 95, 99)))
    return RecallFigures(
        k=k,
        queries=len(strict),
        mean=float(told.mean()),
        median=median,
        low=float(told.min()),
        high=float(told.max()),
        p5=p5,
        p95=p95,
        p99=p99,
        tolerant_mean=float(np.mean(tolerant or [0.0])),
        missing=missing,
        per_query=strict,
    )
