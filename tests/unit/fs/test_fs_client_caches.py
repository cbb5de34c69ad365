"""Caches and reading ahead, told by their counters."""

import random
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from client_place import Clients

from stoker.core.errors import StoreError, TransientError
from stoker.fs.client import FileTree
from stoker.fs.client.blocks import BlockCache
from stoker.fs.client.counters import Counters
from stoker.fs.client.diskcache import DiskCache
from stoker.fs.client.places import add_disk_cache
from stoker.fs.client.readahead import Readahead
from stoker.fs.meta import MetaError
from stoker.fs.meta.calls import READ
from stoker.fs.meta.slices import Slice

KIB = 1024


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_blocks_are_fetched_once_and_the_least_used_go_first(clients: Clients) -> None:
    data = content(64 * KIB)
    ino = FileTree(clients.client()).write_bytes("/f", data).ino
    one = clients.client(block_bytes=4 * KIB, cache_bytes=16 * KIB, readahead_bytes=0)
    handle = one.open(ino, READ)
    for at, size in ((0, 100), (50, 4 * KIB), (100, 10), (4 * KIB, 4 * KIB)):
        assert bytes(handle.read(at, size)) == data[at : at + size]
    facts = one.counters()
    assert (facts["memory_misses"], facts["memory_hits"], facts["fetched_bytes"]) == (2, 3, 8 * KIB)
    for block in (2, 3, 0, 4):  # 0 was used last, so 1 goes
        handle.read(block * 4 * KIB, 1)
    assert one.counters()["memory_bytes"] == 16 * KIB
    misses = one.counters()["memory_misses"]
    handle.read(0, 1)
    assert one.counters()["memory_misses"] == misses
    handle.read(4 * KIB, 1)
    assert one.counters()["memory_misses"] == misses + 1
    handle.close()


def test_a_cache_never_holds_more_than_its_bytes() -> None:
    cache = BlockCache(100)
    rng = random.Random(5)
    for number in range(500):
        cache.put((Slice(rng.randrange(20), 0, 999), 0), bytes(rng.randrange(1, 120)))
        assert cache.held_bytes <= 100
        assert cache.held_bytes == sum(len(block) for block in cache._blocks.values()), number


def test_what_several_want_at_once_is_fetched_once_and_a_failure_is_its_own(clients: Clients) -> None:
    ino = FileTree(clients.client()).write_bytes("/f", content(10 * KIB)).ino
    one = clients.client(block_bytes=16 * KIB, readahead_bytes=0)
    clients.store.calls.clear()
    clients.store.gate = threading.Event()
    failures = [StoreError("the first fails")]
    clients.store.fault = lambda verb: failures.pop() if verb == "read" and failures else None
    got: list[object] = []

    def work() -> None:
        handle = one.open(ino, READ)
        try:
            got.append(bytes(handle.read(0, 10 * KIB)))
        except MetaError as error:
            got.append(error.errno)
        handle.close()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    while sum(one.counters()[name] for name in ("shared_reads", "memory_misses")) < 5:
        threads[0].join(0.01)
    clients.store.gate.set()
    for thread in threads:
        thread.join(30)
    assert sorted(got, key=str) == sorted([5, *[content(10 * KIB)] * 4], key=str)
    facts = one.counters()
    assert (facts["memory_misses"], facts["shared_reads"]) == (1, 4)


def test_reading_ahead_doubles_for_who_reads_on_and_leaves_who_jumps_alone() -> None:
    ahead = Readahead(1 << 20)
    steps = [ahead.step(place * 4 * KIB, 4 * KIB) for place in range(400)]
    windows = [stop - (place + 1) * 4 * KIB for place, (start, stop) in enumerate(steps) if stop]
    assert windows[:5] == [(128 << number) * KIB for number in range(4)] + [1 << 20]
    fetched = [step for step in steps if step[1]]
    assert all(before[1] == after[0] for before, after in pairwise(fetched))  # nothing twice
    assert len(fetched) < 12
    rng = random.Random(3)
    assert [ahead.step(rng.randrange(1, 1000) * 999, 100) for _ in range(50)] == [(0, 0)] * 50
    ahead.step(5000, 1000)
    assert ahead.step(6000, 1000) == (7000, 7000 + 128 * KIB)
    assert Readahead(0).step(0, 10) == (0, 0)


def test_a_sequential_reader_finds_what_was_read_ahead(clients: Clients) -> None:
    data = content(3 << 20)
    ino = FileTree(clients.client()).write_bytes("/f", data).ino
    one = clients.client(block_bytes=64 * KIB)
    handle = one.open(ino, READ)
    assert b"".join(bytes(handle.read(at, 64 * KIB)) for at in range(0, 3 << 20, 64 * KIB)) == data
    facts = one.counters()
    assert facts["memory_misses"] == 1
    assert facts["fetched_bytes"] == 3 << 20
    assert facts["ahead_bytes"] == (3 << 20) - 64 * KIB
    handle.close()
    rng = random.Random(1)
    other = clients.client(block_bytes=64 * KIB)
    handle = other.open(ino, READ)
    for _ in range(10):
        handle.read(rng.randrange(1, 3 << 20), 100)
    assert other.counters()["ahead_bytes"] == 0
    handle.close()


def test_a_failure_to_read_ahead_is_nobodys(clients: Clients) -> None:
    ino = FileTree(clients.client()).write_bytes("/f", content(1 << 20)).ino
    one = clients.client(block_bytes=64 * KIB)
    handle = one.open(ino, READ)
    reads = [0]

    def fault(verb: str) -> TransientError | None:
        reads[0] += verb == "read"
        return TransientError("not now") if verb == "read" and reads[0] == 2 else None

    clients.store.fault = fault
    assert bytes(handle.read(0, 64 * KIB)) == content(1 << 20)[: 64 * KIB]
    assert bytes(handle.read(64 * KIB, 64 * KIB)) == content(1 << 20)[64 * KIB : 128 * KIB]
    handle.close()


def test_extents_are_asked_for_once_while_they_are_believed(clients: Clients) -> None:
    ino = FileTree(clients.client()).write_bytes("/f", content(1000)).ino
    one = clients.client(attribute_seconds=2.0, readahead_bytes=0)
    handle = one.open(ino, READ)
    for _ in range(5):
        handle.read(0, 10)
    assert (one.counters()["extent_misses"], one.counters()["extent_hits"]) == (0, 5)
    clients.wait(3)
    handle.read(0, 10)  # the attributes are asked for; the version is the same, so the extents are still true
    assert one.counters()["extent_misses"] == 0
    FileTree(clients.client()).write_bytes("/f", content(1000, seed=2))
    clients.wait(3)
    assert bytes(handle.read(0, 10)) == content(1000, seed=2)[:10]
    assert one.counters()["extent_misses"] == 1
    handle.close()


def test_names_and_attributes_are_believed_for_a_while_and_what_one_does_oneself_is_seen_at_once(
    clients: Clients,
) -> None:
    one, two = clients.client(entry_seconds=5.0), clients.client()
    mine, other = FileTree(one), FileTree(two)
    assert not mine.exists("/f")
    other.write_bytes("/f", b"abc")
    assert not mine.exists("/f")  # that there is no such name is believed, too
    assert one.counters()["entry_hits"] == 2
    clients.wait(6)
    assert mine.stat("/f").attr.size_bytes == 3
    other.chmod("/f", 0o600)
    assert mine.stat("/f").attr.mode & 0o777 == 0o644
    mine.chmod("/f", 0o640)
    assert mine.stat("/f").attr.mode & 0o777 == 0o640
    with mine.open("/f", "ab") as file:
        file.write(b"d")
        assert mine.stat("/f").attr.size_bytes == 4
    assert mine.stat("/f").attr.size_bytes == 4
    misses = one.counters()["entry_misses"]
    assert mine.stat("/f").attr.size_bytes == 4
    assert one.counters()["entry_misses"] == misses
    mine.unlink("/f")
    assert not mine.exists("/f")
    assert other.listdir("/") == []


# -- on disk


def cache_in(folder: Path, capacity_bytes: int = 1 << 20, **options: float) -> DiskCache:
    return DiskCache(folder, "volume", 4096, capacity_bytes, Counters(), **options)


def test_blocks_on_disk_survive_a_restart_and_damage_is_dropped(clients: Clients, tmp_path: Path) -> None:
    data = content(20 * KIB)
    ino = FileTree(clients.client()).write_bytes("/f", data).ino
    for turn, (hits, fetched, dropped) in enumerate([(0, 20 * KIB, 0), (5, 0, 0), (3, 8 * KIB, 2), (5, 0, 0)]):
        one = clients.client(block_bytes=4 * KIB, readahead_bytes=0)
        add_disk_cache(one, tmp_path, 1 << 20)
        handle = one.open(ino, READ)
        assert bytes(handle.read(0, 20 * KIB)) == data
        handle.close()
        facts = one.counters()
        assert (facts["disk_hits"], facts["fetched_bytes"], facts["disk_dropped"]) == (hits, fetched, dropped), turn
        if turn == 1:
            files = sorted(path for path in tmp_path.rglob("*.*.*") if path.is_file())
            files[0].write_bytes(files[0].read_bytes()[:-7])  # torn
            raw = bytearray(files[1].read_bytes())
            raw[1000] ^= 1
            files[1].write_bytes(raw)


def test_the_folder_is_bounded_in_order_of_use_and_keeps_space_free(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 10 * 4124)
    for number in range(12):
        cache.put(Slice(number, 0, 4096), 0, bytes([number]) * 4096)
        cache.get(Slice(0, 0, 4096), 0, 4096)
    assert cache.held_bytes <= 10 * 4124
    there = [number for number in range(12) if cache.get(Slice(number, 0, 4096), 0, 4096) is not None]
    assert there == [0, *range(3, 12)]
    (tmp_path / "volume-4096" / "00" / "left.new").write_bytes(b"half")
    again = cache_in(tmp_path, 3 * 4124)
    assert not (tmp_path / "volume-4096" / "00" / "left.new").exists()
    assert again.held_bytes <= 3 * 4124
    full = cache_in(tmp_path / "full", free_ratio=1.1)
    full.put(Slice(1, 0, 4096), 0, bytes(4096))
    assert full.held_bytes == 0


def test_another_block_under_the_name_and_a_link_are_no_hits(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(Slice(1, 0, 4096), 0, b"a" * 4096)
    cache.put(Slice(257, 0, 4096), 0, b"b" * 4096)
    shelf = tmp_path / "volume-4096" / "01"
    (shelf / "1.0.0").write_bytes((shelf / "257.0.0").read_bytes())
    assert cache.get(Slice(1, 0, 4096), 0, 4096) is None
    cache.put(Slice(1, 0, 4096), 0, b"a" * 4096)
    target = tmp_path / "elsewhere"
    (shelf / "1.0.0").rename(target)
    (shelf / "1.0.0").symlink_to(target)
    assert cache.get(Slice(1, 0, 4096), 0, 4096) is None
    assert target.exists()
    assert cache.get(Slice(257, 0, 4096), 0, 4096) == b"b" * 4096
    assert cache.get(Slice(257, 1, 4096), 0, 4096) is None
