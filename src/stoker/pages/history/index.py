"""The index of a checkpoint: a row for each page, in columns."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels.rows import Rows, decode_rows, encode_rows
from stoker.pages.columns import FACTS, PageColumns

DIGEST_BYTES: Final = 16
_KINDS: Final = b"uuuuuuuuubuuubu"
"""Kinds of the fields of a `PageEntry` in their order: numbers and bytes."""
CODEC, OFFSET, STORED, HOLDER = range(len(FACTS), len(FACTS) + 4)


class PageEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page in the index. `holder_lsn` is the LSN of the checkpoint that has its bytes."""

    page: int
    epoch: int
    lsn: int
    size_bytes: int
    state: int
    location: int
    residency: int
    elem_width: int
    flags: int
    meta: bytes
    codec: int
    offset: int
    stored_bytes: int
    digest: bytes
    holder_lsn: int


class Entries:
    """Entries of pages in columns.

    numbers  uint64 of shape (n, 13): the numbers of a `PageEntry` in their order
    places   uint64 of shape (n, 2, 2): where metadata and digest begin in `blobs`, and their bytes
    blobs    memory in which they lie
    """

    def __init__(self, rows: Rows) -> None:
        self.numbers, self.places, self.blobs = rows

    @classmethod
    def none(cls) -> "Entries":
        """Return no entries."""
        return cls(Rows(np.zeros((0, len(FACTS) + 4), np.uint64), np.zeros((0, 2, 2), np.uint64), b""))

    @classmethod
    def made(
        cls, pages: PageColumns, stored: NDArray[np.int64], digests: NDArray[np.uint8], holder_lsn: int
    ) -> "Entries":
        """Return the entries of pages: int64 of shape (n, 3) with codec, offset and bytes of each, and its digest."""
        count = len(pages)
        numbers = np.empty((count, len(FACTS) + 4), np.uint64)
        numbers[:, : len(FACTS)], numbers[:, CODEC:HOLDER], numbers[:, HOLDER] = pages.facts, stored, holder_lsn
        places = np.empty((count, 2, 2), np.uint64)
        places[:, 0] = pages.meta_places
        places[:, 1, 0] = len(pages.metas) + DIGEST_BYTES * np.arange(count)
        places[:, 1, 1] = DIGEST_BYTES
        return cls(Rows(numbers, places, pages.metas + digests.tobytes()))

    @classmethod
    def joined(cls, parts: Sequence["Entries"]) -> "Entries":
        """Return all entries of some, by page."""
        numbers = np.concatenate([part.numbers for part in parts])
        shifts = np.cumsum([0, *(len(part.blobs) for part in parts)])
        places = np.concatenate([part.places for part in parts])
        places[:, :, 0] += np.repeat(shifts[:-1], [len(part) for part in parts]).astype(np.uint64)[:, None]
        joined = cls(Rows(numbers, places, b"".join(part.blobs for part in parts)))
        return joined.rows(np.argsort(numbers[:, 0], kind="stable"))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[PageEntry]:
        """Yield them singly."""
        at = len(FACTS)
        for row, ((meta, meta_bytes), (digest, digest_bytes)) in zip(
            self.numbers.tolist(), self.places.tolist(), strict=True
        ):
            blobs = bytes(self.blobs[meta : meta + meta_bytes]), bytes(self.blobs[digest : digest + digest_bytes])
            yield msgspec.convert((*row[:at], blobs[0], *row[at:HOLDER], blobs[1], row[HOLDER]), PageEntry)

    def rows(self, wanted: NDArray[np.bool_] | NDArray[np.int64]) -> "Entries":
        """Return some of them."""
        return Entries(Rows(self.numbers[wanted], self.places[wanted], self.blobs))

    def column(self, number: int) -> NDArray[np.int64]:
        """Return a column of numbers; those beyond 2^63 come out negative."""
        return self.numbers[:, number].astype(np.int64)

    def holders(self) -> set[int]:
        """Return the LSNs of the checkpoints that have the bytes of pages."""
        return set(np.unique(self.numbers[:, HOLDER]).tolist())

    def metas(self) -> Iterator[bytes]:
        """Yield the metadata of each page."""
        blobs = bytes(self.blobs)  # no copy where they are bytes
        for start, size in self.places[:, 0].tolist():
            yield blobs[start : start + size]

    def digests(self) -> NDArray[np.uint8]:
        """Return the digests, uint8 of shape (n, 16)."""
        at = self.places[:, 1, 0].astype(np.int64)[:, None] + np.arange(DIGEST_BYTES)
        found: NDArray[np.uint8] = np.frombuffer(self.blobs, np.uint8)[at]
        return found

    def whole_digest_input(self) -> bytes:
        """Return what the footer's digest is of: each page's id of 64 bits, and its digest."""
        rows = np.empty((len(self), 8 + DIGEST_BYTES), np.uint8)
        rows[:, :8] = np.ascontiguousarray(self.numbers[:, 0]).astype("<u8").view(np.uint8).reshape(-1, 8)
        if len(self):
            rows[:, 8:] = self.digests()
        return rows.tobytes()

    def encode(self) -> bytes:
        """Return them as a MessagePack array of `PageEntry`s."""
        return encode_rows(_KINDS, Rows(self.numbers, self.places, self.blobs))

    @classmethod
    def decode(cls, message: bytes) -> "Entries":
        """Return the entries of a MessagePack array. Raises CorruptError for one that does not hold such."""
        rows = decode_rows(_KINDS, message)
        if (rows.places[:, 1, 1] != DIGEST_BYTES).any():
            raise CorruptError("digest of a page has another length", expected=f"{DIGEST_BYTES} bytes")
        return cls(rows)


class Index(msgspec.Struct, frozen=True):
    """All that a checkpoint tells beside the bytes of its pages."""

    pages: Entries
    max_generation: int
    marks: dict[str, int]
    sources: dict[int, str]


class _Written(msgspec.Struct, frozen=True):
    """An index as it stands in a file."""

    pages: msgspec.Raw
    max_generation: int
    marks: dict[str, int]
    sources: dict[int, str]


def encode_index(index: Index) -> bytes:
    """Return an index as MessagePack."""
    pages = msgspec.Raw(index.pages.encode())
    return msgspec.msgpack.encode(_Written(pages, index.max_generation, index.marks, index.sources))


def decode_index(encoded: bytes) -> Index:
    """Return the index that the bytes hold. Raises CorruptError."""
    try:
        found = msgspec.msgpack.decode(encoded, type=_Written)
    except msgspec.MsgspecError as error:
        raise CorruptError("index cannot be read", got=str(error)) from error
    return Index(Entries.decode(bytes(found.pages)), found.max_generation, found.marks, found.sources)
