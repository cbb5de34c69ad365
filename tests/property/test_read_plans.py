"""Read plans put every piece's bytes where they say, whatever the ranges and the blocks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.formats.api import Extent, Layout
from stoker.loader.layouts import Piece
from stoker.loader.reads import bytes_of, plan_reads

FILE = np.random.default_rng(7).integers(0, 256, 40_000, dtype=np.uint8)
RANGE = st.tuples(st.integers(0, 30_000), st.integers(0, 9_000))
PIECES = st.lists(st.lists(RANGE, min_size=1, max_size=3), min_size=1, max_size=4)


def piece(ranges: list[tuple[int, int]]) -> Piece:
    extent = Extent(tuple(ranges), 0, 1)
    return Piece(extent, Layout((extent,)), (0,), (0,))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), PIECES), min_size=1, max_size=4), st.sampled_from([1, 512, 4096]))
def test_reading_by_the_plan_gives_every_piece_its_bytes(tasks: list[tuple[int, list]], block_bytes: int) -> None:
    found = [[piece(ranges) for ranges in pieces] for _, pieces in tasks]
    plan = plan_reads([file for file, _ in tasks], found, block_bytes)
    if plan is None:
        assert block_bytes > 1
        return
    buffer = np.zeros(plan.size_bytes, np.uint8)
    taken = np.zeros(plan.size_bytes, bool)
    for number, offset, wanted, room, at in plan.rows:
        assert offset % block_bytes == at % block_bytes == room % block_bytes == 0
        assert wanted <= room
        assert at + room <= plan.size_bytes
        assert not taken[at : at + room].any()
        taken[at : at + room] = True
        assert number < len(plan.files)
        got = FILE[offset : offset + room]
        buffer[at : at + len(got)] = got
    for pieces, spans in zip(found, plan.spans, strict=True):
        for each, (start, end) in zip(pieces, spans, strict=True):
            assert end - start == bytes_of((each,))
            expected = b"".join(FILE[offset : offset + length].tobytes() for offset, length in each.extent.ranges)
            assert buffer[start:end].tobytes() == expected
