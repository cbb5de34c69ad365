"""Erasure coding: the field, the matrices, every way of losing shards, every backend, the layout of slices."""

import ctypes
import itertools
import random
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import UnavailableError, UsageError
from stoker.fs.code import Codec, Layout, available_backends, backend
from stoker.fs.code.backends import Plain
from stoker.fs.code.field import code_rows, inverted, product, rebuilding_rows
from stoker.fs.code.layout import Joined, clipped, encode_slice, rebuild_range

CODES = [(4, 2), (6, 3), (8, 3), (8, 4), (10, 4), (12, 4), (16, 4)]
GOLDEN_MATRICES = {
    "4+2": 628860549,
    "6+3": 2775082797,
    "8+3": 3366495532,
    "8+4": 498330802,
    "10+4": 803816926,
    "12+4": 2939209769,
    "16+4": 4125451387,
}
"""CRC-32 of each matrix, row by row."""


class SlowField:
    """The field once more, bit by bit: multiplication as of polynomials, division by trying. Nothing is shared."""

    @staticmethod
    def times(a: int, b: int) -> int:
        result = 0
        for bit in range(8):
            if b >> bit & 1:
                result ^= a << bit
        for bit in range(15, 7, -1):
            if result >> bit & 1:
                result ^= 0x11D << (bit - 8)
        return result

    @classmethod
    def over(cls, a: int, b: int) -> int:
        return next(c for c in range(256) if cls.times(b, c) == a)

    @classmethod
    def parity(cls, data: list[bytes], m: int) -> list[bytes]:
        k = len(data)
        rows = [[cls.over(1, (k + i) ^ j) for j in range(k)] for i in range(m)]
        made = []
        for row in rows:
            out = bytearray(len(data[0]))
            for coefficient, shard in zip(row, data, strict=True):
                for at, value in enumerate(shard):
                    out[at] ^= cls.times(coefficient, value)
            made.append(bytes(out))
        return made


def shards_of(k: int, m: int, length: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    data = [source.randbytes(length) for _ in range(k)]
    parity = [bytearray(length) for _ in range(m)]
    Codec(k, m).encode(data, parity)
    return [*data, *map(bytes, parity)]


@pytest.mark.parametrize(("k", "m"), CODES)
def test_parity_is_what_the_slow_field_says(k: int, m: int) -> None:
    shards = shards_of(k, m, 70)
    assert shards[k:] == SlowField.parity(shards[:k], m)


def test_all_495_ways_to_lose_4_of_12() -> None:
    shards = shards_of(8, 4, 80)
    codec = Codec(8, 4)
    ways = 0
    for gone in itertools.combinations(range(12), 4):
        lost = {index: bytearray(80) for index in gone}
        codec.rebuild({index: shards[index] for index in range(12) if index not in gone}, lost)
        assert all(lost[index] == shards[index] for index in gone), gone
        ways += 1
    assert ways == 495


@pytest.mark.parametrize(("k", "m"), CODES)
def test_every_code_survives_every_loss_that_it_promises(k: int, m: int) -> None:
    rows = code_rows(k, m)
    ways = list(itertools.combinations(range(k + m), k))
    for kept in ways if len(ways) <= 84 else random.Random(7).sample(ways, 84):
        chosen = [rows[index] for index in kept]
        identity = product(inverted(chosen), chosen)
        assert identity == tuple(bytes(int(c == r) for c in range(k)) for r in range(k))


def test_matrices_and_an_encoding_are_the_golden_bytes() -> None:
    assert code_rows(8, 4)[8].hex() == "ad9ddd983daa5d96"
    told = {f"{k}+{m}": zlib.crc32(b"".join(code_rows(k, m))) for k, m in CODES}
    assert told == GOLDEN_MATRICES
    assert [row.hex() for row in code_rows(4, 2)[4:]] == ["47a77aba", "a747ba7a"]
    data = [bytes((7 * j + i) & 255 for i in range(8)) for j in range(4)]
    parity = [bytearray(8), bytearray(8)]
    Codec(4, 2).encode(data, parity)
    assert [part.hex() for part in parity] == ["a34ee594cf73dc14", "b6eff1a9154e8629"]


def test_matrices_are_those_that_the_system_library_generates() -> None:
    try:
        library = ctypes.CDLL("libisal.so.2")
    except OSError:
        pytest.skip("libisal.so.2 is not installed: apt install libisal2")
    for k, m in CODES:
        made = ctypes.create_string_buffer((k + m) * k)
        library.gf_gen_cauchy1_matrix(made, k + m, k)
        assert made.raw[: (k + m) * k] == b"".join(code_rows(k, m))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(2, 1), *CODES]),
    st.integers(0, 700),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_backends_give_the_same_bytes(code: tuple[int, int], length: int, seed: int, losing: bool) -> None:
    k, m = code
    source = random.Random(seed)
    inputs = [source.randbytes(length + 3)[3:] for _ in range(k)]
    sources = tuple(sorted(source.sample(range(k + m), k))) if losing else tuple(range(k))
    targets = tuple(index for index in range(k + m) if index not in sources)
    rows = rebuilding_rows(k, m, sources, targets)
    told = []
    for one in available_backends():
        outputs = [np.full(length, 255, np.uint8) for _ in targets]
        one.multiply(
            rows, [np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8) for data in inputs], outputs
        )
        told.append([bytes(output) for output in outputs])
    assert all(result == told[0] for result in told)


def test_backends_are_told_apart_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_backends()[-1].name == "numpy"
    assert isinstance(backend("numpy"), Plain)
    with pytest.raises(UsageError, match="no such backend"):
        backend("gold")
    for one in available_backends():
        assert backend(one.name).name == one.name


def test_a_backend_that_does_not_load_says_how_to_get_it() -> None:
    missing = {"isal", "pyeclib"} - {one.name for one in available_backends()}
    for name in missing:
        with pytest.raises(UnavailableError, match="libisal2"):
            backend(name)


def test_buffers_that_do_not_fit_are_refused() -> None:
    codec = Codec(4, 2)
    with pytest.raises(UsageError, match="one length"):
        codec.encode([bytes(8)] * 4, [bytearray(8), bytearray(9)])
    with pytest.raises(UsageError, match="read-only"):
        codec.encode([bytes(8)] * 4, [bytes(8), bytearray(8)])
    with pytest.raises(UsageError, match="4 and 2"):
        codec.encode([bytes(8)] * 3, [bytearray(8), bytearray(8)])
    with pytest.raises(UsageError, match="4 different ones"):
        codec.rebuild({0: bytes(8), 1: bytes(8), 5: bytes(8)}, {2: bytearray(8)})
    with pytest.raises(UsageError):
        Codec(250, 7)
    with pytest.raises(UsageError, match="inverse"):
        inverted([b"\1\2", b"\2\4"])


def test_a_codec_serves_many_threads() -> None:
    shards = shards_of(8, 4, 65536)
    codec, wrong = Codec(8, 4), []

    def work(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(20):
            gone = source.sample(range(12), 4)
            lost = {index: bytearray(65536) for index in gone}
            codec.rebuild({index: shards[index] for index in range(12) if index not in gone}, lost)
            wrong.extend(index for index in gone if lost[index] != shards[index])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


layouts = st.builds(
    Layout,
    st.sampled_from([1, 2, 4, 8, 10]),
    st.integers(0, 4),
    st.sampled_from([4096, 8192]),
    st.one_of(st.integers(0, 300), st.integers(0, 300_000), st.sampled_from([4096 * 8, 4096 * 8 * 3, 8192 * 10 + 1])),
)


@settings(max_examples=100, deadline=None)
@given(layouts, st.data())
def test_a_range_of_a_slice_lies_where_it_is_found_again(layout: Layout, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, layout.slice_bytes))
    length = data.draw(st.integers(0, layout.slice_bytes - offset))
    spans = list(layout.spans(offset, length))
    assert sum(span.length for span in spans) == length
    place = offset
    for span in spans:
        assert span.at == place and 0 <= span.index < layout.k
        assert span.offset + span.length <= layout.shard_bytes(span.index)
        back = list(layout.slice_spans(span.index, span.offset, span.length))
        assert back == [span]
        place += span.length
    joined = sum(length for ranges in layout.ranges(offset, length).values() for _, length in ranges)
    assert joined == length


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_shards_hold_the_slice_once_and_no_zeros_that_only_fill_up(layout: Layout) -> None:
    sizes = [layout.shard_bytes(index) for index in range(layout.k + layout.m)]
    assert sum(sizes[: layout.k]) == layout.slice_bytes
    assert all(size == sizes[0] for size in sizes[layout.k :]) and sizes[0] == max(sizes)
    assert sizes[0] <= -(-layout.slice_bytes // layout.k) + 63
    assert sizes[: layout.k] == sorted(sizes[: layout.k], reverse=True)


@settings(max_examples=60, deadline=None)
@given(layouts.filter(lambda layout: layout.k > 1), st.integers(0, 2**32), st.data())
def test_any_range_comes_back_from_any_k_shards(layout: Layout, seed: int, data: st.DataObject) -> None:
    source = random.Random(seed)
    whole = source.randbytes(layout.slice_bytes)
    cuts = sorted(source.randrange(layout.slice_bytes + 1) for _ in range(3))
    parts = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    shards = [b"".join(pieces) for pieces in encode_slice(layout, parts)]
    assert [len(shard) for shard in shards] == [layout.shard_bytes(i) for i in range(layout.k + layout.m)]
    offset = data.draw(st.integers(0, layout.slice_bytes))
    length = data.draw(st.integers(0, layout.slice_bytes - offset))
    kept = source.sample(range(layout.k + layout.m), layout.k)
    out = bytearray()
    for span in layout.spans(offset, length):
        columns = slice(span.offset, span.offset + span.length)
        have = {index: shards[index][columns] for index in kept}
        assert all(len(have[i]) == clipped(layout, i, span.offset, span.length) for i in kept)
        codec = Codec(layout.k, layout.m)
        out += rebuild_range(layout, codec, have, [span.index], span.length)[span.index]  # type: ignore[arg-type]
    assert bytes(out) == whole[offset : offset + length]


def test_copies_are_the_slice_itself() -> None:
    layout = Layout(1, 2, 4096, 10_000)
    shards = encode_slice(layout, [b"a" * 6000, b"b" * 4000])
    assert [b"".join(pieces) for pieces in shards] == [b"a" * 6000 + b"b" * 4000] * 3
    assert layout.ranges(5000, 3000) == {0: [(5000, 3000)]}


def test_ranges_outside_are_refused() -> None:
    layout = Layout(4, 2, 4096, 10_000)
    for offset, length in ((-1, 5), (9_999, 2), (10_001, 0)):
        with pytest.raises(UsageError, match="leaves the slice"):
            list(layout.spans(offset, length))
    with pytest.raises(UsageError, match="leaves the shard"):
        list(layout.slice_spans(4, 0, 1))
    with pytest.raises(UsageError, match="not the slice"):
        encode_slice(layout, [b"short"])


def test_joined_parts_are_views_where_they_can_be() -> None:
    first, second = bytearray(b"0123"), b"4567"
    joined = Joined([first, b"", second])
    assert joined.total_bytes == 8
    view = joined.view(1, 2)
    first[1] = ord("x")
    assert bytes(view) == b"x2"
    assert [bytes(joined.view(at, 3)) for at in (0, 2, 4, 1)] == [b"0x2", b"234", b"456", b"x23"]
