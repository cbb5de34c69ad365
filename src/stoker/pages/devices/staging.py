"""The one way over the bus: a ring of pinned host memory, in parts, with an event for each."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from stoker.core.errors import UsageError
from stoker.pages.devices.lanes import Arrival, Lane
from stoker.pages.devices.slabs import PLACE_BYTES
from stoker.pages.devices.tiles import Bytes

_PARTS: Final = 4


class StagingRing:
    """Brings bytes to one device and back. Parts are used in turn; one is used again when its last copy is done.

    sent_bytes, fetched_bytes  over the bus so far
    copies                     how many copies that were

    Raises UsageError for a ring that is too small.
    """

    def __init__(self, torch: Any, device: Any, lane: Lane, size_bytes: int) -> None:
        if size_bytes < _PARTS * 4096:
            raise UsageError("staging ring is too small", expected=f"{_PARTS * 4096} bytes", got=str(size_bytes))
        self._torch = torch
        self._device = device
        self._lane = lane
        part_bytes = size_bytes // _PARTS // 4096 * 4096
        memory = torch.empty(_PARTS * part_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._parts = [memory[part * part_bytes : (part + 1) * part_bytes] for part in range(_PARTS)]
        self._busy = [Arrival() for _ in self._parts]
        self._next = 0
        self.part_bytes = part_bytes
        self.sent_bytes = self.fetched_bytes = self.copies = 0

    def _take(self) -> int:
        part, self._next = self._next, (self._next + 1) % _PARTS
        self._busy[part].wait()
        return part

    def send(self, arrays: Sequence[Bytes]) -> tuple[Any, list[int]]:
        """Bring arrays to the device; return one tensor there, and the offset of each array in it.

        Offsets are multiples of 256. A run of arrays that fits a part of the ring is one copy.
        """
        offsets, end = [], 0
        for array in arrays:
            offsets.append(end)
            end += -(-array.size // PLACE_BYTES) * PLACE_BYTES
        target = self._torch.empty(end, dtype=self._torch.uint8, device=self._device)
        for start, pieces in self._filled(arrays, offsets):
            part = self._take()
            room, used = self._parts[part].numpy(), 0
            for at, piece in pieces:
                room[at - start : at - start + piece.size] = piece
                used = at - start + piece.size
            target[start : start + used].copy_(self._parts[part][:used], non_blocking=True)
            self._busy[part] = self._lane.arrival()
            self.sent_bytes += used
            self.copies += 1
        return target, offsets

    def _filled(self, arrays: Sequence[Bytes], offsets: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, Bytes]]]]:
        """Yield what goes into one part of the ring: its start in the target, and pieces with their offsets there."""
        start = 0
        pieces: list[tuple[int, Bytes]] = []
        for array, offset in zip(arrays, offsets, strict=True):
            taken = 0
            while taken < array.size:
                at = offset + taken
                room = start + self.part_bytes - at
                if room <= 0 or not pieces:
                    if pieces:
                        yield start, pieces
                    start, pieces, room = at, [], self.part_bytes
                piece = array[taken : taken + room]
                pieces.append((at, piece))
                taken += piece.size
        if pieces:
            yield start, pieces

    def fetch(self, tensor: Any) -> Bytes:
        """Bring a uint8 tensor to the host, in one copy where it fits a part of the ring."""
        found = np.empty(tensor.numel(), np.uint8)
        for start in range(0, found.size, self.part_bytes):
            part = self._take()
            size = min(self.part_bytes, found.size - start)
            self._parts[part][:size].copy_(tensor[start : start + size], non_blocking=True)
            self._lane.arrival().wait()
            found[start : start + size] = self._parts[part][:size].numpy()
            self.copies += 1
        self.fetched_bytes += found.size
        return found
