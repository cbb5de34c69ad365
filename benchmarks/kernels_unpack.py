"""What does it cost to turn files in memory into arrays? Our batch decoding beside one-by-one decoding and NumPy.

The question: CPU microseconds a sample where the bytes are read already. A case holds 2 to 50 MiB, so that headers
come partly from memory, as they do behind a reader. `plain`: batch decoding through the plain twins of the kernels.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import h5py
import numpy as np

from stoker.core.units import KiB
from stoker.formats.api import FORMATS, SampleSpec, reading_options
from stoker.formats.many import Extents, decode_each, extents_in
from stoker.formats.ranges import MemorySource
from stoker.kernels import unpacking

CASES = {
    "npz 100 KiB": ("npz", 100 * KiB, 1, 1, {}),
    "npy 100 KiB": ("npy", 100 * KiB, 1, 1, {}),
    "hdf5 100 KiB": ("hdf5", 100 * KiB, 1, 1, {}),
    "raw 4 KiB, windows of 64": ("raw", 4 * KiB, 64, 64, {}),
    "raw 4 KiB, one by one": ("raw", 4 * KiB, 64, 1, {}),
    "indexed_binary 4 KiB, windows of 64": ("indexed_binary", 4 * KiB, 64, 64, {}),
    "tfrecord 4 KiB, windows of 64": ("tfrecord", 4 * KiB, 64, 64, {"verify": False}),
    "tfrecord 4 KiB, windows of 64, verified": ("tfrecord", 4 * KiB, 64, 64, {"verify": True}),
    "tfrecord 100 KiB, one by one": ("tfrecord", 100 * KiB, 16, 1, {"verify": False}),
}
SAMPLES = 512


def prepared(name: str) -> tuple[Any, Extents]:
    """Return the format and SAMPLES samples of the case as extents in one buffer, page by page."""
    format_name, sample_bytes, per_file, joined, options = CASES[name]
    made = FORMATS.load(format_name)
    spec = made.check_spec(SampleSpec((sample_bytes,), samples=per_file, options=options))
    content = np.random.default_rng(1).integers(0, 256, spec.shape, np.uint8)
    file = b"".join(made.encode(spec, lambda _: content))
    layout = made.layout(MemorySource(file, made.side_files(spec)), reading_options(spec))
    starts, lengths, counts, pieces, at = [], [], [], [], 0
    while sum(counts) < SAMPLES:
        for first in range(0, len(layout.extents), joined):
            group = layout.extents[first : first + joined]
            begin = group[0].ranges[0][0]
            piece = file[begin : sum(group[-1].ranges[0])]
            starts.append(at)
            lengths.append(len(piece))
            counts.append(sum(extent.samples for extent in group))
            pieces.append(piece + bytes(-len(piece) % 4096))
            at += len(pieces[-1])
    data = np.frombuffer(bytearray(b"".join(pieces)), np.uint8)
    context = None if made.whole_file else layout.context
    return made, extents_in(data, np.array(starts), np.array(lengths), np.array(counts), context)


def many(made: Any, extents: Extents) -> None:
    """Decode all extents at once."""
    made.decode_many(extents.data, extents.starts, extents.lengths, extents.samples, extents.context)


def many_plain(made: Any, extents: Extents) -> None:
    """Decode all extents at once by the plain twins."""
    with mock.patch.object(unpacking, "native_kernels", lambda: None):
        many(made, extents)


def read_with_h5py(file: io.BytesIO) -> object:
    """Read the records as a user of h5py would."""
    with h5py.File(file) as opened:
        return opened["records_0"][:]


def by_library(load: Callable[[io.BytesIO], object], extents: Extents) -> None:
    """Load file by file as the format's own library does."""
    view = memoryview(extents.data)
    for start, length in zip(extents.starts.tolist(), extents.lengths.tolist(), strict=True):
        load(io.BytesIO(view[start : start + length]))


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return the CPU microseconds a sample of each, in turn: median, least, most."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begun = time.process_time_ns()
            run()
            if number:
                taken[name].append((time.process_time_ns() - begun) / 1000 / SAMPLES)
    return {name: (statistics.median(times), min(times), max(times)) for name, times in taken.items()}


def main() -> None:
    """Run every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print("| case | how | CPU us a sample | least | most |\n|---|---|---|---|---|")
    for name in CASES:
        made, extents = prepared(name)
        runs: dict[str, Callable[[], object]] = {
            "batch, native": partial(many, made, extents),
            "batch, plain": partial(many_plain, made, extents),
            "one by one": partial(decode_each, made, extents),
        }
        if name.startswith("npz"):
            runs["np.load"] = partial(by_library, lambda file: np.load(file, allow_pickle=False)["x"], extents)
        if name.startswith("npy"):
            runs["np.lib.format"] = partial(by_library, partial(np.lib.format.read_array, allow_pickle=False), extents)
        if name.startswith("hdf5"):
            runs["h5py"] = partial(by_library, read_with_h5py, extents)
        for how, (median, least, most) in measure(runs, options.rounds).items():
            print(f"| {name} | {how} | {median:.2f} | {least:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
