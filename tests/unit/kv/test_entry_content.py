"""Every 4 KiB of an entry show whose they are."""

import zlib

import numpy as np
import pytest

from stoker.core.errors import CorruptError
from stoker.kv.content import HEADER_BYTES, EntryContent, array_header

PAGE = 4096
SIZE = 5 * PAGE + 123


def entry(key: str = "conv_1_0_turn_0", seed: int = 7, size: int = SIZE) -> EntryContent:
    return EntryContent(seed, key, array_header((size,), "int8"), size)


def made(content: EntryContent) -> bytearray:
    data = bytearray(content.size_bytes)
    content.fill(0, memoryview(data))
    return data


def test_pieces_are_the_whole() -> None:
    content = entry()
    whole = made(content)
    for start in range(0, content.size_bytes, 2 * PAGE):
        piece = bytearray(min(2 * PAGE, content.size_bytes - start))
        content.fill(start, memoryview(piece))
        assert piece == whole[start : start + len(piece)]


def test_no_two_pages_are_alike_and_nothing_shrinks() -> None:
    pages: list[bytes] = []
    for key in ("conv_1_0_turn_0", "conv_1_0_turn_1", "rag_doc0_chunk_0"):
        data = made(entry(key, size=200 * PAGE))[HEADER_BYTES:]
        pages += [bytes(data[start : start + PAGE]) for start in range(0, len(data), PAGE)]
        assert len(zlib.compress(data, 1)) > 0.99 * len(data)
    assert len(set(pages)) == len(pages) == 600


def test_what_was_written_passes_both_checks() -> None:
    content = entry()
    data = made(content)
    for start in (0, PAGE, 3 * PAGE):
        piece = memoryview(data)[start : start + 2 * PAGE]
        content.check_stamps(start, piece, where="x")
        content.check_whole(start, piece, memoryview(bytearray(piece.nbytes)), where="x")


@pytest.mark.parametrize("other", [entry("conv_1_0_turn_1"), entry(seed=8)])
def test_a_page_of_another_owner_is_found(other: EntryContent) -> None:
    content, data = entry(), made(entry())
    data[HEADER_BYTES + 2 * PAGE : HEADER_BYTES + 3 * PAGE] = made(other)[
        HEADER_BYTES + 2 * PAGE : HEADER_BYTES + 3 * PAGE
    ]
    with pytest.raises(CorruptError, match=r"conv_1_0_turn_0.*from byte 12288 on"):
        content.check_stamps(0, memoryview(data), where="x")


def test_a_page_at_another_place_is_found() -> None:
    content, data = entry(), made(entry())
    data[HEADER_BYTES : HEADER_BYTES + PAGE] = data[HEADER_BYTES + PAGE : HEADER_BYTES + 2 * PAGE]
    with pytest.raises(CorruptError, match="from byte 4096 on"):
        content.check_stamps(0, memoryview(data), where="x")


def test_a_changed_header_and_a_single_bit_are_found() -> None:
    content, data = entry(), made(entry())
    data[HEADER_BYTES + PAGE + 999] ^= 1
    content.check_stamps(0, memoryview(data), where="x")  # between two stamps
    with pytest.raises(CorruptError, match=f"from byte {HEADER_BYTES + PAGE + 999} on"):
        content.check_whole(0, memoryview(data), memoryview(bytearray(len(data))), where="x")
    data[100] ^= 1
    with pytest.raises(CorruptError, match="from byte 0 on"):
        content.check_stamps(0, memoryview(data), where="x")


def test_zeros_are_found() -> None:
    content = entry()
    with pytest.raises(CorruptError):
        content.check_stamps(PAGE, memoryview(np.zeros(PAGE, np.uint8)), where="x")
