"""The native checksums and copies equal those of the packages, whatever the data, its place and the CPU level."""

import crc32c as crc32c_package
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.kernels import checking, plain_check
from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")

POOL = np.random.default_rng(7).integers(0, 256, 400_000, np.uint8)


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_every_length_up_to_5000(level: str) -> None:
    with forced_cpu_level(level) as offered:
        if offered != level:
            pytest.skip(f"this processor offers {offered}, not {level}")
        target = np.empty(5000, np.uint8)
        for size in range(5001):
            source, into = POOL[size % 67 : size % 67 + size], target[:size]
            assert checking.copy_xxh3(source.data, into.data) == xxhash.xxh3_64_intdigest(source), size
            assert checking.copy_crc32c(source.data, into.data) == crc32c_package.crc32c(source), size


@settings(max_examples=200)
@given(
    level=st.sampled_from(CPU_LEVELS),
    start=st.integers(0, 1000),
    size=st.integers(0, 5000) | st.integers(0, 300_000),
    shift=st.integers(0, 63),
    value=st.integers(0, 2**32 - 1),
    few=st.binary(max_size=600),
)
def test_native_equals_plain(*, level: str, start: int, size: int, shift: int, value: int, few: bytes) -> None:
    for source in (POOL[start : start + size].data, memoryview(few)):
        made, wanted = np.full((2, source.nbytes + 80), 0x5A, np.uint8)
        place = slice(shift, shift + source.nbytes)
        with forced_cpu_level(level):
            crc = checking.copy_crc32c(source, made[place].data, value)
            assert checking.crc32c(source, value) == crc
            digest = checking.copy_xxh3(source, made[place].data)
        assert crc == plain_check.copy_crc32c(source, wanted[place].data, value)
        assert digest == plain_check.copy_xxh3(source, wanted[place].data)
        assert np.array_equal(made, wanted)


RANGES = st.lists(st.tuples(st.integers(-2, 70), st.integers(-2, 70)), max_size=5)


@given(data=st.binary(max_size=64), ranges=RANGES)
def test_ranges_are_accepted_and_refused_alike(data: bytes, ranges: list[tuple[int, int]]) -> None:
    columns = np.array(ranges, np.int64).reshape(-1, 2).T.copy()
    native, plain = np.zeros((2, len(ranges)), np.uint32)
    module = native_kernels()
    assert module is not None
    done = module.crc32c_many(data, columns, native)
    assert done == plain_check.crc32c_many(memoryview(data), columns, plain)
    assert native.tolist() == plain.tolist()


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_xxh3_128_of_every_length_up_to_3000(level: str) -> None:
    with forced_cpu_level(level) as offered:
        if offered != level:
            pytest.skip(f"this processor offers {offered}, not {level}")
        lengths = np.arange(3001)
        digests = checking.xxh3_128_many(POOL.data, lengths % 67, lengths)
    for size, digest in enumerate(digests):
        assert digest.tobytes() == xxhash.xxh3_128_digest(POOL[size % 67 : size % 67 + size]), size


@given(data=st.binary(max_size=600), ranges=RANGES)
def test_digests_of_ranges_equal_those_of_the_plain_twin(data: bytes, ranges: list[tuple[int, int]]) -> None:
    columns = np.array(ranges, np.int64).reshape(-1, 2).T.copy()
    native, plain = np.zeros((2, len(ranges), 16), np.uint8)
    module = native_kernels()
    assert module is not None
    done = module.xxh3_128_many(data, columns, native)
    assert done == plain_check.xxh3_128_many(memoryview(data), columns, plain)
    assert np.array_equal(native[:done], plain[:done])
