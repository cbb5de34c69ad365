"""Ours: reads of one file through the batch engine, one process, one thread, one call per many reads, into memory of
the kind that the loader's pool lends: private, page-aligned, huge pages asked for.

Arguments: path, direct, sequential, block_bytes, depth, seconds, batch_bytes, size_bytes.
"""

import itertools
import os
import time

import numpy as np
from window import Window, arguments

from stoker.kernels.files import RANGE_COLUMNS
from stoker.kernels.reading import open_read_engine
from stoker.storage.buffers import aligned_view

CACHED_REQUEST_BYTES_MAX = 1 << 20
CALLS_DRAWN = 64


def columns(asked, address, count):
    """Return the ranges of one call; the offsets are filled in before each."""
    block_bytes = asked["block_bytes"]
    ranges = np.zeros((count, RANGE_COLUMNS), np.int64)
    ranges[:, 2] = ranges[:, 3] = block_bytes
    ranges[:, 4] = address + np.arange(count) * block_bytes
    return ranges


def offsets(asked, blocks, count):
    """Give where the reads of each call begin; those of many calls are drawn at once, for less of NumPy's overhead."""
    random, drawn = np.random.default_rng(time.time_ns()), CALLS_DRAWN * count
    for first in itertools.count(step=drawn):
        numbers = (np.arange(drawn) + first) % blocks if asked["sequential"] else random.integers(0, blocks, drawn)
        yield from (numbers * asked["block_bytes"]).reshape(CALLS_DRAWN, count)


def main():
    """Read for the seconds asked."""
    asked = arguments()
    block_bytes, blocks = asked["block_bytes"], asked["size_bytes"] // asked["block_bytes"]
    count = max(1, asked["batch_bytes"] // block_bytes)
    whole = np.frombuffer(aligned_view(count * block_bytes), np.uint8)
    whole[:] = 0  # the kernel gives a page at the first touch, which is no part of a read
    ranges = columns(asked, whole.ctypes.data, count)
    done = np.zeros((count, 5), np.int64)
    file = os.open(asked["path"], os.O_RDONLY | (os.O_DIRECT if asked["direct"] else 0))
    starts = offsets(asked, blocks, count)
    whole_reads = np.array([0, block_bytes])
    # Past the cache a block is one request, as it is fio's: cut up, the parts of a lone block would go one by one.
    request_bytes = block_bytes if asked["direct"] else min(CACHED_REQUEST_BYTES_MAX, block_bytes)
    engine = open_read_engine(kind="auto", queue_depth=asked["depth"], request_bytes=request_bytes)
    window, calls = Window(), 0
    window.start()
    end = time.perf_counter() + asked["seconds"]
    while time.perf_counter() < end:
        ranges[:, 1] = next(starts)
        engine.read_open([file], ranges, residency=False, ranges_done=done)
        if (done[:, :2] != whole_reads).any():
            raise OSError(f"reads failed: statuses {np.unique(done[:, 0])}")
        calls += 1
    window.stop()
    engine.close()
    os.close(file)
    window.report(calls * count * block_bytes, calls * count, engine=engine.kind)


if __name__ == "__main__":
    main()
