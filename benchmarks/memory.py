"""Memory that was used before: on a virtual machine the first touch of a page can cost more than the work on it.

Where the host gives memory to its guest page by page (here 10 microseconds for 4 KiB), whoever writes into fresh memory
or fresh page cache pays for that, and who comes second does not. So all of it is touched before anything is measured.
"""

import mmap
import os
import subprocess
import sys
import time

import psutil

from stoker.core.units import GiB

_SHARE = 0.8
_MODULE = "benchmarks.memory"


def touch_memory() -> str:
    """Touch most of the memory that is free, by as many processes as there are cores; return how that went."""
    total_bytes = int(psutil.virtual_memory().available * _SHARE)
    count = os.cpu_count() or 1
    command = [sys.executable, "-m", _MODULE, str(total_bytes // count)]
    start = time.perf_counter()
    for process in [subprocess.Popen(command) for _ in range(count)]:
        process.wait()
    return f"{total_bytes / GiB:.0f} GiB of memory touched before, in {time.perf_counter() - start:.0f} s"


def _touch(size_bytes: int) -> None:
    with mmap.mmap(-1, max(size_bytes, mmap.PAGESIZE)) as memory:
        for place in range(0, size_bytes, mmap.PAGESIZE):
            memory[place] = 1


if __name__ == "__main__":
    _touch(int(sys.argv[1]))
