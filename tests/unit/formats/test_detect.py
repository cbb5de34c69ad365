"""Telling formats apart, and what all formats share."""

import pickle
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
from format_files import encode

from stoker.core.errors import CorruptError, MissingExtraError, ShortReadError, UsageError
from stoker.formats.api import FORMATS, SampleSpec, reading_options
from stoker.formats.base import CHUNK_BYTES, gather
from stoker.formats.detect import HEAD_BYTES, detect
from stoker.formats.ranges import MemorySource, PieceSource, RangeFile

_BY_BYTES = ["npz", "npy", "hdf5", "tfrecord", "jpeg", "png", "parquet"]
_BY_NAME = ["csv", "raw", "synthetic", "indexed_binary", "mmap_indexed_binary"]


@pytest.mark.parametrize("name", _BY_BYTES)
def test_first_bytes_tell_the_format_whatever_the_name(name):
    _, data = encode(FORMATS.load(name), (8, 8))
    assert detect(data[:HEAD_BYTES], "train/file.of_no_known_kind") == name
    assert detect(data[:HEAD_BYTES], "train/file.raw") == name


@pytest.mark.parametrize("name", _BY_BYTES + _BY_NAME)
def test_names_as_dlio_gives_them_tell_the_format(name):
    assert detect(b"", f"data/train/img_00_of_16.{name}") == name
    made = FORMATS.load(name)
    _, data = encode(made, (8, 8))
    assert detect(data[:HEAD_BYTES], f"img_0_of_8.{made.extension}") == name


@pytest.mark.parametrize(
    ("head", "name", "found"),
    [
        (b"PK\x03\x04", "a.csv", "csv"),
        (b"PK\x03\x04", "a.csv.zip", "csv"),
        (b"\x1f\x8b\x08", "a.csv.gz", "csv"),
        (b"\x1f\x8b\x08", "a.tar.gz", None),
        (b"", "a.JPG", "jpeg"),
        (b"", "a.h5", "hdf5"),
        (b"", "folder.csv/file", None),
        (b"words", "file", None),
        (bytes(16), "file", None),
    ],
)
def test_other_names_and_bytes(head, name, found):
    assert detect(head, name) == found


def test_every_format_is_registered_and_says_who_it_is():
    names = FORMATS.names()
    assert set(_BY_BYTES + _BY_NAME) <= set(names)
    for name in _BY_BYTES + _BY_NAME:
        made = FORMATS.load(name)
        assert made.name == made.extension == name
        assert isinstance(made.lossless, bool)
        assert made.primary


def test_entry_points_are_one_for_each_format():
    ours = {entry.name for entry in entry_points(group="stoker.formats") if entry.value.startswith("stoker.")}
    assert ours == set(_BY_BYTES + _BY_NAME)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("hdf5", "h5py", "hdf5"),
        ("parquet", "pyarrow", "parquet"),
        ("parquet", "pyarrow.parquet", "parquet"),
        ("jpeg", "PIL", "image"),
        ("png", "PIL", "image"),
        ("tfrecord", "crc32c", "tfrecord"),
    ],
)
def test_an_absent_package_is_told_with_the_command_that_installs_it(monkeypatch, name, package, extra):
    for module in [module for module in sys.modules if module.startswith("stoker.formats.")]:
        if module != "stoker.formats.api":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'stoker\[{extra}\]'"):
        FORMATS.load(name)


def test_layouts_travel_between_processes():
    for name in _BY_BYTES + _BY_NAME:
        made = FORMATS.load(name)
        spec, data = encode(made, (8, 8))
        layout = made.layout(MemorySource(data, made.side_files(spec)), reading_options(spec))
        again = pickle.loads(pickle.dumps(layout))
        assert again.extents == layout.extents
        block = made.decode(
            memoryview(b"".join(data[start : start + length] for start, length in again.extents[0].ranges)),
            again.extents[0],
            again,
        )
        assert block.samples == 1


def test_options_that_repeat_the_spec_are_allowed_and_others_refused():
    made = FORMATS.load("npy")
    spec = SampleSpec((2, 3), "int16", 4)
    made.check_spec(SampleSpec((2, 3), "int16", 4, reading_options(spec)))
    for wrong in ({"shape": (3, 2)}, {"dtype": "int32"}, {"samples": 5}):
        with pytest.raises(UsageError, match="disagree"):
            made.check_spec(SampleSpec((2, 3), "int16", 4, wrong))


def test_options_that_are_none_are_not_given():
    made = FORMATS.load("hdf5")
    options = {"compression": None, "compression_level": None, "chunk_dims": None, "max_shape": None}
    assert made.check_spec(SampleSpec((2, 3), options=options)).shape == (2, 3)


def test_pieces_are_joined_when_small_and_cut_when_large():
    pieces = [b"a" * 10] * 5 + [b"b" * (2 * CHUNK_BYTES + 5)] + [b"c"]
    chunks = [bytes(chunk) for chunk in gather(iter(pieces))]
    assert b"".join(chunks) == b"".join(pieces)
    assert [len(chunk) for chunk in chunks] == [50, CHUNK_BYTES, CHUNK_BYTES, 5, 1]
    large = memoryview(bytes(CHUNK_BYTES))
    assert np.shares_memory(np.frombuffer(next(gather(iter([large]))), np.uint8), np.frombuffer(large, np.uint8))


def test_memory_behind_a_file_object_reads_like_a_file():
    file = RangeFile(MemorySource(b"0123456789"))
    assert bytes(file.read(3)) == b"012"
    assert file.seek(-2, 2) == 8
    assert bytes(file.read()) == b"89"
    assert bytes(file.read(5)) == b""
    assert file.seek(100) == 100
    assert bytes(file.read(1)) == b""
    assert file.seek(4) == file.tell() == 4
    into = bytearray(3)
    assert file.readinto(into) == 3
    assert into == b"456"
    with pytest.raises(CorruptError):
        file.readinto(bytearray(4))
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    file.close()
    assert file.closed


def test_sources_give_exactly_the_range_or_an_error():
    source = MemorySource(b"0123456789", {".idx": b"x"})
    assert bytes(source.read(2, 3)) == b"234"
    assert source.side_file(".idx") == b"x"
    assert source.side_file(".other") is None
    for offset, length in ((8, 3), (-1, 2), (3, -1)):
        with pytest.raises(ShortReadError):
            source.read(offset, length)
    pieces = PieceSource(100, [(10, memoryview(b"abc")), (50, memoryview(b"def"))])
    assert bytes(pieces.read(51, 2)) == b"ef"
    assert pieces.side_file(".idx") is None
    for offset, length in ((9, 2), (12, 2), (30, 1)):
        with pytest.raises(CorruptError):
            pieces.read(offset, length)


def test_bytes_of_another_view_are_taken_as_bytes():
    made = FORMATS.load("npy")
    spec, data = encode(made, (8, 8), "int16")
    assert len(data) % 2 == 0
    layout = made.layout(MemorySource(data), reading_options(spec))
    block = made.decode(memoryview(data).cast("h"), layout.extents[0], layout)
    assert block.copied_bytes == 0
