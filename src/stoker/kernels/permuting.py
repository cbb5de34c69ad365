"""Keyed permutations of numbers, in one call for stretches that have sizes and keys of their own."""

from typing import Final

import numpy as np

from stoker.core.errors import UsageError
from stoker.kernels import plain_permuting
from stoker.kernels.native import native_kernels
from stoker.kernels.plain_permuting import GOLDEN, Int64s, UInt64s, mix

__all__ = ["GOLDEN", "mix", "permute"]

_ROUNDS_SMALL: Final = 12
_ROUNDS_LARGE: Final = 6
_LARGE_DOMAIN: Final = 1 << 20
"""Below it a round function takes few values: six rounds left some orders of five samples three times as likely as
others, twelve do not. Above it six are plenty (four make a strong permutation of ideal round functions)."""

_SIZE_MAX: Final = 1 << 62
_WORD_MASK: Final = (1 << 64) - 1


def permute(index: Int64s, size: int | Int64s, key: int | UInt64s, repeats: Int64s | None = None) -> Int64s:
    """Return where the permutation `key` of `range(size)` takes each index. Shape (n,); sizes and keys may vary.

    With `repeats` each size and key stands for so many neighbours. Memory is a few times that of `index`; O(1) for each
    value. Raises UsageError unless every index is below its size, and stretches cover the indices.
    """
    rounds = _ROUNDS_LARGE if isinstance(size, int) and size >= _LARGE_DOMAIN else _ROUNDS_SMALL
    index = np.ascontiguousarray(index, np.int64)
    if isinstance(size, int) and isinstance(key, int):
        sizes, keys = np.array([size], np.int64), np.array([key & _WORD_MASK], np.uint64)
        repeats = np.array([len(index)], np.int64)
    else:
        counts = np.ones(len(index), np.int64) if repeats is None else repeats
        repeats = np.ascontiguousarray(counts, np.int64)
        word = np.uint64(key & _WORD_MASK) if isinstance(key, int) else key
        sizes = np.ascontiguousarray(np.broadcast_to(np.asarray(size, np.int64), repeats.shape))
        keys = np.ascontiguousarray(np.broadcast_to(word, repeats.shape))
    out = np.empty_like(index)
    module = native_kernels()
    if module is None:
        _check(index, sizes, repeats)
    columns = (index, sizes.view(np.uint64), keys, repeats)
    try:
        (plain_permuting if module is None else module).permute(*columns, rounds, out)
    except ValueError as error:  # the native kernel checks for itself, which costs a tenth
        raise UsageError("numbers cannot be permuted so", got=str(error)) from error
    return out


def _check(index: Int64s, sizes: Int64s, repeats: Int64s) -> None:
    if repeats.shape != sizes.shape or int(repeats.sum()) != len(index) or bool((repeats < 0).any()):
        raise UsageError("stretches do not cover the indices", got=f"{len(index)} indices, {repeats.shape} stretches")
    if not len(index):
        return
    limits = sizes if len(sizes) == 1 else np.repeat(sizes, repeats)
    if int(index.min()) < 0 or bool((index >= limits).any()) or int(sizes.max()) >= _SIZE_MAX:
        raise UsageError("an index is not below its size", got=f"{index.max()}")
