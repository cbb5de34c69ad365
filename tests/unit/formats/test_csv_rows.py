"""CSV: rows read by Python's own reader and ours, packed in four ways, and strict about what is not a row."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib

import numpy as np
import pytest
from format_files import content, decode_one, encode, told

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import SampleSpec, whole_file_layout
from stoker.formats.csv import FORMAT
from stoker.formats.ranges import MemorySource

_OPENERS = {
    "none": lambda data: data,
    "gzip": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
    "zip": lambda data: zipfile.ZipFile(io.BytesIO(data)).read("data.csv"),
}


@pytest.mark.parametrize("compression", list(_OPENERS))
@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", "float32", "float16", "bool"])
def test_python_reads_each_sample_in_its_own_row(compression, dtype):
    spec = FORMAT.check_spec(SampleSpec((2, 3), dtype, 4, {"compression": compression}))
    most = 2**11 if dtype == "float16" else 2**63
    samples = np.random.default_rng(5).integers(0, most, (4, 2, 3), np.uint64).astype(dtype)
    data = b"".join(bytes(chunk) for chunk in FORMAT.encode(spec, lambda index: samples[index]))
    rows = list(csv.reader(io.StringIO(_OPENERS[compression](data).decode())))
    assert len(rows) == 4
    for row, sample in zip(rows, samples, strict=True):
        read = np.array(row).astype("uint8").astype(bool) if dtype == "bool" else np.array(row).astype(dtype)
        assert np.array_equal(read, sample.ravel())
    assert np.array_equal(decode_one(FORMAT, data, told(spec)).columns["x"], samples)


def test_rows_differ():
    _, data = encode(FORMAT, (50,), samples=3)
    assert len(set(data.splitlines())) == 3


def test_special_floats_come_back():
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4028235e38, 0.1], np.float32)
    data = b"".join(bytes(c) for c in FORMAT.encode(SampleSpec((7,), "float32"), lambda _: values))
    read = decode_one(FORMAT, data, {"dtype": "float32"}).sample(0)
    assert read.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        (b"1,2\r\n3,4\r\n", "int64", [[1, 2], [3, 4]]),
        (b"1.5,2\n", "float64", [[1.5, 2.0]]),
        (b" 1, -2\n", "int64", [[1, -2]]),
        (b"7\n", "int64", [[7]]),
    ],
)
def test_rows_of_other_writers_are_read_and_their_type_inferred(text, dtype, values):
    x = decode_one(FORMAT, text).columns["x"]
    assert x.dtype == dtype
    assert x.tolist() == values


def test_rows_of_the_csv_module_are_read():
    out = io.StringIO()
    csv.writer(out).writerows([[1, 2, 3], [4, 5, 6]])
    assert decode_one(FORMAT, out.getvalue().encode(), {"dtype": "uint8", "shape": (3, 1)}).samples == 2


@pytest.mark.parametrize(
    "text",
    [b"1,2\n3\n", b"1,2\n3,x\n", b"1,,2\n", b"1,2", b"1,2\n3,4", b"\n\n", b"1,2\n\n3,4\n", b"1,\xff\n", b"1;2\n",
     b"1,2\n3,4\n5,6,7\n", b"a,b\n1,2\n", b"1,\x002\n", b'"1","2"\n'],
)  # fmt: skip
def test_malformed_rows_are_corrupt(text):
    with pytest.raises(CorruptError):
        decode_one(FORMAT, text)


@pytest.mark.parametrize(
    ("text", "dtype"), [(b"256\n", "uint8"), (b"-1\n", "uint16"), (b"1.5\n", "int8"), (b"2\n", "bool")]
)
def test_numbers_that_the_type_cannot_hold_are_corrupt(text, dtype):
    with pytest.raises(CorruptError):
        decode_one(FORMAT, text, {"dtype": dtype})


def test_what_was_told_is_held_against_the_file():
    for options in ({"shape": (3,)}, {"samples": 3}, {"compression": "gzip"}):
        with pytest.raises(CorruptError):
            decode_one(FORMAT, b"1,2\n3,4\n", options)
    with pytest.raises(CorruptError, match="packed otherwise"):
        decode_one(FORMAT, gzip.compress(b"1,2\n"), {"compression": "none"})


def test_samples_told_spare_a_read():
    class Unread(MemorySource):
        def read(self, offset_bytes, length_bytes):
            raise AssertionError("nothing needs reading")

    assert FORMAT.layout(Unread(b"1\n2\n"), {"samples": 2}).extents[0].samples == 2


def test_packed_files_in_several_streams_are_read():
    text = [b"1,2\n", b"3,4\n"]
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        assert decode_one(FORMAT, b"".join(map(pack, text))).columns["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_cut_off_or_followed_by_bytes_are_corrupt(pack):
    data = pack(b"1,2\n" * 100)
    layout = whole_file_layout(len(data) - 3, 100)
    for bad in (data[:-3], data + b"garbage", data[:20] + b"\0\0\0\0" + data[24:]):
        with pytest.raises(CorruptError):
            decode_one(FORMAT, bad, {"samples": 100})
    with pytest.raises(CorruptError):
        FORMAT.decode(memoryview(data[:-3]), layout.extents[0], layout)


def test_bombs_are_stopped():
    bomb = bz2.compress(bytes(60 << 20))
    assert len(bomb) < 1000
    with pytest.raises(CorruptError, match="absurd"):
        decode_one(FORMAT, bomb, {"samples": 1})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a.csv", "1\n")
        out.writestr("b.csv", "1\n")
    with pytest.raises(CorruptError, match="one member"):
        decode_one(FORMAT, archive.getvalue())


def test_an_xz_file_that_asks_for_much_memory_is_refused():
    """The block header, after 12 bytes, says how large the dictionary is; its last four bytes are its checksum."""
    data = lzma.compress(b"1,2\n")
    end = 12 + (data[12] + 1) * 4
    header = bytearray(data[12 : end - 4])
    at = header.index(b"\x21\x01") + 2
    for size_code, good in ((0x10, True), (0x28, False)):
        header[at] = size_code
        changed = data[:12] + header + zlib.crc32(header).to_bytes(4, "little") + data[end:]
        if good:
            assert decode_one(FORMAT, changed).samples == 1
            continue
        with pytest.raises(CorruptError, match=r"(?i)memory"):
            decode_one(FORMAT, changed)


def test_complex_numbers_are_refused():
    with pytest.raises(UsageError, match="complex"):
        FORMAT.check_spec(SampleSpec((2,), "complex64"))


def test_content_is_written_in_element_order():
    spec, data = encode(FORMAT, (2, 2))
    assert data == ",".join(map(str, content(spec, 0).ravel())).encode() + b"\n"
