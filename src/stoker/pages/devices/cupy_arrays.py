"""Copies of pages for CuPy, which is imported only here, when it is asked for.

The other way needs nothing: `page.write` and `page.read(out=)` take CuPy's arrays as they take all others.
"""

from typing import Any

from stoker.core.errors import MissingExtraError
from stoker.pages.devices.copies import AnyPage, DevicePages
from stoker.pages.errors import DeviceError


def cupy_array(copies: DevicePages, page: AnyPage) -> Any:
    """Return a page's copy as an array of CuPy: the copy's own memory, with the rules of `DevicePages.tensor`.

    Types that CuPy does not have come as bytes. Raises MissingExtraError without CuPy, DeviceError for a copy that
    does not lie on a CUDA device.
    """
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(
            "an array of CuPy needs the package 'cupy'", remedy="run: pip install cupy-cuda12x"
        ) from error
    tensor = copies.tensor(page)
    if tensor.device.type != "cuda":
        raise DeviceError("CuPy sees only CUDA devices", got=str(tensor.device))
    try:
        return cupy.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError, ValueError):
        return cupy.from_dlpack(copies.copy_of(page).place.bytes)
