"""Weights kept in float32 and published in bfloat16: the rounding finds what changed, in one pass and without a shadow.

The old bfloat16 value is read where the new one is written; a page's copy on the device is all that is needed.
"""

from collections.abc import Sequence
from typing import Any

from stoker.core.errors import UsageError
from stoker.pages.batch import page_id
from stoker.pages.devices.copies import AnyPage, Copy, DevicePages
from stoker.pages.errors import Conflict


def cast_pages(copies: DevicePages, pages: Sequence[AnyPage], masters: Sequence[Any], *, source: str = "") -> int:
    """Round float32 tensors to bfloat16 into pages that have copies, and commit what that changed; return the LSN.

    masters  a tensor a page, on the page's device, an element for each two bytes

    Raises UsageError for masters that do not fit, Conflict for a page that is being changed or was changed meanwhile:
    then nothing is committed.
    """
    with copies.lock:
        copies.refresh(pages)
        chosen = [copies.copy_of(page) for page in pages]
        flat = checked_masters(chosen, masters)
        try:
            payloads = cast_payloads(chosen, flat)
            with copies.store.batch(source=source) as batch:
                for copy, payload in zip(chosen, payloads, strict=True):
                    batch.apply_delta(copy.page, payload, expect_epoch=copy.epoch)
        except BaseException:
            copies.discard(pages)
            raise
        settle_cast(chosen, payloads, batch.lsn)
        return batch.lsn


def cast_payloads(chosen: Sequence[Copy], masters: Sequence[Any]) -> list[bytes]:
    """Round masters into copies, and return each page's payload; one launch for the copies of one slab."""
    payloads = [b""] * len(chosen)
    for home in sorted({copy.home for copy in chosen}, key=lambda one: one.name):
        rows = [row for row, copy in enumerate(chosen) if copy.home is home]
        made = home.cast([chosen[row].place for row in rows], [masters[row] for row in rows])
        for row, payload in zip(rows, made, strict=True):
            payloads[row] = payload
    return payloads


def settle_cast(chosen: Sequence[Copy], payloads: Sequence[bytes], lsn: int) -> None:
    """Note that what the masters changed is committed."""
    for copy, payload in zip(chosen, payloads, strict=True):
        if payload:
            copy.epoch, copy.lsn, copy.shadowed = copy.epoch + 1, lsn, False


def checked_masters(chosen: Sequence[Copy], masters: Sequence[Any]) -> list[Any]:
    """Return masters as flat tensors. Raises UsageError where one does not fit, Conflict for a page being changed."""
    return [_checked(copy, master) for copy, master in zip(chosen, masters, strict=True)]


def _checked(copy: Copy, master: Any) -> Any:
    torch = copy.home.torch
    if copy.changing:
        raise Conflict(
            "page is being changed on its device", where=str(page_id(copy.page)), remedy="commit or discard it"
        )
    if master.dtype != torch.float32 or 2 * master.numel() != copy.place.size_bytes:
        raise UsageError(
            "master does not fit its page",
            where=str(copy.page),
            expected=f"{copy.place.size_bytes // 2} float32 values",
            got=f"{master.numel()} of {master.dtype}",
        )
    if master.device != copy.place.bytes.device:
        raise UsageError("master lies on another device than its page", expected=copy.home.name, got=str(master.device))
    return master.detach().contiguous().reshape(-1)
