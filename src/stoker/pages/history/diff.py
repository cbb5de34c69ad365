"""What differs between two states, and the frames that turn one into the other."""

import msgspec
import numpy as np

from stoker.kernels.deltas import two_level_diff
from stoker.pages.frames import CREATE_RECORD, LAST, META_RECORD, RESIZE_RECORD, Codec, Frame, FrameType
from stoker.pages.history.state import State
from stoker.pages.images import PageImage


class PageChange(msgspec.Struct, frozen=True):
    """One page in both states that differs. Ranges are (offset, length) of changed bytes, close ones joined."""

    page: int
    changed_bytes: int
    ranges: tuple[tuple[int, int], ...]
    resized: bool
    meta_changed: bool


class StateDiff(msgspec.Struct, frozen=True):
    """What differs: ids of pages made and gone, and pages that changed."""

    created: tuple[int, ...]
    freed: tuple[int, ...]
    changed: tuple[PageChange, ...]

    @property
    def empty(self) -> bool:
        """Tell whether nothing differs."""
        return not (self.created or self.freed or self.changed)


_GAP_BYTES = 64


def diff_states(old: State, new: State) -> StateDiff:
    """Return what differs between two states in bytes, sizes and metadata; epochs do not count."""
    both = sorted(old.pages.keys() & new.pages.keys())
    changes = [_page_change(old.pages[page], new.pages[page]) for page in both]
    return StateDiff(
        tuple(sorted(new.pages.keys() - old.pages.keys())),
        tuple(sorted(old.pages.keys() - new.pages.keys())),
        tuple(change for change in changes if change),
    )


def _page_change(old: PageImage, new: PageImage) -> PageChange | None:
    common = min(old.size_bytes, new.size_bytes)
    differs = np.flatnonzero(old.data[:common] != new.data[:common])
    resized, meta_changed = old.size_bytes != new.size_bytes, old.meta != new.meta
    if not differs.size and not resized and not meta_changed:
        return None
    return PageChange(
        new.page, differs.size + abs(old.size_bytes - new.size_bytes), changed_ranges(differs), resized, meta_changed
    )


def changed_ranges(differs: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return (offset, length) that cover sorted offsets; those nearer than 64 bytes are joined."""
    if not differs.size:
        return ()
    breaks = np.flatnonzero(np.diff(differs) > _GAP_BYTES)
    starts = differs[np.concatenate(([0], breaks + 1))]
    ends = differs[np.concatenate((breaks, [differs.size - 1]))] + 1
    return tuple(zip(starts.tolist(), (ends - starts).tolist(), strict=True))


def frames_between(old: State, new: State) -> list[Frame]:
    """Return frames that turn `old` into the content of `new`, LSNs going on from `old`, as one commit."""
    found: list[Frame] = [
        Frame(0, FrameType.FREE, page, old.pages[page].epoch) for page in sorted(old.pages.keys() - new.pages.keys())
    ]
    for page in sorted(new.pages):
        image, before = new.pages[page], old.pages.get(page)
        if before is None:
            record = CREATE_RECORD.pack(
                image.size_bytes, 0, 0, image.state, image.location, image.residency, image.flags, len(image.meta), 0
            )
            found.append(Frame(0, FrameType.CREATE, page, 0, elem_width=image.elem_width, payload=record + image.meta))
            before = PageImage(page, 0, 0, np.zeros(image.size_bytes, np.uint8), meta=image.meta)
        found += _page_frames(before, image)
    last = len(found)
    return [
        msgspec.structs.replace(frame, lsn=old.lsn + index, time_ns=new.time_ns, flags=LAST if index == last else 0)
        for index, frame in enumerate(found, 1)
    ]


def _page_frames(before: PageImage, after: PageImage) -> list[Frame]:
    found, epoch, data = [], before.epoch, before.data
    if before.size_bytes != after.size_bytes:
        epoch += 1
        payload = RESIZE_RECORD.pack(after.size_bytes, 0, 0, 0)
        found.append(Frame(0, FrameType.RESIZE, after.page, epoch, payload=payload))
        data = np.zeros(after.size_bytes, np.uint8)
        kept = min(before.size_bytes, after.size_bytes)
        data[:kept] = before.data[:kept]
    payload, changed = two_level_diff(data.data, after.data.data)
    if changed:
        epoch += 1
        kind, codec = FrameType.DELTA, Codec.TWO_LEVEL
        if len(payload) >= after.size_bytes:
            kind, codec, payload = FrameType.IMAGE, Codec.RAW, after.data.tobytes()
        found.append(Frame(0, kind, after.page, epoch, codec=codec, elem_width=after.elem_width, payload=payload))
    if before.meta != after.meta:
        found.append(Frame(0, FrameType.META, after.page, epoch, payload=META_RECORD.pack(0, 0, 0) + after.meta))
    return found
