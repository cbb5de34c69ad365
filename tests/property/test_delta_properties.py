"""Deltas keep their laws, and the native kernels equal their plain twins at every CPU level."""

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.kernels import plain_deltas, plain_wire
from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels
from stoker.pages.delta import Delta, XorDelta
from stoker.pages.delta_batch import DeltaBatch
from stoker.pages.wire import MODES, decode_wire, encode_wire

native_only = pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")

SIZES = st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097]) | st.integers(1, 700)


@st.composite
def chains(draw: st.DrawFn, length: int = 2) -> list[np.ndarray]:
    """Images of one size, each the one before with an adversarial or a random part changed."""
    size = draw(SIZES)
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = [chance.integers(0, 256, size, np.uint8)]
    for _ in range(length - 1):
        shape = draw(st.sampled_from(["none", "all", "alternating", "border", "some", "back"]))
        mask = np.zeros(size, np.bool_)
        if shape == "all":
            mask[:] = True
        elif shape == "alternating":
            mask[draw(st.integers(0, 1)) :: 2] = True
        elif shape == "border":
            places = np.arange(63, size, 64)
            mask[places] = True
            mask[np.minimum(places + 1, size - 1)] = True
        elif shape == "some":
            mask = chance.random(size) < draw(st.sampled_from([0.003, 0.02, 0.2, 0.7]))
        image = images[-1].copy()
        if shape == "back":
            image = images[0].copy()
        image[mask] ^= chance.integers(1, 256, int(mask.sum()), np.uint8)
        images.append(image)
    return images


def applied(delta: Delta, image: np.ndarray) -> np.ndarray:
    target = image.copy()
    delta.apply(target)
    return target


def steps(images: list[np.ndarray]) -> list[Delta]:
    return [Delta.diff(old, new, page=1, epoch=epoch) for epoch, (old, new) in enumerate(itertools.pairwise(images), 1)]


@native_only
@settings(max_examples=300)
@given(level=st.sampled_from(CPU_LEVELS), images=chains(), shift=st.integers(0, 63))
def test_native_pages_equal_plain_ones(level: str, images: list[np.ndarray], shift: int) -> None:
    native: Any = native_kernels()
    old, new = images
    place = slice(shift, shift + old.size)
    base, fresh, target = (np.full(old.size + 80, 0x5A, np.uint8) for _ in range(3))
    base[place], fresh[place], target[place] = old, new, old
    wanted = plain_deltas.two_level_diff(old.data, new.data)
    with forced_cpu_level(level):
        assert native.two_level_diff(base[place], fresh[place]) == wanted
        assert native.two_level_apply(target[place], wanted[0])
        assert native.two_level_diff_update(base[place], fresh[place]) == wanted
        assert native.two_level_changed(old.size, wanted[0]) == wanted[1]
    assert np.array_equal(base, fresh)
    assert np.array_equal(target, fresh)


@native_only
@settings(max_examples=300)
@given(size=st.integers(1, 200), payload=st.binary(max_size=300), words=st.lists(st.integers(0, 2**64 - 1), max_size=3))
def test_payloads_are_accepted_and_refused_alike(size: int, payload: bytes, words: list[int]) -> None:
    native: Any = native_kernels()
    payload = b"".join((word & 0xF).to_bytes(8, "little") for word in words) + payload[: len(words) * 5]
    by_native, by_plain = np.zeros((2, size), np.uint8)
    taken = native.two_level_apply(by_native, payload)
    assert taken == plain_deltas.two_level_apply(by_plain.data, memoryview(payload))
    assert np.array_equal(by_native, by_plain)
    assert native.two_level_changed(size, payload) == plain_deltas.two_level_changed(size, memoryview(payload))


@native_only
@settings(max_examples=200)
@given(
    level=st.sampled_from(CPU_LEVELS), images=chains(), width=st.sampled_from([1, 2, 4, 8]), spare=st.integers(-2, 2)
)
def test_native_elements_equal_plain_ones(level: str, images: list[np.ndarray], width: int, spare: int) -> None:
    native: Any = native_kernels()
    whole = images[0].size // width * width
    old, new = (image[:whole] for image in images)
    count = whole // width
    differing = int((old.reshape(count, width) != new.reshape(count, width)).any(axis=1).sum())
    kept = max(0, min(count, differing + spare))
    made = []
    for kernels in (native, plain_wire):
        out = [np.zeros(8 * -(-count // 64), np.uint8), np.zeros(kept + count // 255 + 1, np.uint8)]
        out += [np.zeros(kept * width, np.uint8) for _ in range(2)]
        with forced_cpu_level(level):
            sizes = kernels.diff_elements(old.data, new.data, width, *out)
        assert sizes[0] == differing
        made.append((out[0].tobytes(), *(part.tobytes() for part in out[1:] if differing <= kept)))
    assert made[0] == made[1]
    for coding in (plain_wire.BITS, plain_wire.ULPS):
        planes, again = np.zeros((2, whole), np.uint8)
        native.encode_planes(old.data, new.data, width, coding, planes)
        plain_wire.encode_planes(old.data, new.data, width, coding, again)
        assert np.array_equal(planes, again)


@native_only
@settings(max_examples=300)
@given(
    count=st.integers(0, 300),
    width=st.sampled_from([1, 2, 4, 8]),
    gaps=st.lists(st.sampled_from([0, 1, 5, 100, 254, 255]), max_size=6),
    bits=st.lists(st.integers(0, 319), max_size=6),
    codes=st.integers(0, 6),
)
def test_places_are_accepted_and_refused_alike(
    count: int, width: int, gaps: list[int], bits: list[int], codes: int
) -> None:
    native: Any = native_kernels()
    mask = np.zeros(64 * -(-count // 64), np.uint8)
    mask[[bit for bit in bits if bit < mask.size]] = 1
    planes = np.arange(codes * width, dtype=np.uint8)
    for places, by_gaps in ((bytes(gaps), True), (np.packbits(mask, bitorder="little").tobytes(), False)):
        by_native, by_plain = np.zeros((2, count * width), np.uint8)
        for coding in (plain_wire.BITS, plain_wire.ULPS):
            taken = native.apply_places(by_native.data, width, coding, planes.data, places, by_gaps)
            arguments = (width, coding, planes.data, memoryview(places), by_gaps)
            assert taken == plain_wire.apply_places(by_plain.data, *arguments)
            assert np.array_equal(by_native, by_plain)


@given(images=chains())
def test_a_difference_leads_from_one_image_to_the_other(images: list[np.ndarray]) -> None:
    old, new = images
    (delta,) = steps(images)
    assert np.array_equal(applied(delta, old), new)
    assert np.array_equal(applied(delta, applied(delta, old)), new)
    assert np.array_equal(applied(delta.invert(old), new), old)
    assert Delta.diff(old, old.copy(), page=1, epoch=1).is_empty
    assert delta.is_empty == bool((old == new).all())
    assert Delta.from_bytes(delta.to_bytes()) == delta
    covered = np.zeros(old.size, np.bool_)
    for offset, length in delta.changed_ranges().tolist():
        covered[offset : offset + length] = True
    assert np.array_equal(covered, delta.mask())


@settings(max_examples=150)
@given(images=chains(4))
def test_composing_is_an_idempotent_monoid(images: list[np.ndarray]) -> None:
    one, two, three = steps(images)
    assert np.array_equal(applied(one.compose(two), images[0]), images[2])
    assert one.compose(two).compose(three) == one.compose(two.compose(three))
    assert np.array_equal(one.compose(two).mask(), one.mask() | two.mask())
    nothing = Delta(page=1, epoch=1, size_bytes=images[0].size)
    assert one.compose(one) == one == nothing.compose(one)
    assert one.compose(nothing).payload == one.payload
    again = msgspec.structs.replace(one, epoch=9)
    assert one.compose(two).compose(again) == two.compose(again)
    if not (one.mask() & two.mask()).any():
        swapped = msgspec.structs.replace(two, epoch=1).compose(one)
        assert swapped.payload == one.compose(two).payload


@settings(max_examples=150)
@given(images=chains(4))
def test_xor_deltas_are_an_abelian_group(images: list[np.ndarray]) -> None:
    one, two, three = (
        XorDelta.diff(old, new, page=1, epochs=(epoch, epoch + 1))
        for epoch, (old, new) in enumerate(itertools.pairwise(images))
    )
    both = one.compose(two)
    assert both == two.compose(one) == XorDelta.diff(images[0], images[2], page=1, epochs=(0, 2))
    assert both.compose(three) == one.compose(two.compose(three))
    assert one.compose(one.inverse()).is_empty
    assert both.compose(two).payload == one.payload
    page = images[0].copy()
    assert both.apply(page, 0) == 2
    assert np.array_equal(page, images[2])
    assert both.apply(page, 2) == 0
    assert np.array_equal(page, images[0])
    assert XorDelta.from_bytes(both.to_bytes()) == both


@given(images=chains(4), pages=st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_a_merged_batch_does_what_the_batch_does(images: list[np.ndarray], pages: list[int]) -> None:
    now = dict.fromkeys(pages, images[0])
    rows = []
    for epoch, (page, image) in enumerate(zip(pages, images[1:], strict=True)):
        rows.append(Delta.diff(now[page], image, page=page, epoch=epoch))
        now[page] = image
    batch = DeltaBatch.of(rows)
    merged = DeltaBatch.from_bytes(batch.merged().to_bytes())
    assert sorted(merged.pages.tolist()) == sorted(set(pages))
    for made in (batch, merged):
        targets = {page: images[0].copy() for page in pages}
        made.apply(targets)
        for page, image in now.items():
            assert np.array_equal(targets[page], image)


@settings(max_examples=200)
@given(images=chains(), width=st.sampled_from([1, 2, 4, 8]), mode=st.sampled_from(MODES))
def test_every_codec_brings_back_every_image(images: list[np.ndarray], width: int, mode: str) -> None:
    old, new = images
    blob = encode_wire(old, new, width, mode=mode)
    assert len(blob) <= 64 + old.size
    assert np.array_equal(decode_wire(old, blob), new)
