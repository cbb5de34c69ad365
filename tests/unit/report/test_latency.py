"""Histograms become curves; those that are not ours are refused."""

import base64
import struct
import zlib

import pytest
import runs
from hdrh.histogram import HdrHistogram

from stoker.bench.report.latency import curves, latencies
from stoker.core.histogram import Histogram


def encoded(durations_ns: list[int]) -> str:
    histogram = Histogram()
    histogram.record_many(durations_ns)
    return histogram.encode()


def test_quantiles_agree_with_the_histogram() -> None:
    text = runs.histograms(1)["read"]
    (stage,), unreadable = latencies({"read": text})
    histogram = Histogram.decode(text)
    assert unreadable == []
    assert stage.count == histogram.count
    for quantile in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert stage.at(quantile) == pytest.approx(histogram.quantile_ns(quantile) / 1e9, rel=2e-3)


def test_stages_come_in_the_order_of_the_pipeline() -> None:
    stages, _ = latencies({name: encoded([1000]) for name in ("read", "other", "open", "step", "decode")})
    assert [stage.name for stage in stages] == ["step", "open", "read", "decode", "other"]


def test_empty_histogram_is_left_out() -> None:
    assert latencies({"read": "", "open": encoded([])}) == ([], [])


def test_curve_ends_where_the_number_of_operations_ends_it() -> None:
    stages, _ = latencies({"few": encoded([10] * 10), "one": encoded([10])})
    few, one = curves(stages)
    assert few.quantiles[-1] == 0.9
    assert one.quantiles[-1] == 0.5


def test_at_most_eight_curves() -> None:
    stages, _ = latencies({f"stage{n}": encoded([n + 1]) for n in range(14)})
    found = curves(stages)
    assert [curve.style for curve in found] == list(range(1, 9))


def packed(payload: bytes) -> str:
    body = zlib.compress(payload)
    return base64.b64encode(struct.pack(">II", 0x1C849304, len(body)) + body).decode()


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "%%%",
        "HISTFAAA",
        packed(b""),
        packed(b"\0" * 40),
        packed(struct.pack(">iiiiqqd", 0x1C849303, 1 << 30, 0, 3, 1, 2**62, 1.0)),
        packed(b"\0" * (64 << 20)),
        HdrHistogram(1, 2**62, 5).encode().decode(),
        "A" * (2 << 20),
    ],
)
def test_foreign_or_hostile_histogram_is_named_unreadable(text: str) -> None:
    assert latencies({"read": text}) == ([], ["read"])
