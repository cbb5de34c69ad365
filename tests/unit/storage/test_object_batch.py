"""Many ranges of many objects in one call, against a server that counts and misbehaves on purpose."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from stub_s3 import StubServer

from stoker.core.errors import (
    DeniedError,
    NotFoundError,
    StoreError,
    TransientError,
    UnavailableError,
    UsageError,
)
from stoker.core.units import KiB, MiB
from stoker.kernels.files import (
    DONE_CACHED_BYTES,
    DONE_ENDED_NS,
    DONE_READ_BYTES,
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_OPENED_NS,
    FILE_SIZE_BYTES,
    FILE_STARTED_NS,
    FILE_STATUS,
    STATUS_GOOD,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
)
from stoker.storage.api import Store, SupportsRequestCount, SupportsRetryCount, SupportsWireCount
from stoker.storage.batch import BatchRead, BatchReader, SupportsBatchRead
from stoker.storage.buffers import address_of, fresh_view
from stoker.storage.opening import open_store
from stoker.testing.store_contract import content

Wanted = tuple[str, int, int]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with StubServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


class Read:
    """A batch, the memory it reads into, and what came of it."""

    def __init__(self, reader: BatchReader, wanted: Sequence[Wanted]) -> None:
        keys = list(dict.fromkeys(key for key, _, _ in wanted))
        self.memory = fresh_view(sum(length for _, _, length in wanted) + 1)
        self.memory[:] = b"\xee" * self.memory.nbytes
        rows, at = [], 0
        for key, offset, length in wanted:
            rows.append((keys.index(key), offset, length, length, address_of(self.memory) + at))
            at += length
        self.reader = reader
        self.batch = BatchRead(keys, np.array(rows, np.int64).reshape(-1, 5))
        reader.read(self.batch)

    def data(self, index: int) -> bytes:
        lengths = self.batch.ranges[:, 2].tolist()
        start = sum(lengths[:index])
        return bytes(self.memory[start : start + lengths[index]])

    def statuses(self) -> list[int]:
        return [int(status) for status in self.batch.ranges_done[:, DONE_STATUS]]

    def error(self, index: int) -> StoreError:
        error = self.reader.error(self.batch, index)
        assert isinstance(error, StoreError)
        return error


def reader_of(store: Store) -> BatchReader:
    assert isinstance(store, SupportsBatchRead)
    reader = store.batch_reader()
    assert reader is not None
    return reader


def counts(store: Store) -> dict[str, int]:
    assert isinstance(store, SupportsRequestCount)
    return {kind: number for kind, number in store.request_counts.items() if number}


def test_every_range_arrives_where_it_was_wanted(server: StubServer) -> None:
    objects = {f"folder/{number}": content(10_000 + number, seed=number) for number in range(40)}
    server.bucket.objects.update(objects)
    store = open_store("s3://bucket/folder")
    wanted = [(str(number), number, 9_000) for number in range(40)]
    read = Read(reader_of(store), wanted)
    assert read.statuses() == [STATUS_GOOD] * 40
    for index, (key, offset, length) in enumerate(wanted):
        assert read.data(index) == objects[f"folder/{key}"][offset : offset + length]
    assert read.memory[-1] == 0xEE, "nothing may be written behind what is wanted"
    assert counts(store) == {"get_range": 40}
    assert {asked.split()[0] for asked in server.bucket.asked} == {"GET"}, "no HEAD before a GET"


def test_what_was_done_is_told_in_columns(server: StubServer) -> None:
    server.bucket.objects["object"] = content(1000)
    read = Read(reader_of(open_store("s3://bucket")), [("object", 10, 100)])
    about, done = read.batch.objects_done[0], read.batch.ranges_done[0]
    assert (about[FILE_STATUS], about[FILE_SIZE_BYTES]) == (STATUS_GOOD, 1000)
    assert (done[DONE_STATUS], done[DONE_READ_BYTES], done[DONE_CACHED_BYTES]) == (STATUS_GOOD, 100, -1)
    assert 0 < about[FILE_STARTED_NS] <= about[FILE_OPENED_NS] <= done[DONE_ENDED_NS]
    assert done[DONE_STARTED_NS] == about[FILE_STARTED_NS]


def test_a_long_range_is_fetched_in_parts_side_by_side(server: StubServer) -> None:
    data = content(100 * KiB + 1)
    server.bucket.objects["object"] = data
    server.bucket.pause_seconds = 0.05
    store = open_store("s3://bucket?request_bytes=10KiB&queue_depth=4")
    read = Read(reader_of(store), [("object", 0, len(data))])
    assert read.data(0) == data
    assert len(server.bucket.ranges) == 11
    assert 2 <= server.bucket.under_way_max <= 4
    assert read.batch.ranges_done[0, DONE_READ_BYTES] == len(data)


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(server: StubServer, depth: int) -> None:
    server.bucket.objects.update({str(number): b"x" * 10 for number in range(12)})
    server.bucket.pause_seconds = 0.01
    reader = reader_of(open_store(f"s3://bucket?queue_depth={depth}"))
    for _ in range(2):
        read = Read(reader, [(str(number), 0, 10) for number in range(12)])
        assert read.statuses() == [STATUS_GOOD] * 12
    assert server.bucket.under_way_max <= depth


def test_neighbouring_ranges_share_a_request(server: StubServer) -> None:
    data = content(100_000)
    server.bucket.objects["object"] = data
    store = open_store("s3://bucket?coalesce_bytes=1KiB")
    wanted = [("object", 5000, 2000), ("object", 0, 2000), ("object", 2500, 2000), ("object", 50_000, 10)]
    read = Read(reader_of(store), wanted)
    assert [read.data(index) for index in range(4)] == [data[offset : offset + size] for _, offset, size in wanted]
    assert sorted(server.bucket.ranges) == ["object bytes=0-6999", "object bytes=50000-50009"]
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == 7010, "the gaps were received, too"
    assert isinstance(store, SupportsRequestCount)
    assert store.gap_body_bytes == 1000


def test_ranges_that_overlap_or_repeat_are_fetched_each_for_itself(server: StubServer) -> None:
    data = content(10_000)
    server.bucket.objects["object"] = data
    wanted = [("object", 0, 3000), ("object", 1000, 500), ("object", 2000, 3000), ("object", 2000, 3000)]
    store = open_store("s3://bucket?coalesce_bytes=0")
    read = Read(reader_of(store), wanted)
    assert [read.data(index) for index in range(4)] == [data[offset : offset + size] for _, offset, size in wanted]
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == 9500, "what is claimed to be read was sent"


def test_never_is_more_than_twice_the_wanted_fetched(server: StubServer) -> None:
    server.bucket.objects["object"] = content(MiB)
    wanted = [("object", 20_000 * number, 100) for number in range(50)]
    store = open_store("s3://bucket?coalesce_bytes=64KiB")
    read = Read(reader_of(store), wanted)
    assert read.statuses() == [STATUS_GOOD] * 50
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == 5000


def test_an_empty_object_and_an_empty_range_are_good(server: StubServer) -> None:
    server.bucket.objects.update({"empty": b"", "object": b"abc"})
    store = open_store("s3://bucket")
    read = Read(reader_of(store), [("empty", 0, 0), ("object", 1, 0), ("object", 0, 3)])
    assert read.statuses() == [STATUS_GOOD] * 3
    assert read.batch.objects_done[:, FILE_SIZE_BYTES].tolist() == [0, 3]
    assert counts(store) == {"head": 1, "get_range": 1}, "only what nothing is wanted of is looked at"


def test_one_bad_range_does_not_spoil_the_others(server: StubServer) -> None:
    server.bucket.objects.update({"a": b"x" * 100, "b": b"y" * 100})
    store = open_store("s3://bucket?coalesce_bytes=0")
    reader = reader_of(store)
    wanted = [("a", 0, 100), ("a", 90, 11), ("missing", 0, 1), ("b", 200, 1), ("b", 0, 50), ("a/../b", 0, 1)]
    read = Read(reader, wanted)
    assert read.data(0) == b"x" * 100
    assert read.data(4) == b"y" * 50
    assert read.statuses()[0] == read.statuses()[4] == STATUS_GOOD
    assert read.statuses()[1] == read.statuses()[3] == STATUS_SHORT
    assert all(read.statuses()[index] > 0 for index in (2, 5))
    assert read.batch.objects_done[0, FILE_SIZE_BYTES] == 100
    assert isinstance(reader.error(read.batch, 5), UsageError)


@pytest.mark.parametrize(
    ("key", "offset", "length"), [("missing", 0, 1), ("object", 5, 96), ("object", 300, 5), ("object", 101, 0)]
)
def test_an_error_is_the_one_that_open_read_raises(server: StubServer, key: str, offset: int, length: int) -> None:
    server.bucket.objects["object"] = b"x" * 100
    store = open_store("s3://bucket")
    read = Read(reader_of(store), [(key, offset, length)])
    with pytest.raises(StoreError) as caught:
        store.open_read(key, offset_bytes=offset, length_bytes=length)
    assert type(read.error(0)) is type(caught.value)
    assert str(read.error(0)) == str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(403, DeniedError), (404, NotFoundError), (503, TransientError), (400, StoreError)]
)
def test_the_services_errors_become_ours(server: StubServer, status: int, kind: type[StoreError]) -> None:
    server.bucket.failures, server.bucket.failure_status, server.bucket.failure_body = 9, status, b""
    read = Read(reader_of(open_store("s3://bucket?retry_attempts=1")), [("object", 0, 5)])
    assert type(read.error(0)) is kind
    assert "s3://bucket/object" in str(read.error(0))
    assert read.batch.objects_done[0, FILE_STATUS] != STATUS_GOOD
    assert read.batch.objects_done[0, FILE_SIZE_BYTES] == -1


def test_an_error_is_told_only_for_what_failed_last(server: StubServer) -> None:
    server.bucket.objects["object"] = b"x" * 100
    for url in ("s3://bucket", "s3://bucket?retry_attempts=1"):
        reader = reader_of(open_store(url))
        first, second = Read(reader, [("missing", 0, 1)]), Read(reader, [("object", 0, 1)])
        for read in (first, second):
            with pytest.raises(UsageError, match="did not fail"):
                reader.error(read.batch, 0)


# repeating


def test_only_what_failed_is_read_again(server: StubServer) -> None:
    server.bucket.objects.update({str(number): bytes([number]) * (number + 10) for number in range(8)})
    server.bucket.fail_ranges = {"bytes=0-13": 2, "bytes=0-16": 1}
    store = open_store("s3://bucket")
    read = Read(reader_of(store), [(str(number), 0, number + 10) for number in range(8)])
    assert [read.data(number) for number in range(8)] == [bytes([number]) * (number + 10) for number in range(8)]
    assert read.statuses() == [STATUS_GOOD] * 8
    assert read.batch.objects_done[:, FILE_SIZE_BYTES].tolist() == [number + 10 for number in range(8)]
    assert len(server.bucket.ranges) == 8 + 3
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 3
    started, ended = read.batch.ranges_done[4, [DONE_STARTED_NS, DONE_ENDED_NS]]
    assert ended - started > 50_000_000, "the time goes from the first try to the last byte"


def test_a_body_that_is_cut_off_is_read_again(server: StubServer) -> None:
    data = content(100_000)
    server.bucket.objects["object"] = data
    server.bucket.cut_bodies = 1
    store = open_store("s3://bucket")
    read = Read(reader_of(store), [("object", 0, len(data))])
    assert read.data(0) == data
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 1


def test_when_the_tries_are_spent_the_service_is_unavailable(server: StubServer) -> None:
    server.bucket.objects.update({"good": b"x" * 10, "bad": b"x" * 11})
    server.bucket.fail_ranges = {"bytes=0-10": 99}
    read = Read(reader_of(open_store("s3://bucket?retry_attempts=2")), [("good", 0, 10), ("bad", 0, 11)])
    assert read.statuses()[0] == STATUS_GOOD
    assert type(read.error(1)) is UnavailableError
    assert "2 times" in str(read.error(1))
    assert len(server.bucket.ranges) == 3


def test_an_object_that_is_replaced_midway_is_never_mixed(server: StubServer) -> None:
    old, new = b"a" * 40_000, b"b" * 40_000
    server.bucket.objects["object"] = old

    def replace(_: str) -> None:
        server.bucket.objects["object"] = new

    server.bucket.on_get = replace
    url = "s3://bucket?request_bytes=10KiB&queue_depth=1"
    read = Read(reader_of(open_store(f"{url}&retry_attempts=1")), [("object", 0, 40_000)])
    assert isinstance(read.error(0), TransientError)
    assert "object changed while it was read" in str(read.error(0))
    server.bucket.objects["object"] = old
    again = Read(reader_of(open_store(url)), [("object", 0, 40_000)])
    assert again.data(0) == new, "reading all of it again heals it"


# layers and processes


def test_a_prefix_is_put_before_each_key(server: StubServer) -> None:
    server.bucket.objects["a/b/object"] = b"0123456789"
    store = open_store("s3://bucket/a?prefix=b")
    reader = reader_of(store)
    read = Read(reader, [("object", 2, 3), ("missing", 0, 1)])
    assert read.data(0) == b"234"
    assert isinstance(read.error(1), NotFoundError)
    assert "a/b/missing" in str(read.error(1))
    with pytest.raises(UsageError):
        Read(reader, [("../object", 0, 1)])


@pytest.mark.parametrize("option", ["fail_ratio=0.5", "read_delay=1ms", "in_flight=2", "read_bytes_per_second=1GiB"])
def test_layers_that_must_see_each_read_offer_no_fast_lane(server: StubServer, option: str) -> None:
    store = open_store(f"s3://bucket?{option}&prefix=a")
    assert not isinstance(store, SupportsBatchRead) or store.batch_reader() is None


def test_a_local_store_behind_a_prefix_offers_what_it_has(tmp_path: Path) -> None:
    store = open_store("mem://batches?prefix=a&retry_attempts=2")
    assert isinstance(store, SupportsBatchRead)
    assert store.batch_reader() is not None
    shut = open_store("mem://batches?prefix=a&retry_attempts=2&in_flight=1")
    assert isinstance(shut, SupportsBatchRead)
    assert shut.batch_reader() is None


def test_settings_can_be_changed_but_not_those_of_the_url(server: StubServer) -> None:
    free, pinned = (reader_of(open_store(f"s3://bucket{query}")) for query in ("", "?queue_depth=3&prefix=a"))
    for reader in (free, pinned):
        reader.tune(queue_depth=5, request_bytes=MiB)
    assert (free.chosen["queue_depth"], free.chosen["request_bytes"]) == (5, MiB)
    assert (pinned.chosen["queue_depth"], pinned.chosen["request_bytes"]) == (3, MiB)
    assert free.block_bytes == pinned.block_bytes == 1


def test_a_closed_reader_leaves_no_thread(server: StubServer) -> None:
    server.bucket.objects.update({str(number): b"x" for number in range(20)})
    server.bucket.pause_seconds = 0.005
    before = set(threading.enumerate())
    reader = reader_of(open_store("s3://bucket"))
    Read(reader, [(str(number), 0, 1) for number in range(20)])
    own = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("stoker-object")]
    assert own
    for _ in range(2):
        reader.close()
    assert not any(thread.is_alive() for thread in own)


@pytest.mark.parametrize(
    "rows",
    [
        [(1, 0, 1, 1, 4096)],
        [(0, -1, 1, 1, 4096)],
        [(0, 0, 2, 1, 4096)],
        [(0, 0, 1, 1, 0)],
        [(0, 2**63 - 2, 5, 5, 4096)],
        [(0, 0, 1, 1)],
    ],
)
def test_columns_that_cannot_be_are_refused(server: StubServer, rows: list[tuple[int, ...]]) -> None:
    reader = reader_of(open_store("s3://bucket"))
    with pytest.raises(UsageError):
        reader.read(BatchRead(["object"], np.array(rows, np.int64)))
    assert server.bucket.asked == []


def test_ranges_out_of_order_are_refused(server: StubServer) -> None:
    reader = reader_of(open_store("s3://bucket"))
    rows = np.array([(1, 0, 1, 1, 4096), (0, 0, 1, 1, 4096)], np.int64)
    with pytest.raises(UsageError, match="order"):
        reader.read(BatchRead(["a", "b"], rows))


def test_an_object_of_which_no_range_is_asked_is_not_tried(server: StubServer) -> None:
    server.bucket.objects["b"] = b"x"
    reader = reader_of(open_store("s3://bucket"))
    memory = fresh_view(1)
    batch = BatchRead(["a", "b"], np.array([(1, 0, 1, 1, address_of(memory))], np.int64))
    reader.read(batch)
    assert batch.objects_done[:, FILE_STATUS].tolist() == [STATUS_NOT_TRIED, STATUS_GOOD]
    empty = BatchRead([], np.zeros((0, 5), np.int64))
    reader.read(empty)
