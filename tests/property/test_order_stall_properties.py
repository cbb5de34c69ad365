"""The two ways of splitting a stall agree, and its parts add up to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.loader.stalls import STAGES, Stall, counted, split_stall, swept

SPANS = st.lists(
    st.tuples(st.integers(0, len(STAGES) - 1), st.integers(0, 5), st.integers(0, 90), st.integers(1, 60)),
    max_size=60,
)


@given(SPANS, st.integers(0, 5), st.integers(0, 80), st.integers(1, 60))
def test_the_parts_of_a_stall_add_up_and_both_ways_agree(
    drawn: list[tuple[int, int, int, int]], step: int, request: int, length: int
) -> None:
    spans = np.array([(stage, made_for, start, start + took) for stage, made_for, start, took in drawn], dtype=np.int64)
    spans = spans.reshape(-1, 4)
    stall = Stall(step, request, request + length)
    assert list(counted(stall, spans)) == pytest.approx(list(swept(stall, spans)))
    split = split_stall(stall, spans)
    assert split.sum() == pytest.approx(length)
    assert (split >= 0).all()
