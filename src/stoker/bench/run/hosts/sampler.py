"""Sampling one host: two snapshots and a series, in memory, with a copy on disk that survives any death.

Sample n is due at start + n x interval, so nothing drifts. When a series has grown to its most samples, every second
one is dropped and the interval doubled: a long run is seen to its end, more coarsely. The partial file has them all.
"""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.hosts import parse
from stoker.bench.run.hosts.sources import (
    Texts,
    counted,
    kept_environment,
    local_name,
    read_all,
    read_dynamic,
    snapshot,
)
from stoker.core import clock
from stoker.core.host_series import SAMPLES_MAX, ClockOffset, Header, HostSeries, Values, encode_column

PARTIAL_NAME: Final = "hosts-{name}.partial.jsonl"
JOIN_EXTRA_SECONDS: Final = 5.0
_ERRORS_MAX: Final = 20


class PartialStart(msgspec.Struct, frozen=True, tag="start"):
    """The first line of a partial file."""

    header: Header
    series: HostSeries


class PartialSample(msgspec.Struct, frozen=True, tag="sample"):
    """A further line: only the columns that differ from the sample before, absolute, and those that are no more."""

    changed: dict[str, int]
    gone: tuple[str, ...] = ()


class Gathered:
    """The samples of one host as they come in."""

    def __init__(
        self, series: HostSeries, header: Header, partial: Path | None = None, *, samples_max: int = 0
    ) -> None:
        self.series = series
        self._columns: dict[str, Values] = {}
        self._samples_max = samples_max or min(header.samples_max, SAMPLES_MAX)
        self._last: dict[str, int] = {}
        self._file = -1
        if partial is not None:
            self._file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._write(PartialStart(header, series))

    def add(self, sample: Mapping[str, int]) -> bool:
        """Take a sample; return whether every second one was dropped to make room."""
        changed = {name: value for name, value in sample.items() if self._last.get(name) != value}
        self._write(PartialSample(changed, tuple(self._last.keys() - sample.keys())))
        self._last = dict(sample)
        for name in sample.keys() - self._columns.keys():
            self._columns[name] = [None] * self.series.samples
        for name, column in self._columns.items():
            column.append(sample.get(name))
        self.series.samples += 1
        if self.series.samples < self._samples_max:
            return False
        self._columns = {name: column[::2] for name, column in self._columns.items()}
        self.series.samples = (self.series.samples + 1) // 2
        return True

    def error(self, sentence: str) -> None:
        """Keep a sentence on what went wrong, the first twenty and each once."""
        if sentence not in self.series.errors and len(self.series.errors) < _ERRORS_MAX:
            self.series.errors.append(sentence)

    def finish(self) -> HostSeries:
        """Return the host with its columns coded."""
        self.close()
        self.series.columns = {name: encode_column(column) for name, column in sorted(self._columns.items())}
        return self.series

    def close(self) -> None:
        """Close the partial file; closing twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, line: PartialStart | PartialSample) -> None:
        if self._file < 0:
            return
        data = msgspec.json.encode(line) + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:  # a full disk ends the copy, not the run
            self.error(f"the partial file ended early: {error.strerror}")
            self.close()


def sample_of(texts: Texts, *, at_us: int, wall_ns: int) -> dict[str, int]:
    """Return one sample's columns."""
    return {"at_us": at_us, "wall_ms": wall_ns // 1_000_000, **dict(parse.numbers(texts))}


class LocalSampler:
    """Samples this host on a thread of its own between `start` and `stop`."""

    def __init__(
        self,
        header: Header,
        *,
        partial_folder: Path | None = None,
        source: str = "local",
        samples_max: int = 0,
        read: Callable[[], tuple[Texts, dict[str, str]]] = read_dynamic,
    ) -> None:
        assert header.interval_seconds > 0
        self._interval_ns = round(header.interval_seconds * 1e9)
        self._origin_ns = header.origin_ns
        self._read = read
        self._stop = threading.Event()
        texts, errors = read_all()
        start: dict[str, Any] = {**snapshot(texts, errors), "environment": kept_environment()}
        disks, interfaces = counted(texts)
        name = local_name()
        series = HostSeries(name, source, ClockOffset(0.0, 0.0, 0), disks=disks, interfaces=interfaces, start=start)
        partial = None if partial_folder is None else partial_folder / PARTIAL_NAME.format(name=file_name(name))
        self._gathered = Gathered(series, header, partial, samples_max=samples_max)
        self._thread = threading.Thread(target=self._run, name="stoker-hosts", daemon=True)

    def start(self) -> None:
        """Begin: the first sample is taken at once."""
        self._thread.start()

    def stop(self) -> HostSeries:
        """Take the last sample and the second snapshot, and return the host."""
        self._stop.set()
        self._thread.join(self._interval_ns / 1e9 + JOIN_EXTRA_SECONDS)
        if self._thread.is_alive():
            self._gathered.error("sampling did not end in time; the last sample is missing")
        else:
            self._take()
        texts, errors = read_all()
        self._gathered.series.end = snapshot(texts, errors)
        disks, interfaces = counted(texts)
        self._gathered.series.disks |= disks
        self._gathered.series.interfaces |= interfaces
        return self._gathered.finish()

    def _run(self) -> None:
        began_ns, number, interval_ns = clock.monotonic_ns(), 0, self._interval_ns
        while True:
            if self._take():
                interval_ns *= 2
                began_ns, number = clock.monotonic_ns(), 0
            number += 1
            wait_ns = began_ns + number * interval_ns - clock.monotonic_ns()
            if self._stop.wait(max(wait_ns, 0) / 1e9):
                return
            skipped = -wait_ns // interval_ns if wait_ns < 0 else 0  # the host slept through these
            number += max(skipped, 0)

    def _take(self) -> bool:
        texts, errors = self._read()
        for name, reason in errors.items():
            self._gathered.error(f"/proc/{name}: {reason}")
        at_us = (clock.monotonic_ns() - self._origin_ns) // 1000
        return self._gathered.add(sample_of(texts, at_us=at_us, wall_ns=clock.wall_ns()))


def file_name(host: str) -> str:
    """Return a host's name as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in host)[:200].lstrip(".") or "_"
