"""Words and numbers for people."""

import math

import pytest

from stoker.bench.report import text


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a\nb\tc", "a b c"), ("x\x1b[31m", "x�[31m"), ("ab\u202ecd", "ab�cd"), ("a" * 700, "a" * 600 + "…"), (3, "3")],
)
def test_plain_is_one_harmless_line(given: object, shown: str) -> None:
    assert text.plain(given) == shown


@pytest.mark.parametrize("write", [text.percent, text.size, text.rate, text.duration])
def test_what_is_not_known_is_a_dash(write) -> None:
    assert write(None) == write(math.nan) == write(math.inf) == text.DASH


@pytest.mark.parametrize(("number", "shown"), [(0, "0"), (3.14159, "3.14"), (1234.5, "1,234"), (math.nan, text.DASH)])
def test_decimal(number: float, shown: str) -> None:
    assert text.decimal(number) == shown


def test_moment_cuts_to_seconds_and_passes_others_through() -> None:
    assert text.moment("2026-01-31T12:00:00.123456Z") == "2026-01-31 12:00:00 UTC"
    assert text.moment("soon") == "soon"


def test_nested_facts_become_rows_with_units() -> None:
    rows = text.flatten({"cpu": {"model": "x", "cores": 4}, "memory_bytes": 2**31, "ok": True, "disks": [{"n": 1}]})
    assert ("cpu · model", "x") in rows and ("memory", "2.00 GiB") in rows
    assert ("ok", "true") in rows and ("disks 0 · n", "1") in rows


def test_facts_are_bounded_in_number_and_depth() -> None:
    deep: dict = {}
    inner = deep
    for _ in range(100):
        inner["x"] = {}
        inner = inner["x"]
    assert len(text.flatten(deep)) == 1
    assert len(text.flatten({str(n): n for n in range(1000)})) == 200


def test_secret_facts_are_hidden() -> None:
    assert text.flatten({"env": {"aws_secret_access_key": "abc"}}) == [("env · aws secret access key", "[redacted]")]
    assert text.safe_value("url", "http://[") == "http://["
