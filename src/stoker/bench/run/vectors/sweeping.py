"""The least candidates of a search that reach a recall: doubled until they do, then halved in between.

The queries are asked once, one after the other, and nothing is timed: the searches that count follow with the number
that was found. A recall that the index does not reach with its most candidates is told.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.bench.run.vectors.preparing import TRUTH_FILE
from stoker.core.errors import StokerError, UsageError
from stoker.core.vectors import VectorPlan
from stoker.vectors.engine import CollectionFacts, VectorEngine
from stoker.vectors.making import make_queries
from stoker.vectors.recall import recall_of
from stoker.vectors.truth import load_truth

QUERIES_MAX: Final = 300
EFFORT_MAX: Final = 1 << 15
_BATCH: Final = 8


def efforts_for(
    engine: VectorEngine, what: VectorPlan, facts: CollectionFacts, folder: Path, targets: Sequence[float]
) -> dict[float, int]:
    """Return the candidates that each recall needs. Raises StokerError for a recall that is out of reach."""
    if any(not 0 < target <= 1 for target in targets):
        raise UsageError("--sweep: no recall", expected="above 0, at most 1", got=", ".join(map(str, targets)))
    probe = _Probe(engine, what, facts, folder)
    return {target: probe.least(target) for target in targets}


class _Probe:
    """Measures the recall of a number of candidates, each once."""

    def __init__(self, engine: VectorEngine, what: VectorPlan, facts: CollectionFacts, folder: Path) -> None:
        self._engine, self._what, self._facts = engine, what, facts
        self._truth = load_truth(folder / TRUTH_FILE)
        self._queries = make_queries(what.recipe, what.queries_made, what.query_seed)[:QUERIES_MAX]
        self._known: dict[int, float] = {}

    def recall(self, effort: int) -> float:
        """Return the mean recall with so many candidates."""
        if effort not in self._known:
            searcher = self._engine.searcher(self._facts, self._what.k, effort)
            answers: dict[int, list[int]] = {}
            for first in range(0, len(self._queries), _BATCH):
                found = searcher.search(self._queries[first : first + _BATCH])
                answers.update(enumerate(found, first))
            self._known[effort] = recall_of(answers, self._truth, self._what.recall_k).mean
        return self._known[effort]

    def least(self, target: float) -> int:
        """Return the least candidates that reach a recall."""
        low, high = 0, 1
        while self._safely(high) < target:
            low, high = high, high * 2
            if high > EFFORT_MAX or self._safely(high) < 0:
                got = f"{self._known[low]:.4f} with {low} candidates"
                raise StokerError("the recall is out of reach", where=self._facts.name, expected=f"{target:g}", got=got)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.recall(middle) >= target else (middle, high)
        return high

    def _safely(self, effort: int) -> float:
        """Return the recall, below 0 where the database takes no such number."""
        try:
            return self.recall(effort)
        except UsageError:
            return -1.0
