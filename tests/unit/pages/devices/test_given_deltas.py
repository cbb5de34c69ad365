"""A delta that somebody else made becomes a frame as it is."""

import numpy as np
import pytest

from stoker.kernels.deltas import two_level_diff
from stoker.pages import Conflict, InvalidDelta, Store

SIZE = 1000


@pytest.fixture
def store():
    with Store.open(size_bytes=1 << 20) as opened:
        yield opened


def changed(data: np.ndarray, *places: int) -> np.ndarray:
    made = data.copy()
    made[list(places)] += 1
    return made


def test_a_delta_is_applied_and_logged_as_it_is(store):
    page = store.allocate(SIZE)
    fresh = changed(page.read(), 0, 500, 999)
    payload, count = two_level_diff(page.read(), fresh)
    with store.batch() as batch:
        batch.apply_delta(page, payload, expect_epoch=0)
    assert np.array_equal(page.read(), fresh)
    assert page.epoch == 1
    assert [bytes(frame.payload) for frame in store.journal.scan(page=page.id)][-1] == payload
    assert store.counters()["changed_bytes"] == count
    assert store.replay(lsn=batch.lsn).pages[page.id].data.tolist() == fresh.tolist()


def test_operations_of_a_batch_see_a_given_delta(store):
    page = store.allocate(SIZE)
    first = changed(page.read(), 3)
    second = changed(first, 3, 700)
    with store.batch() as batch:
        batch.apply_delta(page, two_level_diff(page.read(), first)[0], expect_epoch=0)
        batch.apply_delta(page, two_level_diff(first, second)[0], expect_epoch=0)
        batch.write_at(page, 4, b"\x09")
        assert batch.read(page).tolist() == [*second[:4], 9, *second[5:]]
        batch.resize(page, 5)
    assert page.read().tolist() == [0, 0, 0, 2, 9]
    assert store.verify() == []


def test_a_dense_delta_becomes_an_image(store):
    page = store.allocate(SIZE)
    fresh = np.full(SIZE, 7, np.uint8)
    with store.batch() as batch:
        batch.apply_delta(page, two_level_diff(page.read(), fresh)[0], expect_epoch=0)
    assert np.array_equal(page.read(), fresh)
    assert store.counters()["images"] == 1


def test_what_does_not_fit_changes_nothing(store):
    page = store.allocate(SIZE)
    payload, _ = two_level_diff(page.read(), changed(page.read(), 1))
    with pytest.raises(Conflict), store.batch() as batch:
        batch.apply_delta(page, payload, expect_epoch=3)
    with pytest.raises(InvalidDelta), store.batch() as batch:
        batch.apply_delta(page, payload[:-1], expect_epoch=0)
    with store.batch() as batch:
        batch.apply_delta(page, b"", expect_epoch=0)
    assert page.epoch == 0
