"""What changed in pages since a copy was taken, from the log in shared memory."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from stoker.kernels.deltas import two_level_from_mask
from stoker.pages.arena.arena import Arena
from stoker.pages.delta_payloads import unpack
from stoker.pages.follow.tail import FellBehind, RingFollower
from stoker.pages.frames import Codec, Frame, FrameType

_CHANGING: Final = frozenset({FrameType.DELTA, FrameType.IMAGE, FrameType.RESIZE})
"""Frames that give a page its next epoch."""


class Steps(msgspec.Struct, frozen=True):
    """What leads from a copy's epoch to a newer one: payloads to apply in order, or the `whole` page."""

    payloads: list[bytes | memoryview]
    epoch: int
    lsn: int
    whole: bool = False


class ChangeLog:
    """The frames of some pages, as they are committed by anybody. Each is read once, however many copies there are."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._follower = RingFollower(arena)
        self._frames: dict[int, list[Frame]] = defaultdict(list)

    def read(self, pages: Iterable[int]) -> None:
        """Take in what was committed since the last call, of these pages."""
        wanted = set(pages)
        try:
            frames = self._follower.poll()
        except FellBehind:
            self._follower = RingFollower(self._arena)
            self._frames.clear()
            return
        for frame in frames:
            if frame.page in wanted and frame.type in _CHANGING:
                self._frames[frame.page].append(frame)
        for page in self._frames.keys() - wanted:
            del self._frames[page]

    def forget(self, page: int) -> None:
        """Give up the frames of a page: its copies have them."""
        self._frames.pop(page, None)

    def steps(self, page: int, epoch: int, lsn: int, size_bytes: int) -> Steps:
        """Return what leads a copy of a page on; frames are given up once they were asked for.

        Where frames were lost, the size changed, or the payloads are longer than the page, it has to come whole.
        """
        frames = [frame for frame in self._frames.pop(page, []) if frame.epoch > epoch]
        payloads: list[bytes | memoryview] = []
        whole = not frames
        for frame in frames:
            whole = whole or frame.epoch != epoch + 1 or frame.type != FrameType.DELTA
            epoch, lsn = frame.epoch, frame.lsn
            if not whole:
                payloads.append(_two_level(frame, size_bytes))
        whole = whole or sum(len(payload) for payload in payloads) >= size_bytes
        return Steps(payloads, epoch, lsn, whole)


def _two_level(frame: Frame, size_bytes: int) -> bytes | memoryview:
    if frame.codec == Codec.TWO_LEVEL:
        return frame.payload
    mask, values = unpack(frame.codec, size_bytes, frame.payload)
    return two_level_from_mask(np.asarray(mask), values)
