"""Memory that the CUDA driver manages for host and device at once, with advice and prefetch.

It is reached through `libcuda`, which is there wherever a driver is; nothing here runs without one.
"""

import ctypes
from typing import Any, Final

from stoker.pages.errors import DeviceError

_ATTACH_GLOBAL: Final = 1
_HOST: Final = -1
ADVICE: Final = {"read_mostly": 1, "not_read_mostly": 2, "preferred": 3, "no_preference": 4, "accessed_by": 5}


class Managed:
    """One piece of managed memory; it is freed with the object.

    address  the same for host and device
    """

    def __init__(self, driver: Any, address: int, size_bytes: int) -> None:
        self._driver = driver
        self.address = address
        self.size_bytes = size_bytes

    def as_host(self) -> Any:
        """Return the memory as an array of ctypes, which keeps it."""
        memory: Any = (ctypes.c_uint8 * self.size_bytes).from_address(self.address)
        memory.owner = self
        return memory

    def prefetch(self, offset: int, size_bytes: int, device: int | None, stream: int = 0) -> None:
        """Have the driver move a part to a device, or with None to the host, behind what the stream does."""
        target = _HOST if device is None else device
        place = ctypes.c_uint64(self.address + offset)
        checked(self._driver.cuMemPrefetchAsync(place, ctypes.c_size_t(size_bytes), target, ctypes.c_void_p(stream)))

    def advise(self, offset: int, size_bytes: int, advice: str, device: int | None = None) -> None:
        """Tell the driver how a part is used: one of `ADVICE`, by a device or with None by the host."""
        target = _HOST if device is None else device
        place = ctypes.c_uint64(self.address + offset)
        checked(self._driver.cuMemAdvise(place, ctypes.c_size_t(size_bytes), ADVICE[advice], target))

    def __del__(self) -> None:
        """Give the memory back."""
        self._driver.cuMemFree_v2(ctypes.c_uint64(self.address))


def load_driver() -> Any:
    """Return the CUDA driver's library. Raises DeviceError where there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceError("managed memory needs the CUDA driver", got=str(error)) from error


def managed_memory(size_bytes: int, device: int) -> Managed:
    """Return new managed memory that would rather lie on a device; torch has begun to use CUDA. Raises DeviceError."""
    driver = load_driver()
    address = ctypes.c_uint64()
    checked(driver.cuMemAllocManaged(ctypes.byref(address), ctypes.c_size_t(size_bytes), _ATTACH_GLOBAL))
    made = Managed(driver, int(address.value), size_bytes)
    made.advise(0, size_bytes, "preferred", device)
    return made


def checked(code: int) -> None:
    """Raise DeviceError for a number that the driver returned, unless it means success."""
    if code:
        raise DeviceError("CUDA driver refused managed memory", got=f"error {code}")


class _CudaArray:
    """Memory as `__cuda_array_interface__` shows it; it keeps the owner alive."""

    def __init__(self, address: int, size_bytes: int, owner: Any) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (size_bytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


def device_view_of(torch: Any, address: int, size_bytes: int, owner: Any, device: Any) -> Any:
    """Return memory that a CUDA device sees at an address as a uint8 tensor of that device, which keeps the owner."""
    return torch.as_tensor(_CudaArray(address, size_bytes, owner), device=device)
