"""The fill kernel refuses what it cannot do, and touches nothing but what it was given."""

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.core.units import MiB
from stoker.kernels import filling, plain_fill
from stoker.kernels.filling import PageStream, fill_pages, page_tile, pool_keys
from stoker.kernels.native import native_kernels


@pytest.fixture(params=["plain", "native"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(filling, "native_kernels", lambda: None)
    elif native_kernels() is None:
        pytest.skip("the native kernels are not installed")


def stream(random_words: int = 512) -> PageStream:
    return PageStream(page_tile(1, random_words), random_words, pool_keys(2), 3, 0.5, 0.25)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "asked",
    [
        {"offset_bytes": -1},
        {"offset_bytes": 2**62 + 1},
        {"offset_bytes": 0, "mask": -1},
        {"offset_bytes": 0, "mask": 2**64},
    ],
)
def test_numbers_that_cannot_be_are_refused(asked: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        fill_pages(memoryview(bytearray(8)), stream(), **asked)


@pytest.mark.usefixtures("kernels")
def test_memory_that_may_not_be_written_is_refused() -> None:
    with pytest.raises((BufferError, ValueError)):
        fill_pages(memoryview(bytes(8)), stream(), offset_bytes=0)


@pytest.mark.usefixtures("kernels")
def test_memory_in_pieces_is_refused() -> None:
    scattered = np.zeros(64, np.uint8)[::2]
    with pytest.raises((BufferError, ValueError)):
        fill_pages(scattered.data, stream(), offset_bytes=0)


@pytest.mark.usefixtures("kernels")
def test_nothing_is_filled_with_nothing() -> None:
    fill_pages(memoryview(bytearray()), stream(), offset_bytes=12345)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("offset", [0, 1, 5, 4091])
def test_the_mask_counts_from_the_first_byte(offset: int) -> None:
    bare, masked = bytearray(9001), bytearray(9001)
    mask = bytes([0xFF, 0x0F, 0xF0, 0x00, 0x01, 0x80, 0x7F, 0xAA])
    fill_pages(memoryview(bare), stream(), offset_bytes=offset)
    fill_pages(memoryview(masked), stream(), offset_bytes=offset, mask=int.from_bytes(mask, "little"))
    assert masked == bytes(byte & mask[index % 8] for index, byte in enumerate(bare))


def test_a_fill_too_large_for_the_caches_has_the_same_bytes() -> None:
    made, wanted = np.empty((2, 17 * MiB), np.uint8)
    fill_pages(made[5:].data, stream(253), offset_bytes=77, mask=0xBFFF_BFFF_BFFF_BFFF)
    plain_fill.fill_pages(wanted[5:].data, stream(253), 77, 0xBFFF_BFFF_BFFF_BFFF)
    assert np.array_equal(made[5:], wanted[5:])


def test_tables_of_a_wrong_size_are_refused() -> None:
    native = native_kernels()
    if native is None:
        pytest.skip("the native kernels are not installed")
    tile, keys, knobs = page_tile(1, 512), pool_keys(2), (512, 1, 0.0, 0.0)
    for wrong in ((tile[:63], keys, knobs), (tile, keys[:63], knobs), (tile, keys, (513, 1, 0.0, 0.0))):
        with pytest.raises(ValueError, match="no such pages"):
            native.fill_pages(bytearray(8), *wrong, 0, 0)
