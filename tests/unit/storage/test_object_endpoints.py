"""Several endpoints of one bucket: in turn, and around the one that fails."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from stub_s3 import StubServer

from stoker.core import clock
from stoker.core.errors import TransientError, UnavailableError, UsageError
from stoker.core.units import MiB
from stoker.storage.api import Store, SupportsMultipart, SupportsRequestCount, SupportsRetryCount
from stoker.storage.backends.object_clients import Client
from stoker.storage.backends.object_endpoints import Endpoint, Ring
from stoker.storage.batch import BatchRead, SupportsBatchRead
from stoker.storage.buffers import address_of, fresh_view
from stoker.storage.opening import open_store
from stoker.testing.store_contract import content


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StubServer, StubServer]]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with StubServer() as first, StubServer() as second:
        second.bucket.objects = first.bucket.objects
        yield first, second


def opened(servers: tuple[StubServer, ...], more: str = "") -> Store:
    return open_store(f"s3://bucket?endpoint={','.join(server.endpoint for server in servers)}{more}")


def told(store: Store) -> list[dict[str, int]]:
    assert isinstance(store, SupportsRequestCount)
    return list(store.endpoint_counts.values())


def test_requests_go_round_robin(servers: tuple[StubServer, StubServer]) -> None:
    store = opened(servers)
    for number in range(10):
        store.put(str(number), bytes([number]))
    for number in range(10):
        assert bytes(store.get_range(str(number))) == bytes([number])
    for server, counted in zip(servers, told(store), strict=True):
        assert len(server.bucket.asked) == counted["requests"] == 10
        assert sum(asked.startswith("PUT") for asked in server.bucket.asked) == 5


def test_a_batch_uses_all_endpoints(servers: tuple[StubServer, StubServer]) -> None:
    data = content(1_000)
    servers[0].bucket.objects.update({str(number): data for number in range(20)})
    store = opened(servers)
    assert isinstance(store, SupportsBatchRead)
    reader = store.batch_reader()
    assert reader is not None
    into = fresh_view(20_000)
    rows = [(number, 0, 1000, 1000, address_of(into) + 1000 * number) for number in range(20)]
    reader.read(BatchRead([str(number) for number in range(20)], np.array(rows, np.int64)))
    assert into == data * 20
    assert [len(server.bucket.asked) for server in servers] == [10, 10]
    assert reader.chosen["endpoints"] == 2


def test_one_that_is_down_is_left_out(servers: tuple[StubServer, StubServer], monkeypatch: pytest.MonkeyPatch) -> None:
    with StubServer() as gone:
        pass
    store = opened((servers[0], gone), "&retry_attempts=1")
    for number in range(10):
        store.put(str(number), b"x")
        assert bytes(store.get_range(str(number))) == b"x"
    healthy, failing = told(store)
    assert (healthy, failing) == ({"requests": 20, "failures": 0}, {"requests": 1, "failures": 1})
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 1, "what is made again elsewhere is counted"


def test_one_that_answers_with_failures_is_left_out(servers: tuple[StubServer, StubServer]) -> None:
    servers[1].bucket.failures = 99
    servers[0].bucket.objects["object"] = b"abc"
    store = opened(servers)
    for _ in range(10):
        assert bytes(store.get_range("object")) == b"abc"
    assert len(servers[1].bucket.asked) == 1


def test_when_all_fail_each_is_named(servers: tuple[StubServer, StubServer]) -> None:
    for server in servers:
        server.bucket.failures = 99
    with pytest.raises(UnavailableError) as caught:
        opened(servers, "&retry_attempts=2").stat("object")
    for server in servers:
        assert f"{server.endpoint}: status 503" in str(caught.value)


def test_a_body_that_breaks_off_is_fetched_elsewhere(servers: tuple[StubServer, StubServer]) -> None:
    data = content(100_000)
    servers[0].bucket.objects["object"] = data
    servers[0].bucket.cut_bodies = 99
    store = opened(servers)
    for _ in range(4):
        assert bytes(store.get_range("object")) == data
    assert told(store)[0]["failures"] == 1


def test_a_conditional_put_is_not_made_twice_unseen(servers: tuple[StubServer, StubServer]) -> None:
    servers[0].bucket.failures = 1
    store = opened(servers)
    store.put("object", b"abc", if_absent=True)
    assert servers[0].bucket.objects == {"object": b"abc"}
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 1


def test_an_upload_in_parts_stays_at_one_endpoint(servers: tuple[StubServer, StubServer]) -> None:
    store = opened(servers, "&part_bytes=5MiB")
    assert isinstance(store, SupportsMultipart)
    store.put_parts("object", iter([bytes(MiB)] * 12))
    assert servers[0].bucket.objects["object"] == bytes(12 * MiB)
    assert [len(server.bucket.parts) for server in servers] in ([3, 0], [0, 3])


@pytest.mark.parametrize(
    "text",
    ["", "host:9000", "ftp://host", "http://", "http://a,,http://b", "http://a,http://a/", "http://user:canary@host"],
)
def test_what_is_no_list_of_addresses_is_refused(servers: tuple[StubServer, StubServer], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(f"s3://bucket?endpoint={text}")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["http://host:99999", "http://host?x=1", "http://host%23x"])
def test_addresses_with_anything_else_in_them_are_refused(servers: tuple[StubServer, StubServer], text: str) -> None:
    with pytest.raises(UsageError):
        open_store(f"s3://bucket?endpoint={text}")


def test_azure_takes_several_endpoints_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VjcmV0")
    store = open_store(
        "az://container?endpoint=http://127.0.0.1:9/account,http://127.0.0.1:19/account&retry_attempts=1"
    )
    with pytest.raises(TransientError, match=r"127.0.0.1:9.*127.0.0.1:19|127.0.0.1:19.*127.0.0.1:9"):
        store.stat("object")


# whose turn it is


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(clock, "monotonic_ns", lambda: int(self.seconds * 1e9))


def ring_of(client: Client, count: int) -> tuple[Ring, list[Endpoint]]:
    endpoints = [Endpoint(f"http://{number}", client, client) for number in range(count)]
    return Ring(endpoints), endpoints


@pytest.fixture
def client(servers: tuple[StubServer, StubServer]) -> Client:
    from obstore.store import S3Store

    return S3Store("bucket")


def test_the_pause_of_a_failing_endpoint_doubles_to_a_minute(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    ring, (bad, _) = ring_of(client, 2)
    pauses = []
    for _ in range(6):
        ring.failed(bad)
        started = time.seconds
        while all(ring.turn()[0] is not bad for _ in range(2)):
            time.seconds += 1
        pauses.append(time.seconds - started)
    assert pauses == [5, 10, 20, 40, 60, 60]
    ring.worked(bad)
    ring.failed(bad)
    time.seconds += 5
    assert bad in (ring.turn()[0], ring.turn()[0]), "an answer makes the next pause short again"


def test_failures_of_requests_under_way_together_are_one(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    ring, (bad, good) = ring_of(client, 2)
    for _ in range(10):
        ring.failed(bad)
    assert ring.turn() == (good, bad), "the one that is out comes last, and is not forgotten"
    time.seconds += 5
    assert bad in (ring.turn()[0], ring.turn()[0])
    assert ring.counts["http://0"]["failures"] == 10


def test_the_healthy_ones_share_evenly(client: Client) -> None:
    ring, endpoints = ring_of(client, 3)
    ring.failed(endpoints[0])
    first = [ring.turn()[0] for _ in range(10)]
    assert [first.count(endpoint) for endpoint in endpoints] == [0, 5, 5]


def test_when_all_are_out_the_one_back_soonest_is_tried_first(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    ring, endpoints = ring_of(client, 3)
    for number in (2, 0, 1):
        ring.failed(endpoints[number])
        time.seconds += 1
    assert ring.turn() == (endpoints[2], endpoints[0], endpoints[1])
