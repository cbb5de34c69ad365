"""How fast is a change found and packed, and how short is it on the wire?

First the pages: compare and compact beside memcpy of the same bytes, one after the other, small ones in the cache and
large ones from memory. Then the wire: bfloat16 copies of normal weights before and after a step, written by every codec
and in the form that other weight publishers use, a 32-bit index and the value of each element that changed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Contender, Turn, race, save
from benchmarks.kernels_fill import cpu_seconds, rate_table, repeated
from stoker.core.units import KiB, MiB, format_bytes
from stoker.kernels.deltas import two_level_apply, two_level_diff
from stoker.kernels.native import native_kernels
from stoker.kernels.plain_deltas import two_level_bound
from stoker.pages.wire import MODES, decode_wire, encode_wire, read_header

PAGE_BYTES = 4 * KiB
SIZES = (128 * KiB, 64 * MiB)
CHANGED_RATIOS = (0.0, 0.01, 1.0)
STEPS = (2.5e-7, 1e-6, 3e-6, 1e-5, 1e-4)
MODES_AT_STEP = 2.5e-7


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return fp32 values rounded to bfloat16, nearest even, as 16-bit patterns."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def weights(count: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return bfloat16 copies of N(0, 0.02) weights before and after an update of N(0, step)."""
    chance = np.random.default_rng(4)
    before = chance.normal(0, 0.02, count).astype(np.float32)
    after = before + (step * chance.normal(size=count)).astype(np.float32)
    return bfloat16(before), bfloat16(after)


def encode_index_value(old: np.ndarray, new: np.ndarray) -> bytes:
    """Return what changed as 32-bit indices, then the values."""
    places = np.flatnonzero(old != new).astype(np.int32)
    return places.tobytes() + new[places].tobytes()


def aligned(size: int) -> np.ndarray:
    """Return memory that begins a page, as that of an arena does."""
    room = np.zeros(size + PAGE_BYTES, np.uint8)
    start = -room.ctypes.data % PAGE_BYTES
    return room[start : start + size]


def page_contenders(size: int, changed_ratio: float) -> list[Contender]:
    """Return those who read `size` bytes of pages twice over, or copy them: memcpy first."""
    chance = np.random.default_rng(1)
    base, fresh, out = (aligned(size) for _ in range(3))
    base[:] = chance.integers(0, 256, size, np.uint8)
    fresh[:] = base
    hit = chance.random(size) < changed_ratio
    fresh[hit] ^= chance.integers(1, 256, int(hit.sum()), np.uint8)
    racers = [Contender("memcpy (numpy.copyto)", repeated(size, lambda: np.copyto(out, fresh)))]
    native = native_kernels()
    if native is not None:
        count = size // PAGE_BYTES
        room = np.zeros(count * two_level_bound(PAGE_BYTES), np.uint8)
        offsets, changed = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
        many = repeated(size, lambda: native.two_level_diff_many(base, fresh, room, offsets, changed))
        racers.append(Contender("stoker, pages of 4 KiB in one call", many))
    racers.append(Contender("stoker, one image", repeated(size, lambda: two_level_diff(base, fresh))))
    payload, _ = two_level_diff(base, fresh)
    if payload:
        racers.append(Contender("stoker, apply", repeated(size, lambda: two_level_apply(out, payload))))
    racers.append(
        Contender("numpy != and flatnonzero", repeated(size, lambda: np.flatnonzero(base != fresh), 64 * MiB))
    )
    return racers


def timed(size: int, work: Callable[[], object]) -> Callable[[], Turn]:
    """Return a turn that does the work once for `size` bytes."""

    def run() -> Turn:
        start = cpu_seconds()
        work()
        return Turn(size, 1, cpu_seconds() - start)

    return run


def wire_contenders(old: np.ndarray, new: np.ndarray, modes: tuple[str, ...]) -> list[tuple[str, int, list[Contender]]]:
    """Return name, bytes, and encoder with decoder of each way to write the difference."""
    size, ways = old.nbytes, []
    for mode in modes:
        blob = encode_wire(old, new, 2, mode=mode)
        assert np.array_equal(decode_wire(old, blob).view(np.uint16), new)
        into = np.empty(size, np.uint8)
        pair = [
            Contender("encode", timed(size, lambda mode=mode: encode_wire(old, new, 2, mode=mode))),
            Contender("decode", timed(size, lambda blob=blob, into=into: decode_wire(old, blob, into))),
        ]
        ways.append((f"{mode}: {read_header(blob).codec.name}", len(blob), pair))
    return ways


def wire_table(title: str, old: np.ndarray, new: np.ndarray, modes: tuple[str, ...], rounds: int) -> tuple[str, dict]:
    """Race the ways to write one difference; return the Markdown and the contenders."""
    plain = len(encode_index_value(old, new))
    ways = wire_contenders(old, new, modes)
    race([racer for _, _, pair in ways for racer in pair], rounds)
    density = float((old != new).mean())
    shorter = old.nbytes / plain
    rows = [f"### {title}\n\n{density:.2%} of {old.size:,} bfloat16 elements change. "]
    rows += [f"As 32-bit index and value they are {shorter:.1f} times shorter than the tensor.\n\n"]
    rows += ["| way | of the tensor, 1 / | of index and value, 1 / | encode GB/s | decode GB/s |\n"]
    rows += ["|---|---|---|---|---|\n"]
    for name, size, (encoder, decoder) in ways:
        rates = " | ".join(f"{racer.rate() / 1e9:.2f}" for racer in (encoder, decoder))
        rows.append(f"| {name} | {old.nbytes / size:.1f} | {plain / size:.2f} | {rates} |\n")
    return "".join(rows), {f"{title}, {name}, {size} bytes": pair for name, size, pair in ways}


def main() -> None:
    """Race pages and codecs, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--elements", type=int, default=16 * MiB, help="of the tensor for the wire")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    tables: dict[str, list[Contender]] = {}
    texts = []
    for size in SIZES:
        for changed_ratio in CHANGED_RATIOS:
            title = f"{format_bytes(size)}, {changed_ratio:.0%} of the bytes change"
            tables[title] = page_contenders(size, changed_ratio)
            race(tables[title], options.rounds)
            texts.append(rate_table(title, tables[title]))
    for step in STEPS:
        old, new = weights(options.elements, step)
        modes = MODES if step == MODES_AT_STEP else ("auto",)
        text, raced = wire_table(f"wire, a step of {step:g}", old, new, modes, options.rounds)
        texts.append(text)
        tables |= raced
    print("\n".join(texts))
    command = f"python -m benchmarks.pages.deltas --rounds {options.rounds} --elements {options.elements}"
    save(options.out, "pages_deltas", command, tables, "\n".join(texts))


if __name__ == "__main__":
    main()
