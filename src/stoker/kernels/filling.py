"""Making the bytes of a dataset's content: the typed face of the fill kernel."""

from typing import Final

from stoker.core.errors import UsageError
from stoker.kernels import plain_fill
from stoker.kernels.native import native_kernels
from stoker.kernels.plain_fill import NO_MASK, PAGE_BYTES, PAGE_WORDS, PageStream, page_tile, pool_keys

__all__ = ["NO_MASK", "PAGE_BYTES", "PAGE_WORDS", "PageStream", "fill_pages", "page_tile", "pool_keys"]

OFFSET_BYTES_MAX: Final = 1 << 62
_WORD: Final = 1 << 64


def fill_pages(into: memoryview, stream: PageStream, *, offset_bytes: int, mask: int = NO_MASK) -> None:
    """Fill `into` (contiguous, writable, any alignment) with the bytes of `stream` from `offset_bytes` on.

    Every 8 bytes of `into`, counted from its first, are ANDed with `mask`, its lowest byte first: so elements that
    begin there are tamed in the same pass. The native kernel runs at the speed of memory, with the GIL dropped.
    Raises UsageError for an offset below 0 or above 2**62, or a mask that is not of 64 bits.
    """
    if not 0 <= offset_bytes <= OFFSET_BYTES_MAX or not 0 <= mask < _WORD:
        raise UsageError("content cannot be made so", expected="0 to 2**62", got=f"offset {offset_bytes}")
    native = native_kernels()
    if native is None:
        plain_fill.fill_pages(into, stream, offset_bytes, mask)
        return
    knobs = (stream.random_words, stream.base, stream.phase, stream.duplicate_ratio)
    native.fill_pages(into, stream.tile, stream.pool_keys, knobs, offset_bytes, mask)
