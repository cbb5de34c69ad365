"""NPZ: NumPy's own bytes, views of stored members, and no trust in what an archive claims."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from format_files import CountingSource, content, decode_one, encode

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Extent, SampleSpec, whole_file_layout
from stoker.formats.npz import FORMAT
from stoker.formats.ranges import MemorySource, PieceSource
from stoker.formats.ziparchive import Member, directory, list_members, local_header


def _archive(members, *, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("shape", "samples", "size_bytes"),
    [((256, 256), 1, 66_034), ((1024, 1024), 1, 1_049_074), ((64,), 5, 64 * 5 + 490 + 40)],
)
def test_file_size_is_payload_plus_490_plus_8_a_sample(shape, samples, size_bytes):
    spec, data = encode(FORMAT, shape, samples=samples)
    assert len(data) == size_bytes == spec.payload_bytes + 490 + 8 * samples


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">i2"])
def test_bytes_are_those_of_numpy_savez(samples, dtype):
    spec, data = encode(FORMAT, (5, 3), dtype, samples)
    x = np.stack([content(spec, index) for index in range(samples)], axis=-1).astype(dtype)
    out = io.BytesIO()
    np.savez(out, x=x, y=np.zeros(samples, np.int64))
    assert data == out.getvalue()


def test_numpy_reads_what_we_write_with_the_sample_axis_last():
    spec, data = encode(FORMAT, (5, 3), "float32", 4)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        assert archive.files == ["x", "y"]
        assert archive["x"].shape == (5, 3, 4)
        assert archive["y"].tolist() == [0, 0, 0, 0]
        assert np.array_equal(archive["x"][..., 2], content(spec, 2))


def test_compression_zip_really_packs_and_numpy_reads_it():
    spec = SampleSpec((64, 64), options={"compression": "zip", "compression_level": 9})
    data = b"".join(FORMAT.encode(spec, lambda _: np.zeros((64, 64), np.uint8)))
    assert len(data) < 1000
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        assert not archive["x"].any()
    block = decode_one(FORMAT, data)
    assert block.copied_bytes == 64 * 64 + 8


def test_stored_samples_are_views_of_the_bytes():
    _, data = encode(FORMAT, (6, 7), samples=3)
    block = decode_one(FORMAT, data)
    x = block.columns["x"]
    assert x.shape == (3, 6, 7)
    assert np.shares_memory(x, np.frombuffer(data, np.uint8))
    assert block.copied_bytes == 0


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_numpy_are_read(save):
    x = np.arange(60, dtype=np.float64).reshape(3, 4, 5)
    out = io.BytesIO()
    save(out, y=np.arange(5), other=np.ones(3), x=np.asfortranarray(x))
    block = decode_one(FORMAT, out.getvalue())
    assert block.samples == 5
    assert np.array_equal(np.moveaxis(block.columns["x"], 0, -1), x)
    assert block.columns["y"].tolist() == [0, 1, 2, 3, 4]


def test_archives_written_as_a_stream_are_read():
    """A stream cannot go back, so sizes follow the data and the local header holds none."""

    class Stream(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, piece):
            self.data += piece
            return len(piece)

    out = Stream()
    with zipfile.ZipFile(out, "w") as archive, archive.open("x.npy", "w") as member:
        member.write(_npy(np.arange(8, dtype=np.uint8)))
    assert decode_one(FORMAT, bytes(out.data)).columns["x"].tolist() == list(range(8))


def test_layout_reads_little_and_nothing_when_samples_are_told():
    for options in ({}, {"compression": "zip"}):
        _, data = encode(FORMAT, (512, 512), samples=2, **options)
        source = CountingSource(data)
        layout = FORMAT.layout(source, options)
        assert layout.extents == (Extent(((0, len(data)),), 0, 2),)
        assert source.read_bytes < 80_000
        source = CountingSource(data)
        assert FORMAT.layout(source, {"samples": 2}).extents == layout.extents
        assert source.reads == []


def test_wrong_checksum_is_found_when_asked_and_always_in_packed_members():
    _, data = encode(FORMAT, (16, 16))
    at = data.index(b"x.npy") + 25 + 128 + 9
    bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert decode_one(FORMAT, bad).samples == 1
    with pytest.raises(CorruptError, match="checksum"):
        decode_one(FORMAT, bad, {"verify": True})
    with pytest.raises(CorruptError, match="checksum"):
        FORMAT.verify(memoryview(bad))
    FORMAT.verify(memoryview(data))
    packed = _archive({"x.npy": _npy(np.zeros(999, np.uint8))}, method=zipfile.ZIP_DEFLATED)
    crc = zlib.crc32(_npy(np.zeros(999, np.uint8))).to_bytes(4, "little")
    with pytest.raises(CorruptError, match="checksum"):
        decode_one(FORMAT, packed.replace(crc, b"\0\0\0\0"))


def test_pickled_objects_are_refused():
    data = _archive({"x.npy": _npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)})
    with pytest.raises(CorruptError, match="refused"):
        decode_one(FORMAT, data)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"z.npy": _npy(np.zeros(3))}, "x.npy"),
        ({}, "x.npy"),
        ({"x.npy": _npy(np.float64(3))}, "sample axis"),
        ({"x.npy": b"no array at all, but long enough"}, "npy"),
        ({"x.npy": _npy(np.zeros(3)) + b"more"}, "disagree"),
        ({"x.npy": _npy(np.zeros((2, 3))), "y.npy": _npy(np.zeros(4))}, "another number"),
        ({"x.npy": _npy(np.zeros((2, 3))), "y.npy": _npy(np.float64(1))}, "sample axis"),
    ],
)
def test_archives_without_proper_samples_are_corrupt(members, words):
    with pytest.raises(CorruptError, match=words):
        decode_one(FORMAT, _archive(members))


def test_zip_bomb_is_refused_before_it_is_unpacked():
    array = _npy(np.zeros(4_000_000, np.uint8))
    honest = _archive({"x.npy": array}, method=zipfile.ZIP_DEFLATED)
    assert decode_one(FORMAT, honest, {"samples": 4_000_000}).samples == 4_000_000
    for claimed in (len(array) - 1, len(array) + 1, 1 << 31):
        lying = honest.replace(struct.pack("<I", len(array)), struct.pack("<I", claimed))
        with pytest.raises(CorruptError):
            decode_one(FORMAT, lying, {"samples": 4_000_000})


def _central(data):
    return data.index(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (8, struct.pack("<H", 1), "cannot be read"),  # encrypted
        (10, struct.pack("<H", 99), "cannot be read"),  # a packing nobody knows
        (10, struct.pack("<H", 8), "not where the directory says"),
        (20, struct.pack("<I", 1 << 30), "outside|overlap"),  # packed size
        (24, struct.pack("<I", 5), "two sizes"),
        (42, struct.pack("<I", 1 << 30), "outside"),  # place
        (42, struct.pack("<I", 7), "not where the directory says|overlap"),
        (0, b"PK\x01\x03", "malformed"),
        (28, struct.pack("<H", 0xFFFF), "malformed"),  # name length
        (24, b"\xff\xff\xff\xff", "zip64"),
    ],
)
def test_lying_directory_entries_are_corrupt(offset, value, words):
    _, data = encode(FORMAT, (4, 4))
    at = _central(data) + offset
    with pytest.raises(CorruptError, match=words):
        decode_one(FORMAT, data[:at] + value + data[at + len(value) :], {"samples": 1})


def test_overlapping_and_doubled_members_are_corrupt():
    body = _npy(np.zeros(8, np.uint8))
    member = Member("x.npy", 0, zlib.crc32(body), len(body), len(body), 0)
    head = local_header(member)
    data = head + body
    for other, words in (("y.npy", "overlap"), ("x.npy", "twice")):
        twin = Member(other, 0, member.crc32, len(body), len(body), 0)
        with pytest.raises(CorruptError, match=words):
            list_members(MemorySource(data + directory([member, twin], len(data))))


def test_bytes_after_or_before_the_archive_are_corrupt():
    _, data = encode(FORMAT, (4, 4))
    for bad in (data + b"x", b"MZ" + data, data[:-1] + b"\x05"):
        with pytest.raises(CorruptError):
            decode_one(FORMAT, bad, {"samples": 1})


def test_archive_comment_is_allowed():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", _npy(np.arange(3)))
        archive.comment = b"any words " * 400
    assert decode_one(FORMAT, out.getvalue()).samples == 3


def test_several_disks_are_refused():
    _, data = encode(FORMAT, (4, 4))
    at = data.rindex(b"PK\x05\x06") + 4
    with pytest.raises(CorruptError, match="disks"):
        decode_one(FORMAT, data[:at] + b"\x01" + data[at + 1 :], {"samples": 1})


def test_members_beyond_4_gib_are_found_through_zip64_records():
    """The directory of a 6 GiB archive, without the archive: only its end is there to be read."""
    size = 6 << 30
    members = [Member("x.npy", 0, 1, size, size, 0), Member("y.npy", 0, 2, 136, 136, size + 55)]
    start = size + 55 + 55 + 136
    tail = directory(members, start)
    source = PieceSource(start + len(tail), [(start, memoryview(tail))])
    # The end is looked for in the last KiB, which is more than this tail.
    source = PieceSource(start + len(tail), [(start - 2000, memoryview(bytes(2000) + tail))])
    assert list(list_members(source).values()) == members


def test_python_agrees_with_our_zip64_directory():
    member = Member("x.npy", 0, 1, 3 << 30, 3 << 30, 0)
    tail = directory([member], 100)
    with zipfile.ZipFile(io.BytesIO(bytes(100) + tail)) as archive:
        assert archive.infolist()[0].file_size == 3 << 30


def test_wrong_zip64_records_are_corrupt():
    member = Member("x.npy", 0, 1, 10, 10, 0)
    start = 5 << 30
    tail = bytearray(directory([member], start))
    at = tail.index(b"PK\x06\x06")
    for offset, value in ((0, b"XX"), (16, b"\x01"), (24, b"\x09"), (48, b"\x01")):
        bad = tail[: at + offset] + value + tail[at + offset + len(value) :]
        source = PieceSource(start + len(bad), [(start - 2000, memoryview(bytes(2000) + bytes(bad)))])
        with pytest.raises(CorruptError):
            list_members(source)


def test_told_facts_are_held_against_the_file():
    _, data = encode(FORMAT, (4, 4), "int16", 2)
    for options in ({"shape": (4, 5)}, {"dtype": "uint8"}, {"samples": 3}):
        with pytest.raises(CorruptError, match="wrong"):
            decode_one(FORMAT, data, options)
    assert decode_one(FORMAT, data, {"shape": [4, 4], "dtype": "int16", "samples": 2}).samples == 2


def test_wrong_number_of_samples_is_corrupt():
    _, data = encode(FORMAT, (4, 4), samples=2)
    layout = whole_file_layout(len(data), 3)
    with pytest.raises(CorruptError, match="samples"):
        FORMAT.decode(memoryview(data), layout.extents[0], layout)


def test_a_level_without_compression_is_refused():
    for options in ({"compression_level": 3}, {"compression": "zip", "compression_level": 10}):
        with pytest.raises(UsageError, match="compression_level"):
            FORMAT.check_spec(SampleSpec((2, 2), options=options))
