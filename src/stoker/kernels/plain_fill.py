"""The plain twin of the fill kernel: pages of a random tile XOR a key, made with NumPy."""

from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.units import KiB

PAGE_BYTES: Final = 4 * KiB
PAGE_WORDS: Final = PAGE_BYTES // 8
TILE_PAGES: Final = 64
TILE_BYTES: Final = TILE_PAGES * PAGE_BYTES
RUN_PAGES: Final = 16
NO_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]


class PageStream(msgspec.Struct, frozen=True):
    """What decides the pages of one stream: page p is row p mod 64 of the tile XOR a key hashed from `base` and p.

    tile            (64, 512) words, from `page_tile`
    random_words    of each row, how many are random; the others are 0, so that the page repeats its key there
    pool_keys       64 words; the pages of some runs of 16 take theirs from here instead
    phase           0..1, how far into a duplicate the stream begins
    duplicate_ratio     the share of runs that take the pool's keys
    """

    tile: Words
    random_words: int
    pool_keys: Words
    base: int
    phase: float
    duplicate_ratio: float


def hashed(base: int, counters: Words) -> Words:
    """Return one 64-bit key a counter: SplitMix64 (Steele, Lea, Flood 2014), whose output is its n-th from `base`."""
    z = (counters + np.uint64(1)) * _GOLDEN + np.uint64(base)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=64)
def pool_keys(base: int) -> Words:
    """Return the 64 keys of a pool, read-only."""
    keys = hashed(base, np.arange(TILE_PAGES, dtype=np.uint64))
    keys.setflags(write=False)
    return keys


@lru_cache(maxsize=16)
def page_tile(base: int, random_words: int) -> Words:
    """Return a tile of shape (64, 512), read-only; beyond a row's random words it is 0."""
    words = hashed(base, np.arange(TILE_PAGES * PAGE_WORDS, dtype=np.uint64)).reshape(TILE_PAGES, PAGE_WORDS)
    words[:, random_words:] = 0
    words.setflags(write=False)
    return words


def fill_pages(into: memoryview, stream: PageStream, offset_bytes: int, mask: int) -> None:
    """Do what `stoker.kernels.filling.fill_pages` tells."""
    out = np.frombuffer(into, np.uint8)
    page, within = divmod(offset_bytes, PAGE_BYTES)
    done = 0
    if within:
        done = min(PAGE_BYTES - within, out.size)
        out[:done] = _copy(stream, page)[within : within + done]
        page += 1
    whole = (out.size - done) // PAGE_BYTES
    _write(stream, page, out[done : done + whole * PAGE_BYTES])
    done += whole * PAGE_BYTES
    if done < out.size:
        out[done:] = _copy(stream, page + whole)[: out.size - done]
    if mask != NO_MASK:
        _apply(mask, out)


def _copy(stream: PageStream, page: int) -> NDArray[np.uint8]:
    words = np.empty((1, PAGE_WORDS), np.uint64)
    _make(stream, page, words)
    return words.reshape(-1).view(np.uint8)


def _write(stream: PageStream, first: int, out: NDArray[np.uint8]) -> None:
    """Fill `out`, whole pages, with the pages from page `first` on."""
    if out.size == 0:
        return
    if out.ctypes.data % 8 == 0:
        _make(stream, first, out.view(np.uint64).reshape(-1, PAGE_WORDS))
        return
    scratch = np.empty((TILE_PAGES, PAGE_WORDS), np.uint64)
    for start in range(0, out.size, TILE_BYTES):
        piece = out[start : start + TILE_BYTES]
        words = scratch[: piece.size // PAGE_BYTES]
        _make(stream, first + start // PAGE_BYTES, words)
        piece[:] = words.reshape(-1).view(np.uint8)


def _make(stream: PageStream, first: int, out: Words) -> None:
    keys = _keys(stream, first, len(out))
    done = 0
    while done < len(out):
        row = (first + done) % TILE_PAGES
        rows = min(TILE_PAGES - row, len(out) - done)
        tiles = max(1, (len(out) - done) // TILE_PAGES) if rows == TILE_PAGES else 1
        end = done + rows * tiles
        np.bitwise_xor(
            stream.tile[row : row + rows],
            keys[done:end].reshape(tiles, rows, 1),
            out=out[done:end].reshape(tiles, rows, PAGE_WORDS),
        )
        done = end


def _keys(stream: PageStream, first: int, count: int) -> Words:
    pages = np.arange(first, first + count, dtype=np.uint64)
    keys = hashed(stream.base, pages)
    if stream.duplicate_ratio > 0:
        runs = (pages // np.uint64(RUN_PAGES)).astype(np.float64)
        before = np.floor(runs * stream.duplicate_ratio + stream.phase)
        after = np.floor((runs + 1) * stream.duplicate_ratio + stream.phase)
        pooled = stream.pool_keys[pages % np.uint64(TILE_PAGES)]
        keys = np.where(after > before, pooled, keys)
    return keys


def _apply(mask: int, out: NDArray[np.uint8]) -> None:
    whole = out.size // 8 * 8
    words = out[:whole].view(np.uint64)
    np.bitwise_and(words, np.uint64(mask), out=words)
    out[whole:] &= np.frombuffer(mask.to_bytes(8, "little"), np.uint8)[: out.size - whole]
