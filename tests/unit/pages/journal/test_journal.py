"""Segments: written, cut, damaged, full, failing."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from log_makers import FOLDER, SALT, UUID, commit, commits, journal_on, recovered_bytes

from stoker.pages.errors import ChecksumError, CorruptLog, FormatError, OutOfSpace, PagesError, Poisoned
from stoker.pages.frames import FrameType
from stoker.pages.journal import Journal, journal_stats, recover, scan
from stoker.pages.journal.segments import SEGMENT_HEADER_BYTES, segment_name
from stoker.testing.crash_states import CrashDisk

GOLDEN = Path(__file__).parent / "golden" / segment_name(1)


def small_log() -> tuple[CrashDisk, list[bytes], Path]:
    disk = CrashDisk(record=False)
    journal, end = journal_on(disk)
    made = commits(5, 3, 60)
    end = journal.append(end, made)
    journal.note_durable(end)
    return disk, made, FOLDER / segment_name(1)


def put(disk: CrashDisk, path: Path, data: bytes) -> None:
    handle = disk.open(path)
    disk.truncate(handle, 0)
    disk.write(handle, 0, [data])
    disk.close(handle)


def test_frames_come_back_in_order_over_many_segments() -> None:
    disk = CrashDisk(record=False)
    journal, end = journal_on(disk)
    made = commits(200)
    for one in made:
        end = journal.append(end, [one])
    assert len(disk.names(FOLDER)) > 5
    assert recovered_bytes(disk) == b"".join(made)
    assert recover(FOLDER, disk=disk).end == end
    assert [frame.lsn for frame in scan(FOLDER, since=100, until=110, disk=disk)] == list(range(100, 111))
    stats = journal_stats(scan(FOLDER, disk=disk))
    assert (stats.commits, stats.last_lsn) == (200, end.last_lsn)


def test_a_commit_larger_than_a_segment_has_a_longer_one() -> None:
    disk = CrashDisk(record=False)
    journal, end = journal_on(disk)
    end = journal.append(end, [commit(1, [100]), commit(2, [50_000, 3]), commit(4, [5])])
    assert recover(FOLDER, disk=disk).end == end


def test_every_truncation_gives_the_commits_before_it() -> None:
    disk, made, path = small_log()
    data = disk.read(path)
    data = data[:512] + bytes(SEGMENT_HEADER_BYTES - 512) + data[SEGMENT_HEADER_BYTES:]  # as if never synced
    ends = [SEGMENT_HEADER_BYTES]
    for one in made:
        ends.append(ends[-1] + len(one))
    for length in range(SEGMENT_HEADER_BYTES, ends[-1] + 9):
        put(disk, path, data[:length])
        whole = sum(end <= length for end in ends) - 1
        assert recovered_bytes(disk) == b"".join(made[:whole]), length


def test_every_flipped_bit_is_found() -> None:
    disk, made, path = small_log()
    data = disk.read(path)
    end = SEGMENT_HEADER_BYTES + sum(map(len, made))
    whole = b"".join(made)
    for at in range(end):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        put(disk, path, bytes(flipped))
        if 512 <= at < SEGMENT_HEADER_BYTES:
            assert recovered_bytes(disk) == whole  # the note, or nothing: the frames speak for themselves
            continue
        with pytest.raises((CorruptLog, ChecksumError, FormatError)):
            recovered_bytes(disk)


def test_zeroed_tails_and_stale_bytes_are_no_frames() -> None:
    disk, made, path = small_log()
    data = disk.read(path)
    end = SEGMENT_HEADER_BYTES + sum(map(len, made))
    data = data[:512] + bytes(SEGMENT_HEADER_BYTES - 512) + data[SEGMENT_HEADER_BYTES:]
    put(disk, path, data[:end] + commit(3, [40], SALT + 1) + commit(2, [9]))
    assert recovered_bytes(disk) == b"".join(made)
    assert not disk.read(path)[end:].strip(b"\0"), "stale bytes must not come back later"
    for cut in range(SEGMENT_HEADER_BYTES, end, 13):
        put(disk, path, data[:cut] + bytes(200))
        assert b"".join(made).startswith(recovered_bytes(disk))


def test_damage_in_the_middle_is_told_and_cut_only_when_asked() -> None:
    disk, made, path = small_log()
    data = bytearray(disk.read(path))
    data[SEGMENT_HEADER_BYTES + len(made[0]) + 60] ^= 0xFF
    put(disk, path, bytes(data))
    with pytest.raises(CorruptLog, match="damaged before its end"):
        recover(FOLDER, disk=disk)
    assert recover(FOLDER, disk=disk, policy="point_in_time").cut_bytes > 0
    assert recovered_bytes(disk) == made[0]


def test_a_missing_segment_is_damage() -> None:
    disk = CrashDisk(record=False)
    journal, end = journal_on(disk)
    for one in commits(200):
        end = journal.append(end, [one])
    disk.unlink(FOLDER / disk.names(FOLDER)[2])
    with pytest.raises(CorruptLog):
        recover(FOLDER, disk=disk)
    with pytest.raises(CorruptLog, match="gap"):
        list(scan(FOLDER, disk=disk))


def test_old_segments_go_and_the_floor_is_known() -> None:
    disk = CrashDisk(record=False)
    journal, end = journal_on(disk)
    for one in commits(200):
        end = journal.append(end, [one])
    gone = journal.remove_below(150)
    found = recover(FOLDER, disk=disk)
    assert gone
    assert 1 < found.first_lsn <= 150
    assert found.end == end


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EIO, PagesError)])
@pytest.mark.parametrize("operation", ["write", "sync", "reserve", "rename", "sync_folder"])
def test_a_failing_disk_is_told_and_nothing_more_is_taken(number: int, kind: type[PagesError], operation: str) -> None:
    failing = [False]

    def fail(name: str) -> None:
        if failing[0] and name == operation:
            raise OSError(number, os.strerror(number))

    disk = CrashDisk(record=False, fail=fail)
    journal, end = journal_on(disk)
    made = commits(40)
    end = journal.append(end, made[:10])
    journal.sync(end)
    failing[0] = True
    with pytest.raises(kind):
        after = journal.append(end, made[10:])
        journal.sync(after, full=True)
    failing[0] = False
    with pytest.raises(Poisoned):
        journal.append(end, made[10:11])
    with pytest.raises(Poisoned):
        journal.sync(end)
    assert recovered_bytes(disk).startswith(b"".join(made[:10]))


def test_a_file_size_limit_is_out_of_space(tmp_path: Path) -> None:
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from log_makers import UUID, SALT, commits
from stoker.pages.errors import OutOfSpace
from stoker.pages.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.create(Path({str(tmp_path)!r}), uuid=UUID, salt=SALT, segment_bytes=65536)
end = journal.append(journal.start(), commits(30))
journal.sync(end)
resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))
try:
    journal.append(end, commits(400)[30:])
except OutOfSpace as error:
    print("refused:", error, end.last_lsn)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert recover(tmp_path).last_lsn >= int(done.stdout.split()[-1])


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from log_makers import commit
from stoker.pages.journal import Journal, recover
folder = Path(sys.argv[1])
found = recover(folder)
journal, end = Journal.open(folder, segment_bytes=16384), found.end
while True:
    end = journal.append(end, [commit(end.last_lsn + 1, [end.last_lsn % 3000, 5])])
    journal.sync(end)
    print(end.last_lsn, flush=True)
"""
    Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=16384).close()
    for round_ in range(10):
        child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged = 0
        for _ in range(20 + 13 * round_):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
        child.wait()
        child.stdout.close()
        assert recover(tmp_path).last_lsn >= acknowledged


def test_version_one_is_frozen(tmp_path: Path) -> None:
    frames = list(scan(GOLDEN.parent))
    assert [frame.lsn for frame in frames] == [1, 2, 3, 4]
    assert bytes(frames[0].payload) == b"golden"
    assert FrameType(frames[3].type) == FrameType.DELTA
    journal = Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=SEGMENT_HEADER_BYTES * 2)
    journal.append(journal.start(), golden_commits())
    assert (tmp_path / GOLDEN.name).read_bytes() == GOLDEN.read_bytes()


def golden_commits() -> list[bytes]:
    from stoker.pages.frames import LAST, Frame, encode_frame

    first = Frame(1, FrameType.MARK, time_ns=7, flags=LAST, payload=b"golden")
    return [encode_frame(first, SALT), commit(2, [3, 64, 0])]


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        recover(tmp_path)
    (tmp_path / segment_name(1)).write_bytes(b"x" * 5000)
    with pytest.raises(CorruptLog):
        recover(tmp_path)
