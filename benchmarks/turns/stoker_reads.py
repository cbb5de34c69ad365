"""Ours: reads of one file through the batch engine, one process, one thread, one call per many reads.

Arguments: path, direct, sequential, block_bytes, depth, seconds, batch_bytes, size_bytes.
"""

import mmap
import os
import time

import numpy as np
from window import Window, arguments

from stoker.kernels.files import RANGE_COLUMNS
from stoker.kernels.reading import open_read_engine

CACHED_REQUEST_BYTES_MAX = 1 << 20


def columns(asked, address, count):
    """Return the ranges of one call; the offsets are filled in before each."""
    block_bytes = asked["block_bytes"]
    ranges = np.zeros((count, RANGE_COLUMNS), np.int64)
    ranges[:, 2] = ranges[:, 3] = block_bytes
    ranges[:, 4] = address + np.arange(count) * block_bytes
    return ranges


def main():
    """Read for the seconds asked."""
    asked = arguments()
    block_bytes, blocks = asked["block_bytes"], asked["size_bytes"] // asked["block_bytes"]
    count = max(1, asked["batch_bytes"] // block_bytes)
    memory = mmap.mmap(-1, count * block_bytes)
    whole = np.frombuffer(memory, np.uint8)
    whole[:: mmap.PAGESIZE] = 0
    ranges = columns(asked, whole.ctypes.data, count)
    done = np.zeros((count, 5), np.int64)
    file = os.open(asked["path"], os.O_RDONLY | (os.O_DIRECT if asked["direct"] else 0))
    random = np.random.default_rng(time.time_ns())
    # Past the cache a block is one request, as it is fio's: cut up, the parts of a lone block would go one by one.
    request_bytes = block_bytes if asked["direct"] else min(CACHED_REQUEST_BYTES_MAX, block_bytes)
    engine = open_read_engine(kind="auto", queue_depth=asked["depth"], request_bytes=request_bytes)
    if asked["direct"]:
        engine.register(whole.ctypes.data, whole.nbytes)
    window, calls = Window(), 0
    window.start()
    end = time.perf_counter() + asked["seconds"]
    while time.perf_counter() < end:
        if asked["sequential"]:
            numbers = (np.arange(count) + calls * count) % blocks
        else:
            numbers = random.integers(0, blocks, count)
        np.multiply(numbers, block_bytes, out=ranges[:, 1])
        engine.read_open([file], ranges, residency=False, ranges_done=done)
        if done[:, 0].any() or int(done[:, 1].sum()) != count * block_bytes:
            raise OSError(f"reads failed: statuses {np.unique(done[:, 0])}")
        calls += 1
    window.stop()
    engine.close()
    os.close(file)
    window.report(calls * count * block_bytes, calls * count, engine=engine.kind)


if __name__ == "__main__":
    main()
