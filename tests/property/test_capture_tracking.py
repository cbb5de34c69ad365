"""For any writes, the kernel's tracking and a compare of everything collect the same runs."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.pages.capture.arrays import TrackedArray
from stoker.pages.capture.runs import changed_runs

SIZE = 40 * 4096 + 123
WRITES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9000), st.integers(0, 2)), min_size=0, max_size=12)


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(WRITES, min_size=1, max_size=4), gap_bytes=st.integers(0, 20))
def test_tracked_changes_equal_compared_ones(rounds: list[list[tuple[int, int, int]]], gap_bytes: int) -> None:
    with TrackedArray(SIZE, np.uint8) as tracked, TrackedArray(SIZE, np.uint8, probe=lambda: "forced") as compared:
        replica = np.zeros(SIZE, np.uint8)
        for writes in rounds:
            for offset, length, value in writes:
                tracked.array[offset : offset + length] = value
                compared.array[offset : offset + length] = value
            seen, wanted = tracked.collect(gap_bytes=gap_bytes), compared.collect(gap_bytes=gap_bytes)
            seen.apply(replica)
            assert np.array_equal(replica, tracked.array)
            if gap_bytes == 0:
                assert list(seen) == list(wanted)


@given(data=st.data(), size=st.integers(0, 300), gap_bytes=st.integers(0, 5))
def test_runs_are_exact(data: st.DataObject, size: int, gap_bytes: int) -> None:
    old = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    new = old.copy()
    for place in data.draw(st.lists(st.integers(0, max(size - 1, 0)), max_size=40 if size else 0)):
        new[place] = data.draw(st.integers(0, 255))
    runs = changed_runs(old, new, gap_bytes).tolist()
    inside = np.zeros(size, bool)
    for offset, length in runs:
        assert old[offset] != new[offset]
        assert old[offset + length - 1] != new[offset + length - 1]
        inside[offset : offset + length] = True
    assert not (old != new)[~inside].any()
    assert all(b - a - n > gap_bytes for (a, n), (b, _) in pairwise(runs))
    if gap_bytes == 0:
        assert (old != new)[inside].all()
