"""Streams are independent, clocks tell a step, plug-ins are found and missing ones explained."""

import pytest

from stoker.core import clock
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
