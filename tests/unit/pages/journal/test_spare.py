"""The spare segment: zeros on the disk before they are wanted, without a name, and nothing where that cannot be."""

import errno
import os
from pathlib import Path

import pytest
from log_makers import SALT, UUID, commits

from stoker.pages import Store
from stoker.pages.disk import OsDisk
from stoker.pages.errors import PagesError
from stoker.pages.journal import Journal, recover
from stoker.pages.journal.segments import FIRST_SEGMENT_BYTES, segment_names
from stoker.pages.journal.spare import SPARE_BYTES_MIN, Spare

SEGMENT = 2 << 20


def settled(spare: Spare) -> None:
    """Wait for the thread."""
    assert spare._thread is not None
    spare._thread.join()


def sizes(folder: Path) -> list[int]:
    return [(folder / name).stat().st_size for name in segment_names(OsDisk(), folder)]


def filled(journal: Journal, made: list[bytes], group: int = 20) -> None:
    """Write commits in groups, a sync each, and let a spare be ready before it is wanted."""
    end = journal.start()
    for start in range(0, len(made), group):
        end = journal.append(end, made[start : start + group], durable_lsn=end.last_lsn)
        journal.sync(end)
        if journal._spare._thread is not None:
            settled(journal._spare)
    assert recover(journal.folder).end == end


def test_segments_grow_from_little_and_are_spares_where_commits_wait_for_syncs(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=SEGMENT)
    filled(journal, commits(600, size_max=9000))
    found = sizes(tmp_path)
    assert found[0] == FIRST_SEGMENT_BYTES
    assert set(found[1:]) == {SEGMENT}
    assert len(found) > 3
    journal.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == segment_names(OsDisk(), tmp_path), "no other name"


def test_without_syncs_no_zeros_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spare, "begin", lambda _: pytest.fail("a spare was begun"))
    journal = Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=4 << 20)
    end = journal.start()
    for one in commits(600, size_max=9000):
        end = journal.append(end, [one])
    assert sizes(tmp_path) == [1 << 20, 2 << 20, 4 << 20]
    journal.close()


def test_a_spare_is_zeros_of_its_size_and_has_no_name(tmp_path: Path) -> None:
    spare = Spare(OsDisk(), tmp_path, SPARE_BYTES_MIN + 5)
    assert spare.take(1) is None
    spare.begin()
    settled(spare)
    assert os.listdir(tmp_path) == []
    assert spare.take(SPARE_BYTES_MIN + 6) is None, "too small"
    taken = spare.take(SPARE_BYTES_MIN)
    assert taken is not None
    handle, size_bytes = taken
    assert (size_bytes, os.fstat(handle).st_size) == (SPARE_BYTES_MIN + 5, SPARE_BYTES_MIN + 5)
    OsDisk().link(handle, tmp_path / "named")
    assert (tmp_path / "named").read_bytes() == bytes(SPARE_BYTES_MIN + 5)
    with pytest.raises(FileExistsError):
        OsDisk().link(handle, tmp_path / "named")
    os.close(handle)
    assert spare.take(1) is None
    spare.close()


def test_closing_ends_the_thread_and_keeps_nothing_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        spare = Spare(OsDisk(), tmp_path, 64 << 20)
        spare.begin()
        thread = spare._thread
        spare.close()
        assert thread is not None
        assert not thread.is_alive()
        assert spare.take(1) is None
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("fails", ["nameless", "link"])
def test_where_no_spare_can_be_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(OsDisk, fails, refuse)
    journal = Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=SEGMENT)
    filled(journal, commits(400, size_max=9000))
    journal.close()
    assert sizes(tmp_path)[:2] == [FIRST_SEGMENT_BYTES, SEGMENT]


def test_frames_that_memory_damaged_are_not_acknowledged(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, uuid=UUID, salt=SALT, segment_bytes=16384)
    made = commits(60)
    end = journal.append(journal.start(), made[:5])
    for count in (6, 60):  # in the segment, and over several
        damaged = [bytearray(one) for one in made[5:count]]
        damaged[-1][60] ^= 1
        with pytest.raises(PagesError, match="damaged"):
            journal.append(end, damaged)
    journal.sync(end)
    journal.close()


def test_a_store_that_closes_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    with Store.open(tmp_path / "bus", log_bytes=1 << 20) as store:
        pages = store.allocate_many([3000] * 64)
        for value in range(8):
            store.write_each(pages, [bytes([value + 1]) * 3000] * 64, durability="data")
        spare = store.flusher._journal._spare  # type: ignore[union-attr]
        assert spare._thread is not None
    assert not spare._thread.is_alive()
    assert {path.suffix for path in (tmp_path / "bus" / "log").iterdir()} == {".stk"}
    with Store.open(tmp_path / "bus") as store:
        assert store.verify() == []
