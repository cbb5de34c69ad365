"""TFRecord: read by an independent reader written from the format's definition, and reading what it did not write."""

import struct

import numpy as np
import pytest
from format_files import CountingSource, content, decode, encode, told

from stoker.core.errors import CorruptError
from stoker.formats.api import Extent, Layout, SampleSpec
from stoker.formats.protobuf import example_frame, image_bytes_of, parse_example, varint
from stoker.formats.ranges import MemorySource
from stoker.formats.tfrecord import FORMAT, image_of, masked_crc32c, read_index, scan


def _slow_crc32c(data):
    """CRC-32C bit by bit: reflected polynomial 0x82F63B78, start and end inverted (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _slow_masked(data):
    crc = _slow_crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def _records(data):
    """Yield payloads, every checksum compared, as TensorFlow's reader does."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        assert struct.unpack("<I", data[at + 8 : at + 12])[0] == _slow_masked(data[at : at + 8])
        payload = data[at + 12 : at + 12 + length]
        (crc,) = struct.unpack("<I", data[at + 12 + length : at + 16 + length])
        assert crc == _slow_masked(payload)
        yield payload
        at += 16 + length
    assert at == len(data)


def _frame(payload):
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", _slow_masked(length)) + payload + struct.pack("<I", _slow_masked(payload))


def _field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def _example(**features):
    entries = b"".join(_field(1, _field(1, name.encode()) + _field(2, value)) for name, value in features.items())
    return _field(1, entries)


def _bytes(*values):
    return _field(1, b"".join(_field(1, value) for value in values))


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksum_has_the_published_values(data, crc):
    """The vectors of RFC 3720, appendix B.4."""
    assert _slow_crc32c(data) == crc
    assert masked_crc32c(data) == _slow_masked(data)


def test_a_sample_of_4096_bytes_takes_4150_and_the_index_says_so():
    spec, data = encode(FORMAT, (64, 64), samples=3)
    assert len(data) == 3 * 4150
    assert FORMAT.side_files(spec) == {".idx": b"0 4150\n4150 4150\n8300 4150\n"}


def test_the_index_lies_in_a_tree_of_its_own():
    assert FORMAT.side_key("train/img_0_of_8.tfrecord", ".idx") == "index/train/img_0_of_8.tfrecord.idx"
    assert FORMAT.side_key("valid/1/img_3_of_8.tfrecord", ".idx") == "index/valid/1/img_3_of_8.tfrecord.idx"


@pytest.mark.parametrize("size", [1, 100, 127, 128, 300, 20_000])
def test_an_independent_reader_finds_every_sample(size):
    spec, data = encode(FORMAT, (size,), samples=2)
    payloads = list(_records(data))
    assert len(payloads) == 2
    for index, payload in enumerate(payloads):
        image = content(spec, index).tobytes()
        assert payload == _example(image=_bytes(image), size=_field(3, _field(1, varint(size))))


def test_samples_are_views_and_have_their_size():
    spec, data = encode(FORMAT, (10, 3), "int16", 3)
    blocks = decode(FORMAT, data, told(spec), FORMAT.side_files(spec))
    assert len(blocks) == 3
    for index, block in enumerate(blocks):
        assert np.array_equal(block.sample(0), content(spec, index))
        assert np.shares_memory(block.sample(0), np.frombuffer(data, np.uint8))
        assert block.columns["size"].tolist() == [60]
        assert block.copied_bytes == 8
    assert decode(FORMAT, data)[1].sample(0).tobytes() == content(spec, 1).tobytes()


def test_neighbouring_records_may_be_read_as_one():
    spec, data = encode(FORMAT, (10,), samples=5)
    layout = FORMAT.layout(MemorySource(data), told(spec))
    start, length = layout.extents[1].ranges[0]
    run = Extent(((start, length * 3),), 1, 3)
    block = FORMAT.decode(memoryview(data)[start : start + length * 3], run, layout)
    assert [block.sample(index).tobytes() for index in range(3)] == [content(spec, 1 + i).tobytes() for i in range(3)]
    with pytest.raises(CorruptError, match="number of records"):
        FORMAT.decode(memoryview(data)[start : start + length * 3], Extent(run.ranges, 1, 2), layout)


@pytest.mark.parametrize(
    "payload",
    [
        _example(size=_field(3, _field(1, varint(5))), image=_bytes(b"hello")),
        _example(image=_bytes(b"hello"), size=_field(3, b"\x08\x05")),  # not packed
        _example(image=_bytes(b"hello")),
        _example(label=_field(3, b"\x08\x05"), weight=_field(2, _field(1, bytes(4))), image=_bytes(b"hello")),
        b"\x10\x01" + _example(image=_bytes(b"hello")) + b"\x1d\0\0\0\0\x21" + bytes(8),  # fields nobody knows
    ],
)
def test_records_of_other_writers_are_read(payload):
    assert decode(FORMAT, _frame(payload))[0].sample(0).tobytes() == b"hello"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        _example(),
        _example(picture=_bytes(b"hello")),
        _example(image=_bytes()),
        _example(image=_bytes(b"a", b"b")),
        _example(image=_field(3, b"\x08\x05")),
        _example(image=_bytes(b"hello"), size=_field(3, b"\x08\x06")),
        _example(image=_bytes(b"hello"), size=_field(3, b"\x08\x05\x08\x05")),
        _example(image=_bytes(b"hello"), size=_field(3, b"")),
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0b\x0c",
        b"\x80" * 30,
        b"\x09\x01",
    ],
)
def test_malformed_examples_are_corrupt(payload):
    with pytest.raises(CorruptError):
        decode(FORMAT, _frame(payload))


def test_the_quick_way_and_the_parser_agree():
    for size in (1, 120, 127, 128, 200, 16383, 16384, 70_000):
        head, tail = example_frame(size)
        image = np.random.default_rng(size).bytes(size)
        payload = memoryview(head + image + tail)
        assert image_bytes_of(len(payload)) == size
        assert bytes(parse_example(payload)[0]) == bytes(image_of(payload)) == image
        assert parse_example(payload)[1] == size


def test_lengths_that_we_never_write_are_not_taken_for_ours():
    ours = {sum(map(len, example_frame(size))) + size for size in range(600)}
    for length in range(500):
        assert (image_bytes_of(length) >= 0) == (length in ours)


def test_checksums_are_compared_unless_told_otherwise():
    _, data = encode(FORMAT, (100,))
    payload_bad = data[:80] + bytes([data[80] ^ 1]) + data[81:]
    with pytest.raises(CorruptError, match="payload fails its checksum"):
        decode(FORMAT, payload_bad)
    assert decode(FORMAT, payload_bad, {"verify": False})[0].samples == 1
    length_bad = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(CorruptError, match="length fails its checksum"):
        decode(FORMAT, length_bad, {"verify": False})


def test_small_records_are_found_in_few_large_reads():
    _, data = encode(FORMAT, (400,), samples=5000)
    source = CountingSource(data)
    offsets, sizes = scan(source)
    assert len(offsets) == 5000
    assert set(sizes.tolist()) == {len(data) // 5000}
    assert len(source.reads) <= 4


def test_of_large_records_only_the_headers_are_read():
    _, data = encode(FORMAT, (1 << 20,), samples=8)
    source = CountingSource(data)
    assert len(scan(source)[0]) == 8
    assert source.read_bytes < (1 << 20) + 8 * 12 + 1


def test_an_index_spares_reading_the_file():
    spec, data = encode(FORMAT, (400,), samples=50)
    source = CountingSource(data, FORMAT.side_files(spec))
    assert FORMAT.layout(source, {}).extents == FORMAT.layout(MemorySource(data), {}).extents
    assert source.reads == []


@pytest.mark.parametrize(
    "index",
    [
        b"0 112\n",
        b"0 112\n112 113\n",
        b"0 112\n113 111\n",
        b"112 112\n0 112\n",
        b"0 224\n224 0\n",
        b"0 112\n112 112\n224 112\n",
        b"0 112\n112 -112\n",
        b"0 112 \n",
        b"0,112\n112,112\n",
        b"0 112\n112 99999999999999999999999\n",
        b"\xff\xfe",
    ],
)
def test_an_index_that_lies_is_corrupt(index):
    _, data = encode(FORMAT, (64,), samples=2)
    assert len(data) == 224
    with pytest.raises(CorruptError, match="index"):
        FORMAT.layout(MemorySource(data, {".idx": index}), {})


def test_an_index_may_lack_the_last_line_feed_or_come_from_windows():
    offsets, sizes = read_index(memoryview(b"0 20\r\n20 30"), 50)
    assert (offsets.tolist(), sizes.tolist()) == ([0, 20], [20, 30])


def test_an_index_that_splits_a_record_wrongly_is_found_on_decoding():
    spec, data = encode(FORMAT, (64,), samples=2)
    source = MemorySource(data, {".idx": b"0 100\n100 124\n"})
    layout = FORMAT.layout(source, told(spec))
    with pytest.raises(CorruptError):
        FORMAT.decode(source.read(0, 100), layout.extents[0], layout)


def test_wrong_number_of_records_is_corrupt():
    _, data = encode(FORMAT, (64,), samples=2)
    with pytest.raises(CorruptError, match="expected 3, got 2"):
        FORMAT.layout(MemorySource(data), {"samples": 3})


def test_a_sample_of_another_size_than_told_is_corrupt():
    _, data = encode(FORMAT, (64,))
    with pytest.raises(CorruptError, match="image"):
        decode(FORMAT, data, {"shape": (65,)})


def test_a_foreign_context_decodes_as_bytes():
    _, data = encode(FORMAT, (64,))
    extent = Extent(((0, len(data)),), 0, 1)
    block = FORMAT.decode(memoryview(data), extent, Layout((extent,)))
    assert block.sample(0).shape == (64,)


def test_encoding_holds_one_sample_at_a_time():
    asked = []

    def source(index):
        asked.append(index)
        return np.zeros(2 << 20, np.uint8)

    chunks = FORMAT.encode(SampleSpec((2 << 20,), samples=100), source)
    next(chunks)
    assert len(asked) <= 2
