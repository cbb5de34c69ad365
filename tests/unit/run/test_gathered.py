"""All that is wrong is told at once."""

from pathlib import Path

import pytest

from stoker.bench.run.gathered import gather, require_results
from stoker.core.errors import InterruptedRunError, NotFoundError, PreflightError, UsageError


def fails(error: Exception):  # type: ignore[no-untyped-def]
    def check() -> None:
        raise error

    return check


def test_every_check_is_made() -> None:
    made: list[int] = []
    gather(lambda: made.append(1), lambda: made.append(2))
    assert made == [1, 2]
    with pytest.raises(UsageError):
        gather(fails(UsageError("a")), lambda: made.append(3))
    assert made == [1, 2, 3]


def test_one_error_is_itself() -> None:
    error = NotFoundError("no such folder", where="/x")
    with pytest.raises(NotFoundError) as raised:
        gather(lambda: None, fails(error))
    assert raised.value is error


def test_several_are_told_in_one_sentence() -> None:
    with pytest.raises(UsageError) as raised:
        gather(fails(UsageError("a is wrong", remedy="mend a")), fails(UsageError("b is wrong")))
    assert "2 checks failed" in str(raised.value)
    assert "a is wrong; mend a; b is wrong" in str(raised.value)
    with pytest.raises(PreflightError, match="2 checks failed"):
        gather(fails(UsageError("a")), fails(NotFoundError("b")))


def test_a_signal_is_no_finding() -> None:
    with pytest.raises(InterruptedRunError):
        gather(fails(UsageError("a")), fails(InterruptedRunError("stopped by SIGINT")))


def test_results_are_tried_and_nothing_is_left(tmp_path: Path) -> None:
    require_results(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PreflightError, match="results folder cannot be made"):
        require_results("/proc/stoker-results")
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="Not a directory"):
        require_results(tmp_path / "file")
