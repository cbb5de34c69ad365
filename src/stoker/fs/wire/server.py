"""A server of operations over TCP: one reading thread for each connection, and workers that all of them share.

Memory is bounded by `budget_bytes` for what is under way: room for a request and its answer is set aside before its
payload is received, and a client whose request finds none waits, for its bytes stay in the kernel's buffers.
"""

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Final, Self

import msgspec

from stoker.core.errors import UnavailableError
from stoker.core.units import MiB
from stoker.fs.wire.budget import Budget, BufferPool
from stoker.fs.wire.frames import PAYLOAD_BYTES_MAX
from stoker.fs.wire.handshake import Host
from stoker.fs.wire.keys import Tls, address_text, check_token, may_listen
from stoker.fs.wire.operations import Handlers
from stoker.fs.wire.serving import ServedConnection, Serving
from stoker.fs.wire.streams import Clock, Stream, tls_stream
from stoker.fs.wire.workers import Workers

_ACCEPT_SECONDS: Final = 0.2
_BACKLOG: Final = 256
_log: Final = logging.getLogger("stoker.fs.wire")


class ServerOptions(msgspec.Struct, frozen=True):
    """How much a server takes on at once."""

    workers: int = 16
    connections_max: int = 1024
    strangers_max: int = 64
    """Connections whose hello is not over."""
    window_bytes: int = 2 * PAYLOAD_BYTES_MAX
    """Payloads of one client's requests that are under way."""
    requests_max: int = 256
    budget_bytes: int = 512 * MiB
    """Requests and answers of all clients that are under way."""
    silence_seconds: float = 10.0
    """A peer that says or takes nothing for so long is lost."""


class RpcServer:
    """Serves operations until it is closed; `address` tells where.

    Raises UsageError for an address beyond loopback without a token or clients' certificates, UnavailableError for
    one that cannot be had.
    """

    def __init__(  # noqa: PLR0913 - each by its name
        self,
        handlers: Handlers,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tls: Tls | None = None,
        volume: str = "",
        options: ServerOptions | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        chosen = options or ServerOptions()
        may_listen(host, token if token is None else check_token(token, "token of the server"), tls)
        self._tls, self._options, self._stopping = tls, chosen, threading.Event()
        greeting = Host(volume, token, chosen.window_bytes, chosen.requests_max, chosen.silence_seconds)
        self._serving = Serving(
            host=greeting,
            handlers={operation.code: (operation, handler) for operation, handler in handlers.items()},
            budget=Budget(chosen.budget_bytes),
            pool=BufferPool(),
            workers=Workers(chosen.workers, "stoker-wire-work"),
            clock=clock,
            report=_report,
            stopping=self._stopping.is_set,
        )
        assert len(self._serving.handlers) == len(handlers), "two operations have one number"
        self._connections: dict[ServedConnection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._listener = _listen(host, port)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._accepter = threading.Thread(target=self._accept, daemon=True, name="stoker-wire-accept")
        self._accepter.start()

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    @property
    def taken_bytes(self) -> int:
        """Return how many bytes of requests and answers are under way."""
        return self._serving.budget.taken_bytes

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                accepted, where = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._stopping.is_set():
                    return
                _log.warning("a connection could not be accepted: %s", error)
                self._stopping.wait(_ACCEPT_SECONDS)  # such as no descriptors left: others may give some back
                continue
            if not self._admits():
                accepted.close()
                continue
            self._serve(accepted, address_text(str(where[0]), int(where[1])))

    def _admits(self) -> bool:
        with self._lock:
            known = sum(connection.greeted for connection in self._connections)
            strangers = len(self._connections) - known
        return known < self._options.connections_max and strangers < self._options.strangers_max

    def _serve(self, accepted: socket.socket, address: str) -> None:
        try:
            stream = (
                Stream(accepted, self._serving.clock)
                if self._tls is None
                else tls_stream(accepted, self._tls.current(), None, self._serving.clock)
            )
        except (OSError, ValueError):  # it is gone already
            accepted.close()
            return
        connection = ServedConnection(stream, address, self._serving)
        thread = threading.Thread(target=self._run, args=(connection, stream), daemon=True, name="stoker-wire-read")
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left: others may give some back
            with self._lock:
                del self._connections[connection]
            stream.close()
            _log.warning("a connection could not be served: %s", error)

    def _run(self, connection: ServedConnection, stream: Stream) -> None:
        try:
            connection.run()
        except Exception as error:  # one client's connection must never end the others'
            _report("a connection", error)
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            stream.close()

    def close(self, grace_seconds: float = 5.0) -> None:
        """Take no more requests, finish those under way within the grace, and end. Twice is harmless."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._serving.budget.wake()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._accepter.join()
        self._listener.close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.say_goodbye()
        self._finish(list(connections), grace_seconds)
        for connection in connections:
            connection.cut()
        for thread in connections.values():
            thread.join()
        self._serving.workers.end(grace_seconds)

    def _finish(self, connections: list[ServedConnection], grace_seconds: float) -> None:
        """Wait until nothing is under way, or the grace is over."""
        until = self._serving.clock() + grace_seconds
        while any(connection.busy for connection in connections) and self._serving.clock() < until:
            time.sleep(0.01)
        for connection in connections:
            connection.drain(max(0.0, until - self._serving.clock()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UnavailableError(
            "address cannot be listened on", where=address_text(host, port), got=error.strerror or str(error)
        ) from error
    listener.settimeout(_ACCEPT_SECONDS)
    return listener


def _report(doing: str, error: BaseException) -> None:
    _log.error("%s failed", doing, exc_info=error)
