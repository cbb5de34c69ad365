"""Streams are independent, clocks tell a step, plug-ins are found and missing ones explained."""

import pytest

from stoker.core import clock
from stoker.core.clock import ns_of_utc, utc_text_of_ns
from stoker.core.errors import MissingExtraError, UnknownNameError
from stoker.core.registry import Registry, missing_extra
from stoker.core.seed import derive, run_id


def test_derived_seeds_depend_on_every_word() -> None:
    assert derive(1, "a", 2) == derive(1, "a", 2)
    assert len({derive(1, "a", 2), derive(2, "a", 2), derive(1, "b", 2), derive(1, "a", 3), derive(1, "a2")}) == 5
    assert derive(1, "ab", "c") != derive(1, "a", "bc")
    assert run_id() != run_id()


def test_a_stepped_wall_clock_is_told_and_leaves_durations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    check = clock.WallCheck()
    before_ns = clock.monotonic_ns()
    real = clock.wall_seconds
    monkeypatch.setattr(clock, "wall_seconds", lambda: real() + 3600)
    assert check.step_seconds() == pytest.approx(3600, abs=1)
    assert clock.monotonic_ns() - before_ns < 60e9


def test_an_unknown_name_is_told_with_its_neighbour() -> None:
    formats: Registry[object] = Registry("stoker.formats", kind="format")
    assert "npz" in formats.names()
    with pytest.raises(UnknownNameError, match="no format 'nzp'; did you mean 'npz'"):
        formats.load("nzp")


def test_a_missing_package_ends_in_the_install_command() -> None:
    error = missing_extra("format 'hdf5'", "hdf5", ImportError("no", name="h5py"))
    assert isinstance(error, MissingExtraError)
    assert str(error).endswith("run: pip install 'stoker[hdf5]'")
    assert "'h5py'" in str(error)


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-02 00:00", 86_400 * 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.25", 250_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2026-11-30T17:17:01.273923850Z", 1796059021273923850),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected_ns: int) -> None:
    assert ns_of_utc(text) == expected_ns
    assert ns_of_utc(utc_text_of_ns(expected_ns)) == expected_ns


@pytest.mark.parametrize("text", ["", "now", "2026-13-01", "2026-01-31T25:00", "17", "2026-01-31T12:00:00.1234567890Z"])
def test_other_text_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        ns_of_utc(text)
