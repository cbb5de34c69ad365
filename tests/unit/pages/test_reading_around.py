"""Checkpoints read past the page cache: the same bytes, whatever is cached and wherever runs begin and end."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stoker.core.units import KiB, MiB
from stoker.kernels.syscalls import cached_pages
from stoker.pages.disk import OsDisk
from stoker.pages.errors import ChecksumError
from stoker.pages.history import CheckpointFacts, read_checkpoint, write_checkpoint
from stoker.pages.images import PageImage
from stoker.pages.reading_around import BLOCK_BYTES, read_around

SIZE = 3 * MiB + 64


def memory(size_bytes: int, shift: int = 0) -> NDArray[np.uint8]:
    """Return memory that begins so many bytes behind a block."""
    room = np.zeros(size_bytes + 2 * BLOCK_BYTES, np.uint8)
    start = -room.ctypes.data % BLOCK_BYTES + shift
    return room[start : start + size_bytes]


def chill(path: Path) -> None:
    """Take a file out of the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def cached(path: Path) -> int:
    """Return how many pages of a file are cached."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return cached_pages(handle, 0, 0)
    finally:
        os.close(handle)


@pytest.fixture
def cold(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A file of random bytes on a disk that can be read past its cache; nothing of it is cached."""
    path, data = tmp_path / "file", np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    path.write_bytes(data.tobytes())
    chill(path)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        if cached(path):
            pytest.skip("the file system keeps what it is told to drop")
    except OSError as error:
        pytest.skip(f"O_DIRECT or cachestat: {errno.errorcode[error.errno or 0]}")
    return path, data


def around(path: Path, offset: int, into: NDArray[np.uint8]) -> int:
    """Read past the cache with a handle of its own."""
    handle = os.open(path, os.O_RDONLY)
    try:
        got = read_around(handle, offset, into.data)
        plain = os.pread(handle, 10, 1)  # the handle reads as usual again
        assert len(plain) == 10
        return got
    finally:
        os.close(handle)


def test_whole_blocks_are_read_and_nothing_is_cached(cold: tuple[Path, NDArray[np.uint8]]) -> None:
    path, data = cold
    into = memory(2 * MiB + 100)
    handle = os.open(path, os.O_RDONLY)
    assert read_around(handle, BLOCK_BYTES, into.data) == 2 * MiB
    assert cached_pages(handle, 0, 0) == 0
    os.close(handle)
    assert (into[: 2 * MiB] == data[BLOCK_BYTES:][: 2 * MiB]).all()


def test_a_file_ends_where_it_ends(cold: tuple[Path, NDArray[np.uint8]]) -> None:
    path, data = cold
    into = memory(4 * MiB)
    assert around(path, 0, into) == SIZE
    assert (into[:SIZE] == data).all()
    assert around(path, 4 * MiB, into) == 0


def test_what_is_cached_is_left_to_the_cache(cold: tuple[Path, NDArray[np.uint8]]) -> None:
    path, _ = cold
    assert path.read_bytes()
    assert around(path, 0, memory(2 * MiB)) == 0


@pytest.mark.parametrize(("offset", "shift", "size"), [(64, 0, 2 * MiB), (0, 64, 2 * MiB), (0, 0, MiB - 1)])
def test_what_does_not_begin_with_a_block_is_left_to_the_cache(
    cold: tuple[Path, NDArray[np.uint8]], offset: int, shift: int, size: int
) -> None:
    path, _ = cold
    assert around(path, offset, memory(size, shift)) == 0


@given(offset=st.integers(0, SIZE), size=st.integers(1, 2 * SIZE), whole=st.booleans())
def test_any_part_is_read_as_the_file_has_it(
    tmp_path_factory: pytest.TempPathFactory, offset: int, size: int, whole: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-part"
    if not path.exists():
        path.write_bytes(np.random.default_rng(2).integers(0, 256, SIZE, np.uint8).tobytes())
    chill(path)
    offset = offset // BLOCK_BYTES * BLOCK_BYTES if whole else offset
    into = memory(size)
    got = OsDisk().read_into(path, offset, into.data)
    wanted = np.fromfile(path, np.uint8)[offset : offset + size]
    assert got == len(wanted)
    assert (into[:got] == wanted).all()


@pytest.mark.parametrize("page_bytes", [4 * KiB, 100_000, 5 * MiB])
def test_a_checkpoint_that_is_not_cached_gives_its_pages(tmp_path: Path, page_bytes: int) -> None:
    chance = np.random.default_rng(3)
    images = [
        PageImage(number, 1, number, chance.integers(0, 256, page_bytes, np.uint8))
        for number in range(1, 11 * MiB // page_bytes + 2)
    ]
    done = write_checkpoint(tmp_path, images, CheckpointFacts(b"u" * 16, 9, 1))
    chill(done.path)
    state = read_checkpoint(done.path)
    assert len(state.pages) == len(images)
    for image in images:
        assert (state.pages[image.page].data == image.data).all()
    with done.path.open("r+b") as file:
        file.seek(6 * MiB)
        file.write(b"\0\1\2\3" * 16)
    chill(done.path)
    with pytest.raises(ChecksumError):
        read_checkpoint(done.path)
