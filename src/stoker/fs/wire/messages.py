"""Headers of frames, as structs that travel as msgpack maps: unknown keys are ignored, so that versions may add some.

The hello: the client sends `Hello`; where the server has a token it answers `Challenge`, and the client `Proof`; the
server ends with `Welcome`. A server without one sends `Welcome` at once.
"""

from typing import Any, Final, TypeVar

import msgspec

from stoker.core.errors import CorruptError, UsageError

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
"""The versions of the conversation (which headers there are, and what they mean) that this code speaks."""
ROLE_CHARACTERS_MAX: Final = 64
NONCE_BYTES: Final = 32
M = TypeVar("M")


class Hello(msgspec.Struct, frozen=True):
    """What a client says first. `volume` is the uuid it works for, empty where it does not matter."""

    version_min: int
    version_max: int
    volume: str
    role: str
    nonce: bytes


class Challenge(msgspec.Struct, frozen=True):
    """What a server with a token answers: prove that you have it, too."""

    version: int
    nonce: bytes


class Proof(msgspec.Struct, frozen=True):
    """The client's proof."""

    proof: bytes


class Welcome(msgspec.Struct, frozen=True):
    """The server is ready; `proof` is its own, empty where it has no token.

    A client may have requests under way whose payloads are `window_bytes` together, and `requests_max` of them.
    """

    version: int
    volume: str
    window_bytes: int
    requests_max: int
    silence_seconds: float
    proof: bytes = b""


class RequestHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """Header of a request. `within_ms` is how long the caller waits: one that is older is not begun.

    `body` is the request itself, as msgpack of its own (so that a request that is none leaves a header that is one),
    unless `body_bytes` say that it lies in front of the payload.
    `answer_bytes_max` is what the caller has room for. `crc` is the CRC-32C of the payload; where that is made of cells
    that have their own it covers only the request in front of them.
    """

    operation: int
    within_ms: int
    answer_bytes_max: int = 0
    body: bytes = b""
    body_bytes: int = 0
    crc: int = 0
    trace: str = ""


class AnswerHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """Header of an answer; `body`, `body_bytes` and `crc` as in a request."""

    body: bytes = b""
    body_bytes: int = 0
    crc: int = 0


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request failed, or the whole connection where the request id is 0: an error, by the name of its class."""

    kind: str
    what: str
    where: str = ""
    expected: str = ""
    got: str = ""
    remedy: str = ""
    errno: int = 0


_encoder: Final = msgspec.msgpack.Encoder()


def pack(message: Any) -> bytes:
    """Return a header, request or answer as msgpack. Raises UsageError for numbers that it has no room for."""
    try:
        return _encoder.encode(message)
    except OverflowError as error:
        raise UsageError("message cannot be sent", where=type(message).__name__, got=str(error)) from error


def unpack(data: bytes | bytearray | memoryview, kind: type[M]) -> M:
    """Return the struct in these bytes. Raises CorruptError for others, however deeply they are nested."""
    return read_with(msgspec.msgpack.Decoder(kind), data, kind.__name__)


def read_with(decoder: msgspec.msgpack.Decoder[M], data: bytes | bytearray | memoryview, name: str) -> M:
    """Return what the decoder makes of bytes that a peer sent. Raises CorruptError for what they are not."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        raise CorruptError("message is not readable", expected=name, got=str(error)[:200]) from error
