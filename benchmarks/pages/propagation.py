"""What does it cost to bring derived pages up to date?

One hop: a page of 64 bytes is written, `stabilize` is called, and the derived page holds the new bytes, committed and
logged. Then a chain and a fan-out of 1,000 pages, and a random graph of 100,000, all of 64 bytes. Beside whole waves
stand the engine alone (the wave is made and dropped before its commit), and the same pages written by `update_many`,
which logs a frame a page where a wave logs one. Beside the hop that calls Python stands its function by itself: no hop
is shorter than that and the write. Every figure is a median over the rounds, of CPU time and of wall time.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Contender, Turn, race, save
from stoker.core.units import MiB
from stoker.kernels.waves import WaveStep
from stoker.pages import Store
from stoker.pages.graph import Input, Propagation
from stoker.pages.graph.plain_waves import PlainWaves

PAGE_BYTES = 64
NODES = 1000
GRAPH_NODES = 100_000
ROWS = [np.full(PAGE_BYTES, value, np.uint8) for value in range(256)]
SHORT_CALLS = 2000


def opened(pages_max: int) -> Store:
    """Return a store in memory with room for so many pages."""
    return Store.open(size_bytes=64 * MiB, pages_max=pages_max, log_bytes=64 * MiB)


def turns(units: int, calls: int, work: Callable[[int], object]) -> Callable[[], Turn]:
    """Return a turn of many calls, each of which does `units` of work; the argument grows from call to call."""
    numbers = itertools.count()

    def run() -> Turn:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            work(next(numbers))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return Turn(PAGE_BYTES * units * calls, units * calls, cpu, wall)

    return run


def alone(graph: Propagation) -> Callable[[int], object]:
    """Return what makes the wave that is due and drops it: no commit, no bookkeeping."""
    engine = graph._engine

    def work(_: int) -> None:
        assert engine.advance(0, None) == WaveStep.SLOW
        engine.abandon()

    return work


def copies(inputs: Sequence[Input], out: np.ndarray) -> None:
    """Copy the first input."""
    out[:] = inputs[0].data


def hops(rounds: int) -> list[Contender]:
    """Race single hops and their parts."""
    with opened(64) as store:
        source, derived, called, made = (store.allocate(PAGE_BYTES).id for _ in range(4))
        store.derive("passthrough", [source], derived)
        store.stabilize()

        def write(number: int) -> None:
            store.write(source, ROWS[number % 256])

        def hop(number: int) -> None:
            store.write(source, ROWS[number % 256])
            store.stabilize()

        racers = [
            Contender("write of the source alone", turns(1, SHORT_CALLS, write)),
            Contender("hop, passthrough (write, stabilize)", turns(1, SHORT_CALLS, hop)),
            Contender("stabilize with nothing to do", turns(1, SHORT_CALLS, lambda _: store.stabilize())),
        ]
        race(racers, rounds)
        write(-1)
        store.stabilize()
        write(0)
        engine = [Contender("engine alone, passthrough", turns(1, SHORT_CALLS, alone(store.graph)))]
        race(engine, rounds)
        store.derive(copies, [called], made)
        store.stabilize()

        def call(number: int) -> None:
            store.write(called, ROWS[number % 256])
            store.stabilize()

        given, out = [Input(called, ROWS[1], lambda: None)], np.empty(PAGE_BYTES, np.uint8)
        python = [
            Contender("hop, Python function (write, stabilize)", turns(1, SHORT_CALLS, call)),
            Contender("that Python function alone", turns(1, SHORT_CALLS, lambda _: copies(given, out))),
        ]
        race(python, rounds)
        assert bytes(store.read(made)) == bytes(store.read(called))
        return racers + engine + python


def shape(rounds: int, edges: Callable[[list[int]], list[tuple[int, int]]], *, rows: bool) -> list[Contender]:
    """Race whole waves through 1,000 pages, the engine alone, the plain twin, and `update_many` of the same pages."""
    racers = []
    for plain in (False, True):
        with opened(2 * NODES) as store:
            pages = store.allocate_many([PAGE_BYTES] * (NODES + 1)).tolist()
            graph = Propagation(store, engine=PlainWaves(store.arena) if plain else None)
            graph.derive_all([("passthrough", [one], other, {}) for one, other in edges(pages)])
            graph.stabilize()

            def wave(number: int, store: Store = store, graph: Propagation = graph, page: int = pages[0]) -> None:
                store.write(page, ROWS[number % 256])
                graph.stabilize()

            name = "plain twin, whole wave" if plain else "whole wave, committed and logged"
            found = [Contender(name, turns(NODES, 2 if plain else 100, wave))]
            race(found, 5 if plain else rounds)
            if not plain:
                store.write(pages[0], ROWS[77] + 1)
                found.append(Contender("engine alone", turns(NODES, 100, alone(graph))))
                race(found[1:], rounds)
            racers += found
            graph.close()
    if rows:
        racers.append(same_pages(rounds))
    return racers


def same_pages(rounds: int) -> Contender:
    """Race `update_many`: as many pages, a frame each, without a graph."""
    with opened(2 * NODES) as store:
        ids = store.allocate_many([PAGE_BYTES] * NODES)
        images = np.repeat(np.arange(256, dtype=np.uint8), NODES * PAGE_BYTES).reshape(256, NODES, PAGE_BYTES)
        one = Contender(
            "update_many of the same pages",
            turns(NODES, 100, lambda number: store.update_many(ids, images[number % 256])),
        )
        race([one], rounds)
        return one


def random_graph(rounds: int) -> tuple[list[Contender], str]:
    """Race waves through a random graph: each page the sum of two earlier ones."""
    chance = random.Random(6)
    with opened(GRAPH_NODES + 64) as store:
        pages = store.allocate_many([PAGE_BYTES] * GRAPH_NODES).tolist()
        roots = GRAPH_NODES // 20
        store.graph.derive_all(
            ("sum", [pages[chance.randrange(index)] for _ in range(2)], pages[index], {"dtype": "<u8"})
            for index in range(roots, GRAPH_NODES)
        )
        store.stabilize()
        numbers = itertools.count(1)
        made: list[int] = []

        def wave() -> Turn:
            with store.batch() as batch:
                for page in chance.sample(pages[:roots], roots // 2):
                    batch.write_at(page, 0, next(numbers).to_bytes(8, "little"))
            wall, cpu = time.perf_counter(), time.process_time()
            report = store.stabilize()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            made.append(len(report.recomputed) + len(report.unchanged))
            return Turn(PAGE_BYTES * made[-1], made[-1], cpu, wall)

        racer = Contender("whole wave, committed and logged", wave)
        race([racer], rounds)
        waves = sorted(1e3 * one.wall_seconds for one in racer.rounds)
        told = (
            f"Pages made in a wave: median {statistics.median(made):,.0f}. Wall time of a wave, milliseconds: median "
        )
        told += f"{statistics.median(waves):.1f}, 90 of 100 within {waves[int(0.9 * (len(waves) - 1))]:.1f}, "
        return [racer], told + f"longest {waves[-1]:.1f}.\n"


def table(title: str, unit: str, racers: list[Contender]) -> str:
    """Return a Markdown table of nanoseconds a unit: medians of CPU and wall time, fastest and slowest round."""
    lines = [
        f"### {title}\n",
        f"| | CPU ns a {unit} | wall ns a {unit} | fastest … slowest, wall | rounds |",
        "|---|---|---|---|---|",
    ]
    for racer in racers:
        cpu = statistics.median(1e9 * one.cpu_seconds / one.samples for one in racer.rounds)
        walls = [1e9 * one.wall_seconds / one.samples for one in racer.rounds]
        spread = f"{min(walls):,.1f} … {max(walls):,.1f}"
        lines.append(
            f"| {racer.name} | {cpu:,.1f} | {statistics.median(walls):,.1f} | {spread} | {len(racer.rounds)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    raced: dict[str, list[Contender]] = {}
    texts = []

    def add(title: str, unit: str, racers: list[Contender], behind: str = "") -> None:
        raced[title] = racers
        texts.append(table(title, unit, racers) + (f"\n{behind}" if behind else ""))

    add("one hop of 64 bytes", "hop", hops(options.rounds))
    add(
        "chain of 1,000 pages", "page", shape(options.rounds, lambda pages: list(itertools.pairwise(pages)), rows=False)
    )
    fan = shape(options.rounds, lambda pages: [(pages[0], page) for page in pages[1:]], rows=True)
    add("fan-out to 1,000 pages", "page", fan)
    racers, told = random_graph(options.rounds)
    add("random graph of 100,000 pages", "page made", racers, told)
    print("\n".join(texts))
    command = f"python -m benchmarks.pages.propagation --rounds {options.rounds}"
    save(options.out, "pages_propagation", command, raced, "\n".join(texts))


if __name__ == "__main__":
    main()
