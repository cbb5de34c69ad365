"""The measured window of a turn that runs in a process of its own; the standard library alone, for any interpreter.

A turn script takes one JSON argument, warms up, measures, and prints one line of JSON. CPU seconds are those of the
process and all below it between `start` and `stop`; memory is the sum of what each of them held at most.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP_EPOCHS = 2
"""Delivered unmeasured by every contender: the second one still meets memory that the first did not need."""


def arguments():
    """Return what the caller passed, as a dict."""
    return json.loads(sys.argv[1])


def paths(asked):
    """Return the files of the dataset, as texts."""
    return Path(asked["paths_file"]).read_text().splitlines()


def children():
    """Return the live descendants of this process."""
    below = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            fields = _stat(folder.name)
            if fields:
                below.setdefault(int(fields[1]), []).append(int(folder.name))
    found, open_ends = [], [os.getpid()]
    while open_ends:
        more = below.get(open_ends.pop(), [])
        found += more
        open_ends += more
    return found


def _stat(pid):
    """Return the fields of /proc/PID/stat after the name, None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def cpu_seconds():
    """Return the CPU seconds of this process, of its live descendants and of those that were waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in children():
        fields = _stat(pid)
        if fields:
            total += sum(int(field) for field in fields[11:15]) / TICKS
    return total


def peak_bytes():
    """Return the high-water marks of this process and its live descendants, and of the largest that ended, added up."""
    total = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    for pid in [os.getpid(), *children()]:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return total


class Window:
    """From `start` to `stop`."""

    def start(self):
        """Begin to count."""
        self._cpu, self._start = cpu_seconds(), time.perf_counter()

    def stop(self):
        """Note what it took; workers must still live or have been waited for."""
        self.wall = time.perf_counter() - self._start
        self.cpu = cpu_seconds() - self._cpu

    def report(self, payload_bytes, samples, **more):
        """Print the result."""
        result = {"payload_bytes": int(payload_bytes), "samples": int(samples), "wall_seconds": self.wall}
        print(json.dumps({**result, "cpu_seconds": self.cpu, "peak_bytes": peak_bytes(), **more}))


def measure_epochs(deliver, epochs):
    """Call `deliver`, which delivers an epoch and returns its payload bytes and samples; report the later calls."""
    for _ in range(WARM_UP_EPOCHS):
        deliver()
    window = Window()
    window.start()
    done = [deliver() for _ in range(epochs)]
    window.stop()
    window.report(sum(part[0] for part in done), sum(part[1] for part in done))
