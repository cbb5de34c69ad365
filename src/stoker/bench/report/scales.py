"""Scales and ticks for charts: values to pixels, and the round numbers people like on an axis."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_BINARY_STEPS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_TIME_STEPS: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0)
_DECIMAL_LIMIT: Final = 1e15
_LEAST: Final = 1e-290


@dataclass(frozen=True, slots=True)
class Scale:
    """A map from [low, high] to pixels [start, end]; a zero-width range maps to the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`, kept within the range's ends."""
        if self.high <= self.low:
            return (self.start + self.end) / 2
        ratio = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + ratio * (self.end - self.start)


def _decimal_step(raw: float) -> float:
    if not (0.0 < raw < _DECIMAL_LIMIT):
        return 1.0 if raw <= 0.0 or math.isnan(raw) else _DECIMAL_LIMIT
    power = 10.0 ** math.floor(math.log10(raw))
    return next((step * power for step in _STEPS if step * power >= raw * (1 - 1e-9)), 10 * power)


def _binary_step(raw: float) -> float:
    power = 1024.0 ** max(0, math.floor(math.log(max(raw, 1.0), 1024)))
    return next((step * power for step in _BINARY_STEPS if step * power >= raw * (1 - 1e-9)), 1024 * power)


def _time_step(raw: float) -> float:
    if raw <= 1.0:
        return _decimal_step(raw)
    return next((step for step in _TIME_STEPS if step >= raw), math.ceil(raw / 3600) * 3600.0)


STEPPERS: Final[dict[str, Callable[[float], float]]] = {
    "decimal": _decimal_step,
    "binary": _binary_step,
    "time": _time_step,
}


def ticks(high: float, count: int, kind: str = "decimal") -> list[float]:
    """Return round values from 0 up to the first at or above `high`, about `count` of them.

    `kind` is decimal (1, 2, 2.5, 5), binary (powers of two, for bytes) or time (1, 2, 5, 10, 15, 30, 60 s …).
    """
    high = high if math.isfinite(high) and high > 0 else 1.0
    step = STEPPERS[kind](high / max(1, count))
    return [step * index for index in range(max(1, math.ceil(high / step - 1e-9)) + 1)]


def decades(low: float, high: float, most: int = 8) -> list[float]:
    """Return powers of ten from at or below `low` to at or above `high` (both positive), thinned to `most`."""
    low, high = (min(max(value, _LEAST), 1 / _LEAST) for value in (low, high))  # whose powers of ten are numbers
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    stride = max(1, math.ceil((last - first) / most))
    return [10.0**power for power in range(first, last + stride, stride)]
