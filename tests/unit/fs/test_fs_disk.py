"""A disk of shards: what it keeps, what it refuses, and what it tells."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoker.core.errors import (
    AlreadyExistsError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    StoreError,
    UsageError,
)
from stoker.core.units import KiB, MiB
from stoker.fs.disk import Disk, DiskOptions, ShardHeader, ShardId, cell_crcs
from stoker.fs.disk.syncing import GroupSync
from stoker.fs.disk.upkeep import Keeper, Upkeep, UpkeepOptions

VOLUME = "11111111-2222-3333-4444-555555555555"
OPTIONS = DiskOptions(small_bytes=32 * KiB, segment_bytes=256 * KiB, reserve_bytes=MiB, reserve_ratio=0.0)


def content(shard: ShardId, size_bytes: int) -> bytes:
    return random.Random(str(shard)).randbytes(size_bytes)


def header_of(shard: ShardId, data: bytes, volume: str = VOLUME) -> ShardHeader:
    return ShardHeader(volume, shard, 1, 1, 0, 4096, len(data), len(data), cell_crcs([data], 4096))


def stored(disk: Disk, number: int, size_bytes: int, *, durable: bool = False, generation: int = 1) -> ShardId:
    shard = ShardId(number, generation, 0)
    data = content(shard, size_bytes)
    disk.put(header_of(shard, data), [data], durable=durable)
    return shard


def whole(disk: Disk, shard: ShardId) -> bytes:
    return bytes(disk.get(shard, [(0, disk.header(shard).shard_bytes)])[0])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        yield disk


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, 4097, 32 * KiB - 1, 32 * KiB, 100_000])
def test_cells_that_cover_a_range_are_read_and_verified(disk: Disk, size_bytes: int) -> None:
    shard = stored(disk, 1, size_bytes)
    data = content(shard, size_bytes)
    chance = random.Random(size_bytes)
    ranges = [(0, size_bytes), (0, 0), (size_bytes, 0)]
    for _ in range(20):
        start, end = sorted(chance.randint(0, size_bytes) for _ in range(2))
        ranges.append((start, end - start))
    assert [bytes(part) for part in disk.get(shard, ranges)] == [data[start : start + n] for start, n in ranges]
    with pytest.raises(UsageError):
        disk.get(shard, [(0, size_bytes + 1)])
    assert disk.status().bad_shards == 0


@pytest.mark.parametrize("size_bytes", [3000, 100_000])
def test_a_shard_is_never_mixed_with_another(disk: Disk, size_bytes: int) -> None:
    old = stored(disk, 1, size_bytes, generation=1)
    new = stored(disk, 1, size_bytes, generation=2)
    assert stored(disk, 1, size_bytes, durable=True) == old
    assert (whole(disk, old), whole(disk, new)) == (content(old, size_bytes), content(new, size_bytes))
    other = content(old, size_bytes)[:-1] + b"!"
    with pytest.raises(AlreadyExistsError):
        disk.put(header_of(old, other), [other], durable=True)
    with pytest.raises(CorruptError, match="cell"):
        disk.put(header_of(ShardId(9, 1, 0), other), [content(old, size_bytes)], durable=True)
    with pytest.raises(UsageError, match="another volume"):
        disk.put(header_of(ShardId(9, 1, 0), other, VOLUME.replace("1", "9")), [other], durable=True)
    with pytest.raises(NotFoundError):
        disk.header(ShardId(9, 1, 0))


def test_a_span_is_whole_cells_in_a_file_that_stays_open(disk: Disk) -> None:
    for size_bytes in (20_000, 100_000):
        shard = stored(disk, size_bytes, size_bytes)
        data = content(shard, size_bytes)
        with disk.span(shard, 5000, 6000) as span:
            assert (span.first_cell, span.length) == (1, 8192)
            disk.remove([shard])
            while disk.compact(MiB):
                pass
            assert os.pread(span.handle, span.length, span.offset) == data[4096:12_288]
            assert span.crcs == header_of(shard, data).crcs[4:12]
        with pytest.raises(NotFoundError):
            disk.span(shard, 0, 1)


def test_open_files_are_bounded(tmp_path: Path) -> None:
    options = DiskOptions(small_bytes=KiB, reserve_bytes=MiB, reserve_ratio=0.0, open_files=5)
    with Disk.make(tmp_path / "disk", VOLUME, options) as disk:
        shards = [stored(disk, number, 2000) for number in range(30)]
        disk.checkpoint()
        before = len(os.listdir("/proc/self/fd"))
        for shard in shards:
            whole(disk, shard)
        assert len(os.listdir("/proc/self/fd")) <= before + 5
        spans = [disk.span(shard, 0, 100) for shard in shards]
        assert all(os.pread(span.handle, 4, span.offset) for span in spans)
        for span in spans:
            span.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 5


def test_listings_come_in_pages_and_see_what_is_not_yet_in_the_index(disk: Disk) -> None:
    shards = [stored(disk, number, 100 + number) for number in range(0, 100, 2)]
    disk.checkpoint()
    shards += [stored(disk, number, 100 + number) for number in range(1, 60, 3)]
    disk.remove(shards[::4])
    wanted = sorted(set(shards) - set(shards[::4]))
    found: list[ShardId] = []
    page = disk.listing(None, 7)
    while True:
        assert page.complete
        assert page.bad == []
        assert all(header.crcs == b"" for header in page.headers)
        assert len(page.headers) == 7 or not page.more
        found += [header.shard for header in page.headers]
        if not page.more:
            break
        page = disk.listing(found[-1], 7)
    assert found == wanted
    assert disk.status().shards == len(wanted)


def test_whoever_comes_while_a_sync_runs_shares_the_next() -> None:
    running, go_on = threading.Event(), threading.Event()
    errors = iter([None, NoSpaceError("full"), None])

    def sync() -> None:
        running.set()
        assert go_on.wait(20)
        error = next(errors)
        if error is not None:
            raise error

    group = GroupSync(sync)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(group.wait)
        assert running.wait(20)
        others = [threads.submit(group.wait) for _ in range(8)]
        while group.waits < 9:
            time.sleep(0.001)
        go_on.set()
        assert first.result() is None
        assert [type(other.exception()) for other in others] == [NoSpaceError] * 8
    group.wait()
    assert group.syncs == 3


def test_many_durable_writers(disk: Disk) -> None:
    with ThreadPoolExecutor(16) as threads:
        shards = list(threads.map(lambda number: stored(disk, number, 500, durable=True), range(100)))
    waits, syncs = disk.sync_counts()
    assert 0 < syncs <= waits <= 100
    assert [header.shard for header in disk.listing(None, 1000).headers] == shards


def test_space_of_removed_shards_comes_back(disk: Disk, tmp_path: Path) -> None:
    shards = [stored(disk, number, 9000) for number in range(200)]
    disk.checkpoint()
    segments = tmp_path / "disk" / "segments"
    before_bytes = sum(path.stat().st_size for path in segments.iterdir())
    kept = shards[::5]
    disk.remove([shard for shard in shards if shard not in kept])
    ended = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.is_set():
                for shard in kept:
                    assert whole(disk, shard) == content(shard, 9000)
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    while disk.compact(50_000):
        pass
    ended.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert sum(path.stat().st_size for path in segments.iterdir()) < before_bytes / 2
    assert disk.status().used_bytes == 9216 * len(kept)


def test_a_removal_outlives_the_segment_that_told_it(tmp_path: Path) -> None:
    """The shard lies in a segment that stays, its removal in one that is compacted, and then the index is lost."""
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        staying = [stored(disk, number, 9000) for number in range(40)]
        passing = [stored(disk, number, 9000) for number in range(100, 130)]
        disk.remove([staying[1]])
        passing += [stored(disk, number, 9000) for number in range(130, 160)]
        disk.remove(passing)
        numbers = {path.name for path in (tmp_path / "disk" / "segments").iterdir()}
        while disk.compact(MiB):
            pass
        assert "00000001.seg" in {path.name for path in (tmp_path / "disk" / "segments").iterdir()}
        assert "00000002.seg" in numbers - {path.name for path in (tmp_path / "disk" / "segments").iterdir()}
    with Disk(tmp_path / "disk", OPTIONS, rebuild=True) as disk:
        found = [header.shard for header in disk.listing(None, 1000).headers]
        assert found == [shard for shard in staying if shard != staying[1]]


def test_removals_one_by_one_do_not_keep_compaction_busy(tmp_path: Path) -> None:
    """Each is a record of its own; what they name stays, so they must stay too, in fewer bytes."""
    options = DiskOptions(small_bytes=32 * KiB, segment_bytes=64 * KiB, reserve_bytes=0, reserve_ratio=0.0)
    with Disk.make(tmp_path / "disk", VOLUME, options) as disk:
        shards = [stored(disk, number, 300) for number in range(600)]
        gone = [shard for shard in shards if shard.slice_id % 5 < 2]
        for shard in gone:
            disk.remove([shard])
        rounds = 0
        while disk.compact(10_000):
            rounds += 1
            assert rounds < 100
        left = len(list((tmp_path / "disk" / "segments").iterdir()))
        assert left <= 7
    with Disk(tmp_path / "disk", options, rebuild=True) as disk:
        assert [header.shard for header in disk.listing(None, 1000).headers] == sorted(set(shards) - set(gone))
        assert disk.status().errors == 0


@pytest.mark.parametrize("how", ["removed", "emptied", "foreign", "flipped", "asked", "newer"])
def test_an_unfit_index_is_made_again(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "disk"
    with Disk.make(folder, VOLUME, OPTIONS) as disk:
        shards = [stored(disk, number, 40_000 if number % 7 == 0 else 700) for number in range(60)]
        disk.remove(shards[::3])
        wanted = disk.listing(None, 1000), disk.status().used_bytes
    index = folder / "index.db"
    if how == "removed":
        index.unlink()
    elif how == "emptied":
        index.write_bytes(b"")
    elif how == "foreign":
        Disk.make(tmp_path / "other", VOLUME, OPTIONS).close()
        index.write_bytes((tmp_path / "other" / "index.db").read_bytes())
    elif how == "flipped":
        data = bytearray(index.read_bytes())
        for place in range(100, len(data), 97):
            data[place] ^= 0x40
        index.write_bytes(data)
    elif how == "newer":
        index.write_bytes(index.read_bytes()[:18] + b"\x09\x09" + index.read_bytes()[20:])
    with Disk(folder, OPTIONS, rebuild=how == "asked") as disk:
        assert (disk.listing(None, 1000), disk.status().used_bytes) == wanted
        assert disk.status().errors == 0
        assert all(whole(disk, header.shard) for header in wanted[0].headers)


def test_shards_in_any_sub_folder_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with Disk.make(folder, VOLUME, OPTIONS) as disk:
        shards = [stored(disk, number, 40_000) for number in range(6)]
    strange = folder / "shards" / "moved" / "by" / "hand"
    strange.mkdir(parents=True)
    for path in sorted((folder / "shards").glob("??/*.shard"))[:3]:
        path.rename(strange / path.name)
    (strange / "notes.txt").write_text("not ours")
    (folder / "index.db").unlink()
    with Disk(folder, OPTIONS) as disk:
        assert [header.shard for header in disk.listing(None, 100).headers] == shards
        assert all(whole(disk, shard) == content(shard, 40_000) for shard in shards)
    assert (strange / "notes.txt").exists()


def test_a_disk_is_open_once(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="open already"):
        Disk(tmp_path / "disk")
    code = "import sys; from pathlib import Path; from stoker.fs.disk import Disk; Disk(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "disk")], capture_output=True, text=True, check=False
    )
    assert "open already" in done.stderr


def test_what_is_no_disk_or_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="mounted"):
        Disk(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="empty"):
        Disk.make(tmp_path, VOLUME)
    folder = tmp_path / "disk"
    Disk.make(folder, VOLUME, OPTIONS).close()
    identity = folder / "stoker-disk.json"
    known = json.loads(identity.read_text())
    for changed, kind in (
        ({"format": 2, "more": [1]}, UsageError),
        ({"format": 2}, UsageError),
        ({"magic": "other"}, CorruptError),
        ({"disk": "x"}, CorruptError),
        ({"salt_key": "zz"}, CorruptError),
    ):
        identity.write_text(json.dumps(known | changed))
        with pytest.raises(kind):
            Disk(folder)
    identity.write_bytes(b"\xff" * 10_000)
    with pytest.raises(CorruptError):
        Disk(folder)
    identity.write_text(json.dumps(known))
    Disk(folder, OPTIONS).close()


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    options = DiskOptions(reserve_bytes=1 << 60)
    with Disk.make(tmp_path / "disk", VOLUME, options) as disk:
        for size_bytes in (100, 2 * MiB):
            with pytest.raises(NoSpaceError, match="full"):
                stored(disk, 1, size_bytes)
        assert (disk.status().free_bytes, disk.status().shards) == (0, 0)
        assert disk.listing(None, 10).headers == []


def test_scrubbing_goes_round_and_on_after_a_restart(tmp_path: Path) -> None:
    now = [1000.0]
    folder = tmp_path / "disk"
    Disk.make(folder, VOLUME, OPTIONS).close()
    with Disk(folder, OPTIONS, clock=lambda: now[0]) as disk:
        for number in range(40):
            stored(disk, number, 50_000 if number % 4 == 0 else 5000)
        now[0] = 2000.0
        report = disk.scrub(100_000)
        assert 100_000 <= report.checked_bytes < 200_000
        assert 0 < disk.status().scrub.done_ratio < 1
        checked = report.checked_shards
    with Disk(folder, OPTIONS, clock=lambda: now[0]) as disk:
        now[0] = 3000.0
        report = disk.scrub(10 * MiB)
        assert (report.done, report.checked_shards, report.bad) == (True, 40 - checked, [])
        status = disk.status().scrub
        assert (status.passes, status.done_ratio, status.oldest_unscrubbed_seconds) == (1, 0.0, 1000.0)
        assert status.checked_bytes == disk.status().used_bytes


def test_upkeep_checkpoints_compacts_and_scrubs(tmp_path: Path) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        upkeep = Upkeep(disk, UpkeepOptions(checkpoint_seconds=5, light_days=0.0))
        shards = [stored(disk, number, 9000) for number in range(100)]
        disk.remove(shards[10:])
        assert disk.changed()
        upkeep.turn(1.0)
        upkeep.turn(6.0)
        assert not disk.changed()
        assert disk.status().scrub.passes == 1
        upkeep.turn(6.0)
        assert disk.status().scrub.passes == 1  # the next one is due in two weeks
        assert len(list((tmp_path / "disk" / "segments").iterdir())) <= 2
        assert upkeep.last_error == ""


def test_a_keeper_has_turns_done_until_it_is_closed() -> None:
    class Turns:
        def __init__(self) -> None:
            self.come = threading.Event()

        def turn(self, elapsed_seconds: float) -> None:
            assert elapsed_seconds > 0
            self.come.set()

    turns = Turns()
    keeper = Keeper(turns, tick_seconds=0.001)
    assert turns.come.wait(10)
    keeper.close()
    keeper.close()
    turns.come.clear()
    assert not turns.come.wait(0.02)


def test_a_closed_disk_refuses(tmp_path: Path) -> None:
    disk = Disk.make(tmp_path / "disk", VOLUME, OPTIONS)
    stored(disk, 1, 100)
    disk.close()
    disk.close()
    with pytest.raises(StoreError):
        stored(disk, 2, 100)


def test_random_calls_equal_a_dict(tmp_path: Path) -> None:
    """Through reopenings in order, without order, and with the index made again."""
    chance = random.Random(3)
    model: dict[ShardId, int] = {}
    folder = tmp_path / "disk"
    disk = Disk.make(folder, VOLUME, OPTIONS)
    for step in range(500):
        kind = chance.choices(["put", "remove", "read", "compact", "reopen"], [30, 12, 20, 4, 1])[0]
        number = chance.randrange(60)
        shard = ShardId(number, 1, 0)
        if kind == "put":
            model[shard] = (0, 100, 5000, 20_000, 40_000)[number % 5]
            stored(disk, number, model[shard], durable=chance.random() < 0.1)
        elif kind == "remove":
            some = [ShardId(chance.randrange(60), 1, 0) for _ in range(chance.randrange(8))]
            disk.remove(some)
            model = {known: size for known, size in model.items() if known not in some}
        elif kind == "read" and shard in model:
            assert whole(disk, shard) == content(shard, model[shard])
        elif kind == "compact":
            disk.compact(30_000)
        elif kind == "reopen":
            disk.abandon() if step % 2 else disk.close()
            disk = Disk(folder, OPTIONS, rebuild=step % 3 == 0)
            assert [header.shard for header in disk.listing(None, 1000).headers] == sorted(model), step
    assert all(whole(disk, shard) == content(shard, size_bytes) for shard, size_bytes in model.items())
    assert disk.status().errors == 0
    disk.close()
