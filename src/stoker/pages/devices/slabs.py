"""The memory that copies of pages lie in: slabs, and which part of them is taken.

| mode | memory | who reads it |
|---|---|---|
| device | the device's own | the device; the host by copies |
| pinned | the host's, which the device copies from at full speed | the host; the device by copies |
| mapped | the same, seen by the device in place | both; every access of the device crosses the bus |
| unified | managed by the driver, which moves it to who uses it | both |

On the host itself all modes are ordinary memory of the host.
"""

from bisect import insort
from typing import Any, Final, NamedTuple

import numpy as np

from stoker.core.errors import UsageError
from stoker.pages.devices.managed import Managed, device_view_of, managed_memory
from stoker.pages.errors import DeviceError

MODES: Final = ("device", "pinned", "mapped", "unified")
PLACE_BYTES: Final = 256
"""Places begin at multiples of this, as memory of a CUDA device does."""


class Slab:
    """One piece of memory of a device.

    current  uint8 tensor of the bytes, as the device sees it; for `pinned` as the host does
    shadow   a second one of the same size where pages are kept as they were last committed; None until it is wanted
    host     the same memory as the host sees it; None in the mode `device`, everywhere
    managed  what the driver keeps of unified memory, None of other

    Raises DeviceError for memory that is not to be had.
    """

    def __init__(self, torch: Any, device: Any, mode: str, size_bytes: int) -> None:
        self._torch = torch
        self._device = device
        self.mode = mode
        self.managed: Managed | None = None
        self.current, self.host = self._make(size_bytes)
        self.current.zero_()
        self.shadow: Any = None
        self._free = [(0, size_bytes)]

    def _make(self, size_bytes: int) -> tuple[Any, Any]:
        torch, cuda = self._torch, self._device.type == "cuda"
        try:
            if not cuda or self.mode == "pinned":
                memory = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=cuda)
                return memory, None if self.mode == "device" else memory
            if self.mode == "mapped":
                memory = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
                return device_view_of(torch, memory.data_ptr(), size_bytes, memory, self._device), memory
            if self.mode == "unified":
                self.managed = managed_memory(size_bytes, self._device.index or 0)
                view = device_view_of(torch, self.managed.address, size_bytes, self.managed, self._device)
                return view, torch.from_numpy(np.ctypeslib.as_array(self.managed.as_host()))
            return torch.empty(size_bytes, dtype=torch.uint8, device=self._device), None
        except RuntimeError as error:
            raise _full(self._device, size_bytes, str(error)) from error

    @property
    def size_bytes(self) -> int:
        """Bytes of the slab, without its shadow."""
        return int(self.current.numel())

    def ensure_shadow(self) -> int:
        """Have the second tensor; return how many bytes that took. Raises DeviceError."""
        if self.shadow is not None:
            return 0
        try:
            self.shadow = self._torch.zeros_like(self.current)
        except RuntimeError as error:
            raise _full(self._device, self.size_bytes, str(error)) from error
        return self.size_bytes

    def take(self, size_bytes: int) -> int | None:
        """Return the offset of a free place, None where there is none."""
        for index, (offset, free) in enumerate(self._free):
            if free >= size_bytes:
                self._free[index : index + 1] = [(offset + size_bytes, free - size_bytes)] * (free > size_bytes)
                return offset
        return None

    def give(self, offset: int, size_bytes: int) -> None:
        """Take a place back; it joins its free neighbours."""
        insort(self._free, (offset, size_bytes))
        joined = [self._free[0]]
        for start, size in self._free[1:]:
            last, length = joined[-1]
            assert last + length <= start
            if last + length == start:
                joined[-1] = (last, length + size)
            else:
                joined.append((start, size))
        self._free = joined

    @property
    def used_bytes(self) -> int:
        """Bytes of the places taken."""
        return self.size_bytes - sum(size for _, size in self._free)


class Place(NamedTuple):
    """Where a copy of a page lies: its first byte in a slab, and the page's size."""

    slab: Slab
    offset: int
    size_bytes: int

    @property
    def bytes(self) -> Any:
        """The copy's bytes, as a view."""
        return self.slab.current[self.offset : self.offset + self.size_bytes]


class SlabPool:
    """The slabs of one device and mode.

    slab_bytes  of a slab; a larger page gets one of its own

    Raises UsageError for an unknown mode.
    """

    def __init__(self, torch: Any, device: Any, mode: str, slab_bytes: int) -> None:
        if mode not in MODES:
            raise UsageError("unknown mode of memory", expected=", ".join(MODES), got=mode)
        self._torch = torch
        self._device = device
        self._mode = mode
        self._slab_bytes = _rounded(slab_bytes, 4096)
        self.slabs: list[Slab] = []

    def fits(self, size_bytes: int) -> int:
        """Return the bytes of memory that a page of this size would want anew, 0 where it fits what is there."""
        wanted = _rounded(size_bytes, PLACE_BYTES)
        for slab in self.slabs:
            offset = slab.take(wanted)
            if offset is not None:
                slab.give(offset, wanted)
                return 0
        return max(self._slab_bytes, _rounded(size_bytes, 4096))

    def take(self, size_bytes: int) -> Place:
        """Return a place for a page. Raises DeviceError where the device is full."""
        wanted = _rounded(size_bytes, PLACE_BYTES)
        for slab in self.slabs:
            offset = slab.take(wanted)
            if offset is not None:
                return Place(slab, offset, size_bytes)
        slab = Slab(self._torch, self._device, self._mode, max(self._slab_bytes, _rounded(size_bytes, 4096)))
        self.slabs.append(slab)
        offset = slab.take(wanted)
        assert offset is not None
        return Place(slab, offset, size_bytes)

    def give(self, place: Place) -> None:
        """Take a place back; a slab that is empty goes, where another one is left or it is larger than usual."""
        place.slab.give(place.offset, _rounded(place.size_bytes, PLACE_BYTES))
        if not place.slab.used_bytes and (len(self.slabs) > 1 or place.slab.size_bytes > self._slab_bytes):
            self.slabs.remove(place.slab)


def _rounded(size_bytes: int, step: int) -> int:
    return -(-size_bytes // step) * step


def _full(device: Any, size_bytes: int, told: str) -> DeviceError:
    return DeviceError(
        "memory of the device is full",
        where=str(device),
        expected=f"{size_bytes} bytes",
        got=told.partition("\n")[0],
        remedy="free copies there, or keep fewer pages on it",
    )
