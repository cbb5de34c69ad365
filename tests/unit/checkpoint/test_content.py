"""No two pages of a checkpoint are alike, nothing shrinks, and every flipped bit is found."""

import zlib

import numpy as np
import pytest

from stoker.checkpoint.content import ShardContent
from stoker.core.errors import CorruptError

MIB = 1 << 20


def made(seed: int, checkpoint: str, file: str, size: int = MIB, offset: int = 0) -> np.ndarray:
    into = np.zeros(size, np.uint8)
    ShardContent(seed, checkpoint, file).fill(into.data, offset)
    return into


def test_no_page_is_shared_by_ranks_checkpoints_or_seeds() -> None:
    streams = [
        made(1, "global_epoch1_step1", "a"),
        made(1, "global_epoch1_step1", "b"),
        made(1, "global_epoch1_step2", "a"),
        made(2, "global_epoch1_step1", "a"),
    ]
    pages = [page.tobytes() for stream in streams for page in stream.reshape(-1, 4096)]
    assert len(set(pages)) == len(pages)


def test_content_does_not_shrink() -> None:
    data = made(1, "global_epoch1_step1", "a", 4 * MIB).tobytes()
    assert len(zlib.compress(data, 6)) > 0.99 * len(data)


def test_any_part_can_be_made_alone() -> None:
    whole = made(5, "c", "f")
    assert np.array_equal(made(5, "c", "f", 10_000, 12_345), whole[12_345:22_345])


@pytest.mark.parametrize("at", [0, 1, 4095, 99_990, 99_998])
def test_one_flipped_bit_is_told_with_its_place(at: int) -> None:
    got = made(7, "c", "f", 99_999, 4096)
    content = ShardContent(7, "c", "f")
    scratch = memoryview(bytearray(MIB))
    content.require(got.data, 4096, scratch, where="x")
    got[at] ^= 1
    with pytest.raises(CorruptError, match=f"at byte {4096 + at}, got .* 1 of 99999 bytes differ"):
        content.require(got.data, 4096, scratch, where="x")
