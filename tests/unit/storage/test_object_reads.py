"""Single reads of object stores: one GET for a short one, parts side by side for a long one, and never a HEAD."""

import os
from collections.abc import Iterator

import pytest
from stub_s3 import StubServer

from stoker.core.errors import ShortReadError, StoreError, UnavailableError
from stoker.core.units import KiB, MiB
from stoker.storage.api import Store, SupportsMultipart, SupportsRequestCount, SupportsRetryCount, SupportsWireCount
from stoker.storage.buffers import fresh_view
from stoker.storage.opening import open_store
from stoker.testing.store_contract import content

PARTS = "s3://bucket?request_bytes=10KiB&queue_depth=4"
DATA = content(64 * KiB + 7)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with StubServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        server.bucket.objects["object"] = DATA
        yield server


def counts(store: Store) -> dict[str, int]:
    assert isinstance(store, SupportsRequestCount)
    return {kind: number for kind, number in store.request_counts.items() if number}


def received(store: Store) -> int:
    assert isinstance(store, SupportsWireCount)
    return store.received_body_bytes


@pytest.mark.parametrize("length", [None, len(DATA)])
def test_a_long_read_is_made_of_parts_side_by_side(server: StubServer, length: int | None) -> None:
    server.bucket.pause_seconds = 0.05
    store = open_store(PARTS)
    assert bytes(store.get_range("object", 0, length)) == DATA
    assert counts(store) == {"get_range": 7}
    assert 2 <= server.bucket.under_way_max <= 4
    assert received(store) == len(DATA), "no byte is fetched twice"


def test_a_read_as_long_as_a_request_is_one_request(server: StubServer) -> None:
    store = open_store("s3://bucket?request_bytes=64KiB")
    into = fresh_view(64 * KiB)
    assert store.get_into("object", 7, into) == 64 * KiB
    assert into == DATA[7:]
    assert server.bucket.ranges == ["object bytes=7-65542"]


def test_a_read_in_small_pieces_is_two_requests(server: StubServer) -> None:
    store = open_store(PARTS)
    got = bytearray(len(DATA))
    with store.open_read("object") as reader:
        for start in range(0, len(DATA), 1000):
            reader.read_into(memoryview(got)[start : start + 1000])
    assert got == DATA
    assert server.bucket.ranges == ["object bytes=0-10239", "object bytes=10240-65542"]
    assert received(store) == len(DATA)


def test_small_and_large_pieces_may_alternate(server: StubServer) -> None:
    store = open_store(PARTS)
    got, at = bytearray(len(DATA) - 5), 0
    with store.open_read("object", offset_bytes=5) as reader:
        for length in (1, 30_000, 9_000, 0, 26_000, 542 - 5):
            reader.read_into(memoryview(got)[at : at + length])
            at += length
        with pytest.raises(ShortReadError):
            reader.read_into(memoryview(bytearray(1)))
    assert at == len(got)
    assert got == DATA[5:]


def test_no_read_asks_for_the_size_first(server: StubServer) -> None:
    server.bucket.objects["empty"] = b""
    store = open_store(PARTS)
    for key in ("object", "empty"):
        data = server.bucket.objects[key]
        assert bytes(store.get_range(key)) == data
        with store.open_read(key) as reader:
            reader.read_into(fresh_view(reader.range_bytes))
    store.get_into("object", 100, fresh_view(20_000))
    assert "head" not in counts(store)
    assert not any(asked.startswith("HEAD") for asked in server.bucket.asked)


def test_a_part_that_fails_is_fetched_again_alone(server: StubServer) -> None:
    server.bucket.fail_ranges = {"bytes=19458-28675": 1, "bytes=37894-47111": 1}
    store = open_store(PARTS)
    assert bytes(store.get_range("object")) == DATA
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 1, "a round for all that failed together"
    assert counts(store) == {"get_range": 9}
    assert received(store) == len(DATA)


def test_parts_that_break_off_are_fetched_again(server: StubServer) -> None:
    server.bucket.cut_bodies = 4
    store = open_store(PARTS)
    assert bytes(store.get_range("object")) == DATA
    assert bytes(open_store("s3://bucket").get_range("object")) == DATA


def test_a_stream_that_breaks_off_goes_on_where_it_broke(server: StubServer) -> None:
    data = content(3 * MiB)
    server.bucket.objects["object"] = data
    server.bucket.cut_bodies = 1
    store = open_store("s3://bucket")
    assert bytes(store.get_range("object")) == data
    first, second = server.bucket.ranges
    start = int(second.partition("=")[2].partition("-")[0])
    assert first == "object bytes=0-8388607"
    assert 0 < start < len(data)


def test_an_object_that_is_replaced_between_parts_is_an_error(server: StubServer) -> None:
    def replace(key: str) -> None:
        server.bucket.objects[key] = bytes(len(DATA))

    server.bucket.on_get = replace
    with pytest.raises(StoreError, match="object changed while it was read"):
        open_store(PARTS).get_range("object")


def test_an_object_that_is_replaced_between_pieces_is_an_error(server: StubServer) -> None:
    with open_store(PARTS).open_read("object") as reader:
        reader.read_into(fresh_view(10 * KiB))
        server.bucket.objects["object"] = b"x" + DATA[1:]
        with pytest.raises(StoreError, match="object changed while it was read"):
            reader.read_into(fresh_view(10))


def test_a_range_beyond_the_end_is_an_error_and_no_parts_are_fetched(server: StubServer) -> None:
    store = open_store(PARTS)
    with pytest.raises(ShortReadError, match="beyond the object's end"):
        store.get_range("object", 0, len(DATA) + 1)
    assert counts(store) == {"get_range": 1}


def test_parts_that_never_come_are_unavailable(server: StubServer) -> None:
    server.bucket.fail_ranges = {"bytes=10240-19457": 99}
    with pytest.raises(UnavailableError):
        open_store(PARTS + "&retry_attempts=2").get_range("object")


# writing


def test_no_more_parts_travel_at_once_than_allowed(server: StubServer) -> None:
    server.bucket.pause_seconds = 0.05
    data = bytes(32 * MiB)
    store = open_store("s3://bucket?part_bytes=5MiB&part_concurrency=2")
    store.put("new", data)
    assert server.bucket.objects["new"] == data
    assert server.bucket.under_way_max == 2
    assert counts(store) == {"multipart_part": 7, "multipart_control": 2, "head": 1}


def test_parts_are_made_only_as_fast_as_they_travel(server: StubServer) -> None:
    server.bucket.pause_seconds = 0.05
    made: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(16):
            made.append(number - len(server.bucket.parts))
            yield bytes(5 * MiB)

    store = open_store("s3://bucket?part_bytes=5MiB&part_concurrency=2")
    assert isinstance(store, SupportsMultipart)
    store.put_parts("new", parts())
    assert len(server.bucket.objects["new"]) == 80 * MiB
    assert max(made) <= 5, "two travel, and the client holds some ready"


# counting


def test_every_kind_of_request_is_counted_as_the_server_sees_it(server: StubServer) -> None:
    store = open_store("s3://bucket?coalesce_bytes=0")
    store.put("a", b"x")
    store.put("a/b", b"x", if_absent=True)
    store.stat("a")
    store.get_range("a")
    store.get_range("object", 3, 4)
    store.delete("a")
    told = counts(store)
    assert told == {"put": 2, "head": 1, "get_range": 2, "delete": 1}
    assert sum(told.values()) == len(server.bucket.asked)
    assert isinstance(store, SupportsRequestCount)
    assert store.endpoint_counts == {"default": {"requests": 6, "failures": 0}}


def test_requests_that_fail_are_counted_too(server: StubServer) -> None:
    server.bucket.failures = 2
    store = open_store("s3://bucket")
    store.stat("object")
    assert counts(store) == {"head": 3}
    assert isinstance(store, SupportsRequestCount)
    assert store.endpoint_counts == {"default": {"requests": 3, "failures": 2}}
