"""Writing past the page cache: the same bytes whatever lies where, and the usual way where it is refused."""

import errno
import fcntl
import os
import random
from pathlib import Path
from typing import Any

import pytest
from chunk_places import VOLUME, header_of
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.fs.disk import Disk, ShardId, direct
from stoker.fs.disk.files import SystemFiles
from stoker.fs.wire.budget import BufferPool
from stoker.storage.buffers import address_of, aligned_view

PAGE = 4096


def written(path: Path, offset: int, pieces: list[memoryview]) -> bytes:
    """What a new file holds from an offset on after pieces were written there."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        flags = fcntl.fcntl(handle, fcntl.F_GETFL)
        SystemFiles().write_around(handle, offset, pieces)
        assert fcntl.fcntl(handle, fcntl.F_GETFL) == flags
    finally:
        os.close(handle)
    return path.read_bytes()[offset:]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([1, 511, 4095, PAGE, PAGE + 1, 3 * PAGE, 70_000]), st.booleans()), min_size=1),
    st.sampled_from([0, PAGE, 100]),
)
def test_the_bytes_are_the_same_wherever_they_lie(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, bool]], offset: int
) -> None:
    pieces = []
    for size, aligned in sizes:
        memory = aligned_view(size + 1)
        part = memory[:size] if aligned else memory[1 : size + 1]
        part[:] = os.urandom(size)
        pieces.append(part)
    path = tmp_path_factory.getbasetemp() / "direct"
    assert written(path, offset, pieces) == b"".join(pieces)


def test_what_is_aligned_is_written_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []
    real = os.pwritev

    def pwritev(handle: int, pieces: Any, offset: int) -> int:
        around = bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)
        seen.append((around, sum(len(piece) for piece in pieces)))
        return real(handle, pieces, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    whole = aligned_view(8 * PAGE)
    whole[:] = os.urandom(8 * PAGE)
    assert written(tmp_path / "one", 0, [memoryview(bytes(PAGE)), whole[: 7 * PAGE + 5]]) == bytes(PAGE) + bytes(
        whole[: 7 * PAGE + 5]
    )
    assert seen == [(True, 8 * PAGE), (False, 5)]


@pytest.mark.parametrize("where", ["flags", "write"])
def test_a_file_system_that_refuses_is_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real_flags, real_write = fcntl.fcntl, os.pwritev
    refused: list[str] = []

    def flags(handle: int, what: int, value: int = 0) -> int:
        if where == "flags" and what == fcntl.F_SETFL and value & os.O_DIRECT:
            refused.append(where)
            raise OSError(errno.EINVAL, "no such thing here")
        return real_flags(handle, what, value)

    def write(handle: int, pieces: Any, offset: int) -> int:
        if where == "write" and real_flags(handle, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(where)
            raise OSError(errno.EINVAL, "not so")
        return real_write(handle, pieces, offset)

    monkeypatch.setattr(fcntl, "fcntl", flags)
    monkeypatch.setattr(os, "pwritev", write)
    data = random.Random(1).randbytes(3 * PAGE + 7)
    assert written(tmp_path / "one", PAGE, [memoryview(data)]) == data
    assert refused == [where]


def test_a_failing_device_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int, pieces: Any, offset: int) -> int:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "pwritev", fails)
    with pytest.raises(OSError, match="input/output") as told:
        written(tmp_path / "one", 0, [aligned_view(PAGE)])
    assert told.value.errno == errno.EIO


def test_without_room_for_a_copy_the_usual_way_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = direct.BufferPool(PAGE)
    monkeypatch.setattr(direct, "_stages", stages)
    data = random.Random(2).randbytes(20 * PAGE)
    assert written(tmp_path / "one", 0, [memoryview(data)]) == data
    assert stages.allocated_bytes == 0


def test_large_shards_of_any_size_are_whole(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with Disk.make(tmp_path / "disk", VOLUME) as disk:
        for number, size in enumerate([1 << 20, (1 << 20) + 1, (3 << 20) - 1, (4 << 20) + PAGE]):
            data = random.Random(number).randbytes(size)
            cut = size // 3
            shard = ShardId(number, 1, 0)
            disk.put(header_of(shard, data), [data[:cut], memoryview(data)[cut:]], durable=bool(number % 2))
            assert bytes(disk.get(shard, [(0, size)])[0]) == data
            assert disk.verify(shard) is None


def test_what_a_server_receives_begins_where_a_device_wants_it() -> None:
    pool = BufferPool()
    assert all(address_of(memoryview(pool.lend(size))) % PAGE == 0 for size in (1, 65_536, 100_000, 4 << 20))
