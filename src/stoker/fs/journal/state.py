"""A copy of a volume that follows the log: an engine whose every commit also says up to which entry it goes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.fs.journal.entries import Transaction, unpack_writes
from stoker.fs.meta.kv import Copy, Pair

_PAIRS_A_STEP: Final = 1000


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Up to where a copy has followed: the entry's number, its epoch, and the newest time told."""

    number: int = 0
    epoch: int = 0
    time_ns: int = 0


def unpack_position(mark: bytes) -> Position:
    """Return the position that a copy's mark says; the beginning for none. Raises CorruptError."""
    if not mark:
        return Position()
    try:
        return msgspec.msgpack.decode(mark, type=Position)
    except msgspec.DecodeError as error:
        raise CorruptError("mark of a volume's copy is not readable", got=str(error)) from error


class Following:
    """A copy and its position."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self.position = unpack_position(copy.mark())
        self.revision = copy.revision()

    def apply(self, transactions: Sequence[Transaction], position: Position) -> None:
        """Do what the log says next, all or nothing."""
        steps = [(done.revision, unpack_writes(done), None if done.forgets else done.record) for done in transactions]
        for revision, _, _ in steps:
            if revision != self.revision + 1:
                raise CorruptError(
                    "log does not fit the copy",
                    where=self.copy.url,
                    expected=f"revision {self.revision + 1}",
                    got=str(revision),
                    remedy="remove the copy: it is made anew from a snapshot and the log",
                )
            self.revision = revision
        try:
            self.copy.replay(steps, msgspec.msgpack.encode(position))
        except BaseException:
            self.revision = self.copy.revision()
            raise
        self.position = position

    def fill(self, pairs: Iterable[Pair], revision: int, position: Position) -> None:
        """Fill an empty copy with the pairs of a snapshot, all or nothing."""
        steps: Iterator[tuple[int, dict[bytes, bytes | None], bytes | None]] = (
            (revision, some, None) for some in _some(iter(pairs))
        )
        self.copy.replay(steps, msgspec.msgpack.encode(position))
        self.position, self.revision = position, revision


def _some(pairs: Iterator[Pair]) -> Iterator[dict[bytes, bytes | None]]:
    while taken := dict[bytes, bytes | None](islice(pairs, _PAIRS_A_STEP)):
        yield taken
