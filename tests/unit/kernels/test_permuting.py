"""Natively and plainly the same permutation, which takes each number once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import UsageError
from stoker.kernels import plain_permuting
from stoker.kernels.native import native_kernels
from stoker.kernels.permuting import permute

_KEYS = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3000), _KEYS, st.integers(0, 50)), min_size=1, max_size=20))
def test_the_kernel_and_its_twin_agree(stretches):
    sizes, keys, repeats = zip(*stretches, strict=True)
    index = np.concatenate([np.arange(count) % size for size, _, count in stretches]).astype(np.int64)
    columns = (index, np.array(sizes, np.uint64), np.array(keys, np.uint64), np.array(repeats, np.int64))
    module = native_kernels()
    if module is None:
        pytest.skip("the native kernels are not installed")
    for rounds in (6, 12):
        native, plain = np.empty_like(index), np.empty_like(index)
        module.permute(*columns, rounds, native)
        plain_permuting.permute(*columns, rounds, plain)
        assert np.array_equal(native, plain)


@settings(deadline=None)
@given(st.integers(1, 40_000), _KEYS)
def test_every_number_is_taken_once(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_large_domains_are_the_same_too():
    index = np.arange(0, 1 << 21, 97)
    plain = np.empty_like(index)
    plain_permuting.permute(
        index, np.array([1 << 21], np.uint64), np.array([5], np.uint64), np.array([len(index)]), 6, plain
    )
    assert np.array_equal(permute(index, 1 << 21, 5), plain)


def test_every_index_may_have_a_size_and_key_of_its_own():
    sizes, keys = np.arange(1, 200), np.arange(199, dtype=np.uint64)
    moved = permute(np.zeros(199, np.int64), sizes, keys)
    assert ((moved >= 0) & (moved < sizes)).all()
    assert moved[50] == permute(np.zeros(1, np.int64), 51, 50)[0]


@pytest.mark.parametrize(
    ("index", "size", "repeats"),
    [([5], [5], None), ([-1], [5], None), ([0, 0], [5], [1]), ([0], [5, 5], [2, -1]), ([0], [0], None)],
)
def test_indices_that_have_no_place_are_refused(index, size, repeats):
    told = None if repeats is None else np.array(repeats)
    with pytest.raises(UsageError):
        permute(np.array(index), np.array(size), np.zeros(len(size), np.uint64), told)
