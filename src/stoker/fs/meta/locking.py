"""Locks of one inode as values: flock's over the whole file, fcntl's over ranges; each with its fencing token.

An owner is a number that a session chooses (an open file description for flock, a process for fcntl). The two kinds do
not see each other, as on Linux's own file systems. Each grant carries a token, greater than any before it: storage that
remembers the greatest can refuse who has lost his lock and does not know it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import CorruptError

LOCKS_MAX: Final = 4096
END: Final = 2**63


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A lock on [start, end) of an inode."""

    session: int
    owner: int
    exclusive: bool
    start: int
    end: int
    whole: bool
    token: int

    def overlaps(self, start: int, end: int) -> bool:
        """Tell whether it covers some of [start, end)."""
        return self.start < end and start < self.end


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Held])


def pack_locks(locks: Sequence[Held]) -> bytes | None:
    """Return the locks of an inode as bytes, None when there are none."""
    return _encoder.encode(list(locks)) if locks else None


def unpack_locks(data: bytes | None) -> list[Held]:
    """Return the locks of an inode."""
    try:
        return [] if data is None else _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptError("locks of an inode are not readable", got=str(error)) from error


def in_the_way(locks: Sequence[Held], want: Held) -> Held | None:
    """Return the first lock of somebody else that forbids `want`."""
    for held in locks:
        if held.whole != want.whole or (held.session, held.owner) == (want.session, want.owner):
            continue
        if (held.exclusive or want.exclusive) and held.overlaps(want.start, want.end):
            return held
    return None


def released(locks: Sequence[Held], want: Held) -> list[Held]:
    """Return the locks without what the owner of `want` holds of its kind in its range; a lock may split in two."""
    kept = []
    for held in locks:
        same = (held.session, held.owner, held.whole) == (want.session, want.owner, want.whole)
        if not same or not held.overlaps(want.start, want.end):
            kept.append(held)
            continue
        if held.start < want.start:
            kept.append(msgspec.structs.replace(held, end=want.start))
        if held.end > want.end:
            kept.append(msgspec.structs.replace(held, start=want.end))
    return kept


def granted(locks: Sequence[Held], want: Held) -> list[Held]:
    """Return the locks with `want` in place of what its owner held there. Nothing may stand in its way."""
    return [*released(locks, want), want]


def of_others(locks: Sequence[Held], session: int, owner: int | None = None) -> list[Held]:
    """Return the locks without those of a session, or of one owner in it."""
    return [held for held in locks if held.session != session or (owner is not None and held.owner != owner)]
