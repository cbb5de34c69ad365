"""The field that shards are computed in, and the matrices over it: pure functions of small numbers.

GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11D) and the generator 2, as the RAID and erasure coding
libraries of the field have it. The code is systematic: shards 0..k-1 are the data, and parity shard i is the sum over
j of P[i][j] * data[j] with P[i][j] = 1 / ((k + i) xor j), a Cauchy matrix: any k of the k+m rows can be inverted.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

from stoker.core.errors import UsageError

POLYNOMIAL: Final = 0x11D
FIELD: Final = 256
Rows = tuple[bytes, ...]
"""A matrix: coefficients by row."""


@cache
def _tables() -> tuple[bytes, bytes]:
    """Return the powers of 2, twice one behind the other, and the logarithms; the logarithm of 0 is no number."""
    powers, logs, value = bytearray(2 * (FIELD - 1)), bytearray(FIELD), 1
    for exponent in range(FIELD - 1):
        powers[exponent] = powers[exponent + FIELD - 1] = value
        logs[value] = exponent
        value <<= 1
        value ^= POLYNOMIAL if value & FIELD else 0
    return bytes(powers), bytes(logs)


def multiply(left: int, right: int) -> int:
    """Return the product of two elements."""
    if not left or not right:
        return 0
    powers, logs = _tables()
    return powers[logs[left] + logs[right]]


def inverse(value: int) -> int:
    """Return what times `value` is 1; `value` is not 0."""
    powers, logs = _tables()
    return powers[FIELD - 1 - logs[value]]


@cache
def row_of_products(coefficient: int) -> bytes:
    """Return the products of a coefficient with 0..255: a table that bytes can be translated by."""
    return bytes(multiply(coefficient, value) for value in range(FIELD))


@cache
def code_rows(k: int, m: int) -> Rows:
    """Return the k+m rows that make all shards of the k data shards: the identity over the Cauchy matrix.

    Raises UsageError for a code that the field has no room for.
    """
    if k < 1 or m < 0 or k + m > FIELD:
        raise UsageError("no such code", expected=f"k+m of at most {FIELD} shards", got=f"{k}+{m}")
    identity = [bytes(int(column == row) for column in range(k)) for row in range(k)]
    parity = [bytes(inverse((k + row) ^ column) for column in range(k)) for row in range(m)]
    return (*identity, *parity)


def inverted(rows: Sequence[bytes]) -> Rows:
    """Return the inverse of a square matrix by Gauss and Jordan. Raises UsageError for one that has none."""
    size = len(rows)
    work = [bytearray(row) + bytes(int(at == place) for at in range(size)) for place, row in enumerate(rows)]
    for column in range(size):
        pivot = next((at for at in range(column, size) if work[at][column]), None)
        if pivot is None:
            raise UsageError("matrix has no inverse", got=f"rank {column} of {size}")
        work[column], work[pivot] = work[pivot], work[column]
        work[column] = bytearray(work[column].translate(row_of_products(inverse(work[column][column]))))
        for at in range(size):
            factor = work[at][column]
            if at != column and factor:
                scaled = work[column].translate(row_of_products(factor))
                work[at] = bytearray(a ^ b for a, b in zip(work[at], scaled, strict=True))
    return tuple(bytes(row[size:]) for row in work)


def product(left: Sequence[bytes], right: Sequence[bytes]) -> Rows:
    """Return the product of two matrices."""
    columns = range(len(right[0]))
    return tuple(bytes(_dot(row, [line[column] for line in right]) for column in columns) for row in left)


def _dot(left: Sequence[int], right: Sequence[int]) -> int:
    total = 0
    for a, b in zip(left, right, strict=True):
        total ^= multiply(a, b)
    return total


@cache
def rebuilding_rows(k: int, m: int, sources: tuple[int, ...], targets: tuple[int, ...]) -> Rows:
    """Return the rows that make the shards `targets` of the k shards `sources`, in the order both are named.

    Raises UsageError unless `sources` are k different shards of the code.
    """
    rows = code_rows(k, m)
    known = len(set(sources)) == len(sources) == k and all(0 <= index < k + m for index in (*sources, *targets))
    if not known:
        raise UsageError("shards cannot be rebuilt", expected=f"{k} different ones of {k + m}", got=f"{sources}")
    return product([rows[index] for index in targets], inverted([rows[index] for index in sources]))
