"""Extents of the data area: lists of free ones by class, a high-water mark, and their repair.

Free lists are a convenience, not a record: what is in use is told by the page table and the retired table alone, and
after the death of an owner the lists are made anew from these. Only the owner of the commit lock comes here.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from stoker.pages.arena.layout import (
    CLASS_BYTES,
    HUGE_BYTES,
    LARGE_CLASS,
    PAGE_ALIGN,
    SMALL_CLASSES,
    Word,
    aligned,
    class_bytes,
    extent_class,
)
from stoker.pages.arena.mapping import Mapping
from stoker.pages.errors import OutOfSpace

_LARGE_LIST: Final = Word.FREE_LISTS + SMALL_CLASSES
Extent = tuple[int, int]
"""Offset from the start of the arena, and class."""


class Extents:
    """The allocator of one arena."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._words = mapping.words
        self._first = mapping.geometry.data_offset
        self._end = mapping.geometry.arena_bytes
        self.repairing = False
        """While frames are applied again nothing is given back: it may have been given back before."""

    def initialise(self) -> None:
        """Begin with nothing in use."""
        self._words[Word.BREAK] = self._words[Word.BACKED] = self._first

    def take(self, size_bytes: int) -> Extent:
        """Return an extent of at least so many bytes, of any content. Raises OutOfSpace."""
        return self.take_class(extent_class(size_bytes))

    def take_class(self, extent: int) -> Extent:
        """Return an extent of a class, of any content. Raises OutOfSpace."""
        if offset := self._take_large(extent) if extent >= LARGE_CLASS else self._take_listed(extent):
            return offset, extent
        try:
            return self._carve(extent), extent
        except OutOfSpace:
            if offset := self._cut(extent):
                return offset, extent
            raise

    def _take_listed(self, extent: int) -> int:
        head = int(Word.FREE_LISTS + extent)
        offset = int(self._words[head])
        if offset:
            self._words[head] = self._words[offset >> 3]
        return offset

    def _cut(self, extent: int) -> int:
        """Cut a small extent out of the smallest larger one that is free; 0 for none."""
        if extent >= LARGE_CLASS:
            return 0
        for kind in range(extent + 1, SMALL_CLASSES):
            if offset := self._take_listed(kind):
                self._give_rest(offset + class_bytes(extent), offset + class_bytes(kind))
                return offset
        if offset := self._take_large(LARGE_CLASS + class_bytes(SMALL_CLASSES - 1) // PAGE_ALIGN):
            self._give_rest(offset + class_bytes(extent), offset + class_bytes(SMALL_CLASSES - 1))
        return offset

    def _give_rest(self, start: int, end: int) -> None:
        for free in _pieces(start, end):
            self.give(free)

    def give(self, extent: Extent) -> None:
        """Take an extent back: nothing may name it any more, for its first bytes become the link of the list."""
        if self.repairing:
            return
        offset, kind = extent
        head = int(_LARGE_LIST if kind >= LARGE_CLASS else Word.FREE_LISTS + kind)
        self._words[offset >> 3] = self._words[head]
        if kind >= LARGE_CLASS:
            self._words[(offset >> 3) + 1] = kind
        self._words[head] = offset

    def _take_large(self, extent: int) -> int:
        """Unlink the first free large extent that is large enough, and keep what is too much of it; 0 for none."""
        before, offset = int(_LARGE_LIST), self._words[_LARGE_LIST]
        while offset:
            at = offset >> 3
            kind = self._words[at + 1]
            if kind >= extent:
                self._words[before] = self._words[at]
                if kind > extent:
                    self._give_rest(offset + class_bytes(extent), offset + class_bytes(int(kind)))
                return int(offset)
            before, offset = at, self._words[at]
        return 0

    def _carve(self, extent: int) -> int:
        offset = aligned(self._words[Word.BREAK], PAGE_ALIGN if extent >= LARGE_CLASS else 64)
        end = offset + class_bytes(extent)
        if end > self._end:
            raise OutOfSpace(
                "arena of the store of pages is full",
                expected=f"{class_bytes(extent)} free bytes",
                got=f"{max(0, self._end - self._words[Word.BREAK])} of {self._end - self._first} never used",
                remedy="free pages, close snapshots, or open the store with a larger size",
            )
        if end > self._words[Word.BACKED]:
            try:
                self._back(min(self._end, aligned(end, HUGE_BYTES)))
            except OutOfSpace:
                self._back(aligned(end))
        before = self._words[Word.BREAK]
        self._words[Word.BREAK] = end
        self._give_rest(before, offset)
        return offset

    def _back(self, end: int) -> None:
        backed = self._words[Word.BACKED]
        self._mapping.back(backed, end - backed)
        self._words[Word.BACKED] = end

    def free(self) -> list[Extent]:
        """Return all extents in the free lists; cut short where a list runs in a circle."""
        found: list[Extent] = []
        most = (self._end - self._first) // CLASS_BYTES[0]
        for head in range(Word.FREE_LISTS, _LARGE_LIST + 1):
            offset = self._words[head]
            while offset and len(found) <= most:
                at = offset >> 3
                found.append((int(offset), int(self._words[at + 1] if head == _LARGE_LIST else head - Word.FREE_LISTS)))
                offset = self._words[at]
        return found

    def rebuild(self, used: Iterable[Extent]) -> None:
        """Make the free lists anew: all below the mark that is not `used` is free, neighbours joined."""
        self.repairing = False
        for head in range(Word.FREE_LISTS, _LARGE_LIST + 1):
            self._words[head] = 0
        end = self._first
        for offset, kind in sorted(set(used)):
            self._give_rest(end, offset)
            end = min(self._end, max(end, offset + class_bytes(kind)))
        self._words[Word.BREAK] = end
        self._words[Word.BACKED] = max(self._words[Word.BACKED], end)


def _pieces(start: int, end: int) -> Iterator[Extent]:
    """Cut free bytes into extents: whole pages first as one large one, then classes from the largest down."""
    start = aligned(start, 64)
    whole = aligned(start)
    pages = (end - whole) // PAGE_ALIGN
    if pages > CLASS_BYTES[-1] // PAGE_ALIGN:
        yield from _small_pieces(start, whole)
        yield whole, LARGE_CLASS + pages
        start = whole + pages * PAGE_ALIGN
    yield from _small_pieces(start, end)


def _small_pieces(start: int, end: int) -> Iterator[Extent]:
    while fitting := [kind for kind, size in enumerate(CLASS_BYTES) if size <= end - start]:
        yield start, fitting[-1]
        start += CLASS_BYTES[fitting[-1]]
