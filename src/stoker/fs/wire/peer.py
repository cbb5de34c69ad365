"""A server that may come and go: a connection that is made when it is needed, and made anew when it was lost."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Self, TypeVar

from msgspec import structs

from stoker.core.errors import StokerError, TransientError, UnavailableError
from stoker.fs.wire.begun import Begun
from stoker.fs.wire.connection import WITHIN_SECONDS, ClientOptions, Connection
from stoker.fs.wire.keys import Tls
from stoker.fs.wire.operations import Bytes, Operation
from stoker.fs.wire.streams import Clock

A = TypeVar("A")
T = TypeVar("T")
Q = TypeVar("Q")
PAUSE_SECONDS_MIN: Final = 0.05
PAUSE_SECONDS_MAX: Final = 2.0


class Breaker:
    """Tells whether a server that failed may be tried again: after a pause that doubles with each failure in a row.

    A pure value of the times it is given. While the pause lasts callers fail at once instead of waiting in a queue.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._closed_until = 0.0

    @property
    def failures(self) -> int:
        """Return how many attempts failed since the last that did not."""
        return self._failures

    def allows(self, now: float) -> bool:
        """Tell whether an attempt may be made."""
        return self._failures == 0 or now >= self._closed_until

    def failed(self, now: float) -> None:
        """Note a failure."""
        pause_seconds = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2 ** min(self._failures, 16))
        self._failures += 1
        self._closed_until = now + pause_seconds

    def succeeded(self) -> None:
        """Note that the server answers."""
        self._failures = 0


class Peer:
    """A server at an address. Safe from many threads; asks like a `Connection`, over one that it makes anew.

    Only operations that are idempotent are asked a second time when the connection is lost before the answer. Who
    has others to ask gives up after `unreached_seconds` in which no connection could be made.
    """

    def __init__(  # noqa: PLR0913 - each by its name
        self,
        address: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        volume: str = "",
        role: str = "client",
        options: ClientOptions | None = None,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        unreached_seconds: float = math.inf,
    ) -> None:
        self.address = address
        self._unreached_seconds = unreached_seconds
        self._clock, self._pause = clock, pause
        chosen = options or ClientOptions()

        def connect(within_seconds: float) -> Connection:
            fitting = structs.replace(chosen, connect_seconds=min(chosen.connect_seconds, within_seconds))
            return Connection(address, token=token, tls=tls, volume=volume, role=role, options=fitting, clock=clock)

        self._connect = connect
        self._breaker = Breaker()
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._closed = threading.Event()

    @property
    def healthy(self) -> bool:
        """Tell whether the last attempt to reach the server did not fail, or it may be tried again by now."""
        return self._breaker.allows(self._clock())

    def connection(self, within_seconds: float = WITHIN_SECONDS) -> Connection:
        """Return a connection that can be used. Raises UnavailableError, at once when attempts just failed."""
        found = self._connection
        if found is not None and found.usable:
            return found
        if not self._connecting.acquire(timeout=within_seconds):
            raise UnavailableError("server was not reached in time", where=self.address)
        try:
            found = self._connection
            if found is not None and found.usable:
                return found
            return self._connected_anew(within_seconds)
        finally:
            self._connecting.release()

    def _connected_anew(self, within_seconds: float) -> Connection:
        if self._closed.is_set():
            raise UnavailableError("the connection was closed", where=self.address)
        if not self._breaker.allows(self._clock()):
            raise UnavailableError("server did not answer a moment ago", where=self.address)
        try:
            made = self._connect(within_seconds)
        except StokerError:
            self._breaker.failed(self._clock())
            raise
        self._breaker.succeeded()
        with self._lock:  # one that was lost, or whose server leaves, ends by itself
            if not self._closed.is_set():
                self._connection = made
                return made
        made.close()
        raise UnavailableError("the connection was closed", where=self.address)

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
        """Ask, wait, and return the answer with its payload.

        While time is left an idempotent operation is tried again when the connection was lost, or the server says
        that it may be. Raises what the server's handler raised, and UnavailableError.
        """
        begun = self._clock()
        until = begun + within_seconds
        pause_seconds = PAUSE_SECONDS_MIN
        while True:
            left_seconds = max(0.001, until - self._clock())
            connection: Connection | None = None
            try:
                connection = self.connection(left_seconds)
                return connection.call(
                    operation,
                    request,
                    parts,
                    within_seconds=left_seconds,
                    answer_bytes_max=answer_bytes_max,
                    trace=trace,
                )
            except (UnavailableError, TransientError) as error:
                # What a server says over a connection that stands is its answer; only it knows what is not available.
                answered = connection is not None and connection.usable and not isinstance(error, TransientError)
                if answered or not operation.idempotent or self._clock() + pause_seconds >= until:
                    raise
                unreached = connection is None and self._clock() - begun >= self._unreached_seconds
                if unreached or self._closed.is_set():
                    raise
            self._pause(pause_seconds)
            pause_seconds = min(PAUSE_SECONDS_MAX, 2 * pause_seconds)

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
        """Ask once, and return what will be the answer."""
        return self.connection(within_seconds).begin(
            operation,
            request,
            parts,
            within_seconds=within_seconds,
            answer_bytes_max=answer_bytes_max,
            trace=trace,
        )

    def begin_now(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes] = (),
        *,
        finish: Callable[[A, memoryview], T],
        again: Callable[[float], T],
        within_seconds: float = WITHIN_SECONDS,
        answer_bytes_max: int | None = None,
    ) -> Begun[T] | None:
        """Ask over the connection that there is, without waiting for anything; None where that cannot be.

        See `Begun` for `finish` and `again`. Only for operations that are idempotent.
        """
        connection = self._connection
        if connection is None or not connection.usable:
            return None
        until = self._clock() + within_seconds
        future = connection.begin_now(
            operation, request, parts, within_seconds=within_seconds, answer_bytes_max=answer_bytes_max
        )
        if future is None:
            return None
        return Begun(
            future=future, finish=finish, again=again, usable=lambda: connection.usable, until=until,
            clock=self._clock, address=self.address,
        )  # fmt: skip

    def close(self) -> None:
        """End the connection. Twice is harmless."""
        with self._lock:
            self._closed.set()
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
