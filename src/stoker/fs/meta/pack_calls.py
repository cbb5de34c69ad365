"""Requests about packs of which little shows, as values."""

import msgspec

from stoker.fs.meta.answers import Number, SparsePacks
from stoker.fs.meta.calls import Question, Request
from stoker.fs.meta.slices import Slice


class ListSparse(Question[SparsePacks], frozen=True):
    """Packs of which half or less shows, by id, behind `after`."""

    after: int = 0
    limit: int = 16


class Moved(msgspec.Struct, frozen=True):
    """Bytes of a slice that were copied into another, to `new_offset`."""

    id: int
    generation: int
    offset: int
    length: int
    new_offset: int


class Repack(Request[Number], frozen=True):
    """Show what was copied into a stored slice from there, in chunks of inodes: `holders` are inodes with indices.

    Nothing that can be seen changes. Answers in how many extents; refused (EAGAIN) where none shows what was copied.
    """

    slice: Slice
    moved: tuple[Moved, ...]
    holders: tuple[tuple[int, int], ...]
