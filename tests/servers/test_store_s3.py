"""`s3://` against a real server, SeaweedFS; looked at from outside through the client library directly."""

import itertools
import os
from pathlib import Path
from typing import Any

import obstore
import pytest
from batches import read_batch
from obstore.store import S3Store

from stoker.core.errors import DeniedError, NotFoundError
from stoker.core.units import MiB
from stoker.storage.api import Store, SupportsMultipart, SupportsRequestCount, SupportsWireCount
from stoker.storage.opening import open_store
from stoker.storage.submit import ReadRequest, read_many
from stoker.testing.store_contract import StoreContract, content

pytestmark = pytest.mark.server
_NUMBERS = itertools.count()
BUCKET = "stoker-tests"


@pytest.fixture(autouse=True)
def _environment(seaweedfs_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs_endpoint.variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def place() -> str:
    """Return `bucket/prefix`, new for each test, in one bucket: each bucket takes the server's volumes anew."""
    obstore.put(around(), "outside/the/prefix", b"x")
    return f"{BUCKET}/{os.getpid()}-{next(_NUMBERS)}"


def around() -> S3Store:
    """Return a client of our own to look around the store."""
    return S3Store(
        BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], region="us-east-1", client_options={"allow_http": True}
    )


class TestS3Store(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, place: str, _environment: None) -> None:
        self.client = around()
        self.place = place
        self.prefix = place.removeprefix(f"{BUCKET}/")

    def make_store(self, folder: Path) -> Store:
        return open_store(f"s3://{self.place}")

    def poke(self, store: Store, key: str, data: bytes) -> None:
        obstore.put(self.client, f"{self.prefix}/{key}", data)

    def peek(self, store: Store, key: str) -> bytes:
        return bytes(obstore.get(self.client, f"{self.prefix}/{key}").bytes())

    def raw_keys(self, store: Store) -> set[str]:
        pages = obstore.list(self.client, self.prefix)
        return {meta["path"].removeprefix(f"{self.prefix}/") for page in pages for meta in page}


class TestS3StoreInParts(TestS3Store):
    """The same, with every longer read in parts and every longer write, too."""

    def make_store(self, folder: Path) -> Store:
        return open_store(f"s3://{self.place}?request_bytes=64KiB&queue_depth=4&part_bytes=5MiB")


def test_a_batch_of_ranges_needs_one_get_each_and_no_head(place: str) -> None:
    store = open_store(f"s3://{place}?coalesce_bytes=0")
    objects = {f"object/{number}": content(20_000 + number, seed=number) for number in range(40)}
    for key, data in objects.items():
        store.put(key, data)
    wanted = [(key, number * 10, 10_000) for number, key in enumerate(objects)]
    got = read_batch(store, wanted)
    assert got == [objects[key][offset : offset + length] for key, offset, length in wanted]
    assert isinstance(store, SupportsRequestCount)
    assert {kind: number for kind, number in store.request_counts.items() if number} == {"put": 40, "get_range": 40}
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == 400_000


def test_a_batch_fetches_a_long_range_in_parts(place: str) -> None:
    data = content(3 * MiB + 17)
    store = open_store(f"s3://{place}?request_bytes=256KiB")
    store.put("object", data)
    assert read_batch(store, [("object", 5, 3 * MiB)]) == [data[5 : 5 + 3 * MiB]]


def test_requests_go_to_two_gateways_and_around_one_that_dies(
    place: str, seaweedfs_endpoint: Any, start_gateway: Any
) -> None:
    plain = open_store(f"s3://{place}")
    objects = {str(number): content(30_000, seed=number) for number in range(24)}
    for key, data in objects.items():
        plain.put(key, data)
    with start_gateway() as gateway:
        store = open_store(f"s3://{place}?endpoint={seaweedfs_endpoint.url},{gateway.url}")
        assert read_batch(store, [(key, 0, 30_000) for key in objects]) == list(objects.values())
        for key in list(objects)[:6]:
            store.put(f"new/{key}", objects[key])
            assert plain.get_range(f"new/{key}") == objects[key]
        assert isinstance(store, SupportsRequestCount)
        counted = store.endpoint_counts
        assert counted[gateway.url] == counted[seaweedfs_endpoint.url] == {"requests": 15, "failures": 0}
        seen = gateway.counted("SeaweedFS_s3_request_total")
        assert {labels: number for labels, number in seen.items() if "206" in labels} == {
            '{bucket="stoker-tests",code="206",type="GET"}': 12
        }
        assert sum(gateway.counted("SeaweedFS_s3_bucket_traffic_sent_bytes_total").values()) == 12 * 30_000
    assert read_batch(store, [(key, 0, 30_000) for key in objects]) == list(objects.values())
    for key, data in objects.items():
        assert store.get_range(key) == data
    assert store.endpoint_counts[seaweedfs_endpoint.url]["failures"] == 0
    assert 1 <= store.endpoint_counts[gateway.url]["failures"] <= 16, "left out after its first failures"


def test_a_missing_bucket_is_not_found(seaweedfs_endpoint: Any) -> None:
    store = open_store("s3://no-such-bucket")
    for action in (store.get_range, store.open_read):
        with pytest.raises(NotFoundError, match="no such bucket"):
            action("object")
    with pytest.raises(NotFoundError, match="no such bucket"):
        list(store.list())


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_denied_and_not_shown(place: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv(variable, "wrong")
    store = open_store(f"s3://{place}")
    for action in (store.get_range, store.stat, lambda key: store.put(key, b"x"), lambda key: list(store.list(key))):
        with pytest.raises(DeniedError) as caught:
            action("object")
        assert secret not in str(caught.value)


def test_parts_arrive_whole_and_in_order(place: str) -> None:
    data = content(17 * MiB + 3)
    store = open_store(f"s3://{place}?part_bytes=5MiB")
    assert isinstance(store, SupportsMultipart)
    info = store.put_parts("parts", (data[start : start + MiB] for start in range(0, len(data), MiB)))
    assert info == store.stat("parts")
    assert bytes(store.get_range("parts")) == data
    store.put("whole", data)
    assert bytes(store.get_range("whole", 16 * MiB)) == data[16 * MiB :]


def test_the_bytes_received_are_the_bytes_read(place: str) -> None:
    store = open_store(f"s3://{place}")
    for number in range(20):
        store.put(f"object/{number}", content(50_000 + number))
    results = list(read_many(store, [ReadRequest(f"object/{number}") for number in range(20)]))
    assert [result.error for result in results] == [None] * 20
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == sum(result.data.nbytes for result in results)


def test_faults_over_the_network_lose_no_object(place: str) -> None:
    plain = open_store(f"s3://{place}")
    for number in range(30):
        plain.put(f"object/{number:02}", content(1000 + number, seed=number))
    store = open_store(f"s3://{place}?fail_ratio=0.3&fault_seed=5&retry_attempts=10")
    results = list(read_many(store, [ReadRequest(f"object/{number:02}") for number in range(30)], ordered=True))
    assert [bytes(result.data) for result in results] == [content(1000 + n, seed=n) for n in range(30)]
    assert store.retry_count > 0
