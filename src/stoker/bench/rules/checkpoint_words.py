"""The sentence that answers a run of checkpoints."""

from stoker.core.checkpoints import OperationFigures
from stoker.core.result import Finding, Result
from stoker.core.units import format_bytes, format_rate, format_seconds


def headline(result: Result, answer: str, decisive: Finding | None) -> str:
    """Return the answer in a sentence without its full stop."""
    subject, measured = _subject(result), _measured(result)
    if answer == "yes" or decisive is None:
        return f"This storage {measured or 'was not measured'}: {subject}"
    reason = f"{decisive.title[:1].lower()}{decisive.title[1:]}: {decisive.observed}"
    if answer == "client_limited":
        return f"This client, not the storage, holds back {subject}: {decisive.observed}; it {measured}"
    if answer == "invalid":
        return f"The run is invalid: {reason}"
    if answer == "partial":
        seen = sum(each.complete for each in result.checkpoints)
        return f"The run is partial: it was cut short ({decisive.observed}) after {seen} saves and loads"
    return f"How fast this storage takes {subject} is not proven: {reason}" + (f"; it {measured}" if measured else "")


def _subject(result: Result) -> str:
    plan, figures = result.plan, result.checkpointing
    size = format_bytes(figures.size_bytes) if figures is not None else "unknown size"
    changed = "a changed " if plan.deviations else ""
    plural = "" if plan.ranks == 1 else "s"
    return f"checkpoints of {changed}{plan.model} ({size}) from {plan.ranks} rank{plural}"


def _measured(result: Result) -> str:
    figures = result.checkpointing
    if figures is None:
        return ""
    told = [_told("saves", figures.save), _told("loads", figures.load)]
    return " and ".join(each for each in told if each)


def _told(verb: str, figures: OperationFigures | None) -> str:
    if figures is None:
        return ""
    return f"{verb} one in {format_seconds(figures.seconds)} ({format_rate(figures.bytes_per_second)})"
