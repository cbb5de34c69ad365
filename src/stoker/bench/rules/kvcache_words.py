"""The sentence that answers a run of a KV cache."""

from stoker.core.result import Finding, Result
from stoker.core.units import format_bytes, format_rate


def headline(result: Result, answer: str, decisive: Finding | None) -> str:
    """Return the answer in a sentence without its full stop."""
    subject, measured = _subject(result), _measured(result)
    if answer == "yes" or decisive is None:
        return f"This storage serves {subject}: it {measured}"
    reason = f"{decisive.title[:1].lower()}{decisive.title[1:]}: {decisive.observed}"
    if answer == "client_limited":
        return f"This client, not the storage, holds back {subject}: {decisive.observed}; it {measured}"
    if answer == "no":
        return f"This storage is no use as {subject}: {reason}, {decisive.expected}"
    if answer == "invalid":
        return f"The run is invalid: {reason}"
    if answer == "partial":
        whole = sum(trial.complete for trial in result.trials)
        return f"The run is partial: it was cut short ({decisive.observed}) after {whole} whole trials"
    return f"How fast this storage serves {subject} is not proven: {reason}"


def _subject(result: Result) -> str:
    plan, what = result.plan, result.plan.kvcache
    assert what is not None
    clients = "" if plan.ranks == 1 else f"{plan.ranks} clients of "
    return f"the KV cache of {plan.model} for {clients}{what.users} users"


def _measured(result: Result) -> str:
    figures = result.kvcache
    if figures is None:
        return "was not measured"
    rates = format_rate(figures.read_bytes_per_second), format_rate(figures.write_bytes_per_second)
    entries = f"entries of {format_bytes(figures.entry_bytes_mean)}"
    return f"reads {rates[0]} and writes {rates[1]} in {entries}, {figures.tokens_per_second:,.0f} tokens/s"
