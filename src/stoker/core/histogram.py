"""Latency histograms that merge over ranks and hosts: HdrHistogram, three significant digits.

The relative error of a reported value is at most 0.1 %; the range is 1 ns to one hour. The encoded
form is HdrHistogram's V2 base64, which its Java, C and Rust readers understand.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from hdrh.histogram import HdrHistogram

LOWEST_NS: Final = 1
HIGHEST_NS: Final = 3_600_000_000_000
SIGNIFICANT_DIGITS: Final = 3
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


class Histogram:
    """Counts of durations in nanoseconds."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)

    def record(self, duration_ns: int) -> None:
        """Count one duration; values outside the range are clamped to its edges, never dropped."""
        self._counts.record_value(min(max(duration_ns, LOWEST_NS), HIGHEST_NS))

    def record_many(self, durations_ns: Iterable[int]) -> None:
        """Count several durations."""
        for duration_ns in durations_ns:
            self.record(duration_ns)

    def merge(self, other: "Histogram") -> None:
        """Add the counts of `other`; the sum equals one histogram of all values."""
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        """Return how many durations were counted."""
        return int(self._counts.get_total_count())

    def mean_ns(self) -> float:
        """Return the mean in nanoseconds, 0.0 when empty."""
        return float(self._counts.get_mean_value()) if self.count else 0.0

    def quantile_ns(self, ratio: float) -> int:
        """Return the value at `ratio` in 0..1, in nanoseconds, 0 when empty."""
        return int(self._counts.get_value_at_percentile(ratio * 100.0)) if self.count else 0

    def quantiles_seconds(self) -> dict[str, float]:
        """Return the usual quantiles in seconds, keyed `p50` … `p99.9`, `max`."""
        names = {1.0: "max"}
        return {names.get(q, f"p{q * 100:g}"): self.quantile_ns(q) / 1e9 for q in QUANTILES}

    def encode(self) -> str:
        """Return the V2 base64 form."""
        return bytes(self._counts.encode()).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> "Histogram":
        """Return the histogram that `encode` wrote."""
        histogram = cls()
        if text:
            histogram._counts.decode_and_add(text.encode("ascii"))
        return histogram


def merge_encoded(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the per-name sum of several maps of encoded histograms (one map a rank)."""
    sums: dict[str, Histogram] = {}
    for part in parts:
        for name, text in part.items():
            sums.setdefault(name, Histogram()).merge(Histogram.decode(text))
    return {name: histogram.encode() for name, histogram in sums.items()}
