"""What does capture cost? Training steps with and without it, and tracking of pages against a full compare.

Training: two equal models are stepped in turn, one plain and one captured, so that drift hits both; the figure is the
median over the pairs of the ratio of their CPU times. Tracking: CPU time to write some pages of an array and to
collect what changed, by `userfaultfd` and by `compare`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.harness import machine
from stoker.core.units import MiB
from stoker.pages.capture.arrays import TrackedArray, TrackedEdit
from stoker.pages.capture.calls import CallTrace
from stoker.pages.capture.dispatch import WriteCapture
from stoker.pages.capture.optimizer import Step, watch_optimizer
from stoker.pages.capture.userfault import PAGE_BYTES, probe_userfault

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
EDIT_KIB = (64, 128, 256, 512, 1024, 4096)


def mlp() -> tuple[object, object]:
    """Return a perceptron of 0.8 million parameters and a batch."""
    import torch

    model = torch.nn.Sequential(
        torch.nn.Linear(256, 1024),
        torch.nn.ReLU(),
        torch.nn.Linear(1024, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 64),
    )
    return model, torch.randn(256, 256)


def transformer() -> tuple[object, object]:
    """Return two layers of a transformer, 1.6 million parameters, and a batch of 512 tokens."""
    import torch

    layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(8, 64, 256)


def trainer(
    make: Callable[[], tuple[object, object]],
    around: Callable[[object], AbstractContextManager] = nullcontext,
) -> tuple[object, object, Callable[[], None]]:
    """Return model, optimizer, and the function that does one training step, its optimizer `around` the model."""
    import torch

    torch.manual_seed(1)
    model, batch = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        with around(model):
            optimizer.step()

    return model, optimizer, step


def cpu_ns(work: Callable[[], object]) -> int:
    """Return the CPU time of the process for one call."""
    start = time.process_time_ns()
    work()
    return time.process_time_ns() - start


def paired(plain: Callable[[], None], captured: Callable[[], None], rounds: int) -> tuple[float, float, float, float]:
    """Return median, quartiles of captured/plain - 1, and the median plain milliseconds; each round swaps the order."""
    ratios, base = [], []
    for number in range(-5, rounds):
        order = (plain, captured) if number % 2 else (captured, plain)
        spent = {work: cpu_ns(work) for work in order}
        if number >= 0:
            ratios.append(spent[captured] / spent[plain] - 1)
            base.append(spent[plain] / 1e6)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high, statistics.median(base)


def ignored(_: Step) -> None:
    """Look at no step."""


def captures(make: Callable[[], tuple[object, object]]) -> dict[str, Callable[[], None]]:
    """Return a step for each way of capture, each with a model of its own."""
    found: dict[str, Callable[[], None]] = {}
    _, _, found["none (a second plain model)"] = trainer(make)
    _, optimizer, step = trainer(make)
    watch_optimizer(optimizer, ignored).close()
    found["optimizer, watched and closed"] = step
    _, optimizer, step = trainer(make)
    watch_optimizer(optimizer, ignored)
    found["optimizer, changes not asked"] = step
    _, optimizer, step = trainer(make)

    def every_step(seen: Step) -> None:
        for _ in seen.changes():
            pass

    watch_optimizer(optimizer, every_step)
    found["optimizer, exact changes every step"] = step
    _, optimizer, step = trainer(make)
    watch_optimizer(optimizer, lambda seen: every_step(seen) if seen.number % 10 == 0 else None)
    found["optimizer, exact changes every 10 steps"] = step
    found["dispatch of the optimizer's operators"] = trainer(make, cache(lambda model: WriteCapture(named(model))))[2]
    found["dispatch of all operators"] = dispatched(*trainer(make))
    found["calls of the step, profiled"] = traced(trainer(make)[2])
    return found


def named(model: object) -> dict[str, object]:
    """Return a model's parameters by name."""
    return dict(model.named_parameters())


def dispatched(model: object, _: object, step: Callable[[], None]) -> Callable[[], None]:
    """Return the step inside a capture of all writes."""
    capture = WriteCapture(named(model))

    def run() -> None:
        with capture:
            step()

    return run


def traced(step: Callable[[], None]) -> Callable[[], None]:
    """Return the step inside a call trace."""
    trace = CallTrace([step], bytearray(64 * 1024))

    def run() -> None:
        with trace:
            step()

    return run


def training_table(name: str, make: Callable[[], tuple[object, object]], rounds: int) -> str:
    """Return the table of what each capture adds to a training step."""
    _, _, plain = trainer(make)
    rows = []
    for what, captured in captures(make).items():
        middle, low, high, base = paired(plain, captured, rounds)
        rows.append(f"| {what} | {middle:+.1%} | {low:+.1%} … {high:+.1%} | {base:.2f} |\n")
    head = f"### {name}\n\n| capture | added CPU time, median | quartiles | plain step, CPU ms |\n|---|---|---|---|\n"
    return head + "".join(rows)


def collected_us(tracked: TrackedArray, share: float, rounds: int) -> float:
    """Return the median CPU microseconds to write one byte in a share of the pages, and to collect."""
    chance = np.random.Generator(np.random.PCG64(7))
    pages = tracked.array.size // PAGE_BYTES
    spent = []
    for number in range(rounds + 2):
        places = np.sort(chance.permutation(pages)[: round(share * pages)]) * PAGE_BYTES + 11

        def turn(places: np.ndarray = places) -> None:
            tracked.array[places] += 1
            tracked.collect()

        taken = cpu_ns(turn)
        if number >= 2:
            spent.append(taken / 1e3)
    return statistics.median(spent)


def refused() -> str:
    """Stand for a kernel that tracks nothing."""
    return "compare, for the benchmark"


def tracking_table(size: int, rounds: int) -> str:
    """Return the table of both ways by the share of pages written."""
    text = f"### {size // MiB} MiB: write one byte a page and collect, CPU microseconds\n\n"
    text += "| pages written | userfaultfd | compare |\n|---|---|---|\n"
    with TrackedArray(size, np.uint8) as tracked, TrackedArray(size, np.uint8, probe=refused) as compared:
        tracked.array[:] = compared.array[:] = 1
        tracked.collect(), compared.collect()
        for share in SHARES:
            ours, other = collected_us(tracked, share, rounds), collected_us(compared, share, rounds)
            text += f"| {share:.0%} | {ours:,.0f} | {other:,.0f} |\n"
    return text


def edit_table(rounds: int) -> str:
    """Return the table of whole edits with one byte written, by size."""
    text = "### One edit, begun, one byte written, its runs taken, ended: CPU microseconds\n\n"
    text += "| KiB | userfaultfd | compare |\n|---|---|---|\n"
    for kib in EDIT_KIB:
        with TrackedArray(kib * 1024, np.uint8, probe=refused) as memory:
            buffer, base = memory.array, np.zeros(kib * 1024, np.uint8)
            medians = []
            for least in (0, 1 << 60):

                def turn(least: int = least, buffer: np.ndarray = buffer, base: np.ndarray = base) -> None:
                    with TrackedEdit(buffer, base, track_bytes_min=least) as edit:
                        buffer[77] = 1
                        edit.runs()

                medians.append(statistics.median([cpu_ns(turn) / 1e3 for _ in range(rounds + 2)][2:]))
        text += f"| {kib} | {medians[0]:,.0f} | {medians[1]:,.0f} |\n"
    return text


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    tables = []
    if reason := probe_userfault():
        print(f"tracking is left out: {reason}")
    else:
        tables += [tracking_table(64 * MiB, max(5, options.rounds // 4)), edit_table(options.rounds)]
    try:
        import torch
    except ImportError:
        print("training is left out: pip install 'stoker[torch]'")
    else:
        torch.set_num_threads(1)
        tables += [training_table("MLP", mlp, options.rounds)]
        tables += [training_table("transformer", transformer, options.rounds)]
    command = f"python -m benchmarks.pages.capture --rounds {options.rounds}"
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    text = f"## capture\n\nCommand: `{command}`. Machine: {facts}.\n\n" + "\n".join(tables)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pages_capture.md").write_text(text)


if __name__ == "__main__":
    main()
