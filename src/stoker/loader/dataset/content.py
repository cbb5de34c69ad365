"""The bytes of a dataset: reproducible, made at any place without the bytes before it, and as hard to compress or
to deduplicate as asked.

Page p (4 KiB) of a stream is page p mod 64 of a random tile XOR a 64-bit key hashed from (seed, stream, p). Two
pages therefore differ in nearly every byte, no matter how a storage system cuts them, and XOR runs at memory speed.

compress_ratio  of each page, only the first 1/ratio is random; the rest repeats the page's key. The packed size is
    the same for zlib, zstd and LZ4, and every page stays unique.
duplicate_ratio that share of the stream, in runs of 64 KiB, is filled from a pool of 64 pages that belongs to the
    seed alone, so the pages appear again in this stream and in others. Equal pages lie at least 256 KiB apart:
    outside the window of zlib and LZ4, so that the compress ratio stands.

Samples of floating types have the top exponent bit cleared: every value is finite, of magnitude below 2. Samples
of booleans are 0 or 1.
"""

from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import derive
from stoker.core.units import MiB
from stoker.formats.api import Array, ContentSource, SampleSpec
from stoker.kernels.filling import NO_MASK, PAGE_WORDS, PageStream, fill_pages, page_tile, pool_keys

CONTENT_VERSION: Final = 1
"""Changes whenever the same spec would give other bytes; an unfinished dataset of another version is not resumed."""

COMPRESS_RATIO_MAX: Final = 64.0

_PACKING_WORDS: Final = 3
"""What zlib adds to a page's random words: the key once, and the matches that repeat it. Measured at levels 1 to 9."""

_WINDOW_BYTES: Final = 1 * MiB
_ALIGN_BYTES: Final = 64


def fill(
    into: memoryview,
    *,
    seed: int,
    stream: int,
    offset_bytes: int = 0,
    compress_ratio: float = 1.0,
    duplicate_ratio: float = 0.0,
) -> None:
    """Fill `into` (contiguous, writable) with the bytes of `stream` from `offset_bytes` on.

    Equal arguments give equal bytes on every machine, whatever the alignment. Raises UsageError for a ratio out of
    range or an offset below 0.
    """
    check_ratios(compress_ratio, duplicate_ratio)
    fill_pages(into, _stream(seed, stream, compress_ratio, duplicate_ratio), offset_bytes=offset_bytes)


def check_ratios(compress_ratio: float, duplicate_ratio: float) -> None:
    """Raise UsageError unless the two knobs are in range."""
    if not 1.0 <= compress_ratio <= COMPRESS_RATIO_MAX:
        raise UsageError(
            "compress ratio is out of range", expected=f"1 to {COMPRESS_RATIO_MAX:g}", got=f"{compress_ratio:g}"
        )
    if not 0.0 <= duplicate_ratio <= 1.0:
        raise UsageError("duplicate ratio is out of range", expected="0 to 1", got=f"{duplicate_ratio:g}")


def _stream(seed: int, stream: int, compress_ratio: float, duplicate_ratio: float) -> PageStream:
    random_words = PAGE_WORDS
    if compress_ratio > 1:
        random_words = max(2, round(PAGE_WORDS / compress_ratio - _PACKING_WORDS))
    tile_base, pool_base = _seed_bases(seed)
    base, phase = _stream_start(seed, stream)
    tile = page_tile(tile_base, random_words)
    return PageStream(tile, random_words, pool_keys(pool_base), base, phase, duplicate_ratio)


@lru_cache(maxsize=64)
def _seed_bases(seed: int) -> tuple[int, int]:
    return derive(seed, "tile"), derive(seed, "pool")


@lru_cache(maxsize=4096)
def _stream_start(seed: int, stream: int) -> tuple[int, float]:
    """Return the stream's hash base and, in 0..1, how far into a duplicate it begins."""
    return derive(seed, "content", stream), derive(seed, "phase", stream) / 2.0**64


def content_source(spec: DatasetSpec, index: int, sample: SampleSpec) -> ContentSource:
    """Return the samples of file `index`: sample i is the bytes of the file's stream from i x sample_bytes on.

    `sample` is what the file's format really writes. Arrays are fresh memory, or views into a fresh window of
    1 MiB that neighbouring small samples share. Not safe from several threads: each file has its own.
    """
    return _SampleWindow(spec, index, sample).sample


class _SampleWindow:
    """Makes small samples many at a time."""

    def __init__(self, spec: DatasetSpec, index: int, sample: SampleSpec) -> None:
        check_ratios(spec.compress_ratio, spec.duplicate_ratio)
        seed = derive(spec.content_seed, "split", spec.split)
        self._stream = _stream(seed, index, spec.compress_ratio, spec.duplicate_ratio)
        self._sample = sample
        self._dtype = np.dtype(sample.dtype)
        self._mask = _mask(self._dtype)
        self._window: Array = np.empty((0,), self._dtype)
        self._window_number = -1
        self._window_samples = min(sample.samples, max(1, _WINDOW_BYTES // max(1, sample.sample_bytes)))

    def sample(self, index: int) -> Array:
        """Return sample `index` of the file."""
        number, within = divmod(index, self._window_samples)
        if number != self._window_number:
            self._window = self._make(number * self._window_samples)
            self._window_number = number
        array: Array = self._window[within]
        if self._window_samples == 1:
            self._window_number = -1
            self._window = np.empty((0,), self._dtype)
        return array

    def _make(self, first: int) -> Array:
        sample = self._sample
        samples = max(1, min(self._window_samples, sample.samples - first))
        size_bytes = samples * sample.sample_bytes
        offset_bytes = first * sample.sample_bytes
        # Memory in step with the stream: whole words meet whole words, and elements are aligned.
        room = np.empty(size_bytes + _ALIGN_BYTES, np.uint8)
        start = (offset_bytes - room.ctypes.data) % _ALIGN_BYTES
        window = room[start : start + size_bytes]
        fill_pages(window.data, self._stream, offset_bytes=offset_bytes, mask=self._mask)
        return window.view(self._dtype).reshape(samples, *sample.shape)


_EXPONENT_MASKS: Final = {2: 0xBFFF, 4: 0xBFFF_FFFF, 8: 0xBFFF_FFFF_FFFF_FFFF}


def _mask(dtype: np.dtype[Any]) -> int:
    """Return the mask, over 8 bytes, that makes every element a valid, finite value of `dtype`."""
    if dtype.kind in "iu":
        return NO_MASK
    if dtype.kind == "b":
        return int.from_bytes(b"\1" * 8, "little")
    part_bytes = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    if dtype.kind not in "fc" or part_bytes not in _EXPONENT_MASKS:
        raise UsageError(
            "no content for this element type",
            where=dtype.str,
            expected="bool, an integer, float16, float32, float64, complex64 or complex128",
        )
    order: Literal["little", "big"] = "big" if dtype.byteorder == ">" else "little"
    return int.from_bytes(_EXPONENT_MASKS[part_bytes].to_bytes(part_bytes, order) * (8 // part_bytes), "little")
