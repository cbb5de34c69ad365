"""What stands in the log, as bytes, and the one rule by which all who read it see the same transactions.

    PREFIX epoch             who leads: its number, name and address; the revision that wrote it is the fence
    PREFIX log/<number>      entries; 16 hexadecimal digits
    PREFIX floor             the number of the first entry that is kept
    PREFIX snapshot          the newest snapshot: its number and name
    PREFIX followers/<name>  how far somebody has followed

A transaction is one entry, or several parts where it does not fit into one. The rule: going up by number, an entry of
an epoch smaller than one that came before it is void, and so are parts whose last one does not come in their epoch. A
leader that comes to power fills the numbers that its predecessor left open and adds an entry of its own behind all
that is there: what the predecessor had in flight above a gap, and told nobody of, is void by that.
"""

import struct
from typing import Final, TypeVar

import crc32c
import msgspec
import zstandard

from stoker.core.errors import CorruptError
from stoker.fs.journal.etcd import Get
from stoker.fs.meta.kv import prefix_end

PART_BYTES: Final = 1 << 20
"""What one entry holds at most: below etcd's 1.5 MiB with room for the rest of the request."""

TRANSACTION_BYTES_MAX: Final = 4 << 30
_COMPRESS_FROM_BYTES: Final = 512
_MAGIC: Final = b"SJ"
_VERSION: Final = 1
_PACKED, _NOTHING, _FORGETS = 1, 2, 4
_HEAD: Final = struct.Struct(">2sBBQQqQIII")  # magic version flags epoch revision time length part parts size
_CRC: Final = struct.Struct(">I")

T = TypeVar("T")


class Keys:
    """Where a volume's journal lies in etcd."""

    def __init__(self, volume: str) -> None:
        self.prefix = f"stoker/{volume}/".encode()
        self.epoch = self.prefix + b"epoch"
        self.floor = self.prefix + b"floor"
        self.snapshot = self.prefix + b"snapshot"
        self.followers = self.prefix + b"followers/"
        self.log = self.prefix + b"log/"

    def entry(self, number: int) -> bytes:
        """Return the key of an entry."""
        return self.log + b"%016x" % number

    def number(self, key: bytes) -> int:
        """Return the number of an entry's key. Raises CorruptError."""
        try:
            return int(key.removeprefix(self.log), 16)
        except ValueError:
            raise CorruptError("key in the log is none", where=repr(key)) from None

    def entries(self, start: int, limit: int) -> Get:
        """Return the request for entries from number `start` on."""
        return Get(self.entry(start), prefix_end(self.log), limit)


class Leader(msgspec.Struct, frozen=True):
    """Who leads: the epoch's number, a name, the address that serves, and a number nobody else draws."""

    epoch: int
    name: str
    address: str
    nonce: str


class SnapshotNote(msgspec.Struct, frozen=True):
    """A snapshot: what it holds is all up to entry `number`, at `revision` of the volume."""

    number: int
    revision: int
    name: str


class Following(msgspec.Struct, frozen=True):
    """How far somebody has followed; `beat` counts his reports."""

    number: int
    beat: int
    address: str = ""


def packed(note: msgspec.Struct) -> bytes:
    """Return a note as bytes."""
    return msgspec.json.encode(note)


def unpack_leader(data: bytes) -> Leader:
    """Return who leads. Raises CorruptError."""
    return _unpacked(data, Leader)


def unpack_snapshot(data: bytes) -> SnapshotNote:
    """Return which snapshot there is. Raises CorruptError."""
    return _unpacked(data, SnapshotNote)


def unpack_following(data: bytes) -> Following:
    """Return how far somebody is. Raises CorruptError."""
    return _unpacked(data, Following)


def _unpacked(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError("note in etcd is not readable", got=str(error)) from error


def unpack_floor(data: bytes | None) -> int:
    """Return the number of the first entry that is kept; 1 where nothing was trimmed."""
    if data is None:
        return 1
    if not data.isdigit():
        raise CorruptError("floor of the log is not readable", got=repr(data[:40]))
    return int(data)


class Transaction(msgspec.Struct, frozen=True):
    """What one transaction wrote: `record` as the history keeps it; `forgets` empties the history instead."""

    revision: int
    time_ns: int
    record: bytes
    forgets: bool = False


class Head(msgspec.Struct, frozen=True):
    """What an entry says of itself."""

    flags: int
    epoch: int
    revision: int
    time_ns: int
    length: int
    part: int
    parts: int


def pack_nothing(epoch: int, revision: int, time_ns: int) -> bytes:
    """Return an entry that changes nothing."""
    return _pack(Head(_NOTHING, epoch, revision, time_ns, 0, 0, 1), b"")


def pack_transaction(epoch: int, transaction: Transaction) -> list[bytes]:
    """Return the entries of a transaction, compressed where that makes it smaller by a tenth."""
    data, flags = transaction.record, _FORGETS if transaction.forgets else 0
    if len(data) >= _COMPRESS_FROM_BYTES:
        small = zstandard.ZstdCompressor(level=1).compress(data)
        if len(small) <= len(data) * 9 // 10:
            data, flags = small, flags | _PACKED
    parts = max(-(-len(data) // PART_BYTES), 1)
    length = len(transaction.record)
    return [
        _pack(
            Head(flags, epoch, transaction.revision, transaction.time_ns, length, part, parts),
            data[part * PART_BYTES : (part + 1) * PART_BYTES],
        )
        for part in range(parts)
    ]


def _pack(head: Head, data: bytes) -> bytes:
    flags, epoch, revision, time_ns, length, part, parts = msgspec.structs.astuple(head)
    front = _HEAD.pack(_MAGIC, _VERSION, flags, epoch, revision, time_ns, length, part, parts, len(data))
    return front + data + _CRC.pack(crc32c.crc32c(data, crc32c.crc32c(front)))


def unpack_entry(number: int, value: bytes) -> tuple[Head, bytes]:
    """Return what an entry says and holds. Raises CorruptError."""
    where = f"entry {number}"
    if len(value) < _HEAD.size + _CRC.size:
        raise CorruptError("entry of the log is cut short", where=where, got=f"{len(value)} bytes")
    if crc32c.crc32c(value[: -_CRC.size]) != _CRC.unpack_from(value, len(value) - _CRC.size)[0]:
        raise CorruptError("entry of the log is damaged", where=where, got="another checksum")
    magic, version, *fields, size_bytes = _HEAD.unpack_from(value)
    if magic != _MAGIC or version != _VERSION:
        raise CorruptError("entry of the log is of another form", where=where, got=f"{magic!r} form {version}")
    head = Head(*fields)
    if size_bytes != len(value) - _HEAD.size - _CRC.size or not head.part < head.parts:
        raise CorruptError("entry of the log contradicts itself", where=where)
    if head.length > TRANSACTION_BYTES_MAX:
        raise CorruptError("entry of the log is too large", where=where, got=f"{head.length} bytes")
    return head, value[_HEAD.size : -_CRC.size]


class LogReader:
    """Reads entries in their order and returns the transactions that hold; it follows the rule, and nothing else.

    `number` is the last entry read, `epoch` the greatest seen, `whole` the last number behind which no parts are open.
    """

    def __init__(self, number: int = 0, epoch: int = 0) -> None:
        self.number = self.whole = number
        self.epoch = epoch
        self.time_ns = 0
        self._parts: list[bytes] = []

    def feed(self, number: int, value: bytes) -> Transaction | None:
        """Take the next entry; return the transaction that it completes. Raises CorruptError."""
        if number != self.number + 1:
            raise CorruptError("log has a gap", expected=f"entry {self.number + 1}", got=f"entry {number}")
        head, data = unpack_entry(number, value)
        self.number = number
        if head.epoch > self.epoch:
            self.epoch = head.epoch
            self._parts.clear()
        complete = self._taken(number, head, data) if head.epoch == self.epoch else None
        if not self._parts:
            self.whole = number
        return complete

    def _taken(self, number: int, head: Head, data: bytes) -> Transaction | None:
        self.time_ns = max(self.time_ns, head.time_ns)
        if head.flags & _NOTHING:
            self._parts.clear()
            return None
        if head.part != len(self._parts):
            raise CorruptError("parts of a transaction are out of order", where=f"entry {number}")
        self._parts.append(data)
        if head.part + 1 < head.parts:
            return None
        record = b"".join(self._parts)
        self._parts.clear()
        if head.flags & _PACKED:
            record = _unpack(record, head.length, number)
        if len(record) != head.length:
            raise CorruptError("transaction has another length", where=f"entry {number}", expected=str(head.length))
        return Transaction(head.revision, head.time_ns, record, bool(head.flags & _FORGETS))


def _unpack(data: bytes, length: int, number: int) -> bytes:
    try:
        if zstandard.frame_content_size(data) != length:
            raise CorruptError("transaction has another length", where=f"entry {number}", expected=str(length))
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
    except zstandard.ZstdError as error:
        raise CorruptError("transaction cannot be unpacked", where=f"entry {number}", got=str(error)) from error


def unpack_writes(transaction: Transaction) -> dict[bytes, bytes | None]:
    """Return what a transaction writes. Raises CorruptError."""
    try:
        pairs = msgspec.msgpack.decode(transaction.record, type=list[tuple[bytes, bytes | None]])
    except msgspec.DecodeError as error:
        raise CorruptError("transaction is not readable", got=str(error)) from error
    return dict(pairs)
