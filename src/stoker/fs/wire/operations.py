"""Operations: what can be asked over a connection, as values that both ends share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from stoker.core.units import KiB
from stoker.fs.wire.frames import PAYLOAD_BYTES_MAX

Bytes = bytes | bytearray | memoryview
Q = TypeVar("Q")
A = TypeVar("A")
BODY_BYTES_MAX: Final = 256 * KiB


class Operation(Generic[Q, A]):
    """One thing that can be asked: its number, and what goes there and comes back.

    `payload_bytes_max` and `answer_bytes_max` bound the raw bytes, `body_bytes_max` the structs: nothing larger is
    received, and room for an answer is set aside before its request is read. With `own_checksums` the payloads, both
    ways, are verified by whoever uses them (cells have checksums of their own), so the frames carry none. A `quick`
    operation waits for nothing, and is done by the thread that reads the connection. An `idempotent` one may be asked
    again when nobody knows whether it was done.
    """

    def __init__(  # noqa: PLR0913 - a row of a table, each by its name
        self,
        code: int,
        name: str,
        request_type: type[Q],
        answer_type: type[A],
        *,
        payload_bytes_max: int = 0,
        answer_bytes_max: int = 0,
        body_bytes_max: int = BODY_BYTES_MAX,
        own_checksums: bool = False,
        quick: bool = False,
        idempotent: bool = False,
    ) -> None:
        assert 0 < code < 2**16
        assert max(payload_bytes_max, answer_bytes_max) + body_bytes_max <= PAYLOAD_BYTES_MAX
        self.code, self.name = code, name
        self.request_type, self.answer_type = request_type, answer_type
        self.payload_bytes_max, self.answer_bytes_max = payload_bytes_max, answer_bytes_max
        self.body_bytes_max = body_bytes_max
        self.own_checksums, self.quick, self.idempotent = own_checksums, quick, idempotent
        self.request_decoder = msgspec.msgpack.Decoder(request_type)
        self.answer_decoder = msgspec.msgpack.Decoder(answer_type)

    def __repr__(self) -> str:
        """Return the name and the number."""
        return f"{self.name} ({self.code})"


class FileSpan(NamedTuple):
    """`length` bytes of an open file from `offset` on, to be sent without passing through this process."""

    descriptor: int
    offset: int
    length: int


def nothing(*_: object) -> None:
    """Do nothing: for whoever need not be told."""


class FileSpans(NamedTuple):
    """A payload of parts of files; `done` is called when they are sent or given up, to give the files back.

    `failed` is called before it when a file could not be read to the end of its part. The answer has begun by then,
    so its client sees the connection break; when it asks again the handler can tell it why.
    """

    spans: Sequence[FileSpan]
    done: Callable[[], None]
    failed: Callable[[Exception], None] = nothing


class Asker(NamedTuple):
    """Who asks: the address, what it says it is, the volume it works for, and the name in its certificate, if any.

    `within_seconds` is how long it will still wait for the answer, `room_bytes` how many raw bytes that may hold.
    """

    address: str
    role: str
    volume: str
    certificate: str
    within_seconds: float
    trace: str
    room_bytes: int = 0


Payload = Sequence[Bytes] | FileSpans
Handler = Callable[[Any, memoryview, Asker], tuple[Any, Payload]]
"""Answers a request. The memoryview is lent until the handler returns."""
Handlers = Mapping[Operation[Any, Any], Handler]
