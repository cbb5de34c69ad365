"""Sizes and durations: parse what people write, print what people read.

Machines get bytes, seconds and nanoseconds; people get binary prefixes with the `i`.
"""

import re
from typing import Final

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30
TiB: Final = 1 << 40
PiB: Final = 1 << 50

_BYTE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "ki": KiB,
    "kib": KiB,
    "mi": MiB,
    "mib": MiB,
    "gi": GiB,
    "gib": GiB,
    "ti": TiB,
    "tib": TiB,
    "pi": PiB,
    "pib": PiB,
}
_SECOND_UNITS: Final = {
    "": 1.0,
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_NUMBER_UNIT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """Return the bytes meant by `text`: `4096`, `4KiB`, `1.5 GiB`, `10GB` (decimal without the `i`).

    Raises ValueError, with the accepted units, when the text is not a size.
    """
    return int(_parse(text, _BYTE_UNITS, what="size", example="4KiB, 10GiB or 500MB"))


def parse_seconds(text: str) -> float:
    """Return the seconds meant by `text`: `90`, `90s`, `1.5m`, `250ms`, `2h`.

    Raises ValueError, with the accepted units, when the text is not a duration.
    """
    return _parse(text, _SECOND_UNITS, what="duration", example="60s, 5m or 250ms")


def _parse(text: str, units: dict[str, int] | dict[str, float], *, what: str, example: str) -> float:
    match = _NUMBER_UNIT.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in units:
        raise ValueError(f"{text!r} is not a {what}; write for example {example}")
    return float(match.group(1)) * units[unit]


def format_bytes(count_bytes: float) -> str:
    """Return a size for people: `512 B`, `4.00 KiB`, `1.37 GiB`."""
    for unit, size in (("PiB", PiB), ("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if abs(count_bytes) >= size:
            return f"{count_bytes / size:.2f} {unit}"
    return f"{count_bytes:.0f} B"


def format_rate(bytes_per_second: float) -> str:
    """Return a rate for people: `1.37 GiB/s`."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `350 us`, `12.0 ms`, `3.20 s`, `4m 05s`, `2h 03m`."""
    if seconds < 0:
        return f"-{format_seconds(-seconds)}"
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < size * 1000:
            return f"{seconds / size:.3g} {unit}"
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
