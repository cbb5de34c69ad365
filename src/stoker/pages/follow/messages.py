"""What follower and server say to each other on a socket.

A message is a little-endian u32 length of a MessagePack map, a u64 length of the bytes behind it, then both. The first
message of a client carries the token; the server answers it with what the store is, or closes.
"""

import select
import socket
import struct
from typing import Any, Final

import msgspec

from stoker.pages.errors import FormatError, PagesError

PROTOCOL: Final = 1
_LENGTHS: Final = struct.Struct("<IQ")
_HEAD_BYTES_MAX: Final = 1 << 20
_BODY_BYTES_MAX: Final = 1 << 32
_MESSAGE_SECONDS: Final = 60.0
Head = dict[str, Any]


class ConnectionLost(PagesError):
    """The other side is gone, or said what it may not."""


def prompt(connection: socket.socket) -> socket.socket:
    """Have a connection send at once: a short message else waits for the other side's delayed acknowledgement."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send(connection: socket.socket, head: Head, body: bytes | memoryview = b"") -> None:
    """Send one message. Raises ConnectionLost."""
    encoded = msgspec.msgpack.encode(head)
    try:
        connection.sendall(_LENGTHS.pack(len(encoded), len(body)) + encoded)
        if len(body):
            connection.sendall(body)
    except OSError as error:
        raise ConnectionLost("connection is lost", got=str(error)) from error


def receive(connection: socket.socket, *, body_bytes_max: int = _BODY_BYTES_MAX) -> tuple[Head, bytearray]:
    """Return the next message. Raises ConnectionLost, FormatError for lengths nobody sends; TimeoutError passes."""
    head_bytes, body_bytes = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    if head_bytes > _HEAD_BYTES_MAX or body_bytes > body_bytes_max:
        raise FormatError("message is too long", got=f"{head_bytes} and {body_bytes} bytes")
    try:
        head = msgspec.msgpack.decode(_exactly(connection, head_bytes), type=Head)
    except msgspec.MsgspecError as error:
        raise FormatError("message cannot be read", got=str(error)) from error
    return head, _exactly(connection, body_bytes)


def receive_within(connection: socket.socket, timeout_seconds: float) -> tuple[Head, bytearray] | None:
    """Return the next message, None when none begins in time: one that began is waited for, else the next could not
    be told from its middle. Raises ConnectionLost, FormatError."""
    connection.settimeout(_MESSAGE_SECONDS)
    readable, _, _ = select.select([connection], [], [], max(0.0, timeout_seconds))
    if not readable:
        return None
    try:
        return receive(connection)
    except TimeoutError as error:
        raise ConnectionLost("connection fell silent in the middle of a message") from error


def _exactly(connection: socket.socket, size_bytes: int) -> bytearray:
    """Return so many bytes; memory grows with what comes, not with what was promised."""
    received = bytearray()
    while len(received) < size_bytes:
        try:
            piece = connection.recv(min(size_bytes - len(received), 1 << 20))
        except TimeoutError:
            if received:
                raise ConnectionLost("connection fell silent in the middle of a message") from None
            raise
        except OSError as error:
            raise ConnectionLost("connection is lost", got=str(error)) from error
        if not piece:
            raise ConnectionLost("other side closed the connection")
        received += piece
    return received
