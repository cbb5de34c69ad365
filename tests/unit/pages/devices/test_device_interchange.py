"""Arrays of other packages go into pages and come out of them, without a copy where that is possible."""

import sys

import numpy as np
import pytest

from stoker.core.errors import MissingExtraError, UsageError
from stoker.pages import DeviceError, InvalidDelta, PageNotFound, PagesError, Store
from stoker.pages.elements import BEYOND_NUMPY, element_type, numpy_type
from stoker.pages.interchange import foreign_bytes, is_foreign, write_foreign
from stoker.pages.page import as_bytes

torch = pytest.importorskip("torch", reason="the package torch is not installed")
KINDS = [
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float16",
    "float32",
    "float64",
    "int8",
    "int64",
    "bool",
    "complex64",
]


@pytest.fixture
def store():
    with Store.open(size_bytes=8 << 20) as opened:
        yield opened


def sample(kind: str, *shape: int):
    return (torch.arange(int(np.prod(shape))) % 5).reshape(shape).to(getattr(torch, kind))


def same_bytes(left, right) -> bool:
    return torch.equal(
        left.contiguous().reshape(-1).view(torch.uint8), right.contiguous().reshape(-1).view(torch.uint8)
    )


class DlpackOnly:
    """An array that shows nothing but DLPack."""

    def __init__(self, tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **wishes):
        return self._tensor.__dlpack__(**wishes)

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()


class OnDevice:
    """An array that says it lies on a CUDA device, which is not there."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (4,), "typestr": "|u1", "data": (4096, False), "version": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_comes_back_as_it_went(store, kind):
    given = sample(kind, 3, 5)
    page = store.allocate(dtype=given.dtype, shape=given.shape)
    page.write(given)
    assert page.tensor().dtype == given.dtype
    assert same_bytes(page.tensor(), given)
    with store.snapshot() as snapshot:
        assert same_bytes(page.tensor(snapshot), given)
    into = torch.empty_like(given)
    assert store.read(page, out=into) is into
    assert same_bytes(into, given)


@pytest.mark.parametrize("kind", KINDS)
def test_dlpack_alone_is_enough(kind):
    given = sample(kind, 4, 4)
    assert as_bytes(DlpackOnly(given)).tobytes() == bytes(given.reshape(-1).view(torch.uint8).tolist())


def test_host_memory_is_not_copied():
    given = torch.zeros(8, dtype=torch.bfloat16)
    seen = as_bytes(given)
    given[3] = 1.0
    assert seen[6:8].tobytes() == b"\x80\x3f"
    seen[0:2] = [0x80, 0x3F]
    assert given[0] == 1.0


def test_memory_lives_as_long_as_somebody_looks_at_it():
    seen = as_bytes(torch.full((1 << 16,), 7, dtype=torch.uint8))
    torch.full((1 << 16,), 9, dtype=torch.uint8)
    assert (seen == 7).all()


@pytest.mark.parametrize(
    "part",
    [
        lambda whole: whole.t(),
        lambda whole: whole[::2],
        lambda whole: whole[:, 1:3],
        lambda whole: whole[0].expand(4, 6),
        lambda whole: whole[2, 3],
        lambda whole: whole[:0],
    ],
)
def test_what_is_not_contiguous_is_copied(part):
    given = part(torch.arange(24, dtype=torch.int16).reshape(4, 6))
    assert as_bytes(given).tobytes() == given.numpy().tobytes()
    assert as_bytes(DlpackOnly(given)).tobytes() == given.numpy().tobytes()


def test_history_and_lazy_signs_are_no_hindrance():
    grown = torch.ones(4, requires_grad=True)
    assert as_bytes(grown).tobytes() == np.ones(4, np.float32).tobytes()
    turned = torch.tensor([1 + 2j]).conj()
    assert as_bytes(turned).tobytes() == np.array([1 - 2j], np.complex64).tobytes()


def test_every_way_of_writing_takes_tensors(store):
    page = store.allocate(8, dtype=torch.uint8)
    page.write(torch.arange(8, dtype=torch.uint8))
    page.write_at(2, torch.tensor([9], dtype=torch.uint8))
    with store.batch() as batch:
        batch.write_at(page, 3, torch.tensor([10, 11], dtype=torch.uint8))
    assert page.read().tolist() == [0, 1, 9, 10, 11, 5, 6, 7]
    other = store.allocate(8)
    store.update_many([page.id, other.id], torch.full((2, 2), 257, dtype=torch.int32))
    assert page.read().view(np.int32).tolist() == other.read().view(np.int32).tolist() == [257, 257]
    store.update_many([page.id, other.id], [torch.zeros(8, dtype=torch.uint8), torch.ones(1, dtype=torch.int64)])
    assert page.read().tolist() == [0] * 8
    assert other.read().tolist() == [1] + [0] * 7


def test_an_array_of_another_size_changes_nothing(store):
    page = store.allocate(8)
    with pytest.raises(InvalidDelta, match="data do not fit the page"):
        page.write(torch.zeros(9, dtype=torch.uint8))
    with pytest.raises(InvalidDelta, match="array does not fit the page"):
        page.read(torch.zeros(9, dtype=torch.uint8))
    with pytest.raises(InvalidDelta, match="not contiguous"):
        page.read(torch.zeros(4, 4, dtype=torch.uint8)[:, :2])
    assert page.epoch == 0


def test_a_sparse_tensor_is_refused():
    with pytest.raises(InvalidDelta, match="sparse"):
        as_bytes(torch.eye(3).to_sparse())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_memory_of_a_missing_device_is_one_sentence(store):
    assert is_foreign(OnDevice())
    with pytest.raises(DeviceError, match="memory of a device cannot be read"):
        foreign_bytes(OnDevice())
    with pytest.raises(DeviceError, match="memory of a device cannot be written"):
        write_foreign(OnDevice(), np.zeros(4, np.uint8))
    page = store.allocate(4)
    with pytest.raises(DeviceError):
        page.write(OnDevice())
    assert page.epoch == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_tensors_of_a_cuda_device_go_in_and_come_out(store):
    given = sample("bfloat16", 6, 6).cuda()
    page = store.allocate(dtype=given.dtype, shape=given.shape)
    page.write(given.t())
    assert same_bytes(page.tensor(), given.t().cpu())
    into = torch.empty_like(given)
    page.read(into)
    assert same_bytes(into.cpu(), given.t().cpu())


def test_views_of_a_snapshot_are_kept_and_private(store):
    page = store.allocate(dtype="float32", shape=(4,))
    page.write(np.arange(4, dtype=np.float32))
    with store.snapshot() as snapshot:
        first = page.tensor(snapshot)
        assert page.tensor(snapshot) is first
        page.write(np.zeros(4, np.float32))
        assert first.tolist() == [0.0, 1.0, 2.0, 3.0]
        first[0] = 8.0
        assert snapshot.view(page.id).view(np.float32)[0] == 0.0
        assert np.from_dlpack(page.array(snapshot))[0] == 8.0
    assert page.read().view(np.float32).tolist() == [0.0] * 4
    with pytest.raises(PagesError, match="snapshot is closed"):
        page.tensor(snapshot)


def test_a_snapshot_knows_no_page_that_came_later(store):
    with store.snapshot() as snapshot:
        page = store.allocate(64)
        with pytest.raises(PageNotFound):
            page.tensor(snapshot)


def test_types_without_a_numpy_type_come_as_whole_numbers(store):
    page = store.allocate(dtype="bfloat16", shape=(2, 2))
    page.write(torch.ones(2, 2, dtype=torch.bfloat16))
    assert page.meta["dtype"] == "bfloat16"
    assert page.array().dtype == np.uint16
    assert page.array().tolist() == [[0x3F80, 0x3F80], [0x3F80, 0x3F80]]


def test_names_of_types():
    assert element_type(torch.float32) == element_type(np.float32) == ("<f4", 4)
    assert element_type("torch.bfloat16") == element_type("bfloat16") == ("bfloat16", 2)
    assert all(numpy_type(name).itemsize == width for name, width in BEYOND_NUMPY.items())
    for odd in ("no such type", object):
        with pytest.raises(UsageError):
            element_type(odd)


def test_torch_has_no_type_for_every_page(store):
    page = store.allocate(dtype=">f4", shape=(2,))
    with pytest.raises(UsageError, match="torch has no such type"):
        page.tensor()
    assert page.array().tolist() == [0.0, 0.0]


def test_without_torch_there_is_a_sentence(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    page = store.allocate(4)
    with pytest.raises(MissingExtraError, match=r"pip install 'stoker\[torch\]'"):
        page.tensor()
    page.write(np.arange(4, dtype=np.uint8))
    assert page.read().tolist() == [0, 1, 2, 3]
