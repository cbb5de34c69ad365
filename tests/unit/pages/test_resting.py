"""Stores at rest, moments around a checkpoint, names of who wrote, and stores that are only looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.core.errors import UsageError
from stoker.pages import CorruptLog, PagesError, Store, Target
from stoker.pages.arena.mapping import named_arenas, unlink_mapping
from stoker.pages.folder import StoreFolder
from stoker.pages.frames import source_number
from stoker.pages.history import Kept, write_state
from stoker.pages.resting import at_rest
from stoker.pages.sweeping import memory_stores, sweep_dead

SMALL = {"size_bytes": 4 << 20, "pages_max": 512, "log_bytes": 1 << 17, "segment_bytes": 1 << 16}


def fill(store: Store, rounds: int = 60) -> None:
    page = store.allocate(4096, name="a")
    for index in range(rounds):
        page.write(bytes([index + 1]) * 4096, source="trainer")


def test_a_store_at_rest_tells_what_an_open_one_tells(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store.open(folder, **SMALL) as store:
        fill(store)
        store.checkpoint(incremental=True)
        store.page("a").write_at(5, b"more", source="me")
        journal, stats = store.journal, store.stats()
        told = (journal.state().digest(), [frame.lsn for frame in journal.scan()], journal.sources(), journal.lsn)
        with at_rest(StoreFolder.open(folder)) as resting:
            assert resting is None, "it is open"
    with at_rest(StoreFolder.open(folder)) as resting:
        assert resting is not None
        assert resting.replay().digest() == told[0]
        assert [frame.lsn for frame in resting.scan()] == told[1]
        assert resting.sources() == told[2]
        assert resting.lsn == told[3]
        assert resting.verify() == []
        numbers = resting.numbers()
        assert (numbers.pages, numbers.page_bytes, numbers.lsn) == (stats.pages, stats.page_bytes, stats.lsn)
        assert numbers.pages_by_state == stats.pages_by_state
        assert [image.page for image in resting.images()] == [1]
        assert resting.diff(Target(lsn=resting.lsn)).empty


def test_nobody_opens_a_store_while_it_is_read_at_rest(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store.open(folder, **SMALL) as store:
        fill(store, 3)
    script = f"from stoker.pages import Store; Store.open({str(folder)!r}).close(); print('opened')"
    with at_rest(StoreFolder.open(folder)) as resting:
        assert resting is not None
        opener = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            opener.wait(2)
    assert opener.communicate()[0] == "opened\n"


def test_a_checkpoint_of_another_store_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store.open(folder, **SMALL) as store:
        fill(store, 3)
    other = tmp_path / "other"
    with Store.open(other, **SMALL) as store:
        store.allocate(4096, name="a").write(b"z" * 4096)
        store.allocate(8)
        store.checkpoint()
        checkpoint = next((other / "checkpoints").iterdir())
    (folder / "checkpoints" / checkpoint.name).write_bytes(checkpoint.read_bytes())
    with at_rest(StoreFolder.open(folder)) as resting:
        assert resting is not None
        assert "checkpoint is of another store" in resting.verify()[0]
        assert bytes(next(resting.images()).data) == b"\x03" * 4096
    with Store.open(folder) as store:
        assert bytes(store.page("a").read()) == b"\x03" * 4096
        assert "checkpoint is of another store" in store.verify()[0]


def test_proof_at_rest_finds_a_checkpoint_that_the_log_does_not_lead_to(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store, 3)
        state, uuid = store.journal.state(), store.arena.geometry.uuid
    state.pages[1].data[:] = 9
    write_state(tmp_path / "s" / "checkpoints", state, uuid)
    with at_rest(StoreFolder.open(tmp_path / "s")) as resting:
        assert resting is not None
        assert "lead to different pages" in resting.verify()[0]


def test_moments_at_a_checkpoint_are_reached_and_those_before_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store.open(folder, **SMALL) as store:
        fill(store)
        page = store.page("a")
        before_ns = store.clock_ns() - 10**9
        lsn = store.mark("here")
        store.checkpoint(keep=1)
        assert store.journal.floor_lsn > 1
        assert store.replay(mark="here").lsn == lsn
        assert store.replay(page=page.id, epoch=60).pages[page.id].epoch == 60
        page.write_at(0, b"later")
        assert store.replay(page=page.id, epoch=60).pages[page.id].epoch == 60
        assert store.replay(page=page.id, epoch=61).pages[page.id].epoch == 61
        for wrong in (Target(time_ns=before_ns), Target(page=page.id, epoch=59), Target(lsn=lsn - 1)):
            with pytest.raises(PagesError, match="before what is kept"):
                store.journal.replay(wrong)
        for wrong in (Target(lsn=store.lsn + 1), Target(mark="never"), Target(page=page.id, epoch=62)):
            with pytest.raises(PagesError, match="never reached"):
                store.journal.replay(wrong)


def test_who_wrote_is_known_behind_a_log_that_lost_the_name(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store)
        store.checkpoint(keep=1)
        store.page("a").write_at(0, b"again", source="trainer")
        assert store.journal.sources()[source_number("trainer")] == "trainer"
        last = list(store.journal.scan(source="trainer"))[-1]
        assert last.lsn == store.lsn
        assert store.history(store.page("a").id)[-1].source == "trainer"
        assert not list(store.journal.scan(source="nobody"))


def test_a_damaged_checkpoint_does_not_hide_the_names(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store, 3)
        path = store.checkpoint().path
    path.write_bytes(b"x" * 8192)
    kept = Kept(tmp_path / "s" / "log", tmp_path / "s" / "checkpoints", store.arena.geometry.uuid)
    assert "trainer" in kept.sources().values()


def test_wrong_wishes_about_checkpoints_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        with pytest.raises(UsageError, match="at least 1"):
            store.checkpoint(keep=0)
        with pytest.raises(UsageError, match="auto or raw or zstd"):
            store.checkpoint(codec="lzma")
        assert store.journal.checkpoints() == []


def test_damage_is_told_by_reading_at_rest(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        fill(store)
    segment = min((tmp_path / "s" / "log").iterdir())
    data = bytearray(segment.read_bytes())
    data[30_000] ^= 1
    segment.write_bytes(bytes(data))
    with at_rest(StoreFolder.open(tmp_path / "s")) as resting:
        assert resting is not None
        with pytest.raises(CorruptLog):
            list(resting.images())
        assert "damaged before its end" in resting.verify()[0]
    assert segment.read_bytes() == bytes(data)


def killed(script: str) -> str:
    """Run a script that kills itself at its end, and return what it printed."""
    script = f"import os, signal\nfrom stoker.pages import Store\n{script}\nos.kill(os.getpid(), signal.SIGKILL)\n"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip()


def test_only_looking_at_a_deserted_store_leaves_it() -> None:
    name = f"resting-{os.getpid()}"
    killed(f"store = Store.open(name={name!r}, size_bytes=1 << 20); store.allocate(64).write(b'x' * 64)")
    seen = next(one for one in memory_stores() if one.name == name)
    assert (seen.pages, seen.page_bytes, seen.processes, seen.in_folder) == (1, 64, 0, False)
    with Store.attach(name, take_over=False) as store:
        assert bytes(store.read(1)) == b"x" * 64
    assert name in named_arenas()
    with Store.attach(name):
        pass
    assert name not in named_arenas(), "who took it over removed it"
    assert name not in sweep_dead()


def test_who_attaches_the_store_of_a_folder_does_not_take_its_commits_along(tmp_path: Path) -> None:
    name = killed(
        f"store = Store.open({str(tmp_path / 's')!r}, durability='none', size_bytes=1 << 20)\n"
        "store.allocate(8, name='a').write(b'ringonly'); print(store.name, flush=True)"
    )
    with Store.attach(name) as store:
        assert bytes(store.page("a").read()) == b"ringonly"
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == b"ringonly"
    assert name not in named_arenas()


def test_a_damaged_arena_is_listed_with_what_is_wrong() -> None:
    name = f"damaged-{os.getpid()}"
    with Store.open(name=name, size_bytes=1 << 20) as store:
        data, kept = store.arena.mapping.data, bytes(store.arena.mapping.data[:8])
        data[:8] = b"garbage!"
        assert "no arena" in next(one for one in memory_stores() if one.name == name).wrong
        assert name not in sweep_dead()
        data[:8] = kept
    unlink_mapping(name)


@pytest.mark.parametrize("short_way", [True, False])
def test_short_writes_count_their_bytes(short_way: bool) -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(256)
        if not short_way:
            store.take_long_ways()
        before = store.counters()
        page.write_at(3, b"1234567890")
        page.write_at(3, b"1234x67890")
        after = store.counters()
    grown = {name: after[name] - before[name] for name in ("commits", "deltas", "delta_bytes", "changed_bytes")}
    assert grown == {"commits": 2, "deltas": 2, "delta_bytes": 16 + 16 + 16 + 8, "changed_bytes": 11}
