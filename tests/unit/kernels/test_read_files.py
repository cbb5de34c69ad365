"""Reading many files in one call: what every engine promises."""

import errno
import mmap
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from read_calls import available_kinds, engine, read_files

from stoker.kernels.files import (
    DONE_CACHED_BYTES,
    DONE_ENDED_NS,
    DONE_READ_BYTES,
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_OPENED_NS,
    FILE_SIZE_BYTES,
    FILE_STARTED_NS,
    FILE_STATUS,
    STATUS_GOOD,
    STATUS_NOT_REGULAR,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
    ReadEngine,
)

PAGE = mmap.PAGESIZE


@pytest.fixture(params=available_kinds())
def reader(request: pytest.FixtureRequest) -> Iterator[ReadEngine]:
    with engine(request.param, queue_depth=8, request_bytes=2 * PAGE) as opened:
        yield opened


def written(folder: Path, name: str, size_bytes: int) -> bytes:
    data = np.random.default_rng(size_bytes).integers(0, 200, size_bytes, np.uint8).tobytes()
    (folder / name).write_bytes(data)
    return data


def evict(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "direct"])
def test_whole_files_of_all_sizes_come_with_size_bytes_and_times(
    reader: ReadEngine, tmp_path: Path, flags: int
) -> None:
    sizes = [0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE, 5 * PAGE + 77, 64 * PAGE + 3]
    data = [written(tmp_path, f"file{number}", size) for number, size in enumerate(sizes)]
    keys = [f"file{number}" for number in range(len(sizes))]
    asked = [(number, 0, size, -(-size // PAGE) * PAGE) for number, size in enumerate(sizes)]
    before = time.monotonic_ns()
    answer = read_files(reader, tmp_path, keys, asked, flags=flags)
    after = time.monotonic_ns()
    assert answer.files[:, FILE_STATUS].tolist() == [STATUS_GOOD] * len(sizes)
    assert answer.files[:, FILE_SIZE_BYTES].tolist() == sizes
    assert answer.ranges[:, DONE_STATUS].tolist() == [STATUS_GOOD] * len(sizes)
    assert answer.ranges[:, DONE_READ_BYTES].tolist() == sizes
    assert answer.ranges[:, DONE_CACHED_BYTES].tolist() == [-1] * len(sizes)
    for index, expected in enumerate(data):
        assert answer.data(index)[: len(expected)] == expected
    for number in range(len(sizes)):
        started, opened = answer.files[number, FILE_STARTED_NS], answer.files[number, FILE_OPENED_NS]
        begun, ended = answer.ranges[number, DONE_STARTED_NS], answer.ranges[number, DONE_ENDED_NS]
        assert before <= started <= opened <= begun <= ended <= after


def test_ranges_of_a_file_are_read_where_they_were_asked_for(reader: ReadEngine, tmp_path: Path) -> None:
    data = written(tmp_path, "file", 20 * PAGE + 5)
    other = written(tmp_path, "other", 3 * PAGE)
    spans = [(7, 1), (PAGE + 1, 6 * PAGE), (19 * PAGE, PAGE + 5), (3, 0), (5 * PAGE, PAGE)]
    asked = [(0, start, length, length) for start, length in spans] + [(1, 100, 200, 200)]
    answer = read_files(reader, tmp_path, ["file", "other"], asked)
    for index, (start, length) in enumerate(spans):
        assert answer.data(index) == data[start : start + length]
    assert answer.data(5) == other[100:300]
    assert answer.ranges[:, DONE_STATUS].tolist() == [STATUS_GOOD] * 6


def test_nothing_beyond_the_room_is_touched(reader: ReadEngine, tmp_path: Path) -> None:
    written(tmp_path, "file", 20 * PAGE)
    answer = read_files(reader, tmp_path, ["file"], [(0, 0, 3 * PAGE + 9, 3 * PAGE + 9)])
    assert set(answer.room.bytes[3 * PAGE + 9 :].tolist()) == {0xEE}


def test_wanted_bytes_beyond_the_end_are_short_and_room_beyond_it_is_not(reader: ReadEngine, tmp_path: Path) -> None:
    written(tmp_path, "file", 3 * PAGE + 10)
    asked = [
        (0, 0, 3 * PAGE + 10, 9 * PAGE),
        (0, 0, 3 * PAGE + 11, 9 * PAGE),
        (0, 90 * PAGE, 1, 8 * PAGE),
        (0, 90 * PAGE, 0, 8 * PAGE),
        (0, 2**63 - 1 - PAGE, 1, PAGE),
    ]
    answer = read_files(reader, tmp_path, ["file"], asked)
    statuses = answer.ranges[:, DONE_STATUS].tolist()
    assert statuses[:4] == [STATUS_GOOD, STATUS_SHORT, STATUS_SHORT, STATUS_GOOD]
    assert statuses[4] in (STATUS_SHORT, errno.EINVAL)  # file systems differ in where they give up
    assert answer.ranges[:4, DONE_READ_BYTES].tolist() == [3 * PAGE + 10, 3 * PAGE + 10, 0, 0]


def test_bad_files_do_not_hinder_the_others(reader: ReadEngine, tmp_path: Path) -> None:
    written(tmp_path, "good", 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    outside = f"../{tmp_path.name}/good"
    keys = ["good", "missing", "folder", "link", "fifo", "zero\0byte", outside, "socket", "good/below", "", "good"]
    asked = [(number, 0, 10, 10) for number in range(len(keys))]
    answer = read_files(reader, tmp_path, keys, asked)
    assert answer.files[:, FILE_STATUS].tolist() == [
        STATUS_GOOD,
        errno.ENOENT,
        STATUS_NOT_REGULAR,
        errno.ELOOP,
        STATUS_NOT_REGULAR,
        errno.EINVAL,
        errno.EXDEV,
        errno.ENXIO,
        errno.ENOTDIR,
        errno.ENOENT,
        STATUS_GOOD,
    ]
    tried = [STATUS_GOOD] + [STATUS_NOT_TRIED] * 9 + [STATUS_GOOD]
    assert answer.ranges[:, DONE_STATUS].tolist() == tried
    assert answer.files[1:10, FILE_SIZE_BYTES].tolist() == [-1] * 9
    assert answer.ranges[1:10, DONE_READ_BYTES].tolist() == [0] * 9
    assert (answer.files[:, FILE_OPENED_NS] >= answer.files[:, FILE_STARTED_NS]).all()
    assert (answer.ranges[:, DONE_ENDED_NS] >= answer.ranges[:, DONE_STARTED_NS]).all()


def test_names_of_any_bytes_are_found(reader: ReadEngine, tmp_path: Path) -> None:
    names = ["plain", "größe", "日本/データ", os.fsdecode(b"caf\xe9")]
    (tmp_path / "日本").mkdir()
    data = [written(tmp_path, name, 50 + number) for number, name in enumerate(names)]
    answer = read_files(reader, tmp_path, names, [(n, 0, 50 + n, 50 + n) for n in range(len(names))])
    assert answer.files[:, FILE_STATUS].tolist() == [STATUS_GOOD] * len(names)
    assert [answer.data(index) for index in range(len(names))] == data


def test_files_without_ranges_are_opened_and_measured(reader: ReadEngine, tmp_path: Path) -> None:
    for number in range(5):
        written(tmp_path, f"file{number}", number)
    answer = read_files(reader, tmp_path, [f"file{number}" for number in range(5)], [(3, 0, 3, 3)])
    assert answer.files[:, FILE_SIZE_BYTES].tolist() == [0, 1, 2, 3, 4]
    assert answer.ranges[0, DONE_STATUS] == STATUS_GOOD


def test_a_call_without_files_does_nothing(reader: ReadEngine, tmp_path: Path) -> None:
    answer = read_files(reader, tmp_path, [], [])
    assert answer.files.shape == (0, 4)


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "direct"])
def test_residency_is_what_the_cache_held_before(reader: ReadEngine, tmp_path: Path, flags: int) -> None:
    for name in ("warm", "cold"):
        written(tmp_path, name, 8 * PAGE)
        evict(tmp_path / name)
    (tmp_path / "warm").read_bytes()
    asked = [(0, 0, 8 * PAGE, 8 * PAGE), (1, 0, PAGE, PAGE), (1, 4 * PAGE, 0, 0)]
    answer = read_files(reader, tmp_path, ["warm", "cold"], asked, flags=flags, residency=True)
    assert answer.ranges[:, DONE_STATUS].tolist() == [STATUS_GOOD] * 3
    cached = answer.ranges[:, DONE_CACHED_BYTES].tolist()
    if cached[0] == -1:
        pytest.skip("cachestat is not offered here")
    assert cached == [8 * PAGE, 0, 0]


def test_a_part_of_a_cold_file_does_not_read_ahead(reader: ReadEngine, tmp_path: Path) -> None:
    written(tmp_path, "file", 256 * PAGE)
    evict(tmp_path / "file")
    asked = [(0, 0, PAGE, PAGE), (0, PAGE, PAGE, PAGE), (0, 2 * PAGE, PAGE, PAGE)]
    read_files(reader, tmp_path, ["file"], asked)
    answer = read_files(reader, tmp_path, ["file"], [(0, 0, 256 * PAGE, 256 * PAGE)], residency=True)
    if answer.ranges[0, DONE_CACHED_BYTES] == -1:
        pytest.skip("cachestat is not offered here")
    assert answer.ranges[0, DONE_CACHED_BYTES] == 3 * PAGE


def test_the_rest_of_a_cold_file_is_read_without_the_beginning(reader: ReadEngine, tmp_path: Path) -> None:
    data = written(tmp_path, "file", 256 * PAGE)
    evict(tmp_path / "file")
    answer = read_files(reader, tmp_path, ["file"], [(0, 128 * PAGE, 128 * PAGE - 9, 128 * PAGE - 9)])
    assert answer.data(0) == data[128 * PAGE : -9]
    answer = read_files(reader, tmp_path, ["file"], [(0, 0, 256 * PAGE, 256 * PAGE)], residency=True)
    assert answer.ranges[0, DONE_CACHED_BYTES] in (-1, 128 * PAGE)


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "direct"])
def test_more_files_than_may_be_open(tmp_path: Path, reader: ReadEngine, flags: int) -> None:
    count = 300
    for number in range(count):
        written(tmp_path, f"file{number:03}", PAGE + number)
    reader.queue_depth = 64
    keys = [f"file{number:03}" for number in range(count)]
    asked = [(number, 0, PAGE + number, 2 * PAGE) for number in range(count)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    try:
        answer = read_files(reader, tmp_path, keys, asked, flags=flags)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer.files[:, FILE_STATUS].tolist() == [STATUS_GOOD] * count
    assert answer.ranges[:, DONE_READ_BYTES].tolist() == [PAGE + number for number in range(count)]


def test_no_descriptor_at_all_is_told_for_each_file(tmp_path: Path, reader: ReadEngine) -> None:
    written(tmp_path, "file", 10)
    read_files(reader, tmp_path, ["file"], [(0, 0, 10, 10)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = os.open(tmp_path, os.O_RDONLY)
    files_done, ranges_done = np.zeros((3, 4), np.int64), np.zeros((0, 5), np.int64)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        reader.read_files(
            folder,
            ["file", "missing", "file"],
            0,
            np.zeros((0, 5), np.int64),
            residency=False,
            files_done=files_done,
            ranges_done=ranges_done,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(folder)
    assert set(files_done[:, FILE_STATUS].tolist()) <= {errno.EMFILE, errno.ENOENT}


def test_no_descriptor_is_left_open(reader: ReadEngine, tmp_path: Path) -> None:
    written(tmp_path, "file", 100)
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir("/proc/self/fd"))
    for flags in (0, os.O_DIRECT):
        read_files(
            reader, tmp_path, ["file", "folder", "none", "file"], [(0, 0, 50, PAGE), (3, 0, 200, PAGE)], flags=flags
        )
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_files_that_shrink_meanwhile_come_short_or_whole(reader: ReadEngine, tmp_path: Path) -> None:
    size = 64 * PAGE
    data = written(tmp_path, "file", size)
    for left in (10 * PAGE + 3, 0, 63 * PAGE):
        (tmp_path / "file").write_bytes(data)
        with (tmp_path / "file").open("r+b") as file:
            file.truncate(left)
        answer = read_files(reader, tmp_path, ["file"], [(0, 0, size, size)])
        assert answer.ranges[0, DONE_STATUS] == STATUS_SHORT
        assert answer.ranges[0, DONE_READ_BYTES] == left
        assert answer.data(0)[:left] == data[:left]
