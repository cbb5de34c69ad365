"""Every write engine: whole files or none, errors as numbers, and nothing left behind."""

import ctypes
import errno
import os
import resource
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import StokerError, UnavailableError, UsageError
from stoker.core.units import KiB
from stoker.kernels import syscalls, write_engines
from stoker.kernels.native import native_kernels
from stoker.kernels.write_engines import WRITE_KINDS, open_write_engine
from stoker.kernels.writing import WRITTEN_COLUMNS, Int64s, WriteEngine, WritePolicy


@pytest.fixture(params=WRITE_KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[WriteEngine]:
    try:
        engine = open_write_engine(request.param, queue_depth=4, request_bytes=8 * KiB)
    except UnavailableError as error:
        pytest.skip(str(error))
    yield engine
    engine.close()
    engine.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    file = os.open(tmp_path, os.O_RDONLY)
    yield file
    os.close(file)


def address(data: bytes) -> int:
    """Return where the bytes lie; the test holds them."""
    return np.frombuffer(data, np.uint8).ctypes.data if data else 0


def columns(contents: Sequence[bytes]) -> tuple[Int64s, Int64s, Int64s]:
    """Return pieces, sizes and room for the answers, a piece a file."""
    rows = [(0, len(data), address(data), number) for number, data in enumerate(contents)]
    return (
        np.array(rows, np.int64).reshape(-1, 4),
        np.array([len(data) for data in contents], np.int64),
        np.full((len(contents), WRITTEN_COLUMNS), -7, np.int64),
    )


def names(count: int) -> list[tuple[str, str]]:
    return [(f"file-{number}", f".temporary-{number}") for number in range(count)]


def test_pieces_of_an_open_file_may_come_in_any_order(engine: WriteEngine, tmp_path: Path) -> None:
    data = os.urandom(100_003)
    pieces = np.array([[50_000, 50_003, address(data) + 50_000], [0, 50_000, address(data)], [5, 0, 0]])
    for fsync in ("none", "start", "data", "full"):
        with (tmp_path / fsync).open("wb") as file:
            assert engine.write_open(file.fileno(), pieces, fsync=fsync) == 0
        assert (tmp_path / fsync).read_bytes() == data


def test_errors_of_an_open_file_are_told_as_numbers(engine: WriteEngine, tmp_path: Path) -> None:
    data = bytes(100_000)
    pieces = np.array([[0, len(data), address(data)]])
    with open("/dev/full", "wb", buffering=0) as full:
        assert engine.write_open(full.fileno(), pieces, fsync="full") == errno.ENOSPC
    (tmp_path / "object").write_bytes(b"")
    with (tmp_path / "object").open("rb") as unwritable:
        assert engine.write_open(unwritable.fileno(), pieces) == errno.EBADF
    ends = os.pipe()
    try:
        assert engine.write_open(ends[1], pieces[:0], fsync="data") == errno.EINVAL, "a pipe cannot be synced"
    finally:
        os.close(ends[0])
        os.close(ends[1])


def test_what_is_begun_is_written_when_it_is_finished(engine: WriteEngine, tmp_path: Path) -> None:
    data = os.urandom(90_000)
    with (tmp_path / "object").open("wb") as file:
        for start in range(0, 90_000, 30_000):
            engine.begin_open(file.fileno(), np.array([[start, 30_000, address(data) + start]]))
        assert engine.finish_open() == 0
    assert (tmp_path / "object").read_bytes() == data
    with open("/dev/full", "wb", buffering=0) as full:
        engine.begin_open(full.fileno(), np.array([[0, 90_000, address(data)]]))
        engine.begin_open(full.fileno(), np.zeros((0, 3), np.int64))
        assert engine.finish_open() == errno.ENOSPC, "what came first is told"
    assert engine.finish_open() == 0
    with pytest.raises(UsageError):
        engine.begin_open(1, np.array([[-1, 1, 4096]]))


def test_a_file_size_limit_stops_only_what_is_larger(engine: WriteEngine, folder: int, tmp_path: Path) -> None:
    contents = [bytes(1000), bytes(200 * KiB), bytes(2000)]
    pieces, sizes, done = columns(contents)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KiB, hard))
    try:
        engine.write_files(folder, names(3), pieces, sizes, policy=WritePolicy(), files_done=done)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done[:, 0].tolist() == [0, errno.EFBIG, 0]
    assert sorted(os.listdir(tmp_path)) == ["file-0", "file-2"]


@pytest.mark.parametrize("fsync", ["none", "data", "full"])
def test_many_files_appear_with_the_facts_that_stat_tells(
    engine: WriteEngine, folder: int, tmp_path: Path, fsync: str
) -> None:
    contents = [os.urandom(number * 97) for number in range(150)]
    pieces, sizes, done = columns(contents)
    engine.write_files(folder, names(150), pieces, sizes, policy=WritePolicy(fsync=fsync), files_done=done)
    for number, data in enumerate(contents):
        path = tmp_path / f"file-{number}"
        assert path.read_bytes() == data
        assert done[number].tolist() == [0, path.stat().st_size, path.stat().st_mtime_ns]
    assert len(os.listdir(tmp_path)) == 150


def undurable_pages(path: Path) -> int:
    """Return how many pages of a file have yet to reach the device."""
    span, counts = syscalls._CacheRange(0, 0), syscalls._CacheCounts()
    with path.open("rb") as file:
        if syscalls._syscall(syscalls._SYS_CACHESTAT, file.fileno(), ctypes.byref(span), ctypes.byref(counts), 0):
            pytest.skip("the kernel does not tell what is cached")
    return int(counts.dirty + counts.writeback)


@pytest.mark.parametrize("fsync", ["none", "data", "full"])
def test_a_sync_leaves_nothing_to_be_written(engine: WriteEngine, folder: int, tmp_path: Path, fsync: str) -> None:
    if syscalls.file_system_magic(folder) in (syscalls.TMPFS_MAGIC, syscalls.RAMFS_MAGIC):
        pytest.skip("temporary files lie in memory")
    contents = [os.urandom(40_000) for _ in range(5)]
    pieces, sizes, done = columns(contents)
    engine.write_files(folder, names(5), pieces, sizes, policy=WritePolicy(fsync=fsync), files_done=done)
    with (tmp_path / "open").open("wb") as file:
        assert engine.write_open(file.fileno(), pieces[:1, :3].copy(), fsync=fsync) == 0
    left = [undurable_pages(tmp_path / name) for name in (*(f"file-{number}" for number in range(5)), "open")]
    assert any(left) == (fsync == "none")


def test_a_file_may_have_many_pieces_or_none_and_is_cut_to_its_size(
    engine: WriteEngine, folder: int, tmp_path: Path
) -> None:
    data = os.urandom(30_000)
    at = address(data)
    pieces = np.array([[0, 10_000, at, 0], [20_000, 10_000, at + 20_000, 0], [10_000, 10_000, at + 10_000, 0]])
    pieces = np.concatenate([pieces, [[0, 30_000, at, 2]]])
    done = np.zeros((3, WRITTEN_COLUMNS), np.int64)
    engine.write_files(folder, names(3), pieces, np.array([30_000, 0, 12_345]), policy=WritePolicy(), files_done=done)
    assert done[:, 0].tolist() == [0, 0, 0]
    assert [(tmp_path / f"file-{number}").read_bytes() for number in range(3)] == [data, b"", data[:12_345]]


def test_a_name_in_use_is_replaced_or_refused(engine: WriteEngine, folder: int, tmp_path: Path) -> None:
    (tmp_path / "file-1").write_bytes(b"old")
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "file-2").symlink_to("outside")
    pieces, sizes, done = columns([b"a", b"b", b"c"])
    engine.write_files(folder, names(3), pieces, sizes, policy=WritePolicy(if_absent=True), files_done=done)
    assert done[:, 0].tolist() == [0, errno.EEXIST, errno.EEXIST]
    assert (tmp_path / "file-1").read_bytes() == b"old"
    engine.write_files(folder, names(3), pieces, sizes, policy=WritePolicy(), files_done=done)
    assert done[:, 0].tolist() == [0, 0, 0]
    assert [(tmp_path / f"file-{number}").read_bytes() for number in range(3)] == [b"a", b"b", b"c"]
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert len(os.listdir(tmp_path)) == 4


def test_a_bad_file_leaves_the_others_alone_and_nothing_behind(
    engine: WriteEngine, folder: int, tmp_path: Path
) -> None:
    (tmp_path / "file-0").mkdir()
    (tmp_path / ".temporary-1").write_bytes(b"of somebody else")
    asked = [*names(2), ("a/b", "t2"), ("..", "t3"), ("", "t4"), ("zero\0", "t5"), ("f6", "x/t6"), ("x" * 300, "t7")]
    asked.append(("good", "t8"))
    pieces, sizes, done = columns([b"data"] * len(asked))
    engine.write_files(folder, asked, pieces, sizes, policy=WritePolicy(fsync="full"), files_done=done)
    wanted = [errno.EISDIR, errno.EEXIST, *[errno.EINVAL] * 5, errno.ENAMETOOLONG, 0]
    assert done[:, 0].tolist() == wanted
    assert sorted(os.listdir(tmp_path)) == [".temporary-1", "file-0", "good"]
    assert (tmp_path / ".temporary-1").read_bytes() == b"of somebody else"


def test_a_folder_that_is_gone_is_told_for_every_file(engine: WriteEngine, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    folder = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    pieces, sizes, done = columns([b"a", b"b"])
    engine.write_files(folder, names(2), pieces, sizes, policy=WritePolicy(fsync="full"), files_done=done)
    os.close(folder)
    assert done[:, 0].tolist() == [errno.ENOENT, errno.ENOENT]


def test_columns_that_cannot_be_are_refused(engine: WriteEngine, folder: int, tmp_path: Path) -> None:
    good, sizes, done = columns([b"abc", b"defg"])
    for row, column, number in [(0, 0, -1), (0, 1, -1), (0, 2, 0), (0, 3, 1), (0, 3, -1), (1, 3, 2), (0, 0, 2**63 - 2)]:
        bad = good.copy()
        bad[row, column] = number
        if (row, column, number) == (0, 3, 1):
            bad[1, 3] = 0
        with pytest.raises(UsageError):
            engine.write_files(folder, names(2), bad, sizes, policy=WritePolicy(), files_done=done)
    for call in (
        lambda: engine.write_files(folder, names(2), good[:, :3].copy(), sizes, policy=WritePolicy(), files_done=done),
        lambda: engine.write_files(folder, names(2), good, sizes[:1], policy=WritePolicy(), files_done=done),
        lambda: engine.write_files(folder, names(2), good, -sizes, policy=WritePolicy(), files_done=done),
        lambda: engine.write_files(folder, names(2), good, sizes, policy=WritePolicy(), files_done=done[:1]),
        lambda: engine.write_files(folder, names(2), good, sizes, policy=WritePolicy(fsync="start"), files_done=done),
        lambda: engine.write_open(folder, good),
        lambda: engine.write_open(folder, good[:, :3].copy(), fsync="often"),
    ):
        with pytest.raises(UsageError):
            call()
    assert os.listdir(tmp_path) == []


def test_an_engine_may_wander_between_threads(engine: WriteEngine, folder: int, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            pieces, sizes, done = columns([bytes([number])] * 5)
            asked = [(f"{number}-{index}", f".{number}-{index}") for index in range(5)]
            engine.write_files(folder, asked, pieces, sizes, policy=WritePolicy(fsync="full"), files_done=done)
            assert not done[:, 0].any()
        except BaseException as error:
            failures.append(error)

    for number in range(3):
        thread = threading.Thread(target=write, args=(number,))
        thread.start()
        thread.join()
    assert failures == []
    assert len(os.listdir(tmp_path)) == 15


def test_no_descriptor_stays_open(engine: WriteEngine, folder: int, tmp_path: Path) -> None:
    pieces, sizes, done = columns([b"x"] * 10)
    (tmp_path / "file-3").mkdir()
    engine.write_files(folder, names(10), pieces, sizes, policy=WritePolicy(fsync="data"), files_done=done)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        engine.write_files(folder, names(10), pieces, sizes, policy=WritePolicy(fsync="data"), files_done=done)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("settings", [{"queue_depth": 0}, {"queue_depth": 2000}, {"request_bytes": 0}])
@pytest.mark.parametrize("kind", ["auto", "plain"])
def test_settings_out_of_range_are_refused(kind: str, settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        open_write_engine(kind, **settings)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown"):
        open_write_engine("aio")


def test_settings_may_change_between_calls(engine: WriteEngine) -> None:
    engine.queue_depth, engine.request_bytes = 7, 12 * KiB
    assert (engine.queue_depth, engine.request_bytes) == (7, 12 * KiB)


def test_where_a_ring_is_denied_threads_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    if native_kernels() is None:
        pytest.skip("the native kernels are not built")
    monkeypatch.setattr(write_engines, "_ring_error", lambda: errno.EPERM)
    assert open_write_engine("auto").kind == "threads"
    with pytest.raises(UnavailableError, match="io_uring"):
        open_write_engine("io_uring")


def test_without_native_kernels_the_plain_twin_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_engines, "native_kernels", lambda: None)
    assert open_write_engine("auto").kind == "plain"
    for kind in ("io_uring", "threads"):
        with pytest.raises(StokerError, match=kind):
            open_write_engine(kind)
