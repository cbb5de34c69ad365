"""Other people's arrays as bytes, through DLPack and `__cuda_array_interface__`; no package is imported for it.

Host memory is seen without a copy where it is contiguous, whatever its type: DLPack's own record is read here, so
bfloat16 and float8 need no type of NumPy's. Memory of a device is copied to the host by the package it came from.
"""

import ctypes
import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.registry import missing_extra
from stoker.pages.errors import DeviceError, InvalidDelta

Bytes = NDArray[np.uint8]
_HOST_KINDS: Final = (1, 3)
"""DLPack's numbers of ordinary and of pinned host memory."""


class _Record(ctypes.Structure):
    """The fields of DLPack's DLTensor, of which a capsule holds the address."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("sides", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def need_torch(what: str) -> Any:
    """Return the package torch. Raises MissingExtraError with the install command; `what` says who needs it."""
    try:
        import torch
    except ImportError as error:
        raise missing_extra(what, "torch", error) from error
    return torch


def loaded_torch() -> Any:
    """Return torch where the program has imported it, else None: then no value can be a tensor."""
    return sys.modules.get("torch")


def is_foreign(data: object) -> bool:
    """Tell whether an object is an array of another package than NumPy."""
    return not isinstance(data, np.ndarray) and (
        hasattr(data, "__dlpack__") or hasattr(data, "__cuda_array_interface__")
    )


def foreign_bytes(data: Any) -> Bytes:
    """Return another package's array as bytes, shape (n,): a view of contiguous host memory, else a copy.

    Raises InvalidDelta for what cannot be seen as bytes, DeviceError where the device's memory cannot be read.
    """
    plain = _plain(data)
    if not on_host(plain):
        plain = _fetched(plain)
    if isinstance(plain, np.ndarray):
        return np.ascontiguousarray(plain).reshape(-1).view(np.uint8)
    return np.ascontiguousarray(_host_array(plain)).reshape(-1).view(np.uint8)


def write_foreign(out: Any, data: Bytes) -> Any:
    """Write bytes into another package's array, on the host or on a device, and return that array.

    Raises InvalidDelta for an array of another size or one that is not contiguous, DeviceError where a device fails.
    """
    plain = _plain(out)
    if not on_host(plain):
        _send(plain, data)
        return out
    target = _host_array(plain)
    if not target.flags.c_contiguous:
        raise InvalidDelta("array to read into is not contiguous", got=f"shape {target.shape}")
    if target.nbytes != data.size:
        raise InvalidDelta("array does not fit the page", expected=f"{data.size} bytes", got=f"{target.nbytes}")
    target.reshape(-1).view(np.uint8)[:] = data
    return out


def on_host(data: Any) -> bool:
    """Tell whether an array lies in memory that the processor reads."""
    if not hasattr(data, "__dlpack_device__"):
        return not hasattr(data, "__cuda_array_interface__")
    return int(data.__dlpack_device__()[0]) in _HOST_KINDS


def _plain(data: Any) -> Any:
    """Return a torch tensor without its history and its lazy signs; DLPack refuses those. Others as they are."""
    torch = loaded_torch()
    if torch is None or not isinstance(data, torch.Tensor):
        return data
    if data.layout != torch.strided:
        raise InvalidDelta("tensor is sparse", expected="a dense one", got=str(data.layout))
    return data.detach().resolve_conj().resolve_neg()


def _host_array(data: Any) -> NDArray[Any]:
    """Return host memory as an array of opaque elements, with the shape and strides it has."""
    try:
        capsule = data.__dlpack__()
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidDelta("array does not give its memory away", got=str(error)) from error
    record = _Record.from_address(_pointer_of(capsule, b"dltensor"))
    if record.bits * record.lanes % 8:
        raise InvalidDelta("elements are no whole bytes", got=f"{record.bits * record.lanes} bits")
    width = record.bits * record.lanes // 8
    shape = tuple(record.shape[side] for side in range(record.sides))
    if 0 in shape:
        return np.empty(shape, f"V{width}")
    strides = _strides(record, shape, width)
    below = sum((side - 1) * step for side, step in zip(shape, strides, strict=True) if step < 0)
    above = sum((side - 1) * step for side, step in zip(shape, strides, strict=True) if step > 0) + width
    memory = (ctypes.c_uint8 * (above - below)).from_address(record.data + record.byte_offset + below)
    memory.owner = capsule  # it gives the memory back once nobody looks at it any more
    return np.ndarray(shape, f"V{width}", memory, -below, strides)


def _strides(record: _Record, shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    if record.strides:
        return tuple(record.strides[side] * width for side in range(record.sides))
    steps, step = [], width
    for side in reversed(shape):
        steps.append(step)
        step *= side
    return tuple(reversed(steps))


def _fetched(data: Any) -> Any:
    """Return a copy on the host of an array that lies on a device."""
    torch = loaded_torch()
    try:
        if torch is not None and isinstance(data, torch.Tensor):
            return data.cpu()
        if type(data).__module__.partition(".")[0] == "cupy":
            return data.get()
        return _as_tensor(data).cpu()
    except (RuntimeError, AssertionError, BufferError, TypeError, ValueError) as error:
        raise DeviceError("memory of a device cannot be read", got=str(error).partition("\n")[0]) from error


def _send(out: Any, data: Bytes) -> None:
    torch = need_torch("writing into the memory of a device")
    try:
        target = out if isinstance(out, torch.Tensor) else _as_tensor(out)
        if not target.is_contiguous() or target.numel() * target.element_size() != data.size:
            raise InvalidDelta("array does not fit the page", expected=f"{data.size} bytes, contiguous")
        target.reshape(-1).view(torch.uint8).copy_(torch.from_numpy(data.copy()))
    except (RuntimeError, AssertionError, BufferError, TypeError) as error:
        raise DeviceError("memory of a device cannot be written", got=str(error).partition("\n")[0]) from error


def _as_tensor(data: Any) -> Any:
    torch = need_torch("an array on a device")
    return torch.from_dlpack(data) if hasattr(data, "__dlpack__") else torch.as_tensor(data, device="cuda")
