"""Read engines: open descriptors, faults of devices, settings, registered memory, and what is refused."""

import errno
import mmap
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from read_calls import Room, available_kinds, engine, laid_out, read_files, read_open

from stoker.core.errors import UnavailableError, UsageError
from stoker.kernels import reading
from stoker.kernels.files import DONE_CACHED_BYTES, DONE_READ_BYTES, DONE_STATUS, STATUS_GOOD, STATUS_SHORT, ReadEngine

PAGE = mmap.PAGESIZE


@pytest.fixture(params=available_kinds())
def reader(request: pytest.FixtureRequest) -> Iterator[ReadEngine]:
    with engine(request.param, queue_depth=16, request_bytes=4 * PAGE) as opened:
        yield opened


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    data = np.random.default_rng(1).integers(0, 200, 100 * PAGE + 17, np.uint8).tobytes()
    (tmp_path / "file").write_bytes(data)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    yield file, data
    os.close(file)


def test_open_files_are_read_in_any_order_and_stay_open(reader: ReadEngine, opened: tuple[int, bytes]) -> None:
    file, data = opened
    twin = os.dup(file)
    starts = np.random.default_rng(2).integers(0, 90 * PAGE, 500).tolist()
    asked = [(number % 2, start, 6000, 6000) for number, start in enumerate(starts)]
    answer = read_open(reader, [file, twin], asked, residency=True)
    assert (answer.ranges[:, DONE_STATUS] == STATUS_GOOD).all()
    assert set(answer.ranges[:, DONE_CACHED_BYTES].tolist()) <= {6000, -1}
    for index, start in enumerate(starts):
        assert answer.data(index) == data[start : start + 6000]
    os.fstat(file)
    os.close(twin)


def test_a_part_of_an_open_file_at_its_end(reader: ReadEngine, opened: tuple[int, bytes]) -> None:
    file, data = opened
    asked = [(0, 99 * PAGE, PAGE + 17, 30 * PAGE), (0, 99 * PAGE, PAGE + 18, 30 * PAGE), (0, 0, 0, PAGE)]
    answer = read_open(reader, [file], asked)
    assert answer.ranges[:, DONE_STATUS].tolist() == [STATUS_GOOD, STATUS_SHORT, STATUS_GOOD]
    assert answer.ranges[:, DONE_READ_BYTES].tolist() == [PAGE + 17, PAGE + 17, 0]
    assert answer.data(0)[: PAGE + 17] == data[99 * PAGE :]


def test_errors_are_told_range_by_range(reader: ReadEngine, opened: tuple[int, bytes], tmp_path: Path) -> None:
    file, _ = opened
    with Path("/proc/self/mem").open("rb", buffering=0) as memory, (tmp_path / "x").open("wb") as writing:
        folder = os.open(tmp_path, os.O_RDONLY)
        pipe, other_end = os.pipe()
        files = [memory.fileno(), writing.fileno(), folder, pipe, -1, file]
        asked = [(number, 0, PAGE, 9 * PAGE) for number in range(len(files))]
        answer = read_open(reader, files, asked)
        for descriptor in (folder, pipe, other_end):
            os.close(descriptor)
    expected = [errno.EIO, errno.EBADF, errno.EISDIR, errno.ESPIPE, errno.EBADF, STATUS_GOOD]
    assert answer.ranges[:, DONE_STATUS].tolist() == expected
    assert answer.ranges[:5, DONE_READ_BYTES].tolist() == [0] * 5


def test_an_error_behind_good_bytes_is_an_error(reader: ReadEngine, tmp_path: Path) -> None:
    # Pages of a mapping that lie behind its file's end cannot be read.
    with (tmp_path / "file").open("w+b") as file, Path("/proc/self/mem").open("rb", buffering=0) as memory:
        file.truncate(20 * PAGE)
        mapping = mmap.mmap(file.fileno(), 20 * PAGE)
        file.truncate(6 * PAGE)
        start = Room.address_of(mapping)
        answer = read_open(reader, [memory.fileno()], [(0, start, 20 * PAGE, 20 * PAGE)])
        good = read_open(reader, [memory.fileno()], [(0, start, 6 * PAGE, 6 * PAGE)])
    assert answer.ranges[0, [DONE_STATUS, DONE_READ_BYTES]].tolist() == [errno.EIO, 0]
    assert good.ranges[0, [DONE_STATUS, DONE_READ_BYTES]].tolist() == [STATUS_GOOD, 6 * PAGE]


def test_short_answers_are_continued(reader: ReadEngine) -> None:
    # The kernel hands this file out a few lines at a time, and gives it no size.
    expected = Path("/proc/kallsyms").read_bytes()[:200_000]
    if len(expected) < 200_000:
        pytest.skip("/proc/kallsyms is not readable here")
    reader.request_bytes = 1 << 20
    answer = read_files(reader, Path("/proc"), ["kallsyms"], [(0, 0, 200_000, 200_000)])
    assert answer.ranges[0, DONE_STATUS] == STATUS_GOOD
    assert answer.data(0) == expected


def test_files_in_memory_are_read_alike(reader: ReadEngine) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    file = os.memfd_create("stoker")
    os.write(file, b"x" * 50_000)
    other = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_NONBLOCK)
    os.write(other, b"y" * 50_000)
    for residency in (False, True):
        asked = [(0, 10, 40_000, 40_000), (1, 10, 40_000, 90_000)]
        answer = read_open(reader, [file, other], asked, residency=residency)
        assert answer.data(0) == b"x" * 40_000
        assert answer.ranges[1, DONE_READ_BYTES] == 49_990
    os.close(file)
    os.close(other)


def test_offsets_beyond_four_gigabytes(reader: ReadEngine, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek((5 << 30) + 100)
        file.write(b"far away")
    answer = read_files(reader, tmp_path, ["sparse"], [(0, (5 << 30) + 100, 8, 8)])
    assert answer.data(0) == b"far away"
    assert answer.files[0, 1] == 1 << 40


def test_many_ranges_in_one_call(reader: ReadEngine, opened: tuple[int, bytes]) -> None:
    file, data = opened
    count = 20_000 if reader.kind == "plain" else 100_000
    room = Room(count * 8)
    ranges = np.zeros((count, 5), np.int64)
    ranges[:, 1] = np.random.default_rng(3).integers(0, len(data) - 8, count)
    ranges[:, 2:4] = 8
    ranges[:, 4] = room.address + np.arange(count) * 8
    done = np.zeros((count, 5), np.int64)
    reader.read_open([file], ranges, residency=False, ranges_done=done)
    assert (done[:, DONE_STATUS] == STATUS_GOOD).all()
    whole = np.frombuffer(data, np.uint8)
    expected = whole[ranges[:, 1, None] + np.arange(8)]
    assert (room.bytes.reshape(-1, 8) == expected).all()


def test_settings_may_be_changed_between_calls(reader: ReadEngine, opened: tuple[int, bytes]) -> None:
    file, data = opened
    for depth, request_bytes in ((1, PAGE), (300, 8 * PAGE), (3, 1 << 30)):
        reader.queue_depth = depth
        reader.request_bytes = request_bytes
        assert (reader.queue_depth, reader.request_bytes) == (depth, request_bytes)
        answer = read_open(reader, [file], [(0, 5, 99 * PAGE, 99 * PAGE)])
        assert answer.data(0) == data[5 : 5 + 99 * PAGE]


@pytest.mark.parametrize(("depth", "request_bytes"), [(0, PAGE), (5000, PAGE), (1, 0), (1, 100), (1, 2 << 30)])
def test_settings_that_cannot_be_are_refused(reader: ReadEngine, depth: int, request_bytes: int) -> None:
    with pytest.raises(UsageError, match="out of bounds"):
        reading.open_read_engine(reader.kind, queue_depth=depth, request_bytes=request_bytes)
    with pytest.raises(UsageError, match="out of bounds"):
        reader.queue_depth, reader.request_bytes = depth, request_bytes


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ((1, 0, 1, 1, 0), "cannot be"),
        ((-1, 0, 1, 1, 0), "cannot be"),
        ((0, -1, 1, 1, 0), "cannot be"),
        ((0, 0, 2, 1, 0), "cannot be"),
        ((0, 0, -1, 1, 0), "cannot be"),
        ((0, 2**63 - 1, 1, 1, 0), "ends beyond"),
    ],
)
def test_numbers_that_cannot_be_are_refused(reader: ReadEngine, tmp_path: Path, row: tuple, sentence: str) -> None:
    ranges, done = np.array([row], np.int64), np.zeros((1, 5), np.int64)
    with pytest.raises(UsageError, match=sentence):
        reader.read_open([0], ranges, residency=False, ranges_done=done)
    files_done = np.zeros((1, 4), np.int64)
    with pytest.raises(UsageError, match=sentence):
        reader.read_files(0, ["key"], 0, ranges, residency=False, files_done=files_done, ranges_done=done)


def test_ranges_out_of_order_are_refused_before_anything_is_read(reader: ReadEngine, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(UsageError, match="order of their files"):
        read_files(reader, tmp_path, ["a", "a"], [(1, 0, 1, 1), (0, 0, 1, 1)])


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE | os.O_RDWR])
def test_flags_that_write_are_refused(reader: ReadEngine, tmp_path: Path, flags: int) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(UsageError, match="must be for reading"):
        read_files(reader, tmp_path, ["file"], [(0, 0, 1, 1)], flags=flags)
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_columns_of_another_make_are_refused(reader: ReadEngine) -> None:
    good, done, files_done = np.zeros((2, 5), np.int64), np.zeros((2, 5), np.int64), np.zeros((1, 4), np.int64)
    fixed = np.zeros((2, 5), np.int64)
    fixed.flags.writeable = False
    pairs = [
        (np.zeros((2, 4), np.int64), done),
        (np.zeros(10, np.int64), done),
        (good, np.zeros((3, 5), np.int64)),
        (np.zeros((2, 5), np.int32), done),
        (np.zeros((2, 5), np.float64), done),
        (np.zeros((5, 2), np.int64).T, done),
        (good, np.zeros((4, 5), np.int64)[::2]),
        (good, fixed),
    ]
    for ranges, ranges_done in pairs:
        with pytest.raises(UsageError, match="columns of the ranges"):
            reader.read_open([0], ranges, residency=False, ranges_done=ranges_done)
    for wrong in (np.zeros((2, 4), np.int64), np.zeros((1, 5), np.int64), np.zeros((1, 4), np.uint64)):
        with pytest.raises(UsageError, match="columns of the files"):
            reader.read_files(0, ["k"], 0, good, residency=False, files_done=wrong, ranges_done=done)
    reader.read_files(
        0, ["k"], 0, good[:0], residency=False, files_done=files_done, ranges_done=done[:0]
    )  # the columns as they should be


def test_registered_memory_gives_the_same_bytes(reader: ReadEngine, opened: tuple[int, bytes], tmp_path: Path) -> None:
    _, data = opened
    direct = os.open(tmp_path / "file", os.O_RDONLY | os.O_DIRECT)
    asked = [(0, 3 * PAGE, 10 * PAGE, 10 * PAGE), (0, 99 * PAGE, PAGE + 17, 4 * PAGE), (0, 0, PAGE, PAGE)]
    ranges, room, _ = laid_out(asked)
    size = len(room.bytes) // PAGE * PAGE
    taken = reader.register(room.address, size - 3 * PAGE)  # the last range lies outside
    assert taken or reader.kind != "io_uring"
    assert reader.register(room.address, size - 3 * PAGE) == taken
    assert not reader.register(room.address + PAGE, PAGE)
    done = np.zeros((3, 5), np.int64)
    for _ in range(3):
        reader.read_open([direct], ranges, residency=False, ranges_done=done)
        assert done[:, DONE_STATUS].tolist() == [STATUS_GOOD] * 3
        assert done[:, DONE_READ_BYTES].tolist() == [10 * PAGE, PAGE + 17, PAGE]
        assert room.bytes[: 10 * PAGE].tobytes() == data[3 * PAGE : 13 * PAGE]
        reader.queue_depth *= 5  # at some depth a new ring is needed, which must know of the memory
    reader.unregister(room.address)
    reader.unregister(room.address)
    reader.read_open([direct], ranges, residency=False, ranges_done=done)
    assert done[:, DONE_STATUS].tolist() == [STATUS_GOOD] * 3
    os.close(direct)


def test_memory_that_does_not_exist_is_not_taken(reader: ReadEngine) -> None:
    assert not reader.register(PAGE, PAGE)
    assert not reader.register(0, 0)


def test_addresses_that_do_not_exist_are_an_error_not_a_crash(opened: tuple[int, bytes]) -> None:
    for kind in ("io_uring", "threads"):
        with engine(kind) as reader:
            done = np.zeros((2, 5), np.int64)
            ranges = np.array([[0, 0, PAGE, PAGE, PAGE], [0, 0, PAGE, PAGE, 2**62]], np.int64)
            reader.read_open([opened[0]], ranges, residency=False, ranges_done=done)
            assert done[:, DONE_STATUS].tolist() == [errno.EFAULT] * 2


def test_one_thread_after_the_other_may_use_it(reader: ReadEngine, opened: tuple[int, bytes]) -> None:
    file, data = opened
    seen = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(read_open(reader, [file], [(0, 1, 9000, 9000)]).data(0)))
        thread.start()
        thread.join()
    assert seen == [data[1:9001]] * 3


def test_two_calls_at_once_are_refused_or_served() -> None:
    with engine("io_uring") as ring, engine("threads") as threads:
        for reader in (ring, threads):
            assert _calls_at_once(reader) <= {UsageError}


def _calls_at_once(reader: ReadEngine) -> set[type[Exception]]:
    seen: set[type[Exception]] = set()
    with Path("/dev/zero").open("rb", buffering=0) as zero:

        def work() -> None:
            for _ in range(20):
                try:
                    read_open(reader, [zero.fileno()], [(0, 0, 1 << 20, 1 << 20)])
                except UsageError as error:
                    seen.add(type(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return seen


def test_a_closed_engine_says_so(opened: tuple[int, bytes]) -> None:
    for kind in ("io_uring", "threads"):
        with engine(kind) as reader:
            reader.close()
            reader.close()
            with pytest.raises(UsageError, match="closed"):
                read_open(reader, [opened[0]], [(0, 0, 1, 1)])
            assert not reader.register(PAGE, PAGE)


@pytest.mark.parametrize("kind", ["io_uring", "threads"])
def test_a_forked_child_may_go_on_with_the_engine(kind: str, tmp_path: Path) -> None:
    with engine(kind):
        pass
    (tmp_path / "file").write_bytes(b"0123456789" * 1000)
    program = textwrap.dedent(f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from read_calls import read_files
        from stoker.kernels.reading import open_read_engine
        reader = open_read_engine({kind!r})
        folder = Path({str(tmp_path)!r})
        def check():
            answer = read_files(reader, folder, ["file"] * 9, [(n, n, 5000, 5000) for n in range(9)])
            assert [answer.data(n)[:1] for n in range(9)] == [b"%d" % n for n in range(9)]
        check()
        child = os.fork()
        check()
        if child == 0:
            reader.close()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        check()
        sys.exit(os.waitstatus_to_exitcode(status))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr


def test_auto_takes_the_first_kind_that_is_there() -> None:
    facts = reading.engine_facts()
    with engine("auto") as reader:
        assert reader.kind == facts.kinds[0]
    assert facts.kinds[-1] == "plain"
    assert bool(facts.io_uring_denied) == ("io_uring" not in facts.kinds)
    assert msgspec.json.decode(msgspec.json.encode(facts), type=reading.EngineFacts) == facts


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown kind of read engine: expected auto or io_uring"):
        reading.open_read_engine("aio")


def test_without_native_kernels_the_plain_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "native_kernels", lambda: None)
    assert reading.open_read_engine().kind == "plain"
    assert reading.engine_facts().kinds == ("plain",)
    with pytest.raises(UnavailableError, match="C\\+\\+20 compiler"):
        reading.open_read_engine("threads")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOMEM, errno.EACCES, errno.EMFILE])
def test_where_io_uring_is_denied_threads_are_taken(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    if reading.native_kernels() is None:
        pytest.skip("native kernels are not installed")
    real = reading.NativeReadEngine

    def denied(kind: str, queue_depth: int, request_bytes: int) -> ReadEngine:
        if kind == "io_uring":
            raise OSError(number, os.strerror(number))
        return real(kind, queue_depth, request_bytes)

    monkeypatch.setattr(reading, "NativeReadEngine", denied)
    with engine("auto") as reader:
        assert reader.kind == "threads"
    with pytest.raises(UnavailableError, match="io_uring is not available"):
        reading.open_read_engine("io_uring")
    facts = reading.engine_facts()
    assert facts.kinds == ("threads", "plain")
    assert facts.io_uring_denied
