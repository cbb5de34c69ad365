"""Operations, handlers and raw connections that the tests of the wire share."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from stoker.core.errors import NoSpaceError
from stoker.fs.meta.faults import MetaError
from stoker.fs.wire import Asker, FileSpan, FileSpans, Operation
from stoker.fs.wire.frames import PREFIX_BYTES, FrameType, Prefix, frame_head, read_prefix
from stoker.fs.wire.handshake import new_hello
from stoker.fs.wire.messages import Hello, pack

TOKEN = "a token of many characters"


class Number(msgspec.Struct, frozen=True):
    number: int
    text: str = ""


ECHO = Operation(1, "echo", Number, Number, payload_bytes_max=8 << 20, answer_bytes_max=8 << 20, idempotent=True)
QUICK = Operation(2, "quick", Number, Number, quick=True, idempotent=True)
FAIL = Operation(3, "fail", Number, Number)
WAIT = Operation(4, "wait", Number, Number, payload_bytes_max=8 << 20, idempotent=True)
FILE = Operation(5, "file", Number, Number, own_checksums=True)
UNKNOWN = Operation(6, "unknown", Number, Number)


class Room:
    """Handlers, and the gate that lets the waiting ones go on."""

    def __init__(self, descriptor: int = -1) -> None:
        self.gate = threading.Event()
        self.begun: list[int] = []
        self.given_back = 0
        self._descriptor = descriptor

    def handlers(self) -> dict[Operation[Any, Any], Callable[..., Any]]:
        return {
            ECHO: lambda asked, payload, asker: (asked, [payload]),
            QUICK: lambda asked, payload, asker: (asked, ()),
            FAIL: self._fail,
            WAIT: self._wait,
            FILE: self._file,
        }

    def _fail(self, asked: Number, payload: memoryview, asker: Asker) -> tuple[Number, tuple[()]]:
        if asked.number == 0:
            raise NoSpaceError("disk is full", where="here", expected="room", got="none", remedy="delete something")
        if asked.number == 1:
            raise MetaError("lookup was refused", errno=2, where="/name")
        raise RuntimeError("the secret is 1234")

    def _wait(self, asked: Number, payload: memoryview, asker: Asker) -> tuple[Number, tuple[()]]:
        self.begun.append(asked.number)
        assert self.gate.wait(20)
        return asked, ()

    def _file(self, asked: Number, payload: memoryview, asker: Asker) -> tuple[Number, FileSpans]:
        half = asked.number // 2
        spans = [FileSpan(self._descriptor, 0, half), FileSpan(self._descriptor, half, asked.number - half)]
        return asked, FileSpans(spans, self._back)

    def _back(self) -> None:
        self.given_back += 1


def address_of(server: Any) -> str:
    return f"127.0.0.1:{server.address[1]}"


class Raw:
    """A client that sends whatever bytes it likes."""

    def __init__(self, server: Any, *, greeted: bool = True) -> None:
        self.socket = socket.create_connection(server.address, timeout=10)
        if greeted:
            self.greet(new_hello("", "raw"))
            assert self.frame()[0].type == FrameType.WELCOME

    def greet(self, hello: Hello) -> None:
        self.socket.sendall(frame_head(FrameType.HELLO, 0, pack(hello)))

    def exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def frame(self) -> tuple[Prefix, bytes]:
        prefix = read_prefix(self.exactly(PREFIX_BYTES))
        return prefix, self.exactly(prefix.header_bytes)

    def ended(self) -> bool:
        """Whether the server ends the connection, whatever it says before."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
