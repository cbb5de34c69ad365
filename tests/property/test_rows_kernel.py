"""Rows of MessagePack: the native kernel, its plain twin and msgspec agree on what they write, read and refuse."""

from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import CorruptError
from stoker.kernels import rows as face
from stoker.kernels.native import native_kernels
from stoker.kernels.rows import Rows, decode_rows, encode_rows

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")

KINDS = b"ubuub"
Fields = list[tuple[int, bytes, int, int, bytes]]
NUMBER = st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bit: 1 << bit) | st.integers(0, 300)
ROW = st.tuples(NUMBER, st.binary(max_size=300), NUMBER, NUMBER, st.binary(max_size=5))
MANY = st.lists(ROW, max_size=40)


def columns(rows: Fields) -> Rows:
    data, places = b"", []
    for _, one, _, _, other in rows:
        places.append([(len(data), len(one)), (len(data) + len(one), len(other))])
        data += one + other
    numbers = [(row[0], row[2], row[3]) for row in rows]
    return Rows(np.array(numbers, np.uint64).reshape(-1, 3), np.array(places, np.uint64).reshape(-1, 2, 2), data)


def singly(rows: Rows) -> Fields:
    blobs = [[bytes(rows.data[at : at + size]) for at, size in row] for row in rows.places.tolist()]
    numbers = rows.numbers.tolist()
    return [(a, one, b, c, other) for (a, b, c), (one, other) in zip(numbers, blobs, strict=True)]


def plainly(work, *words):
    with patch.object(face, "native_kernels", lambda: None):
        return work(*words)


@given(rows=MANY)
def test_what_is_written_is_what_msgspec_writes_and_is_read_again(
    rows: Fields,
) -> None:
    message = encode_rows(KINDS, columns(rows))
    assert message == msgspec.msgpack.encode(rows) == plainly(encode_rows, KINDS, columns(rows))
    assert singly(decode_rows(KINDS, message)) == rows
    assert singly(plainly(decode_rows, KINDS, message)) == rows


@given(rows=MANY, at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_is_read_alike_or_refused_alike(rows: Fields, at: int, byte: int, cut: bool) -> None:
    message = bytearray(msgspec.msgpack.encode(rows))
    at %= len(message)
    if cut:
        del message[at:]
    else:
        message[at] = byte
    found = []
    for work in (decode_rows, lambda *words: plainly(decode_rows, *words)):
        try:
            found.append(singly(work(KINDS, bytes(message))))
        except CorruptError:
            found.append(None)
    assert found[0] == found[1]


def test_long_arrays_and_long_blobs() -> None:
    for count in (15, 16, 65_535, 65_536):
        numbers = np.arange(count, dtype=np.uint64).reshape(-1, 1)
        message = encode_rows(b"u", Rows(numbers, np.zeros((count, 0, 2), np.uint64), b""))
        assert message == msgspec.msgpack.encode([(number,) for number in range(count)])
        assert np.array_equal(decode_rows(b"u", message).numbers, numbers)
    rows = [(1, bytes(size), 2, 3, bytes(size + 1)) for size in (255, 65_535)]
    assert encode_rows(KINDS, columns(rows)) == msgspec.msgpack.encode(rows)


def test_blobs_outside_their_memory_are_refused() -> None:
    given_rows = columns([(1, b"ab", 2, 3, b"c")])
    for at, size in ((3, 1), (0, 4), (2**64 - 1, 2), (2, 2**63)):
        places = given_rows.places.copy()
        places[0, 1] = at, size
        for work in (encode_rows, lambda *words: plainly(encode_rows, *words)):
            with pytest.raises(ValueError, match="columns"):
                work(KINDS, Rows(given_rows.numbers, places, given_rows.data))


@pytest.mark.parametrize("message", [b"", b"\xdd\xff\xff\xff\xff", b"\xdc", b"\x80", b"\xc0", b"\xdd\x00"])
def test_lengths_that_are_made_up_take_no_memory(message: bytes) -> None:
    for work in (decode_rows, lambda *words: plainly(decode_rows, *words)):
        with pytest.raises(CorruptError, match="rows"):
            work(KINDS, message)
