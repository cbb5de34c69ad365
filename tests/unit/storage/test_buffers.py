"""Aligned memory and its pool."""

import threading

import numpy as np
import pytest

from stoker.core.errors import StokerError, UsageError
from stoker.core.units import KiB, MiB
from stoker.storage.buffers import BufferPool, address_of, aligned_array, aligned_view, fresh_view


@pytest.mark.parametrize("size_bytes", [1, 100, 4096, 4097, MiB + 1])
@pytest.mark.parametrize("allocate", [aligned_view, fresh_view])
def test_buffers_are_aligned_writable_and_exact(allocate: object, size_bytes: int) -> None:
    assert callable(allocate)
    view = allocate(size_bytes)
    assert (view.nbytes, view.format, view.ndim, view.readonly) == (size_bytes, "B", 1, False)
    assert address_of(view) % 4096 == 0
    view[:] = b"x" * size_bytes


@pytest.mark.parametrize("allocate", [aligned_view, fresh_view])
def test_an_empty_buffer_is_empty(allocate: object) -> None:
    assert callable(allocate)
    assert allocate(0).nbytes == 0


def test_an_aligned_array_has_shape_and_type() -> None:
    array = aligned_array((3, 5), np.float32)
    assert (array.shape, array.dtype, array.ctypes.data % 4096) == ((3, 5), np.float32, 0)
    assert not array.any()
    assert aligned_array(7).dtype == np.uint8


def test_a_released_buffer_is_used_again() -> None:
    pool = BufferPool(MiB)
    with pool.acquire(5000) as lease:
        address = address_of(lease.view)
        assert lease.view.nbytes == 5000
    with pool.acquire(8000) as lease:
        assert address_of(lease.view) == address
    assert pool.allocated_bytes == 8 * KiB


def test_a_lease_cannot_be_used_after_its_release() -> None:
    lease = BufferPool(MiB).acquire(10)
    lease.release()
    lease.release()
    with pytest.raises(ValueError, match="released"):
        lease.view[0]


@pytest.mark.parametrize("look", [lambda view: view[2:4], lambda view: np.frombuffer(view, dtype=np.uint8)])
def test_what_still_looks_at_a_released_buffer_keeps_its_bytes(look: object) -> None:
    assert callable(look)
    pool = BufferPool(64 * KiB)
    lease = pool.acquire(4096)
    lease.view[:4] = b"abcd"
    seen = look(lease.view)
    before = bytes(seen)
    lease.release()
    assert pool.allocated_bytes == 0
    with pool.acquire(4096) as other:
        other.view[:] = b"z" * 4096
        assert bytes(seen) == before


def test_idle_buffers_make_room_for_other_sizes() -> None:
    pool = BufferPool(64 * KiB)
    pool.acquire(64 * KiB).release()
    leases = [pool.acquire(32 * KiB) for _ in range(2)]
    assert pool.allocated_bytes == 64 * KiB
    for lease in leases:
        lease.release()


def test_a_full_pool_waits_for_a_release() -> None:
    pool = BufferPool(8 * KiB)
    first = pool.acquire(8 * KiB)
    got = []

    def wait() -> None:
        with pool.acquire(8 * KiB) as lease:
            got.append(lease.view.nbytes)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert got == []
    first.release()
    waiting.join(5)
    assert got == [8 * KiB]


def test_a_full_pool_gives_up_at_its_deadline() -> None:
    pool = BufferPool(4 * KiB)
    lease = pool.acquire(1)
    with pytest.raises(StokerError, match="came free"):
        pool.acquire(1, timeout_seconds=0.01)
    lease.release()


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="larger than its pool"):
        BufferPool(4 * KiB).acquire(5000)
    with pytest.raises(UsageError, match="too small"):
        BufferPool(10)


def test_many_threads_share_a_pool_without_sharing_buffers() -> None:
    pool = BufferPool(64 * KiB)
    failures = []

    def use(number: int) -> None:
        for _ in range(50):
            with pool.acquire(16 * KiB) as lease:
                lease.view[:] = bytes([number]) * lease.view.nbytes
                if bytes(lease.view) != bytes([number]) * lease.view.nbytes:
                    failures.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool.allocated_bytes <= 64 * KiB
