"""How fast are the kernels of the device path, beside a copy of torch's on the same device?

Every set of kernels that runs here compares, applies, rounds, hashes and copies the same pages; the rate counts bytes
of pages. On a CUDA device each turn ends when the device is done. Without one the figures are of the processor alone,
and the tables say so: nothing about a GPU follows from them.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Contender, Turn, race, save, table
from stoker.core.units import KiB, MiB, format_bytes
from stoker.pages import Store
from stoker.pages.devices import DevicePages, TileKernels, kernels_for, measure_crossover
from stoker.pages.devices.kernels import has_triton
from stoker.pages.devices.tiles import Columns, TileTable

PAGE_BYTES = 64 * KiB
RATIOS = (0.0, 0.01, 1.0)
COPY = "torch copy on the device"


def sets(device: str) -> list[TileKernels]:
    """Return the sets of kernels that run at full speed on a device."""
    if device == "cpu":
        return [kernels_for("cpu", "host"), kernels_for("cpu", "eager")]
    return [kernels_for(device, "eager"), *([kernels_for(device, "triton")] if has_triton() else [])]


def timed(work: Callable[[], object], size: int, device: str) -> Callable[[], Turn]:
    """Return a turn that does the work, and on a CUDA device waits for its end."""

    def run() -> Turn:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - wall
        return Turn(size, size // PAGE_BYTES, time.process_time() - cpu, elapsed)

    return run


def images(size: int, ratio: float, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pages of random bytes, and the same with a share of the bytes changed."""
    chance = np.random.default_rng(3)
    base = chance.integers(0, 256, size, np.uint8)
    fresh = np.where(chance.random(size, np.float32) < ratio, base ^ 1, base).astype(np.uint8)
    return torch.from_numpy(base).to(device), torch.from_numpy(fresh).to(device)


def copier(size: int, device: str) -> Contender:
    """Return the ceiling: as many bytes copied."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return Contender(COPY, timed(lambda: target.copy_(source), size, device))


def comparers(size: int, ratio: float, device: str) -> list[Contender]:
    """Return those who compare and compact, and those who apply what was found."""
    base, fresh = images(size, ratio, device)
    tiles = TileTable([(at, PAGE_BYTES) for at in range(0, size, PAGE_BYTES)])
    found = [copier(size, device)]
    for kernels in sets(device):
        columns = kernels.compare(base, fresh, tiles)
        target = base.clone()

        def compare(kernels: TileKernels = kernels) -> object:
            return kernels.compare(base, fresh, tiles)

        def apply(kernels: TileKernels = kernels, columns: Columns = columns, target: torch.Tensor = target) -> object:
            return kernels.apply([target], tiles, columns)

        found.append(Contender(f"{kernels.name}: compare and compact", timed(compare, size, device)))
        found.append(Contender(f"{kernels.name}: apply", timed(apply, size, device)))
    return found


def others(size: int, device: str) -> list[Contender]:
    """Return the other kernels: cast, gaps of 16-bit elements, hashes, copy, equality."""
    base, fresh = images(size, 0.01, device)
    tiles = TileTable([(at, PAGE_BYTES) for at in range(0, size, PAGE_BYTES)])
    target, rounded = base.clone(), base.clone()
    before = torch.randn(size // 2, device=device)
    steps = [list(one.split(PAGE_BYTES // 2)) for one in (before, before + 1e-5)]

    def cast(kernels: TileKernels) -> object:
        """Round the values before and after a small step, in turn."""
        steps.reverse()
        return kernels.cast(steps[0], rounded, tiles)

    found = [copier(size, device)]
    for kernels in sets(device):
        work: dict[str, Callable[[TileKernels], object]] = {
            "cast float32 to bfloat16, with the mask": cast,
            "gaps of 16-bit elements": lambda one: one.gaps(base, fresh, 2),
            "XXH3-64 of tiles": lambda one: one.hashes(base, tiles),
            "copy of pages": lambda one: one.copy(target, tiles, base, tiles),
            "equality of pages": lambda one: one.equal(base, fresh, tiles),
        }
        for name, do in work.items():
            found.append(
                Contender(f"{kernels.name}: {name}", timed(lambda do=do, kernels=kernels: do(kernels), size, device))
            )
    return found


def committers(size: int, device: str) -> list[Contender]:
    """Return whole edits: one byte in a hundred is changed on the device and committed, by either way."""
    found = []
    for name, crossover in (("compared on the device", 0), ("compared on the host", 1 << 62)):
        store = Store.open(size_bytes=4 * size, log_bytes=max(64 * MiB, 2 * size))
        copies = store.use_devices(DevicePages(store, device=device, crossover_bytes=crossover))
        pages = [store.allocate(PAGE_BYTES) for _ in range(size // PAGE_BYTES)]
        copies.push(pages).wait()

        def edit(copies: DevicePages = copies, pages: list = pages) -> None:
            with copies.edit(pages) as tensors:
                for tensor in tensors:
                    tensor[::100] += 1

        found.append(Contender(name, timed(edit, size, device)))
    return found


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--mib", type=int, nargs="*", help="sizes of a batch; by default 4 and 64, on CUDA 64 and 1024")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    told = torch.cuda.get_device_name() if device == "cuda" else "no CUDA device: nothing about one is proven here"
    torch.set_num_threads(1)
    tables: dict[str, list[Contender]] = {}
    text = f"Device: {told}. torch {torch.__version__}, pages of {format_bytes(PAGE_BYTES)}.\n\n"
    for mib in options.mib or ([64, 1024] if device == "cuda" else [4, 64]):
        size = mib * MiB
        groups = {f"{mib} MiB, {ratio:.0%} of the bytes changed": comparers(size, ratio, device) for ratio in RATIOS}
        groups[f"{mib} MiB, other kernels"] = others(size, device)
        for title, contenders in groups.items():
            race(contenders, options.rounds)
            text += table(title, contenders, ceiling=COPY) + "\n"
        edits = committers(min(size, 64 * MiB), device)
        race(edits, options.rounds)
        text += table(f"{min(mib, 64)} MiB edited and committed", edits, ceiling="compared on the host") + "\n"
        tables |= {**groups, f"{min(mib, 64)} MiB edited and committed": edits}
    copies = DevicePages(Store.open(), device=device)
    text += f"Measured crossover: {format_bytes(measure_crossover(copies.home()))}\n"
    command = f"python -m benchmarks.pages.devices --rounds {options.rounds}"
    print(text)
    save(options.out, "pages_devices", command, tables, text)


if __name__ == "__main__":
    main()
