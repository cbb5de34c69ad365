"""What the hosts did meanwhile: rates from their counters, on one time axis with the steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stoker.bench.report import text
from stoker.bench.report.series import POINTS_MAX, Band
from stoker.core.host_series import HostSeries, load_hosts
from stoker.core.result import HostSummary

Floats = npt.NDArray[np.float64]
SECTOR_BYTES: Final = 512
HOSTS_SHOWN_MAX: Final = 64
RATES: Final = {
    "disk_read": ("disk", "sectors_read", SECTOR_BYTES),
    "disk_write": ("disk", "sectors_written", SECTOR_BYTES),
    "network_receive": ("net", "rx_bytes", 1),
    "network_transmit": ("net", "tx_bytes", 1),
}
"""Name -> (group of columns, counter, bytes of one)."""
_IDLE: Final = ("idle", "iowait")
_TICKS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True, slots=True)
class HostsLine:
    """All hosts over time, in equal buckets whose middles stand in `seconds`, on the time axis of the steps.

    `cpu` is the busy ratio: its mean and extremes over the hosts. `rates` are bytes/s of all hosts together, by the
    names of RATES. NaN where no host was seen.
    """

    seconds: Floats
    cpu: Band
    rates: Mapping[str, Floats] = field(default_factory=dict)
    hosts: int = 0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """One host's samples: when, busy and all ticks so far, and bytes so far by the names of RATES."""

    seconds: Floats
    busy: Floats
    ticks: Floats
    amounts: Mapping[str, Floats]


def load_line(folder: Path, *, origin_ns: int = 0, points_max: int = POINTS_MAX) -> HostsLine | None:
    """Return the hosts of the run in `folder` over time, None when nothing was saved of them.

    `origin_ns` is second 0 on the collector's monotonic clock; 0 takes the start of the collection.
    Raises CorruptError for a file that is not one of ours.
    """
    found = load_hosts(folder)
    if found is None:
        return None
    header, hosts = found
    shift_seconds = (header.origin_ns - origin_ns) / 1e9 if origin_ns else 0.0
    seen = [_seen(host, shift_seconds) for host in hosts]
    seen = [each for each in seen if each.seconds.size > 1]
    if not seen:
        return None
    return _line(seen, points_max)


def _seen(host: HostSeries, shift_seconds: float) -> _Seen:
    ticks = {name: _column(host, f"cpu/{name}") for name in _TICKS}
    everything = np.sum(list(ticks.values()), axis=0)
    amounts = {name: _summed(host, group, counter) * size_bytes for name, (group, counter, size_bytes) in RATES.items()}
    seconds = _column(host, "at_us") / 1e6 + shift_seconds
    return _Seen(seconds, everything - sum(ticks[name] for name in _IDLE), everything, amounts)


def _column(host: HostSeries, name: str) -> Floats:
    """Return a column, shape (samples,), a sample without a value as the one before it."""
    values = np.array([math.nan if value is None else value for value in host.values(name)], np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return np.zeros(host.samples)
    return np.asarray(values[known[np.clip(np.searchsorted(known, np.arange(host.samples), "right") - 1, 0, None)]])


def _summed(host: HostSeries, group: str, counter: str) -> Floats:
    """Return a counter over all devices that count. One that comes anew begins at what it then shows: no leap."""
    counting = host.disks if group == "disk" else host.interfaces
    names = [name for name, why_not in counting.items() if not why_not]
    total = np.zeros(host.samples)
    for name in names:
        steps = np.diff(_column(host, f"{group}/{name}/{counter}"), prepend=np.nan)
        total += np.cumsum(np.where(steps > 0, steps, 0.0))  # a counter that fell back was set to zero
    return total


def _line(seen: Sequence[_Seen], points_max: int) -> HostsLine:
    first, last = min(each.seconds[0] for each in seen), max(each.seconds[-1] for each in seen)
    spacing = min(float(np.median(np.diff(each.seconds))) for each in seen)
    points = int(min(max((last - first) / max(spacing, 1e-3), 1), points_max))
    edges = np.linspace(first, last, points + 1)
    cpus = np.array([_rate(each.busy, each, edges) / _rate(each.ticks, each, edges) for each in seen])
    rates = {name: np.array([_rate(each.amounts[name], each, edges) for each in seen]) for name in RATES}
    return HostsLine(
        seconds=(edges[:-1] + edges[1:]) / 2,
        cpu=Band(_over(np.nanmean, cpus), _over(np.nanmin, cpus), _over(np.nanmax, cpus)),
        rates={name: _over(np.nansum, values) for name, values in rates.items()},
        hosts=len(seen),
        samples=sum(each.seconds.size for each in seen),
    )


def _rate(amount: Floats, seen: _Seen, edges: Floats) -> Floats:
    """Return the growth per second of a counter in each bucket, NaN outside the host's samples and for no growth."""
    grown = np.diff(np.interp(edges, seen.seconds, amount)) / np.diff(edges)
    outside = (edges[1:] <= seen.seconds[0]) | (edges[:-1] >= seen.seconds[-1])
    return np.where(outside, np.nan, grown)


def _over(reduce: Any, values: Floats) -> Floats:
    """Return the values, shape (hosts, points), reduced over the hosts, NaN where there is none."""
    finite = np.isfinite(values)
    filled = np.where(finite, values, np.nan)
    out = np.full(values.shape[1], np.nan)
    there = finite.any(axis=0)
    out[there] = reduce(filled[:, there], axis=0)
    return out


def summarise(hosts: Iterable[HostSeries], ranks: Mapping[str, int] | None = None) -> list[HostSummary]:
    """Return what is kept of each host in the result; `ranks` tells how many ran on each, by name."""
    return [_summary(host, (ranks or {}).get(host.host, 0)) for host in hosts]


def _summary(host: HostSeries, ranks: int) -> HostSummary:
    seen = _seen(host, 0.0)
    span_seconds = float(seen.seconds[-1] - seen.seconds[0]) if host.samples > 1 else 0.0
    means = {f"{name}_bytes_per_second": _mean(amount, span_seconds) for name, amount in seen.amounts.items()}
    busy = _busy(seen) if span_seconds > 0 else np.zeros(0)
    available = [value for value in host.values("mem/MemAvailable") if value is not None]
    ticks = float(seen.ticks[-1] - seen.ticks[0]) if host.samples > 1 else 0.0
    return HostSummary(
        host=host.host,
        source=host.source,
        ranks=ranks,
        logical_cpus=int(host.start.get("cpuinfo", {}).get("logical_cpus", 0)),
        memory_bytes=int(host.start.get("meminfo", {}).get("MemTotal", 0)) * 1024,
        samples=host.samples,
        cpu_busy_ratio=float(seen.busy[-1] - seen.busy[0]) / ticks if ticks > 0 else None,
        cpu_busy_max_ratio=float(busy.max()) if busy.size else None,
        memory_available_min_bytes=min(available) * 1024 if available else None,
        clock_offset_seconds=host.offset.seconds if host.offset else None,
        clock_error_seconds=host.offset.error_seconds if host.offset else None,
        errors=tuple(host.errors),
        **means,
    )


def _busy(seen: _Seen) -> Floats:
    """Return the busy ratio between neighbouring samples, those without a tick left out."""
    busy, ticks = np.diff(seen.busy), np.diff(seen.ticks)
    return np.asarray(busy[ticks > 0] / ticks[ticks > 0])


def _mean(amount: Floats, span_seconds: float) -> float | None:
    return float(amount[-1] - amount[0]) / span_seconds if span_seconds > 0 else None


def host_rows(hosts: Sequence[HostSummary]) -> list[dict[str, str]]:
    """Return the hosts for the page, of very many those that were busiest or had errors."""
    busiest = sorted(hosts, key=lambda host: (not host.errors, -(host.cpu_busy_ratio or 0.0)))[:HOSTS_SHOWN_MAX]
    kept = {id(host) for host in busiest}
    return [_row(host) for host in hosts if id(host) in kept]


def _row(host: HostSummary) -> dict[str, str]:
    return {
        "host": text.plain(host.host, 60),
        "source": text.plain(host.source, 10),
        "ranks": text.count(host.ranks),
        "cpus": text.count(host.logical_cpus) if host.logical_cpus else text.DASH,
        "memory": text.size(host.memory_bytes) if host.memory_bytes else text.DASH,
        "cpu": text.percent(host.cpu_busy_ratio, 0),
        "cpu_max": text.percent(host.cpu_busy_max_ratio, 0),
        "disk_read": text.rate(host.disk_read_bytes_per_second),
        "disk_write": text.rate(host.disk_write_bytes_per_second),
        "receive": text.rate(host.network_receive_bytes_per_second),
        "transmit": text.rate(host.network_transmit_bytes_per_second),
        "clock": _clock_words(host),
        "errors": text.plain("; ".join(host.errors), 300),
    }


def _clock_words(host: HostSummary) -> str:
    if host.clock_offset_seconds is None:
        return "not measured"
    if not host.clock_offset_seconds and not host.clock_error_seconds:
        return "the conductor's"
    return f"{host.clock_offset_seconds * 1e3:+.3f} ± {(host.clock_error_seconds or 0.0) * 1e3:.3f} ms"
