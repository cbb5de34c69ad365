"""Stores that last: closed, killed, recovered, poisoned, full."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages import CorruptLog, OutOfSpace, PageNotFound, PagesError, Poisoned, Store, Target, Timeout
from stoker.pages.arena.mapping import FOLDER, PREFIX, unlink_mapping
from stoker.pages.disk import OsDisk

SMALL = {"size_bytes": 4 << 20, "pages_max": 512, "log_bytes": 1 << 17, "segment_bytes": 1 << 17}


def fill(store: Store, rounds: int = 200) -> bytes:
    page = store.allocate(2048, name="a")
    for index in range(rounds):
        if index % 3:
            page.write(np.full(2048, index % 251, np.uint8))
        else:
            page.write_at(index, b"%d" % index, source="counter")
    return bytes(page.read())


def shared(store: Store) -> Path:
    return FOLDER / f"{PREFIX}{store.name}"


def test_pages_are_there_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        last = fill(store)
        path = shared(store)
        facts = (store.page("a").id, store.page("a").epoch, store.lsn)
        assert facts[0] == 1
        assert store.durable_lsn == store.lsn
    assert not path.exists()
    with Store.open(tmp_path / "s") as store:
        assert (store.page("a").id, store.page("a").epoch, store.lsn) == facts
        assert bytes(store.page("a").read()) == last
        assert store.verify() == []
        new = store.allocate(8)
        assert new.id >> 32 == 1, "ids are never used twice, whatever was lost"


@pytest.mark.parametrize("durability", ["none", "os", "data", "full"])
def test_a_killed_process_loses_nothing(tmp_path: Path, durability: str) -> None:
    script = f"""
import os, signal
from stoker.pages import Store
store = Store.open({str(tmp_path / "s")!r}, durability={durability!r}, size_bytes=1 << 20, log_bytes=1 << 16)
page = store.allocate(64, name="a")
for index in range(300):
    page.write_at(0, b"%08d" % index)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()[:8]) == b"00000299"
        assert store.verify() == []


def test_what_was_synced_survives_the_loss_of_shared_memory(tmp_path: Path) -> None:
    script = f"""
import os, signal
from stoker.pages import Store
store = Store.open({str(tmp_path / "s")!r}, durability="data", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16)
page = store.allocate(64, name="a")
for index in range(100):
    page.write_at(0, b"%08d" % index)
store.durability = "none"
page.write_at(0, b"lost____")
print(store.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    unlink_mapping(done.stdout.strip())
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()[:8]) == b"00000099"
        assert store.verify() == []


def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(64, name="a")
        script = f"""
from stoker.pages import Store
with Store.open({str(tmp_path / "s")!r}) as store:
    store.page("a").write(b"x" * 64)
"""
        subprocess.run([sys.executable, "-c", script], check=True)
        assert bytes(page.read()) == b"x" * 64
        assert shared(store).exists(), "the other process was not the last"
        assert store.verify() == []


def test_many_threads_are_served_by_few_syncs(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        pages = [store.allocate(64) for _ in range(8)]

        def work(number: int) -> None:
            for index in range(20):
                lsn = pages[number].write(bytes([index + 1]) * 64)
                assert store.durable_lsn >= lsn

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.counters()["syncs"] <= 8 * 20 + 8 + 2


def test_moments_before_a_checkpoint_are_gone_and_told(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store, 400)
        store.checkpoint(keep=1)
        floor = store.journal.floor_lsn
        assert floor > 1
        with pytest.raises(PagesError, match="before what is kept"):
            store.replay(lsn=floor - 10)
        page = store.page("a")
        page.write_at(0, b"after")
        assert store.verify() == []
        assert store.history(page)[-1].epoch == page.epoch


def test_incremental_checkpoints_restore_the_same(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        pages = [store.allocate(4096, name=f"p{index}") for index in range(20)]
        for page in pages:
            page.write(np.random.default_rng(page.id).integers(0, 255, 4096, np.uint8))
        whole = store.checkpoint()
        pages[3].write_at(7, b"changed")
        part = store.checkpoint(incremental=True)
        assert part.left_pages == 19
        assert part.stored_bytes < whole.stored_bytes // 10
        expected = {page.id: bytes(page.read()) for page in pages}
    with Store.restore(tmp_path / "s" / "checkpoints", size_bytes=4 << 20) as store:
        assert {page.id: bytes(page.read()) for page in store.pages()} == expected


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        last = fill(store, 50)
        store.checkpoint()
        store.page("a").write_at(0, b"x")
        newest = store.checkpoint().path
        last = bytes(store.page("a").read())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == last


def test_replay_goes_to_lsn_epoch_time_and_mark(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(16, name="a")
        page.write(b"1" * 16)
        lsn = store.lsn
        store.mark("one")
        page.write(b"2" * 16)
        when = store.clock_ns()
        os.sched_yield()
        page.write(b"3" * 16)
        assert bytes(store.replay(lsn=lsn).pages[page.id].data) == b"1" * 16
        assert bytes(store.replay(mark="one").pages[page.id].data) == b"1" * 16
        assert bytes(store.replay(page=page.id, epoch=2).pages[page.id].data) == b"2" * 16
        assert bytes(store.replay(time_ns=when + 10**9).pages[page.id].data) == b"3" * 16
        found = store.diff(Target(mark="one"))
        assert [change.page for change in found.changed] == [page.id]
        assert [version.epoch for version in store.history(page)] == [0, 1, 2, 3]
        with pytest.raises(PagesError, match="never reached"):
            store.replay(mark="two")


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(UsageError, match="other things"):
        Store.open(tmp_path)
    with pytest.raises(PageNotFound):
        Store.attach("no-such-store")
    with pytest.raises(UsageError, match="durable"):
        Store.open(durability="data")


class FailingDisk(OsDisk):
    """A disk whose operations fail from a moment on."""

    def __init__(self, operation: str, number: int) -> None:
        self.operation, self.number, self.failing = operation, number, False

    def _may_fail(self, operation: str) -> None:
        if self.failing and operation == self.operation:
            raise OSError(self.number, os.strerror(self.number))

    def write(self, *arguments: object) -> None:
        """Write."""
        self._may_fail("write")
        super().write(*arguments)  # type: ignore[arg-type]

    def sync(self, handle: int, *, full: bool = False) -> None:
        """Sync."""
        self._may_fail("sync")
        super().sync(handle, full=full)


@pytest.mark.parametrize(
    ("operation", "number", "kind"),
    [("write", errno.ENOSPC, OutOfSpace), ("write", errno.EIO, PagesError), ("sync", errno.EIO, PagesError)],
)
def test_a_failing_disk_poisons_the_store_and_loses_nothing_acknowledged(
    tmp_path: Path, operation: str, number: int, kind: type[PagesError]
) -> None:
    disk = FailingDisk(operation, number)
    store = Store.open(tmp_path / "s", **SMALL)
    assert store.flusher is not None
    store.flusher._journal._disk = disk
    page = store.allocate(64, name="a")
    page.write(b"acknowledged".ljust(64))
    disk.failing = True
    with pytest.raises(kind):
        page.write(b"in doubt".ljust(64))
    disk.failing = False
    for _ in range(2):
        with pytest.raises(Poisoned):
            page.write(b"more".ljust(64))
    assert bytes(page.read()).strip() in (b"acknowledged", b"in doubt")
    with pytest.raises(Poisoned):
        store.sync()
    store.close()
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()).strip() in (b"acknowledged", b"in doubt")
        store.page("a").write(b"again".ljust(64))
        assert store.verify() == []


def test_waiting_for_durability_ends(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", durability="none", **SMALL) as store:
        page = store.allocate(8)
        lsn = page.write(b"12345678")
        with pytest.raises(Timeout):
            store.wait_durable(lsn, timeout_seconds=0.01)
        assert store.sync() >= lsn
        store.wait_durable(lsn, timeout_seconds=0.01)


def test_a_log_that_was_cut_is_told(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store)
    segments = sorted((tmp_path / "s" / "log").iterdir())
    segments[1].unlink()
    with pytest.raises(CorruptLog):
        Store.open(tmp_path / "s")
