"""Buffers are used anew when nobody looks at them, and never before."""

import threading
import time

import numpy as np
import pytest

from stoker.checkpoint.buffers import Buffers
from stoker.core.errors import StokerError, UsageError

PAGE = 4096


def test_a_buffer_that_is_looked_at_is_not_lent_again() -> None:
    pool = Buffers(2, PAGE)
    first, second = pool.acquire(), pool.acquire()
    assert first is not None and second is not None
    kept = np.frombuffer(first[10:20], np.uint8)
    del first, second
    again = pool.acquire()
    assert again is not None
    again[:] = b"x" * PAGE
    assert not kept.any()
    with pytest.raises(StokerError, match=r"no buffer of 4\.00 KiB came free"):
        pool.acquire(timeout_seconds=0.05)
    del kept
    assert pool.acquire(timeout_seconds=1) is not None
    assert pool.allocated_bytes == 2 * PAGE


def test_whoever_waits_gets_what_comes_free() -> None:
    pool = Buffers(2, PAGE)
    held = [pool.acquire(), pool.acquire()]
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(pool.acquire()))
    thread.start()
    time.sleep(0.05)
    assert not got
    held.pop()
    pool.nudge()
    thread.join(5)
    assert len(got) == 1


def test_waiting_ends_when_it_is_given_up() -> None:
    pool = Buffers(2, PAGE)
    held = [pool.acquire(), pool.acquire()]
    assert pool.acquire(given_up=lambda: True) is None
    assert len(held) == 2


def test_memory_is_mapped_beforehand_as_far_as_it_is_needed() -> None:
    pool = Buffers(8, PAGE)
    pool.warm(2 * PAGE + 1)
    assert pool.allocated_bytes == 3 * PAGE
    pool.warm(1 << 30)
    assert pool.allocated_bytes == 8 * PAGE


@pytest.mark.parametrize(("count", "size"), [(1, PAGE), (2, 0), (2, 1000)])
def test_buffers_that_cannot_be_are_refused(count: int, size: int) -> None:
    with pytest.raises(UsageError):
        Buffers(count, size)
