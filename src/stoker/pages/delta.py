"""What changed on one page: deltas that overwrite, and XOR deltas that run both ways.

A `Delta` is a partial map from offset to byte. Applied twice it does what it does once; composing is associative, and
the later one wins: so it may stand in logs and be applied again after a crash. An `XorDelta` is its own inverse, and
composing is commutative; applied twice it undoes itself, so it asks for the page's epoch and refuses any but its two.
"""

from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.kernels.checking import Readable
from stoker.pages import delta_payloads as payloads
from stoker.pages.delta_bytes import OVERWRITE, XOR, DeltaRecord, decode_record, encode_record
from stoker.pages.delta_payloads import ELEM_WIDTHS, Image, bytes_of
from stoker.pages.errors import Conflict, InvalidDelta
from stoker.pages.frames import FRAME_BYTES_MAX, Codec
from stoker.pages.images import Meta

_U64_END = 1 << 64


def _require_u64(name: str, number: int) -> None:
    if not 0 <= number < _U64_END:
        raise InvalidDelta("delta has a field out of range", where=name, got=str(number))


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds have: the page, and which of its bytes are written with what."""

    page: int
    epoch: int
    size_bytes: int
    payload: bytes = b""
    codec: int = Codec.TWO_LEVEL
    elem_width: int = 1
    source: str = ""
    note: Meta = {}

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing changes."""
        return not self.payload

    @property
    def changed_bytes(self) -> int:
        """Bytes that are written; a RAW delta writes all. Raises InvalidDelta for a payload that does not fit."""
        return payloads.changed_bytes(self.codec, self.size_bytes, self.payload)

    def mask(self) -> NDArray[np.bool_]:
        """Return a flag for each byte of the page that is written. Raises InvalidDelta as `validate` does."""
        return self._parts()[0]

    def changed_ranges(self, merge_gap: int = 0) -> NDArray[np.int64]:
        """Return the ranges that are written, int64 of shape (n, 2): offset and length, in order.

        Ranges with at most `merge_gap` bytes between them are told as one.
        """
        places = np.flatnonzero(self.mask())
        if not places.size:
            return np.empty((0, 2), np.int64)
        breaks = np.flatnonzero(np.diff(places) > merge_gap + 1)
        starts = places[np.concatenate(([0], breaks + 1))]
        ends = places[np.concatenate((breaks, [places.size - 1]))] + 1
        return np.stack((starts, ends - starts), axis=1).astype(np.int64)

    def validate(self) -> None:
        """Raise InvalidDelta for fields out of their range, or a payload that does not fit the page."""
        if not 0 < self.size_bytes <= FRAME_BYTES_MAX:
            raise InvalidDelta(
                "page of a delta has no such size", expected=f"1 to {FRAME_BYTES_MAX} bytes", got=str(self.size_bytes)
            )
        for name, number in (("page", self.page), ("epoch", self.epoch)):
            _require_u64(name, number)
        if self.elem_width not in ELEM_WIDTHS:
            raise InvalidDelta("delta has no such element width", expected="1, 2, 4 or 8", got=str(self.elem_width))
        payloads.changed_bytes(self.codec, self.size_bytes, self.payload)

    def _parts(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        return payloads.unpack(self.codec, self.size_bytes, self.payload)

    def _require_same_page(self, other: "_Change") -> None:
        for name in ("page", "size_bytes", "elem_width"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise InvalidDelta("deltas of two pages do not compose", where=name, expected=str(mine), got=str(its))

    def _record(self, kind: int, base_epoch: int = 0) -> DeltaRecord:
        return DeltaRecord(
            kind,
            self.page,
            self.epoch,
            self.size_bytes,
            self.payload,
            self.codec,
            self.elem_width,
            self.source,
            self.note,
            base_epoch,
        )


class Delta(_Change, frozen=True, kw_only=True):
    """Bytes to overwrite on one page.

    page        id of the page
    epoch       of the page after this delta
    size_bytes  of the page
    payload     by codec, see `stoker.pages.frames`; empty where nothing changes
    codec       TWO_LEVEL, RAW for a dense change, or RUNS
    elem_width  bytes of an element of the page: 1, 2, 4, 8
    source      who made it
    note        what its maker wants to be known beside it
    """

    @classmethod
    def diff(cls, old: Image, new: Image, *, page: int, epoch: int, elem_width: int = 1, source: str = "") -> Self:
        """Return what leads from one image to another of its size; what did not change is not written.

        A change so dense that the page itself is shorter becomes RAW. Raises InvalidDelta for images of two sizes or
        of none.
        """
        was, now = bytes_of(old), bytes_of(new)
        payloads.require_size(now, was.size)
        codec, payload = payloads.pack(was, now)
        made = cls(
            page=page,
            epoch=epoch,
            size_bytes=was.size,
            payload=payload,
            codec=codec,
            elem_width=elem_width,
            source=source,
        )
        made.validate()
        return made

    def apply(self, target: Image) -> None:
        """Overwrite in `target`, the page's memory, what the delta says.

        Raises InvalidDelta, and writes nothing, for memory of another size or a payload that does not fit it.
        """
        payloads.write(self.codec, payloads.target_of(target, self.size_bytes), self.payload)

    def compose(self, later: "Delta") -> "Delta":
        """Return one delta that does what this one and then the later one do.

        Epoch, source and note are the later one's. Raises InvalidDelta for deltas of two pages, or an epoch that
        goes back.
        """
        self._require_same_page(later)
        if later.epoch < self.epoch:
            raise InvalidDelta("epoch goes back", expected=f"{self.epoch} or more", got=str(later.epoch))
        (mask, values), (later_mask, later_values) = self._parts(), later._parts()
        image = np.zeros(self.size_bytes, np.uint8)
        image[mask] = values
        image[later_mask] = later_values
        union = mask | later_mask
        codec, payload = payloads.pack_mask(union, image[union])
        return msgspec.structs.replace(later, codec=codec, payload=payload)

    def invert(self, old: Image, *, epoch: int | None = None) -> "Delta":
        """Return the delta that brings back what this one overwrites; `old` is the page before it.

        Its epoch is the next one unless told: the page changes again. Raises InvalidDelta for a page of another size.
        """
        was = bytes_of(old)
        payloads.require_size(was, self.size_bytes)
        mask = self.mask()
        codec, payload = payloads.pack_mask(mask, was[mask])
        after = self.epoch + 1 if epoch is None else epoch
        return msgspec.structs.replace(self, codec=codec, payload=payload, epoch=after)

    def to_bytes(self) -> bytes:
        """Return the delta as bytes, with a checksum. Raises InvalidDelta for one that is not valid."""
        self.validate()
        return encode_record(self._record(OVERWRITE))

    @classmethod
    def from_bytes(cls, data: Readable) -> "Delta":
        """Return the delta that the bytes hold.

        Raises FormatError or ChecksumError for bytes that are none, InvalidDelta for parts that do not fit.
        """
        record = decode_record(data, OVERWRITE)
        made = cls(
            page=record.page,
            epoch=record.epoch,
            size_bytes=record.size_bytes,
            payload=record.payload,
            codec=record.codec,
            elem_width=record.elem_width,
            source=record.source,
            note=record.note,
        )
        made.validate()
        return made


class XorDelta(_Change, frozen=True, kw_only=True):
    """The bitwise difference of a page between two of its epochs; fields as of `Delta`.

    base_epoch  of the page before, as `epoch` is of it after
    """

    base_epoch: int

    @classmethod
    def diff(cls, old: Image, new: Image, *, page: int, epochs: tuple[int, int], elem_width: int = 1) -> Self:
        """Return the difference of two images of one size, at two epochs of the page.

        Raises InvalidDelta for images of two sizes or of none.
        """
        was, now = bytes_of(old), bytes_of(new)
        payloads.require_size(now, was.size)
        codec, payload = payloads.pack(np.zeros_like(was), was ^ now)
        made = cls(
            page=page,
            base_epoch=epochs[0],
            epoch=epochs[1],
            size_bytes=was.size,
            payload=payload,
            codec=codec,
            elem_width=elem_width,
        )
        made.validate()
        return made

    def apply(self, target: Image, epoch: int) -> int:
        """Bring the page from one of the two epochs to the other; return the one it has now.

        Raises Conflict for a page that is at neither, InvalidDelta for memory or a payload that does not fit; then
        nothing is written.
        """
        if epoch not in (self.base_epoch, self.epoch):
            raise Conflict(
                "page is at neither epoch of an XOR delta",
                expected=f"{self.base_epoch} or {self.epoch}",
                got=str(epoch),
            )
        into = payloads.target_of(target, self.size_bytes)
        mask, values = self._parts()
        into[mask] ^= values
        return self.epoch if epoch == self.base_epoch else self.base_epoch

    def inverse(self) -> "XorDelta":
        """Return the same difference seen from its end."""
        return msgspec.structs.replace(self, base_epoch=self.epoch, epoch=self.base_epoch)

    def compose(self, other: "XorDelta") -> "XorDelta":
        """Return the difference over both steps, in whichever order they are given.

        The two meet in an epoch; the result spans those in which they do not, from the smaller to the larger. Raises
        InvalidDelta for deltas of two pages, or that do not meet.
        """
        self._require_same_page(other)
        steps = sorted((self.base_epoch, self.epoch, other.base_epoch, other.epoch))
        if not {self.base_epoch, self.epoch} & {other.base_epoch, other.epoch}:
            raise InvalidDelta(
                "XOR deltas do not meet in an epoch",
                expected=f"{self.base_epoch} or {self.epoch}",
                got=f"{other.base_epoch} and {other.epoch}",
            )
        ends = [epoch for epoch in dict.fromkeys(steps) if steps.count(epoch) % 2] or steps[:1]
        image = np.zeros(self.size_bytes, np.uint8)
        for mask, values in (self._parts(), other._parts()):
            image[mask] ^= values
        codec, payload = payloads.pack(np.zeros_like(image), image)
        if len(ends) == 1 and payload:
            raise InvalidDelta("XOR deltas between the same epochs differ", got=f"epochs {steps[0]} and {steps[-1]}")
        # Whichever is asked: the names that stay are those of the later step.
        last = max(self, other, key=lambda delta: (max(delta.epoch, delta.base_epoch), delta.source))
        return msgspec.structs.replace(last, codec=codec, payload=payload, base_epoch=ends[0], epoch=ends[-1])

    def validate(self) -> None:
        """Raise InvalidDelta for fields out of their range, or a payload that does not fit the page."""
        super().validate()
        _require_u64("base_epoch", self.base_epoch)
        if self.base_epoch == self.epoch and self.payload:
            raise InvalidDelta("page differs from itself at one epoch", got=f"epoch {self.epoch} twice")

    def to_bytes(self) -> bytes:
        """Return the delta as bytes, with a checksum. Raises InvalidDelta for one that is not valid."""
        self.validate()
        return encode_record(self._record(XOR, self.base_epoch))

    @classmethod
    def from_bytes(cls, data: Readable) -> "XorDelta":
        """Return the delta that the bytes hold. Raises as `Delta.from_bytes` does."""
        record = decode_record(data, XOR)
        made = cls(
            page=record.page,
            epoch=record.epoch,
            size_bytes=record.size_bytes,
            payload=record.payload,
            codec=record.codec,
            elem_width=record.elem_width,
            source=record.source,
            note=record.note,
            base_epoch=record.base_epoch,
        )
        made.validate()
        return made
