"""Requests and answers over real sockets: payloads, errors, tokens, silence, windows, closing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from wire_peers import ECHO, FAIL, FILE, QUICK, TOKEN, UNKNOWN, WAIT, Number, Raw, Room, address_of

from stoker.core.errors import (
    DeniedError,
    NoSpaceError,
    PreflightError,
    StokerError,
    TransientError,
    UnavailableError,
    UsageError,
)
from stoker.fs.meta.faults import MetaError
from stoker.fs.wire import ClientOptions, Connection, Peer, RpcServer, ServerOptions
from stoker.fs.wire.frames import FrameType
from stoker.fs.wire.handshake import Head
from stoker.fs.wire.keys import parse_address, read_token
from stoker.fs.wire.messages import Fault, Hello, unpack
from stoker.fs.wire.peer import Breaker


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8192)
    descriptor = os.open(path, os.O_RDONLY)
    yield Room(descriptor)
    os.close(descriptor)


@pytest.fixture
def server(room: Room) -> Iterator[RpcServer]:
    with RpcServer(room.handlers()) as started:
        yield started
        room.gate.set()


def test_what_is_asked_is_answered(server: RpcServer) -> None:
    with Connection(address_of(server)) as connection:
        answer, payload = connection.call(ECHO, Number(7, "seven"), [b"abc", memoryview(b"defg"), b"", bytearray(b"h")])
        assert (answer, bytes(payload)) == (Number(7, "seven"), b"abcdefgh")
        assert connection.call(QUICK, Number(1)) == (Number(1), b"")


@pytest.mark.parametrize("count", [0, 1, 65535, 65536, 70_001, (8 << 20) - 3])
def test_payloads_of_every_size_come_back_whole(server: RpcServer, count: int) -> None:
    data = os.urandom(count)
    with Connection(address_of(server)) as connection:
        assert connection.call(ECHO, Number(1), [data])[1] == data


def test_a_request_larger_than_a_header_travels_in_front_of_the_payload(server: RpcServer) -> None:
    text = "x" * 200_000
    with Connection(address_of(server)) as connection:
        answer, payload = connection.call(ECHO, Number(1, text), [b"behind"])
        assert (answer.text, bytes(payload)) == (text, b"behind")
        with pytest.raises(UsageError, match="message is too large"):
            connection.call(ECHO, Number(1, "x" * 300_000))
        assert connection.call(QUICK, Number(2))[0] == Number(2)


def test_files_are_sent_in_parts_and_given_back(server: RpcServer, room: Room) -> None:
    with Connection(address_of(server)) as connection:
        payload = connection.call(FILE, Number(1_000_001), answer_bytes_max=2 << 20)[1]
        assert payload == (bytes(range(256)) * 8192)[:1_000_001]
        with pytest.raises(UsageError, match="room for"):
            connection.call(FILE, Number(1_000_001), answer_bytes_max=1000)
    assert room.given_back == 2


def test_a_file_that_ends_early_ends_the_connection_and_not_the_server(server: RpcServer, room: Room) -> None:
    with Connection(address_of(server)) as connection, pytest.raises(UnavailableError):
        connection.call(FILE, Number(3 << 20), answer_bytes_max=4 << 20)
    assert room.given_back == 1
    with Connection(address_of(server)) as connection:
        assert connection.call(QUICK, Number(2))[0] == Number(2)


def test_many_threads_share_a_connection(server: RpcServer) -> None:
    wrong: list[object] = []

    def ask(first: int) -> None:
        for number in range(first, first + 40):
            data = number.to_bytes(4, "big") * (number % 97 * 100)
            answer, payload = connection.call(ECHO, Number(number), [data])
            if answer != Number(number) or payload != data:
                wrong.append(number)

    with Connection(address_of(server)) as connection:
        threads = [threading.Thread(target=ask, args=(1000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_answers_come_in_any_order(server: RpcServer, room: Room) -> None:
    with Connection(address_of(server)) as connection:
        slow = connection.begin(WAIT, Number(1))
        assert connection.call(ECHO, Number(2))[0] == Number(2)
        assert not slow.done()
        room.gate.set()
        assert slow.result(10)[0] == Number(1)


def test_errors_arrive_as_what_they_are(server: RpcServer, caplog: pytest.LogCaptureFixture) -> None:
    with Connection(address_of(server)) as connection:
        with pytest.raises(NoSpaceError) as full:
            connection.call(FAIL, Number(0))
        facts = (full.value.what, full.value.where, full.value.expected, full.value.got, full.value.remedy)
        assert facts == ("disk is full", "here", "room", "none", "delete something")
        with pytest.raises(MetaError) as refused:
            connection.call(FAIL, Number(1))
        assert refused.value.errno == 2
        with pytest.raises(StokerError, match="fail failed at the server: got RuntimeError") as other:
            connection.call(FAIL, Number(2))
        assert "1234" not in str(other.value)
        with pytest.raises(UsageError, match="does not know the operation"):
            connection.call(UNKNOWN, Number(2))
        assert connection.call(QUICK, Number(3))[0] == Number(3)
    assert "1234" in caplog.text  # the server's own log tells it


# -- who may talk


def test_a_token_opens_and_never_travels(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    real = socket.socket.sendmsg
    monkeypatch.setattr(socket.socket, "sendmsg", lambda s, parts: sent.extend(map(bytes, parts)) or real(s, parts))
    with RpcServer(room.handlers(), token=TOKEN) as server:
        with Connection(address_of(server), token=TOKEN) as connection:
            assert connection.call(QUICK, Number(1))[0] == Number(1)
        with pytest.raises(DeniedError, match="the token is wrong"):
            Connection(address_of(server), token=TOKEN + "x")
        with pytest.raises(DeniedError, match="asks for a token"):
            Connection(address_of(server))
    assert sent and TOKEN.encode() not in b"".join(sent)


def test_a_server_without_the_token_is_not_believed(server: RpcServer) -> None:
    with pytest.raises(DeniedError, match="did not prove"):
        Connection(address_of(server), token=TOKEN)


def test_another_volume_is_refused(room: Room) -> None:
    with RpcServer(room.handlers(), volume="one") as server:
        with pytest.raises(DeniedError, match="another volume"):
            Connection(address_of(server), volume="two")
        with Connection(address_of(server), volume="one") as connection:
            assert connection.welcome.volume == "one"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_nobody_listens_beyond_loopback_without_a_token(room: Room, host: str) -> None:
    with pytest.raises(UsageError, match="beyond loopback must know its clients"):
        RpcServer(room.handlers(), host=host)
    RpcServer(room.handlers(), host="0.0.0.0", token=TOKEN).close()


def test_a_token_is_read_from_a_file_of_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="open to others"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    monkeypatch.setenv("STOKER_FS_TOKEN", "short")
    with pytest.raises(UsageError, match="16 to"):
        read_token(None)
    monkeypatch.delenv("STOKER_FS_TOKEN")
    assert read_token(None) is None


# -- versions


def test_the_greatest_common_version_is_spoken(server: RpcServer) -> None:
    with Raw(server, greeted=False) as raw:
        raw.greet(Hello(1, 9, "", "newer", bytes(32)))
        assert raw.frame()[0].type == FrameType.WELCOME
    with Raw(server, greeted=False) as raw:
        raw.greet(Hello(7, 9, "", "too new", bytes(32)))
        prefix, header = raw.frame()
        assert prefix.type == FrameType.FAULT
        assert unpack(header, Fault) == Fault(
            "PreflightError", "peers speak no version in common", "", "version 1 to 1", "7 to 9"
        )


def test_a_server_of_another_version_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with RpcServer(room.handlers()) as server:
        monkeypatch.setattr(
            "stoker.fs.wire.connection.new_hello", lambda volume, role: Hello(0, 0, volume, role, bytes(32))
        )
        with pytest.raises(PreflightError, match="no version in common") as told:
            Connection(address_of(server))
        assert address_of(server) in str(told.value)


# -- time, silence and the end


def test_a_request_that_is_too_old_is_not_begun(room: Room) -> None:
    with RpcServer(room.handlers(), options=ServerOptions(workers=1)) as server:
        with Connection(address_of(server)) as connection:
            first = connection.begin(WAIT, Number(1))
            while room.begun != [1]:
                time.sleep(0.005)
            late = connection.begin(WAIT, Number(2), within_seconds=0.05)
            with pytest.raises(UnavailableError, match="no answer in time"):
                connection.call(WAIT, Number(3), within_seconds=0.05)
            time.sleep(0.3)  # on a busy machine it came later than it was sent: by now it is too old in any case
            room.gate.set()
            assert first.result(10)[0] == Number(1)
            with pytest.raises(TransientError, match="expired before it was begun"):
                late.result(10)
        assert room.begun == [1]


def test_a_server_that_is_stopped_is_lost_within_the_bound() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from wire_peers import Room\nfrom stoker.fs.wire import RpcServer\n"
        "server = RpcServer(Room().handlers())\nprint(server.address[1], flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout
        address = f"127.0.0.1:{int(child.stdout.readline())}"
        with Connection(address, options=ClientOptions(silence_seconds=1.5)) as connection:
            assert connection.call(QUICK, Number(1))[0] == Number(1)
            child.send_signal(signal.SIGSTOP)
            while not stopped(child.pid):
                time.sleep(0.005)
            with pytest.raises(UnavailableError, match="server is silent"):
                connection.call(QUICK, Number(2), within_seconds=60)
            assert not connection.usable
    finally:
        child.kill()
        with suppress(BrokenPipeError):
            child.communicate()


def stopped(pid: int) -> bool:
    """Whether every thread of a process stands still."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_a_server_that_has_nothing_to_say_is_not_lost(server: RpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pongs = threading.Semaphore(0)
    real = Connection._receive

    def receive(connection: Connection, head: Head) -> None:
        real(connection, head)
        if head.prefix.type == FrameType.PONG:
            pongs.release()

    monkeypatch.setattr(Connection, "_receive", receive)
    with Connection(address_of(server), options=ClientOptions(silence_seconds=2.0)) as connection:
        assert all(pongs.acquire(timeout=20) for _ in range(2))  # it was asked for signs of life, and gave them
        assert connection.usable


def test_closing_finishes_what_is_under_way(room: Room) -> None:
    server = RpcServer(room.handlers())
    connection = Connection(address_of(server))
    waiting = connection.begin(WAIT, Number(1))
    while not room.begun:
        time.sleep(0.005)
    closer = threading.Thread(target=server.close)
    closer.start()
    while connection.usable:
        time.sleep(0.005)
    with pytest.raises(UnavailableError, match="closing"):
        connection.call(QUICK, Number(2))
    room.gate.set()
    assert waiting.result(10)[0] == Number(1)
    closer.join(10)
    assert not closer.is_alive()
    connection.close()


def test_closing_the_client_fails_what_waits(server: RpcServer, room: Room) -> None:
    connection = Connection(address_of(server))
    waiting = connection.begin(WAIT, Number(1))
    connection.close()
    with pytest.raises(UnavailableError, match="was closed"):
        waiting.result(10)
    connection.close()


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="does not answer"):
            Connection(f"127.0.0.1:{unused.getsockname()[1]}")


def test_a_peer_comes_back_when_the_server_does(room: Room) -> None:
    server = RpcServer(room.handlers())
    port = server.address[1]
    with Peer(f"127.0.0.1:{port}") as peer:
        assert peer.call(QUICK, Number(1))[0] == Number(1)
        server.close()
        with pytest.raises(UnavailableError):
            peer.call(FAIL, Number(1), within_seconds=5)  # not idempotent: asked once
        with RpcServer(room.handlers(), port=port):
            assert peer.call(QUICK, Number(2), within_seconds=20)[0] == Number(2)


def test_the_breaker_doubles_its_pause_and_forgets_when_it_works() -> None:
    breaker = Breaker()
    assert breaker.allows(0.0)
    pauses = []
    for _ in range(8):
        breaker.failed(0.0)
        pauses.append(next(step / 100 for step in range(1, 1000) if breaker.allows(step / 100)))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    breaker.succeeded()
    assert breaker.allows(0.0) and breaker.failures == 0


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "host:65536", "host:-1", "host:²"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="address is not readable"):
        parse_address(text)


def test_addresses_are_read() -> None:
    assert parse_address("[::1]:7") == ("::1", 7) and parse_address("host:65535") == ("host", 65535)
