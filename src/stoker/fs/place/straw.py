"""Weighted draws that every process and release makes alike: straw2 in whole numbers.

Every item draws -log2(u) / weight, where u in (0, 1) is a hash of the placement group, the item, the slot and the
round; the smallest draw wins. So an item wins in proportion to its weight, and a change of one item's weight moves
groups only to or from it. The logarithm comes from a table made in whole numbers, for libraries of floating-point
functions differ in their last bits. Each function has a plain twin for single draws.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
_WORD: Final = 2**64 - 1
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_STEP: Final = 0x9E3779B97F4A7C15
_MANTISSA_BITS: Final = 16
_FRACTION_BITS: Final = 31
_UNIFORM_BITS: Final = 53
_SCALE_BITS: Final = 24
NEVER: Final = _WORD
"""The draw of an item that must not win."""


def mix(value: int) -> int:
    """Return a number of 64 bits in which each bit of `value` changes half of the bits (the end of SplitMix64)."""
    value ^= value >> 30
    value = value * _FIRST & _WORD
    value ^= value >> 27
    value = value * _SECOND & _WORD
    return value ^ value >> 31


def mix_many(values: Numbers) -> Numbers:
    """Return `mix` of each."""
    mixed = values ^ values >> np.uint64(30)
    mixed *= np.uint64(_FIRST)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def seed_of(kind: int, value: int) -> int:
    """Return the hash of a number in one of its roles: group, item, or slot and round."""
    return mix((value * 4 + kind + 1) * _STEP & _WORD)


def name_number(name: str) -> int:
    """Return the number of a name: FNV-1a of 64 bits over its UTF-8."""
    number = 0xCBF29CE484222325
    for byte in name.encode():
        number = (number ^ byte) * 0x100000001B3 & _WORD
    return number


@cache
def log_table() -> Numbers:
    """Return log2(1 + i / 65536) for i in 0..65535, in units of 2^-31, by squaring in whole numbers."""
    value = (np.arange(1 << _MANTISSA_BITS, dtype=np.uint64) + np.uint64(1 << _MANTISSA_BITS)) << np.uint64(15)
    table = np.zeros(1 << _MANTISSA_BITS, np.uint64)
    for _ in range(_FRACTION_BITS):
        value = value * value >> np.uint64(31)
        carry = value >> np.uint64(32)
        table = table << np.uint64(1) | carry
        value >>= carry
    return table


@cache
def _plain_table() -> list[int]:
    return [int(value) for value in log_table()]


def draw(seed: int, weight: int) -> int:
    """Return an item's draw, by the hash of what it draws for; the smallest wins. Weight 0 never does."""
    if not weight:
        return NEVER
    uniform = mix(seed) >> (64 - _UNIFORM_BITS) | 1
    exponent = uniform.bit_length() - 1
    mantissa = (uniform << _UNIFORM_BITS >> exponent >> (_UNIFORM_BITS - _MANTISSA_BITS)) - (1 << _MANTISSA_BITS)
    below = (_UNIFORM_BITS - exponent << _FRACTION_BITS) - _plain_table()[mantissa]
    return (below << _SCALE_BITS) // weight


def draw_many(seeds: Numbers, weights: Numbers) -> Numbers:
    """Return `draw` of each; the weights are broadcast."""
    uniform = mix_many(seeds) >> np.uint64(64 - _UNIFORM_BITS) | np.uint64(1)
    # 53 bits become a double exactly, whose exponent is the place of the highest bit.
    exponent = np.frexp(uniform.astype(np.float64))[1].astype(np.uint64) - np.uint64(1)
    aligned = uniform << (np.uint64(_UNIFORM_BITS - 1) - exponent)
    mantissa = (aligned >> np.uint64(_UNIFORM_BITS - 1 - _MANTISSA_BITS)) - np.uint64(1 << _MANTISSA_BITS)
    below = ((np.uint64(_UNIFORM_BITS) - exponent) << np.uint64(_FRACTION_BITS)) - log_table()[mantissa]
    below <<= np.uint64(_SCALE_BITS)
    draws: Numbers = below // np.maximum(weights, np.uint64(1))
    return np.where(weights == 0, np.uint64(NEVER), draws)
