"""HDF5: h5py reads ours, we read h5py's, and nothing leads out of the file."""

import io

import h5py
import numpy as np
import pytest
from format_files import CountingSource, content, decode_one, encode, told

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import SampleSpec
from stoker.formats.hdf5 import FORMAT


def _file(fill, **options):
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        fill(file)
    return out.getvalue()


def test_h5py_finds_records_and_labels():
    spec, data = encode(FORMAT, (5, 7), "int32", 3)
    with h5py.File(io.BytesIO(data), "r") as file:
        assert sorted(file) == ["labels", "records_0"]
        assert file["records_0"].shape == (3, 5, 7)
        assert file["records_0"].dtype == np.int32
        assert np.array_equal(file["records_0"][1], content(spec, 1))
        assert file["labels"].dtype == np.int64
        assert file["labels"][:].tolist() == [0, 0, 0]
    assert data[8] >= 3, "the superblock's version tells the library version asked for"


def test_a_contiguous_dataset_is_a_view():
    spec, data = encode(FORMAT, (5, 7), "float32", 3)
    block = decode_one(FORMAT, data)
    assert np.shares_memory(block.columns["records"], np.frombuffer(data, np.uint8))
    assert block.copied_bytes == 0
    assert np.array_equal(block.sample(2), content(spec, 2))


@pytest.mark.parametrize(
    ("options", "filters"),
    [({"compression": "gzip"}, ("gzip", 4)), ({"compression": "gzip", "compression_level": 9}, ("gzip", 9)),
     ({"compression": "lzf"}, ("lzf", None)), ({"compression": "none"}, (None, None))],
)  # fmt: skip
def test_compression_is_applied(options, filters):
    spec, data = encode(FORMAT, (40, 40), samples=2, **options)
    with h5py.File(io.BytesIO(data), "r") as file:
        assert (file["records_0"].compression, file["records_0"].compression_opts) == filters
    block = decode_one(FORMAT, data)
    assert np.array_equal(block.sample(1), content(spec, 1))
    assert block.copied_bytes == (0 if filters[0] is None else 3200)


def test_chunks_and_largest_shape_are_applied():
    spec, data = encode(FORMAT, (8, 6), samples=4, chunk_dims=[2, 4, 3], max_shape=[16, 6])
    with h5py.File(io.BytesIO(data), "r") as file:
        assert file["records_0"].chunks == (2, 4, 3)
        assert file["records_0"].maxshape == (4, 16, 6)
    assert np.array_equal(decode_one(FORMAT, data).sample(3), content(spec, 3))


@pytest.mark.parametrize(
    ("shape", "parts", "part_shape"),
    [((8, 6), 2, (4, 6)), ((4, 6), 4, (6,)), ((8,), 4, (2,)), ((4,), 4, (1,)), ((2, 3, 4), 2, (3, 4))],
)
def test_records_in_parts_are_joined_again(shape, parts, part_shape):
    spec, data = encode(FORMAT, shape, samples=3, num_dset_per_record=parts)
    with h5py.File(io.BytesIO(data), "r") as file:
        assert file[f"records_{parts - 1}"].shape == (3, *part_shape)
        assert np.array_equal(file["records_0"][2].ravel(), content(spec, 2).ravel()[: np.prod(part_shape)])
    block = decode_one(FORMAT, data, told(spec))
    assert np.array_equal(block.sample(2), content(spec, 2))
    assert decode_one(FORMAT, data).sample(2).tobytes() == content(spec, 2).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"num_dset_per_record": 3},
        {"num_dset_per_record": 0},
        {"chunk_dims": [4, 4]},
        {"chunk_dims": [9, 9, 9]},
        {"chunk_dims": 4},
        {"max_shape": [4, 4]},
        {"max_shape": [8]},
        {"compression_level": 3},
        {"compression": "gzip", "compression_level": 11},
        {"compression": "zip"},
    ],
)
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(UsageError):
        FORMAT.check_spec(SampleSpec((8, 6), samples=2, options=options))


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"libver": "earliest"}, {"libver": "v110"}])
def test_files_of_h5py_are_read(options):
    array = np.arange(60, dtype=np.float64).reshape(5, 3, 4)

    def fill(file):
        file["records_0"] = array
        file["something_else"] = "words"

    block = decode_one(FORMAT, _file(fill, **options))
    assert np.array_equal(block.columns["records"], array)
    assert list(block.columns) == ["records"]


@pytest.mark.parametrize(
    "creation",
    [
        {"chunks": True},
        {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"maxshape": (None, 3, 4)},
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", ">i4", "float16", "bool", "complex64"])
def test_datasets_in_every_form_are_read(creation, dtype):
    array = np.arange(60).reshape(5, 3, 4).astype(dtype)
    data = _file(lambda file: file.create_dataset("records_0", data=array, **creation))
    block = decode_one(FORMAT, data)
    assert np.array_equal(block.columns["records"], array)
    assert block.columns["records"].dtype == np.dtype(dtype)


def test_a_user_block_before_the_file_does_no_harm():
    def fill(file):
        file["records_0"] = np.arange(6)

    block = decode_one(FORMAT, _file(fill, userblock_size=512))
    assert block.columns["records"].tolist() == list(range(6))
    assert block.copied_bytes == 0


def test_layout_reads_the_metadata_alone():
    _, data = encode(FORMAT, (512, 512), samples=4)
    source = CountingSource(data)
    assert FORMAT.layout(source, {}).extents[0].samples == 4
    assert source.read_bytes < 20_000


def _external_link(file, folder):
    file["records_0"] = h5py.ExternalLink(str(folder / "other.h5"), "/records_0")


def _soft_link(file, folder):
    file["other"] = np.zeros(3)
    file["records_0"] = h5py.SoftLink("/other")


def _external_storage(file, folder):
    (folder / "other.bin").write_bytes(bytes(24))
    file.create_dataset("records_0", (3,), "f8", external=[(str(folder / "other.bin"), 0, 24)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "records_0", (3,))
    file.create_virtual_dataset("records_0", layout)


@pytest.mark.parametrize("fill", [_external_link, _soft_link, _external_storage, _virtual])
def test_what_leads_out_of_the_file_is_refused(fill, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["records_0"] = np.ones(3)
    data = _file(lambda file: fill(file, tmp_path))
    for options in ({}, {"samples": 3}):
        with pytest.raises(CorruptError, match=r"link|elsewhere"):
            decode_one(FORMAT, data, options)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda file: file.create_group("records_0"), "not a dataset"),
        (lambda file: file.create_dataset("records_0", data=3.0), "not a dataset with samples"),
        (lambda file: file.create_dataset("records_0", data=h5py.Empty("f4")), "not a dataset with samples"),
        (lambda file: file.create_dataset("records_0", data=["a", "bc"]), "element type"),
        (lambda file: file.create_dataset("records_0", data=np.zeros(3, "i4,f4")), "element type"),
        (lambda file: file.create_dataset("records_0", (10**6, 10**6), "f8", chunks=(8, 8)), "absurd"),
        (lambda file: file.create_dataset("records_0", (3,), "f4", scaleoffset=2), "filter"),
        (lambda file: None, "missing"),
        (lambda file: file.update({"records_0": np.zeros(3), "labels": np.zeros(4)}), "labels"),
        (lambda file: file.update({"records_0": np.zeros(3), "records_1": np.zeros(4)}), "parts"),
    ],
)
def test_files_without_proper_samples_are_corrupt(fill, words):
    def run(file):
        fill(file)

    with pytest.raises(CorruptError, match=words):
        decode_one(FORMAT, _file(run), {"samples": 3})


def test_truncated_and_overwritten_files_are_corrupt():
    _, data = encode(FORMAT, (40, 40), samples=2)
    for bad in (data[: len(data) // 2], data[:-1], data[:100], b"\x89HDF\r\n\x1a\n" + bytes(400)):
        with pytest.raises(CorruptError, match="cannot be read"):
            decode_one(FORMAT, bad, {"samples": 2})
