"""The kernels in Triton; `triton_tiles` launches them. It is imported only where triton is there.

One program does one tile of 64 lines of 64 bytes (the hashes: several). Tiles are read as words of 8 bytes; a flag of
each byte is gathered into bits by one multiplication. Nothing waits for another program: places in the output come
from sums over the tiles that are made between two launches.
"""

import triton
import triton.language as tl

GATHER = tl.constexpr(0x0102040810204080)
ONES = tl.constexpr(0x0101010101010101)


@triton.jit
def count_bits(words):
    """Return how many bits are set in each word of 64 bits."""
    pairs = words - ((words >> 1) & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((eights * ONES) >> 56) & 0xFF


@triton.jit
def flag_bytes(differs):
    """Return words whose bytes are 1 where those of `differs` are not 0."""
    halves = differs | ((differs >> 4) & 0x0F0F0F0F0F0F0F0F)
    quarters = halves | ((halves >> 2) & 0x3F3F3F3F3F3F3F3F)
    return (quarters | ((quarters >> 1) & 0x7F7F7F7F7F7F7F7F)) & ONES


@triton.jit
def bytes_inside(words, left):
    """Return words without the bytes from `left` on, the bytes of the page from each word's first one."""
    kept = tl.minimum(tl.maximum(left, 0), 7)
    return tl.where(left >= 8, words, words & ((tl.full(kept.shape, 1, tl.int64) << (8 * kept)) - 1))


@triton.jit
def store_masks(flags, tile, masks, words, dirty, changed):
    """Write what a tile's flags, words of shape (64, 8), come to: a mask a line, the bitmap, and two counts."""
    line = tl.arange(0, 64).to(tl.int64)
    word = tl.arange(0, 8).to(tl.int64)
    gathered = ((flags * GATHER) >> 56) & 0xFF
    by_line = tl.sum(gathered << (8 * word)[None, :], axis=1)
    tl.store(masks + tile * 64 + line, by_line)
    is_dirty = (by_line != 0).to(tl.int64)
    tl.store(words + tile, tl.sum(is_dirty << line, axis=0))
    tl.store(dirty + tile, tl.sum(is_dirty, axis=0))
    tl.store(changed + tile, tl.sum(tl.sum(((flags * ONES) >> 56) & 0xFF, axis=1), axis=0))


@triton.jit
def compare_tiles(base, fresh, starts, sizes, masks, words, dirty, changed, UPDATE: tl.constexpr):
    """Compare tiles of two slabs, seen as words; with UPDATE write what is new into `base`."""
    tile = tl.program_id(0).to(tl.int64)
    start, size = tl.load(starts + tile), tl.load(sizes + tile)
    line = tl.arange(0, 64).to(tl.int64)[:, None]
    word = tl.arange(0, 8).to(tl.int64)[None, :]
    left = size - 64 * line - 8 * word
    at = 8 * (start + line) + word
    was = tl.load(base + at, mask=left > 0, other=0)
    now = tl.load(fresh + at, mask=left > 0, other=0)
    differs = bytes_inside(was ^ now, left)
    store_masks(flag_bytes(differs), tile, masks, words, dirty, changed)
    if UPDATE:
        tl.store(base + at, was ^ differs, mask=differs != 0)


@triton.jit
def cast_tiles(masters, offsets, slab, starts, sizes, masks, words, dirty, changed):
    """Round float32 values to bfloat16 into tiles of a slab, seen as 16-bit elements, and flag the bytes that change.

    offsets  where each tile's first value lies, in elements from `masters`
    """
    tile = tl.program_id(0).to(tl.int64)
    start, size, offset = tl.load(starts + tile), tl.load(sizes + tile), tl.load(offsets + tile)
    line = tl.arange(0, 64).to(tl.int64)
    element = tl.arange(0, 32).to(tl.int64)
    place = 32 * line[:, None] + element[None, :]
    inside = 2 * place < size
    bits = tl.load(masters + offset + place, mask=inside, other=0)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    fresh = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, tl.full(rounded.shape, 0x7FC0, tl.int16), rounded)
    was = tl.load(slab + 32 * start + place, mask=inside, other=0)
    differs = tl.where(inside, (was ^ fresh).to(tl.int64), 0)
    tl.store(slab + 32 * start + place, fresh, mask=inside & (differs != 0))
    two = ((differs & 0xFF) != 0).to(tl.int64) + 2 * ((differs & 0xFF00) != 0).to(tl.int64)
    by_line = tl.sum(two << (2 * element)[None, :], axis=1)
    tl.store(masks + tile * 64 + line, by_line)
    is_dirty = (by_line != 0).to(tl.int64)
    tl.store(words + tile, tl.sum(is_dirty << line, axis=0))
    tl.store(dirty + tile, tl.sum(is_dirty, axis=0))
    tl.store(changed + tile, tl.sum(count_bits(by_line), axis=0))


@triton.jit
def emit_tiles(fresh, starts, masks, line_ends, byte_ends, out_masks, out_values):
    """Write the masks of dirty lines and the changed bytes of each tile behind those of the tiles before it."""
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first_line, first_byte = tl.load(line_ends + tile), tl.load(byte_ends + tile)
    line = tl.arange(0, 64).to(tl.int64)
    column = tl.arange(0, 64).to(tl.int64)
    mask = tl.load(masks + tile * 64 + line)
    is_dirty = (mask != 0).to(tl.int64)
    rank = tl.cumsum(is_dirty, axis=0) - is_dirty
    tl.store(out_masks + first_line + rank, mask, mask=is_dirty != 0)
    counts = count_bits(mask)
    before = tl.cumsum(counts, axis=0) - counts
    bit = ((mask[:, None] >> column[None, :]) & 1).to(tl.int32)
    within = tl.cumsum(bit, axis=1) - bit
    values = tl.load(fresh + 64 * (start + line)[:, None] + column[None, :], mask=bit != 0, other=0)
    tl.store(out_values + first_byte + before[:, None] + within, values, mask=bit != 0)


@triton.jit
def apply_tiles(target, starts, words, line_ends, byte_ends, masks, values):
    """Write the changed bytes of each tile to their places."""
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + tile)
    first_line, first_byte = tl.load(line_ends + tile), tl.load(byte_ends + tile)
    line = tl.arange(0, 64).to(tl.int64)
    column = tl.arange(0, 64).to(tl.int64)
    is_dirty = (tl.load(words + tile) >> line) & 1
    rank = tl.cumsum(is_dirty, axis=0) - is_dirty
    mask = tl.load(masks + first_line + rank, mask=is_dirty != 0, other=0)
    counts = count_bits(mask)
    before = tl.cumsum(counts, axis=0) - counts
    bit = ((mask[:, None] >> column[None, :]) & 1).to(tl.int32)
    within = tl.cumsum(bit, axis=1) - bit
    fresh = tl.load(values + first_byte + before[:, None] + within, mask=bit != 0, other=0)
    tl.store(target + 64 * (start + line)[:, None] + column[None, :], fresh, mask=bit != 0)


@triton.jit
def count_elements(base, fresh, count, counts, BLOCK: tl.constexpr):
    """Count the elements that differ, block by block."""
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    inside = place < count
    differs = tl.load(base + place, mask=inside, other=0) != tl.load(fresh + place, mask=inside, other=0)
    tl.store(counts + block, tl.sum(differs.to(tl.int64), axis=0))


@triton.jit
def compact_elements(base, fresh, count, ends, places, base_values, fresh_values, BLOCK: tl.constexpr):
    """Write places and values of the elements that differ, each block's behind those before it."""
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    inside = place < count
    was = tl.load(base + place, mask=inside, other=0)
    now = tl.load(fresh + place, mask=inside, other=0)
    differs = (was != now).to(tl.int64)
    to = tl.load(ends + block) + tl.cumsum(differs, axis=0) - differs
    tl.store(places + to, place, mask=differs != 0)
    tl.store(base_values + to, was, mask=differs != 0)
    tl.store(fresh_values + to, now, mask=differs != 0)


@triton.jit
def hash_tiles(slab, starts, sizes, count, keys, scramble, initial, sums, prime, TILES: tl.constexpr):
    """Run the stripes of XXH3 over tiles, padded with zeros; `sums` takes 8 words a tile."""
    tile = tl.program_id(0).to(tl.int64) * TILES + tl.arange(0, TILES).to(tl.int64)
    there = tile < count
    start = tl.load(starts + tile, mask=there, other=0)[:, None]
    size = tl.load(sizes + tile, mask=there, other=0)[:, None]
    lane = tl.arange(0, 8).to(tl.int64)[None, :]
    swapped = lane ^ 1
    sum = tl.load(initial + lane) + tl.zeros((TILES, 8), tl.int64)
    mixer = tl.load(scramble + lane)
    for stripe in range(64):
        left = size - 64 * stripe - 8 * lane
        left_swapped = size - 64 * stripe - 8 * swapped
        at = 8 * (start + stripe)
        data = bytes_inside(tl.load(slab + at + lane, mask=left > 0, other=0), left)
        other = bytes_inside(tl.load(slab + at + swapped, mask=left_swapped > 0, other=0), left_swapped)
        keyed = data ^ tl.load(keys + 8 * stripe + lane)
        sum += other + (keyed & 0xFFFFFFFF) * ((keyed >> 32) & 0xFFFFFFFF)
        if (stripe % 16 == 15) and (stripe != 63):
            sum = (sum ^ ((sum >> 47) & 0x1FFFF) ^ mixer) * prime
    tl.store(sums + 8 * tile[:, None] + lane, sum, mask=there[:, None])


@triton.jit
def copy_tiles(target, target_starts, source, source_starts, sizes):
    """Copy tiles from one slab to another, both seen as words; a word may reach behind its page, never its line."""
    tile = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, 512).to(tl.int64)
    inside = 8 * place < tl.load(sizes + tile)
    words = tl.load(source + 8 * tl.load(source_starts + tile) + place, mask=inside, other=0)
    tl.store(target + 8 * tl.load(target_starts + tile) + place, words, mask=inside)


@triton.jit
def zero_tiles(slab, starts, sizes):
    """Fill tiles with zeros."""
    tile = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, 512).to(tl.int64)
    nothing = tl.zeros((512,), tl.int64)
    tl.store(slab + 8 * tl.load(starts + tile) + place, nothing, mask=8 * place < tl.load(sizes + tile))


@triton.jit
def unequal_tiles(left, right, starts, sizes, flags):
    """Flag the tiles that differ."""
    tile = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, 512).to(tl.int64)
    rest = tl.load(sizes + tile) - 8 * place
    at = 8 * tl.load(starts + tile) + place
    one, other = tl.load(left + at, mask=rest > 0, other=0), tl.load(right + at, mask=rest > 0, other=0)
    tl.store(flags + tile, tl.max((bytes_inside(one ^ other, rest) != 0).to(tl.int64), axis=0))
