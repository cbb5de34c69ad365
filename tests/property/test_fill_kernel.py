"""The native fill kernel makes the bytes its plain twin makes, at every CPU level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.kernels import plain_fill
from stoker.kernels.filling import NO_MASK, OFFSET_BYTES_MAX, PageStream, fill_pages, page_tile, pool_keys
from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")

WORDS = st.integers(0, 2**64 - 1)
GUARD = 0x5A


@settings(max_examples=300)
@given(
    level=st.sampled_from(CPU_LEVELS),
    random_words=st.sampled_from([2, 3, 5, 253, 511, 512]),
    base=WORDS,
    phase=st.floats(0, 1),
    duplicate=st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1),
    offset=st.integers(0, 1 << 20) | st.integers(0, OFFSET_BYTES_MAX),
    size=st.integers(0, 200) | st.integers(0, 70_000),
    shift=st.integers(0, 64),
    mask=WORDS | st.just(NO_MASK),
)
def test_native_equals_plain(*, level, random_words, base, phase, duplicate, offset, size, shift, mask) -> None:
    stream = PageStream(page_tile(99, random_words), random_words, pool_keys(98), base, phase, duplicate)
    room = np.full(size + 160, GUARD, np.uint8)
    start = -room.ctypes.data % 64 + shift
    made = room[start : start + size]
    with forced_cpu_level(level):
        fill_pages(made.data, stream, offset_bytes=offset, mask=mask)
    wanted = np.empty(size, np.uint8)
    plain_fill.fill_pages(wanted.data, stream, offset, mask)
    assert np.array_equal(made, wanted)
    assert (room[:start] == GUARD).all()
    assert (room[start + size :] == GUARD).all()
