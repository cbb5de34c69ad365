"""Puts of local stores, one or many in a call, with every engine: whole or not at all, told one by one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.core.errors import (
    AlreadyExistsError,
    DeniedError,
    NoSpaceError,
    PreflightError,
    StoreError,
    UnavailableError,
    UsageError,
)
from stoker.core.units import KiB, MiB
from stoker.kernels.write_engines import WRITE_KINDS
from stoker.storage.api import ObjectInfo
from stoker.storage.backends.posix import PosixStore
from stoker.storage.batch import SupportsBatchWrite
from stoker.storage.buffers import aligned_view
from stoker.storage.opening import open_store


def opened(url: str) -> PosixStore:
    try:
        store = open_store(url)
    except (PreflightError, UnavailableError) as error:
        pytest.skip(str(error))
    assert isinstance(store, PosixStore)
    return store


@pytest.fixture(params=[f"{scheme}-{kind}" for scheme in ("file", "direct") for kind in WRITE_KINDS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PosixStore]:
    scheme, _, kind = request.param.partition("-")
    store = opened(f"{scheme}://{tmp_path}?fsync=none&io={kind}")
    yield store
    store.close()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_many_objects_of_many_folders_are_put_in_one_call(store: PosixStore, tmp_path: Path) -> None:
    wanted = {f"{number % 3}/object-{number}": os.urandom(number * 1021) for number in range(40)}
    wanted |= {"top": b"", "deep/down/here": aligned_view(8192).tobytes()}
    assert isinstance(store, SupportsBatchWrite)
    results = store.put_many(list(wanted.items()))
    assert results == [store.stat(key) for key in wanted]
    assert {key: (tmp_path / key).read_bytes() for key in wanted} == wanted
    assert names(tmp_path) == sorted(wanted)


def test_one_bad_object_of_a_batch_stops_no_other(store: PosixStore, tmp_path: Path) -> None:
    store.put("there", b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    items = [("a", b"1"), ("../out", b"2"), ("there/below", b"3"), ("folder", b"4"), ("link/x", b"5"), ("b", b"6")]
    items.append(("half-\ud800", b"7"))
    kinds = [ObjectInfo, UsageError, StoreError, StoreError, DeniedError, ObjectInfo, UsageError]
    results = store.put_many(items)
    assert [type(result) for result in results] == kinds
    assert "there/below" in str(results[2])
    assert "a folder stands where" in str(results[3])
    assert names(tmp_path) == ["a", "b", "there"]


def test_what_is_there_stays_when_only_absent_objects_are_wanted(store: PosixStore, tmp_path: Path) -> None:
    store.put("b", b"old")
    results = store.put_many([("a", b"1"), ("b", b"2"), ("a", b"3")], if_absent=True)
    assert [type(result) for result in results] == [ObjectInfo, AlreadyExistsError, AlreadyExistsError]
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"1", b"old")
    assert names(tmp_path) == ["a", "b"]


def test_of_one_key_the_last_object_of_a_batch_stays(store: PosixStore, tmp_path: Path) -> None:
    large = os.urandom(9 * MiB + 1)
    for contents in ([b"1", b"2"], [large, b"small"], [b"small", large]):
        store.put_many([("key", content) for content in contents])
        assert (tmp_path / "key").read_bytes() == contents[-1]
    assert names(tmp_path) == ["key"]


def test_an_empty_batch_is_no_work(store: PosixStore) -> None:
    assert store.put_many([]) == []


@pytest.mark.parametrize("size_bytes", [8 * MiB, 8 * MiB + 1, 20 * MiB + 4097])
@pytest.mark.parametrize("shift", [0, 1])
def test_large_objects_keep_their_bytes(store: PosixStore, tmp_path: Path, size_bytes: int, shift: int) -> None:
    data = aligned_view(size_bytes + shift)[shift:]
    data[:] = os.urandom(size_bytes)
    assert store.put("object", data).size_bytes == size_bytes
    assert (tmp_path / "object").read_bytes() == data


def test_parts_may_be_reused_as_soon_as_the_next_is_asked_for(store: PosixStore, tmp_path: Path) -> None:
    buffer = aligned_view(3 * MiB)

    def parts() -> Iterator[memoryview]:
        for number, size_bytes in enumerate((100, 3 * MiB, 2 * MiB, 1, 3 * MiB, 3 * MiB, 4096, 2 * MiB + 5)):
            buffer[:size_bytes] = bytes([number + 1]) * size_bytes
            yield buffer[:size_bytes]
            buffer[:size_bytes] = bytes(size_bytes)

    store.put_parts("object", parts())
    data = (tmp_path / "object").read_bytes()
    sizes = [data.count(number + 1) for number in range(8)]
    assert sizes == [100, 3 * MiB, 2 * MiB, 1, 3 * MiB, 3 * MiB, 4096, 2 * MiB + 5]
    assert data == b"".join(bytes([number + 1]) * size for number, size in enumerate(sizes))


def test_parts_that_break_off_leave_nothing_moving(store: PosixStore, tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield bytes(5 * MiB + 1)
        yield bytes(5 * MiB)
        raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        store.put_parts("object", parts())
    assert names(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "but for the ring of an engine that waits for the next put"
    store.put("object", b"after")
    assert (tmp_path / "object").read_bytes() == b"after"


@pytest.fixture(params=["tmpfs", "ext4"])
def tiny_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of a few MiB."""
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if request.param == "ext4":
        with image.open("wb") as file:
            file.truncate(8 * MiB)
        made = subprocess.run(["mkfs.ext4", "-q", image], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"a file system cannot be made: {made.stderr.strip()}")
        command = ["mount", "-o", "loop", image, disk]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("kind", WRITE_KINDS)
@pytest.mark.parametrize("scheme", ["file", "direct"])
def test_a_disk_that_fills_up_in_a_batch_keeps_what_fitted(tiny_disk: Path, scheme: str, kind: str) -> None:
    store = opened(f"{scheme}://{tiny_disk}?fsync=full&io={kind}")
    (tiny_disk / "lost+found").rmdir() if (tiny_disk / "lost+found").is_dir() else None
    store.put("old", b"old")
    results = store.put_many([(f"{number:02}", bytes([number]) * (300 * KiB)) for number in range(40)])
    good = [result.key for result in results if isinstance(result, ObjectInfo)]
    assert 0 < len(good) < 40
    assert {type(result) for result in results} == {ObjectInfo, NoSpaceError}
    with pytest.raises(NoSpaceError):
        store.put_parts("stream", (bytes(3 * MiB) for _ in range(9)))
    assert names(tiny_disk) == sorted([*good, "old"])
    assert all((tiny_disk / key).read_bytes() == bytes([int(key)]) * (300 * KiB) for key in good)
    store.close()


def test_an_unknown_way_of_asking_the_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="io_uring"):
        open_store(f"file://{tmp_path}?io=uring")


def test_a_way_that_cannot_be_had_is_told_when_the_store_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.kernels.write_engines.native_kernels", lambda: None)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnavailableError, match="io_uring"):
        open_store(f"file://{tmp_path}?io=io_uring")
    assert len(os.listdir("/proc/self/fd")) == before
    open_store(f"file://{tmp_path}?io=auto").close()
