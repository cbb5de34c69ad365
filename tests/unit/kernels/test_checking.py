"""Checksums are the published ones, and copies are whole, by every kernel at every CPU level."""

from collections.abc import Callable
from types import ModuleType

import crc32c as crc32c_package
import numpy as np
import pytest
import xxhash

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import checking
from stoker.kernels.native import native_kernels

DATA = np.random.default_rng(5).integers(0, 256, 300_000, np.uint8)
SIZES = [0, 1, 7, 8, 9, 240, 241, 383, 384, 385, 1024, 1025, 3072, 4097, 24_576, 24_577, 131_073, 250_001]


@pytest.fixture(autouse=True)
def _kernel(kernel_of: Callable[[ModuleType], None]) -> None:
    kernel_of(checking)


def test_crc32c_is_the_one_of_the_rfc() -> None:
    assert checking.crc32c(bytes(32)) == 0x8A9136AA
    assert checking.crc32c(bytearray(b"123456789")) == 0xE3069283
    assert checking.crc32c(b"56789", checking.crc32c(b"1234")) == 0xE3069283


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 3])
def test_a_copy_is_whole_and_its_checksums_are_right(size: int, shift: int) -> None:
    source = DATA[shift : shift + size]
    for copy, wanted in (
        (checking.copy_crc32c, crc32c_package.crc32c(source)),
        (checking.copy_xxh3, xxhash.xxh3_64_intdigest(source)),
    ):
        room = np.full(size + 32, 0xA5, np.uint8)
        assert copy(source.data, room[7 : 7 + size].data) == wanted
        assert np.array_equal(room[7 : 7 + size], source)
        assert (room[:7] == 0xA5).all()
        assert (room[7 + size :] == 0xA5).all()
    assert checking.crc32c(source.data) == crc32c_package.crc32c(source)
    assert checking.xxh3_64(source.data) == xxhash.xxh3_64_intdigest(source)


def test_a_copy_goes_on_from_the_checksum_before_it() -> None:
    target = np.empty(5000, np.uint8)
    before = checking.crc32c(DATA[:777].data)
    assert checking.copy_crc32c(DATA[777:5777].data, target.data, before) == crc32c_package.crc32c(DATA[:5777])


def test_elements_of_any_type_are_bytes() -> None:
    words = np.arange(1000, dtype=np.float64).reshape(10, 100)
    target = np.empty((1000,), np.int64)
    assert checking.copy_xxh3(words.data, target.data) == xxhash.xxh3_64_intdigest(words)
    assert target.tobytes() == words.tobytes()
    assert checking.crc32c(words.data) == crc32c_package.crc32c(words.tobytes())


@pytest.mark.parametrize("copy", [checking.copy_crc32c, checking.copy_xxh3])
def test_memory_that_does_not_fit_is_refused(copy: Callable[[memoryview, memoryview], int]) -> None:
    room = np.zeros(2000, np.uint8)
    for source, target in ((room[:500], room[500:1001]), (room[:500], room[499:999]), (room[10:510], room[:500])):
        with pytest.raises(UsageError, match="does not fit"):
            copy(source.data, target.data)
    with pytest.raises(UsageError, match="does not fit"):
        copy(room[:500].data, room[:500].data)
    assert copy(room[:500].data, room[500:1000].data) >= 0


@pytest.mark.parametrize("copy", [checking.copy_crc32c, checking.copy_xxh3])
def test_memory_that_may_not_be_written_is_refused(copy: Callable[[bytes, memoryview], int]) -> None:
    with pytest.raises((BufferError, ValueError)):
        copy(bytes(600), memoryview(bytes(600)))


def test_many_records_in_one_call() -> None:
    chance = np.random.default_rng(6)
    starts = chance.integers(0, 200_000, 500)
    lengths = chance.integers(0, 3000, 500)
    found = checking.crc32c_many(DATA.data, starts, lengths)
    assert found.dtype == np.uint32
    wanted = [
        crc32c_package.crc32c(DATA[start : start + length]) for start, length in zip(starts, lengths, strict=True)
    ]
    assert found.tolist() == wanted


def test_no_records_are_no_checksums() -> None:
    assert checking.crc32c_many(b"", [], []).shape == (0,)
    assert checking.crc32c_many(b"abc", [3, 0], [0, 0]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("start", "length"), [(0, 11), (10, 1), (11, 0), (-1, 1), (3, -1), (2**62, 2**62), (1, 2**63 - 1)]
)
def test_a_record_outside_the_buffer_is_corrupt(start: int, length: int) -> None:
    with pytest.raises(CorruptError, match="leaves its buffer"):
        checking.crc32c_many(bytes(10), [0, start], [10, length])


@pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")
def test_columns_of_two_lengths_are_refused() -> None:
    native = native_kernels()
    assert native is not None
    with pytest.raises(ValueError, match="as many ranges"):
        native.crc32c_many(bytes(10), np.zeros(3, np.int64), np.zeros(2, np.uint32))
