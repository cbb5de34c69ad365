"""What clients and masters say to each other."""

from functools import reduce
from operator import or_
from typing import Any, Final

import msgspec

from stoker.core.errors import TransientError, UsageError
from stoker.core.units import MiB
from stoker.fs.meta import calls
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call, Caller
from stoker.fs.meta.machine import REQUESTS
from stoker.fs.wire import Operation, let_travel

CALLS_MAX: Final = 1024
"""How many calls one request may hold."""
_BODY_BYTES_MAX: Final = 8 * MiB


@let_travel
class NotLeadingError(TransientError):
    """Another master leads, or nobody yet; `got` holds the address of the leader as far as it is known."""


@let_travel
class StaleError(TransientError):
    """This master's copy is older than who asks allows."""


class Submit(msgspec.Struct, frozen=True, array_like=True):
    """Calls as they were packed, and the secret that shows that their sessions are the client's own.

    With `age_ns` questions may be answered by any master whose copy is no older than that.
    """

    calls: tuple[msgspec.Raw, ...]
    secret: bytes = b""
    age_ns: int = 0


class Submitted(msgspec.Struct, frozen=True, array_like=True):
    """The answers, the volume's revision, and how old the copy may be that they come from; 0 is fresh."""

    answers: tuple[Answer, ...]
    revision: int
    age_ns: int = 0


class Beat(msgspec.Struct, frozen=True):
    """A standby asks whether one lives."""

    name: str


class Alive(msgspec.Struct, frozen=True):
    """One lives: what one does, in which epoch."""

    role: str
    epoch: int


class Describe(msgspec.Struct, frozen=True):
    """Asks what the volume is."""


class Described(msgspec.Struct, frozen=True):
    """The volume's settings, as they are stored."""

    settings: bytes


class Status(msgspec.Struct, frozen=True):
    """Asks how a master is."""


class MasterStatus(msgspec.Struct, frozen=True):
    """How a master is: `entry` is the last one in its copy, `behind_entries` how many the log is ahead of it."""

    name: str
    address: str
    volume: str
    role: str
    leader: str
    epoch: int
    entry: int
    revision: int
    behind_entries: int
    age_seconds: float
    sessions: int
    snapshot_entry: int
    floor: int
    etcd: tuple[dict[str, Any], ...] = ()
    failure: str = ""


SUBMIT: Final = Operation(0x201, "submit", Submit, Submitted, body_bytes_max=_BODY_BYTES_MAX, idempotent=True)
BEAT: Final = Operation(0x202, "beat", Beat, Alive, quick=True, idempotent=True)
DESCRIBE: Final = Operation(0x203, "describe", Describe, Described, idempotent=True)
STATUS: Final = Operation(0x204, "status", Status, MasterStatus, idempotent=True)


class _Call(msgspec.Struct, frozen=True):
    """A call as it travels: the request is one of those that are known."""

    request: reduce(or_, REQUESTS)  # type: ignore[valid-type]
    caller: Caller = Caller()
    session: int = 0
    seq: int = 0
    received: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Call)


def pack_call(call: Call) -> msgspec.Raw:
    """Return a call as it travels."""
    return msgspec.Raw(_encoder.encode(call))


def unpack_calls(packed: tuple[msgspec.Raw, ...]) -> list[Call]:
    """Return calls. Raises UsageError for what is none, or too many."""
    if not 0 < len(packed) <= CALLS_MAX:
        raise UsageError("request has a bad number of calls", expected=f"1 to {CALLS_MAX}", got=str(len(packed)))
    try:
        found = [_decoder.decode(data) for data in packed]
    except msgspec.DecodeError as error:
        raise UsageError("call is not readable", got=str(error)) from error
    return [Call(call.request, call.caller, call.session, call.seq, call.received) for call in found]


NEEDS_OWN_SESSION: Final = (
    calls.Open, calls.Close, calls.SetLock, calls.RenewSession, calls.Write, calls.BeginSession, calls.PutMap,
)  # fmt: skip
"""Requests that mean the session they are asked in: without one they are asked as they are, and refused.

A cluster map tells by itself that it is there already, and its ESTALE is not about a session.
"""
