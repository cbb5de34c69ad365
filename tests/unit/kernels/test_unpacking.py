"""Samples are found by headers alone, natively and plainly; everything unusual is left to the formats' readers."""

import io
import zipfile

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.formats.api import FORMATS, SampleSpec
from stoker.kernels import plain_unpacking, unpacking
from stoker.kernels.native import native_kernels
from stoker.kernels.unpack_columns import (
    ARRAY_AT,
    ARRAY_DTYPE,
    ARRAY_FORTRAN,
    ARRAY_LABEL_AT,
    ARRAY_LABEL_DTYPE,
    ARRAY_SIDES,
    ARRAY_STATUS,
    RECORD_IMAGE_AT,
    RECORD_IMAGE_BYTES,
    SCAN_BROKEN,
    SCAN_END,
    SCAN_FULL,
    SCAN_MORE,
    USUAL,
    dtype_of,
)


@pytest.fixture(params=["native", "plain"], autouse=True)
def kernels(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(unpacking, "native_kernels", lambda: None)
        return plain_unpacking
    module = native_kernels()
    if module is None:
        pytest.skip("the native module is not built, or STOKER_KERNELS=plain")
    return module


def in_buffer(*files, gap=3):
    """Return (data, starts, lengths) of files with gaps between."""
    buffer, starts = bytearray(), []
    for file in files:
        buffer += b"\xff" * gap
        starts.append(len(buffer))
        buffer += file
    return np.frombuffer(buffer, np.uint8), np.array(starts), np.array([len(file) for file in files])


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def npz(save=np.savez, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "<u2", ">i4", "int64", "float16", ">f8", "c8", "c16"])
@pytest.mark.parametrize("order", "CF")
def test_arrays_of_numpy_are_found(dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), order=order).astype(dtype, order=order)
    labels = np.arange(4, dtype=np.int16)
    data, starts, lengths = in_buffer(npz(x=array, y=labels), npz(y=labels, x=array), npz(x=array))
    found = unpacking.npz_locate(data, starts, lengths)
    assert found[:, ARRAY_STATUS].tolist() == [USUAL] * 3
    assert found[:, ARRAY_SIDES : ARRAY_SIDES + 4].tolist() == [[3, 2, 3, 4]] * 3
    for row in found:
        assert dtype_of(int(row[ARRAY_DTYPE])) == array.dtype
        assert bool(row[ARRAY_FORTRAN]) == (order == "F")
        assert data[row[ARRAY_AT] :][: array.nbytes].tobytes() == array.tobytes(order)
    for row in found[:2]:
        assert dtype_of(int(row[ARRAY_LABEL_DTYPE])) == np.int16
        assert data[row[ARRAY_LABEL_AT] :][:8].tobytes() == labels.tobytes()
    assert found[2, [ARRAY_LABEL_AT, ARRAY_LABEL_DTYPE]].tolist() == [0, 0]
    data, starts, lengths = in_buffer(npy(array))
    (row,) = unpacking.npy_locate(data, starts, lengths)
    assert (row[ARRAY_STATUS], row[ARRAY_AT]) == (USUAL, starts[0] + lengths[0] - array.nbytes)


def _with_comment():
    out = io.BytesIO(npz(x=np.ones(3)))
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"words"
    return out.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        b"",
        bytes(30),
        npz(np.savez_compressed, x=np.ones(3)),
        npz(x=np.ones(3), z=np.ones(3)),
        npz(y=np.ones(3)),
        npz(x=np.ones(3), y=np.ones(4)),
        npz(x=np.ones(3), y=np.ones((1, 3))),
        npz(x=np.ones((2, 0))),
        npz(x=np.float64(3)),
        npz(x=np.ones((1,) * 9)),
        npz(x=np.array(["text"])),
        npz(x=np.array([1], "m8[s]")),
        npz(x=np.zeros(2, [("a", "i4")])),
        npz(x=np.ones(3)) + b"\0",
        b"\0" + npz(x=np.ones(3)),
        npz(x=np.ones(3))[:-1],
        _with_comment(),
    ],
)
def test_other_archives_are_unusual(file):
    data, starts, lengths = in_buffer(file, npz(x=np.ones(3)))
    found = unpacking.npz_locate(data, starts, lengths)
    assert not found[0].any()
    assert found[1, ARRAY_STATUS] == USUAL


def test_one_wrong_byte_in_a_header_is_unusual_or_means_another_array(kernels):
    file = npz(x=np.arange(6, dtype=np.uint8).reshape(2, 3), y=np.zeros(3, np.int64))
    for at in range(len(file)):
        for flip in (1, 0x80):
            bad = file[:at] + bytes([file[at] ^ flip]) + file[at + 1 :]
            data, starts, lengths = in_buffer(bad, gap=0)
            (row,) = unpacking.npz_locate(data, starts, lengths)
            if row[ARRAY_STATUS] == USUAL:
                assert 0 < row[ARRAY_AT] <= len(file) - 6


def _tfrecord(sizes):
    made = FORMATS.load("tfrecord")
    files = []
    for size in sizes:
        spec = made.check_spec(SampleSpec((size,)))
        files.append(b"".join(made.encode(spec, lambda _, spec=spec: np.full(spec.shape, 7, np.uint8))))
    return files


def test_images_of_records_are_found():
    sizes = [1, 200, 40_000]
    records = _tfrecord(sizes)
    data, starts, lengths = in_buffer(b"".join(records), records[1])
    statuses, found = unpacking.examples_locate(data, starts, lengths, np.array([3, 1]))
    assert statuses.tolist() == [USUAL, USUAL]
    assert found[:, RECORD_IMAGE_BYTES].tolist() == [*sizes, 200]
    for row in found:
        assert (data[row[RECORD_IMAGE_AT] :][: row[RECORD_IMAGE_BYTES]] == 7).all()
    assert unpacking.checksums_hold(data, found).all()
    data[found[1, RECORD_IMAGE_AT] + 5] ^= 1
    assert unpacking.checksums_hold(data, found).tolist() == [True, False, True, True]


def test_another_number_of_records_is_unusual():
    records = _tfrecord([3, 4])
    data, starts, lengths = in_buffer(b"".join(records))
    for count in (0, 1, 3):
        statuses, found = unpacking.examples_locate(data, starts, lengths, np.array([count]))
        assert statuses.tolist() == [0]
        assert found.shape == (count, 5)
        assert not found.any()


def test_a_walk_along_records_ends_where_it_says():
    records = _tfrecord([3, 400, 5])
    run = np.frombuffer(b"".join(records), np.uint8)
    sizes = [len(record) for record in records]
    columns = np.zeros((2, 5), np.int64)
    assert unpacking.records_scan(run, len(run), *columns) == (3, len(run), SCAN_END)
    assert columns[:, :3].tolist() == [[0, sizes[0], sizes[0] + sizes[1]], sizes]
    assert unpacking.records_scan(run, len(run), *columns[:, :2]) == (2, sizes[0] + sizes[1], SCAN_FULL)
    assert unpacking.records_scan(run[: sizes[0] + 20], len(run), *columns) == (2, sizes[0] + sizes[1], SCAN_MORE)
    assert unpacking.records_scan(run, len(run) - 1, *columns) == (2, sizes[0] + sizes[1], SCAN_BROKEN)
    assert unpacking.records_scan(run, len(run) + 15, *columns) == (3, len(run), SCAN_BROKEN)
    assert unpacking.records_scan(run, len(run) + 16, *columns) == (3, len(run), SCAN_MORE)
    assert unpacking.records_scan(run[:0], 0, *columns) == (0, 0, SCAN_END)
    wrong = run.copy()
    wrong[sizes[0] + 9] ^= 1
    assert unpacking.records_scan(wrong, len(run), *columns) == (1, sizes[0], SCAN_BROKEN)


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 11), (8, 3), (3, -1), (2**62, 2**62), (1, 2**63 - 1)])
def test_files_outside_the_buffer_are_refused(start, length):
    data, column = np.zeros(10, np.uint8), np.array
    for locate in (unpacking.npz_locate, unpacking.npy_locate):
        with pytest.raises(UsageError, match="buffer"):
            locate(data, column([0, start]), column([10, length]))
    with pytest.raises(UsageError, match="buffer"):
        unpacking.examples_locate(data, column([start]), column([length]), column([0]))


def test_columns_that_do_not_fit_are_refused():
    data, column = np.zeros(64, np.uint8), np.array
    with pytest.raises(UsageError):
        unpacking.npz_locate(data, column([0]), column([1, 2]))
    with pytest.raises(UsageError):
        unpacking.npz_locate(data[::2], column([0]), column([1]))
    with pytest.raises(UsageError):
        unpacking.npz_locate(data.view(np.int8), column([0]), column([1]))
    for counts in ([5], [-1], [1, 1], [2**60]):
        with pytest.raises(UsageError):
            unpacking.examples_locate(data, column([0]), column([64]), column(counts))


def test_the_native_kernels_check_for_themselves():
    module = native_kernels()
    if module is None:
        pytest.skip("the native module is not built, or STOKER_KERNELS=plain")
    data, none = np.zeros(10, np.uint8), np.zeros((1, 15), np.int64)
    for start, length in ((0, 11), (-1, 2), (2**62, 2**62)):
        with pytest.raises(ValueError, match="buffer"):
            module.npz_locate(data, np.array([start]), np.array([length]), none)
    with pytest.raises(ValueError, match="shape"):
        module.npy_locate(data, np.array([0]), np.array([1]), none[:, :14].copy())
    with pytest.raises(ValueError, match="room"):
        module.examples_locate(data, np.array([0]), np.array([10]), np.array([2]), np.zeros(1, np.int64), none[:, :5])


def test_no_files_are_found_in_nothing():
    nothing = np.zeros(0, np.int64)
    data = np.zeros(0, np.uint8)
    assert unpacking.npz_locate(data, nothing, nothing).shape == (0, 15)
    assert unpacking.examples_locate(data, nothing, nothing, nothing)[1].shape == (0, 5)
