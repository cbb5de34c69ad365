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
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import derive
from stoker.core.units import KiB, MiB
from stoker.formats.api import Array, ContentSource, SampleSpec

CONTENT_VERSION: Final = 1
"""Changes whenever the same spec would give other bytes; an unfinished dataset of another version is not resumed."""

COMPRESS_RATIO_MAX: Final = 64.0

_PAGE_BYTES: Final = 4 * KiB
_PAGE_WORDS: Final = _PAGE_BYTES // 8
_TILE_PAGES: Final = 64
_TILE_BYTES: Final = _TILE_PAGES * _PAGE_BYTES
_RUN_PAGES: Final = 16
_PACKING_WORDS: Final = 3
"""What zlib adds to a page's random words: the key once, and the matches that repeat it. Measured at levels 1 to 9."""

_WINDOW_BYTES: Final = 1 * MiB
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]


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

    Equal arguments give equal bytes on every machine. A whole-page, 8-byte aligned range is made in place at the
    speed of memory; the rest goes through a scratch of 256 KiB. Raises UsageError for a ratio out of range.
    """
    check_ratios(compress_ratio, duplicate_ratio)
    out = np.frombuffer(into, np.uint8)
    pages = _Pages(seed, stream, compress_ratio, duplicate_ratio)
    page, within = divmod(offset_bytes, _PAGE_BYTES)
    done = 0
    if within:
        done = min(_PAGE_BYTES - within, out.size)
        out[:done] = pages.copy(page, 1)[within : within + done]
        page += 1
    whole = (out.size - done) // _PAGE_BYTES
    pages.write(page, out[done : done + whole * _PAGE_BYTES])
    done += whole * _PAGE_BYTES
    if done < out.size:
        out[done:] = pages.copy(page + whole, 1)[: out.size - done]


def check_ratios(compress_ratio: float, duplicate_ratio: float) -> None:
    """Raise UsageError unless the two knobs are in range."""
    if not 1.0 <= compress_ratio <= COMPRESS_RATIO_MAX:
        raise UsageError(
            "compress ratio is out of range", expected=f"1 to {COMPRESS_RATIO_MAX:g}", got=f"{compress_ratio:g}"
        )
    if not 0.0 <= duplicate_ratio <= 1.0:
        raise UsageError("duplicate ratio is out of range", expected="0 to 1", got=f"{duplicate_ratio:g}")


class _Pages:
    """The pages of one stream."""

    def __init__(self, seed: int, stream: int, compress_ratio: float, duplicate_ratio: float) -> None:
        self._tile = _tile(seed, compress_ratio)
        self._pool_keys = _pool_keys(seed)
        self._base, self._phase = _stream_start(seed, stream)
        self._duplicate_ratio = duplicate_ratio

    def copy(self, first: int, count: int) -> NDArray[np.uint8]:
        """Return `count` pages from page `first` on in fresh memory."""
        words = np.empty((count, _PAGE_WORDS), np.uint64)
        self._make(first, words)
        return words.reshape(-1).view(np.uint8)

    def write(self, first: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, whole pages, with the pages from page `first` on."""
        if out.size == 0:
            return
        if out.ctypes.data % 8 == 0:
            self._make(first, out.view(np.uint64).reshape(-1, _PAGE_WORDS))
            return
        scratch = np.empty((_TILE_PAGES, _PAGE_WORDS), np.uint64)
        for start in range(0, out.size, _TILE_BYTES):
            piece = out[start : start + _TILE_BYTES]
            words = scratch[: piece.size // _PAGE_BYTES]
            self._make(first + start // _PAGE_BYTES, words)
            piece[:] = words.reshape(-1).view(np.uint8)

    def _make(self, first: int, out: Words) -> None:
        keys = self._keys(first, len(out))
        done = 0
        while done < len(out):
            row = (first + done) % _TILE_PAGES
            rows = min(_TILE_PAGES - row, len(out) - done)
            tiles = max(1, (len(out) - done) // _TILE_PAGES) if rows == _TILE_PAGES else 1
            end = done + rows * tiles
            np.bitwise_xor(
                self._tile[row : row + rows],
                keys[done:end].reshape(tiles, rows, 1),
                out=out[done:end].reshape(tiles, rows, _PAGE_WORDS),
            )
            done = end

    def _keys(self, first: int, count: int) -> Words:
        pages = np.arange(first, first + count, dtype=np.uint64)
        keys = _hashed(self._base, pages)
        if self._duplicate_ratio > 0:
            runs = (pages // np.uint64(_RUN_PAGES)).astype(np.float64)
            before = np.floor(runs * self._duplicate_ratio + self._phase)
            after = np.floor((runs + 1) * self._duplicate_ratio + self._phase)
            pooled = self._pool_keys[pages % np.uint64(_TILE_PAGES)]
            keys = np.where(after > before, pooled, keys)
        return keys


def _hashed(base: int, counters: Words) -> Words:
    """Return one 64-bit key a counter: SplitMix64 (Steele, Lea, Flood 2014), whose output is its n-th from `base`."""
    z = (counters + np.uint64(1)) * _GOLDEN + np.uint64(base)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=4096)
def _stream_start(seed: int, stream: int) -> tuple[int, float]:
    """Return the stream's hash base and, in 0..1, how far into a duplicate it begins."""
    return derive(seed, "content", stream), derive(seed, "phase", stream) / 2.0**64


@lru_cache(maxsize=64)
def _pool_keys(seed: int) -> Words:
    keys = _hashed(derive(seed, "pool"), np.arange(_TILE_PAGES, dtype=np.uint64))
    keys.setflags(write=False)
    return keys


@lru_cache(maxsize=16)
def _tile(seed: int, compress_ratio: float) -> Words:
    """Return the tile, little-endian words; beyond a page's random part it is 0, so that XOR leaves the key alone."""
    words = _hashed(derive(seed, "tile"), np.arange(_TILE_PAGES * _PAGE_WORDS, dtype=np.uint64))
    words = words.reshape(_TILE_PAGES, _PAGE_WORDS)
    if compress_ratio > 1:
        words[:, max(2, round(_PAGE_WORDS / compress_ratio - _PACKING_WORDS)) :] = 0
    words.setflags(write=False)
    return words


def content_source(spec: DatasetSpec, index: int, sample: SampleSpec) -> ContentSource:
    """Return the samples of file `index`: sample i is the bytes of the file's stream from i x sample_bytes on.

    `sample` is what the file's format really writes. Arrays are fresh memory, or views into a fresh window of
    1 MiB that neighbouring small samples share. Not safe from several threads: each file has its own.
    """
    return _SampleWindow(spec, index, sample).sample


class _SampleWindow:
    """Makes small samples many at a time."""

    def __init__(self, spec: DatasetSpec, index: int, sample: SampleSpec) -> None:
        self._spec = spec
        self._seed = derive(spec.content_seed, "split", spec.split)
        self._stream = index
        self._sample = sample
        self._dtype = _checked_dtype(sample.dtype)
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
        spec, sample = self._spec, self._sample
        samples = max(1, min(self._window_samples, sample.samples - first))
        size_bytes = samples * sample.sample_bytes
        # Whole pages are made in place; the samples are a view that begins within the first.
        page, within = divmod(first * sample.sample_bytes, _PAGE_BYTES)
        pages = np.empty(-(-(within + size_bytes) // _PAGE_BYTES) * _PAGE_BYTES, np.uint8)
        fill(
            pages.data,
            seed=self._seed,
            stream=self._stream,
            offset_bytes=page * _PAGE_BYTES,
            compress_ratio=spec.compress_ratio,
            duplicate_ratio=spec.duplicate_ratio,
        )
        window = pages[within : within + size_bytes]
        _tame(window, self._dtype)
        return window.view(self._dtype).reshape(samples, *sample.shape)


def _checked_dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.kind in "biu" or dtype.newbyteorder("=") in _FLOAT_MASKS or (dtype.kind == "c" and dtype.itemsize <= 16):
        return dtype
    raise UsageError(
        "no content for this element type",
        where=name,
        expected="bool, an integer, float16, float32, float64, complex64 or complex128",
    )


_FLOAT_MASKS: Final[dict[np.dtype[Any], np.unsignedinteger[Any]]] = {
    np.dtype("float16"): np.uint16(0xBFFF),
    np.dtype("float32"): np.uint32(0xBFFFFFFF),
    np.dtype("float64"): np.uint64(0xBFFFFFFFFFFFFFFF),
}


def _tame(window: NDArray[np.uint8], dtype: np.dtype[Any]) -> None:
    """Make every element of `window` a valid, finite value of `dtype`, in place."""
    if dtype.kind == "b":
        window &= 1
    elif dtype.kind in "fc":
        part = np.dtype(f"f{dtype.itemsize // (2 if dtype.kind == 'c' else 1)}")
        mask = _FLOAT_MASKS[part]
        words = window.view(mask.dtype.newbyteorder(dtype.byteorder))
        np.bitwise_and(words, mask, out=words)
