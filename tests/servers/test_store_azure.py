"""`az://` against a real server, Azurite; looked at from outside through the client library directly."""

import itertools
import os
from pathlib import Path
from typing import Any

import obstore
import pytest
from azurite_blobs import make_container
from batches import read_batch
from obstore.store import AzureStore

from stoker.core.errors import DeniedError, NotFoundError, StoreError
from stoker.core.units import MiB
from stoker.storage.api import Store, SupportsMultipart, SupportsRequestCount
from stoker.storage.opening import open_store
from stoker.testing.store_contract import StoreContract, content

pytestmark = pytest.mark.server
_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _environment(azurite_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azurite_endpoint.variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def container(azurite_endpoint: Any) -> str:
    """Make a new container."""
    name = f"container-{os.getpid()}-{next(_NUMBERS)}"
    make_container(azurite_endpoint.url, name)
    return name


class TestAzureStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _container(self, container: str, azurite_endpoint: Any) -> None:
        self.container = container
        self.client = AzureStore(
            container,
            account_name=azurite_endpoint.variables["AZURE_STORAGE_ACCOUNT"],
            account_key=azurite_endpoint.variables["AZURE_STORAGE_KEY"],
            endpoint=azurite_endpoint.url,
            client_options={"allow_http": True},
        )

    def make_store(self, folder: Path) -> Store:
        return open_store(f"az://{self.container}/some/prefix")

    def poke(self, store: Store, key: str, data: bytes) -> None:
        obstore.put(self.client, f"some/prefix/{key}", data)

    def peek(self, store: Store, key: str) -> bytes:
        return bytes(obstore.get(self.client, f"some/prefix/{key}").bytes())

    def raw_keys(self, store: Store) -> set[str]:
        pages = obstore.list(self.client, "some/prefix")
        return {meta["path"].removeprefix("some/prefix/") for page in pages for meta in page}


def test_a_missing_container_is_not_found() -> None:
    store = open_store("az://no-such-container")
    actions = (store.get_range, store.delete, lambda key: store.put(key, b"x"), lambda key: list(store.list(key)))
    for action in actions:
        with pytest.raises(NotFoundError, match="no such bucket or container"):
            action("object")


def test_a_wrong_key_is_denied(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmcga2V5")
    with pytest.raises(DeniedError):
        open_store(f"az://{container}").get_range("object")


def test_a_connection_string_opens_the_container(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account, key, url = (os.environ[f"AZURE_STORAGE_{name}"] for name in ("ACCOUNT", "KEY", "ENDPOINT"))
    for name in ("ACCOUNT", "KEY", "ENDPOINT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}")
    text = f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint={url};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    store = open_store(f"az://{container}")
    store.put("object", b"abc")
    assert bytes(store.get_range("object")) == b"abc"


def test_a_name_that_is_too_short_is_told() -> None:
    with pytest.raises(StoreError, match="OutOfRangeInput"):
        list(open_store("az://c").list())


def test_blocks_arrive_whole_and_in_order(container: str) -> None:
    data = content(17 * MiB + 3)
    store = open_store(f"az://{container}?part_bytes=5MiB")
    assert isinstance(store, SupportsMultipart)
    info = store.put_parts("parts", (data[start : start + MiB] for start in range(0, len(data), MiB)))
    assert info == store.stat("parts")
    assert bytes(store.get_range("parts")) == data


class TestAzureStoreInParts(TestAzureStore):
    """The same, with every longer read in parts and every longer write, too."""

    def make_store(self, folder: Path) -> Store:
        return open_store(f"az://{self.container}/some/prefix?request_bytes=64KiB&queue_depth=4&part_bytes=5MiB")


def test_a_batch_of_ranges_needs_one_get_each_and_no_head(container: str) -> None:
    store = open_store(f"az://{container}?request_bytes=256KiB")
    objects = {f"object/{number}": content(20_000 + number, seed=number) for number in range(20)}
    objects["long"] = content(MiB)
    for key, data in objects.items():
        store.put(key, data)
    wanted = [(key, number * 10, 10_000) for number, key in enumerate(objects)]
    wanted[-1] = ("long", 0, MiB)
    got = read_batch(store, wanted)
    assert got == [objects[key][offset : offset + length] for key, offset, length in wanted]
    assert isinstance(store, SupportsRequestCount)
    assert {kind: number for kind, number in store.request_counts.items() if number} == {"put": 21, "get_range": 24}


def test_the_same_service_under_two_addresses_takes_turns(container: str, azurite_endpoint: Any) -> None:
    other = azurite_endpoint.url.replace("127.0.0.1", "localhost")
    store = open_store(f"az://{container}?endpoint={azurite_endpoint.url},{other}")
    for number in range(4):
        store.put(str(number), bytes([number]))
        assert bytes(store.get_range(str(number))) == bytes([number])
    assert isinstance(store, SupportsRequestCount)
    assert [counted["requests"] for counted in store.endpoint_counts.values()] == [4, 4]
