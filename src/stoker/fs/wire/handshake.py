"""The hello: which version is spoken, for which volume, and whether both have the token."""

import secrets
from typing import Final, NamedTuple, NoReturn, TypeVar

from stoker.core.errors import CorruptError, DeniedError, PreflightError, StokerError
from stoker.fs.wire.faults import error_of, fault_of
from stoker.fs.wire.frames import (
    HEADER_BYTES_MAX,
    HELLO_BYTES_MAX,
    PREFIX_BYTES,
    FrameType,
    Prefix,
    check_header,
    frame_head,
    read_prefix,
)
from stoker.fs.wire.keys import client_proof, server_proof
from stoker.fs.wire.messages import (
    NONCE_BYTES,
    ROLE_CHARACTERS_MAX,
    VERSION_MAX,
    VERSION_MIN,
    Challenge,
    Fault,
    Hello,
    Proof,
    Welcome,
    pack,
    unpack,
)
from stoker.fs.wire.streams import Stream

HELLO_SECONDS: Final = 5.0
"""Within which a hello must be over: who says nothing, or a byte a second, holds a thread no longer."""
_SEND_SECONDS: Final = 5.0
M = TypeVar("M")


class Head(NamedTuple):
    """A frame up to its payload, verified."""

    prefix: Prefix
    header: bytes


class Host(NamedTuple):
    """What a server is to those who greet it."""

    volume: str
    token: str | None
    window_bytes: int
    requests_max: int
    silence_seconds: float


def receive_head(stream: Stream, until: float, header_bytes_max: int = HEADER_BYTES_MAX) -> Head:
    """Return the next frame up to its payload, verified. Raises CorruptError for what is none, and as the stream."""
    prefix_bytes = bytearray(PREFIX_BYTES)
    stream.receive(memoryview(prefix_bytes), until)
    prefix = read_prefix(prefix_bytes)
    if prefix.header_bytes > header_bytes_max:
        raise CorruptError("header of a frame is too large", expected=f"{header_bytes_max} bytes at most")
    header = bytearray(prefix.header_bytes)
    stream.receive(memoryview(header), until)
    check_header(prefix, header)
    return Head(prefix, bytes(header))


class _Talk:
    """The frames of one hello, and all that was said in it: what both proofs cover."""

    def __init__(self, stream: Stream, until: float) -> None:
        self._stream, self._until = stream, until
        self.said = bytearray()

    def say(self, kind: FrameType, message: object) -> None:
        data = frame_head(kind, 0, pack(message))
        self.said += data
        self._stream.send([data], _SEND_SECONDS)

    def hear(self) -> Head:
        head = receive_head(self._stream, self._until, HELLO_BYTES_MAX)
        if head.prefix.payload_bytes or head.prefix.request:
            raise CorruptError("frame of a hello has a payload or a number")
        self.said += frame_head(head.prefix.type, 0, head.header, flags=head.prefix.flags)
        return head


def greet(stream: Stream, hello: Hello, token: str | None, until: float) -> Welcome:
    """Greet a server and return its welcome.

    Raises DeniedError without the token, or when the server has not got it, PreflightError for a server of another
    version, and what else it refuses with.
    """
    talk = _Talk(stream, until)
    talk.say(FrameType.HELLO, hello)
    head = talk.hear()
    if head.prefix.type == FrameType.CHALLENGE:
        if token is None:
            raise DeniedError("the server asks for a token", remedy="give --token-file or STOKER_FS_TOKEN")
        unpack(head.header, Challenge)
        talk.say(FrameType.PROOF, Proof(client_proof(token, bytes(talk.said))))
        before = bytes(talk.said)
        head = talk.hear()
    else:
        before = b""
    welcome = _expect(head, FrameType.WELCOME, Welcome)
    if token is not None and not (before and secrets.compare_digest(welcome.proof, server_proof(token, before))):
        raise DeniedError("the server did not prove that it has the token")
    _check_version(hello, welcome.version)
    if hello.volume and welcome.volume not in {"", hello.volume}:
        raise DeniedError("the server belongs to another volume", expected=hello.volume, got=welcome.volume[:64])
    return welcome


def _check_version(hello: Hello, version: int) -> None:
    if not hello.version_min <= version <= hello.version_max:
        _refuse_version(f"{hello.version_min} to {hello.version_max}", str(version))


def _refuse_version(expected: str, got: str) -> NoReturn:
    raise PreflightError("peers speak no version in common", expected=f"version {expected}", got=got)


def _expect(head: Head, kind: FrameType, message: type[M]) -> M:
    if head.prefix.type == FrameType.FAULT:
        raise error_of(unpack(head.header, Fault))
    if head.prefix.type != kind:
        raise CorruptError("hello out of order", expected=kind.name, got=head.prefix.type.name)
    return unpack(head.header, message)


def new_hello(volume: str, role: str) -> Hello:
    """Return the hello of this version, with a nonce that was never used."""
    return Hello(VERSION_MIN, VERSION_MAX, volume, role, secrets.token_bytes(NONCE_BYTES))


def admit(stream: Stream, host: Host, until: float) -> Hello:
    """Hear a client's hello and welcome it. An error is told to the client, and raised."""
    talk = _Talk(stream, until)
    try:
        hello = _expect(talk.hear(), FrameType.HELLO, Hello)
        version = _agreed(hello, host)
        proof = b""
        if host.token is not None:
            talk.say(FrameType.CHALLENGE, Challenge(version, secrets.token_bytes(NONCE_BYTES)))
            wanted = client_proof(host.token, bytes(talk.said))
            if not secrets.compare_digest(_expect(talk.hear(), FrameType.PROOF, Proof).proof, wanted):
                raise DeniedError("the token is wrong")
            proof = server_proof(host.token, bytes(talk.said))
        talk.say(
            FrameType.WELCOME,
            Welcome(version, host.volume, host.window_bytes, host.requests_max, host.silence_seconds, proof),
        )
        return hello
    except StokerError as error:
        stream.send_now([frame_head(FrameType.FAULT, 0, pack(fault_of(error, "the hello")))])
        raise


def _agreed(hello: Hello, host: Host) -> int:
    """Return the version that is spoken: the greatest that both know."""
    version = min(VERSION_MAX, hello.version_max)
    if version < max(VERSION_MIN, hello.version_min):
        _refuse_version(f"{VERSION_MIN} to {VERSION_MAX}", f"{hello.version_min} to {hello.version_max}")
    if (
        len(hello.nonce) != NONCE_BYTES
        or len(hello.role) > ROLE_CHARACTERS_MAX
        or len(hello.volume) > ROLE_CHARACTERS_MAX
    ):
        raise CorruptError("hello is not readable")
    if hello.volume and host.volume and hello.volume != host.volume:
        raise DeniedError("this server belongs to another volume", expected=host.volume, got=hello.volume)
    return version
