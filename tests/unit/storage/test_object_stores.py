"""Object stores without their services: credentials, silence, broken bodies, lost parts, forks, secrets.

Google Cloud Storage has no emulator among the tests' servers: only its opening and its credentials are tested here.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from stub_s3 import StubServer

from stoker.core.errors import (
    DeniedError,
    NotFoundError,
    ShortReadError,
    StoreError,
    TransientError,
    UnavailableError,
    UsageError,
)
from stoker.core.units import MiB
from stoker.storage.api import SupportsMultipart, SupportsRetryCount, SupportsWireCount
from stoker.storage.buffers import aligned_view
from stoker.storage.opening import open_store

CANARY = "C4nary9f8e7dSecretValue0123456789abcdefA"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR")):
            monkeypatch.delenv(name)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARYKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)


@pytest.fixture
def server(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    with StubServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


# credentials


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://bucket", "AWS_ACCESS_KEY_ID"),
        ("az://container", "AZURE_STORAGE_ACCOUNT"),
        ("gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_missing_credentials_are_told_at_once_with_the_variables(url: str, variable: str) -> None:
    with pytest.raises(DeniedError, match=rf"no credentials in the environment.*{variable}"):
        open_store(url)


def test_half_of_a_key_pair_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    with pytest.raises(DeniedError):
        open_store("s3://bucket")


@pytest.mark.parametrize("url", ["s3://key:{c}@bucket", "az://account:{c}@container", "gs://{c}@bucket"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="URL holds credentials") as caught:
        open_store(url.format(c=CANARY))
    assert CANARY not in str(caught.value)


def test_an_anonymous_store_opens_without_credentials() -> None:
    for url in ("s3://bucket", "gs://bucket"):
        open_store(f"{url}?credentials=anonymous").close()


def test_google_opens_with_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    store = open_store("gs://bucket/prefix")
    assert (store.url, store.capabilities.io_mode) == ("gs://bucket/prefix", "network")


def test_google_credentials_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(f'{{"private_key": "{CANARY}"')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(DeniedError, match="cannot be used") as caught:
        open_store("gs://bucket")
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "variables",
    [
        {"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": CANARY},
        {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_SAS_TOKEN": "?sv=2021-08-06&sig=abc"},
        {
            "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=account;AccountKey={CANARY};BlobEndpoint=http://127.0.0.1:9/a"
        },
    ],
)
def test_azure_opens_with_any_of_its_credentials(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = open_store("az://container/prefix")
    assert store.url == "az://container/prefix"
    assert isinstance(store, SupportsMultipart)


def test_an_azure_key_that_is_no_key_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "*** not base64 ***")
    with pytest.raises(DeniedError, match="cannot be used") as caught:
        open_store("az://container")
    assert "not base64" not in "".join(traceback.format_exception(caught.value))


def test_a_url_without_a_bucket_is_refused(credentials: None) -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        open_store("s3:///prefix")


def test_the_metadata_service_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(StoreError):
        open_store("s3://bucket?credentials=instance&retry_attempts=1").stat("object")
    assert time.monotonic() - started < 10


# endpoints


def test_an_endpoint_that_is_down_is_unavailable(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_store("s3://bucket")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"s3://bucket/object.*Connection refused"):
        store.stat("object")
    assert time.monotonic() - started < 10
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 3


def test_an_endpoint_that_never_answers_is_unavailable(server: StubServer) -> None:
    server.bucket.silent = threading.Event()
    store = open_store("s3://bucket?request_timeout=200ms&retry_attempts=2")
    with pytest.raises(UnavailableError):
        store.get_range("object")


def test_an_endpoint_without_http_is_not_spoken_to_in_clear(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{listening.getsockname()[1]}")
        first: list[bytes] = []

        def accept() -> None:
            connection, _ = listening.accept()
            with connection:
                first.append(connection.recv(1))

        accepting = threading.Thread(target=accept)
        accepting.start()
        with pytest.raises(StoreError):
            open_store("s3://bucket?retry_attempts=1").stat("object")
        accepting.join()
    assert first == [b"\x16"], "a TLS handshake, not a request"


# reading


def test_one_read_is_one_request(server: StubServer) -> None:
    server.bucket.objects["folder/object"] = bytes(range(256)) * 40
    store = open_store("s3://bucket/folder")
    with store.open_read("object") as reader:
        assert reader.object_bytes == 10_240
        reader.read_into(aligned_view(10_240))
    assert bytes(store.get_range("object", 3, 4)) == bytes([3, 4, 5, 6])
    assert bytes(store.get_range("object", 10_239)) == b"\xff"
    assert server.bucket.asked == ["GET /bucket/folder/object"] * 3
    assert isinstance(store, SupportsWireCount)
    assert store.received_body_bytes == 10_240 + 4 + 1


def test_a_body_that_is_cut_off_is_never_data(server: StubServer) -> None:
    server.bucket.objects["object"] = b"x" * 100_000
    server.bucket.cut_bodies = 99
    with pytest.raises((TransientError, ShortReadError)):
        open_store("s3://bucket?retry_attempts=1").get_range("object")


def test_a_body_that_is_cut_off_once_is_fetched_again(server: StubServer) -> None:
    data = bytes(range(250)) * 400
    server.bucket.objects["object"] = data
    server.bucket.cut_bodies = 1
    store = open_store("s3://bucket")
    assert bytes(store.get_range("object")) == data
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 1


def test_an_answer_shorter_than_asked_is_a_short_read(server: StubServer) -> None:
    server.bucket.objects["object"] = b"x" * 10
    with pytest.raises(ShortReadError):
        open_store("s3://bucket").get_range("object", 5, 6)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"<Error><Code>SlowDown</Code></Error>", TransientError),
        (429, b"", TransientError),
        (500, b"", TransientError),
        (403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", DeniedError),
        (401, b"", DeniedError),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", NotFoundError),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", DeniedError),
        (400, b"<Error><Code>RequestTimeout</Code></Error>", TransientError),
        (400, b"<Error><Code>InvalidArgument</Code></Error>", StoreError),
    ],
)
def test_the_services_errors_become_ours(server: StubServer, status: int, body: bytes, kind: type[StoreError]) -> None:
    server.bucket.failures, server.bucket.failure_status, server.bucket.failure_body = 9, status, body
    store = open_store("s3://bucket?retry_attempts=1")
    for action in (store.get_range, lambda key: store.put(key, b"x"), lambda key: list(store.list(key))):
        with pytest.raises(StoreError) as caught:
            action("folder/object")
        assert type(caught.value) is kind
        assert "s3://bucket/folder/object" in str(caught.value)


def test_throttling_is_repeated_and_counted(server: StubServer) -> None:
    server.bucket.objects["object"] = b"abc"
    server.bucket.failures = 2
    store = open_store("s3://bucket")
    assert bytes(store.get_range("object")) == b"abc"
    assert isinstance(store, SupportsRetryCount)
    assert store.retry_count == 2
    assert len(server.bucket.asked) == 3, "the client must not repeat behind our back"


# writing in parts


def test_large_objects_travel_in_parts(server: StubServer) -> None:
    data = bytes(range(256)) * (48 * 1024)
    store = open_store("s3://bucket?part_bytes=5MiB")
    assert store.put("object", data).size_bytes == len(data)
    assert server.bucket.objects["object"] == data
    assert len(server.bucket.parts) == 3
    assert isinstance(store, SupportsMultipart)
    store.put_parts("other", (data[start : start + MiB] for start in range(0, len(data), MiB)))
    assert server.bucket.objects["other"] == data


def test_a_part_that_fails_once_is_sent_again(server: StubServer) -> None:
    store = open_store("s3://bucket?part_bytes=5MiB")
    assert isinstance(store, SupportsMultipart)
    server.bucket.failures = 1
    store.put_parts("object", iter([bytes(MiB)] * 12))
    assert server.bucket.objects["object"] == bytes(12 * MiB)


def test_small_parts_travel_in_one_request(server: StubServer) -> None:
    store = open_store("s3://bucket")
    assert isinstance(store, SupportsMultipart)
    store.put_parts("object", [b"a", b"b"])
    assert server.bucket.asked == ["PUT /bucket/object"]
    assert server.bucket.objects == {"object": b"ab"}


def test_a_part_that_the_service_lost_is_noticed(server: StubServer) -> None:
    server.bucket.lost_part = 2
    store = open_store("s3://bucket?part_bytes=5MiB")
    with pytest.raises(StoreError, match="object is not what was uploaded"):
        store.put("object", bytes(12 * MiB))
    assert server.bucket.objects == {}, "what is not whole must not stay under the name"


def test_a_conditional_upload_must_fit_into_memory(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.storage.backends.objects._CONDITIONAL_BYTES_MAX", 1000)
    store = open_store("s3://bucket")
    assert isinstance(store, SupportsMultipart)
    with pytest.raises(UsageError, match="too large for a conditional upload"):
        store.put_parts("object", [bytes(600), bytes(600)], if_absent=True)
    assert server.bucket.asked == []


# processes


FORKING = """
import os, signal, sys
from stoker.core.errors import StoreError
from stoker.storage.opening import open_store
store = open_store("s3://bucket")
if sys.argv[1] == "used":
    store.get_range("object")
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        print("read", bytes(store.get_range("object")))
    except StoreError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(("before", "told"), [("used", "forked"), ("unused", "read b'abc'")])
def test_a_client_used_before_a_fork_says_so_instead_of_hanging(server: StubServer, before: str, told: str) -> None:
    server.bucket.objects["object"] = b"abc"
    done = subprocess.run([sys.executable, "-c", FORKING, before], capture_output=True, text=True, timeout=60)
    assert told in done.stdout
    assert done.returncode == 0, done.stderr


# secrets


def test_secrets_never_reach_urls_or_errors(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2021-08-06&sig={CANARY}")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{server.endpoint}/account")
    server.bucket.failures, server.bucket.failure_status = 99, 403
    server.bucket.failure_body = f"<Error><Code>AccessDenied</Code><Message>{CANARY}</Message></Error>".encode()
    for url in ("s3://bucket", "az://container"):
        store = open_store(f"{url}?retry_attempts=1")
        assert CANARY not in store.url + repr(store)
        actions = (
            partial(store.stat, "object"),
            partial(store.get_range, "object"),
            partial(store.put, "object", b"x"),
            partial(next, store.list()),
        )
        for action in actions:
            with pytest.raises(DeniedError) as caught:
                action()
            assert CANARY not in "".join(traceback.format_exception(caught.value))
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
