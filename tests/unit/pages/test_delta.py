"""A delta says what changed on one page, and does just that; what is not a delta is refused."""

import msgspec
import numpy as np
import pytest

from stoker.pages.delta import Delta, XorDelta
from stoker.pages.delta_bytes import HEADER_BYTES
from stoker.pages.errors import ChecksumError, Conflict, CorruptPages, FormatError, InvalidDelta
from stoker.pages.frames import RUN_RECORD, Codec


def images(size: int = 1000, changed_ratio: float = 0.02, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    old = chance.integers(0, 256, size, np.uint8)
    new = old.copy()
    hit = chance.random(size) < changed_ratio
    new[hit] ^= chance.integers(1, 256, int(hit.sum()), np.uint8)
    return old, new


def made(old: np.ndarray, new: np.ndarray, epoch: int = 7) -> Delta:
    return Delta.diff(old, new, page=3, epoch=epoch)


def applied(delta: Delta, page: np.ndarray) -> np.ndarray:
    target = page.copy()
    delta.apply(target)
    return target


def test_a_delta_tells_what_changed() -> None:
    old, new = images()
    delta = made(old, new)
    assert np.array_equal(applied(delta, old), new)
    assert np.array_equal(delta.mask(), old != new)
    assert delta.changed_bytes == int((old != new).sum())
    assert not delta.is_empty
    assert delta.codec == Codec.TWO_LEVEL


def test_writes_of_equal_bytes_vanish() -> None:
    old, _ = images()
    delta = made(old, old.copy())
    assert delta.is_empty
    assert delta.changed_bytes == 0
    assert not delta.mask().any()
    assert delta.changed_ranges().shape == (0, 2)
    assert np.array_equal(applied(delta, old), old)


def test_a_dense_change_is_the_page_itself() -> None:
    old, new = images(changed_ratio=1.0)
    delta = made(old, new)
    assert (delta.codec, delta.payload) == (Codec.RAW, new.tobytes())
    assert delta.changed_bytes == 1000
    assert np.array_equal(applied(delta, old), new)
    for ratio in (0.0, 0.1, 0.5, 0.85, 0.9, 1.0):
        assert len(made(*images(changed_ratio=ratio)).payload) <= 1000


def test_ranges_are_merged_over_small_gaps() -> None:
    old, new = np.zeros(300, np.uint8), np.zeros(300, np.uint8)
    new[[0, 1, 2, 10, 14, 299]] = 1
    delta = made(old, new)
    assert delta.changed_ranges().tolist() == [[0, 3], [10, 1], [14, 1], [299, 1]]
    assert delta.changed_ranges(merge_gap=3).tolist() == [[0, 3], [10, 5], [299, 1]]
    assert delta.changed_ranges(merge_gap=300).tolist() == [[0, 300]]


def test_typed_arrays_are_images() -> None:
    old = np.arange(100, dtype=np.float32).reshape(10, 10)
    new = old.copy()
    new[3, 4] = -1
    delta = Delta.diff(old, new, page=1, epoch=1, elem_width=4, source="trainer")
    target = old.copy()
    delta.apply(target)
    assert np.array_equal(target, new)
    assert delta.source == "trainer"
    with pytest.raises(InvalidDelta, match="not contiguous"):
        Delta.diff(old[:, :5], new[:, :5], page=1, epoch=1)


def test_composed_deltas_do_what_the_two_do_in_turn() -> None:
    first, second = images()
    _, third = images(seed=2)
    third = np.where(np.arange(1000) % 9 == 0, third, second).astype(np.uint8)
    one, two = made(first, second, 7), msgspec.structs.replace(made(second, third, 8), source="later", note={"step": 4})
    both = one.compose(two)
    assert np.array_equal(applied(both, first), third)
    assert np.array_equal(both.mask(), one.mask() | two.mask())
    assert (both.epoch, both.source, both.note) == (8, "later", {"step": 4})
    assert one.compose(one) == one


def test_deltas_of_two_pages_do_not_compose() -> None:
    delta = made(*images())
    for other in ({"page": 4}, {"size_bytes": 1001}, {"elem_width": 2}):
        with pytest.raises(InvalidDelta, match="do not compose"):
            delta.compose(msgspec.structs.replace(delta, **other))
    with pytest.raises(InvalidDelta, match="epoch goes back"):
        delta.compose(msgspec.structs.replace(delta, epoch=6))


@pytest.mark.parametrize("changed_ratio", [0.0, 0.02, 1.0])
def test_an_inverted_delta_brings_the_old_page_back(changed_ratio: float) -> None:
    old, new = images(changed_ratio=changed_ratio)
    delta = made(old, new)
    back = delta.invert(old)
    assert np.array_equal(applied(back, new), old)
    assert back.epoch == 8
    assert delta.invert(old, epoch=6).epoch == 6
    with pytest.raises(InvalidDelta, match="another size"):
        delta.invert(old[:-1])


def test_runs_are_read_and_checked() -> None:
    runs = RUN_RECORD.pack(5, 3) + b"abc".ljust(8, b"\0") + RUN_RECORD.pack(7, 1) + b"Z".ljust(8, b"\0")
    delta = Delta(page=1, epoch=1, size_bytes=10, payload=runs, codec=Codec.RUNS)
    delta.validate()
    target = bytearray(10)
    delta.apply(target)
    assert target == b"\0\0\0\0\0abZ\0\0"
    assert delta.changed_bytes == 3
    assert np.flatnonzero(delta.mask()).tolist() == [5, 6, 7]
    empty = Delta(page=1, epoch=1, size_bytes=10)
    assert np.array_equal(applied(empty.compose(delta), np.zeros(10, np.uint8)), np.frombuffer(target, np.uint8))
    for bad in (runs[:-1], runs[:20], RUN_RECORD.pack(8, 3) + bytes(8), RUN_RECORD.pack(1 << 63, 1 << 63)):
        wrong = msgspec.structs.replace(delta, payload=bad)
        target = bytearray(10)
        for act in (wrong.validate, wrong.mask, lambda wrong=wrong, target=target: wrong.apply(target)):
            with pytest.raises(InvalidDelta, match="does not fit"):
                act()
        assert target == bytes(10)


def test_a_page_of_another_size_is_refused_and_stays() -> None:
    old, new = images()
    delta = made(old, new)
    for target in (bytearray(999), bytearray(1001)):
        before = bytes(target)
        with pytest.raises(InvalidDelta, match="another size"):
            delta.apply(target)
        assert target == before
    with pytest.raises(InvalidDelta, match="cannot be written"):
        delta.apply(bytes(1000))
    with pytest.raises(InvalidDelta, match="another size"):
        Delta.diff(old, new[1:], page=1, epoch=1)


@pytest.mark.parametrize(
    "field",
    [
        {"page": -1},
        {"page": 1 << 64},
        {"epoch": -1},
        {"size_bytes": 0},
        {"size_bytes": 1 << 40},
        {"elem_width": 3},
        {"codec": 9},
        {"codec": Codec.RAW},
        {"size_bytes": 100},
    ],
)
def test_fields_out_of_range_are_refused(field: dict[str, int]) -> None:
    with pytest.raises(InvalidDelta):
        msgspec.structs.replace(made(*images()), **field).to_bytes()


@pytest.mark.parametrize("changed_ratio", [0.0, 0.02, 1.0])
def test_bytes_hold_the_whole_delta(changed_ratio: float) -> None:
    delta = Delta.diff(*images(changed_ratio=changed_ratio), page=1 << 63, epoch=5, elem_width=2, source="größe")
    delta = msgspec.structs.replace(delta, note={"why": "test", "parts": [1, 2]})
    data = delta.to_bytes()
    assert Delta.from_bytes(data) == delta
    assert len(data) <= HEADER_BYTES + 1000 + 50


def test_damaged_bytes_are_refused_wherever_the_damage_is() -> None:
    data = made(*images(200)).to_bytes()
    for end in range(len(data)):
        with pytest.raises(CorruptPages):
            Delta.from_bytes(data[:end])
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(CorruptPages):
            Delta.from_bytes(broken)
    with pytest.raises(FormatError, match="not whole"):
        Delta.from_bytes(data + b"\0")


def test_a_delta_of_the_other_kind_or_of_nonsense_is_refused() -> None:
    old, new = images()
    with pytest.raises(FormatError, match="another kind"):
        XorDelta.from_bytes(made(old, new).to_bytes())
    wrong = msgspec.structs.replace(made(old, new), payload=b"x" * 50)
    with pytest.raises(InvalidDelta, match="does not fit"):
        wrong.to_bytes()
    with pytest.raises(ChecksumError):
        Delta.from_bytes(made(old, new).to_bytes()[:-1] + b"\xff")


def test_an_xor_delta_runs_both_ways() -> None:
    old, new = images()
    delta = XorDelta.diff(old, new, page=3, epochs=(4, 5))
    page = old.copy()
    assert delta.apply(page, 4) == 5
    assert np.array_equal(page, new)
    assert delta.apply(page, 5) == 4
    assert np.array_equal(page, old)
    assert delta.inverse().apply(page, 4) == 5
    with pytest.raises(Conflict, match="neither epoch"):
        delta.apply(page, 6)
    assert np.array_equal(page, new)
    assert XorDelta.from_bytes(delta.to_bytes()) == delta


def test_xor_deltas_compose_in_any_order_where_they_meet() -> None:
    first, second = images()
    third = np.roll(second, 1)
    one = XorDelta.diff(first, second, page=3, epochs=(1, 2))
    two = XorDelta.diff(second, third, page=3, epochs=(2, 5))
    both = one.compose(two)
    assert both == two.compose(one) == XorDelta.diff(first, third, page=3, epochs=(1, 5))
    page = first.copy()
    assert both.apply(page, 1) == 5
    assert np.array_equal(page, third)
    nothing = one.compose(one.inverse())
    assert nothing.is_empty
    assert (nothing.base_epoch, nothing.epoch) == (1, 1)
    with pytest.raises(InvalidDelta, match="do not meet"):
        one.compose(XorDelta.diff(second, third, page=3, epochs=(3, 4)))
    with pytest.raises(InvalidDelta, match="same epochs differ"):
        one.compose(XorDelta.diff(second, third, page=3, epochs=(1, 2)))
    with pytest.raises(InvalidDelta, match="differs from itself"):
        XorDelta.diff(first, second, page=3, epochs=(2, 2))
