"""A socket as what the wire needs: bytes whole or not at all, within a time, without trusting the peer to go on."""

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from stoker.core.errors import ShortReadError, StokerError, UnavailableError
from stoker.core.units import KiB
from stoker.fs.wire.faults import UntrustedError
from stoker.fs.wire.operations import Bytes, FileSpan

_TICK_SECONDS: Final = 0.25
"""How long a thread waits for a peer before it looks at the time again."""
_BUFFER_BYTES: Final = 64 * KiB
_TLS_PIECE_BYTES: Final = 256 * KiB
_SPANS_AT_ONCE: Final = 512
"""Below the kernel's limit of pieces in one call (IOV_MAX, 1024)."""
Clock = Callable[[], float]


class StreamClosed(Exception):
    """The peer ended the connection, or it broke."""


class Stream:
    """A connected socket. One thread may receive while another sends. Times are those of `clock`, in seconds."""

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        self.socket = connected
        self.clock = clock
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._pollers: dict[int, select.poll] = {}
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)

    # -- receiving

    def wait(self, seconds: float) -> bool:
        """Return whether something to receive came, or the end, within the time."""
        return self._end > self._start or self._poll(select.POLLIN, seconds)

    def receive(self, view: memoryview, until: float) -> None:
        """Fill `view` with what comes. Raises StreamClosed, and UnavailableError when it did not come in time."""
        filled = self._from_buffer(view)
        while filled < view.nbytes:
            if view.nbytes - filled >= _BUFFER_BYTES:
                filled += self._some(view[filled:], until)
            else:
                self._start, self._end = 0, self._some(self._view, until)
                filled += self._from_buffer(view[filled:])

    def _from_buffer(self, view: memoryview) -> int:
        count = min(self._end - self._start, view.nbytes)
        view[:count] = self._view[self._start : self._start + count]
        self._start += count
        return count

    def _some(self, view: memoryview, until: float) -> int:
        while True:
            try:
                count = self._receive_now(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait_for(select.POLLIN, until, "peer stopped sending")
                continue
            except (OSError, ValueError) as error:
                raise StreamClosed(str(error)) from error
            if count == 0:
                raise StreamClosed("the peer closed the connection")
            return count

    def _receive_now(self, view: memoryview) -> int:
        return self.socket.recv_into(view)

    # -- sending

    def send_now(self, parts: Sequence[Bytes]) -> int:
        """Send what the kernel takes at once, and return how many bytes that were. Raises StreamClosed."""
        try:
            return self._send_now(parts[:_SPANS_AT_ONCE])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError) as error:
            raise StreamClosed(str(error)) from error

    def _send_now(self, parts: Sequence[Bytes]) -> int:
        return self.socket.sendmsg(parts)

    def send(self, parts: Sequence[Bytes], stall_seconds: float) -> None:
        """Send all parts. Raises StreamClosed, and UnavailableError for a peer that takes nothing for so long."""
        left = list(parts)
        until = self.clock() + stall_seconds
        while left:
            sent = self.send_now(left)
            left = behind(left, sent)
            if sent:
                until = self.clock() + stall_seconds
            elif left:
                self._wait_for(select.POLLOUT, until, "peer takes nothing")

    def send_span(self, span: FileSpan, stall_seconds: float) -> None:
        """Send a part of a file. Raises ShortReadError when the file ends before it, OSError when it cannot be read,
        else as `send`.
        """
        offset, left = span.offset, span.length
        until = self.clock() + stall_seconds
        while left:
            try:
                sent = self._send_span_now(span.descriptor, offset, left)
            except BlockingIOError:
                self._wait_for(select.POLLOUT, until, "peer takes nothing")
                continue
            except OSError as error:
                if error.errno == errno.EIO:
                    raise  # the file's fault: sockets have other numbers
                raise StreamClosed(str(error)) from error
            if sent == 0:
                raise ShortReadError("file ends early", expected=f"{left} bytes more at {offset}")
            offset, left = offset + sent, left - sent
            until = self.clock() + stall_seconds

    def _send_span_now(self, descriptor: int, offset: int, count: int) -> int:
        return os.sendfile(self.socket.fileno(), descriptor, offset, count)

    # -- both

    def _wait_for(self, event: int, until: float, what: str) -> None:
        while not self._poll(event, min(_TICK_SECONDS, max(0.0, until - self.clock()))):
            if self.clock() >= until:
                raise UnavailableError(what)

    def _poll(self, event: int, seconds: float) -> bool:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise StreamClosed("closed here")
        poller = self._pollers.get(event)
        if poller is None:  # one for each event: one thread at a time waits to receive, and one to send
            poller = self._pollers[event] = select.poll()
            poller.register(descriptor, event)
        return bool(poller.poll(seconds * 1000))

    def shut(self) -> None:
        """End the connection both ways: threads that wait on it wake. The descriptor stays until `close`."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; only when no other thread uses it any more. Twice is harmless."""
        self.shut()
        self.socket.close()


class TlsStream(Stream):
    """The same with TLS. OpenSSL allows one thread at a time in a connection, so nobody waits inside of it."""

    def __init__(self, connected: ssl.SSLSocket, clock: Clock) -> None:
        super().__init__(connected, clock)
        self._tls = connected
        self._inside = threading.Lock()

    def wait(self, seconds: float) -> bool:
        """Return whether something to receive came, or the end, within the time."""
        return self._end > self._start or self._tls.pending() > 0 or self._poll(select.POLLIN, seconds)

    def agree(self, until: float) -> None:
        """Do the handshake of TLS. Raises UnavailableError when it fails."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._wait_for(select.POLLIN, until, "peer stopped in the handshake of TLS")
            except ssl.SSLWantWriteError:
                self._wait_for(select.POLLOUT, until, "peer stopped in the handshake of TLS")
            except (OSError, ValueError) as error:
                raise UntrustedError("TLS was not agreed on", got=_reason(error), remedy=_remedy(error)) from error

    def first_bytes(self, count: int, until: float) -> bytes:
        """Return what the peer sends first, before any handshake; it stays to be read. Raises as `receive`."""
        self._wait_for(select.POLLIN, until, "peer stopped sending")
        try:
            return socket.socket.recv(self._tls, count, socket.MSG_PEEK)
        except OSError as error:
            raise StreamClosed(str(error)) from error

    def say_plainly(self, data: bytes) -> None:
        """Send to a peer that speaks no TLS, before any handshake; what the kernel does not take at once is left."""
        with suppress(OSError):
            socket.socket.send(self._tls, data)

    def refuse(self, within_seconds: float) -> None:
        """End a connection that was not agreed on: what the peer sent meanwhile is taken, or it would not hear why."""
        until = self.clock() + within_seconds
        with suppress(OSError, StreamClosed):
            self._tls.shutdown(socket.SHUT_WR)
            while (left := until - self.clock()) > 0 and self._poll(select.POLLIN, left):
                if not self.socket.recv(_BUFFER_BYTES):
                    return

    def _receive_now(self, view: memoryview) -> int:
        with self._inside:
            return self._tls.recv_into(view)

    def _send_now(self, parts: Sequence[Bytes]) -> int:
        piece = memoryview(parts[0]).cast("B")[:_TLS_PIECE_BYTES] if len(parts[0]) else b""
        if not piece:
            return 0
        with self._inside:
            return self._tls.send(piece)

    def _send_span_now(self, descriptor: int, offset: int, count: int) -> int:
        data = os.pread(descriptor, min(count, _TLS_PIECE_BYTES), offset)
        with self._inside:
            try:
                return self._tls.send(data) if data else 0
            except ssl.SSLWantWriteError as error:
                raise BlockingIOError from error


def behind(parts: list[Bytes], sent: int) -> list[Bytes]:
    """Return what of the parts comes behind the first `sent` bytes."""
    for index, part in enumerate(parts):
        size = memoryview(part).nbytes
        if sent < size:
            rest: Bytes = memoryview(part).cast("B")[sent:] if sent else part
            return [rest, *parts[index + 1 :]]
        sent -= size
    return []


def tls_stream(connected: socket.socket, context: ssl.SSLContext, host: str | None, clock: Clock) -> TlsStream:
    """Return a stream whose handshake of TLS is still to come; `host` is the server's name, None at the server."""
    connected.setblocking(False)
    wrapped = context.wrap_socket(
        connected, server_side=host is None, server_hostname=host, do_handshake_on_connect=False
    )
    return TlsStream(wrapped, clock)


def _reason(error: Exception) -> str:
    """Return in OpenSSL's words why, without where in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate of the server: {error.verify_message}"
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return reason.replace("_", " ").lower()[:200] if reason.isupper() or "_" in reason else reason[:200]


def _remedy(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "name the authority that signed it, and the host by the name in it; or have it issued anew"
    return "look whether the other end speaks TLS"


def told_closed(error: StreamClosed) -> StokerError | None:
    """Return what a server means that ended the hello by an alert of TLS, None when it said nothing."""
    cause = error.__cause__
    if not isinstance(cause, ssl.SSLError) or "ALERT" not in (cause.reason or ""):
        return None
    wanted = "CERTIFICATE_REQUIRED" in str(cause.reason)
    what = "the server asks for a certificate" if wanted else "the server does not believe the certificate"
    return UntrustedError(what, got=_reason(cause), remedy="give --tls-cert and --tls-key, signed by its authority")


def certificate_name(stream: Stream) -> str:
    """Return the common name in the peer's verified certificate, empty where there is none."""
    if not isinstance(stream.socket, ssl.SSLSocket):
        return ""
    subject: Any = (stream.socket.getpeercert() or {}).get("subject", ())
    return next((str(value) for group in subject for key, value in group if key == "commonName"), "")
