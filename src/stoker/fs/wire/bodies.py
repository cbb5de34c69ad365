"""Where a request or an answer lies in its frame, and what its checksum covers: the same both ways."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import KiB
from stoker.fs.wire.frames import HEADER_BYTES_MAX
from stoker.fs.wire.messages import AnswerHead, RequestHead, pack
from stoker.fs.wire.operations import Bytes, Operation
from stoker.kernels.checking import crc32c

_IN_HEADER_BYTES_MAX: Final = HEADER_BYTES_MAX - 1 * KiB
"""A larger body goes in front of the payload; the rest is for the fields beside it."""
H = TypeVar("H", RequestHead, AnswerHead)


def with_body(head: H, body: bytes, parts: Sequence[Bytes], operation: Operation[Any, Any]) -> tuple[bytes, bytes]:
    """Return the header with its body and checksum, and what goes in front of the payload, if the body must.

    Raises UsageError for a body that is larger than the operation allows.
    """
    if len(body) > operation.body_bytes_max:
        raise UsageError(
            "message is too large",
            where=operation.name,
            expected=f"{operation.body_bytes_max} bytes at most",
            got=str(len(body)),
        )
    in_front = body if len(body) > _IN_HEADER_BYTES_MAX else b""
    crc = crc32c(in_front) if in_front else 0
    for part in () if operation.own_checksums else parts:
        crc = crc32c(part, crc)
    return pack(
        msgspec.structs.replace(head, body=b"" if in_front else body, body_bytes=len(in_front), crc=crc)
    ), in_front


def opened(
    head: RequestHead | AnswerHead, whole: memoryview, operation: Operation[Any, Any]
) -> tuple[Bytes, memoryview]:
    """Return the body and the payload of a frame. Raises CorruptError unless they are what the peer sent."""
    if not 0 <= head.body_bytes <= min(operation.body_bytes_max, whole.nbytes):
        raise CorruptError("message does not fit into its frame", where=operation.name)
    in_front, rest = whole[: head.body_bytes], whole[head.body_bytes :]
    found = crc32c(in_front if operation.own_checksums else whole)
    if found != head.crc:
        raise CorruptError(
            "payload is damaged", where=operation.name, expected=f"{head.crc:#010x}", got=f"{found:#010x}"
        )
    return in_front if head.body_bytes else head.body, rest
