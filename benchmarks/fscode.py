"""How fast are shards coded on one core? Each backend that loads here, beside memcpy of the data.

`encode` makes the m parity shards of k data shards; `decode` makes m lost data shards of what is left. Both count the
bytes of data, k shards, and write into memory that is there already. The shards are computed again and again in place,
so those of small cells stay in the cache.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.harness import Contender, race, save
from benchmarks.kernels_fill import rate_table, repeated
from stoker.core.units import KiB, MiB, format_bytes
from stoker.fs.code import Backend, Codec, available_backends

CODES = ((8, 4), (4, 2), (16, 4))
CELLS = (64 * KiB, 256 * KiB, 1 * MiB)
TURN_BYTES = 512 * MiB
SLOW_TURN_BYTES = 32 * MiB


def contenders(k: int, m: int, cell_bytes: int, backends: tuple[Backend, ...]) -> list[Contender]:
    """Return those who code k shards of `cell_bytes`, the ceiling first."""
    chance = np.random.default_rng(1)
    data = [chance.integers(0, 256, cell_bytes, np.uint8) for _ in range(k)]
    copy = [np.empty(cell_bytes, np.uint8) for _ in range(k)]
    parity = [bytearray(cell_bytes) for _ in range(m)]
    lost = {index: bytearray(cell_bytes) for index in range(m)}

    def copied() -> None:
        for source, target in zip(data, copy, strict=True):
            np.copyto(target, source)

    size = k * cell_bytes
    racers = [Contender("memcpy (numpy.copyto)", repeated(size, copied, TURN_BYTES))]
    sources = [memoryview(shard) for shard in data]
    for one in backends:
        codec = Codec(k, m, one)
        codec.encode(sources, parity)
        have = {index: sources[index] for index in range(m, k)} | {k + row: parity[row] for row in range(m)}
        turn = SLOW_TURN_BYTES if one.name == "numpy" else TURN_BYTES
        racers += [
            Contender(f"{one.name}, encode", repeated(size, lambda c=codec: c.encode(sources, parity), turn)),
            Contender(f"{one.name}, decode", repeated(size, lambda c=codec, h=have: c.rebuild(h, lost), turn)),
        ]
    return racers


def main() -> None:
    """Measure every backend, print the tables, and save them when a folder is told."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fscode", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for fscode.json and fscode.md")
    options = parser.parse_args()
    tables, text = {}, ""
    for k, m in CODES:
        for cell_bytes in CELLS:
            title = f"{k}+{m}, cells of {format_bytes(cell_bytes)}"
            racers = contenders(k, m, cell_bytes, available_backends())
            race(racers, options.rounds)
            tables[title] = racers
            text += rate_table(title, racers) + "\n"
            print(rate_table(title, racers))
    if options.out is not None:
        save(options.out, "fscode", "python -m benchmarks.fscode", tables, text)


if __name__ == "__main__":
    main()
