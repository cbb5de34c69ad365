"""What differs between typed elements is found, coded and applied, by every kernel."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import wiring
from stoker.kernels.wiring import WIDTHS, Coding


@pytest.fixture(autouse=True)
def _kernel(kernel_of: Callable[[ModuleType], None]) -> None:
    kernel_of(wiring)


def pair(count: int, width: int, changed_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(count + width)
    base = chance.integers(0, 256, (count, width), np.uint8)
    fresh = base.copy()
    hit = chance.random(count) < changed_ratio
    fresh[hit, 0] ^= chance.integers(1, 256, int(hit.sum()), np.uint8)
    return base.reshape(-1), fresh.reshape(-1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 2000])
@pytest.mark.parametrize("changed_ratio", [0.0, 0.002, 0.3, 1.0])
def test_elements_are_found_coded_and_applied(width: int, count: int, changed_ratio: float) -> None:
    base, fresh = pair(count, width, changed_ratio)
    places = np.flatnonzero((base != fresh).reshape(count, width).any(axis=1))
    found = wiring.diff_elements(base.data, fresh.data, width, count)
    assert found.changed == len(places)
    assert found.gaps is not None
    assert found.base_values is not None
    assert found.fresh_values is not None
    assert np.array_equal(np.flatnonzero(np.unpackbits(found.mask, bitorder="little")), places)
    for coding in Coding:
        planes = wiring.encode_planes(found.base_values.data, found.fresh_values.data, width, coding)
        by_gaps, by_mask, by_all = base.copy(), base.copy(), base.copy()
        wiring.apply_gaps(by_gaps.data, width, coding, planes.data, found.gaps.data)
        wiring.apply_mask(by_mask.data, width, coding, planes.data, found.mask.data)
        wiring.apply_planes(by_all.data, width, coding, wiring.encode_planes(base.data, fresh.data, width, coding).data)
        for target in (by_gaps, by_mask, by_all):
            assert np.array_equal(target, fresh)


def test_more_changes_than_asked_for_leave_the_mask_alone() -> None:
    base, fresh = pair(1000, 2, 0.5)
    found = wiring.diff_elements(base.data, fresh.data, 2, 10)
    assert found.changed == int((base != fresh).sum())
    assert found.gaps is None
    assert found.mask.size == wiring.mask_bytes(1000)


@pytest.mark.parametrize("place", [0, 254, 255, 256, 509, 510, 511, 765, 1999])
def test_far_places_skip_255_at_a_time(place: int) -> None:
    base, fresh = np.zeros(2000, np.uint8), np.zeros(2000, np.uint8)
    fresh[place] = 9
    found = wiring.diff_elements(base.data, fresh.data, 1, 1)
    assert found.gaps is not None
    assert found.gaps.tolist() == [255] * (place // 255) + [place % 255]


def test_small_moves_of_either_sign_are_small_codes() -> None:
    base = np.array([1000, 1000, 0, 65535], np.uint16)
    fresh = np.array([1001, 999, 65535, 0], np.uint16)
    assert wiring.encode_planes(base.data, fresh.data, 2, Coding.ULPS).tolist() == [2, 1, 1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("gaps", "planes"),
    [([0], b""), ([], b"x"), ([10], b"x"), ([255], b"x"), ([9, 0], b"xx"), ([255] * 40 + [0], b"x"), ([255], b"")],
)
def test_gaps_that_do_not_fit_are_refused_and_nothing_is_touched(gaps: list[int], planes: bytes) -> None:
    values = bytearray(10)
    with pytest.raises(CorruptError, match="do not fit"):
        wiring.apply_gaps(memoryview(values), 1, Coding.BITS, planes, bytes(gaps))
    assert values == bytes(10)


@pytest.mark.parametrize(
    ("mask", "planes"), [(b"", b""), (b"\x01" + bytes(7), b""), (bytes(8), b"x"), (b"\x00\x04" + bytes(6), b"x")]
)
def test_masks_that_do_not_fit_are_refused_and_nothing_is_touched(mask: bytes, planes: bytes) -> None:
    values = bytearray(10)
    with pytest.raises(CorruptError, match="do not fit"):
        wiring.apply_mask(memoryview(values), 1, Coding.BITS, planes, mask)
    assert values == bytes(10)


def test_wrong_use_is_told() -> None:
    with pytest.raises(UsageError, match="whole elements"):
        wiring.diff_elements(bytes(5), bytes(5), 2, 1)
    with pytest.raises(UsageError, match="whole elements"):
        wiring.encode_planes(bytes(6), bytes(6), 3, Coding.BITS)
    with pytest.raises(UsageError, match="differ in size"):
        wiring.diff_elements(bytes(4), bytes(8), 2, 1)
    with pytest.raises(CorruptError, match="do not fit"):
        wiring.apply_planes(memoryview(bytearray(4)), 2, Coding.BITS, bytes(6))
