"""From what the ranks tell of their saves and loads to the run's: each operation, and all of a kind. Pure.

Two clocks: the reference reports rank 0's own time with the bytes of all ranks, though others may still be at work; a
restart cannot begin before the slowest rank is done. Both are kept, the first named compatible.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from stoker.bench.workloads.reports import RankReport
from stoker.core.checkpoints import LOAD, SAVE, Checkpoint, CheckpointFigures, CheckpointNote, OperationFigures
from stoker.core.clock import utc_text

Part = tuple[RankReport, CheckpointNote]


def combine(reports: Sequence[RankReport], *, ranks: int) -> list[Checkpoint]:
    """Return the operations of the run in the order they ran; `ranks` were to take part in each."""
    parts: dict[tuple[int, int], list[Part]] = {}
    for report in reports:
        for note in report.checkpoints:
            parts.setdefault(((SAVE, LOAD).index(note.operation), note.number), []).append((report, note))
    return [_combined(parts[key], ranks) for key in sorted(parts)]


def _combined(parts: Sequence[Part], ranks: int) -> Checkpoint:
    notes = [note for _, note in parts]
    slowest_report, slowest = max(parts, key=lambda part: part[1].seconds)
    first = next((note for report, note in parts if report.start.rank == 0), None)
    size = sum(note.bytes for note in notes)
    compatible = first.seconds if first is not None else 0.0
    stages: dict[str, float] = {}
    for note in notes:
        for stage, seconds in note.stage_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return Checkpoint(
        operation=slowest.operation,
        number=slowest.number,
        id=slowest.id,
        started_utc=first.started_utc if first is not None else min(note.started_utc for note in notes),
        ranks=len(parts),
        bytes=size,
        files=sum(note.files for note in notes),
        seconds=slowest.seconds,
        seconds_compatible=compatible,
        seconds_mean=float(np.mean([note.seconds for note in notes])),
        all_seconds=first.all_seconds if first is not None else 0.0,
        bytes_per_second=_rate(size, slowest.seconds),
        bytes_per_second_compatible=_rate(size, compatible),
        slowest_rank=slowest_report.start.rank,
        slowest_host=slowest_report.start.host,
        verified_bytes=sum(note.verified_bytes for note in notes),
        dirty_bytes=_sum([note.dirty_bytes for note in notes]),
        resident_bytes=_sum([note.resident_bytes for note in notes]),
        device_written_bytes=_device_written(parts),
        stage_seconds=stages,
        complete=len(parts) == ranks and all(note.complete for note in notes),
    )


def _rate(size: int, seconds: float) -> float:
    return size / seconds if seconds > 0 else 0.0


def _sum(values: Sequence[int | None]) -> int | None:
    return None if None in values else sum(value or 0 for value in values)


def _device_written(parts: Sequence[Part]) -> int | None:
    """Return what the devices under the target wrote meanwhile, each host counted once."""
    leaders = [note.counters.device_write_bytes for report, note in parts if report.start.host_rank == 0]
    return _sum(leaders) if leaders else None


def figures(checkpoints: Sequence[Checkpoint], *, size_bytes: int, files: int) -> CheckpointFigures:
    """Return the figures over all operations that were seen through."""
    done = [each for each in checkpoints if each.complete]
    found = CheckpointFigures(size_bytes=size_bytes, files=files, save=_of(done, SAVE), load=_of(done, LOAD))
    if not done:
        return found
    ends = [_end(each) for each in done]
    first = min(_moment(each.started_utc) for each in done)
    found.first_utc, found.last_utc = done[0].started_utc, utc_text(max(ends).timestamp())
    found.whole_seconds = (max(ends) - first).total_seconds()
    saves = [_end(each) for each in done if each.operation == SAVE]
    found.last_save_utc = utc_text(max(saves).timestamp()) if saves else ""
    return found


def _of(done: Sequence[Checkpoint], operation: str) -> OperationFigures | None:
    mine = [each for each in done if each.operation == operation]
    if not mine:
        return None
    rates, seconds = [each.bytes_per_second for each in mine], [each.seconds for each in mine]
    compatible_rates = [each.bytes_per_second_compatible for each in mine]
    compatible = [each.seconds_compatible for each in mine]
    return OperationFigures(
        count=len(mine),
        bytes_per_second=_mean(rates),
        bytes_per_second_min=min(rates),
        bytes_per_second_stdev=_deviation(rates),
        seconds=_mean(seconds),
        seconds_max=max(seconds),
        seconds_stdev=_deviation(seconds),
        bytes_per_second_compatible=_mean(compatible_rates),
        bytes_per_second_compatible_stdev=_deviation(compatible_rates),
        seconds_compatible=_mean(compatible),
        seconds_compatible_stdev=_deviation(compatible),
        all_seconds=_mean([each.all_seconds for each in mine]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values))


def _moment(utc: str) -> datetime:
    return datetime.fromisoformat(utc)


def _end(checkpoint: Checkpoint) -> datetime:
    return _moment(checkpoint.started_utc) + timedelta(seconds=max(checkpoint.all_seconds, checkpoint.seconds))
