"""Disks and shared memory that are full or broken: told in a sentence, nothing acknowledged lost, and gone on from."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.pages import OutOfSpace, PagesError, Poisoned, Store
from stoker.pages.arena import mapping as mapping_module
from stoker.pages.arena.audit import audit
from stoker.pages.disk import OsDisk

SMALL = {"size_bytes": 1 << 20, "pages_max": 64, "log_bytes": 64 << 10, "segment_bytes": 64 << 10}
DISK_BYTES = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def filled(value: int) -> np.ndarray:
    return np.full(4096, value % 251 + 1, np.uint8)


def fill_up(place: Path, *, leave_bytes: int = 0) -> Path:
    """Take all room of a disk but some."""
    ballast = place / "ballast"
    room = os.statvfs(place)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - leave_bytes)))
    return ballast


def write_until_full(store: Store) -> int:
    """Write until the log takes no more; return the last value that was acknowledged."""
    page = store.allocate(4096, name="a")
    acknowledged = 0
    with pytest.raises(OutOfSpace, match=r"segment of the log cannot be made|log cannot be written"):
        for value in range(1, 1000):
            page.write(filled(value))
            acknowledged = value
    return acknowledged


def test_a_full_disk_poisons_the_log_and_is_cured_when_there_is_room(small_disk: Path) -> None:
    store = Store.open(small_disk / "s", **SMALL)
    ballast = fill_up(small_disk, leave_bytes=100 << 10)
    acknowledged = write_until_full(store)
    assert acknowledged
    with pytest.raises(Poisoned, match="takes no more writes"):
        store.allocate(64)
    now = bytes(store.page("a").read())
    assert now in (bytes(filled(acknowledged)), bytes(filled(acknowledged + 1)))
    store.close()
    with pytest.raises(OutOfSpace):  # no room for the checkpoint that would cure it
        Store.open(small_disk / "s").checkpoint()
    ballast.unlink()
    with Store.open(small_disk / "s") as store:
        assert bytes(store.page("a").read()) == now
        store.page("a").write(filled(77))
        assert not store.verify()
    with Store.open(small_disk / "s") as store:
        assert bytes(store.page("a").read()) == bytes(filled(77))


def test_a_full_disk_without_the_shared_memory_has_all_that_was_acknowledged(small_disk: Path) -> None:
    store = Store.open(small_disk / "s", **SMALL)
    ballast = fill_up(small_disk, leave_bytes=100 << 10)
    acknowledged = write_until_full(store)
    store.close()
    mapping_module.unlink_mapping(store.name)
    ballast.unlink()
    with Store.open(small_disk / "s") as store:
        assert bytes(store.page("a").read()) in (bytes(filled(acknowledged)), bytes(filled(acknowledged + 1)))
        assert not store.verify()


def test_a_checkpoint_without_room_leaves_the_store_as_it_was(small_disk: Path) -> None:
    with Store.open(small_disk / "s", **SMALL) as store:
        page = store.allocate(64 << 10, name="large")
        page.write_at(0, np.random.default_rng(1).integers(0, 255, 16 << 10, np.uint8))
        ballast = fill_up(small_disk, leave_bytes=16 << 10)
        with pytest.raises(OutOfSpace, match="checkpoint cannot be written"):
            store.checkpoint(codec="raw")
        assert not list((small_disk / "s" / "checkpoints").iterdir())
        page.write_at(0, b"goes on")
        ballast.unlink()
        store.checkpoint(codec="raw")
        assert not store.verify()


def test_full_shared_memory_refuses_and_stays_sound(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_module, "FOLDER", small_disk)
    with pytest.raises(OutOfSpace, match="shared memory for pages is full"):
        Store.open(name="too-large", size_bytes=1 << 20, pages_max=64, log_bytes=4 << 20)
    assert not list(small_disk.iterdir())
    with Store.open(name="full", size_bytes=8 << 20, pages_max=64, log_bytes=64 << 10) as store:
        page = store.allocate(4096, name="first")
        ballast = fill_up(small_disk)
        made = 0
        with pytest.raises(OutOfSpace, match="shared memory for pages is full"):
            for _ in range(60):
                store.allocate(64 << 10)
                made += 1
        assert len(store.pages()) == 1 + made
        page.write(filled(9))
        assert not audit(store.arena)
        ballast.unlink()
        store.allocate(64 << 10)
        assert not store.verify()
    assert not list(small_disk.iterdir())


class Failing(OsDisk):
    """A disk of which the operation with a number fails; later ones do not."""

    def __init__(self, operation: str, at: int, number: int) -> None:
        self.operation, self.left, self.number = operation, at, number

    def _may_fail(self, operation: str) -> None:
        if operation == self.operation:
            self.left -= 1
            if not self.left:
                raise OSError(self.number, os.strerror(self.number))


def _failing(name: str) -> object:
    plain = getattr(OsDisk, name)

    def call(self: Failing, *arguments: object, **options: object) -> object:
        self._may_fail(name)
        return plain(self, *arguments, **options)

    return call


for _name in ("open", "write", "reserve", "sync", "sync_folder", "rename"):
    setattr(Failing, _name, _failing(_name))


@pytest.mark.parametrize("with_memory", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("operation", ["open", "write", "reserve", "sync", "sync_folder", "rename"])
def test_each_operation_of_the_log_may_fail_once(
    tmp_path: Path, operation: str, number: int, with_memory: bool
) -> None:
    """A second try after a failed sync would be told that all is well: the store must remember the first."""
    for at in (1, 2, 4):
        path = tmp_path / str(at)
        store = Store.open(path, **{**SMALL, "segment_bytes": 16 << 10})
        assert store.flusher is not None
        page = store.allocate(4096, name="a")
        page.write(filled(0))
        store.flusher._journal._disk = Failing(operation, at, number)
        acknowledged, kind = 0, OutOfSpace if number == errno.ENOSPC else PagesError
        with pytest.raises(kind):
            for value in range(1, 100):
                page.write(filled(value))
                acknowledged = value
        with pytest.raises(Poisoned):
            page.write(filled(200))
        allowed = [bytes(filled(value)) for value in (acknowledged, acknowledged + 1)]
        assert bytes(page.read()) in allowed
        store.close()
        if not with_memory:
            mapping_module.unlink_mapping(store.name)
        with Store.open(path) as store:
            assert bytes(store.page("a").read()) in allowed
            store.page("a").write(filled(201))
            assert not store.verify()
        with Store.open(path) as store:
            assert bytes(store.page("a").read()) == bytes(filled(201))


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.pwrite

    def short(handle: int, data: memoryview, offset: int) -> int:
        return plain(handle, memoryview(data)[: max(1, len(data) // 2)], offset)

    monkeypatch.setattr(os, "pwrite", short)
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(4096, name="a")
        for value in range(20):
            page.write(filled(value))
        store.checkpoint()
        page.write(filled(99))
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == bytes(filled(99))
        assert not store.verify()


def test_a_close_that_fails_leaves_the_store_all_the_same(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", durability="none", **SMALL)
    store.allocate(64, name="a")
    assert store.flusher is not None
    store.flusher._journal._disk = Failing("sync", 1, errno.EIO)
    with pytest.raises(PagesError):
        store.close()
    with Store.open(tmp_path / "s") as store:  # nobody has it open: it is cured
        assert store.page("a").size_bytes == 64
        store.allocate(64)
        assert not store.verify()


def test_a_store_that_is_poisoned_is_cured_only_when_nobody_has_it_open(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", **SMALL)
    page = store.allocate(4096, name="a")
    assert store.flusher is not None
    store.flusher._journal._disk = Failing("write", 1, errno.EIO)
    with pytest.raises(PagesError):
        page.write(filled(1))
    with Store.open(tmp_path / "s") as second:
        with pytest.raises(Poisoned):
            second.page("a").write(filled(2))
        assert second.stats().poisoned
    store.close()
    with Store.open(tmp_path / "s") as third:
        third.page("a").write(filled(3))
        assert not third.verify()


def test_a_log_behind_its_checkpoint_begins_anew(tmp_path: Path) -> None:
    """As when a cure lost its power between the checkpoint and the new log: no LSN is given twice."""
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(4096, name="a")
        page.write(filled(1))
    log = {path.name: path.read_bytes() for path in (tmp_path / "s" / "log").iterdir()}
    with Store.open(tmp_path / "s") as store:
        store.page("a").write(filled(2))
        store.checkpoint()
        lsn = store.journal.checkpoints()[-1]
    for path in (tmp_path / "s" / "log").iterdir():
        path.unlink()
    for name, data in log.items():
        (tmp_path / "s" / "log" / name).write_bytes(data)
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == bytes(filled(2))
        assert store.page("a").write(filled(3)) > lsn
        assert not store.verify()
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == bytes(filled(3))
        assert store.verify() == []


def test_a_disk_that_fails_in_another_process_is_told_here(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(4096, name="a")
        script = f"""
import errno, os
from stoker.pages import PagesError, Store
from stoker.pages.disk import OsDisk
class Failing(OsDisk):
    def write(self, *arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
store = Store.open({str(tmp_path / "s")!r})
store.flusher._journal._disk = Failing()
try:
    store.page("a").write(bytes([1]) * 4096)
except PagesError:
    print("failed")
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "failed", done.stderr
        with pytest.raises(Poisoned, match="Input/output error"):
            page.write(filled(1))
        with pytest.raises(Poisoned):
            store.wait_durable(store.lsn + 1, timeout_seconds=10)
    mapping_module.unlink_mapping(store.name)  # a store that failed keeps it, for the next opening to cure
