"""Latency curves and tables from the encoded histograms of a result, which may come from anywhere."""

import base64
import binascii
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram

from stoker.bench.report.charts import Curve
from stoker.core.histogram import HIGHEST_NS, LOWEST_NS, SIGNIFICANT_DIGITS
from stoker.core.result import STAGES

ENCODED_CHARACTERS_MAX: Final = 1 << 20
DECODED_BYTES_MAX: Final = 8 << 20
CURVES_MAX: Final = 8
_OUTER_HEADER_BYTES: Final = 8
# Of the V2 payload: cookie, length, offset, significant digits, least and greatest trackable value.
_INNER_HEADER: Final = struct.Struct(">iiiiqq")
_QUANTILES: Final = (
    *(n / 100 for n in (1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92, 95, 97, 98, 99)),
    *(0.993, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99999, 0.999999, 1.0),
)
_ORDER: Final = {name: place for place, name in enumerate(("step", "stall", *STAGES))}


@dataclass(frozen=True, slots=True)
class StageLatency:
    """How long one stage's operations took: how many there were, and seconds at quantiles 0..1."""

    name: str
    count: int
    seconds: dict[float, float]

    def at(self, quantile: float) -> float:
        """Return the latency in seconds at one of the kept quantiles."""
        return self.seconds[quantile]


def latencies(histograms: Mapping[str, str]) -> tuple[list[StageLatency], list[str]]:
    """Return the latency of every stage that has one, in the order of the stages, and the names not readable."""
    found: list[StageLatency] = []
    unreadable: list[str] = []
    for name in sorted(histograms, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        try:
            decoded = _decode(histograms[name])
        except (
            ValueError,
            TypeError,
            IndexError,
            struct.error,
            zlib.error,
            HdrCookieException,
            HdrLengthException,
            HdrHistogramSettingsException,
        ):
            unreadable.append(name)
            continue
        if decoded.get_total_count() > 0:
            found.append(_summary(name, decoded))
    return found, unreadable


def _decode(text: str) -> HdrHistogram:
    """Return the histogram after checking that it has our range and unpacks to a bounded size."""
    if not text:
        return HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
    if len(text) > ENCODED_CHARACTERS_MAX:
        raise ValueError("encoded histogram is too long")
    try:
        packed = base64.b64decode(text, validate=True)[_OUTER_HEADER_BYTES:]
    except binascii.Error as error:
        raise ValueError("not base64") from error
    payload = zlib.decompressobj().decompress(packed, DECODED_BYTES_MAX)
    shape = _INNER_HEADER.unpack_from(payload)[3:]
    if len(payload) >= DECODED_BYTES_MAX or shape != (SIGNIFICANT_DIGITS, LOWEST_NS, HIGHEST_NS):
        raise ValueError("histogram has another range than ours")
    return HdrHistogram.decode(text)


def _summary(name: str, histogram: HdrHistogram) -> StageLatency:
    values = histogram.get_percentile_to_value_dict([q * 100 for q in _QUANTILES])
    seconds = {q: values.get(q * 100, histogram.get_max_value()) / 1e9 for q in _QUANTILES}
    return StageLatency(name, int(histogram.get_total_count()), seconds)


def curves(stages: list[StageLatency]) -> list[Curve]:
    """Return the stages worth drawing: at most eight, those with the most time in them, in their own order."""
    weight = {stage.name: stage.count * stage.at(0.5) for stage in stages}
    kept = sorted(weight, key=lambda name: -weight[name])[:CURVES_MAX]
    drawn = [stage for stage in stages if stage.name in kept]
    return [_curve(stage, style) for style, stage in enumerate(drawn, start=1)]


def _curve(stage: StageLatency, style: int) -> Curve:
    """Return the curve up to the last quantile that the number of operations supports."""
    last = 1.0 - 1.0 / max(2, stage.count)
    quantiles = [q for q in _QUANTILES if q <= last] or [_QUANTILES[0]]
    # A checkpoint's stages have long names, and a curve's label little room.
    return Curve(stage.name.removeprefix("checkpoint_"), quantiles, [stage.at(q) for q in quantiles], style)
