"""All pages at one moment, apart from any arena: what replay builds and checkpoints hold."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import xxhash

from stoker.core.errors import CorruptError
from stoker.kernels.deltas import two_level_apply
from stoker.pages.errors import CorruptLog, InvalidDelta
from stoker.pages.frames import (
    CREATE_RECORD,
    META_RECORD,
    MOVE_RECORD,
    RESIZE_RECORD,
    RUN_RECORD,
    Codec,
    Frame,
    FrameType,
    PageState,
    padded,
    parts_of,
)
from stoker.pages.images import PageImage

PAGE_BYTES_MAX: Final = 1 << 40
_BYTES_MAX: Final = 1 << 44


class State:
    """Pages by id, as of `lsn`. It owns the bytes of its pages.

    marks           names given to moments, with their LSNs
    sources         names of who wrote, by number
    max_generation  the largest generation of any id so far
    bytes_max       more bytes of pages than this are refused: a damaged record must not take all memory
    """

    def __init__(self, *, bytes_max: int = _BYTES_MAX) -> None:
        self.pages: dict[int, PageImage] = {}
        self.lsn = 0
        self.time_ns = 0
        self.marks: dict[str, int] = {}
        self.sources: dict[int, str] = {}
        self.max_generation = 0
        self.bytes_max = bytes_max
        self._bytes = 0

    @classmethod
    def of(cls, images: Iterable[PageImage], lsn: int) -> "State":
        """Return a state of copies of these pages."""
        state = cls()
        for image in images:
            state.put(msgspec.structs.replace(image, data=image.data.copy()))
        state.lsn = lsn
        return state

    def copy(self) -> "State":
        """Return one that shares nothing with this one."""
        twin = State.of(self.pages.values(), self.lsn)
        twin.time_ns, twin.max_generation = self.time_ns, self.max_generation
        twin.marks, twin.sources = dict(self.marks), dict(self.sources)
        return twin

    def put(self, image: PageImage) -> None:
        """Take a page as it is, in place of one with its id. Raises InvalidDelta for more bytes than allowed."""
        before = self.pages.get(image.page)
        grown = self._bytes + image.size_bytes - (before.size_bytes if before else 0)
        if grown > self.bytes_max:
            raise InvalidDelta("pages are larger than allowed", expected=f"{self.bytes_max} bytes", got=str(grown))
        self._bytes = grown
        self.pages[image.page] = image
        self.max_generation = max(self.max_generation, image.page >> 32)

    def take(self, images: list[PageImage]) -> None:
        """Take pages into an empty state, as `put` does. Raises InvalidDelta, also for a page that is there twice."""
        found = {image.page: image for image in images}
        size_bytes = sum(image.data.size for image in images)
        if self.pages or len(found) < len(images) or size_bytes > self.bytes_max:
            raise InvalidDelta("pages are larger than allowed, or twice the same", got=f"{size_bytes} bytes")
        self.pages, self._bytes = found, size_bytes
        self.max_generation = max(self.max_generation, max(found, default=0) >> 32)

    @property
    def page_bytes(self) -> int:
        """Bytes of all pages."""
        return self._bytes

    @property
    def next_generation(self) -> int:
        """The generation from which on ids are new: 0 where nothing ever was."""
        return self.max_generation + 1 if self.lsn else 0

    def digest(self) -> str:
        """Return 32 hexadecimal digits, equal for states with equal pages whatever their history."""
        whole = xxhash.xxh3_128()
        for page in sorted(self.pages):
            image = self.pages[page]
            facts = (page, image.epoch, image.size_bytes, image.state, image.elem_width, image.flags, image.meta)
            whole.update(msgspec.msgpack.encode(facts))
            whole.update(xxhash.xxh3_128_digest(image.data.data))
        return whole.hexdigest()

    # -- frames --------------------------------------------------------------------------------------------------

    def apply(self, frame: Frame) -> None:
        """Do what a frame says; one that was done already does nothing.

        Raises InvalidDelta for a frame that does not fit: of no page, another size, or an epoch that does not follow;
        CorruptLog for an unknown codec.
        """
        if frame.lsn <= self.lsn:
            return
        kind = FrameType(frame.type)
        if kind == FrameType.WAVE:
            for part in _parts(frame):
                self._change(FrameType(part.type), part)
        elif kind == FrameType.CREATE:
            self._create(frame)
        elif kind in _PAGE_KINDS:
            self._change(kind, frame)
        elif kind == FrameType.MARK:
            self.marks[bytes(frame.payload).decode()] = frame.lsn
        elif kind == FrameType.SOURCE:
            self.sources[frame.source] = bytes(frame.payload).decode()
        self.lsn, self.time_ns = frame.lsn, frame.time_ns

    def _create(self, frame: Frame) -> None:
        size, _, _, state, location, residency, flags, meta_bytes, _ = CREATE_RECORD.unpack_from(frame.payload)
        if frame.page in self.pages or not 0 < size <= min(PAGE_BYTES_MAX, self.bytes_max - self._bytes):
            raise InvalidDelta("page cannot be made", where=str(frame.page), got=f"{size} bytes")
        meta = bytes(frame.payload[CREATE_RECORD.size : CREATE_RECORD.size + meta_bytes]) or b"\x80"
        data = np.zeros(size, np.uint8)
        self.put(
            PageImage(
                frame.page, frame.epoch, frame.lsn, data, state, location, residency, frame.elem_width, flags, meta
            )
        )

    def _change(self, kind: FrameType, frame: Frame) -> None:
        image = self.pages.get(frame.page)
        if image is None:
            raise InvalidDelta("frame is of a page that is not there", where=str(frame.page), got=f"LSN {frame.lsn}")
        steps = kind in (FrameType.DELTA, FrameType.IMAGE, FrameType.RESIZE)
        if frame.epoch != image.epoch + steps:
            raise InvalidDelta(
                "epoch of a frame does not follow its page's",
                where=str(frame.page),
                expected=str(image.epoch + steps),
                got=str(frame.epoch),
            )
        if kind == FrameType.FREE:
            self._bytes -= image.size_bytes
            del self.pages[frame.page]
            return
        if kind in (FrameType.DELTA, FrameType.IMAGE):
            _overwrite(image, frame)
            image.state = PageState.CLEAN
        elif kind == FrameType.RESIZE:
            self._resize(image, RESIZE_RECORD.unpack_from(frame.payload)[0])
        elif kind == FrameType.MOVE:
            image.location, image.residency = MOVE_RECORD.unpack_from(frame.payload)
        elif kind == FrameType.STATE:
            image.state = frame.payload[0]
        elif kind == FrameType.META:
            image.meta = bytes(frame.payload[META_RECORD.size :])
        image.epoch, image.lsn = frame.epoch, frame.lsn

    def _resize(self, image: PageImage, size: int) -> None:
        if not 0 < size <= min(PAGE_BYTES_MAX, self.bytes_max - self._bytes + image.size_bytes):
            raise InvalidDelta("page cannot be resized", where=str(image.page), got=f"{size} bytes")
        data = np.zeros(size, np.uint8)
        kept = min(size, image.size_bytes)
        data[:kept] = image.data[:kept]
        self._bytes += size - image.size_bytes
        image.data = data


_PAGE_KINDS: Final = frozenset(
    {
        FrameType.FREE,
        FrameType.RESIZE,
        FrameType.MOVE,
        FrameType.DELTA,
        FrameType.IMAGE,
        FrameType.META,
        FrameType.STATE,
    }
)


def _parts(frame: Frame) -> list[Frame]:
    try:
        return list(parts_of(frame))
    except CorruptError as error:
        raise CorruptLog("frame of a wave does not fit", got=str(error)) from error


def _overwrite(image: PageImage, frame: Frame) -> None:
    if frame.type == FrameType.IMAGE:
        if len(frame.payload) != image.size_bytes:
            raise InvalidDelta("image does not fit its page", where=str(frame.page), got=f"{len(frame.payload)} bytes")
        image.data[:] = np.frombuffer(frame.payload, np.uint8)
    elif frame.codec == Codec.TWO_LEVEL:
        try:
            two_level_apply(image.data.data, frame.payload)
        except CorruptError as error:
            raise InvalidDelta("delta does not fit its page", where=str(frame.page), got=str(error)) from error
    elif frame.codec == Codec.RUNS:
        for offset, data in runs(frame.payload, image.size_bytes):
            image.data[offset : offset + data.size] = data
    else:
        raise CorruptLog("delta has an unknown codec", where=str(frame.page), got=str(frame.codec))


def runs(payload: bytes | memoryview, page_bytes: int) -> list[tuple[int, np.ndarray]]:
    """Return the runs of a RUNS payload: offset and bytes. Raises InvalidDelta for one that leaves its page."""
    found, position = [], 0
    while position + RUN_RECORD.size <= len(payload):
        offset, length = RUN_RECORD.unpack_from(payload, position)
        position += RUN_RECORD.size
        if offset + length > page_bytes or position + length > len(payload):
            raise InvalidDelta(
                "run leaves its page", expected=f"within {page_bytes} bytes", got=f"{length} at {offset}"
            )
        found.append((offset, np.frombuffer(payload, np.uint8, length, position)))
        position += padded(length)
    return found
