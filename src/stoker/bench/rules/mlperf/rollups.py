"""Figures that were published beside the runs: results.json of the report generator, and the report of 1.0."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.layout import REPORT_V1, Series
from stoker.bench.rules.mlperf.reading import number

ROLLUP: Final = "results.json"
LEADING: Final = (
    "Public ID",
    "Organization",
    "Division",
    "Benchmark Type",
    "Model",
    "Name",
    "Description",
    "Type",
    "Access Protocol",
    "Availability",
    "RU's",
    "Integrated Client Storage (TiB)",
    "Usable Capacity (TiB)",
    "Provisioned Power (W)",
)
"""The columns that every row begins with."""
KV_METRICS: Final = {
    "tokens": "Throughput (tok/s)",
    "read": "Read B/W (GB/s)",
    "write": "Write B/W (GB/s)",
    "read_p95": "P95 Read Latency (ms)",
}
FAMILY_COLUMNS: Final = {
    "training": (
        "Accelerator Type",
        "# Client Nodes",
        "Code",
        "Logs",
        "# Simulated Accelerators",
        "Read B/W (GiB/s)",
    ),
    "checkpointing": (
        "Checkpoint Mode",
        "# Client Nodes",
        "DP Instances",
        "Code",
        "Logs",
        "Write B/W (GiB/s)",
        "Write Duration (secs)",
        "Read B/W (GiB/s)",
        "Read Duration (secs)",
    ),
    "vector_database": (
        "# Client Nodes",
        "Code",
        "Logs",
        "Vector Count",
        "Vector Dimension",
        "Index Type",
        "Queries per Sec",
        "Query Latency (ms)",
        "Recall Percentage",
        "Storage IOPs",
        "Read B/W (GiB/s)",
    ),
    "kv_cache": (
        "# Client Nodes",
        "Code",
        "Logs",
        *(f"Option {option} {name}" for option in (1, 2, 3) for name in KV_METRICS.values()),
    ),
}
"""The further columns of each family, in their order."""
# The rollup's column, what of a run it is the mean of, and the factor from the run's unit to the column's.
_COLUMNS: Final = {
    "training": (("Read B/W (GiB/s)", "io", 1 / 1024),),
    "checkpointing": (
        ("Write B/W (GiB/s)", "save_bandwidth", 1.0),
        ("Read B/W (GiB/s)", "load_bandwidth", 1.0),
        ("Write Duration (secs)", "save_duration", 1.0),
        ("Read Duration (secs)", "load_duration", 1.0),
    ),
}
_REPORT_KEYS: Final = (
    ("overall.train_throughput_mean_samples_per_second", "samples", 1.0),
    ("overall.train_throughput_mean_MB_per_second", "io", 1.0),
)


class Published(msgspec.Struct, frozen=True):
    """A published figure: its value, what it is the mean of, the factor from the runs' unit, and where it stands."""

    value: float
    of: str
    scale: float
    path: str
    key: str


def published(series: Series, family: str) -> list[Published]:
    """Return the figures that were published of the series, none when there is no rollup."""
    return [*_of_rollup(series, family), *_of_report(series)]


def _rows(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    return [document] if isinstance(document, dict) else []


def _of_rollup(series: Series, family: str) -> Iterator[Published]:
    if ROLLUP not in series.folder.files:
        return
    path = series.folder.below(ROLLUP)
    for at, row in enumerate(_rows(series.leaves[0].files.json(path)) if series.leaves else []):
        for column, of, scale in _COLUMNS.get(family, ()):
            value = number({"value": row.get(column)} if isinstance(row, dict) else None, "value")
            if value is not None:
                yield Published(value, of, scale, path, f"[{at}] {column}")


def _of_report(series: Series) -> Iterator[Published]:
    if REPORT_V1 not in series.folder.files or not series.leaves:
        return
    path = series.folder.below(REPORT_V1)
    document = series.leaves[0].files.json(path)
    for key, of, scale in _REPORT_KEYS:
        value = number(document, key)
        if value is not None:
            yield Published(value, of, scale, path, key)
