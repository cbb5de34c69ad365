"""XXH3-64 of tiles of 4096 bytes: its constants as tables, and its last steps in operations of torch.

By the specification (xxHash, doc/xxhash_spec.md, "XXH3 Algorithm for long inputs"), seed 0. Numbers are 64 bits wide
and wrap; torch and Triton know only signed ones, so constants are written as those.
"""

import struct
from typing import Any, Final

from stoker.pages.devices.tiles import TILE_BYTES, TILE_LINES

_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_PRIME32: Final = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_PRIME64: Final = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_AVALANCHE: Final = 0x165667919E3779F9
_LAST_STRIPE_AT: Final = len(_SECRET) - 64 - 7
_SCRAMBLE_AT: Final = len(_SECRET) - 64
_MERGE_AT: Final = 11
_STRIPES_OF_BLOCK: Final = 16


def signed(value: int) -> int:
    """Return the signed number with the same 64 bits."""
    return (value & 0xFFFF_FFFF_FFFF_FFFF ^ 1 << 63) - (1 << 63)


def _words(start: int, count: int) -> list[int]:
    return list(struct.unpack_from(f"<{count}q", _SECRET, start))


class Xxh3Tables:
    """The secret as each stripe of a tile meets it; tensors are made once a device.

    keys      64 stripes of 8 words
    scramble  8 words, met after each whole block
    initial   8 words the sums begin with
    merge     8 words of the last step
    """

    def __init__(self) -> None:
        starts = [8 * (stripe % _STRIPES_OF_BLOCK) for stripe in range(TILE_LINES - 1)] + [_LAST_STRIPE_AT]
        self.keys = [_words(start, 8) for start in starts]
        self.scramble = _words(_SCRAMBLE_AT, 8)
        p32, p64 = _PRIME32, _PRIME64
        self.initial = [signed(one) for one in (p32[2], p64[0], p64[1], p64[2], p64[3], p32[1], p64[4], p32[0])]
        self.merge = _words(_MERGE_AT, 8)
        self.scramble_prime = _PRIME32[0]
        self._made: dict[str, tuple[Any, Any, Any]] = {}

    def tensors(self, torch: Any, device: Any) -> tuple[Any, Any, Any]:
        """Return keys, scramble and initial words on a device, int64."""
        key = str(device)
        if key not in self._made:
            tables = (self.keys, self.scramble, self.initial)
            keys, scramble, initial = (torch.tensor(one, dtype=torch.int64, device=device) for one in tables)
            self._made[key] = keys, scramble, initial
        return self._made[key]


def xxh3_of_accumulators(torch: Any, sums: Any, tables: Xxh3Tables) -> Any:
    """Return the hashes that sums, int64 of shape (tiles, 8), come to."""
    mixed = sums ^ torch.tensor(tables.merge, dtype=torch.int64, device=sums.device)
    found = torch.full_like(sums[:, 0], signed(TILE_BYTES * _PRIME64[0]))
    for pair in range(4):
        found = found + _folded(mixed[:, 2 * pair], mixed[:, 2 * pair + 1])
    found = found ^ (found >> 37 & (1 << 27) - 1)
    found = found * signed(_AVALANCHE)
    return found ^ (found >> 32 & 0xFFFFFFFF)


def _folded(left: Any, right: Any) -> Any:
    """Return the halves of a product of 128 bits, one upon the other."""
    low_mask = 0xFFFFFFFF
    left_low, left_high = left & low_mask, left >> 32 & low_mask
    right_low, right_high = right & low_mask, right >> 32 & low_mask
    low, cross, other = left_low * right_low, left_high * right_low, left_low * right_high
    middle = (low >> 32 & low_mask) + (cross & low_mask) + (other & low_mask)
    high = left_high * right_high + (cross >> 32 & low_mask) + (other >> 32 & low_mask) + (middle >> 32 & low_mask)
    return left * right ^ high
