"""Row g: what grows: with files (list, open, plan, shuffle), with samples and ranks (plans), with ranks and threads."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.contest import Series
from benchmarks.dataset import make_dataset
from benchmarks.harness import PeerError
from benchmarks.peers import TURNS, run_turn, turn_of
from stoker.core.plan import DatasetSpec
from stoker.core.units import GiB, KiB

PLAN_KEY = "growth/plan 10,000,000 samples over 1,024 ranks"
PARTS = ("list", "open", "plan", "shuffle")
FILES_PER_FOLDER = 10_000
START_SECONDS_MAX = 120.0


def make_files(folder: Path, files: int) -> None:
    """Make empty files, ten thousand a folder."""
    for first in range(0, files, FILES_PER_FOLDER):
        inner = folder / "train" / f"{first // FILES_PER_FOLDER:04d}"
        inner.mkdir(parents=True)
        for number in range(first, min(first + FILES_PER_FOLDER, files)):
            (inner / f"img_{number:08d}.raw").touch()


def grown(conditions: Conditions, part: str, **asked: Any) -> dict[str, float]:
    """Run a part in a fresh process; return its seconds and memory."""
    return run_turn(conditions.python, "growth", {"part": part, **asked})


def by_files(conditions: Conditions) -> Series:
    """Measure what is done once for a dataset, for ten times as many files each."""
    columns = [f"{part}_{unit}" for part in PARTS for unit in ("seconds", "peak_bytes")]
    note = "List empty files of a folder; open a saved manifest; make a loader and its plan; shuffle the whole epoch."
    series = Series("growth/files", "files", tuple(columns), note=note)
    for exponent in range(3, conditions.choose(4, 6, 6) + 1):
        files = 10**exponent
        with conditions.folder(files * 8 * KiB) as folder:
            make_files(folder / "listed", files)
            (folder / "saved").mkdir()
            urls = {"list": f"file://{folder}/listed", "open": f"file://{folder}/saved"}
            grown(conditions, "save", files=files, url=urls["open"])
            for _ in range(min(3, conditions.rounds)):
                found = {part: grown(conditions, part, files=files, url=urls.get(part, "")) for part in PARTS}
                values = {f"{part}_{unit}": found[part][unit] for part in PARTS for unit in ("seconds", "peak_bytes")}
                series.add(f"{files:,}", **values)
    return series


def plans(conditions: Conditions) -> Series:
    """Plan ten million samples for one of 1,024 ranks, and for each of them in turn."""
    note = "Ten thousand files of a thousand samples, batch 8; all the numbers of an epoch, in order, for each rank."
    series = Series(PLAN_KEY, "ranks planned", ("seconds", "cpu_seconds", "peak_bytes", "more_bytes"), note=note)
    asked = {"files": 10_000, "samples_per_file": 1000, "batch_size": 8, "ranks": 1024, "check": False}
    if conditions.scale == "full":
        grown(conditions, "ranks", **{**asked, "check": True, "planned_ranks": 1024})
    for _ in range(conditions.rounds):
        for label, planned in (("one", 1), ("all 1,024", 1024)):
            series.add(label, **grown(conditions, "ranks", **asked, planned_ranks=planned))
    return series


def start_ranks(conditions: Conditions, ranks: int) -> dict[str, float]:
    """Start processes, one a rank; return the seconds until the last had its first batch. Raises PeerError."""
    start = time.time()
    commands = [
        [conditions.python, str(TURNS / "first_batch.py"), json.dumps({"rank": rank, "ranks": ranks})]
        for rank in range(ranks)
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        told = [process.communicate(timeout=START_SECONDS_MAX)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    if any(process.returncode for process in running):
        raise PeerError("a rank failed to start")
    results = [json.loads(text) for text in told]
    last = max(result["first_batch"] for result in results) - start
    return {"seconds": last, "seconds_per_rank": last / ranks, "peak_bytes": sum(r["peak_bytes"] for r in results)}


def by_ranks(conditions: Conditions) -> Series:
    """Measure how long local ranks take from their start to the first batch of the last."""
    note = "From the start of the first process to the first batch of the last, imports included, on `null://`."
    series = Series("growth/ranks", "ranks", ("seconds", "seconds_per_rank", "peak_bytes"), note=note)
    counts = {"quick": (1, 4, 16), "default": (1, 4, 16, 64), "full": (1, 2, 4, 8, 16, 32, 64)}[conditions.scale]
    for ranks in counts:
        series.add(str(ranks), **start_ranks(conditions, ranks))
    return series


def by_threads(conditions: Conditions) -> Series:
    """Measure an epoch of small cached files by the number of reading threads."""
    columns = ("bytes_per_second", "samples_per_second", "samples_per_cpu_second", "cpu_seconds_per_gib", "peak_bytes")
    series = Series("growth/threads", "threads", columns, note="NPZ files of 100 KiB from the page cache, batch 32.")
    files = conditions.choose(1000, 3000, 3000)
    with conditions.folder(files * 110 * KiB) as folder:
        made = make_dataset(folder / "data", DatasetSpec("npz", files, record_length_bytes=100 * KiB))
        for _ in range(conditions.rounds):
            for threads in (1, 2, 4, 8, 16):
                loader = made.loader_turn(batch_size=32, read_threads=threads, decode_threads=0)
                turn = turn_of(run_turn(conditions.python, "stoker_epoch", {**loader, "epochs": 2}))
                series.add(
                    str(threads),
                    bytes_per_second=turn.payload_bytes / turn.wall_seconds,
                    samples_per_second=turn.samples / turn.wall_seconds,
                    samples_per_cpu_second=turn.samples / turn.cpu_seconds,
                    cpu_seconds_per_gib=turn.cpu_seconds / (turn.payload_bytes / GiB),
                    peak_bytes=turn.peak_bytes,
                )
    return series


def run(conditions: Conditions) -> list[Series]:
    """Measure all of it."""
    return [by_files(conditions), plans(conditions), by_ranks(conditions), by_threads(conditions)]
