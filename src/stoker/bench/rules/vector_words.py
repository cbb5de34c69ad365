"""The sentence that answers a run on a collection of vectors."""

from stoker.bench.rules.facts import percent
from stoker.core.result import Finding, Result
from stoker.core.units import format_seconds
from stoker.core.vectors import LOADING


def headline(result: Result, answer: str, decisive: Finding | None) -> str:
    """Return the answer in a sentence without its full stop."""
    subject, measured = _subject(result), _measured(result)
    if answer == "yes" or decisive is None:
        return f"This database {measured or 'was not measured'}: {subject}"
    reason = f"{decisive.title[:1].lower()}{decisive.title[1:]}: {decisive.observed}"
    if answer == "client_limited":
        return f"This client, not the storage, holds back {subject}: {decisive.observed}; it {measured}"
    if answer == "invalid":
        return f"The run is invalid: {reason}"
    if answer == "partial":
        done = result.vectors.queries if result.vectors is not None else 0
        return f"The run is partial: it was cut short ({decisive.observed}) after {done} queries"
    if answer == "no":
        return f"This database does not reach the recall: {reason}; it {measured}"
    return f"What this storage does for {subject} is not proven: {reason}" + (f"; it {measured}" if measured else "")


def _subject(result: Result) -> str:
    what = result.plan.vectors
    assert what is not None
    recipe = what.recipe
    plural = "" if result.plan.ranks == 1 else "es"
    vectors = f"{recipe.vectors} vectors of {recipe.dimension} numbers under {what.index.kind}"
    return f"{vectors} from {result.plan.ranks} process{plural}"


def _measured(result: Result) -> str:
    what, figures = result.plan.vectors, result.vectors
    if what is None or figures is None:
        return ""
    if what.work == LOADING:
        built = format_seconds(figures.built_seconds)
        return f"takes {figures.vectors_per_second:.4g} vectors/s, and was ready {built} after the last"
    if not figures.queries:
        return ""
    p99 = figures.latencies.get("p99", 0.0)
    recall = f" at recall {percent(figures.recall.mean, 2)}" if figures.recall is not None else ""
    return f"answers {figures.queries_per_second:.4g} queries/s{recall}, 99 % of requests within {format_seconds(p99)}"
