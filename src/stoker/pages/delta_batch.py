"""Deltas of many pages in columns: arrays in, arrays out, one payload buffer."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.kernels import deltas
from stoker.kernels.checking import Readable, crc32c
from stoker.pages import delta_payloads as payloads
from stoker.pages.delta import Delta
from stoker.pages.delta_payloads import ELEM_WIDTHS, Image
from stoker.pages.errors import ChecksumError, FormatError, InvalidDelta, PageNotFound
from stoker.pages.frames import FRAME_BYTES_MAX, Codec

MAGIC: Final = b"SKDB"
VERSION: Final = 1
RAW: Final = 1
RUNS: Final = 2
_FLAG_OF: Final = {Codec.TWO_LEVEL: 0, Codec.RAW: RAW, Codec.RUNS: RUNS}
_CODEC_OF: Final = {flag: codec for codec, flag in _FLAG_OF.items()}
_HEADER: Final = struct.Struct("<4sBB2xQQII")
"""Magic, version, element width, deltas, payload bytes, zero, CRC-32C of everything else. Behind it stand the columns
pages, epochs, sizes, offsets (one more than deltas) of 64 bits each, then a flag byte a delta, then the payloads."""
_CRC_AT: Final = _HEADER.size - 4
_ROW_BYTES: Final = 8 * 4 + 1


class DeltaBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Deltas in the order in which they are to be applied; a page may have several.

    pages, epochs, sizes  uint64 of shape (n,): id, epoch after the delta, bytes of the page
    flags                 uint8 of shape (n,): RAW or RUNS, 0 for a two-level payload
    offsets               int64 of shape (n + 1,): payload i is payload[offsets[i]:offsets[i + 1]]
    payload               uint8
    elem_width            bytes of an element, of all pages
    """

    pages: NDArray[np.uint64]
    epochs: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    flags: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    payload: NDArray[np.uint8]
    elem_width: int = 1

    @classmethod
    def diff(
        cls,
        olds: NDArray[np.uint8],
        news: NDArray[np.uint8],
        *,
        pages: Sequence[int] | NDArray[Any],
        epochs: Sequence[int] | NDArray[Any],
        elem_width: int = 1,
    ) -> Self:
        """Return the deltas of pages of one size: two uint8 arrays of shape (pages, bytes), ids and epochs.

        Pages that did not change are left out. Raises UsageError for arrays that do not fit together, InvalidDelta
        for pages of no bytes or another number of ids or epochs.
        """
        found = deltas.two_level_diff_many(olds, news)
        ids, after = np.asarray(pages, np.uint64), np.asarray(epochs, np.uint64)
        if not len(ids) == len(after) == len(found.changed) or not olds.shape[1]:
            raise InvalidDelta(
                "images, ids and epochs do not fit together",
                expected=f"{olds.shape[0]} of each, of pages that have bytes",
                got=f"{len(ids)} ids, {len(after)} epochs, pages of {olds.shape[1]} bytes",
            )
        lengths = np.diff(found.offsets)
        dense = lengths >= news.shape[1]
        rows = np.flatnonzero(found.changed)
        buffer = found.buffer
        if dense.any():
            pieces = [news[row] if dense[row] else buffer[found.offsets[row] : found.offsets[row + 1]] for row in rows]
            buffer = np.concatenate(pieces)
            lengths[dense] = news.shape[1]
        return cls(
            pages=ids[rows],
            epochs=after[rows],
            sizes=np.full(len(rows), news.shape[1], np.uint64),
            flags=np.where(dense[rows], RAW, 0).astype(np.uint8),
            offsets=_ends(lengths[rows]),
            payload=buffer,
            elem_width=elem_width,
        )

    @classmethod
    def of(cls, parts: Iterable[Delta]) -> Self:
        """Return single deltas as a batch. Raises InvalidDelta for pages of several element widths."""
        rows = list(parts)
        widths = {row.elem_width for row in rows} or {1}
        if len(widths) > 1:
            raise InvalidDelta("deltas of a batch differ in element width", got=", ".join(map(str, sorted(widths))))
        return cls(
            pages=np.array([row.page for row in rows], np.uint64),
            epochs=np.array([row.epoch for row in rows], np.uint64),
            sizes=np.array([row.size_bytes for row in rows], np.uint64),
            flags=np.array([_FLAG_OF[Codec(row.codec)] for row in rows], np.uint8),
            offsets=_ends(np.array([len(row.payload) for row in rows], np.int64)),
            payload=np.frombuffer(b"".join(row.payload for row in rows), np.uint8),
            elem_width=widths.pop(),
        )

    def __len__(self) -> int:
        """Return how many deltas there are."""
        return len(self.pages)

    def __getitem__(self, index: int) -> Delta:
        """Return one delta; its payload is a copy."""
        row = range(len(self))[index]
        return Delta(
            page=int(self.pages[row]),
            epoch=int(self.epochs[row]),
            size_bytes=int(self.sizes[row]),
            payload=self._payload(row).tobytes(),
            codec=_CODEC_OF[int(self.flags[row])],
            elem_width=self.elem_width,
        )

    def scan(self, *, page: int | None = None, epochs: tuple[int, int] | None = None) -> "DeltaBatch":
        """Return the deltas of one page, or of epochs from the first to before the second, or both, in order."""
        wanted = np.ones(len(self), np.bool_)
        if page is not None:
            wanted &= self.pages == np.uint64(page)
        if epochs is not None:
            wanted &= (self.epochs >= np.uint64(epochs[0])) & (self.epochs < np.uint64(epochs[1]))
        return self.select(np.flatnonzero(wanted))

    def select(self, rows: NDArray[np.int64]) -> "DeltaBatch":
        """Return the deltas of these rows, in the order given."""
        pieces = [self._payload(int(row)) for row in rows]
        return DeltaBatch(
            pages=self.pages[rows],
            epochs=self.epochs[rows],
            sizes=self.sizes[rows],
            flags=self.flags[rows],
            offsets=_ends(np.diff(self.offsets)[rows]),
            payload=np.concatenate(pieces) if pieces else np.empty(0, np.uint8),
            elem_width=self.elem_width,
        )

    def merged(self) -> "DeltaBatch":
        """Return one delta a page that does what its deltas do in their order; pages in the order of their first one.

        Raises InvalidDelta for a page whose size changes or whose epoch goes back.
        """
        ids, counts = np.unique(self.pages, return_counts=True)
        if not (counts > 1).any():
            return self
        several = set(ids[counts > 1].tolist())
        made: dict[int, Delta] = {}
        rows: dict[int, int] = {}
        for row, page in enumerate(self.pages.tolist()):
            rows.setdefault(page, row)
            if page in several:
                made[page] = made[page].compose(self[row]) if page in made else self[row]
        return DeltaBatch.of(made[page] if page in made else self[row] for page, row in rows.items())

    def apply(self, targets: Mapping[int, Image]) -> None:
        """Overwrite the pages' memory, found by id, in the order of the deltas.

        Raises PageNotFound for a page that is not among the targets, InvalidDelta for memory or a payload that does
        not fit; then nothing is written.
        """
        self.validate()
        known: dict[int, NDArray[np.uint8]] = {}
        for page, size in zip(self.pages.tolist(), self.sizes.tolist(), strict=True):
            if page not in targets:
                raise PageNotFound("delta is for a page that is not there", where=str(page))
            known[page] = payloads.target_of(targets[page], size)
        for row, page in enumerate(self.pages.tolist()):
            payloads.write(_CODEC_OF[int(self.flags[row])], known[page], self._payload(row).data)

    def validate(self) -> None:
        """Raise InvalidDelta for columns that do not fit together, or a payload that does not fit its page."""
        count = len(self)
        columns = (self.epochs, self.sizes, self.flags)
        if any(len(column) != count for column in columns) or len(self.offsets) != count + 1:
            raise InvalidDelta("columns of a batch differ in length", expected=f"{count} rows")
        if self.elem_width not in ELEM_WIDTHS:
            raise InvalidDelta("batch has no such element width", expected="1, 2, 4 or 8", got=str(self.elem_width))
        ordered = (
            self.offsets[0] == 0
            and self.offsets[-1] == self.payload.size
            and (self.offsets[1:] >= self.offsets[:-1]).all()
        )
        if not ordered:
            raise InvalidDelta("offsets of a batch are not those of its payloads")
        if count and not (self.sizes.min() > 0 and self.sizes.max() <= FRAME_BYTES_MAX):
            raise InvalidDelta("page of a delta has no such size", expected=f"1 to {FRAME_BYTES_MAX} bytes")
        for row in range(count):
            flag = int(self.flags[row])
            if flag not in _CODEC_OF:
                raise InvalidDelta("flags of a delta are not known", got=str(flag))
            payloads.changed_bytes(_CODEC_OF[flag], int(self.sizes[row]), self._payload(row).data)

    def to_bytes(self) -> bytes:
        """Return the batch as bytes, with a checksum. Raises InvalidDelta for one that is not valid."""
        self.validate()
        head = _HEADER.pack(MAGIC, VERSION, self.elem_width, len(self), self.payload.size, 0, 0)
        columns = (self.pages, self.epochs, self.sizes, self.offsets, self.flags, self.payload)
        body = b"".join(column.tobytes() for column in columns)
        return head[:_CRC_AT] + crc32c(body, crc32c(head[:_CRC_AT])).to_bytes(4, "little") + body

    @classmethod
    def from_bytes(cls, data: Readable) -> Self:
        """Return the batch that the bytes hold; its arrays are views of them.

        Raises FormatError for bytes that are no batch, or not whole; ChecksumError for damage; InvalidDelta for parts
        that do not fit.
        """
        view = memoryview(data)
        if view.nbytes < _HEADER.size or bytes(view[:4]) != MAGIC:
            raise FormatError("bytes are not a batch of deltas", got=f"{view.nbytes} bytes")
        _, version, width, count, payload_bytes, zero, crc = _HEADER.unpack_from(view)
        if version != VERSION:
            raise FormatError("batch has a version this release does not know", expected=str(VERSION), got=str(version))
        whole = _HEADER.size + count * _ROW_BYTES + 8 + payload_bytes
        if whole != view.nbytes or zero:
            raise FormatError("batch of deltas is not whole", expected=f"{whole} bytes", got=f"{view.nbytes} bytes")
        if crc32c(view[_HEADER.size :], crc32c(view[:_CRC_AT])) != crc:
            raise ChecksumError("batch of deltas is damaged", expected=f"CRC-32C {crc:08x}")
        body = np.frombuffer(view, np.uint8)[_HEADER.size :]
        words = body[: 8 * (4 * count + 1)].view(np.uint64)
        flags_at = 8 * (4 * count + 1)
        made = cls(
            pages=words[:count],
            epochs=words[count : 2 * count],
            sizes=words[2 * count : 3 * count],
            offsets=words[3 * count :].view(np.int64),
            flags=body[flags_at : flags_at + count],
            payload=body[flags_at + count :],
            elem_width=width,
        )
        made.validate()
        return made

    def _payload(self, row: int) -> NDArray[np.uint8]:
        return self.payload[self.offsets[row] : self.offsets[row + 1]]


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the offsets of parts that lie one behind the other."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends
