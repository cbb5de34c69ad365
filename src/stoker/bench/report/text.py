"""Words and numbers for people, made safe to show: nothing a result holds can steer a terminal or flood a page."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stoker.core.files import REDACTED, is_secret_name, redact_url
from stoker.core.units import format_bytes, format_rate, format_seconds

TEXT_CHARACTERS_MAX: Final = 600
DASH: Final = "–"
# C0 and C1 controls steer terminals; the bidirectional marks and overrides make text read other than it is.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: Any, limit: int = TEXT_CHARACTERS_MAX) -> str:
    """Return `value` as one harmless line of at most `limit` characters; controls become `�`, line ends blanks."""
    text = str(value)
    shortened = len(text) > limit
    text = re.sub(r"[\t\r\n\u2028\u2029]+", " ", text[:limit])
    return _UNSAFE.sub("�", text) + ("…" if shortened else "")


def percent(ratio: float | None, digits: int = 1) -> str:
    """Return a ratio in per cent, a dash when there is none."""
    return DASH if ratio is None or not math.isfinite(ratio) else f"{ratio * 100:.{digits}f} %"


def count(number: int) -> str:
    """Return a count with its thousands apart."""
    return f"{number:,}"


def decimal(number: float) -> str:
    """Return a number with three significant digits, or all its whole ones."""
    if not math.isfinite(number):
        return DASH
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def size(count_bytes: float | None) -> str:
    """Return a size, a dash when there is none."""
    return DASH if count_bytes is None or not math.isfinite(count_bytes) else format_bytes(count_bytes)


def rate(bytes_per_second: float | None) -> str:
    """Return a rate, a dash when there is none."""
    known = bytes_per_second is not None and math.isfinite(bytes_per_second)
    return format_rate(bytes_per_second or 0.0) if known else DASH


def duration(seconds: float | None) -> str:
    """Return a duration, a dash when there is none."""
    return DASH if seconds is None or not math.isfinite(seconds) else format_seconds(seconds).replace("us", "µs")


def tick_duration(seconds: float) -> str:
    """Return a duration as an axis shows it, without needless zeros: `0`, `250 µs`, `10 s`, `5 min`."""
    for limit, size_seconds, unit in ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s")):
        if 0 < seconds < limit * (1 - 1e-9):
            return f"{seconds / size_seconds:.4g} {unit}"
    return f"{seconds / 60:.4g} min" if seconds else "0"


def moment(utc: str) -> str:
    """Return an ISO 8601 UTC time to the second, `2026-01-31 12:00:00 UTC`."""
    text = plain(utc, 40)
    return f"{text[:10]} {text[11:19]} UTC" if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text) else text


def redacted(name: str, value: Any) -> Any:
    """Return a setting's value, hidden when its name speaks of a secret, URLs without theirs."""
    if is_secret_name(name) and value not in (None, "", False):
        return REDACTED
    if isinstance(value, str):
        return _redacted_url(value)
    if isinstance(value, (list, tuple)):
        return [redacted(name, item) for item in value]
    return value


def _redacted_url(text: str) -> str:
    try:
        return redact_url(text)
    except ValueError:  # not a URL after all, such as `http://[`
        return text


def safe_value(name: str, value: Any) -> str:
    """Return a setting's value for people, redacted and shortened."""
    value = redacted(name, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(plain(item, 240) for item in value[:20]) or DASH
    return plain(value, 240) if value not in (None, "") else DASH


def flatten(facts: Mapping[str, Any], rows_max: int = 200) -> list[tuple[str, str]]:
    """Return nested facts as rows `("cpu · model", "…")`, at most `rows_max`, nesting at most 8 deep."""
    rows: list[tuple[str, str]] = []
    _collect(facts, "", rows, rows_max, depth=8)
    return rows


def _collect(value: Any, name: str, rows: list[tuple[str, str]], rows_max: int, *, depth: int) -> None:
    if len(rows) >= rows_max:
        return
    if isinstance(value, Mapping) and value and depth > 0:
        for key, inner in value.items():
            _collect(inner, f"{name} · {plain(key, 80)}" if name else plain(key, 80), rows, rows_max, depth=depth - 1)
    elif _holds_mappings(value) and depth > 0:
        for index, inner in enumerate(value):
            _collect(inner, f"{name} {index}", rows, rows_max, depth=depth - 1)
    else:
        rows.append((_label(name), _fact(name, value)))


def _holds_mappings(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, Mapping) for v in value)


def _label(name: str) -> str:
    return name[:160].removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def _fact(name: str, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and name.endswith("_bytes"):
        return size(value)
    if number and name.endswith("_seconds"):
        return duration(value)
    return safe_value(name.rpartition("· ")[2], value)
