"""Errors are one sentence, survive the trip between processes, and know their exit code."""

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from stoker.core import errors
from stoker.core.errors import InterruptedRunError, ShortReadError, StokerError, UsageError


def test_a_message_says_what_where_expected_got_and_remedy() -> None:
    error = ShortReadError("read", where="file:///d/a", expected="10 bytes", got="4 bytes", remedy="make it again")
    assert str(error) == "read 'file:///d/a': expected 10 bytes, got 4 bytes; make it again"
    assert str(UsageError("nothing to do")) == "nothing to do"


def raise_in_worker() -> None:
    raise ShortReadError("read", where="k", expected="1", got="0")


def test_an_error_crosses_processes_whole() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(ShortReadError) as caught,
    ):
        pool.submit(raise_in_worker).result()
    assert caught.value.where == "k" and caught.value.expected == "1"


def test_exit_codes_follow_the_table() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StokerError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes["UsageError"] == codes["MissingExtraError"] == 2
    assert codes["PreflightError"] == 5
    assert codes["StoreError"] == codes["CorruptError"] == 1
    stopped = InterruptedRunError("stopped", signal_number=15)
    assert stopped.exit_code == copy.copy(stopped).exit_code == 143
