"""A client's connection: many threads ask at once, answers come in any order.

What may be under way is bounded at both ends: payloads by the window that the server tells in its welcome, answers by
this end's own, of which each request sets aside what it has room for. A server that falls silent is lost within
`silence_seconds`, and every request that waits for it fails.
"""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec

from stoker.core.errors import CorruptError, StokerError, UnavailableError
from stoker.fs.wire.bodies import opened, with_body
from stoker.fs.wire.budget import Budget, GivenBuffers
from stoker.fs.wire.faults import error_of
from stoker.fs.wire.frames import BODY_IN_PAYLOAD, PAYLOAD_BYTES_MAX, FrameType, frame_head
from stoker.fs.wire.handshake import Head, greet, new_hello, receive_head
from stoker.fs.wire.keys import Tls, parse_address
from stoker.fs.wire.messages import AnswerHead, Fault, RequestHead, Welcome, pack, read_with, unpack
from stoker.fs.wire.operations import Bytes, Operation
from stoker.fs.wire.outbox import Outbox, Outgoing
from stoker.fs.wire.serving import SLOWEST_BYTES_PER_SECOND
from stoker.fs.wire.streams import Clock, Stream, StreamClosed, TlsStream, tls_stream, told_closed

A = TypeVar("A")
Q = TypeVar("Q")
WITHIN_SECONDS: Final = 30.0
_TRACE_CHARACTERS_MAX: Final = 64
_TICK_SECONDS: Final = 0.25
_SILENCE_SECONDS_MIN: Final = 0.1
_buffers: Final = GivenBuffers()


class ClientOptions(msgspec.Struct, frozen=True):
    """How a client connects, and how much it lets be under way on one connection."""

    connect_seconds: float = 5.0
    """Within which the server must be reached, and once more the hello be over."""
    silence_seconds: float = 10.0
    """A server that says nothing for so long, though it was asked for a sign of life, is lost."""
    answers_bytes: int = 2 * PAYLOAD_BYTES_MAX


class _Pending(NamedTuple):
    """A request that waits for its answer, and what it has set aside."""

    operation: Operation[Any, Any]
    future: "Future[tuple[Any, memoryview]]"
    payload_bytes: int
    answer_bytes: int


class Connection:
    """Asks a server. Safe from many threads; `close` ends it, and what waits fails.

    Raises UnavailableError when nobody answers there, DeniedError without the right token, PreflightError for a
    server that speaks another version.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        volume: str = "",
        role: str = "client",
        options: ClientOptions | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.address, self._clock, self._options = address, clock, options or ClientOptions()
        self._stream = _connect(address, tls, self._options, clock)
        try:
            self.welcome: Welcome = self._greet(volume, role, token)
        except BaseException:
            self._stream.close()
            raise
        self._silence_seconds = self._options.silence_seconds
        self._window = Budget(self.welcome.window_bytes)
        self._answers = Budget(self._options.answers_bytes)
        self._slots = Budget(self.welcome.requests_max)
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._lock = threading.Lock()
        self._outbox = Outbox(self._stream, self._silence_seconds, self._lost)
        self._failure: StokerError | None = None
        self._leaving = False
        self._reader = threading.Thread(target=self._read, daemon=True, name="stoker-wire-answers")
        self._reader.start()

    def _greet(self, volume: str, role: str, token: str | None) -> Welcome:
        until = self._clock() + self._options.connect_seconds
        try:
            if isinstance(self._stream, TlsStream):
                self._stream.agree(until)
            return greet(self._stream, new_hello(volume, role), token, until)
        except StreamClosed as error:
            told = told_closed(error) or UnavailableError(
                "server ended the hello",
                got=str(error),
                remedy="it may want TLS, or a certificate: --tls-ca, --tls-cert",
            )
            raise _placed(told, self.address) from error
        except StokerError as error:
            raise _placed(error, self.address) from error

    @property
    def usable(self) -> bool:
        """Tell whether requests can still be sent here."""
        return self._failure is None and not self._leaving

    # -- asking

    def call(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes] = (),
        *,
        within_seconds: float = WITHIN_SECONDS,
        answer_bytes_max: int | None = None,
        trace: str = "",
    ) -> tuple[A, memoryview]:
        """Ask, wait, and return the answer with its payload. Raises what the server's handler raised.

        Raises UnavailableError when no answer comes in time: nobody knows then whether it was done.
        """
        until = self._clock() + within_seconds
        future = self.begin(
            operation, request, parts, within_seconds=within_seconds, answer_bytes_max=answer_bytes_max, trace=trace
        )
        try:
            return future.result(max(0.0, until - self._clock()))
        except TimeoutError:
            if future.done():  # it came at the last moment, or is the server's own
                return future.result()
            raise UnavailableError(
                "no answer in time", where=self.address, expected=f"{operation.name} within {within_seconds:g} s"
            ) from None

    def begin(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes] = (),
        *,
        within_seconds: float = WITHIN_SECONDS,
        answer_bytes_max: int | None = None,
        trace: str = "",
    ) -> "Future[tuple[A, memoryview]]":
        """Ask, and return what will be the answer; waits only for room. The parts must not change until it is there."""
        until = self._clock() + within_seconds
        begun = self._begin(operation, request, parts, within_seconds, answer_bytes_max, trace, until)
        if begun is None:
            raise UnavailableError("no room for the request in time", where=self.address)
        return begun

    def begin_now(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes] = (),
        *,
        within_seconds: float = WITHIN_SECONDS,
        answer_bytes_max: int | None = None,
    ) -> "Future[tuple[A, memoryview]] | None":
        """Ask as `begin` does, without waiting for anything: None where there is no room for it."""
        return self._begin(operation, request, parts, within_seconds, answer_bytes_max, "", self._clock())

    def _begin(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes],
        within_seconds: float,
        answer_bytes_max: int | None,
        trace: str,
        room_until: float,
    ) -> "Future[tuple[A, memoryview]] | None":
        room_bytes = operation.answer_bytes_max if answer_bytes_max is None else answer_bytes_max
        head = RequestHead(operation.code, int(within_seconds * 1000), room_bytes, trace=trace[:_TRACE_CHARACTERS_MAX])
        header, in_front = with_body(head, pack(request), parts, operation)
        sent_parts = [part for part in (in_front, *parts) if len(part)]
        payload_bytes = sum(memoryview(part).nbytes for part in sent_parts)
        if payload_bytes - len(in_front) > operation.payload_bytes_max:
            raise CorruptError("payload is too large", where=operation.name, got=str(payload_bytes))
        pending = _Pending(operation, Future(), payload_bytes, room_bytes + operation.body_bytes_max)
        number = self._register(pending, room_until)
        if number is None:
            return None
        flags = BODY_IN_PAYLOAD if in_front else 0
        frame = frame_head(FrameType.REQUEST, number, header, payload_bytes, flags)
        self._outbox.put(Outgoing([frame, *sent_parts]))
        return pending.future

    def _register(self, pending: _Pending, until: float) -> int | None:
        """Set aside what the request needs at both ends, and return its number; None when there is no room in time."""
        wanted = ((self._slots, 1), (self._window, pending.payload_bytes), (self._answers, pending.answer_bytes))
        taken: list[tuple[Budget, int]] = []
        for budget, count in wanted:
            if not budget.take(count, until - self._clock(), lambda: not self.usable):
                self._give(taken)
                failed = self._failed()
                if failed is not None:
                    raise failed
                return None
            taken.append((budget, count))
        with self._lock:
            if self.usable:
                self._number += 1
                self._pending[self._number] = pending
                return self._number
        self._give(taken)
        raise self._failed() or UnavailableError("the connection is closed", where=self.address)

    def _give(self, taken: Sequence[tuple[Budget, int]]) -> None:
        for budget, count in taken:
            budget.give(count)

    def _failed(self) -> StokerError | None:
        if self._failure is not None:
            return _placed(self._failure, self.address)
        return UnavailableError("the server is closing", where=self.address) if self._leaving else None

    def _lost(self, reason: str) -> None:
        self._lose(UnavailableError("connection was lost", where=self.address, got=reason))

    # -- receiving

    def _read(self) -> None:
        try:
            self._read_all()
        except StreamClosed as error:
            self._lose(UnavailableError("connection was lost", where=self.address, got=str(error)))
        except StokerError as error:
            self._lose(_placed(error, self.address))
        except Exception as error:  # the thread's end must be known to those who wait
            self._lose(UnavailableError("connection was lost", where=self.address, got=type(error).__name__))
        finally:
            self._stream.shut()
            self._outbox.end()
            self._outbox.join()  # nobody may use a descriptor that is given back
            self._stream.close()

    def _read_all(self) -> None:
        heard = asked = self._clock()
        # The server, too, gives up a client that says nothing, after three times what it told.
        ask_seconds = min(self._silence_seconds, max(_SILENCE_SECONDS_MIN, self.welcome.silence_seconds)) / 3
        tick_seconds = min(_TICK_SECONDS, ask_seconds / 2)
        while self._failure is None:
            if self._stream.wait(tick_seconds):
                self._receive(receive_head(self._stream, self._clock() + self._silence_seconds))
                heard = asked = self._clock()
                continue
            now = self._clock()
            if now - heard > self._silence_seconds:
                raise UnavailableError(
                    "server is silent",
                    where=self.address,
                    expected=f"a sign of life within {self._silence_seconds:g} s",
                )
            if now - asked > ask_seconds:
                asked = now
                self._ping()

    def _ping(self) -> None:
        """Ask for a sign of life, unless somebody is sending: then the server has something to answer anyway."""
        if self._outbox.idle:
            self._outbox.put(Outgoing([frame_head(FrameType.PING, 0, b"")]))

    def _receive(self, head: Head) -> None:
        kind = head.prefix.type
        if kind in {FrameType.ANSWER, FrameType.FAULT} and head.prefix.request:
            self._receive_answer(head)
            return
        if head.prefix.payload_bytes:
            raise CorruptError("frame has a payload where none belongs", where=self.address, got=kind.name)
        if kind == FrameType.FAULT:
            raise error_of(unpack(head.header, Fault))
        if kind == FrameType.GOODBYE:
            self._leave()
        elif kind != FrameType.PONG:
            raise CorruptError("frame out of order", where=self.address, got=kind.name)

    def _receive_answer(self, head: Head) -> None:
        prefix = head.prefix
        pending = self._pending.get(prefix.request)
        if pending is None or prefix.payload_bytes > (pending.answer_bytes if prefix.type == FrameType.ANSWER else 0):
            raise CorruptError("answer that nobody asked for", where=self.address, got=f"{prefix.payload_bytes} bytes")
        buffer = _buffers.give(prefix.payload_bytes)
        until = self._clock() + self._silence_seconds + prefix.payload_bytes / SLOWEST_BYTES_PER_SECOND
        self._stream.receive(buffer, until)
        self._settle(prefix.request, head, buffer)

    def _settle(self, number: int, head: Head, buffer: memoryview) -> None:
        with self._lock:
            pending = self._pending.pop(number, None)
            last = self._leaving and not self._pending
        if pending is None:
            return  # the connection was lost meanwhile
        self._give(((self._slots, 1), (self._window, pending.payload_bytes), (self._answers, pending.answer_bytes)))
        try:
            result = _read_answer(head, buffer, pending.operation)
        except StokerError as error:
            _resolve(pending.future, error)
        else:
            _resolve(pending.future, result)
        if last:
            self._lose(UnavailableError("the server is closing", where=self.address))

    def _leave(self) -> None:
        """Send no more requests; what waits is still answered."""
        with self._lock:
            self._leaving = True
            last = not self._pending
        for budget in (self._slots, self._window, self._answers):
            budget.wake()
        if last:
            self._lose(UnavailableError("the server is closing", where=self.address))

    # -- the end

    def _lose(self, failure: StokerError, *, goodbye: bool = False) -> None:
        with self._lock:
            if self._failure is not None:
                return
            self._failure = failure
            pending, self._pending = self._pending, {}
        if goodbye and self._outbox.idle:
            self._outbox.put(Outgoing([frame_head(FrameType.GOODBYE, 0, b"")]))
        self._stream.shut()
        self._outbox.end()
        for budget in (self._slots, self._window, self._answers):
            budget.wake()
        for waiting in pending.values():
            _resolve(waiting.future, _placed(failure, self.address))

    def close(self) -> None:
        """End the connection; what waits fails. Twice is harmless."""
        self._lose(UnavailableError("the connection was closed", where=self.address), goodbye=True)
        if self._reader is not threading.current_thread():
            self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(address: str, tls: Tls | None, options: ClientOptions, clock: Clock) -> Stream:
    host, port = parse_address(address)
    try:
        connected = socket.create_connection((host, port), timeout=options.connect_seconds)
    except OSError as error:
        raise UnavailableError("server does not answer", where=address, got=error.strerror or str(error)) from error
    try:
        return Stream(connected, clock) if tls is None else tls_stream(connected, tls.current(), host, clock)
    except (OSError, ValueError) as error:
        connected.close()
        raise UnavailableError("connection was lost", where=address, got=str(error)) from error


def _read_answer(head: Head, buffer: memoryview, operation: Operation[Any, A]) -> tuple[A, memoryview]:
    """Return the answer in a frame. Raises the error that it tells, and CorruptError for damage."""
    if head.prefix.type == FrameType.FAULT:
        raise error_of(unpack(head.header, Fault))
    answer = unpack(head.header, AnswerHead)
    body, rest = opened(answer, buffer, operation)
    return read_with(operation.answer_decoder, body, operation.name), rest


def _resolve(future: "Future[Any]", result: Any) -> None:
    """Give a future its result, unless whoever waited has given it up."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, StokerError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _placed(error: StokerError, address: str) -> StokerError:
    """Return the same error anew, with where it happened: one that several threads raise would gather their traces."""
    facts = {name: getattr(error, name) for name in ("expected", "got", "remedy")}
    return type(error)(error.what, where=error.where or address, **facts)
