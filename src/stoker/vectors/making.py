"""Vectors from a recipe: any stretch of them, in any order, the same bytes on any machine.

Every number comes from whole-number arithmetic on the raw output of Philox (Salmon et al., 2011; the stream is part of
NumPy's promise), and is scaled to length 1 by operations that IEEE 754 rounds exactly. So neither a library's
logarithm nor the width of a processor's registers shows in the data.

    uniform     U[0, 1): all vectors lie in one orthant, and the cosine of any two is about 0.75. The reference's.
    normal      the sum of twelve uniform numbers less its mean: within 1 % of a normal density where it matters
    zipfian     1/u cut to a whole number, the density of a Zipf distribution of exponent 2
    clustered   twice a centre plus noise, both normal: neighbours lie near each other, as those of real embeddings do.
                Uniform data have no neighbours worth the name: an index needs a list four to ten times as long for the
                same recall, which exaggerates reads per query as much.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.core.vectors import DISTRIBUTIONS, Recipe

Vectors = NDArray[np.float32]
Whole = NDArray[np.int64]
DIMENSION_MAX: Final = 1 << 16
BLOCK_ROWS: Final = 256
"""Rows are made in whole blocks, so that a chunk's bounds do not show."""
_PARTS: Final = 12
_PART_BITS: Final = 16
_BITS: Final = 20
_CLUSTER_VECTORS: Final = 100
_CLUSTERS_MIN: Final = 8
_CLUSTERS_MAX: Final = 1024
_ROWS_STREAM, _CENTRES_STREAM, _CHOICE_STREAM = 1, 2, 3


def check_recipe(recipe: Recipe) -> None:
    """Raise UsageError for a recipe that makes nothing."""
    if recipe.distribution not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise UsageError("unknown distribution", where=recipe.distribution, remedy=f"known: {known}")
    if not 1 <= recipe.dimension <= DIMENSION_MAX or recipe.vectors < 1:
        raise UsageError(
            "vectors cannot be made",
            expected=f"at least 1, of 1 to {DIMENSION_MAX} numbers",
            got=f"{recipe.vectors} of {recipe.dimension}",
        )


def make(recipe: Recipe, first: int, count: int) -> Vectors:
    """Return the vectors `first` to `first + count - 1`, shape (count, dimension), each of length 1."""
    check_recipe(recipe)
    made = np.empty((count, recipe.dimension), np.float32)
    for block in range(first // BLOCK_ROWS, -(-(first + count) // BLOCK_ROWS)):
        begin = block * BLOCK_ROWS
        low, high = max(first, begin), min(first + count, begin + BLOCK_ROWS)
        made[low - first : high - first] = _normalised(_block(recipe, block)[low - begin : high - begin])
    return made


def chunks(recipe: Recipe, first: int, end: int, rows: int) -> Iterator[tuple[int, Vectors]]:
    """Yield the vectors `first` to `end - 1` as (number of the first, vectors), at most `rows` at a time."""
    for begin in range(first, end, rows):
        yield begin, make(recipe, begin, min(rows, end - begin))


def make_queries(recipe: Recipe, count: int, seed: int) -> Vectors:
    """Return `count` vectors of the same distribution, and about the same centres, that the recipe does not make."""
    blocks = [_block(recipe, block, seed) for block in range(-(-count // BLOCK_ROWS))]
    return _normalised(np.concatenate(blocks)[:count])


def digest(vectors: Vectors) -> str:
    """Return a hash of the vectors' bytes in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(vectors).view(np.uint8).data)


def cluster_count(recipe: Recipe) -> int:
    """Return how many centres the clustered vectors lie around."""
    return min(_CLUSTERS_MAX, max(_CLUSTERS_MIN, recipe.vectors // _CLUSTER_VECTORS))


def _block(recipe: Recipe, block: int, query_seed: int | None = None) -> Whole:
    """Return one block of rows as whole numbers; queries are rows of another stream."""
    stream = _ROWS_STREAM if query_seed is None else 16 + query_seed
    shape = (BLOCK_ROWS, recipe.dimension)
    if recipe.distribution == "clustered":
        raw = _raw(recipe.seed, stream, block, BLOCK_ROWS, _CHOICE_STREAM)
        chosen = (raw % np.uint64(cluster_count(recipe))).astype(np.int64)
        return 2 * _centres(recipe)[chosen] + _normal(recipe.seed, stream, block, shape)
    if recipe.distribution == "normal":
        return _normal(recipe.seed, stream, block, shape)
    raw = _raw(recipe.seed, stream, block, shape[0] * shape[1])
    if recipe.distribution == "zipfian":
        raw = np.minimum((np.uint64(1 << 32) // ((raw >> np.uint64(32)) + np.uint64(1))), np.uint64(1 << _BITS))
    else:
        raw = raw >> np.uint64(64 - _BITS)
    return raw.astype(np.int64).reshape(shape)


_kept: dict[Recipe, Whole] = {}


def _centres(recipe: Recipe) -> Whole:
    """Return the centres of the clusters; those of the last recipe are kept."""
    if recipe not in _kept:
        _kept.clear()
        _kept[recipe] = _normal(recipe.seed, _CENTRES_STREAM, 0, (cluster_count(recipe), recipe.dimension))
    return _kept[recipe]


def _normal(seed: int, stream: int, block: int, shape: tuple[int, int]) -> Whole:
    words = _PARTS * _PART_BITS // 64
    raw = _raw(seed, stream, block, shape[0] * shape[1] * words)
    total = raw.astype("<u8", copy=False).view("<u2").reshape(*shape, _PARTS).sum(axis=-1, dtype=np.int64)
    centred: Whole = total - _PARTS * ((1 << _PART_BITS) - 1) // 2
    return centred


def _raw(seed: int, stream: int, block: int, count: int, lane: int = 0) -> NDArray[np.uint64]:
    """Return raw 64-bit numbers that seed, stream, block and lane decide."""
    key = (seed & ((1 << 64) - 1)) | (stream & ((1 << 64) - 1)) << 64
    found: NDArray[np.uint64] = np.random.Philox(key=key, counter=[0, 0, block, lane]).random_raw(count)
    return found


def _normalised(rows: Whole) -> Vectors:
    """Return rows of length 1. The sums of squares are whole numbers, so their order does not matter."""
    squares = np.einsum("ij,ij->i", rows, rows)
    lengths = np.sqrt(np.maximum(squares, 1).astype(np.float64))
    found: Vectors = (rows / lengths[:, None]).astype(np.float32)
    return found
