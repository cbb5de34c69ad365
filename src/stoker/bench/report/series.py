"""Per-step columns, read safely and boiled down to what a chart can show.

`series.npz` may come from anywhere: nothing is unpickled, and every size is checked against the archive's own
before memory is taken. Ranks are read one at a time, so a day on a hundred hosts needs the memory of one rank.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stoker.core.errors import CorruptError
from stoker.core.result import STEP_COLUMNS

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]
Columns = dict[str, Column]

MEMBERS_MAX: Final = 1_200_000
MEMBER_BYTES_MAX: Final = 1 << 28
POINTS_MAX: Final = 240
EPOCH_MARKS_MAX: Final = 60
_NEEDED: Final = tuple(name for name in STEP_COLUMNS if name not in ("step", "samples", "requested_bytes"))
# The header that NumPy writes for a one-dimensional array of integers, and nothing else it could mean.
_HEADER: Final = re.compile(
    rb"\{'descr': '([<>|][iu][1248])', 'fortran_order': (?:False|True), 'shape': \((\d+),\), \}\s*"
)
_MAGIC: Final = b"\x93NUMPY\x01\x00"
# What zipfile raises for a torn or a foreign archive; RuntimeError is that of an encrypted member.
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError)
_MEMBER: Final = re.compile(r"rank(\d{1,9})/(\w{1,40})\.npy")


@dataclass(frozen=True, slots=True)
class Band:
    """A quantity over time: the mean of each bucket with its extremes; NaN where nothing happened."""

    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run over time in equal buckets. `seconds` holds their middles; times count from the first request.

    `au`, `wait` and `compute` are of training steps; `bytes_per_second` is delivered by all ranks together.
    `epochs` holds (seconds, label) of each epoch's start, as the lowest rank saw it. `origin_ns` is second 0 on the
    monotonic clock of the lowest rank's host.
    """

    seconds: Floats
    au: Band
    wait: Band
    compute: Band
    bytes_per_second: Floats
    epochs: list[tuple[float, str]] = field(default_factory=list)
    ranks: int = 0
    steps: int = 0
    origin_ns: int = 0


def load_timeline(path: Path, *, barrier: bool = True, points_max: int = POINTS_MAX) -> Timeline | None:
    """Return the run over time, None when the file is missing or holds no step.

    With `barrier`, ranks are aligned at the end of their first step, since clocks of different hosts have nothing
    in common. Raises CorruptError for a file that is not a series or whose sizes are out of bounds.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            extents = {rank: _extent(archive, members[rank]) for rank in members}
            ranks = [rank for rank in sorted(extents) if extents[rank].steps]
            if not ranks:
                return None
            buckets = _Buckets.plan([extents[rank] for rank in ranks], barrier=barrier, points_max=points_max)
            for rank in ranks:
                buckets.add(_load(archive, members[rank], _NEEDED), extents[rank])
            return buckets.finish()
    except _BROKEN as error:
        raise CorruptError("not a series of steps", where=str(path), expected="series.npz", got=str(error)) from error


def rank_columns(path: Path) -> Iterator[tuple[int, Columns]]:
    """Yield (rank, all columns) of a series, lowest rank first and one at a time; nothing when the file is missing.

    Raises CorruptError as `load_timeline` does.
    """
    if not path.is_file():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            for rank in sorted(members):
                yield rank, _load(archive, members[rank], STEP_COLUMNS)
    except _BROKEN as error:
        raise CorruptError("not a series of steps", where=str(path), expected="series.npz", got=str(error)) from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[int, dict[str, zipfile.ZipInfo]]:
    infos = archive.infolist()
    if len(infos) > MEMBERS_MAX:
        raise CorruptError("series has too many members", where=str(path), expected=f"at most {MEMBERS_MAX}")
    found: dict[int, dict[str, zipfile.ZipInfo]] = {}
    for info in infos:
        match = _MEMBER.fullmatch(info.filename)
        if match and match[2] in STEP_COLUMNS:
            found.setdefault(int(match[1]), {})[match[2]] = info
    return found


def _load(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], names: tuple[str, ...]) -> Columns:
    missing = [name for name in names if name not in members]
    if missing:
        raise ValueError(f"column {missing[0]} is missing")
    columns = {name: _read_column(archive, members[name]) for name in names}
    if len({column.size for column in columns.values()}) > 1:
        raise ValueError("columns of one rank differ in length")
    return columns


def _read_column(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Column:
    """Return one array as int64, shape (steps,); the header is believed only where it fits the member's size."""
    if info.file_size > MEMBER_BYTES_MAX:
        raise ValueError(f"{info.filename} is over {MEMBER_BYTES_MAX} bytes")
    data = archive.read(info)
    header_bytes = int.from_bytes(data[8:10], "little")
    header = _HEADER.fullmatch(data[10 : 10 + header_bytes])
    if not data.startswith(_MAGIC) or header is None:
        raise ValueError(f"{info.filename} is not a one-dimensional array of integers")
    dtype = np.dtype(header[1].decode("ascii"))
    body = memoryview(data)[10 + header_bytes :]
    if int(header[2]) * dtype.itemsize != body.nbytes:
        raise ValueError(f"{info.filename} promises {int(header[2])} items of {dtype} in {body.nbytes} bytes")
    return np.frombuffer(body, dtype=dtype).astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True)
class _Extent:
    first_request_ns: int
    first_end_ns: int
    last_end_ns: int
    steps: int


def _extent(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> _Extent:
    columns = _load(archive, members, ("request_ns", "end_ns"))
    request, end = columns["request_ns"], columns["end_ns"]
    if not request.size:
        return _Extent(0, 0, 0, 0)
    return _Extent(int(request[0]), int(end[0]), int(end.max()), int(request.size))


class _Buckets:
    """Sums over equal stretches of time, filled rank by rank."""

    def __init__(self, edges: Floats, lead_ns: int, *, barrier: bool) -> None:
        self._edges = edges
        self._lead_ns = lead_ns
        self._barrier = barrier
        n = edges.size - 1
        self._compute_sum, self._span_sum, self._bytes_sum = np.zeros(n), np.zeros(n), np.zeros(n)
        self._au, self._wait, self._compute = _Extremes(n), _Extremes(n), _Extremes(n)
        self._epochs: list[tuple[float, str]] = []
        self._ranks = self._steps = self._origin_ns = 0

    @classmethod
    def plan(cls, extents: list[_Extent], *, barrier: bool, points_max: int) -> "_Buckets":
        lead_ns = max(extent.first_end_ns - extent.first_request_ns for extent in extents) if barrier else 0
        whole_ns = max(
            extent.last_end_ns - (extent.first_end_ns - lead_ns if barrier else extent.first_request_ns)
            for extent in extents
        )
        points = max(1, min(points_max, max(extent.steps for extent in extents)))
        edges = np.linspace(0.0, max(whole_ns, 1) / 1e9, points + 1)
        return cls(edges, lead_ns, barrier=barrier)

    def add(self, columns: Columns, extent: _Extent) -> None:
        origin_ns = extent.first_end_ns - self._lead_ns if self._barrier else extent.first_request_ns
        begin = (_begins(columns) - origin_ns) / 1e9
        end = (columns["end_ns"] - origin_ns) / 1e9
        compute = np.maximum(columns["compute_end_ns"] - columns["compute_start_ns"], 0) / 1e9
        wait = np.maximum(columns["ready_ns"] - columns["request_ns"], 0) / 1e9
        training = columns["phase"] == 0
        span = np.maximum(end - begin, 0.0)
        place = np.clip(np.searchsorted(self._edges, (begin + end) / 2) - 1, 0, self._edges.size - 2)
        self._bytes_sum += self._spread(begin, end, columns["delivered_bytes"].astype(np.float64))
        self._compute_sum += self._spread(begin, end, np.where(training, compute, 0.0))
        self._span_sum += self._spread(begin, end, np.where(training, span, 0.0))
        au = np.divide(compute, span, out=np.zeros_like(span), where=span > 0)
        for extremes, values in ((self._au, au), (self._wait, wait), (self._compute, compute)):
            extremes.add(place[training], values[training])
        if not self._epochs:
            self._epochs, self._origin_ns = _epoch_starts(columns, begin), origin_ns
        self._ranks += 1
        self._steps += begin.size

    def _spread(self, begin: Floats, end: Floats, amounts: Floats) -> Floats:
        """Return how much of the steps' amounts falls into each bucket, each spread evenly over its step."""
        times = np.maximum.accumulate(np.column_stack((begin, end)).ravel())
        before = np.concatenate(([0.0], np.cumsum(amounts)))
        sums = np.column_stack((before[:-1], before[1:])).ravel()
        return np.diff(np.interp(self._edges, times, sums))

    def finish(self) -> Timeline:
        nothing = np.full(self._span_sum.size, np.nan)
        au = np.divide(self._compute_sum, self._span_sum, out=nothing, where=self._span_sum > 1e-9)
        return Timeline(
            seconds=(self._edges[:-1] + self._edges[1:]) / 2,
            au=Band(au, self._au.low(), self._au.high()),
            wait=self._wait.band(),
            compute=self._compute.band(),
            bytes_per_second=self._bytes_sum / np.diff(self._edges),
            epochs=self._epochs,
            ranks=self._ranks,
            steps=self._steps,
            origin_ns=self._origin_ns,
        )


def _begins(columns: Columns) -> Column:
    """Return when each step began: at the end of the one before, or at its request where a block begins."""
    ended = np.roll(columns["end_ns"], 1)
    new = np.zeros(ended.size, dtype=bool)
    new[:1] = True
    for name in ("phase", "epoch", "block"):
        new[1:] |= np.diff(columns[name]) != 0
    return np.where(new, columns["request_ns"], ended)


class _Extremes:
    """Least, greatest and mean value a bucket."""

    def __init__(self, size: int) -> None:
        self._low, self._high = np.full(size, np.inf), np.full(size, -np.inf)
        self._sum, self._count = np.zeros(size), np.zeros(size)

    def add(self, place: npt.NDArray[np.intp], values: Floats) -> None:
        np.minimum.at(self._low, place, values)
        np.maximum.at(self._high, place, values)
        np.add.at(self._sum, place, values)
        np.add.at(self._count, place, 1.0)

    def low(self) -> Floats:
        return np.where(self._count > 0, self._low, np.nan)

    def high(self) -> Floats:
        return np.where(self._count > 0, self._high, np.nan)

    def band(self) -> Band:
        mean = np.divide(self._sum, self._count, out=np.full(self._sum.size, np.nan), where=self._count > 0)
        return Band(mean, self.low(), self.high())


def _epoch_starts(columns: Columns, begin: Floats) -> list[tuple[float, str]]:
    """Return (seconds, label) of the first step of each epoch and evaluation."""
    changed = np.concatenate(([True], (np.diff(columns["epoch"]) != 0) | (np.diff(columns["phase"]) != 0)))
    places = np.flatnonzero(changed)[:EPOCH_MARKS_MAX]
    words = {0: "epoch"}
    return [
        (float(begin[p]), f"{words.get(int(columns['phase'][p]), 'evaluation')} {int(columns['epoch'][p])}")
        for p in places
    ]
