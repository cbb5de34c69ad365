"""One client's connection at the server: its requests are read, done by workers, and answered in any order."""

import mmap
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from stoker.core.errors import CorruptError, StokerError, TransientError, UsageError
from stoker.core.units import KiB
from stoker.fs.wire.bodies import opened, with_body
from stoker.fs.wire.budget import Budget, BufferPool
from stoker.fs.wire.faults import UNKNOWN_OPERATION, RoomError, UntrustedError, fault_of
from stoker.fs.wire.frames import (
    BODY_IN_PAYLOAD,
    MAGIC_BYTES,
    PAYLOAD_BYTES_MAX,
    FrameType,
    Prefix,
    frame_head,
)
from stoker.fs.wire.handshake import HELLO_SECONDS, Head, Host, admit, receive_head
from stoker.fs.wire.messages import AnswerHead, Hello, RequestHead, pack, read_with, unpack
from stoker.fs.wire.operations import Asker, FileSpans, Handler, Operation, Payload
from stoker.fs.wire.outbox import Outbox, Outgoing
from stoker.fs.wire.streams import Clock, Stream, StreamClosed, TlsStream, certificate_name
from stoker.fs.wire.workers import Workers

_TICK_SECONDS: Final = 0.25
_REFUSAL_SECONDS: Final = 1.0
SHARE_OF_BUDGET: Final = 4
"""One client may have this part of the server's budget, the fourth, at most."""
SLOWEST_BYTES_PER_SECOND: Final = 256 * KiB
"""A payload that comes more slowly than this is given up: it would hold its room for too long."""


class Serving(NamedTuple):
    """What the connections of a server share."""

    host: Host
    handlers: dict[int, tuple[Operation[Any, Any], Handler]]
    budget: Budget
    pool: BufferPool
    workers: Workers
    clock: Clock
    report: Callable[[str, BaseException], None]
    stopping: Callable[[], bool]


class _Request(NamedTuple):
    """A request that was received whole, and what it holds until it is answered."""

    number: int
    operation: Operation[Any, Any]
    handler: Handler
    head: RequestHead
    buffer: mmap.mmap | None
    payload_bytes: int
    until: float


class ServedConnection:
    """Serves one client until either end has enough."""

    def __init__(self, stream: Stream, address: str, serving: Serving) -> None:
        self._stream, self._address, self._serving = stream, address, serving
        self._outbox = Outbox(stream, serving.host.silence_seconds, self._lose)
        self._lock = threading.Lock()
        # A client that reads nothing holds its room until it is lost: others must have theirs meanwhile.
        self._room = Budget(serving.budget.total_bytes // SHARE_OF_BUDGET)
        self._requests = 0
        self._window_taken_bytes = 0
        self._pong_waits = False
        self._hello: Hello | None = None
        self._certificate = ""

    # -- life

    def run(self) -> None:
        """Serve until the connection ends; the socket is given back."""
        try:
            until = self._serving.clock() + HELLO_SECONDS
            if isinstance(self._stream, TlsStream):
                self._agree(self._stream, until)
            self._certificate = certificate_name(self._stream)
            self._hello = admit(self._stream, self._serving.host, until)
            self._read_all()
        except StreamClosed:
            pass  # the client comes again when it wants to
        except StokerError as error:
            if self._hello is not None:  # it does not speak our language, or stopped within a frame
                self._outbox.put(Outgoing([frame_head(FrameType.FAULT, 0, pack(fault_of(error, "the connection")))]))
                self._outbox.drain(1.0)
        finally:
            self._stream.shut()
            self._outbox.end()
            self._outbox.join()

    def _agree(self, stream: TlsStream, until: float) -> None:
        try:
            if stream.first_bytes(len(MAGIC_BYTES), until) == MAGIC_BYTES:
                error = UntrustedError(
                    "the server speaks TLS", remedy="give --tls-ca, the authority of its certificate"
                )
                stream.say_plainly(frame_head(FrameType.FAULT, 0, pack(fault_of(error, "the hello"))))
                raise error
            stream.agree(until)
        except UntrustedError:
            stream.refuse(_REFUSAL_SECONDS)
            raise

    def _read_all(self) -> None:
        serving = self._serving
        patience_seconds = 3 * serving.host.silence_seconds
        heard = serving.clock()
        while True:
            if self._stream.wait(_TICK_SECONDS):
                until = serving.clock() + serving.host.silence_seconds
                if not self._receive(receive_head(self._stream, until)):
                    return
                heard = serving.clock()
            elif serving.clock() - heard > patience_seconds and not self.busy:
                return  # a client that lives says something now and then

    @property
    def busy(self) -> bool:
        """Tell whether a request is under way."""
        return self._requests > 0

    @property
    def greeted(self) -> bool:
        """Tell whether the client is known."""
        return self._hello is not None

    def say_goodbye(self) -> None:
        """Tell the client to send no more requests here."""
        if self.greeted:
            self._outbox.put(Outgoing([frame_head(FrameType.GOODBYE, 0, b"")]))

    def drain(self, within_seconds: float) -> bool:
        """Return whether all that was to be sent is sent within the time."""
        return self._outbox.drain(within_seconds)

    def cut(self) -> None:
        """End the connection; `run` returns soon."""
        self._stream.shut()
        self._outbox.end()

    def _lose(self, reason: str) -> None:
        self.cut()

    # -- receiving

    def _receive(self, head: Head) -> bool:
        """Deal with a frame; False when the client said goodbye."""
        kind = head.prefix.type
        if kind == FrameType.REQUEST and head.prefix.request:
            self._receive_request(head)
            return True
        if head.prefix.payload_bytes:
            raise CorruptError("frame has a payload where none belongs", got=kind.name)
        if kind == FrameType.PING:
            self._pong()
        elif kind not in {FrameType.PONG, FrameType.GOODBYE}:
            raise CorruptError("frame out of order", got=kind.name)
        return kind != FrameType.GOODBYE

    def _pong(self) -> None:
        with self._lock:
            waits, self._pong_waits = self._pong_waits, True
        if not waits:  # a client that asks without end and reads nothing gets one answer
            self._outbox.put(Outgoing([frame_head(FrameType.PONG, 0, b"")], done=self._pong_sent))

    def _pong_sent(self) -> None:
        with self._lock:
            self._pong_waits = False

    def _receive_request(self, frame: Head) -> None:
        prefix, clock = frame.prefix, self._serving.clock
        head = unpack(frame.header, RequestHead)
        until = clock() + max(0, min(head.within_ms, 2**31)) / 1000
        self._begin(prefix.payload_bytes)
        room_bytes = 0
        try:
            operation, handler = self._known(head, prefix)
            room_bytes = self._take_room(operation, prefix, until)
        except StokerError as error:
            self._discard(prefix.payload_bytes)
            self._answer_fault(prefix.request, error, partial(self._end, prefix.payload_bytes, 0))
            return
        done = partial(self._end, prefix.payload_bytes, room_bytes)
        buffer = self._receive_payload(prefix.payload_bytes, done)
        request = _Request(prefix.request, operation, handler, head, buffer, prefix.payload_bytes, until)
        work = partial(self._do, request, done)
        if operation.quick:
            work()
        else:
            self._serving.workers.put(work)

    def _begin(self, payload_bytes: int) -> None:
        """Count a request. Raises CorruptError for a client that does not keep to the window it was told."""
        host = self._serving.host
        with self._lock:
            self._requests += 1
            self._window_taken_bytes += payload_bytes
            # The client may hear of an answer before we have counted it off, so the bound has some slack.
            over = self._requests > 2 * host.requests_max
            over = over or self._window_taken_bytes > host.window_bytes + 2 * PAYLOAD_BYTES_MAX
        if over:
            raise CorruptError("client sent more than its window", expected=f"{host.window_bytes} bytes")

    def _end(self, payload_bytes: int, room_bytes: int) -> None:
        with self._lock:
            self._requests -= 1
            self._window_taken_bytes -= payload_bytes
        if room_bytes:
            self._serving.budget.give(room_bytes)
            self._room.give(room_bytes)

    def _known(self, head: RequestHead, prefix: Prefix) -> tuple[Operation[Any, Any], Handler]:
        """Return what is asked for. Raises UsageError for what the server does not do, or not so."""
        found = self._serving.handlers.get(head.operation)
        if found is None:
            raise UsageError(UNKNOWN_OPERATION, got=str(head.operation))
        operation = found[0]
        in_front = head.body_bytes if prefix.flags & BODY_IN_PAYLOAD else 0
        if not 0 <= in_front <= min(operation.body_bytes_max, prefix.payload_bytes):
            raise UsageError("request is too large", where=operation.name, got=f"{head.body_bytes} bytes")
        if prefix.payload_bytes - in_front > operation.payload_bytes_max:
            raise UsageError(
                "payload is too large",
                where=operation.name,
                expected=f"{operation.payload_bytes_max} bytes at most",
                got=str(prefix.payload_bytes - in_front),
            )
        return found

    def _take_room(self, operation: Operation[Any, Any], prefix: Prefix, until: float) -> int:
        """Set room aside for the request and its answer. Raises TransientError when none came in time, or none will."""
        serving = self._serving
        if serving.stopping():
            raise TransientError("the server is closing")
        room_bytes = prefix.payload_bytes + operation.answer_bytes_max
        if not room_bytes:
            return 0
        until = min(until, serving.clock() + serving.host.silence_seconds / 2)
        if self._room.take(room_bytes, until - serving.clock(), serving.stopping):
            if serving.budget.take(room_bytes, until - serving.clock(), serving.stopping):
                return room_bytes
            self._room.give(room_bytes)
        raise TransientError("the server has no room for the request", where=operation.name)

    def _receive_payload(self, count: int, done: Callable[[], None]) -> mmap.mmap | None:
        if not count:
            return None
        buffer = self._serving.pool.lend(count)
        try:
            self._stream.receive(memoryview(buffer)[:count], self._payload_until(count))
        except BaseException:
            self._serving.pool.give_back(buffer)
            done()
            raise
        return buffer

    def _payload_until(self, count: int) -> float:
        serving = self._serving
        return serving.clock() + serving.host.silence_seconds + count / SLOWEST_BYTES_PER_SECOND

    def _discard(self, count: int) -> None:
        """Receive a payload that nobody wants, so that the next frame can be read."""
        until = self._payload_until(count)
        scrap = memoryview(bytearray(min(count, 64 * KiB)))
        while count:
            part = scrap[: min(count, len(scrap))]
            self._stream.receive(part, until)
            count -= len(part)

    # -- doing and answering

    def _do(self, request: _Request, done: Callable[[], None]) -> None:
        """Do a request and answer it, whatever happens."""
        try:
            outgoing = self._done(request, done)
        except Exception as error:  # whatever a handler does, the client hears of it and the server goes on
            if not isinstance(error, StokerError):
                self._serving.report(request.operation.name, error)
            self._answer_fault(request.number, error, done, request.operation.name)
        else:
            self._outbox.put(outgoing)
        if request.buffer is not None:  # an answer may still look at it: the pool notices
            self._serving.pool.give_back(request.buffer)

    def _done(self, request: _Request, done: Callable[[], None]) -> Outgoing:
        """Return the answer. Raises CorruptError for a damaged request, TransientError when it is too late."""
        operation, head = request.operation, request.head
        if self._serving.clock() >= request.until:
            raise TransientError("request expired before it was begun", where=operation.name)
        whole = memoryview(request.buffer or b"")[: request.payload_bytes]
        body, rest = opened(head, whole, operation)
        asked = read_with(operation.request_decoder, body, operation.name)
        answer, payload = request.handler(asked, rest, self._asker(request))
        try:
            return self._answer(request, answer, payload, done)
        except BaseException:
            if isinstance(payload, FileSpans):
                payload.done()
            raise

    def _asker(self, request: _Request) -> Asker:
        assert self._hello is not None
        left_seconds = request.until - self._serving.clock()
        hello = self._hello
        head = request.head
        return Asker(
            self._address, hello.role, hello.volume, self._certificate, left_seconds, head.trace, head.answer_bytes_max
        )

    def _answer(self, request: _Request, answer: Any, payload: Payload, done: Callable[[], None]) -> Outgoing:
        """Return an answer as it is sent. Raises RoomError for one that is larger than the client has room for."""
        operation, room_bytes = request.operation, request.head.answer_bytes_max
        if isinstance(payload, FileSpans):
            assert operation.own_checksums, "nobody would verify what comes from files"
            files, parts, count = payload, [], sum(span.length for span in payload.spans)
        else:
            files, parts = None, [part for part in payload if len(part)]
            count = sum(memoryview(part).nbytes for part in parts)
            room_bytes = min(room_bytes, operation.answer_bytes_max)
        if count > room_bytes:
            raise RoomError(
                "answer is larger than there is room for",
                where=operation.name,
                expected=f"{room_bytes} bytes at most",
                got=str(count),
            )
        header, in_front = with_body(AnswerHead(), pack(answer), parts, operation)
        flags = BODY_IN_PAYLOAD if in_front else 0
        head = frame_head(FrameType.ANSWER, request.number, header, count + len(in_front), flags)
        return Outgoing([head, in_front, *parts] if in_front else [head, *parts], files, partial(_finish, files, done))

    def _answer_fault(
        self, number: int, error: Exception, done: Callable[[], None], doing: str = "the request"
    ) -> None:
        self._outbox.put(Outgoing([frame_head(FrameType.FAULT, number, pack(fault_of(error, doing)))], done=done))


def _finish(files: FileSpans | None, done: Callable[[], None]) -> None:
    """Give back what an answer held."""
    if files is not None:
        files.done()
    done()
