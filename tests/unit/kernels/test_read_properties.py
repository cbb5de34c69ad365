"""Every engine says of any call what its plain twin says: statuses, sizes, byte counts, and the bytes."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_calls import Answer, engine, read_files, read_open

from stoker.kernels.files import (
    DONE_CACHED_BYTES,
    DONE_READ_BYTES,
    DONE_STATUS,
    FILE_SIZE_BYTES,
    FILE_STATUS,
    ReadEngine,
)
from stoker.kernels.plain_files import PlainReadEngine

PAGE = mmap.PAGESIZE
SIZES = (0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 512, 7 * PAGE + 77, 40 * PAGE)
ODD = ("missing", "folder", "link", "fifo", "zero\0byte", "../outside", "file3/below")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        for number, size_bytes in enumerate(SIZES):
            data = np.random.default_rng(number).integers(0, 200, size_bytes, np.uint8)
            (path / f"file{number}").write_bytes(data.tobytes())
        (path / "folder").mkdir()
        (path / "link").symlink_to("file3")
        os.mkfifo(path / "fifo")
        yield path


@pytest.fixture(scope="module", params=["io_uring", "threads"])
def native(request: pytest.FixtureRequest) -> Iterator[ReadEngine]:
    with engine(request.param) as opened:
        yield opened


keys = st.lists(st.sampled_from([f"file{number}" for number in range(len(SIZES))] * 2 + list(ODD)), max_size=12)
lengths = st.one_of(st.integers(0, 3 * PAGE), st.sampled_from([PAGE, 2 * PAGE, 40 * PAGE, 41 * PAGE]))


@st.composite
def asked_ranges(draw: st.DrawFn, files: int, block_bytes: int) -> list[tuple[int, int, int, int]]:
    """Draw ranges in the order of the files; offsets and rooms are multiples of the block."""
    asked = []
    for file in range(files):
        for _ in range(draw(st.integers(0, 3))):
            offset = draw(st.integers(0, 45 * PAGE)) // block_bytes * block_bytes
            room = -(-draw(lengths) // block_bytes) * block_bytes
            asked.append((file, offset, draw(st.integers(0, room)), room))
    return asked


def same(ours: Answer, plain: Answer) -> None:
    assert ours.files[:, [FILE_STATUS, FILE_SIZE_BYTES]].tolist() == plain.files[:, :2].tolist()
    columns = [DONE_STATUS, DONE_READ_BYTES, DONE_CACHED_BYTES]
    assert ours.ranges[:, columns].tolist() == plain.ranges[:, columns].tolist()
    for index, read_bytes in enumerate(plain.ranges[:, DONE_READ_BYTES].tolist()):
        assert ours.data(index)[:read_bytes] == plain.data(index)[:read_bytes]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_files_are_read_as_the_plain_twin_reads_them(native: ReadEngine, folder: Path, data: st.DataObject) -> None:
    direct = data.draw(st.booleans(), "direct")
    names = data.draw(keys, "keys")
    asked = data.draw(asked_ranges(len(names), PAGE if direct else 1), "ranges")
    residency = data.draw(st.booleans(), "residency")
    native.queue_depth = data.draw(st.sampled_from([1, 2, 7, 100]), "depth")
    native.request_bytes = data.draw(st.sampled_from([PAGE, 2 * PAGE, 1 << 20]), "request")
    plain = PlainReadEngine(request_bytes=native.request_bytes)
    flags = os.O_DIRECT if direct else 0
    expected = read_files(plain, folder, names, asked, flags=flags, residency=residency)
    same(read_files(native, folder, names, asked, flags=flags, residency=residency), expected)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_open_files_are_read_as_the_plain_twin_reads_them(
    native: ReadEngine, folder: Path, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(SIZES) - 1), min_size=1, max_size=5), "files")
    direct = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)), "direct")
    asked = data.draw(asked_ranges(len(numbers), PAGE if any(direct) else 1), "ranges")
    asked = data.draw(st.permutations(asked), "order")
    native.queue_depth = data.draw(st.sampled_from([1, 2, 7, 100]), "depth")
    native.request_bytes = data.draw(st.sampled_from([PAGE, 2 * PAGE, 1 << 20]), "request")
    plain = PlainReadEngine(request_bytes=native.request_bytes)
    files = []
    try:
        for number, past_cache in zip(numbers, direct, strict=True):
            files.append(os.open(folder / f"file{number}", os.O_RDONLY | (os.O_DIRECT if past_cache else 0)))
        expected = read_open(plain, files, asked, residency=False)
        same(read_open(native, files, asked, residency=False), expected)
    finally:
        for file in files:
            os.close(file)
