"""DLIO's two files of each rank: the timeline of its epochs, and every step's seconds."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from stoker.bench.report.dlio_host import HostFacts
from stoker.bench.report.dlio_summary import CORRECT, EVALUATION, TRAIN
from stoker.bench.report.series import Columns
from stoker.core.errors import CorruptError
from stoker.core.events import read_events
from stoker.core.result import EVENTS_FILE, RANKS_FOLDER, Epoch, RankResult, Result

Mask = npt.NDArray[np.bool_]
_STAMP: Final = "%Y-%m-%dT%H:%M:%S.%f"


class WallMap(msgspec.Struct, frozen=True):
    """Turns a rank's monotonic times into local time: one moment known on both clocks."""

    monotonic_ns: int
    wall_seconds: float

    def text(self, at_ns: int) -> str:
        """Return the local time of a monotonic one, `2026-01-31T12:00:00.000000`, as DLIO writes it."""
        seconds = self.wall_seconds + (at_ns - self.monotonic_ns) / 1e9
        return datetime.fromtimestamp(seconds).strftime(_STAMP)


def local_text(utc: str) -> str:
    """Return an ISO 8601 UTC time as local time without a zone, an empty text for none."""
    return datetime.fromtimestamp(_utc_seconds(utc)).strftime(_STAMP) if utc else ""


def _utc_seconds(utc: str) -> float:
    try:
        return datetime.fromisoformat(utc).timestamp()
    except ValueError as error:
        raise CorruptError("not a time", where=utc, expected="ISO 8601 UTC") from error


def wall_map(run_folder: Path, rank: int, result: Result, first_ns: int) -> WallMap:
    """Return the rank's clocks held together by the first event of its log, or of the conductor's.

    Without either the rank's first request is taken to be the run's start, which is right to a second or so.
    """
    for log in (run_folder / RANKS_FOLDER / f"rank-{rank:04d}.jsonl", run_folder / EVENTS_FILE):
        if log.is_file():
            event = next(iter(read_events(log)), None)
            if event is not None and isinstance(event.get("at_ns"), int) and isinstance(event.get("utc"), str):
                return WallMap(event["at_ns"], _utc_seconds(event["utc"]))
    return WallMap(first_ns, _utc_seconds(result.started_utc) if result.started_utc else 0.0)


class Stretch(msgspec.Struct, frozen=True):
    """A block or an evaluation: its name, its times, and its steps' seconds."""

    name: str
    start_ns: int
    end_ns: int
    load: list[float]
    process: list[float]
    compute: list[float]


def stretches(columns: Columns) -> dict[int, list[Stretch]]:
    """Return epoch → its blocks (`block1` …) and, when there was one, `eval`, in order of time."""
    found: dict[int, list[Stretch]] = {}
    for epoch in dict.fromkeys(columns["epoch"].tolist()):
        in_epoch = columns["epoch"] == epoch
        train = in_epoch & (columns["phase"] == 0)
        blocks = dict.fromkeys(columns["block"][train].tolist())
        parts = [
            _stretch(columns, train & (columns["block"] == block), f"block{number}")
            for number, block in enumerate(blocks, start=1)
        ]
        evaluation = in_epoch & (columns["phase"] != 0)
        if evaluation.any():
            parts.append(_stretch(columns, evaluation, "eval"))
        found[epoch] = parts
    return found


def _stretch(columns: Columns, mask: Mask, name: str) -> Stretch:
    request, ready = columns["request_ns"][mask], columns["ready_ns"][mask]
    started, computed = columns["compute_start_ns"][mask], columns["compute_end_ns"][mask]
    return Stretch(
        name=name,
        start_ns=int(request[0]),
        end_ns=int(columns["end_ns"][mask].max()),
        load=_seconds(ready - request),
        process=_seconds(computed - request),
        compute=_seconds(computed - started),
    )


def _seconds(durations_ns: npt.NDArray[np.int64]) -> list[float]:
    seconds: list[float] = (durations_ns / 1e9).tolist()
    return seconds


def per_epoch_stats(epochs: dict[int, list[Stretch]], wall: WallMap) -> dict[str, Any]:
    """Return the content of `<rank>_per_epoch_stats.json`: start, end and duration of all epochs and their blocks."""
    stats: dict[str, Any] = {}
    for epoch, parts in epochs.items():
        start_ns, end_ns = parts[0].start_ns, max(part.end_ns for part in parts)
        spans = {part.name: _span(part.start_ns, part.end_ns, wall) for part in parts}
        whole = _span(start_ns, end_ns, wall)
        stats[str(epoch)] = {"start": whole["start"], **spans, "end": whole["end"], "duration": whole["duration"]}
    return stats


def _span(start_ns: int, end_ns: int, wall: WallMap) -> dict[str, str]:
    duration = f"{(end_ns - start_ns) / 1e9:.2f}"
    return {"start": wall.text(start_ns), "end": wall.text(end_ns), "duration": duration}


def rank_output(
    rank: RankResult, epochs: dict[int, list[Stretch]], wall: WallMap, facts: HostFacts, *, mode: str, cached: int
) -> dict[str, Any]:
    """Return the content of `<rank>_output.json`: the host, and the seconds of every step by epoch and block.

    `au` (per cent) and `throughput` (samples/s of this rank) are an epoch's; where checkpoints cut an epoch into
    several blocks they are left out, as no block has its own.
    """
    output: dict[str, Any] = {
        "host_memory_GB": facts.memory_gib,
        "host_cpu_count": facts.cpu_count,
        "host_processor_name": facts.processor,
        "potential_caching": cached,
        "host_cpuinfo": facts.cpuinfo,
        "host_meminfo": facts.meminfo,
    }
    for epoch, parts in epochs.items():
        output[str(epoch)] = {
            "start": wall.text(parts[0].start_ns),
            "load": {part.name: part.load for part in parts},
            "proc": {part.name: part.process for part in parts},
            "throughput": {part.name: rate for part, _, rate in _rated(rank, epoch, parts, mode)},
            "au": {part.name: au for part, au, _ in _rated(rank, epoch, parts, mode)},
            "compute": {part.name: part.compute for part in parts},
            "host_meminfo": {},
            "end": wall.text(max(part.end_ns for part in parts)),
        }
    output["hostname"] = rank.host or facts.hosts[0]
    return output


def _rated(rank: RankResult, epoch: int, parts: list[Stretch], mode: str) -> list[tuple[Stretch, float, float]]:
    """Return (stretch, AU per cent, samples/s) where they are known."""
    several = sum(part.name != "eval" for part in parts) > 1
    rated = []
    for part in parts:
        phase = EVALUATION if part.name == "eval" else TRAIN
        found = next((each for each in rank.epochs if (each.epoch, each.phase) == (epoch, phase)), None)
        if found is not None and not (several and phase == TRAIN):
            rated.append((part, *rates(found, mode)))
    return rated


def rates(epoch: Epoch, mode: str) -> tuple[float, float]:
    """Return an epoch's AU in per cent and its samples a second."""
    if mode == CORRECT:
        return 100 * epoch.au_ratio, epoch.samples_per_second
    return 100 * epoch.au_compatible_ratio, epoch.samples_per_second_compatible
