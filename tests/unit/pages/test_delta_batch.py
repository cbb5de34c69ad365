"""Deltas of many pages in columns do what the single ones do."""

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages.delta import Delta
from stoker.pages.delta_batch import DeltaBatch
from stoker.pages.errors import CorruptPages, FormatError, InvalidDelta, PageNotFound
from stoker.pages.frames import Codec

PAGES = np.arange(10, 30)


def images(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Twenty pages: one without a change, one wholly new, the others a little changed."""
    chance = np.random.default_rng(seed)
    olds = chance.integers(0, 256, (20, 500), np.uint8)
    news = olds.copy()
    hit = chance.random(olds.shape) < 0.02
    hit[:, 3] = True
    hit[4], hit[7] = False, True
    news[hit] ^= 0x55
    return olds, news


def batch(seed: int = 1) -> DeltaBatch:
    olds, news = images(seed)
    return DeltaBatch.diff(olds, news, pages=PAGES, epochs=np.arange(20), elem_width=2)


def test_a_batch_leads_all_pages_to_their_new_images() -> None:
    olds, news = images()
    made = batch()
    assert len(made) == 19
    assert 14 not in made.pages
    targets = {int(page): olds[row].copy() for row, page in enumerate(PAGES)}
    made.apply(targets)
    for row, page in enumerate(PAGES):
        assert np.array_equal(targets[int(page)], news[row])


def test_rows_are_the_single_deltas() -> None:
    olds, news = images()
    made = batch()
    rows = [Delta.diff(olds[row], news[row], page=10 + row, epoch=row, elem_width=2) for row in range(20)]
    changed = [row for row in rows if not row.is_empty]
    assert [made[row] for row in range(len(made))] == changed
    assert made[-1] == changed[-1]
    assert changed[6].codec == Codec.RAW
    again = DeltaBatch.of(changed)
    assert again.to_bytes() == made.to_bytes()
    with pytest.raises(IndexError):
        made[19]


def test_scans_keep_the_order() -> None:
    made = batch()
    twice = DeltaBatch.of([made[row] for row in (3, 5, 3, 0)])
    assert twice.scan(page=13).pages.tolist() == [13, 13]
    assert twice.scan(epochs=(0, 4)).epochs.tolist() == [3, 3, 0]
    assert len(twice.scan(page=13, epochs=(4, 9))) == 0
    assert twice.scan(page=13)[1] == made[3]
    assert len(twice.scan(page=99)) == 0


def test_merging_leaves_one_delta_a_page_that_does_the_same() -> None:
    olds, news = images()
    thirds = np.roll(news, 1, axis=0)
    rows = [
        Delta.diff(before[row], after[row], page=10 + row, epoch=epoch)
        for epoch, before, after in ((1, olds, news), (2, news, thirds))
        for row in range(20)
    ]
    merged = DeltaBatch.of(rows).merged()
    assert merged.pages.tolist() == PAGES.tolist()
    assert set(merged.epochs.tolist()) == {2}
    targets = {int(page): olds[row].copy() for row, page in enumerate(PAGES)}
    merged.apply(targets)
    assert np.array_equal(np.stack(list(targets.values())), thirds)
    assert merged.merged() is merged


def test_a_batch_that_does_not_fit_writes_nothing() -> None:
    olds, _ = images()
    made = batch()
    targets = {int(page): olds[row].copy() for row, page in enumerate(PAGES)}
    last = targets.pop(29)
    with pytest.raises(PageNotFound, match="not there"):
        made.apply(targets)
    targets[29] = last[:-1]
    with pytest.raises(InvalidDelta, match="another size"):
        made.apply(targets)
    targets[29] = last
    broken = DeltaBatch.of(
        [*(made[row] for row in range(3)), Delta(page=29, epoch=1, size_bytes=500, payload=b"xx", elem_width=2)]
    )
    with pytest.raises(InvalidDelta, match="does not fit"):
        broken.apply(targets)
    for row, page in enumerate(PAGES):
        assert np.array_equal(targets[int(page)], olds[row])


def test_bytes_hold_the_whole_batch() -> None:
    made = batch()
    again = DeltaBatch.from_bytes(made.to_bytes())
    assert [again[row] for row in range(19)] == [made[row] for row in range(19)]
    assert again.elem_width == 2
    assert len(DeltaBatch.from_bytes(DeltaBatch.of([]).to_bytes())) == 0


def test_damaged_bytes_are_refused_wherever_the_damage_is() -> None:
    data = batch().select(np.arange(3)).to_bytes()
    for end in range(len(data)):
        with pytest.raises(CorruptPages):
            DeltaBatch.from_bytes(data[:end])
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(CorruptPages):
            DeltaBatch.from_bytes(broken)
    with pytest.raises(FormatError, match="not whole"):
        DeltaBatch.from_bytes(data + b"\0")


def test_wrong_use_is_told() -> None:
    olds, news = images()
    with pytest.raises(InvalidDelta, match="do not fit together"):
        DeltaBatch.diff(olds, news, pages=[1, 2], epochs=[1, 2])
    with pytest.raises(UsageError, match="do not fit together"):
        DeltaBatch.diff(olds, news[1:], pages=PAGES, epochs=PAGES)
    with pytest.raises(InvalidDelta, match="element width"):
        DeltaBatch.of(
            [Delta.diff(olds[0], news[0], page=1, epoch=1), Delta.diff(olds[0], news[0], page=2, epoch=1, elem_width=4)]
        )
