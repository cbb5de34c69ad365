"""Weights kept in float32 and published in bfloat16.

Without copies on a device the values are rounded on the host, and compared there as all others are. With copies the
rounding itself finds what changed, where the masters lie, and only that crosses the bus (`stoker.pages.devices`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import UsageError
from stoker.pages.batch import Batch
from stoker.pages.devices.casting import cast_payloads, checked_masters, settle_cast
from stoker.pages.devices.copies import Copy, DevicePages
from stoker.pages.devices.host_kernels import bfloat16_bits
from stoker.pages.interchange import loaded_torch

BFLOAT16: Final = "bfloat16"
_NAME: Final = "torch.bfloat16"
_WIDTH: Final = 2


class Master:
    """A float32 tensor as the bfloat16 bytes it will be: a slice of bytes is a slice of values. `size` in bytes."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.size = _WIDTH * int(values.numel())

    def __getitem__(self, part: slice) -> "Master":
        """Return a part; its ends are multiples of two bytes."""
        return Master(self.values[part.start // _WIDTH : -(-part.stop // _WIDTH)])


class Given(msgspec.Struct, frozen=True):
    """What a page changes by, already found; `size` bytes of the page."""

    payload: bytes
    epoch: int
    size: int


def check_dtype(dtype: str) -> None:
    """Raise UsageError for a type that weights cannot be published in."""
    if dtype not in ("", BFLOAT16):
        raise UsageError("weights are published as they are, or in bfloat16", got=dtype)


def is_master(tensor: Any) -> bool:
    """Tell whether a tensor is one of float32."""
    torch = loaded_torch()
    if torch is not None and isinstance(tensor, torch.Tensor):
        return bool(tensor.dtype == torch.float32)
    return isinstance(tensor, np.ndarray) and tensor.dtype == np.float32


def master_bytes(tensor: Any, copies: DevicePages | None) -> tuple[Any, str, list[int], int]:
    """Return a float32 tensor as bfloat16: bytes, or a Master where copies do the rounding; type, shape, width."""
    facts = (_NAME, list(tensor.shape), _WIDTH)
    if copies is not None and not isinstance(tensor, np.ndarray):
        return (Master(tensor.detach().contiguous().reshape(-1)), *facts)
    values = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().numpy()
    return (bfloat16_bits(np.ascontiguousarray(values)).reshape(-1).view(np.uint8), *facts)


@contextmanager
def cast_masters(copies: DevicePages | None, pages: Sequence[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """Give the pages with what they become: for masters what the cast changed. Copies follow when the block ends.

    When the block raises, the copies go back to what is committed. Raises Conflict for a copy that is being changed.
    """
    rows = [(page, data.values) for page, data in pages if isinstance(data, Master)]
    if not rows or copies is None:
        yield list(pages)
        return
    with copies.lock:
        chosen = _ready(copies, rows)
        flat = checked_masters(chosen, [values for _, values in rows])
        try:
            payloads = cast_payloads(chosen, flat)
            made = {
                copy.page: Given(payload, copy.epoch, copy.place.size_bytes)
                for copy, payload in zip(chosen, payloads, strict=True)
            }
            yield [(page, made.get(page, data)) for page, data in pages]
        except BaseException:
            copies.discard([copy.page for copy in chosen])
            raise
        settle_cast(chosen, payloads, copies.store.lsn)


def _ready(copies: DevicePages, rows: Sequence[tuple[int, Any]]) -> list[Copy]:
    """Return up-to-date copies of pages on the devices of their masters."""
    for device in dict.fromkeys(str(values.device) for _, values in rows):
        here = [page for page, values in rows if str(values.device) == device]
        copies.prefetch([page for page in here if not copies.has(page)], device)
    copies.refresh([page for page, _ in rows])
    return [copies.copy_of(page) for page, _ in rows]


def write_all(batch: Batch, pages: Iterable[tuple[int, Any]]) -> None:
    """Write pages: their bytes, or what is known to change."""
    for page, data in pages:
        if isinstance(data, Given):
            batch.apply_delta(page, data.payload, expect_epoch=data.epoch)
        else:
            batch.write(page, data)
