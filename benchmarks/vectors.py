"""What does our client cost? Queries a second of one rank beside a bare loop over the same searches, in turns.

The loop asks the very engine on a connection of its own, with nothing around: it is the ceiling. A rank notes times and
answers, keeps a log and counts, as in a run. Ratios are taken round by round, so that drift hits both alike.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from benchmarks.harness import machine
from stoker.bench.run.record import make_layout
from stoker.bench.run.vectordb import NO_TARGET, Watching, run_vectordb
from stoker.bench.run.vectors.options import VECTORDB
from stoker.bench.run.vectors.places import packed_address, place_of
from stoker.bench.run.vectors.planning import plan_vectors
from stoker.bench.workloads.comm import SoloComm
from stoker.bench.workloads.training import RankJob
from stoker.bench.workloads.vectordb import run_vectors
from stoker.core.files import write_atomic
from stoker.core.options import resolve
from stoker.core.plan import Job, TrainingPlan
from stoker.vectors.engine import Address, engine_kind
from stoker.vectors.making import make_queries


def bare(plan: TrainingPlan, address: Address, seconds: float) -> float:
    """Return the queries a second of a loop."""
    what = plan.vectors
    assert what is not None
    queries = make_queries(what.recipe, what.queries_made, what.query_seed)
    with closing(engine_kind(what.engine).open(address)) as engine:
        searcher = engine.searcher(engine.describe(what.collection), what.k, what.effort)
        searcher.search(queries[:1])
        done, begin = 0, time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds:
            at = done % len(queries)
            searcher.search(queries[at : at + 1])
            done += 1
        return done / (now - begin)


def ours(plan: TrainingPlan, folder: Path) -> float:
    """Return the queries a second of a rank."""
    make_layout(folder)
    report, _ = run_vectors(RankJob(plan, SoloComm(), NO_TARGET, folder))
    assert report.vectors is not None
    return report.vectors.queries / report.vectors.seconds


@contextmanager
def loaded(target: str, folder: Path, seconds: float, vectors: int) -> Iterator[tuple[TrainingPlan, Address]]:
    """Have a collection, and yield the plan of searching it."""
    flags = {"vectors": vectors, "dimension": 128, "duration": seconds, "collection": "stoker_bench_vectors",
             "results": str(folder), "host_interval": 0, "force": True, "load": "only"}  # fmt: skip
    settings = resolve(VECTORDB, flags=flags, file={})
    placed = place_of(target)
    plan = plan_vectors(settings, placed)
    kind = engine_kind(placed.engine)
    with kind.serve(placed.address) as address:
        assert plan.vectors is not None
        what = msgspec.structs.replace(plan.vectors, address=packed_address(address))
        plan = msgspec.structs.replace(plan, vectors=what)
        there = msgspec.structs.replace(placed, address=address)
        run_vectordb(Job("benchmark"), settings, plan, there, Watching())
        yield plan, address
        with closing(kind.open(address)) as engine:
            engine.drop(what.collection)


def main() -> None:
    """Take turns and tell the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="as of stoker run vectordb")
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = options.folder / f"stoker-bench-{os.getpid()}"
    rounds: list[tuple[float, float]] = []
    with loaded(options.target, folder, options.seconds, options.vectors) as (plan, address):
        for number in range(options.rounds + 1):
            pair = (bare(plan, address, options.seconds), ours(plan, folder / f"turn-{number}"))
            rounds += [pair] if number else []  # the first warms the database
    ratios = [ours_rate / loop_rate for loop_rate, ours_rate in rounds]
    told = {
        "bare_queries_per_second": statistics.median(loop for loop, _ in rounds),
        "ours_queries_per_second": statistics.median(mine for _, mine in rounds),
        "ratio_median": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "rounds": rounds,
        "machine": machine(),
        "engine": plan.vectors.engine if plan.vectors is not None else "",
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "vectors.json", json.dumps(told, indent=1).encode())
    low, middle, high = told["ratio_low"], told["ratio_median"], told["ratio_high"]
    print(f"bare {told['bare_queries_per_second']:.0f}/s, ours {told['ours_queries_per_second']:.0f}/s: {middle:.3f} "
          f"({low:.3f} to {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
