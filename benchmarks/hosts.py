"""`python -m benchmarks.hosts`: what it costs to record the hosts of a run, in processor time.

Two looks. The sampler alone: processor seconds of one sample, and what that is of one processor at the interval. The
whole run: the same training with and without sampling, in turns, its processes' user and system seconds from
getrusage(2); the difference is given with the spread of the runs that it must stand against.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from stoker.bench.run.conduct import conduct
from stoker.bench.run.hosts.collect import new_header
from stoker.bench.run.hosts.sampler import Gathered, sample_of
from stoker.bench.run.hosts.sources import counted, read_all, read_dynamic, snapshot
from stoker.core.host_series import HostSeries, save_hosts
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

SPEC = DatasetSpec(format="npz", files=512, record_length_bytes=114_000.0)
SAMPLES = 360


def sampler_cost(interval_seconds: float) -> dict[str, Any]:
    """Return what one sample costs and weighs, over an hour's samples taken one after the other."""
    with tempfile.TemporaryDirectory(prefix="stoker-hosts-") as folder:
        texts, errors = read_all()
        disks, interfaces = counted(texts)
        series = HostSeries("a", disks=disks, interfaces=interfaces, start=snapshot(texts, errors))
        gathered = Gathered(series, new_header(interval_seconds), Path(folder) / "hosts-a.partial.jsonl")
        began = time.process_time()
        for number in range(SAMPLES):
            gathered.add(sample_of(read_dynamic()[0], at_us=number, wall_ns=time.time_ns()))
        sample_seconds = (time.process_time() - began) / SAMPLES
        done = gathered.finish()
        done.end = done.start
        file_bytes = save_hosts(Path(folder), new_header(interval_seconds), [done]).stat().st_size
    return {
        "cpu_seconds_per_sample": sample_seconds,
        "share_of_one_cpu_ratio": sample_seconds / interval_seconds,
        "columns": len(done.columns),
        "file_bytes_per_host_sample": file_bytes / SAMPLES,
    }


def run_cost(url: str, folder: Path, interval_seconds: float, seconds: float) -> float:
    """Return the processor seconds of one run in a process of its own, all its ranks included."""
    words = [url, str(folder), str(interval_seconds), str(seconds)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "benchmarks.hosts", "--one", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one(url: str, folder: str, interval: str, seconds: str) -> None:
    """Train two ranks with a fixed number of steps, so that every run does the same work."""
    steps = round(float(seconds) / 0.05)
    plan = TrainingPlan(
        model="hosts",
        dataset=SPEC,
        ranks=2,
        batch_size=8,
        epochs=max(1, round(steps / 32)),
        computation=Spread(parameters={"value": 0.05}),
        seed=1,
        host_interval_seconds=float(interval),
    )
    conduct(Job("benchmark"), plan, url, Path(folder))


def compare(rounds: int, interval_seconds: float, seconds: float) -> dict[str, Any]:
    """Return the processor seconds of runs with and without sampling, taken in turns, first one and then the other."""
    found: dict[float, list[float]] = {interval_seconds: [], 0.0: []}
    with tempfile.TemporaryDirectory(prefix="stoker-hosts-") as scratch:
        url = f"{scratch}/data"
        store = open_store(url, create=True)
        generate(store, SPEC)
        store.close()
        for number in range(rounds):
            order = list(found) if number % 2 else list(found)[::-1]
            for interval in order:
                found[interval].append(run_cost(url, Path(scratch) / f"{number}-{interval}", interval, seconds))
    with_sampling, without = found[interval_seconds], found[0.0]
    differences = [(a - b) / b for a, b in zip(with_sampling, without, strict=True)]
    return {
        "cpu_seconds_with": with_sampling,
        "cpu_seconds_without": without,
        "median_difference_ratio": statistics.median(differences),
        "spread_without_ratio": (max(without) - min(without)) / statistics.median(without),
    }


def main(words: list[str] | None = None) -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--seconds", type=float, default=25.0, help="length of a run")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.one:
        return one(*options.one)
    document = {
        "command": f"python -m benchmarks.hosts --rounds {options.rounds} --interval {options.interval:g} "
        f"--seconds {options.seconds:g}",
        "cpus": len(os.sched_getaffinity(0)),
        "sampler": sampler_cost(options.interval),
        "run": compare(options.rounds, options.interval, options.seconds),
    }
    print(json.dumps(msgspec.to_builtins(document), indent=1))
    return None


if __name__ == "__main__":
    main()
