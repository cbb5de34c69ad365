"""One commit being made: operations become frames, each page's bytes are compared once, at the end.

Nothing is seen by anybody before `finish`; extents and slots taken for it are given back by `abandon`.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import wall_tick_ns
from stoker.core.errors import CorruptError
from stoker.kernels.deltas import two_level_apply, two_level_changed, two_level_diff
from stoker.pages.arena.arena import Arena, PageFacts
from stoker.pages.arena.extents import Extent
from stoker.pages.arena.layout import Counter, Word
from stoker.pages.errors import Conflict, InvalidDelta, PageNotFound, quarantined
from stoker.pages.frames import (
    CREATE_RECORD,
    META_RECORD,
    MOVE_RECORD,
    RESIZE_RECORD,
    RUN_RECORD,
    STATE_RECORD,
    Codec,
    Frame,
    FrameType,
    Location,
    PageState,
    Residency,
    encode_wave,
    pages_of,
)
from stoker.pages.images import Meta, encode_meta

ELEM_WIDTHS: Final = (1, 2, 4, 8)
WHOLE_BYTES: Final = 64


class Change(msgspec.Struct, frozen=True):
    """How a page's bytes become others, in the form of a frame."""

    kind: FrameType
    codec: Codec
    payload: bytes
    changed_bytes: int

    def apply(self, image: NDArray[np.uint8]) -> None:
        """Do it to the bytes that it was made from."""
        if self.kind == FrameType.IMAGE:
            image[:] = np.frombuffer(self.payload, np.uint8)
        else:
            two_level_apply(image.data, self.payload)


class Commit:
    """Operations that become one commit. The arena's lock is held from the first to the last.

    source  number of the name of who writes, 0 for none
    """

    def __init__(self, arena: Arena, source: int = 0) -> None:
        self._arena = arena
        self._source = source
        self._time_ns = wall_tick_ns()
        self._frames: list[Frame] = []
        self._named: tuple[dict[str, int], str, int] | None = None
        self._images: dict[int, NDArray[np.uint8]] = {}
        self._bases: dict[int, NDArray[np.uint8]] = {}
        # Pages that were written whole, while nothing else in this commit asks for them: what is to be framed, and what
        # was.
        self._waiting: dict[int, Change] = {}
        self._framed: dict[int, Change] = {}
        self._facts: dict[int, PageFacts] = {}
        self._freed: set[int] = set()
        self._taken: list[Extent] = []
        self._new_pages: list[int] = []

    # -- what a page is inside this commit -----------------------------------------------------------------------

    def facts(self, page: int) -> PageFacts:
        """Return what the page is after the operations so far. Raises PageNotFound."""
        if page in self._freed:
            raise PageNotFound("page was freed in this commit", got=str(page))
        if page not in self._facts:
            self._facts[page] = self._arena.facts_at(self._arena.table.find(page))
        return self._facts[page]

    def sound(self, page: int) -> PageFacts:
        """Return the same of a page whose bytes can be trusted. Raises PageNotFound, Quarantined."""
        facts = self.facts(page)
        if facts.state == PageState.QUARANTINED:
            raise quarantined(page)
        return facts

    def image(self, page: int) -> NDArray[np.uint8]:
        """Return the page's bytes inside this commit, writable. Raises PageNotFound, Quarantined."""
        facts = self.sound(page)
        if page not in self._images:
            self._bases[page] = self._arena.view(facts.offset, facts.size_bytes)
            self._images[page] = self._bases[page].copy()
            change = self._waiting.pop(page, None)
            if change is not None:
                change.apply(self._images[page])
            elif page in self._framed:
                self._framed.pop(page).apply(self._images[page])
                self._bases[page] = self._images[page].copy()
        return self._images[page]

    def expect(self, page: int, epoch: int | None) -> None:
        """Raise Conflict when the page has another epoch than `epoch`; None expects nothing."""
        found = self._arena.facts_at(self._arena.table.find(page)).epoch if page not in self._new_pages else 0
        if epoch is not None and found != epoch:
            self._arena.words[Word.COUNTERS + Counter.CONFLICTS] += 1
            raise Conflict("page was changed meanwhile", where=str(page), expected=f"epoch {epoch}", got=str(found))

    # -- operations ----------------------------------------------------------------------------------------------

    def create(
        self, size_bytes: int, meta: Meta, *, elem_width: int = 1, location: int = Location.HOST, flags: int = 0
    ) -> int:
        """Add a page of zeros and return its id. Raises InvalidDelta for a size that is none, OutOfSpace."""
        if size_bytes < 1 or elem_width not in ELEM_WIDTHS:
            raise InvalidDelta("page needs a size of at least 1 byte and elements of 1, 2, 4 or 8 bytes")
        encoded = encode_meta(meta) if meta else b""
        extent = self._take(size_bytes + len(encoded))
        page = self._arena.table.take()
        self._new_pages.append(page)
        residency = Residency.DEVICE if location == Location.DEVICE else Residency.HOST
        record = CREATE_RECORD.pack(size_bytes, *extent, PageState.CLEAN, location, residency, flags, len(encoded), 0)
        self._add(FrameType.CREATE, page, 0, record + encoded, elem_width)
        self._facts[page] = PageFacts(
            page, 0, 0, extent[0], size_bytes, PageState.CLEAN, location, residency, elem_width, flags, 0, 0, 0
        )
        self._images[page] = np.zeros(size_bytes, np.uint8)
        self._bases[page] = np.zeros(size_bytes, np.uint8)
        return page

    def free(self, page: int) -> None:
        """Remove a page. Raises PageNotFound."""
        facts = self.facts(page)
        self._add(FrameType.FREE, page, facts.epoch, b"", facts.elem_width)
        self._images.pop(page, None)
        self._framed.pop(page, None)
        self._waiting.pop(page, None)
        self._freed.add(page)

    def write(self, page: int, data: NDArray[np.uint8]) -> None:
        """Replace all bytes of a page, `data` of its size: compared where they lie, and not copied."""
        facts = self.sound(page)
        if self._touched(page):
            self.image(page)[:] = data
            return
        base = self._arena.view(facts.offset, facts.size_bytes)
        change = self._change_of(base, np.ascontiguousarray(data))
        if change:
            self._waiting[page] = change

    def _touched(self, page: int) -> bool:
        return page in self._images or page in self._waiting or page in self._framed

    def write_at(self, page: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Overwrite part of a page; what is equal already is not logged. Raises InvalidDelta beyond the page's end."""
        facts = self.sound(page)
        if offset < 0 or offset + data.size > facts.size_bytes:
            raise InvalidDelta(
                "write leaves the page",
                where=str(page),
                expected=f"within {facts.size_bytes} bytes",
                got=f"{data.size} bytes at {offset}",
            )
        if self._touched(page):
            self.image(page)[offset : offset + data.size] = data
            return
        differs = np.flatnonzero(self._arena.view(facts.offset + offset, data.size) != data)
        if not differs.size:
            self._arena.words[Word.COUNTERS + Counter.UNCHANGED] += 1
            return
        first, end = int(differs[0]), int(differs[-1]) + 1
        payload = RUN_RECORD.pack(offset + first, end - first) + data[first:end].tobytes()
        payload += bytes(-len(payload) % 8)
        self._add(FrameType.DELTA, page, facts.epoch + 1, payload, facts.elem_width, Codec.RUNS)
        self._change(page, epoch=facts.epoch + 1)
        self._count_changed(end - first, len(payload))
        self._image_after_runs(page, offset, data)

    def _image_after_runs(self, page: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Later operations of this commit must see the write, though the arena does not hold it yet."""
        facts = self._facts[page]
        image = self._arena.view(facts.offset, facts.size_bytes).copy()
        image[offset : offset + data.size] = data
        self._images[page], self._bases[page] = image, image.copy()

    def apply_delta(self, page: int, payload: bytes) -> None:
        """Overwrite what a TWO_LEVEL payload says; nothing is compared. Raises InvalidDelta where it does not fit."""
        facts = self.sound(page)
        try:
            changed = two_level_changed(facts.size_bytes, payload)
        except CorruptError as error:
            raise InvalidDelta("delta does not fit its page", where=str(page), got=str(error)) from error
        if self._touched(page) or len(payload) >= facts.size_bytes:
            two_level_apply(self.image(page).data, payload)
        elif changed:
            self._waiting[page] = Change(FrameType.DELTA, Codec.TWO_LEVEL, payload, changed)

    def resize(self, page: int, size_bytes: int) -> None:
        """Give a page another size: what fits is kept, the rest is zero. Raises PageNotFound, OutOfSpace."""
        facts = self.sound(page)
        if size_bytes < 1:
            raise InvalidDelta("page needs a size of at least 1 byte", got=str(size_bytes))
        if size_bytes == facts.size_bytes:
            return
        self._settle(page)
        facts = self.facts(page)
        extent = self._take(size_bytes + facts.meta_bytes)
        self._add(FrameType.RESIZE, page, facts.epoch + 1, RESIZE_RECORD.pack(size_bytes, *extent, 0), facts.elem_width)
        image = np.zeros(size_bytes, np.uint8)
        kept = min(size_bytes, facts.size_bytes)
        image[:kept] = self.image(page)[:kept]
        self._bases[page] = image.copy()
        self._images[page] = image
        self._change(page, epoch=facts.epoch + 1, size_bytes=size_bytes)

    def move(self, page: int, location: int, residency: int) -> None:
        """Say where the page's authoritative bytes live from now on."""
        facts = self.facts(page)
        self._add(FrameType.MOVE, page, facts.epoch, MOVE_RECORD.pack(location, residency), facts.elem_width)
        self._change(page, location=location, residency=residency)

    def set_state(self, page: int, state: int) -> None:
        """Give a page another state; its bytes and epoch remain. Raises Quarantined: that state ends with `restore`."""
        facts = self.sound(page)
        if facts.state != state:
            self._add(FrameType.STATE, page, facts.epoch, STATE_RECORD.pack(state), facts.elem_width)
            self._change(page, state=state)

    def restore(self, page: int, image: NDArray[np.uint8]) -> None:
        """Give a page these bytes, whatever lies there now, and end its quarantine. Raises InvalidDelta."""
        facts = self.facts(page)
        if image.size != facts.size_bytes or self._touched(page):
            raise InvalidDelta("image does not fit the page", where=str(page), got=f"{image.size} bytes")
        self._frame_change(page, Change(FrameType.IMAGE, Codec.RAW, image.tobytes(), image.size))
        self._change(page, state=PageState.CLEAN)

    def set_meta(self, page: int, meta: Meta) -> None:
        """Replace a page's metadata."""
        facts = self.facts(page)
        encoded = encode_meta(meta)
        offset, kind = self._take(len(encoded))
        record = META_RECORD.pack(offset, kind + 1, 0)
        self._add(FrameType.META, page, facts.epoch, record + encoded, facts.elem_width)

    def mark(self, name: str) -> None:
        """Name this moment."""
        self._add(FrameType.MARK, 0, 0, name.encode())

    def name_source(self, number: int, name: str, named: dict[str, int]) -> None:
        """Say which name a number of a source stands for, and enter it in `named` once that is in the log.

        A commit that is refused has told nobody.
        """
        self._named = (named, name, number)
        self._frames.append(Frame(0, FrameType.SOURCE, time_ns=self._time_ns, source=number, payload=name.encode()))

    def wave(self, images: Mapping[int, NDArray[np.uint8]]) -> None:
        """Give many pages new bytes by one frame. Raises PageNotFound, InvalidDelta for another size.

        Each page differs from its image, and nothing else in this commit concerns its bytes.
        """
        parts: list[Frame] = []
        for page, image in images.items():
            facts = self.sound(page)
            if image.size != facts.size_bytes or page in self._images:
                raise InvalidDelta("image does not fit the page", where=str(page), got=f"{image.size} bytes")
            kind, codec, payload, changed = self._wave_part(facts, image)
            parts.append(Frame(0, kind, page, facts.epoch + 1, 0, codec, facts.elem_width, payload=payload))
            self._change(page, epoch=facts.epoch + 1, state=PageState.CLEAN)
            counters = self._arena.words
            counters[Word.COUNTERS + Counter.CHANGED_BYTES] += changed
            counters[Word.COUNTERS + Counter.DELTA_BYTES] += len(payload)
        self._add(FrameType.WAVE, 0, 0, encode_wave(parts))

    def _wave_part(self, facts: PageFacts, image: NDArray[np.uint8]) -> tuple[FrameType, Codec, bytes, int]:
        """A page of one line goes whole: its masks would be longer than what they save."""
        base = self._arena.view(facts.offset, facts.size_bytes)
        if facts.size_bytes <= WHOLE_BYTES:
            return FrameType.IMAGE, Codec.RAW, image.tobytes(), int(np.count_nonzero(base != image))
        payload, changed = two_level_diff(base.data, image.data)
        if len(payload) >= facts.size_bytes:
            return FrameType.IMAGE, Codec.RAW, image.tobytes(), changed
        return FrameType.DELTA, Codec.TWO_LEVEL, payload, changed

    def record(self, kind: FrameType, payload: bytes) -> None:
        """Log an EVENT or a CHECKPOINT: nothing in the pages changes."""
        self._add(kind, 0, 0, payload)

    def _take(self, size_bytes: int) -> Extent:
        extent = self._arena.take(size_bytes)
        self._taken.append(extent)
        return extent

    def _add(
        self, kind: FrameType, page: int, epoch: int, payload: bytes, elem_width: int = 1, codec: int = Codec.RAW
    ) -> None:
        frame = Frame(0, kind, page, epoch, self._time_ns, codec, elem_width, source=self._source, payload=payload)
        self._frames.append(frame)

    def _change(self, page: int, **fields: int) -> None:
        self._facts[page] = msgspec.structs.replace(self._facts[page], **fields)

    def _settle(self, page: int) -> None:
        """Make a frame of what changed in a page since its last frame; none where nothing did."""
        if page in self._waiting:
            self._framed[page] = self._waiting.pop(page)
            self._frame_change(page, self._framed[page])
        elif page in self._images:
            change = self._change_of(self._bases[page], self._images[page])
            if change:
                self._frame_change(page, change)
                self._bases[page] = self._images[page].copy()

    def _change_of(self, base: NDArray[np.uint8], fresh: NDArray[np.uint8]) -> Change | None:
        """Return what differs; None, and count it, where nothing does."""
        payload, changed = two_level_diff(base.data, fresh.data)
        if not changed:
            self._arena.words[Word.COUNTERS + Counter.UNCHANGED] += 1
            return None
        if len(payload) >= fresh.size:
            return Change(FrameType.IMAGE, Codec.RAW, fresh.tobytes(), changed)
        return Change(FrameType.DELTA, Codec.TWO_LEVEL, payload, changed)

    def _frame_change(self, page: int, change: Change) -> None:
        facts = self._facts[page]
        self._add(change.kind, page, facts.epoch + 1, change.payload, facts.elem_width, change.codec)
        self._change(page, epoch=facts.epoch + 1)
        self._count_changed(change.changed_bytes, len(change.payload))

    def _count_changed(self, changed_bytes: int, payload_bytes: int) -> None:
        counters = self._arena.words
        counters[Word.COUNTERS + Counter.CHANGED_BYTES] += changed_bytes
        counters[Word.COUNTERS + Counter.DELTA_BYTES] += payload_bytes

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> int:
        """Commit, and return the LSN; the present one when nothing changed. Raises OutOfSpace, Poisoned."""
        for page in [*self._images, *self._waiting]:
            self._settle(page)
        if not self._frames:
            return int(self._arena.words[Word.COMMITTED_LSN])
        logged = self._arena.log(self._frames)
        # From here on it happens, whatever is raised: what was taken is not ours any more.
        self._taken.clear()
        self._new_pages.clear()
        if self._named is not None:
            named, name, number = self._named
            named[name] = number
        return self._arena.carry_out(logged)

    def abandon(self) -> None:
        """Give back what was taken; nothing happened."""
        for extent in self._taken:
            self._arena.extents.give(extent)
        for page in self._new_pages:
            self._arena.table.give(page)
        self._taken.clear()
        self._new_pages.clear()

    def pages(self) -> list[int]:
        """Return the pages that frames so far concern, in order."""
        return sorted({page for frame in self._frames for page in pages_of(frame)})
