"""Damage and failures: what rotted is found, named and never given; a disk that fails is written to no more."""

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from crash_files import FOLDER, VOLUME, CrashFiles, CrashingDisk, failing

from stoker.core.errors import CorruptError, DeniedError, NoSpaceError, NotFoundError, StokerError, StoreError
from stoker.core.units import KiB, MiB
from stoker.fs.disk import Disk, DiskOptions, ShardHeader, ShardId, cell_crcs
from stoker.fs.disk.compacting import compact
from stoker.fs.disk.reading import opened, read_ranges
from stoker.fs.disk.segments import segment_path
from stoker.fs.disk.state import DiskState
from stoker.fs.disk.writing import checkpoint, put, remove, sync

OPTIONS = DiskOptions(small_bytes=32 * KiB, segment_bytes=256 * KiB, reserve_bytes=MiB, reserve_ratio=0.0)
SMALL, LARGE = ShardId(1, 1, 0), ShardId(2, 1, 0)
SIZES = {SMALL: 9000, LARGE: 50_000}


def content(shard: ShardId) -> bytes:
    return random.Random(str(shard)).randbytes(SIZES.get(shard, 700))


def header_of(shard: ShardId) -> ShardHeader:
    data = content(shard)
    return ShardHeader(VOLUME, shard, 1, 1, 0, 4096, len(data), len(data), cell_crcs([data], 4096))


def stored(disk: Disk, *shards: ShardId) -> None:
    for shard in shards:
        disk.put(header_of(shard), [content(shard)], durable=True)


def flip(folder: Path, wanted: bytes) -> None:
    """Change a bit of these bytes in whichever file holds them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (place := path.read_bytes().find(wanted)) >= 0:
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([wanted[0] ^ 4]))
            return
    raise AssertionError("the bytes are nowhere")


@pytest.mark.parametrize("shard", [SMALL, LARGE])
def test_a_bad_cell_is_named_counted_and_mended_by_another_put(tmp_path: Path, shard: ShardId) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE)
        flip(tmp_path / "disk", content(shard)[4500:4600])
        assert bytes(disk.get(shard, [(0, 4096)])[0]) == content(shard)[:4096]
        with pytest.raises(CorruptError, match=rf"{shard}.*disk.*cell 1") as caught:
            disk.get(shard, [(4000, 200)])
        assert str(tmp_path / "disk") in str(caught.value)
        status = disk.status()
        assert (status.bad_shards, status.errors) == (1, 1)
        assert disk.listing(None, 10).bad == [shard]
        assert disk.verify(shard) == 1
        stored(disk, shard)
        assert bytes(disk.get(shard, [(0, SIZES[shard])])[0]) == content(shard)
        assert (disk.status().bad_shards, disk.listing(None, 10).bad) == (0, [])
        assert disk.verify(shard) is None
    for rebuild in (False, True):
        with Disk(tmp_path / "disk", OPTIONS, rebuild=rebuild) as disk:
            assert bytes(disk.get(shard, [(0, SIZES[shard])])[0]) == content(shard)
            assert disk.status().bad_shards == 0


@pytest.mark.parametrize("shard", [SMALL, LARGE])
def test_scrubbing_finds_what_rotted_and_remembers_it(tmp_path: Path, shard: ShardId) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE, ShardId(3, 1, 0))
        flip(tmp_path / "disk", content(shard)[-100:])
        assert disk.scrub(MiB).bad == [shard]
    with Disk(tmp_path / "disk", OPTIONS) as disk:
        assert disk.listing(None, 10).bad == [shard]
        disk.remove([shard])
        assert disk.status().bad_shards == 0
        assert disk.scrub(MiB).bad == []


def test_rot_is_told_from_what_a_crash_tore_when_the_index_is_lost(tmp_path: Path) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, ShardId(3, 1, 0))
    flip(tmp_path / "disk", content(SMALL)[-100:])
    with Disk(tmp_path / "disk", OPTIONS, rebuild=True) as disk:
        page = disk.listing(None, 10)
        assert ([header.shard for header in page.headers], page.bad) == ([SMALL, ShardId(3, 1, 0)], [SMALL])
        assert page.complete
        with pytest.raises(CorruptError):
            disk.get(SMALL, [(0, SIZES[SMALL])])


@pytest.mark.parametrize("shard", [SMALL, LARGE])
def test_a_damaged_header_is_damage_and_makes_the_inventory_incomplete(tmp_path: Path, shard: ShardId) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE, ShardId(3, 1, 0))
    flip(tmp_path / "disk", header_of(shard).crcs)
    with Disk(tmp_path / "disk", OPTIONS) as disk:
        with pytest.raises(CorruptError, match=str(shard)):
            disk.get(shard, [(0, 10)])
        assert disk.listing(None, 10).bad == [shard]
    with Disk(tmp_path / "disk", OPTIONS, rebuild=True) as disk:
        page = disk.listing(None, 10)
        assert shard not in [header.shard for header in page.headers]
        assert not page.complete
        assert not disk.status().complete
        with pytest.raises(NotFoundError):
            disk.get(shard, [(0, 10)])
        stored(disk, shard)


def test_a_segment_whose_first_block_rotted_is_read_all_the_same(tmp_path: Path) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, ShardId(3, 1, 0))
    path = tmp_path / "disk" / "segments" / "00000001.seg"
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])
    for rebuild in (False, True):
        with Disk(tmp_path / "disk", OPTIONS, rebuild=rebuild) as disk:
            assert bytes(disk.get(SMALL, [(0, SIZES[SMALL])])[0]) == content(SMALL)
            stored(disk, ShardId(4 + rebuild, 1, 0))


@pytest.mark.slow
def test_rows_of_the_index_that_rotted_are_noticed(tmp_path: Path) -> None:
    """Each place of the index is spoilt in turn: nothing false is given, and in the end it is made again."""
    folder = tmp_path / "disk"
    shards = [ShardId(number, 1, 0) for number in range(3, 9)]
    with Disk.make(folder, VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE, *shards)
    index = folder / "index.db"
    good = index.read_bytes()
    chance = random.Random(1)
    for _ in range(25):
        data = bytearray(good)
        for place in [chance.randrange(len(data)) for _ in range(40)]:
            data[place] ^= 1 << chance.randrange(8)
        index.write_bytes(data)
        for _ in range(2):  # what the first opening found damaged, the second has made again
            with Disk(folder, OPTIONS) as disk:
                for shard in (SMALL, LARGE, *shards):
                    try:
                        assert bytes(disk.get(shard, [(0, len(content(shard)))])[0]) == content(shard)
                    except (CorruptError, NotFoundError):
                        continue
        with Disk(folder, OPTIONS, rebuild=True) as disk:
            assert len(disk.listing(None, 100).headers) == 8


def test_a_lost_file_and_a_lost_segment_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with Disk.make(folder, VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE)
        next((folder / "shards").rglob("*.shard")).unlink()
        report, _ = disk.scrub_lightly(None, 100)
        assert (report.missing, report.done) == ([LARGE], True)
        assert [header.shard for header in disk.listing(None, 10).headers] == [SMALL]
        assert disk.status().errors == 1
    (folder / "segments" / "00000001.seg").unlink()
    with Disk(folder, OPTIONS) as disk:
        assert disk.listing(None, 10).headers == []
        stored(disk, SMALL, LARGE)
        assert bytes(disk.get(SMALL, [(0, 9000)])[0]) == content(SMALL)


@pytest.mark.parametrize("step", [211, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("lost_index", [False, True])
def test_a_segment_cut_anywhere_gives_whole_shards_or_none(index_folder: Path, lost_index: bool, step: int) -> None:
    made = CrashingDisk(index_folder)
    shards = [ShardId(number, 1, 0) for number in range(3, 6)]
    for shard in shards:
        put(made.state, header_of(shard), [content(shard)], durable=True)
    remove(made.state, shards[:1])
    checkpoint(made.state, clean=True)
    made.state.close()
    path = segment_path(FOLDER / "segments", 1)
    whole = bytes(made.files.content(path))
    starts = [4096 + 1024 * number for number in range(3)]
    for length in range(5110, 6150) if step == 1 else range(4090, len(whole), step):  # each byte of one record
        made.files.content(path)[:] = whole[:length]
        disk = CrashingDisk(index_folder, made.files, None if lost_index else made.images[-1][1])
        for shard, start in zip(shards, starts, strict=True):
            try:
                with opened(disk.state, shard) as source:
                    assert bytes(read_ranges(disk.state, source, [(0, 700)])[0]) == content(shard)
                assert length >= start + 124 + 700
            except NotFoundError:
                assert shard == shards[0] or length < start + 1024
            except CorruptError:
                assert length < start + 1024
        disk.state.close()


def fill_some(disk: CrashingDisk, numbers: range, sizes: tuple[int, ...] = (700, 6000)) -> list[ShardId]:
    shards = [ShardId(number, 1, 0) for number in numbers]
    for shard in shards:
        SIZES[shard] = sizes[shard.slice_id % len(sizes)]
        put(disk.state, header_of(shard), [content(shard)], durable=False)
    return shards


def readable(state: DiskState, shards: list[ShardId]) -> bool:
    for shard in shards:
        with opened(state, shard) as source:
            assert bytes(read_ranges(state, source, [(0, source.header.shard_bytes)])[0]) == content(shard)
    return True


OPERATIONS = ("write", "sync", "sync_folder", "open", "rename", "reserve", "unlink")
QUICK = (("write", errno.EIO), ("write", errno.ENOSPC), ("sync", errno.EIO), ("unlink", errno.EROFS))


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        pytest.param(operation, number, marks=() if (operation, number) in QUICK else pytest.mark.slow)
        for operation in OPERATIONS
        for number in (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT)
    ],
)
def test_any_failing_operation_is_told_and_nothing_is_half_there(tmp_path: Path, operation: str, number: int) -> None:
    """Each call of the operation fails in turn, and from then on all of them."""
    for first in range(12):
        left = [first]
        armed = [False]

        def when(name: str, left: list[int] = left, armed: list[bool] = armed) -> int:
            if not armed[0] or name != operation:
                return 0
            left[0] -= 1
            return number if left[0] < 0 else 0

        files = CrashFiles(record=False, fail=failing(when))
        disk = CrashingDisk(tmp_path, files)
        before = fill_some(disk, range(10, 16))
        checkpoint(disk.state)
        armed[0] = True
        done: list[ShardId] = []
        gone: set[ShardId] = set()
        for shard in [ShardId(n, 1, 0) for n in range(20, 30)]:
            SIZES[shard] = (700, 6000)[shard.slice_id % 2]
            try:
                put(disk.state, header_of(shard), [content(shard)], durable=True)
                done.append(shard)
                if shard.slice_id % 5 == 0:
                    gone.add(done[0])
                    remove(disk.state, [done[0]])
                    del done[0]
                    checkpoint(disk.state)
            except (StoreError, DeniedError) as error:
                assert not isinstance(error, NotFoundError), error
        done = [shard for shard in done if shard not in gone]
        if operation != "open":
            assert readable(disk.state, [*before, *done])
        failed = left[0] < 0
        if failed and number in (errno.EIO, errno.EROFS):
            assert disk.state.read_only
            with pytest.raises(DeniedError, match="read-only"):
                put(disk.state, header_of(SMALL), [content(SMALL)], durable=False)
        armed[0] = False
        disk.state.close()
        again = CrashingDisk(tmp_path, files, disk.images[-1][1])
        assert readable(again.state, [*before, *done])
        assert not any(entry.bad for entry in again.state.index.page(None, 1000))
        put(again.state, header_of(SMALL), [content(SMALL)], durable=True)
        again.state.close()
        assert files.open_handles() == 0
        if not failed:
            return


def test_after_a_failed_sync_nothing_is_called_durable_until_it_is_opened_anew(tmp_path: Path) -> None:
    broken = [False]
    files = CrashFiles(record=False, fail=failing(lambda name: errno.EIO if broken[0] and name == "sync" else 0))
    disk = CrashingDisk(tmp_path, files)
    shards = fill_some(disk, range(30, 34))
    broken[0] = True
    with pytest.raises(StoreError, match="sync of a"):
        sync(disk.state, shards)
    broken[0] = False  # the kernel would say that all is well now
    for call in (
        lambda: sync(disk.state, shards),
        lambda: checkpoint(disk.state),
        lambda: put(disk.state, header_of(SMALL), [content(SMALL)], durable=True),
        lambda: remove(disk.state, shards),
        lambda: compact(disk.state, 1000),
    ):
        with pytest.raises(DeniedError, match="sync of a"):
            call()
    assert readable(disk.state, shards)
    disk.state.close()


def test_what_cannot_be_read_is_marked(tmp_path: Path) -> None:
    broken = [False]
    files = CrashFiles(record=False, fail=failing(lambda name: errno.EIO if broken[0] and name == "fill" else 0))
    disk = CrashingDisk(tmp_path, files)
    shards = fill_some(disk, range(40, 42))
    checkpoint(disk.state)
    broken[0] = True
    for shard in shards:
        with pytest.raises(StokerError), opened(disk.state, shard) as source:
            read_ranges(disk.state, source, [(0, 100)])
    assert [entry.bad for entry in disk.state.index.page(None, 10)] == [True, True]
    assert not disk.state.read_only
    broken[0] = False
    disk.state.close()


def test_damaged_shards_do_not_stop_compaction_nor_vanish_in_it(tmp_path: Path) -> None:
    disk = CrashingDisk(tmp_path)
    shards = fill_some(disk, range(50, 90), sizes=(700,))
    checkpoint(disk.state)
    first = [entry for entry in disk.state.index.page(None, 100) if entry.place.segment == 1]
    rotten, headless = first[0], first[1]
    data = disk.files.content(segment_path(FOLDER / "segments", 1))
    data[rotten.place.offset + 300] ^= 1
    data[headless.place.offset + 60] ^= 1
    kept = [rotten.header.shard, headless.header.shard, first[2].header.shard]
    remove(disk.state, [entry.header.shard for entry in first if entry.header.shard not in kept])
    while compact(disk.state, 5000):
        pass
    for shard in kept[:2]:
        with pytest.raises(CorruptError), opened(disk.state, shard) as source:
            read_ranges(disk.state, source, [(0, 700)])
    rest = [shard for shard in shards if shard not in {entry.header.shard for entry in first}]
    assert readable(disk.state, [kept[2], *rest])
    assert disk.state.index.facts.stuck == [1]
    remove(disk.state, kept)
    while compact(disk.state, 5000):
        pass
    assert segment_path(FOLDER / "segments", 1) not in disk.files.paths()
    checkpoint(disk.state, clean=True)
    disk.state.close()
    again = CrashingDisk(tmp_path, disk.files, None)
    assert [entry.header.shard for entry in again.state.index.page(None, 100)] == sorted(rest)
    again.state.close()


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize("change", ["copied", "grown"])
def test_a_moved_or_resized_disk_keeps_everything(tmp_path: Path, change: str) -> None:
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, SMALL, LARGE)
        identity = disk.disk
    folder = copied(tmp_path / "disk", tmp_path / "elsewhere") if change == "copied" else tmp_path / "disk"
    options = OPTIONS if change == "copied" else msgspec.structs.replace(OPTIONS, small_bytes=KiB, segment_bytes=MiB)
    with Disk(folder, options) as disk:
        assert (disk.disk, disk.status().shards) == (identity, 2)
        assert bytes(disk.get(LARGE, [(0, 50_000)])[0]) == content(LARGE)


def test_shards_of_another_volume_on_the_disk_are_told_and_kept(tmp_path: Path) -> None:
    other = VOLUME.replace("5", "6")
    with Disk.make(tmp_path / "theirs", other, OPTIONS) as disk:
        disk.put(msgspec.structs.replace(header_of(LARGE), volume=other), [content(LARGE)], durable=True)
        disk.put(msgspec.structs.replace(header_of(SMALL), volume=other), [content(SMALL)], durable=True)
    with Disk.make(tmp_path / "disk", VOLUME, OPTIONS) as disk:
        stored(disk, ShardId(7, 1, 0))
    shutil.copytree(tmp_path / "theirs" / "shards", tmp_path / "disk" / "shards", dirs_exist_ok=True)
    shutil.copy(tmp_path / "theirs" / "segments" / "00000001.seg", tmp_path / "disk" / "segments" / "00000009.seg")
    with Disk(tmp_path / "disk", OPTIONS, rebuild=True) as disk:
        page = disk.listing(None, 10)
        assert ([header.shard for header in page.headers], page.complete) == ([ShardId(7, 1, 0)], False)
        stored(disk, LARGE, SMALL)
    assert (tmp_path / "disk" / "segments" / "00000009.seg").exists()


def test_a_full_disk_still_removes(tmp_path: Path) -> None:
    full = [False]

    def when(name: str) -> int:
        return errno.ENOSPC if full[0] and name in ("write", "reserve") else 0

    files = CrashFiles(record=False, fail=failing(when))
    disk = CrashingDisk(tmp_path, files)
    shards = fill_some(disk, range(60, 64))
    checkpoint(disk.state)
    full[0] = True
    large = [shard for shard in shards if SIZES[shard] > 5000]
    remove(disk.state, large)
    assert [entry.header.shard for entry in disk.state.index.page(None, 10)] == [s for s in shards if s not in large]
    with pytest.raises(NoSpaceError):
        remove(disk.state, shards)
    full[0] = False
    remove(disk.state, shards)
    assert disk.state.index.page(None, 10) == []
    disk.state.close()


def test_a_file_system_that_is_read_only_is_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    target = tmp_path / "mounted"
    target.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(target)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        with Disk.make(target / "disk", VOLUME, OPTIONS) as disk:
            stored(disk, SMALL, LARGE)
        subprocess.run(["mount", "-o", "remount,ro", str(target)], check=True)
        with Disk(target / "disk", OPTIONS) as disk:
            assert "read-only" in disk.status().read_only
            assert [header.shard for header in disk.listing(None, 10).headers] == [SMALL, LARGE]
            assert bytes(disk.get(LARGE, [(0, 50_000)])[0]) == content(LARGE)
            for call in (lambda: stored(disk, ShardId(3, 1, 0)), lambda: disk.remove([SMALL])):
                with pytest.raises(DeniedError, match="read-only"):
                    call()
    finally:
        subprocess.run(["umount", str(target)], check=True)
