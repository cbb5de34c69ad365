"""Reading in order over real sockets: what is passed is let go of, and memory is used again, but never while seen."""

import gc
import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from chunk_places import VOLUME, Served
from client_place import Clients
from fs_cluster import CLASSES, PAIR, SINGLE, content, written
from fs_place import Place

from stoker.core.units import KiB, MiB
from stoker.fs.client import Client, ClientOptions, FileTree
from stoker.fs.client.blocks import BlockCache
from stoker.fs.client.readahead import STEP_BYTES, Readahead, steps
from stoker.fs.cluster import ClusterStore, ThreadLanes
from stoker.fs.disk.interface import Bytes
from stoker.fs.meta.calls import READ
from stoker.fs.meta.slices import Slice
from stoker.fs.place import Disk as MapDisk
from stoker.fs.place import new_map
from stoker.fs.store.interface import SliceRange
from stoker.fs.wire import connection


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClusterStore]:
    """A store over three disks behind sockets."""
    with ExitStack() as held:
        disks = [held.enter_context(Served(tmp_path / f"disk{number}")) for number in range(3)]
        made = new_map([MapDisk(number, 100, f"h{number}") for number in range(3)], [PAIR, SINGLE])
        targets = [served.target for served in disks]
        opened = ClusterStore(VOLUME, lambda: made, targets.__getitem__, CLASSES.__getitem__, ThreadLanes(8))
        held.callback(opened.close)
        yield opened


def test_the_first_step_is_four_reads_and_far_ones_end_with_a_slice() -> None:
    ahead = Readahead(32 * MiB)
    fetched = [step for place in range(64) if (step := ahead.step(place * MiB, MiB))[1]]
    assert fetched[:3] == [(MiB, 4 * MiB), (4 * MiB, 8 * MiB), (8 * MiB, 16 * MiB)]
    assert ahead.steady
    ahead.step(0, MiB)
    assert not ahead.steady
    assert all(before[1] == after[0] for before, after in pairwise(fetched))
    assert len(fetched) <= 8
    assert all(stop % STEP_BYTES == 0 for _, stop in fetched[2:])
    assert list(steps(3 * MiB, 17 * MiB)) == [(3 * MiB, 8 * MiB), (8 * MiB, 16 * MiB), (16 * MiB, 17 * MiB)]
    assert list(steps(5, 5)) == []


@pytest.mark.parametrize("most_mib", [1, 3, 5, 32])
def test_never_more_is_fetched_ahead_than_was_allowed(most_mib: int) -> None:
    rng = random.Random(most_mib)
    ahead, place, reached = Readahead(most_mib * MiB), 0, 0
    for _ in range(2000):
        size = rng.choice((4 * KiB, 128 * KiB, MiB, 3 * MiB))
        start, stop = ahead.step(place, size)
        place += size
        if stop:
            assert start == max(reached, place)  # nothing twice, nothing left out
            assert stop <= place + most_mib * MiB
            reached = stop


def test_what_is_put_aside_is_little_and_goes_first() -> None:
    cache = BlockCache(160 * KiB)
    blocks = {(Slice(number, 0, 4 * KiB), 0): bytes(4 * KiB) for number in range(40)}
    cache.put_all(blocks)
    first = list(blocks)[:8]
    cache.put_aside(first)
    assert cache.held_bytes == (32 + 2) * 4 * KiB  # a sixteenth of all, 10 KiB, is kept of what was put aside
    assert [key in cache for key in first] == [False] * 6 + [True] * 2
    assert cache.get(first[7]) is not None  # a reader who comes back at once
    more = {(Slice(number, 0, 4 * KiB), 0): bytes(4 * KiB) for number in range(100, 108)}
    cache.put_all(more)
    assert not any(key in cache for key in first) and all(key in cache for key in list(blocks)[8:][2:])
    assert cache.held_bytes == 160 * KiB
    cache.put((Slice(1, 0, 4 * KiB), 0), bytes(4 * KiB))
    cache.clear()
    assert cache.held_bytes == 0 and cache.get(first[7]) is None


@pytest.mark.parametrize(("cache_mib", "kept"), [(64, True), (24, False)])
def test_a_file_that_stays_whole_is_kept_and_of_a_larger_one_little(cache_mib: int, kept: bool) -> None:
    with ExitStack() as held:
        clients = Clients()
        held.callback(clients.close)
        data = os.urandom(20 * MiB)
        ino = FileTree(clients.client()).write_bytes("/f", data).ino
        one = clients.client(cache_bytes=cache_mib * MiB, readahead_bytes=8 * MiB)
        handle = one.open(ino, READ)
        assert b"".join(bytes(handle.read(at, MiB)) for at in range(0, len(data), MiB)) == data
        left_bytes, fetched_bytes = one.counters()["memory_bytes"], one.counters()["fetched_bytes"]
        assert fetched_bytes == len(data)
        assert left_bytes == len(data) if kept else left_bytes < 12 * MiB  # before it was known to read in order
        assert b"".join(bytes(handle.read(at, MiB)) for at in range(0, len(data), MiB)) == data
        assert (one.counters()["fetched_bytes"] == fetched_bytes) is kept
        handle.close()


def test_parts_that_somebody_holds_never_change_while_the_cache_churns(store: ClusterStore) -> None:
    """Hold parts of what was read, while much more is read through the same memory, by several threads."""
    slices = [Slice(number, 1, 300 * KiB + number, PAIR.id) for number in range(1, 41)]
    written(store, *slices)
    truth = {data: content(data) for data in slices}
    failures: list[str] = []

    def reader(seed: int) -> None:
        rng = random.Random(seed)
        held: list[tuple[bytes, Bytes]] = []
        for _ in range(120):
            data = rng.choice(slices)
            start = rng.randrange(data.size_bytes - 1)
            length = rng.randrange(1, data.size_bytes - start)
            (part,) = store.read([SliceRange(data, start, length)])
            view = memoryview(part)
            cut = rng.randrange(length)
            held.append((truth[data][start + cut : start + length], view[cut:]))
            if len(held) > 12:
                del held[rng.randrange(len(held))]
            del part, view
            if any(bytes(seen) != told for told, seen in held):
                failures.append(f"seed {seed}: what was held has changed")

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures


def test_a_file_read_in_order_uses_its_memory_again_without_the_collector(
    store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed comes back at once: nothing that waited for it keeps it in a circle of references."""
    buffers = Noting()
    monkeypatch.setattr(connection, "_buffers", buffers)
    data = os.urandom(40 * MiB)
    place = Place()
    with ExitStack() as held:
        held.callback(place.volume.close)
        options = ClientOptions(cache_bytes=16 * MiB, readahead_bytes=4 * MiB)
        client = held.enter_context(Client(place.volume, store, options))
        FileTree(client).write_bytes("/f", data)
        held.callback(gc.enable)
        gc.disable()
        with FileTree(client).open("/f") as file:
            got = bytearray(MiB)
            for at in range(0, len(data), MiB):
                assert file.readinto(got) == MiB and got == data[at : at + MiB]
    assert buffers.given_bytes >= len(data)
    assert sum(buffers.places.values()) <= 20 * MiB  # read ahead, on its way, just passed


class Noting(connection.GivenBuffers):
    """Notes which memory was given, and how much of it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[int, int] = {}
        self.given_bytes = 0

    def give(self, count: int) -> memoryview:
        given = super().give(count)
        self.given_bytes += count
        if count:
            where = int(np.frombuffer(given, np.uint8).__array_interface__["data"][0])
            self.places[where] = max(count, self.places.get(where, 0))
        return given
