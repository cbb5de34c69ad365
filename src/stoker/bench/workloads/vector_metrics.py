"""From what the ranks tell of a collection to the figures of the run, and a rank's own files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import INSERT, Rows, column
from stoker.core.files import write_atomic
from stoker.core.histogram import Histogram, merge_encoded
from stoker.core.vectors import QUERY, SEARCH, VectorFigures
from stoker.loader.tally import CountedHistogram, rounded

_BUFFERED: Final = 4096


class Latencies:
    """Times of requests, put into histograms some thousands at once: one by one would cost the client more."""

    def __init__(self) -> None:
        self._search, self._query = CountedHistogram(), CountedHistogram()
        self._buffer = np.zeros((_BUFFERED, 2), np.int64)
        self._count = 0

    def add(self, nanoseconds: int, queries: int) -> None:
        """Count a request of so many queries."""
        self._buffer[self._count] = nanoseconds, queries
        self._count += 1
        if self._count == _BUFFERED:
            self._fold()

    def _fold(self) -> None:
        rows, self._count = self._buffer[: self._count], 0
        times, queries = rows[:, 0], np.maximum(rows[:, 1], 1)
        for value, count in zip(*_counted(times), strict=True):
            self._search.record_counted(value, count)
        for value, count in zip(*_counted(np.repeat(times // queries, queries)), strict=True):
            self._query.record_counted(value, count)

    def encoded(self) -> dict[str, str]:
        """Return the histograms as they are kept; empty where nothing was counted."""
        self._fold()
        if not self._search.count:
            return {}
        return {SEARCH: self._search.encode(), QUERY: self._query.encode()}


def _counted(times: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> tuple[list[int], list[int]]:
    values, counts = np.unique(rounded(times), return_counts=True)
    return values.tolist(), counts.tolist()


def without_requests(rows: Rows) -> Rows:
    """Return the rows that are steps: requests to a database have no accelerator that waits."""
    return rows[column(rows, "phase") < INSERT]


def vector_figures(reports: Sequence[RankReport]) -> VectorFigures:
    """Return the sums over ranks; the time is that of the rank that took longest, for all began together."""
    notes = [report.vectors for report in reports if report.vectors is not None]
    found = VectorFigures(
        queries=sum(note.queries for note in notes),
        requests=sum(note.requests for note in notes),
        failed_requests=sum(note.failed for note in notes),
        seconds=max((note.seconds for note in notes), default=0.0),
        vectors=sum(note.vectors for note in notes),
        built_seconds=max((note.built_seconds for note in notes), default=0.0),
        disk_reason=next((note.disk_reason for note in notes if note.disk_reason), ""),
    )
    if found.seconds > 0:
        found.queries_per_second = found.queries / found.seconds
        inserting = max(found.seconds - found.built_seconds, 1e-9)
        found.vectors_per_second = found.vectors / inserting if found.vectors else 0.0
    merged = merge_encoded(report.histograms for report in reports)
    found.latencies, found.query_latencies = (_seconds(merged.get(name, "")) for name in (SEARCH, QUERY))
    counted = [note for note in notes if note.device_reads is not None]
    if counted:
        found.device_reads = sum(note.device_reads or 0 for note in counted)
        found.device_writes = sum(note.device_writes or 0 for note in counted)
        found.device_read_bytes = sum(note.device_read_bytes or 0 for note in counted)
        found.device_write_bytes = sum(note.device_write_bytes or 0 for note in counted)
        for note in counted:
            found.devices[note.device] = found.devices.get(note.device, 0) + (note.device_read_bytes or 0)
        found.reads_per_query = found.device_reads / found.queries if found.queries else None
    return found


def _seconds(encoded: str) -> dict[str, float]:
    """Return the quantiles of a histogram in seconds, nothing of an empty one."""
    times = Histogram.decode(encoded)
    if not times.count:
        return {}
    more = {"mean": times.mean_ns() / 1e9, "min": times.quantile_ns(0) / 1e9, "p99.99": times.quantile_ns(0.9999) / 1e9}
    return {**times.quantiles_seconds(), **more}


def save_rank_files(folder: Path, report: RankReport, rows: Rows) -> None:
    """Keep a rank's outputs on its own host: its note, its requests and its first answers."""
    place = folder / f"rank-{report.start.rank:04d}"
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(place / "statistics.json", msgspec.json.format(msgspec.json.encode(report.vectors), indent=1))
    hits = b"".join(msgspec.json.encode({"q": each.query, "ids": each.ids}) + b"\n" for each in report.answers)
    write_atomic(place / "recall_hits.jsonl", hits)
    lines = [f"{row[3]},{row[4]},{row[8]},{row[9]}\n" for row in rows.tolist()]
    write_atomic(place / "requests.csv", "".join(["request,start_ns,end_ns,queries\n", *lines]).encode())
