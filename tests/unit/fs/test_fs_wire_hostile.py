"""Peers that lie, damage, dawdle or read nothing: the server goes on, its memory bounded, its other clients served."""

import random
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from wire_peers import ECHO, QUICK, TOKEN, UNKNOWN, WAIT, Number, Raw, Room, address_of

from stoker.core.errors import CorruptError, DeniedError, StokerError, TransientError
from stoker.fs.wire import Connection, RpcServer, ServerOptions
from stoker.fs.wire.budget import Budget, BufferPool, GivenBuffers
from stoker.fs.wire.frames import PAYLOAD_BYTES_MAX, PREFIX_BYTES, FrameType, frame_head
from stoker.fs.wire.handshake import new_hello
from stoker.fs.wire.messages import AnswerHead, Fault, Proof, RequestHead, Welcome, pack, unpack
from stoker.kernels.checking import crc32c

MiB = 1 << 20


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.gate.set()


def settled(server: RpcServer, *, connections: int) -> bool:
    """Whether the server soon has only so many connections, and nothing under way."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if server.connections == connections and server.taken_bytes == 0:
            return True
        time.sleep(0.01)
    return False


def request(number: int, data: bytes = b"", *, operation: int = ECHO.code, **fields: int) -> bytes:
    head = {"operation": operation, "within_ms": 10_000, "answer_bytes_max": 8 * MiB, "crc": crc32c(data)} | fields
    header = pack(head | {"body": pack(Number(number))})
    return frame_head(FrameType.REQUEST, number + 1, header, len(data)) + data


def alive(connection: Connection) -> bool:
    return connection.call(ECHO, Number(5), [b"x" * 1000])[1] == b"x" * 1000


# -- damage


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The bytes with one to eight accidents: flips, numbers at their limits, pieces lost, doubled or foreign."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if not changed:
            break
        at = chance.randrange(len(changed))
        accident = chance.randrange(6)
        if accident == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif accident == 1:
            changed[at : at + 4] = struct.pack(">I", chance.choice([0, 1, 2**31, 2**32 - 1, PAYLOAD_BYTES_MAX]))
        elif accident == 2:
            del changed[at : at + chance.randint(1, 64)]
        elif accident == 3:
            changed[at:at] = changed[max(0, at - 40) : at]
        elif accident == 4:
            changed[at:at] = chance.randbytes(chance.randint(1, 100))
        else:
            del changed[at:]
    return bytes(changed)


def resealed(data: bytes) -> bytes:
    """The first frame with a checksum that fits again, so that what is behind the check meets the damage too."""
    if len(data) < PREFIX_BYTES:
        return data
    header_bytes = int.from_bytes(data[6:8], "big")
    header = data[PREFIX_BYTES : PREFIX_BYTES + header_bytes]
    checksum = crc32c(header, crc32c(data[:20])).to_bytes(4, "big")
    return data[:20] + checksum + data[PREFIX_BYTES:]


def attack(server: RpcServer, chance: random.Random) -> None:
    greeted = chance.random() < 0.8
    with Raw(server, greeted=greeted) as raw:
        frames = [request(1, b"y" * 300), frame_head(FrameType.PING, 0, b""), request(2, operation=QUICK.code)]
        if not greeted:
            frames.insert(0, frame_head(FrameType.HELLO, 0, pack(new_hello("", "x"))))
        chosen = chance.randrange(len(frames))
        frames[chosen] = mutated(chance, frames[chosen])
        if chance.random() < 0.6:
            frames[chosen] = resealed(frames[chosen])
        try:
            raw.socket.sendall(b"".join(frames))
            raw.socket.settimeout(0.01)
            while raw.socket.recv(4096):
                pass
        except OSError:
            pass


def storm(room: Room, seeds: range) -> None:
    options = ServerOptions(silence_seconds=1.0)
    with RpcServer(room.handlers(), options=options) as server, Connection(address_of(server)) as connection:
        for seed in seeds:
            attack(server, random.Random(seed))
            if seed % 20 == 0:
                assert alive(connection), seed
        assert alive(connection)
        assert settled(server, connections=1)


def test_mutated_frames_never_end_the_server(room: Room) -> None:
    storm(room, range(100))


@pytest.mark.slow
def test_many_mutated_frames_never_end_the_server(room: Room) -> None:
    storm(room, range(1000, 4000))


def test_a_damaged_payload_is_told_and_the_connection_goes_on(room: Room) -> None:
    with RpcServer(room.handlers()) as server, Raw(server) as raw:
        raw.socket.sendall(request(1, b"damaged", crc=1) + request(2, b"sound"))
        prefix, header = raw.frame()
        fault = unpack(header, Fault)
        assert (prefix.request, fault.kind, fault.what) == (2, "CorruptError", "payload is damaged")
        prefix, _ = raw.frame()
        assert (prefix.type, prefix.request, raw.exactly(prefix.payload_bytes)) == (FrameType.ANSWER, 3, b"sound")


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        ("payload is too large", {"operation": QUICK.code}),
        ("does not know the operation", {"operation": UNKNOWN.code}),
        ("expired", {"within_ms": 0}),
        ("expired", {"within_ms": -5}),
        ("room for", {"answer_bytes_max": 2}),
        ("does not fit into its frame", {"body_bytes": 100}),
    ],
)
def test_requests_that_cannot_be_done_are_refused_one_by_one(room: Room, told: str, fields: dict[str, int]) -> None:
    with RpcServer(room.handlers()) as server, Raw(server) as raw:
        raw.socket.sendall(request(1, b"payload", **fields) + request(2))
        first, header = raw.frame()
        assert first.request == 2 and told in str(unpack(header, Fault))
        second, _ = raw.frame()
        assert (second.type, second.request) == (FrameType.ANSWER, 3)


@pytest.mark.parametrize(
    "frame",
    [
        frame_head(FrameType.PING, 0, b"", 5) + b"xxxxx",
        frame_head(FrameType.ANSWER, 1, b"\x80"),
        frame_head(FrameType.REQUEST, 0, pack(RequestHead(ECHO.code, 10_000))),
        frame_head(FrameType.HELLO, 0, pack(new_hello("", "again"))),
        frame_head(FrameType.REQUEST, 1, b"\x91" * 60_000),
        frame_head(FrameType.REQUEST, 1, pack({"operation": "echo"})),
        b"GET / HTTP/1.1\r\nHost: stoker\r\n\r\n",
    ],
)
def test_who_does_not_speak_the_language_is_told_and_left(room: Room, frame: bytes) -> None:
    with RpcServer(room.handlers()) as server, Raw(server) as raw:
        raw.socket.sendall(frame)
        prefix, header = raw.frame()
        assert (prefix.type, prefix.request, unpack(header, Fault).kind) == (FrameType.FAULT, 0, "CorruptError")
        assert raw.ended()


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        liar = threading.Thread(target=lie, args=(listener,))
        liar.start()
        tracemalloc.start()
        with Connection(f"127.0.0.1:{listener.getsockname()[1]}") as connection:
            with pytest.raises(CorruptError, match=f"nobody asked for .*{PAYLOAD_BYTES_MAX} bytes"):
                connection.call(QUICK, Number(1))
            assert not connection.usable
        assert tracemalloc.get_traced_memory()[1] < MiB
        tracemalloc.stop()
        liar.join()


def lie(listener: socket.socket) -> None:
    """Serve one request with an answer that is larger than there is room for."""
    with listener.accept()[0] as peer:
        peer.recv(4096)
        peer.sendall(frame_head(FrameType.WELCOME, 0, pack(Welcome(1, "", MiB, 8, 1.0))))
        peer.recv(4096)
        peer.sendall(frame_head(FrameType.ANSWER, 1, pack(AnswerHead()), PAYLOAD_BYTES_MAX))
        peer.recv(4096)


# -- memory


def test_claims_are_not_believed_before_they_are_checked(room: Room) -> None:
    claims = [
        frame_head(FrameType.REQUEST, 1, pack(RequestHead(QUICK.code, 10_000)), PAYLOAD_BYTES_MAX),
        frame_head(FrameType.REQUEST, 1, pack(RequestHead(ECHO.code, 10_000, body_bytes=2**31)), PAYLOAD_BYTES_MAX),
        frame_head(FrameType.PING, 0, b"", PAYLOAD_BYTES_MAX),
        frame_head(FrameType.REQUEST, 1, b"\xc6\xff\xff\xff\xff" + b"x" * 100, 2**26),
    ]
    with RpcServer(room.handlers(), options=ServerOptions(silence_seconds=0.5)) as server:
        raws = [Raw(server) for _ in range(20)]
        tracemalloc.start()
        for index, raw in enumerate(raws):
            raw.socket.sendall(claims[index % len(claims)])
        time.sleep(0.3)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 8 * MiB
        for raw in raws:
            raw.socket.close()
        assert settled(server, connections=0)


def test_a_slow_reader_fills_no_memory_and_holds_up_nobody(room: Room) -> None:
    options = ServerOptions(workers=2, budget_bytes=64 * MiB, silence_seconds=1.0)
    with RpcServer(room.handlers(), options=options) as server, Raw(server) as raw:
        data = b"z" * 4 * MiB
        raw.socket.settimeout(20)
        greedy = threading.Thread(target=send_all, args=(raw, [request(number, data) for number in range(40)]))
        greedy.start()
        with Connection(address_of(server)) as connection:
            for _ in range(20):
                assert alive(connection)
                assert server.taken_bytes <= 64 * MiB
                time.sleep(0.01)
            greedy.join()
            assert settled(server, connections=1)  # it took nothing for too long
            assert alive(connection)


def send_all(raw: Raw, frames: list[bytes]) -> None:
    try:
        for frame in frames:
            raw.socket.sendall(frame)
    except OSError:
        pass


def test_who_sends_more_than_its_window_is_left(room: Room) -> None:
    options = ServerOptions(workers=1, requests_max=4)
    with RpcServer(room.handlers(), options=options) as server, Raw(server) as raw:
        raw.socket.sendall(b"".join(request(number, operation=WAIT.code) for number in range(9)))
        prefix, header = raw.frame()
        assert prefix.request == 0 and unpack(header, Fault).what == "client sent more than its window"
        room.gate.set()
        assert settled(server, connections=0)


def test_a_client_keeps_to_the_window_it_was_told(room: Room) -> None:
    options = ServerOptions(workers=1, requests_max=4)
    with RpcServer(room.handlers(), options=options) as server, Connection(address_of(server)) as connection:
        asked = [connection.begin(WAIT, Number(number)) for number in range(4)]
        with pytest.raises(StokerError, match="no room for the request in time"):
            connection.begin(WAIT, Number(9), within_seconds=0.05)
        room.gate.set()
        assert [future.result(10)[0].number for future in asked] == [0, 1, 2, 3]


def test_a_server_without_room_says_so(room: Room) -> None:
    options = ServerOptions(budget_bytes=1 * MiB, silence_seconds=0.4)
    with RpcServer(room.handlers(), options=options) as server, Connection(address_of(server)) as connection:
        waiting = connection.begin(WAIT, Number(1), [bytes(MiB)])
        while not room.begun:
            time.sleep(0.005)
        with pytest.raises(TransientError, match="no room"):
            connection.call(ECHO, Number(1), [b"x" * 1000])
        room.gate.set()
        assert waiting.result(10)[0] == Number(1)
        assert alive(connection)


def test_ping_without_end_gets_bounded_answers(room: Room) -> None:
    with RpcServer(room.handlers(), options=ServerOptions(silence_seconds=0.5)) as server, Raw(server) as raw:
        pings = frame_head(FrameType.PING, 0, b"") * 1000
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tracemalloc.start()
        send_all(raw, [pings] * 10)
        assert tracemalloc.get_traced_memory()[1] < MiB  # 10,000 answers that wait would be 3 MiB
        tracemalloc.stop()
        with Connection(address_of(server)) as connection:
            assert alive(connection)


def test_a_budget_serves_one_that_wants_more_than_there_is_alone() -> None:
    budget = Budget(100)
    assert budget.take(60, 0) and not budget.take(50, 0) and budget.take(40, 0)
    budget.give(100)
    assert budget.take(1000, 0) and not budget.take(1, 0.01)
    assert not budget.take(1, 10, lambda: True)


def test_buffers_are_used_again_unless_somebody_looks_at_them() -> None:
    pool = BufferPool(kept_bytes_max=MiB)
    first = pool.lend(100_000)
    assert len(first) == 131_072
    pool.give_back(first)
    assert pool.lend(131_072) is first
    kept = memoryview(first)[5:10]
    pool.give_back(first)
    assert pool.lend(100_000) is not first and pool.kept_bytes == 0 and len(kept) == 5
    pool.give_back(pool.lend(2 * MiB))
    assert pool.kept_bytes == 0


def test_memory_that_was_given_is_used_again_once_nobody_looks_at_it() -> None:
    buffers = GivenBuffers(kept_bytes_max=MiB)
    first = buffers.give(500_000)
    first[:] = b"a" * 500_000
    part = first[7:9]
    as_numbers = np.frombuffer(first[100:200], np.uint8)
    del first
    second = buffers.give(500_000)
    second[:] = b"b" * 500_000
    assert part == b"aa" and bytes(as_numbers) == b"a" * 100
    third = buffers.give(500_000)
    third[:] = b"c" * 500_000
    assert part == b"aa" and second[0] == ord("b")
    where = address(second)
    del second
    assert address(buffers.give(300_000)) == where
    del part
    assert len({where, address(buffers.give(500_000))}) == 1 and bytes(as_numbers) == b"a" * 100
    given = [buffers.give(400_000) for _ in range(9)]
    places = {address(view) for view in given}
    del given, third
    assert buffers.kept_bytes == MiB and address(buffers.give(400_000)) in places


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


# -- dawdling


def test_a_hello_must_be_over_in_time(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.fs.wire.serving.HELLO_SECONDS", 0.4)
    with RpcServer(room.handlers()) as server:
        with Raw(server, greeted=False) as silent, Raw(server, greeted=False) as slow:
            hello = frame_head(FrameType.HELLO, 0, pack(new_hello("", "slow")))
            began = time.monotonic()
            try:
                for byte in hello:
                    slow.socket.sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
            assert time.monotonic() - began < 0.05 * len(hello)  # it was cut off in the middle
            assert silent.ended()
        assert settled(server, connections=0)


def test_strangers_are_few_and_keep_nobody_out(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.fs.wire.serving.HELLO_SECONDS", 1.0)
    with RpcServer(room.handlers(), options=ServerOptions(strangers_max=3)) as server:
        strangers = [Raw(server, greeted=False) for _ in range(5)]
        assert strangers[4].ended()
        assert settled(server, connections=0)
        with Connection(address_of(server)) as connection:
            assert alive(connection)
        for stranger in strangers:
            stranger.socket.close()


def test_a_payload_that_stops_in_the_middle_gives_its_room_back(room: Room) -> None:
    with RpcServer(room.handlers(), options=ServerOptions(silence_seconds=0.4)) as server, Raw(server) as raw:
        raw.socket.sendall(request(1, b"x" * 50_000)[:-100])
        assert raw.ended()
        assert settled(server, connections=0)


def test_a_client_that_says_nothing_for_long_is_left(room: Room) -> None:
    with (
        RpcServer(room.handlers(), options=ServerOptions(silence_seconds=0.5)) as server,
        Connection(address_of(server)) as living,
        Raw(server) as raw,
    ):
        assert raw.ended()  # and the other, which asked nothing for longer, is not
        assert living.usable and alive(living)


def test_a_proof_of_another_hello_opens_nothing(room: Room) -> None:
    with RpcServer(room.handlers(), token=TOKEN) as server:
        with Raw(server, greeted=False) as raw:
            raw.greet(new_hello("", "raw"))
            assert raw.frame()[0].type == FrameType.CHALLENGE
            raw.socket.sendall(frame_head(FrameType.PROOF, 0, pack(Proof(bytes(32)))))
            prefix, header = raw.frame()
            assert prefix.type == FrameType.FAULT and unpack(header, Fault).kind == "DeniedError"
            assert raw.ended()
        with Raw(server, greeted=False) as raw:  # a request before the hello is none
            raw.socket.sendall(request(1))
            assert unpack(raw.frame()[1], Fault).kind == "CorruptError"
        with pytest.raises(DeniedError):
            Connection(address_of(server), token="x" * 40)


def test_a_damaged_answer_is_told_to_who_waits(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with RpcServer(room.handlers()) as server, Connection(address_of(server)) as connection:
        real = connection._stream.receive

        def damaged(view: memoryview, until: float) -> None:
            real(view, until)
            if view.nbytes == 777:
                view[5] ^= 1

        monkeypatch.setattr(connection._stream, "receive", damaged)
        with pytest.raises(CorruptError, match="payload is damaged"):
            connection.call(ECHO, Number(1), [b"a" * 777])
        assert alive(connection)
