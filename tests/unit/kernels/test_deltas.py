"""Deltas of pages say exactly what changed, and refuse pages they were not made for, by every kernel."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import deltas

SIZES = [1, 7, 63, 64, 65, 127, 128, 4095, 4096, 4097, 10_000]


@pytest.fixture(autouse=True)
def _kernel(kernel_of: Callable[[ModuleType], None]) -> None:
    kernel_of(deltas)


def pair(size: int, changed_ratio: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    base = chance.integers(0, 256, size, np.uint8)
    fresh = base.copy()
    hit = chance.random(size) < changed_ratio
    fresh[hit] ^= chance.integers(1, 256, int(hit.sum()), np.uint8)
    return base, fresh


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("changed_ratio", [0.0, 0.01, 0.3, 1.0])
def test_a_delta_leads_from_the_old_page_to_the_new_one(size: int, changed_ratio: float) -> None:
    base, fresh = pair(size, changed_ratio)
    payload, changed = deltas.two_level_diff(base.data, fresh.data)
    assert changed == int((base != fresh).sum())
    assert deltas.two_level_changed(size, payload) == changed
    target = base.copy()
    for _ in range(2):
        deltas.two_level_apply(target.data, payload)
        assert np.array_equal(target, fresh)


def test_a_page_that_did_not_change_has_an_empty_delta() -> None:
    page = bytes(range(256)) * 16
    assert deltas.two_level_diff(page, bytearray(page)) == (b"", 0)
    deltas.two_level_apply(bytearray(page), b"")


def test_one_byte_is_written_as_the_format_says() -> None:
    fresh = bytearray(4096)
    fresh[64 * 9 + 3] = 0x5A
    payload, changed = deltas.two_level_diff(bytes(4096), fresh)
    assert (payload, changed) == ((1 << 9).to_bytes(8, "little") + (1 << 3).to_bytes(8, "little") + b"\x5a", 1)


def test_an_update_leaves_the_new_page_in_the_old_ones_place() -> None:
    base, fresh = pair(5000, 0.02)
    wanted = deltas.two_level_diff(base.data, fresh.data)
    assert deltas.two_level_diff_update(base.data, fresh.data) == wanted
    assert np.array_equal(base, fresh)


def test_many_pages_in_one_call_are_the_pages_one_by_one() -> None:
    base, fresh = pair(37 * 1000, 0.01)
    bases, freshes = base.reshape(37, 1000), fresh.reshape(37, 1000)
    freshes[5] = bases[5]
    buffer, offsets, changed = deltas.two_level_diff_many(bases, freshes)
    assert offsets[0] == 0
    assert offsets[-1] == buffer.size
    for index in range(37):
        payload, count = deltas.two_level_diff(bases[index].data, freshes[index].data)
        assert buffer[offsets[index] : offsets[index + 1]].tobytes() == payload
        assert changed[index] == count
    none = np.empty((0, 64), np.uint8)
    assert deltas.two_level_diff_many(none, none).offsets.tolist() == [0]


def test_parts_of_a_payload_make_it_again() -> None:
    base, fresh = pair(777, 0.1)
    payload, _ = deltas.two_level_diff(base.data, fresh.data)
    mask, values = deltas.two_level_parts(777, payload)
    assert np.array_equal(mask, base != fresh)
    assert np.array_equal(values, fresh[mask])
    assert deltas.two_level_from_mask(mask, values) == payload
    with pytest.raises(UsageError, match="disagree"):
        deltas.two_level_from_mask(mask, values[1:])


def test_a_payload_cut_anywhere_is_refused_and_the_page_stays() -> None:
    base, fresh = pair(300, 0.1)
    payload, _ = deltas.two_level_diff(base.data, fresh.data)
    target = base.copy()
    for end in range(1, len(payload)):
        with pytest.raises(CorruptError, match="does not fit"):
            deltas.two_level_apply(target.data, payload[:end])
    with pytest.raises(CorruptError, match="does not fit"):
        deltas.two_level_apply(target.data, payload + b"\0")
    assert np.array_equal(target, base)


def test_masks_beyond_the_end_of_a_page_are_refused() -> None:
    for page_bytes, bitmap, masks in ((70, 2, [1 << 6]), (70, 4, [1]), (64, 2, [1]), (1, 1, [2])):
        payload = b"".join(word.to_bytes(8, "little") for word in [bitmap, *masks]) + b"x"
        page = bytearray(page_bytes)
        with pytest.raises(CorruptError, match="does not fit"):
            deltas.two_level_apply(page, payload)
        assert page == bytes(page_bytes)


def test_wrong_use_is_told() -> None:
    with pytest.raises(UsageError, match="differ in size"):
        deltas.two_level_diff(bytes(4), bytes(5))
    with pytest.raises(UsageError, match="cannot be written"):
        deltas.two_level_apply(memoryview(bytes(64)), b"")
    with pytest.raises(UsageError, match="cannot be written"):
        deltas.two_level_diff_update(memoryview(bytes(64)), bytes(64))
    with pytest.raises(UsageError, match="do not fit together"):
        deltas.two_level_diff_many(np.zeros((2, 8), np.uint8), np.zeros((3, 8), np.uint8))
