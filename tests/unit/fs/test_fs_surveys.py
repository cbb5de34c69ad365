"""Surveys: all rows of one revision, page by page; and what a cluster has of what files show."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from care_place import PAIR, CaredFor

from stoker.core.errors import NotFoundError, TransientError
from stoker.fs.care.proving import check_cluster, names_of, path_of, side_by_side
from stoker.fs.client.checking import used_slices
from stoker.fs.cluster.repairing import Seen
from stoker.fs.disk.interface import ShardId
from stoker.fs.master import surveying
from stoker.fs.master.surveying import IDLE_SECONDS, LONGEST_SECONDS, RowsInFile, Survey, SurveyPage, Surveys
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import (
    READ,
    WRITE,
    BeginSession,
    Create,
    EndSession,
    Link,
    Mkdir,
    Reclaim,
    SetXattr,
    TakeSlices,
    Unlink,
    Write,
)  # fmt: skip
from stoker.fs.meta.fsck import fsck_rows
from stoker.fs.meta.keys import ROOT, attr_key, session_secret_key
from stoker.fs.meta.kv import Engine, Pair
from stoker.fs.meta.slices import Slice


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def surveys(clock: Clock) -> Iterator[Surveys]:
    made = Surveys(clock=clock)
    yield made
    made.close()


@pytest.fixture
def volume() -> Iterator[Volume]:
    with Volume.format("memory://") as made:
        yield made


def pages(surveys: Surveys, copy: Engine, page: SurveyPage) -> Iterator[SurveyPage]:
    """This page and all behind it."""
    yield page
    while page.upto:
        page = surveys.page(copy, Survey(page.number, page.upto))
        yield page


def rows_of(engine: Engine) -> list[Pair]:
    with engine.snapshot() as snapshot:
        return snapshot.scan(b"")


def test_a_survey_is_of_one_revision_however_much_changes_meanwhile(
    surveys: Surveys, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "_PAGE_BYTES", 500)
    for number in range(300):
        volume.run(Mkdir(ROOT, b"d%03d" % number, 0o755))
    before, revision = rows_of(volume.engine), volume.engine.revision()
    found: list[Pair] = []
    count = 0
    for page in pages(surveys, volume.engine, surveys.page(volume.engine, Survey())):
        assert page.revision == revision
        found += page.pairs
        count += 1
        volume.run(Mkdir(ROOT, b"later%03d" % count, 0o755))
    assert found == before
    assert count > 50
    with pytest.raises(NotFoundError, match="no such survey"):
        surveys.page(volume.engine, Survey(page.number, b"a"))  # it ended with its last page


def test_values_of_any_size_come(surveys: Surveys, volume: Volume) -> None:
    for number in range(200):
        volume.run(SetXattr(ROOT, b"user.%d" % number, os.urandom(60_000)))
    told = list(pages(surveys, volume.engine, surveys.page(volume.engine, Survey())))
    assert [pair for page in told for pair in page.pairs] == rows_of(volume.engine)
    assert len(told) > 4
    assert all(sum(len(value) for _, value in page.pairs) < 3 << 20 for page in told)


def test_secrets_of_sessions_are_not_told(surveys: Surveys, volume: Volume) -> None:
    volume.engine.txn(None, {session_secret_key(7): b"digest"})
    told = [
        pair for page in pages(surveys, volume.engine, surveys.page(volume.engine, Survey())) for pair in page.pairs
    ]
    assert set(rows_of(volume.engine)) - set(told) == {(session_secret_key(7), b"digest")}


def test_who_does_not_come_back_is_let_go(
    surveys: Surveys, volume: Volume, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "_PAGE_BYTES", 1)
    first, second = (surveys.page(volume.engine, Survey()) for _ in range(2))
    with pytest.raises(TransientError, match="other surveys go on"):
        surveys.page(volume.engine, Survey())
    clock.seconds = IDLE_SECONDS - 1
    surveys.page(volume.engine, Survey(second.number, second.upto))
    clock.seconds = IDLE_SECONDS + 1
    with pytest.raises(NotFoundError, match="no such survey"):
        surveys.page(volume.engine, Survey(first.number, first.upto))
    assert surveys.page(volume.engine, Survey(second.number, second.upto)).pairs, "this one goes on"
    assert surveys.page(volume.engine, Survey()).revision == volume.engine.revision()


def test_no_survey_lasts_for_ever(
    surveys: Surveys, volume: Volume, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "_PAGE_BYTES", 1)
    page = surveys.page(volume.engine, Survey())
    with pytest.raises(NotFoundError, match="no such survey"):
        while True:  # the same page again and again: idle it never is
            clock.seconds += IDLE_SECONDS / 2
            assert clock.seconds < 2 * LONGEST_SECONDS
            surveys.page(volume.engine, Survey(page.number, page.upto))


def test_rows_in_a_file_are_a_snapshot_like_any_other(volume: Volume, tmp_path: Path) -> None:
    folder = volume.run(Mkdir(ROOT, b"d\xff", 0o755)).ino
    made = volume.run(Mkdir(folder, b"e", 0o755)).ino
    rows = RowsInFile(tmp_path / "rows", 7)
    rows.add(tuple(rows_of(volume.engine)))
    with volume.engine.snapshot() as snapshot, rows:
        assert rows.scan(b"") == snapshot.scan(b"")
        for prefix, after, limit in ((b"i", b"", 2), (b"i", attr_key(ROOT), None), (b"zz", b"", None), (b"", b"i", 3)):
            assert rows.scan(prefix, after, limit) == snapshot.scan(prefix, after, limit)
        assert rows.get(attr_key(made)) == snapshot.get(attr_key(made))
        assert rows.get(b"absent") is None
        assert fsck_rows(rows) == []
        assert path_of(rows, made) == "/d\\xff/e"
        assert path_of(rows, ROOT) == "/"
        assert path_of(rows, 999) == "inode 999"


@pytest.mark.parametrize("seed", range(20))
def test_two_lists_in_order_are_laid_side_by_side(seed: int) -> None:
    import random

    dice = random.Random(seed)
    shown = sorted(dice.sample(range(30), 12))
    held = sorted(dice.sample(range(30), 12))
    of = lambda number: Slice(number, 1, 10, 0)  # noqa: E731
    pairs = side_by_side(map(of, shown), (Seen(of(n), {}, 0, (1, "host"), 0, (), ()) for n in held))
    told = [(a.id if a else None, b.slice.id if b else None) for a, b in pairs]
    wanted = [(n if n in shown else None, n if n in held else None) for n in sorted({*shown, *held})]
    assert told == wanted


# -- what a cluster has


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CaredFor]:
    made = CaredFor(tmp_path, 5, PAIR)
    made.live(5)
    yield made
    made.close()


def shown_in(cluster: CaredFor, *names: bytes) -> list[Slice]:
    """Write a file of one slice for each name, and give the slices."""
    session = cluster.volume.run(BeginSession(10**15)).value
    slices = cluster.written(len(names))
    for name, data in zip(names, slices, strict=True):
        made = cluster.volume.run(Create(ROOT, name, 0o600, access=READ | WRITE), session=session)
        cluster.volume.run(Write(made.ino, (data,)), session=session)
    while cluster.volume.run(EndSession(session)).more:
        pass
    return slices


def check(cluster: CaredFor, disk: int, shard: ShardId) -> int | None:
    found = cluster.holder(disk)
    return found.disk.verify(shard)  # type: ignore[attr-defined,no-any-return]


def proven(cluster: CaredFor, *, deep: bool = False):  # type: ignore[no-untyped-def]
    looks = (lambda disk, shard: check(cluster, disk, shard)) if deep else None
    with cluster.volume.engine.snapshot() as snapshot:
        return check_cluster(cluster.volume, cluster.store, snapshot, used_slices(snapshot), looks)


def shards_of(cluster: CaredFor, data: Slice) -> list[tuple[int, ShardId]]:
    return [(disk, ShardId(data.id, data.generation, index))
            for index, disks in cluster.store.look(data)[1].disks.items() for disk in disks]  # fmt: skip


def test_a_whole_cluster_is_told_to_be_sound(cluster: CaredFor) -> None:
    shown_in(cluster, b"a", b"b")
    found = proven(cluster, deep=True)
    assert (found.faults, found.slices, found.bytes, found.exposed, found.orphans) == ([], 2, 200_000, 0, 0)


def test_lost_slices_are_told_with_the_files_that_show_them(cluster: CaredFor) -> None:
    kept, lost = shown_in(cluster, b"kept", b"lost")
    ino = cluster.volume.run(Create(ROOT, b"lost", 0o600)).ino
    cluster.volume.run(Link(ino, ROOT, b"again"))
    for disk, shard in shards_of(cluster, lost):
        cluster.holder(disk).remove([shard])
    disk, shard = shards_of(cluster, kept)[0]
    cluster.holder(disk).remove([shard])
    found = proven(cluster)
    assert [(fault.rule, fault.got) for fault in found.faults] == [("slices that files show are on disks", "none")]
    assert f"slice {lost.id}.1 of " in found.faults[0].where
    assert found.faults[0].where.endswith(("/lost", "/again"))
    assert found.exposed == 1
    with cluster.volume.engine.snapshot() as snapshot:
        assert names_of(snapshot, {kept.id}) == {kept.id: ["/kept"]}


def test_what_nobody_shows_and_nobody_can_is_an_orphan(cluster: CaredFor) -> None:
    session = cluster.volume.run(BeginSession(10**15)).value
    first = cluster.volume.run(TakeSlices(2), session=session).value
    for number in (first, first + 1):
        data = Slice(number, 1, 1000, cluster.storage_class)
        cluster.store.write(data, [bytes(1000)], durable=True)
    assert proven(cluster).orphans == 0, "who took them may still show them"
    while cluster.volume.run(EndSession(session)).more:
        pass
    found = proven(cluster)
    assert (found.faults, found.orphans, found.orphan_bytes) == ([], 2, 2000)


def test_a_damaged_shard_is_found_by_reading_it(cluster: CaredFor) -> None:
    (data,) = shown_in(cluster, b"a")
    disk, shard = shards_of(cluster, data)[0]
    folder = cluster.folder / f"disk-{cluster.at(cluster.map.by_id[disk].uuid):02}"
    for path in folder.rglob("*"):
        if path.is_file() and b"SQLite" not in path.read_bytes()[:16]:
            held = bytearray(path.read_bytes())
            if len(held) > 50_000:
                held[40_000] ^= 1
                path.write_bytes(held)
    assert proven(cluster).faults == []
    found = proven(cluster, deep=True).faults
    assert [fault.rule for fault in found] == ["shards are those that were stored"]
    assert found[0].where == f"slice {data.id}.1 shard {shard.index} disk {disk} of /a"
    assert "damaged" in found[0].got


def test_what_was_removed_meanwhile_is_no_fault(cluster: CaredFor) -> None:
    (data,) = shown_in(cluster, b"a")
    snapshot = cluster.volume.engine.snapshot()
    with snapshot:
        cluster.volume.run(Unlink(ROOT, b"a"))
        while cluster.volume.run(Reclaim()).more:
            pass
        cluster.store.remove([data])
        found = check_cluster(cluster.volume, cluster.store, snapshot, used_slices(snapshot))
    assert found.slices == 1
    assert found.faults == []


def test_a_disk_that_is_silent_is_told(cluster: CaredFor) -> None:
    shown_in(cluster, b"a")
    cluster.set(2, health="down")
    found = proven(cluster)
    assert [(fault.rule, fault.where) for fault in found.faults] == [
        ("every disk tells what it holds", f"disk {cluster.number(2)}")
    ]
