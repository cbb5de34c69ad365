"""The plain twin of the permutation kernel, and the hash both are made of.

A Feistel network over the rectangle a x b that just holds the domain, with cycle walking for the few values outside it
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

_CHUNK: Final = 1 << 14
_U: Final = np.uint64
_WORD_MASK: Final = (1 << 64) - 1
GOLDEN: Final = 0x9E3779B97F4A7C15
# Multipliers of SplitMix64 (Steele, Lea and Flood 2014).
_MIX_ONE: Final = _U(0xBF58476D1CE4E5B9)
_MIX_TWO: Final = _U(0x94D049BB133111EB)


def mix(words: UInt64s) -> UInt64s:
    """Return the SplitMix64 finaliser of each word: a bijection whose output bits all depend on all input bits."""
    words = (words ^ (words >> _U(30))) * _MIX_ONE
    words = (words ^ (words >> _U(27))) * _MIX_TWO
    return words ^ (words >> _U(31))


def permute(index: Int64s, sizes: UInt64s, keys: UInt64s, repeats: Int64s, rounds: int, out: Int64s) -> None:
    """Fill `out`; see `stoker.kernels.permuting.permute`. Of one stretch, so much at once as the cache holds."""
    if len(sizes) == 1:
        for start in range(0, len(index), _CHUNK):
            out[start : start + _CHUNK] = _permuted(index[start : start + _CHUNK], sizes, keys, None, rounds)
    elif len(sizes):
        out[:] = _permuted(index, sizes, keys, repeats, rounds)


def _permuted(index: Int64s, domain: UInt64s, base: UInt64s, repeats: Int64s | None, rounds: int) -> Int64s:
    rows = np.ceil(np.sqrt(domain.astype(np.float64))).astype(np.uint64)
    columns = (domain + rows - _U(1)) // rows
    keys = [mix(base + _U(GOLDEN * (number + 1) & _WORD_MASK)) for number in range(rounds)]
    if repeats is not None:
        domain, rows, columns = (np.repeat(each, repeats) for each in (domain, rows, columns))
        keys = [np.repeat(each, repeats) for each in keys]
    moved = _feistel(index.astype(np.uint64), rows, columns, keys)
    outside = np.flatnonzero(moved >= domain)
    while len(outside):  # the walk ends: the network permutes the rectangle, so each cycle comes back inside
        step = _feistel(
            moved[outside], _pick(rows, outside), _pick(columns, outside), [_pick(key, outside) for key in keys]
        )
        moved[outside] = step
        outside = outside[step >= _pick(domain, outside)]
    return moved.astype(np.int64)


def _pick(values: UInt64s, where: NDArray[np.intp]) -> UInt64s:
    return values if len(values) == 1 else values[where]


def _feistel(index: UInt64s, rows: UInt64s, columns: UInt64s, keys: list[UInt64s]) -> UInt64s:
    left, right = np.divmod(index, columns)
    for number in range(0, len(keys), 2):
        left = _add_below(left, _below(right, keys[number], rows), rows)
        right = _add_below(right, _below(left, keys[number + 1], columns), columns)
    return left * columns + right


def _below(words: UInt64s, key: UInt64s, limit: UInt64s) -> UInt64s:
    """Return a keyed hash of each word, reduced below `limit` (< 2^32) by multiply and shift."""
    words = (words + key) * _MIX_ONE
    words = (words ^ (words >> _U(32))) * _MIX_TWO
    return ((words >> _U(32)) * limit) >> _U(32)


def _add_below(one: UInt64s, other: UInt64s, limit: UInt64s) -> UInt64s:
    total = one + other
    return total - limit * (total >= limit)
