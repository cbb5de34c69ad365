"""Arenas in huge pages: where the kernel gives them, and that everything holds where it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.core.units import KiB, MiB
from stoker.pages import OutOfSpace, Store
from stoker.pages.arena.layout import HUGE_BYTES, RETIRED_BYTES, plan_geometry

SHMEM_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
# Writes pages and reads them again; `none` has the kernel give this process no huge page. Prints their bytes.
WORK = """
import ctypes, sys
import numpy as np
from stoker.pages import Store
if sys.argv[1] == "none":
    assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0
rows = np.random.default_rng(1).integers(0, 256, (1024, 4096), np.uint8)
with Store.open(log_bytes=16 << 20) as store:
    ids = store.allocate_many([4096] * 1024)
    for turn in range(8):
        store.update_many(ids, rows + np.uint8(turn))
    assert all((store.read(page) == row + np.uint8(7)).all() for page, row in zip(ids.tolist(), rows))
    assert store.verify() == []
    held, wanted = False, hex(store.arena.mapping.address)[2:]
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            held = line.startswith(wanted)
        elif held and line.startswith("ShmemPmdMapped"):
            print(int(line.split()[1]) * 1024)
"""


def given(how: str) -> int:
    """Return the bytes of an arena that are mapped by huge pages in a process of its own."""
    done = subprocess.run([sys.executable, "-c", WORK, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


def kernel_gives() -> bool:
    """Tell whether the kernel makes huge pages of shared memory when it is asked to: from 6.1 on, unless denied."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return release >= (6, 1) and SHMEM_ENABLED.exists() and "[deny]" not in SHMEM_ENABLED.read_text()


@pytest.mark.skipif(not kernel_gives(), reason="the kernel gives no huge pages of shared memory")
def test_log_and_pages_lie_in_huge_pages() -> None:
    assert given("all") >= 16 * MiB + 4 * MiB


def test_without_huge_pages_everything_holds() -> None:
    assert given("none") == 0


def test_large_parts_begin_with_a_huge_page_and_small_ones_lie_close() -> None:
    large = plan_geometry(b"u" * 16, 1, data_bytes=HUGE_BYTES, page_slots=100, ring_bytes=HUGE_BYTES, flags=0)
    assert large.ring_offset % HUGE_BYTES == large.data_offset % HUGE_BYTES == 0
    small = plan_geometry(b"u" * 16, 1, data_bytes=MiB, page_slots=100, ring_bytes=64 * KiB, flags=0)
    assert small.ring_offset == small.retired_offset + small.retired_slots * RETIRED_BYTES
    assert small.data_offset == small.ring_offset + 64 * KiB


def test_memory_begins_where_a_huge_page_may() -> None:
    with Store.open(size_bytes=64 * KiB, log_bytes=64 * KiB) as store:
        assert store.arena.mapping.address % HUGE_BYTES == 0


def test_memory_between_the_parts_is_not_taken() -> None:
    with Store.open(size_bytes=4 * MiB, log_bytes=2 * MiB, pages_max=4096) as store:
        store.allocate(4 * KiB)
        with store.snapshot():
            taken = os.fstat(store.arena.mapping.descriptor).st_blocks * 512
        assert taken <= 2 * MiB + HUGE_BYTES + MiB


def test_last_bytes_of_an_arena_can_be_taken_and_no_more() -> None:
    size = HUGE_BYTES + 12 * KiB
    with Store.open(size_bytes=size, log_bytes=64 * KiB) as store:
        pages = [store.allocate(4 * KiB).id for _ in range(size // (4 * KiB))]
        with pytest.raises(OutOfSpace):
            store.allocate(4 * KiB)
        store.write(pages[-1], b"\1" * 4 * KiB)
        assert store.read(pages[-1]).all()
        assert not store.read(pages[-2]).any()
