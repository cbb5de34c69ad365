"""The few messages of etcd's interface that are used, as bytes: fields by their numbers in etcd's public rpc.proto.

Protocol buffers of this plain kind are tag, length, value; who answers is checked like any other input from a network.
"""

from collections.abc import Iterator
from typing import Final

from stoker.core.errors import CorruptError
from stoker.fs.journal.etcd import Compact, Compare, Delete, Get, KeyValue, MemberStatus, Outcome, Put, Seen, Txn

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_VARINT_BYTES_MAX: Final = 10
_COMPARE_CREATED, _COMPARE_MODIFIED = 1, 2

Field = tuple[int, int | bytes]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def fields(data: bytes) -> Iterator[Field]:
    """Return the fields of a message, in order. Raises CorruptError for bytes that are none."""
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            number, place = _read_varint(data, place)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            size, place = _read_varint(data, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise CorruptError("etcd's answer is not readable", got=f"a field of kind {kind}")
        if size > len(data) - place:
            raise CorruptError("etcd's answer is cut short", expected=f"{size} bytes", got=str(len(data) - place))
        yield tag >> 3, data[place : place + size]
        place += size


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(_VARINT_BYTES_MAX):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, place
    raise CorruptError("etcd's answer is not readable", got="a number without an end")


def _whole(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise CorruptError("etcd's answer is not readable", got="bytes where a number belongs")
    return value


def _inner(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise CorruptError("etcd's answer is not readable", got="a number where bytes belong")
    return value


# -- requests


def pack_get(get: Get) -> bytes:
    """Return a RangeRequest."""
    data = _bytes(1, get.key)
    if get.end:
        data += _bytes(2, get.end)
    return data + (_number(3, get.limit) if get.limit else b"")


def _pack_operation(operation: Put | Delete | Get) -> bytes:
    if isinstance(operation, Get):
        return _bytes(1, pack_get(operation))
    if isinstance(operation, Put):
        return _bytes(2, _bytes(1, operation.key) + _bytes(2, operation.value))
    return _bytes(3, _bytes(1, operation.key) + (_bytes(2, operation.end) if operation.end else b""))


def _pack_compare(compare: Compare) -> bytes:
    if compare.modified is not None:
        return _number(2, _COMPARE_MODIFIED) + _bytes(3, compare.key) + _number(6, compare.modified)
    return _number(2, _COMPARE_CREATED) + _bytes(3, compare.key) + _number(5, compare.created or 0)


def pack_txn(txn: Txn) -> bytes:
    """Return a TxnRequest."""
    parts = [_bytes(1, _pack_compare(compare)) for compare in txn.compares]
    parts += [_bytes(2, _pack_operation(operation)) for operation in txn.then]
    parts += [_bytes(3, _pack_operation(operation)) for operation in txn.otherwise]
    return b"".join(parts)


def pack_compact(compact: Compact) -> bytes:
    """Return a CompactionRequest."""
    return _number(1, compact.revision)


def pack_watch(start: bytes, end: bytes, revision: int) -> bytes:
    """Return a WatchRequest that makes a watch of [start, end) from `revision` on, told of progress too."""
    return _bytes(1, _bytes(1, start) + _bytes(2, end) + _number(3, revision) + _number(4, 1))


def pack_login(user: str, password: str) -> bytes:
    """Return an AuthenticateRequest."""
    return _bytes(1, user.encode()) + _bytes(2, password.encode())


# -- answers


def _revision(header: bytes) -> int:
    return next((_whole(value) for number, value in fields(header) if number == 3), 0)


def _pair(data: bytes) -> KeyValue:
    key = value = b""
    created = modified = 0
    for number, content in fields(data):
        if number == 1:
            key = _inner(content)
        elif number == 2:
            created = _whole(content)
        elif number == 3:
            modified = _whole(content)
        elif number == 5:
            value = _inner(content)
    return KeyValue(key, value, created, modified)


def unpack_get(data: bytes) -> Outcome:
    """Return what a RangeResponse says."""
    revision, more = 0, False
    found = []
    for number, value in fields(data):
        if number == 1:
            revision = _revision(_inner(value))
        elif number == 2:
            found.append(_pair(_inner(value)))
        elif number == 3:
            more = bool(value)
    return Outcome(revision, True, (tuple(found),), more)


def unpack_txn(data: bytes) -> Outcome:
    """Return what a TxnResponse says."""
    revision, succeeded = 0, False
    answers: list[Outcome] = []
    for number, value in fields(data):
        if number == 1:
            revision = _revision(_inner(value))
        elif number == 2:
            succeeded = bool(value)
        elif number == 3:
            answers += [unpack_get(_inner(inner)) for kind, inner in fields(_inner(value)) if kind == 1]
    more = bool(answers) and answers[0].more
    return Outcome(revision, succeeded, tuple(answer.found[0] for answer in answers), more)


def unpack_compact(data: bytes) -> Outcome:
    """Return what a CompactionResponse says."""
    return Outcome(next((_revision(_inner(value)) for number, value in fields(data) if number == 1), 0))


def unpack_watch(data: bytes) -> tuple[Seen, bool]:
    """Return what a WatchResponse says, and whether the watch is over."""
    revision = compacted = 0
    canceled = False
    puts: list[KeyValue] = []
    deleted: list[bytes] = []
    for number, value in fields(data):
        if number == 1:
            revision = _revision(_inner(value))
        elif number == 4:
            canceled = bool(value)
        elif number == 5:
            compacted = _whole(value)
        elif number == 11:
            event = dict(fields(_inner(value)))
            pair = _pair(_inner(event.get(2, b"")))
            if event.get(1):
                deleted.append(pair.key)
            else:
                puts.append(pair)
    return Seen(revision, tuple(puts), tuple(deleted), compacted), canceled


def unpack_status(address: str, data: bytes) -> MemberStatus:
    """Return what a StatusResponse says."""
    version, size_bytes, leader, member, term = "", 0, 0, 0, 0
    for number, value in fields(data):
        if number == 1:
            member = next((_whole(inner) for kind, inner in fields(_inner(value)) if kind == 2), 0)
        elif number == 2:
            version = _inner(value).decode(errors="backslashreplace")
        elif number == 3:
            size_bytes = _whole(value)
        elif number == 4:
            leader = _whole(value)
        elif number == 6:
            term = _whole(value)
    return MemberStatus(address, True, version, size_bytes, bool(leader) and leader == member, term)


def unpack_login(data: bytes) -> str:
    """Return the token of an AuthenticateResponse."""
    return next((_inner(value).decode() for number, value in fields(data) if number == 2), "")
