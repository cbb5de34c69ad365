"""DLIO's output files, written from a saved run folder: summary.json, two files a rank, the log, Hydra's folder."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from stoker.bench.report.dlio_checkpoints import checkpoint_stats
from stoker.bench.report.dlio_host import HostFacts, host_facts, may_be_cached
from stoker.bench.report.dlio_log import log_text
from stoker.bench.report.dlio_ranks import (
    Stretch,
    WallMap,
    local_text,
    per_epoch_stats,
    rank_output,
    stretches,
    wall_map,
)
from stoker.bench.report.dlio_summary import CORRECT, MODES, summary
from stoker.bench.report.series import Columns, rank_columns
from stoker.core.errors import UsageError
from stoker.core.files import check_key, write_atomic
from stoker.core.result import SERIES_FILE, RankResult, Result, load_result

SUMMARY_FILE: Final = "summary.json"
LOG_FILE: Final = "dlio.log"


def write_dlio_files(run_folder: Path, out: Path, *, metrics: str = CORRECT, log_file: str = LOG_FILE) -> list[Path]:
    """Write DLIO's files of the saved run in `run_folder` into `out`, made when missing; return their paths.

    `metrics` says which figures fill the standard keys: correct (ours) or compatible (by DLIO's formulas).
    A rank without steps has no files of its own. Raises UsageError for another word, CorruptError for a folder that
    holds no sound result.
    """
    if metrics not in MODES:
        raise UsageError("unknown metrics", where=metrics, expected=" or ".join(MODES))
    result = load_result(run_folder)
    facts = host_facts(result)
    out.mkdir(parents=True, exist_ok=True)
    ranks = {rank.rank: rank for rank in result.ranks}
    first: tuple[dict[int, list[Stretch]], WallMap] | None = None
    paths: list[Path] = []
    for number, columns in rank_columns(run_folder / SERIES_FILE):
        if not columns["epoch"].size:
            continue
        epochs = stretches(columns)
        wall = wall_map(run_folder, number, result, _first_ns(columns))
        first = first or (epochs, wall)
        rank = ranks.get(number) or RankResult(rank=number)
        saves = checkpoint_stats(rank, result.checkpointing.size_bytes if result.checkpointing is not None else 0)
        paths += _write_rank(out, rank, (epochs, wall, saves), facts, (metrics, may_be_cached(result, facts)))
    if not result.plan.trains:
        paths += [path for rank in result.ranks for path in _write_checkpoint_rank(out, rank, result, facts)]
    epochs, wall = first or ({}, WallMap(0, 0.0))
    whole = _summary(result, facts, metrics)
    log = log_text(result, epochs, wall, whole, mode=metrics, folder=str(out))
    paths += [_write_json(out / SUMMARY_FILE, whole), _write(out / check_key(log_file), log)]
    return paths


def write_hydra_files(folder: Path, documents: Mapping[str, Any]) -> list[Path]:
    """Write Hydra's files (`config.yaml`, `hydra.yaml`, `overrides.yaml`) into `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write(folder / check_key(name), yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        for name, document in documents.items()
    ]


def _summary(result: Result, facts: HostFacts, metrics: str) -> dict[str, Any]:
    start, end = local_text(result.started_utc), local_text(result.ended_utc)
    return summary(result, facts, mode=metrics, start=start, end=end)


def _first_ns(columns: Columns) -> int:
    return int(columns["request_ns"][0])


def _write_rank(
    out: Path,
    rank: RankResult,
    timeline: tuple[dict[int, list[Stretch]], WallMap, dict[str, dict[str, Any]]],
    facts: HostFacts,
    told: tuple[str, int],
) -> list[Path]:
    (epochs, wall, saves), (mode, cached) = timeline, told
    stats = per_epoch_stats(epochs, wall)
    for epoch, operations in saves.items():
        stats.setdefault(epoch, {}).update(operations)
    output = rank_output(rank, epochs, wall, facts, mode=mode, cached=cached)
    return [
        _write_json(out / f"{rank.rank}_per_epoch_stats.json", stats),
        _write_json(out / f"{rank.rank}_output.json", output),
    ]


def _write_checkpoint_rank(out: Path, rank: RankResult, result: Result, facts: HostFacts) -> list[Path]:
    """Write a rank's two files of a run of checkpoints alone: they stand in epoch 1, without blocks."""
    size = result.checkpointing.size_bytes if result.checkpointing is not None else 0
    operations = checkpoint_stats(rank, size).get("1", {})
    start = min((each["start"] for each in operations.values()), default=local_text(result.started_utc))
    end = max((each["end"] for each in operations.values()), default=local_text(result.ended_utc))
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    stats = {"1": {"start": start, **operations, "end": end, "duration": f"{seconds:.2f}"}}
    output = rank_output(rank, {}, WallMap(0, 0.0), facts, mode=CORRECT, cached=0)
    output["1"] = {"start": start, "load": {}, "proc": {}, "throughput": {}, "au": {}, "compute": {}, "end": end}
    return [
        _write_json(out / f"{rank.rank}_per_epoch_stats.json", stats),
        _write_json(out / f"{rank.rank}_output.json", output),
    ]


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    return _write(path, json.dumps(content, indent=4, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> Path:
    write_atomic(path, text.encode())
    return path
