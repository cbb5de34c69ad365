"""The footer's encoding: wanted fields are found, all others skipped, and nothing malformed gets by."""

import pytest

from stoker.core.errors import CorruptError
from stoker.formats.thrift import parse

_ALL_KINDS = bytes([
    0x15, 0x0A,  # field 1, i32: 5
    0x18, 0x03, *b"abc",  # field 2, binary
    0x11,  # field 3, true
    0x12,  # field 4, false
    0x13, 0x7F,  # field 5, byte
    0x17, *range(8),  # field 6, double
    0x19, 0x25, 0x02, 0x04,  # field 7, list of two i32: 1, 2
    0x19, 0x21, 0x01, 0x02,  # field 8, list of two truths
    0x1B, 0x01, 0x85, 0x01, ord("k"), 0x06,  # field 9, map of one: binary → i32
    0x1C, 0x15, 0x03, 0x00,  # field 10, struct with field 1: -2
    0x1D, *range(16),  # field 11, uuid
    0x1A, 0x1C, 0x15, 0x08, 0x00,  # field 12, set of one struct with field 1: 4
    0x06, 0xC8, 0x01, 0x0E,  # field 100 by its own number, i64: 7
    0x00,
])  # fmt: skip


def test_wanted_fields_are_found_among_all_kinds():
    wanted = {1: None, 2: None, 3: None, 4: None, 7: None, 10: {1: None}, 12: {1: None}, 100: None}
    assert parse(_ALL_KINDS, wanted) == {
        1: 5, 2: b"abc", 3: True, 4: False, 7: [1, 2], 10: {1: -2}, 12: [{1: 4}], 100: 7,
    }  # fmt: skip


def test_unwanted_fields_are_skipped():
    assert parse(_ALL_KINDS, {100: None}) == {100: 7}
    assert parse(b"\x00", {}) == {}


@pytest.mark.parametrize("length", range(len(_ALL_KINDS)))
def test_every_cut_is_corrupt(length):
    with pytest.raises(CorruptError):
        parse(_ALL_KINDS[:length], {2: None, 7: None})


@pytest.mark.parametrize(
    "data",
    [
        b"\x18\xff\xff\xff\xff\x0fabc\x00",  # a binary longer than the data
        b"\x19\xf5\xff\xff\xff\xff\x0f\x00",  # a list longer than the data
        b"\x1b\xff\xff\xff\xff\x0f\x55\x00",  # a map longer than the data
        b"\x1e\x00",  # a kind nobody knows
        b"\x15" + b"\xff" * 30,  # a number without an end
        b"\x1c" * 200,  # structs in structs in structs
        b"\x19" * 200,
        b"\x1c" * 10 + b"\x19\x19" * 100,
    ],
)
@pytest.mark.parametrize("wanted", [{}, {1: None}, {1: {1: {1: None}}}])
def test_lying_lengths_and_deep_nesting_are_corrupt(data, wanted):
    with pytest.raises(CorruptError):
        parse(data, wanted)
