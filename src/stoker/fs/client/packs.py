"""Packs: one slice that holds the bytes of several small files, which were written at about the same time.

A small file alone costs a request to each of its disks, a header there and a checksum; sixteen of them in a pack cost
that once. A pack lives until no file shows any of it: until then the bytes of files that are gone take up room, at
most the size of a pack for each file that is left of it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SMALL_SLICE_BYTES, Bytes

T = TypeVar("T")
LOOSE_BYTES_MAX: Final = 128 << 10
"""What is larger is a slice of its own."""


class Loose(NamedTuple):
    """Bytes that are not stored yet, with the session that will show them; `alone`: in no pack with others."""

    data: Bytes
    session: int
    storage_class: int
    alone: bool = False


class Part(NamedTuple):
    """Where bytes were stored: in which slice, from where on, how many."""

    slice: Slice
    offset: int
    length: int

    @property
    def is_whole(self) -> bool:
        """Tell whether they are a slice of their own."""
        return self.length == self.slice.size_bytes


def shown_by(parts: Sequence[Part]) -> tuple[tuple[Slice, ...], tuple[tuple[int, int], ...]]:
    """Return slices and parts as requests show them: no parts where all are slices of their own."""
    slices = tuple(part.slice for part in parts)
    if all(part.is_whole for part in parts):
        return slices, ()
    return slices, tuple((part.offset, part.length) for part in parts)


def in_packs(members: Sequence[T], content: Callable[[T], Loose]) -> Iterator[list[T]]:
    """Return who goes into a pack together: of one session and class, up to the size of a pack, in their order."""
    open_packs: dict[tuple[int, int], tuple[list[T], int]] = {}
    for member in members:
        one = content(member)
        size_bytes = len(one.data)
        if one.alone:
            yield [member]
            continue
        key = (one.session, one.storage_class)
        pack, held_bytes = open_packs.pop(key, ([], 0))
        if pack and held_bytes + size_bytes > SMALL_SLICE_BYTES:
            yield pack
            pack, held_bytes = [], 0
        pack.append(member)
        open_packs[key] = (pack, held_bytes + size_bytes)
    for pack, _ in open_packs.values():
        yield pack
