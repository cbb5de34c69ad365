"""The bytes of frames and of the hello: what is sent today must be understood by what was installed before."""

import hashlib
import hmac
import struct

import msgspec
import pytest
from wire_peers import TOKEN

from stoker.core import errors
from stoker.core.errors import CorruptError, PreflightError, StokerError
from stoker.fs.meta.faults import MetaError
from stoker.fs.wire.faults import error_of, fault_of, let_travel
from stoker.fs.wire.frames import (
    BODY_IN_PAYLOAD,
    PAYLOAD_BYTES_MAX,
    PREFIX_BYTES,
    FrameType,
    check_header,
    frame_head,
    read_prefix,
)
from stoker.fs.wire.keys import client_proof, server_proof
from stoker.fs.wire.messages import (
    AnswerHead,
    Challenge,
    Fault,
    Hello,
    Proof,
    RequestHead,
    Welcome,
    pack,
    unpack,
)

NONCE = bytes(range(32))
BODY = bytes.fromhex("82a66e756d62657201a474657874a0")
GOLDEN = {
    "ping": (FrameType.PING, 0, None, 0, 0, "57460108000000000000000000000000000000000ca9df0d"),
    "hello": (
        FrameType.HELLO,
        0,
        Hello(1, 1, "v", "client", NONCE),
        0,
        0,
        (
            "5746010100000058000000000000000000000000f4421f4c"
            "85ab76657273696f6e5f6d696e01ab76657273696f6e5f6d617801a6766f6c756d65a176a4726f6c65a6636c69656e74"
            "a56e6f6e6365c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        ),
    ),
    "challenge": (
        FrameType.CHALLENGE,
        0,
        Challenge(1, NONCE),
        0,
        0,
        (
            "57460102000000320000000000000000000000000cf7c4ac"
            "82a776657273696f6e01a56e6f6e6365c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        ),
    ),
    "welcome": (
        FrameType.WELCOME,
        0,
        Welcome(1, "v", 1 << 20, 256, 10.0, b"p"),
        0,
        0,
        (
            "5746010400000057000000000000000000000000ef75511c"
            "86a776657273696f6e01a6766f6c756d65a176ac77696e646f775f6279746573ce00100000ac72657175657374735f6d6178cd0100"
            "af73696c656e63655f7365636f6e6473cb4024000000000000a570726f6f66c40170"
        ),
    ),
    "request": (
        FrameType.REQUEST,
        7,
        RequestHead(2, 30000, 0, BODY),
        5,
        0,
        (
            "574601050000002f00000000000000070000000533aa32a9"
            "83a96f7065726174696f6e02a977697468696e5f6d73cd7530a4626f6479c40f82a66e756d62657201a474657874a0"
        ),
    ),
    "answer": (
        FrameType.ANSWER,
        7,
        AnswerHead(BODY, crc=5),
        5,
        BODY_IN_PAYLOAD,
        "574601060001001c000000000000000700000005e0537a2a82a4626f6479c40f82a66e756d62657201a474657874a0a363726305",
    ),
    "fault": (
        FrameType.FAULT,
        7,
        Fault("MetaError", "lookup was refused", errno=2),
        0,
        0,
        (
            "574601070000002f00000000000000070000000035f161fa"
            "83a46b696e64a94d6574614572726f72a477686174b26c6f6f6b7570207761732072656675736564a56572726e6f02"
        ),
    ),
}


def slow_crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, as RFC 3720 defines it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", GOLDEN)
def test_frames_keep_their_bytes(name: str) -> None:
    kind, request, message, payload_bytes, flags, text = GOLDEN[name]
    golden = bytes.fromhex(text)
    header = b"" if message is None else pack(message)
    assert frame_head(kind, request, header, payload_bytes, flags).hex() == text
    prefix = read_prefix(golden[:PREFIX_BYTES])
    check_header(prefix, golden[PREFIX_BYTES:])
    assert (prefix.type, prefix.request, prefix.payload_bytes, prefix.flags) == (kind, request, payload_bytes, flags)
    if message is not None:
        assert unpack(golden[PREFIX_BYTES:], type(message)) == message
    assert slow_crc32c(golden[:20] + golden[PREFIX_BYTES:]) == int.from_bytes(golden[20:PREFIX_BYTES], "big")


def test_the_prefix_is_laid_out_as_the_table_says() -> None:
    data = frame_head(FrameType.REQUEST, 0x0102030405060708, b"head", 0x01020304, 0x0A0B)
    fields = struct.unpack(">HBBHHQII", data[:24])
    assert fields[:7] == (0x5746, 1, 5, 0x0A0B, 4, 0x0102030405060708, 0x01020304)


def test_proofs_are_hmacs_of_all_that_was_said() -> None:
    digest = hashlib.sha256(b"said").digest()
    assert client_proof(TOKEN, b"said") == hmac.digest(TOKEN.encode(), b"stoker wire 1 client" + digest, "sha256")
    assert client_proof(TOKEN, b"said").hex() == "c6d2b3f27c8e206f9a4df1b9d51b6dbde74eb6eeb464cc0ba76d15064328dc9d"
    assert server_proof(TOKEN, b"said").hex() == "6625514b503f3ba140265ae190e092ad760cccb8281d3ca7d4275a8d477c8a9e"
    assert server_proof(TOKEN, b"other") != server_proof(TOKEN, b"said")


@pytest.mark.parametrize("kind", [Hello, Challenge, Proof, Welcome, RequestHead, AnswerHead, Fault])
def test_keys_that_are_not_known_are_ignored(kind: type[msgspec.Struct]) -> None:
    messages = [entry[2] for entry in GOLDEN.values()] + [Proof(b"p")]
    message = next(found for found in messages if type(found) is kind)
    keys = msgspec.msgpack.decode(pack(message)) | {"of_the_future": [1, {"a": None}]}
    assert unpack(msgspec.msgpack.encode(keys), kind) == message


@pytest.mark.parametrize(
    ("at", "value", "error", "told"),
    [
        (0, 0, CorruptError, "no frame"),
        (2, 2, PreflightError, "another version: expected 1, got 2"),
        (3, 0, CorruptError, "type that is not known"),
        (3, 11, CorruptError, "type that is not known"),
        (16, 0xFF, CorruptError, "too large"),
    ],
)
def test_prefixes_that_are_none_are_refused(at: int, value: int, error: type[StokerError], told: str) -> None:
    data = bytearray(frame_head(FrameType.REQUEST, 1, b"x"))
    data[at] = value
    with pytest.raises(error, match=told):
        read_prefix(data[:24])


def test_any_flipped_bit_of_prefix_or_header_is_noticed() -> None:
    data = frame_head(FrameType.REQUEST, 1, pack(RequestHead(2, 30)), 5)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StokerError):
            check_header(read_prefix(damaged[:24]), damaged[24:])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x91" * 60_000, b"\x81" * 60_000, b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xffx", b"\x80"],
)
def test_messages_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="message is not readable"):
        unpack(data, Hello)


def test_the_greatest_payload_holds_a_slice_and_what_describes_it() -> None:
    assert PAYLOAD_BYTES_MAX == (65 << 20) < 2**32


def test_every_kind_of_error_travels_by_its_name() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StokerError)]
    for kind in [*kinds, MetaError]:
        if kind is errors.InterruptedRunError:
            continue
        came = error_of(fault_of(kind("what", where="w", expected="e", got="g", remedy="r"), "x"))
        assert type(came) is kind
        assert str(came) == str(kind("what", where="w", expected="e", got="g", remedy="r"))


def test_errors_of_a_kind_that_is_not_known_come_as_the_nearest_that_is() -> None:
    class StrangeError(errors.NotFoundError):
        """Only this end knows it."""

    assert type(error_of(fault_of(StrangeError("gone"), "x"))) is errors.NotFoundError
    assert type(error_of(Fault("OSError", "what"))) is StokerError
    assert type(error_of(Fault("object", "what"))) is StokerError

    class WireTestError(StokerError):
        """Let travel."""

    let_travel(WireTestError)
    assert type(error_of(fault_of(WireTestError("x"), "y"))) is WireTestError
    assert len(error_of(Fault("StokerError", "x" * 10_000)).what) == 2000
