"""Sizes and durations: what people write, what people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.units import GiB, format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("4096", 4096), ("4KiB", 4096), ("1.5 GiB", 3 * GiB // 2), ("10GB", 10**10), ("2k", 2000), ("1MiB", 1 << 20)],
)
def test_sizes_are_parsed(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("250ms", 0.25), ("2h", 7200)])
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "4 parsecs", "-1", "1e", "0x10"])
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example"):
        parse_bytes(text)
    with pytest.raises(ValueError, match="for example"):
        parse_seconds(text)


@given(st.integers(0, 1 << 60))
def test_printed_sizes_parse_back_within_a_percent(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.01, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00035, "350 us"), (0.012, "12 ms"), (3.2, "3.20 s"), (245, "4m 05s"), (7380, "2h 03m"), (-3.2, "-3.20 s")],
)
def test_durations_are_printed(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
