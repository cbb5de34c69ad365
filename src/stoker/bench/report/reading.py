"""How the ranks read, in one line: what was chosen, by whom, and why no more was tried."""

from collections.abc import Sequence
from typing import Any, Final

from stoker.bench.report import text
from stoker.core.result import Reading, Result
from stoker.core.units import GiB, KiB, MiB

_KNOBS: Final = {"readers": "readers", "queue_depth": "depth", "request_bytes": "request size"}
_RANKS_SHOWN: Final = 64
_REASONS_SHOWN: Final = 4


def readings(result: Result) -> list[Reading]:
    """Return what the ranks told; some may have told nothing."""
    return [rank.reading for rank in result.ranks if rank.reading is not None]


def reading_line(result: Result) -> str:
    """Return `io_uring, 2 readers × depth 16, requests of 1 MiB (chosen: throughput stopped growing)`.

    Ranks that differ are told as ranges. Empty when no rank told anything.
    """
    told = readings(result)
    if not told:
        return ""
    engines = " and ".join(dict.fromkeys(text.plain(each.engine, 40) for each in told[:_RANKS_SHOWN] if each.engine))
    depths = [each.queue_depth for each in told]
    parts = [f"{engines}, " if engines else "", _counted([each.readers for each in told], "reader")]
    if engines and max(depths) > 0:
        parts.append(f" × depth {_range(depths)}")
        parts.append(f", requests of {_sizes([each.request_bytes for each in told])}")
    return f"{''.join(parts)} ({_decided(told)})"


def reading_dict(result: Result) -> dict[str, Any] | None:
    """Return the same as plain data: least and most over the ranks, and each reason with its number of ranks."""
    told = readings(result)
    if not told:
        return None
    numbers = {knob: [getattr(each, knob) for each in told] for knob in _KNOBS}
    return {
        "ranks": len(told),
        "engines": list(dict.fromkeys(each.engine for each in told)),
        **{f"{knob}_min": min(values) for knob, values in numbers.items()},
        **{f"{knob}_max": max(values) for knob, values in numbers.items()},
        "pinned": list(_pinned(told)),
        "settled": all(each.settled for each in told),
        "why": _reasons(told),
    }


def _decided(told: Sequence[Reading]) -> str:
    """Return what was pinned, and why what was chosen was chosen."""
    pinned = _pinned(told)
    alone = not any(each.engine for each in told)  # ordinary reads: there is nothing but the readers
    if len(pinned) == len(_KNOBS) or (alone and "readers" in pinned):
        return "pinned"
    names = " and ".join(_KNOBS[knob] for knob in pinned)
    reasons = _reasons(told)
    whys = [
        text.plain(why, 80) + (f" on {count} of {len(told)} ranks" if len(reasons) > 1 else "")
        for why, count in list(reasons.items())[:_REASONS_SHOWN]
    ]
    chosen = f"chosen: {', '.join(whys)}" if whys else "chosen"
    return f"{names} pinned; {chosen}" if names else chosen


def _pinned(told: Sequence[Reading]) -> tuple[str, ...]:
    """Return the settings that every rank had pinned: all come from one plan."""
    return tuple(knob for knob in _KNOBS if all(knob in each.pinned for each in told))


def _reasons(told: Sequence[Reading]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in told:
        if each.why:
            counts[each.why] = counts.get(each.why, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def _counted(values: Sequence[int], noun: str) -> str:
    return f"{_range(values)} {noun}{'' if max(values) == 1 else 's'}"


def _sizes(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return _size(least) if least == most else f"{_size(least)} to {_size(most)}"


def _size(size_bytes: int) -> str:
    """Return a size that was set, without needless zeros: `1 MiB`, not `1.00 MiB`."""
    for unit_bytes, unit in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if size_bytes >= unit_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes} {unit}"
    return text.size(size_bytes)
