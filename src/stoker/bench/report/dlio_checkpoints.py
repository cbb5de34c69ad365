"""What DLIO's files tell of checkpoints: the keys of summary.json, a rank's timeline, the lines of the log.

`correct` fills the keys with the figures of the slowest rank, `compatible` with those of rank 0's clock, which is what
DLIO reports. "GB" are GiB; deviations are of the population.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from stoker.core.checkpoints import SAVE, CheckpointNote, OperationFigures
from stoker.core.result import RankResult, Result
from stoker.core.units import GiB

_CORRECT: Final = "correct"
_STAMP: Final = "%Y-%m-%dT%H:%M:%S.%f"


def checkpoint_figures(result: Result, mode: str) -> dict[str, Any]:
    """Return the checkpoint keys of `metric`, none for a run without checkpoints."""
    figures = result.checkpointing
    if figures is None:
        return {}
    told: dict[str, Any] = {}
    for verb, each in (("save", figures.save), ("load", figures.load)):
        if each is not None:
            told |= _operation(verb, each, mode)
    return told | {"checkpoint_size_GB": figures.size_bytes / GiB}


def _operation(verb: str, each: OperationFigures, mode: str) -> dict[str, float]:
    correct = mode == _CORRECT
    rate = each.bytes_per_second if correct else each.bytes_per_second_compatible
    rate_stdev = each.bytes_per_second_stdev if correct else each.bytes_per_second_compatible_stdev
    return {
        f"{verb}_checkpoint_io_mean_GB_per_second": rate / GiB,
        f"{verb}_checkpoint_io_stdev_GB_per_second": rate_stdev / GiB,
        f"{verb}_checkpoint_duration_mean_seconds": each.seconds if correct else each.seconds_compatible,
        f"{verb}_checkpoint_duration_stdev_seconds": each.seconds_stdev if correct else each.seconds_compatible_stdev,
    }


def own_figures(result: Result) -> dict[str, Any]:
    """Return what DLIO has no key for: when the saves and loads began and ended, for the handover between two runs."""
    figures = result.checkpointing
    if figures is None:
        return {}
    return {
        "checkpoint_first_utc": figures.first_utc,
        "checkpoint_last_utc": figures.last_utc,
        "checkpoint_last_save_utc": figures.last_save_utc,
        "checkpoint_whole_seconds": figures.whole_seconds,
        "checkpoints": [
            {
                "operation": each.operation,
                "number": each.number,
                "id": each.id,
                "seconds": each.seconds,
                "seconds_compatible": each.seconds_compatible,
                "all_seconds": each.all_seconds,
                "bytes": each.bytes,
                "slowest_rank": each.slowest_rank,
                "complete": each.complete,
            }
            for each in result.checkpoints
        ],
    }


def checkpoint_stats(rank: RankResult, size_bytes: int) -> dict[str, dict[str, Any]]:
    """Return epoch → `save_ckpt<k>` and `load_ckpt<k>` of a rank that were seen through."""
    found: dict[str, dict[str, Any]] = {}
    for note in rank.checkpoints:
        if note.complete:
            name = f"{note.operation}_ckpt{note.number}"
            found.setdefault(epoch_of(note), {})[name] = _span(note, size_bytes)
    return found


def epoch_of(note: CheckpointNote) -> str:
    """Return the epoch that a checkpoint's id names, as DLIO's files key it."""
    digits = note.id.removeprefix("global_epoch").partition("_")[0]
    return digits if digits.isdecimal() else "1"


def _span(note: CheckpointNote, size_bytes: int) -> dict[str, Any]:
    start, end = _times(note)
    rate = size_bytes / GiB / note.seconds if note.seconds > 0 else 0.0
    return {"start": start, "end": end, "duration": note.seconds, "throughput": rate}


def _times(note: CheckpointNote) -> tuple[str, str]:
    """Return a note's beginning and end as local time without a zone."""
    start = datetime.fromtimestamp(datetime.fromisoformat(note.started_utc).timestamp())
    return start.strftime(_STAMP), (start + timedelta(seconds=note.seconds)).strftime(_STAMP)


def checkpoint_lines(result: Result) -> Iterator[str]:
    """Yield the log's lines of rank 0's saves and loads."""
    first = next((rank for rank in result.ranks if rank.rank == 0), None)
    for note in first.checkpoints if first is not None else []:
        if note.complete:
            start, end = _times(note)
            doing = "saving" if note.operation == SAVE else "loading"
            yield f"{start} Starting {doing} checkpoint {note.number} ({note.id})"
            yield f"{end} Finished {doing} checkpoint {note.number} in {note.seconds:.4f} s"


def checkpoint_metric_lines(metric: dict[str, Any]) -> Iterator[str]:
    """Yield the `[METRIC] ` lines of checkpoints, where there are figures."""
    for verb in ("save", "load"):
        if f"{verb}_checkpoint_io_mean_GB_per_second" in metric:
            pairs: Sequence[tuple[str, str]] = (("duration", "seconds"), ("io", "GB_per_second"))
            for name, unit in pairs:
                mean = metric[f"{verb}_checkpoint_{name}_mean_{unit}"]
                stdev = metric[f"{verb}_checkpoint_{name}_stdev_{unit}"]
                label = "duration (seconds)" if name == "duration" else "I/O Throughput (GB/second)"
                yield f"[METRIC] Checkpoint {verb} {label}: {mean:.4f} ({stdev:.4f})"
    if "checkpoint_size_GB" in metric:
        yield f"[METRIC] Checkpoint size (GB): {metric['checkpoint_size_GB']:.4f}"
