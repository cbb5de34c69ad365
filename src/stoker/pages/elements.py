"""Types of elements by name: those of NumPy as NumPy writes them, and those that NumPy does not have.

A page's metadata holds `<f4` and the like for NumPy's types, and the plain name for others: `bfloat16`,
`float8_e4m3fn`.
"""

from typing import Any, Final

import numpy as np

from stoker.core.errors import UsageError

BEYOND_NUMPY: Final = {
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}
"""Bytes of an element, of types that only torch, JAX and the like have."""


def element_type(dtype: Any) -> tuple[str, int]:
    """Return the name of a type as pages keep it, and the bytes of an element.

    dtype  what `numpy.dtype` takes, a `torch.dtype`, or a name such as `bfloat16`

    Raises UsageError for what is no type, or one without a fixed number of whole bytes.
    """
    text = str(dtype).removeprefix("torch.")
    name = text if text in BEYOND_NUMPY else getattr(dtype, "name", "")
    if name in BEYOND_NUMPY:
        return name, BEYOND_NUMPY[name]
    try:
        found = np.dtype(text if str(dtype).startswith("torch.") else dtype)
    except TypeError as error:
        raise UsageError("type of elements is not known", got=str(dtype)) from error
    if found.hasobject or not found.itemsize:
        raise UsageError("elements of a page have a fixed number of bytes", got=str(dtype))
    return found.str, found.itemsize


def numpy_type(name: str) -> np.dtype[Any]:
    """Return the NumPy type of a kept name; unsigned numbers of the same width where NumPy has none.

    Raises TypeError for a name that is none.
    """
    return np.dtype(f"<u{BEYOND_NUMPY[name]}") if name in BEYOND_NUMPY else np.dtype(name)


def torch_type(torch: Any, name: str) -> Any:
    """Return the torch type of a kept name. Raises UsageError where torch has none."""
    plain = name if name in BEYOND_NUMPY else np.dtype(name).name
    swapped = name not in BEYOND_NUMPY and not np.dtype(name).isnative
    found = getattr(torch, plain, None)
    if swapped or not isinstance(found, torch.dtype):
        raise UsageError("torch has no such type of elements", got=name, remedy="take the bytes, or `page.array()`")
    return found
