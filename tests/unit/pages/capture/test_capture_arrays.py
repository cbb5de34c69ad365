"""Tracked arrays and edits: exactly the changed bytes, however they were written."""

import mmap

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages.capture.arrays import TrackedArray, TrackedEdit, track
from stoker.pages.capture.runs import changed_runs
from stoker.pages.capture.userfault import PAGE_BYTES


def refused() -> str:
    return "forced"


@pytest.mark.parametrize("forced", [False, True])
def test_collect_tells_changed_bytes_and_no_equal_ones(forced: bool) -> None:
    options = {"probe": refused} if forced else {}
    with TrackedArray((1000, 1000), np.float32, **options) as tracked:
        tracked.array[3, 5] = np.float32(1.5)
        tracked.array[700] = 0
        changes = tracked.collect()
        assert list(changes) == [((3 * 1000 + 5) * 4 + 2, b"\xc0\x3f")]
        assert len(tracked.collect()) == 0
        tracked.array[3, 5] = 0
        assert list(tracked.collect()) == [((3 * 1000 + 5) * 4 + 2, b"\x00\x00")]


def test_refused_tracking_tells_its_reason() -> None:
    with TrackedArray(10_000, np.int64, probe=refused) as tracked:
        assert (tracked.tracking.kind, tracked.tracking.reason) == ("compare", "forced")


def test_array_outlives_its_tracking() -> None:
    tracked = TrackedArray((64, 64), np.int64)
    array = tracked.array
    tracked.close()
    del tracked
    array[:] = 7
    assert int(array.sum()) == 7 * 64 * 64


@pytest.mark.parametrize("shape", [0, 1, (0, 5), ()])
def test_small_and_empty_arrays_are_tracked(shape: object) -> None:
    with TrackedArray(shape, np.uint16) as tracked:
        tracked.array[...] = 513
        assert len(tracked.collect()) == (1 if tracked.array.size else 0)


def test_existing_array_is_tracked_with_its_first_and_last_bytes() -> None:
    array = np.arange(300_000, dtype=np.uint8)
    with track(array) as tracked:
        array[0] += 1
        array[-1] += 1
        array[150_000] += 1
        assert [offset for offset, _ in tracked.collect()] == [0, 150_000, 299_999]


def test_arrays_of_objects_and_strided_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="Python objects"):
        track(np.array([None, 1], dtype=object))
    with pytest.raises(UsageError, match="C-contiguous"):
        track(np.zeros((10, 10))[:, ::2])


def test_close_runs_merge_only_within_the_gap() -> None:
    old, new = np.zeros(1000, np.uint8), np.zeros(1000, np.uint8)
    new[[10, 12, 20, 999]] = 1
    assert changed_runs(old, new).tolist() == [[10, 1], [12, 1], [20, 1], [999, 1]]
    assert changed_runs(old, new, gap_bytes=1).tolist() == [[10, 3], [20, 1], [999, 1]]
    assert changed_runs(old, new, gap_bytes=7).tolist() == [[10, 11], [999, 1]]
    assert changed_runs(old, new + 1).tolist() == [[0, 1000]]


def test_runs_that_cross_chunks_are_one() -> None:
    with TrackedArray(1024 * 1024, np.uint8) as tracked:
        tracked.array[1000:900_000] = 1
        assert tracked.collect().ranges.tolist() == [[1000, 899_000]]


@pytest.mark.parametrize("size", [100, 3 * PAGE_BYTES + 17, 2 * 1024 * 1024])
def test_edit_yields_runs_that_make_the_buffer_from_the_base(size: int) -> None:
    base = np.random.Generator(np.random.PCG64(size)).integers(0, 256, size, np.uint8)
    base.flags.writeable = False
    copy = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy[:] = base.tobytes()
    with TrackedEdit(memoryview(copy), base, track_bytes_min=4 * PAGE_BYTES) as edit:
        assert len(edit.runs()) == 0
        copy[size // 2] ^= 255
        copy[size - 3 : size] = bytes(byte ^ 1 for byte in copy[size - 3 : size])
        runs = edit.runs()
        assert [(offset, len(data)) for offset, data in runs] == [(size // 2, 1), (size - 3, 3)]
        assert len(edit.runs()) == 2
    rebuilt = base.copy()
    runs.apply(rebuilt)
    assert rebuilt.tobytes() == copy[:]
    with pytest.raises(UsageError, match="not tracked"):
        edit.runs()


def test_edit_of_another_size_than_its_base_is_refused() -> None:
    with pytest.raises(UsageError, match="differ in size"):
        TrackedEdit(bytearray(10), np.zeros(11, np.uint8))


def test_small_edit_is_compared_and_says_so() -> None:
    with TrackedEdit(bytearray(10), np.zeros(10, np.uint8)) as edit:
        assert "faster" in edit.tracking.reason


def test_writes_of_torch_into_a_tracked_array_are_collected() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")
    with TrackedArray((512, 512), np.float32) as tracked:
        tensor = torch.from_numpy(tracked.array)
        tensor[100].fill_(1.0)
        changes = tracked.collect(gap_bytes=2)
        assert changes.ranges.tolist() == [[100 * 512 * 4 + 2, 512 * 4 - 2]]


def test_many_scattered_pages_are_collected_as_exactly_as_one() -> None:
    chance = np.random.Generator(np.random.PCG64(5))
    with TrackedArray(3000 * PAGE_BYTES, np.uint8) as tracked:
        mirror = np.zeros(3000 * PAGE_BYTES, np.uint8)
        for gap_bytes in (0, 5):
            places = np.unique(chance.integers(0, mirror.size, 1500))
            places = np.concatenate((places, [PAGE_BYTES - 1, PAGE_BYTES, 7 * PAGE_BYTES - 1, 9 * PAGE_BYTES]))
            tracked.array[places] += 1
            changes = tracked.collect(gap_bytes=gap_bytes)
            expected = changed_runs(mirror, tracked.array)
            if not gap_bytes:
                assert changes.ranges.tolist() == expected.tolist()
            changes.apply(mirror)
            assert np.array_equal(mirror, tracked.array)
