"""Segments replayed whole lead to the same states as frames one by one, at every moment, and fail alike."""

from pathlib import Path

import numpy as np
import pytest

from stoker.kernels.replaying import EPOCH
from stoker.pages import PagesError, Store
from stoker.pages.errors import InvalidDelta
from stoker.pages.history import State, Target, replay, replay_tables
from stoker.pages.journal import FrameTable, scan, scan_tables


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a log of all types of frames over several segments; return its folder."""
    chance = np.random.default_rng(3)
    with Store.open(tmp_path_factory.mktemp("bus") / "s", size_bytes=4 << 20, segment_bytes=1 << 17) as store:
        ids = store.allocate_many([4096] * 40)
        rows = chance.integers(0, 256, (40, 4096), np.uint8)
        for turn in range(12):
            rows[chance.random(rows.shape) < 0.02] ^= 1
            store.update_many(ids, rows, source="" if turn % 3 else f"writer {turn}")
            store.write_at(int(ids[turn]), 7, bytes([turn] * 100))
            rows[turn] = store.read(int(ids[turn]))
            store.mark(f"turn {turn}")
            store.resize(int(ids[-1]), 1000 + turn)
            store.resize(int(ids[-1]), 4096)
            rows[-1] = store.read(int(ids[-1]))
            store.free(store.allocate(100, name=f"page {turn}").id)
        store.sync("os")
        assert store.folder is not None
        return store.folder.log


def same(one: State, other: State) -> None:
    assert one.digest() == other.digest()
    told = [(s.lsn, s.time_ns, s.marks, s.sources, s.max_generation, s.page_bytes) for s in (one, other)]
    assert told[0] == told[1]
    for page, image in one.pages.items():
        assert (image.lsn, image.epoch, image.state) == (
            other.pages[page].lsn,
            other.pages[page].epoch,
            other.pages[page].state,
        )


def test_the_log_has_several_segments(log: Path) -> None:
    assert len(list(log.glob("log-*.stk"))) > 2


def test_the_end_is_the_same(log: Path) -> None:
    same(replay_tables(State(), scan_tables(log)), replay(State(), scan(log)))


def test_every_moment_is_the_same(log: Path) -> None:
    frames = list(scan(log))
    times = sorted({frame.time_ns for frame in frames})
    moments = [Target(lsn=lsn) for lsn in range(1, frames[-1].lsn + 3, 41)]
    moments += [Target(time_ns=at + step) for at in times[:: max(1, len(times) // 5)] for step in (-1, 0)]
    moments += [Target(mark="turn 4"), Target(page=frames[0].page, epoch=3)]
    for moment in moments:
        same(replay_tables(State(), scan_tables(log), moment), replay(State(), iter(frames), moment))


def test_going_on_from_the_middle_is_the_same(log: Path) -> None:
    middle = replay(State(), scan(log), Target(lsn=300))
    same(replay_tables(middle, scan_tables(log, since=middle.lsn + 1)), replay(State(), scan(log)))


def test_moments_that_cannot_be_are_refused_alike(log: Path) -> None:
    for moment in (Target(mark="never"), Target(lsn=100)):
        base = replay(State(), scan(log), Target(lsn=300))
        with pytest.raises(PagesError) as slow:
            replay(base, scan(log), moment)
        base = replay(State(), scan(log), Target(lsn=300))
        with pytest.raises(PagesError) as fast:
            replay_tables(base, scan_tables(log), moment)
        assert str(fast.value) == str(slow.value)


def test_missing_frames_are_found(log: Path) -> None:
    tables = list(scan_tables(log))
    with pytest.raises(PagesError, match="frames are missing"):
        replay_tables(State(), [tables[0], tables[2]])
    with pytest.raises(PagesError, match="frames are missing"):
        replay_tables(replay(State(), scan(log), Target(lsn=40)), tables[2:])
    cut = np.delete(tables[1].rows, 20, axis=0)
    with pytest.raises(PagesError, match="frames are missing"):
        replay_tables(State(), [tables[0], FrameTable(tables[1].data, cut)])


def test_a_frame_that_does_not_fit_is_told(log: Path) -> None:
    first, table, *_ = scan_tables(log)
    rows = table.rows.copy()
    rows[20, EPOCH] += np.uint64(5)
    with pytest.raises(InvalidDelta, match="epoch of a frame"):
        replay_tables(State(), [first, FrameTable(table.data, rows)])
