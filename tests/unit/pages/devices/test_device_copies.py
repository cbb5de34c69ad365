"""Copies of pages on a device: they come, are changed, are committed and follow what others commit."""

import gc
import subprocess
import sys

import numpy as np
import pytest

from stoker.core.errors import MissingExtraError, UsageError
from stoker.pages import Conflict, DeviceError, Location, OutOfSpace, PageNotFound, State, Store
from stoker.pages.devices import DevicePages, cast_pages, differing, recall
from stoker.pages.devices.cupy_arrays import cupy_array
from stoker.pages.devices.kernels import has_triton
from stoker.pages.devices.slabs import MODES
from stoker.pages.frames import FrameType, Residency

torch = pytest.importorskip("torch", reason="the package torch is not installed")

SMALL = {"slab_bytes": 1 << 20, "staging_bytes": 64 << 10}


@pytest.fixture
def store():
    with Store.open(size_bytes=16 << 20) as opened:
        yield opened


@pytest.fixture(params=[0, 1 << 40], ids=["device path", "host path"])
def copies(store, device, kernels, request):
    made = DevicePages(store, device=device, kernels=kernels.name, crossover_bytes=request.param, **SMALL)
    return store.use_devices(made)


def filled(store, *sizes, seed=0):
    chance = np.random.default_rng(seed)
    pages = [store.allocate(size) for size in sizes]
    for page in pages:
        page.write(chance.integers(0, 256, page.size_bytes, np.uint8))
    return pages


def on_device(copies, page):
    return copies.copy_of(page).place.bytes.cpu().numpy()


def assert_equal(copies, pages):
    for page in pages:
        assert np.array_equal(on_device(copies, page), page.read())


def test_pages_come_to_the_device(store, copies):
    pages = filled(store, 1, 100, 4096, 5000, 70_000)
    copies.push(pages).wait()
    assert_equal(copies, pages)
    assert {(page.location, page.residency) for page in pages} == {(Location.DEVICE, Residency.BOTH)}


def test_what_is_changed_on_the_device_is_committed_as_deltas(store, copies):
    pages = filled(store, 100, 4096, 5000, 70_000)
    copies.push(pages)
    before, lsn = [page.read() for page in pages], store.lsn
    with copies.edit(pages[:3], source="device") as tensors:
        tensors[0][99] += 1
        tensors[2][[0, 4095, 4096]] ^= 255
    for page, was in zip(pages, before, strict=True):
        expected = was.copy()
        if page is pages[0]:
            expected[99] += 1
        if page is pages[2]:
            expected[[0, 4095, 4096]] ^= 255
        assert np.array_equal(page.read(), expected)
    assert_equal(copies, pages)
    frames = [frame for frame in store.journal.scan(since=lsn + 1) if frame.page]
    assert [(frame.page, frame.type) for frame in frames] == [
        (pages[0].id, FrameType.DELTA),
        (pages[2].id, FrameType.DELTA),
    ]
    assert store.replay().digest() == state_digest(store)
    assert store.verify() == []


def state_digest(store):
    with store.snapshot() as snapshot:
        return State.of(snapshot.images(), snapshot.lsn).digest()


def test_many_rounds_stay_equal(store, copies):
    pages = filled(store, 3000, 9000)
    copies.push(pages)
    chance = np.random.default_rng(5)
    for _ in range(6):
        with copies.edit(pages) as tensors:
            for tensor in tensors:
                tensor[torch.from_numpy(chance.integers(0, tensor.numel(), 20))] += 1
        pages[0].write_at(int(chance.integers(0, 2900)), chance.integers(0, 256, 50, np.uint8))
        copies.refresh()
        assert_equal(copies, pages)


def test_an_edit_that_changes_nothing_commits_nothing(store, copies):
    pages = filled(store, 5000)
    copies.push(pages)
    lsn = store.lsn
    with copies.edit(pages):
        pass
    assert store.lsn == lsn


def test_an_edit_that_raises_leaves_all_as_it_was(store, copies):
    pages = filled(store, 5000)
    copies.push(pages)
    before = pages[0].read()
    with pytest.raises(ZeroDivisionError), copies.edit(pages) as tensors:
        tensors[0].zero_()
        raise ZeroDivisionError
    assert np.array_equal(pages[0].read(), before)
    assert_equal(copies, pages)


def test_a_change_on_both_sides_is_a_conflict(store, copies):
    pages = filled(store, 5000, 64)
    copies.push(pages)
    tensors = copies.changing(pages)
    tensors[0][7] += 1
    tensors[1][7] += 1
    pages[0].write_at(9, b"\x01\x02")
    other = pages[1].read()
    with pytest.raises(Conflict):
        copies.commit()
    assert np.array_equal(pages[1].read(), other)
    assert copies.refresh().conflicts == [pages[0].id]
    copies.sync(pages, prefer="host")
    assert pages[0].read()[9:11].tolist() == [1, 2]
    assert pages[1].read()[7] == other[7] + np.uint8(1)
    assert_equal(copies, pages)


def test_the_device_can_overrule_the_host(store, copies):
    pages = filled(store, 5000)
    copies.push(pages)
    (tensor,) = copies.changing(pages)
    tensor[7] += 1
    expected = tensor.cpu().numpy().copy()
    pages[0].write_at(9, b"\x01\x02")
    copies.sync(pages, prefer="device")
    assert np.array_equal(pages[0].read(), expected)
    assert_equal(copies, pages)
    with copies.edit(pages) as (tensor,):
        tensor[8] += 1
    assert_equal(copies, pages)


def test_what_others_commit_comes_as_differences(store, copies):
    pages = filled(store, 5000, 70_000, 4096)
    copies.push(pages)
    sent = copies.home().ring.sent_bytes
    pages[0].write_at(100, b"abc")
    pages[0].write_at(200, b"def")
    with store.batch() as batch:
        batch.write_at(pages[1], 69_999, b"\x07")
    found = copies.refresh()
    assert (found.by_delta, found.whole) == ([pages[0].id, pages[1].id], [])
    assert copies.home().ring.sent_bytes - sent < 2000
    assert_equal(copies, pages)
    assert copies.refresh().by_delta == []


def test_what_another_process_sees_and_does(store, copies):
    pages = filled(store, 5000)
    copies.push(pages)
    with Store.attach(store.descriptor) as other:
        assert other.page(pages[0].id).location == Location.DEVICE
        other.page(pages[0].id).write_at(4000, b"\xaa" * 10)
        assert copies.refresh().by_delta == [pages[0].id]
        assert_equal(copies, pages)
        copies.changing(pages)
        copies.announce(pages)
        assert other.page(pages[0].id).residency == Residency.BOTH_DEVICE_NEWER
        copies.tensor(pages[0])[0] ^= 1
        copies.commit()
        assert other.page(pages[0].id).residency == Residency.BOTH
        assert np.array_equal(other.page(pages[0].id).read(), on_device(copies, pages[0]))


def test_sizes_that_change_and_pages_that_go(store, copies):
    pages = filled(store, 5000, 300)
    copies.push(pages)
    pages[0].resize(12_000)
    pages[0].write_at(11_000, b"xyz")
    freed = pages[1].id
    pages[1].free()
    found = copies.refresh()
    assert (found.whole, found.gone) == ([pages[0].id], [freed])
    assert_equal(copies, pages[:1])
    assert copies.tensor(pages[0]).numel() == 12_000
    with pytest.raises(PageNotFound, match="has no copy"):
        copies.tensor(freed)


def test_a_dense_change_comes_whole(store, copies):
    pages = filled(store, 5000)
    copies.push(pages)
    pages[0].write(np.roll(pages[0].read(), 1))
    assert copies.refresh().whole == [pages[0].id]
    assert_equal(copies, pages)


def test_a_copy_that_fell_behind_the_ring_comes_whole(device):
    with Store.open(size_bytes=4 << 20, log_bytes=64 << 10) as store:
        copies = DevicePages(store, device=device, **SMALL)
        pages = filled(store, 5000, 5000)
        copies.push(pages)
        pages[0].write_at(0, b"old")
        for turn in range(60):
            pages[1].write(np.random.default_rng(turn).integers(0, 256, 5000, np.uint8))
        assert copies.refresh().whole == [page.id for page in pages]
        assert_equal(copies, pages)
        pages[0].write_at(0, b"new")
        assert copies.refresh().by_delta == [pages[0].id]
        assert_equal(copies, pages)
        store.use_devices(copies)


def test_types_and_shapes_come_with_the_page(store, copies):
    page = store.allocate(dtype="bfloat16", shape=(3, 5), device=copies.home().name)
    tensor = copies.tensor(page)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (3, 5))
    assert page.location == Location.DEVICE
    assert not page.read().any()
    with copies.edit([page]) as (inside,):
        inside[:] = 1.5
    assert torch.equal(page.tensor(), torch.full((3, 5), 1.5, dtype=torch.bfloat16))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_memory_holds_the_same_bytes(store, copies, mode):
    pages = filled(store, 100, 5000, 70_000)
    copies.push(pages, mode=mode).wait()
    assert_equal(copies, pages)
    copies.prefetch(pages).wait()
    for page in pages:
        copies.home().advise(copies.copy_of(page).place, "read_mostly")
    with copies.edit(pages) as tensors:
        for tensor in tensors:
            tensor[50] ^= 3
    pages[1].write_at(60, b"host")
    copies.refresh()
    assert_equal(copies, pages)
    assert pages[0].location == (Location.UNIFIED if mode == "unified" else Location.DEVICE)
    slab = copies.copy_of(pages[0]).place.slab
    assert slab.mode == mode
    assert (slab.host is None) == (mode == "device")
    if slab.host is not None:
        assert torch.equal(slab.host, slab.current.cpu())
    with pytest.raises(UsageError, match="unknown advice"):
        copies.home().advise(copies.copy_of(pages[0]).place, "quickly")


def test_an_unknown_mode_moves_nothing(store, copies):
    pages = filled(store, 100)
    with pytest.raises(UsageError, match="unknown mode"):
        copies.push(pages, mode="somewhere")
    assert pages[0].location == Location.HOST


def test_a_page_moves_there_and_back(store, copies):
    (page,) = filled(store, 5000)
    page.to(copies.home().name)
    assert page.location == Location.DEVICE
    copies.changing([page])[0][3] ^= 1
    expected = on_device(copies, page).copy()
    page.to("host")
    assert (page.location, page.residency) == (Location.HOST, Residency.HOST)
    assert np.array_equal(page.read(), expected)
    assert not copies.has(page)
    assert store.stats().pages_by_location["host"] == 1
    moves = [frame for frame in store.journal.scan(page=page.id) if frame.type == FrameType.MOVE]
    assert [tuple(frame.payload[:2]) for frame in moves] == [(1, 5), (0, 0)]
    assert store.replay().pages[page.id].location == Location.HOST


def test_prefetch_says_nothing_in_the_log(store, copies):
    pages = filled(store, 5000, 70_000)
    lsn = store.lsn
    copies.prefetch(pages).wait()
    assert store.lsn == lsn
    assert_equal(copies, pages)
    assert copies.push(pages).done in (True, False)
    assert pages[0].location == Location.DEVICE


def test_ensure_brings_what_is_missing_or_old(store, copies):
    (page,) = filled(store, 5000)
    first = copies.ensure(page)
    page.write_at(0, b"\x01\x02\x03")
    assert copies.ensure(page) is first
    assert first[:3].tolist() == [1, 2, 3]


def test_a_page_larger_than_ring_and_slab(store, device, kernels):
    copies = DevicePages(store, device=device, kernels=kernels.name, slab_bytes=64 << 10, staging_bytes=64 << 10)
    pages = filled(store, 200_000)
    copies.push(pages).wait()
    assert_equal(copies, pages)
    with copies.edit(pages) as (tensor,):
        tensor[::1001] += 1
    assert_equal(copies, pages)
    copies.forget(pages[0].id)
    assert copies.home().slab_bytes == 0


def test_a_full_device_leaves_the_store_sound(store, device):
    copies = store.use_devices(DevicePages(store, device=device, bytes_max=1 << 20, **SMALL))
    pages = filled(store, 700_000, 700_000)
    copies.push(pages[:1])
    lsn, used = store.lsn, copies.home().used_bytes
    with pytest.raises(DeviceError, match="used up"):
        copies.push(pages[1:])
    with pytest.raises(DeviceError, match="used up"):
        store.allocate(700_000, device=device)
    with pytest.raises(DeviceError, match="used up"):
        copies.changing(pages[:1])
    assert (store.lsn, copies.home().used_bytes) == (lsn, used)
    assert len(store.pages()) == 2
    assert pages[1].location == Location.HOST
    copies.forget(pages[0].id)
    copies.push(pages[1:])
    assert_equal(copies, pages[1:])
    assert store.verify() == []


def test_memory_the_allocator_refuses_is_one_sentence(store, device):
    copies = store.use_devices(DevicePages(store, device=device, slab_bytes=1 << 50, staging_bytes=64 << 10))
    (page,) = filled(store, 64)
    with pytest.raises(DeviceError, match="memory of the device is full"):
        copies.push([page])
    assert page.location == Location.HOST


def test_a_commit_that_does_not_fit_the_ring_can_be_made_smaller(device):
    with Store.open(size_bytes=8 << 20, log_bytes=256 << 10) as store:
        copies = store.use_devices(DevicePages(store, device=device, crossover_bytes=0, **SMALL))
        pages = filled(store, 60_000, 60_000, 60_000)
        copies.push(pages)
        for tensor in copies.changing(pages):
            tensor.add_(1)
        with pytest.raises(OutOfSpace):
            copies.commit()
        for page in pages:
            copies.commit([page])
        assert_equal(copies, pages)


def test_devices_that_are_not_there(store):
    absent = f"cuda:{torch.cuda.device_count()}"
    (page,) = filled(store, 64)
    with pytest.raises(DeviceError, match="device is not there"):
        page.to(absent)
    with pytest.raises(DeviceError, match="pages live on CUDA devices and on the host"):
        page.to("meta")
    with pytest.raises(DeviceError, match="no such kind of device"):
        page.to("abacus")
    with pytest.raises(DeviceError, match="device is not there"):
        store.allocate(64, device=absent)
    assert len(store.pages()) == 1
    assert page.location == Location.HOST


def test_restored_pages_load_without_a_device(tmp_path, device):
    with Store.open(tmp_path / "bus", size_bytes=4 << 20) as store:
        page = store.allocate(5000, name="kept", device=device)
        with store.devices.edit([page]) as (tensor,):
            tensor[10:20] = 9
        expected = page.read()
    with Store.open(tmp_path / "bus") as store:
        page = store.page("kept")
        assert page.location == Location.DEVICE
        assert np.array_equal(page.read(), expected)
        assert store.replay().pages[page.id].location == Location.DEVICE
        found = recall(store.devices, f"cuda:{torch.cuda.device_count()}")
        assert (found.on_device, found.on_host) == ([], [page.id])
        assert "device is not there" in found.reason
        assert (page.location, page.residency) == (Location.HOST, Residency.HOST)
        page.to(device)
    with Store.open(tmp_path / "bus") as store:
        found = recall(store.devices, device)
        page = store.page("kept")
        assert (found.on_device, found.on_host, found.reason) == ([page.id], [], "")
        assert np.array_equal(on_device(store.devices, page), expected)


def test_statistics_tell_where_pages_and_bytes_are(store, copies):
    pages = filled(store, 1000, 2000, 3000)
    copies.push(pages[:2])
    copies.push(pages[2:], mode="unified")
    copies.changing(pages[1:2])
    pages[0].write_at(0, b"\xff\xfe\xfd")
    (found,) = store.device_stats()
    assert (found.copies, found.copy_bytes) == (3, 6000)
    assert found.bytes_by_mode == {"device": 3000, "unified": 3000}
    assert found.pages_by_residency == {"both": 1, "both_device_newer": 1, "both_host_newer": 1}
    assert found.sent_bytes >= 3000
    assert store.stats().bytes_by_location == {"host": 0, "device": 3000, "unified": 3000}
    assert 'location="device"} 3000' in store.metrics_text()


def test_memory_is_used_again(store, copies):
    pages = filled(store, 100_000)
    for _ in range(30):
        copies.push(pages)
        copies.take_back(pages)
    assert copies.home().used_bytes == 0
    assert copies.home().slab_bytes == 1 << 20


def test_places_join_when_they_are_free(store, copies):
    pages = filled(store, *[1 << 17] * 8)
    copies.push(pages)
    for index in (1, 3, 2, 5, 4, 7, 6, 0):
        copies.forget(pages[index].id)
    big = filled(store, 1 << 20)
    copies.push(big)
    assert copies.home().slab_bytes == 1 << 20


def masters_for(copies, *shapes, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(shape).to(copies.home().device) for shape in shapes]


def test_a_cast_commits_what_it_changed(store, copies):
    masters = masters_for(copies, (5, 7), (100, 64), (3,))
    pages = [store.allocate(dtype="bfloat16", shape=one.shape, device=copies.home().name) for one in masters]
    cast_pages(copies, pages, masters)
    grown = [one * 1.0003 for one in masters]
    before = store.counters()["changed_bytes"]
    old = [page.tensor() for page in pages]
    cast_pages(copies, pages, grown, source="optimizer")
    for page, master in zip(pages, grown, strict=True):
        assert torch.equal(page.tensor(), master.cpu().to(torch.bfloat16))
    differing = sum(
        int((was.view(torch.uint8) != page.tensor().view(torch.uint8)).sum())
        for was, page in zip(old, pages, strict=True)
    )
    assert store.counters()["changed_bytes"] - before == differing > 0
    assert_equal(copies, pages)
    with pytest.raises(UsageError, match="master does not fit"):
        cast_pages(copies, pages[:1], masters[1:2])


def test_a_cast_over_a_changed_page_takes_the_newest_base(store, copies):
    (master,) = masters_for(copies, (64, 64))
    page = store.allocate(dtype="bfloat16", shape=(64, 64), device=copies.home().name)
    cast_pages(copies, [page], [master])
    page.write_at(0, b"\xff" * 16)
    cast_pages(copies, [page], [master])
    assert torch.equal(page.tensor(), master.cpu().to(torch.bfloat16))
    copies.changing([page])
    with pytest.raises(Conflict):
        cast_pages(copies, [page], [master])


def test_nothing_is_left_behind(device):
    with Store.open(size_bytes=4 << 20) as store:
        copies = store.use_devices(DevicePages(store, device=device, **SMALL))
        copies.push(filled(store, 5000))
        with pytest.raises(UsageError, match="already"):
            store.use_devices(copies)
    gc.collect()
    assert copies.homes == []


def test_a_batch_is_one_copy_over_the_bus(store, device, kernels):
    copies = store.use_devices(DevicePages(store, device=device, kernels=kernels.name, crossover_bytes=0, **SMALL))
    pages = filled(store, *range(100, 3100, 100))
    copies.push(pages)
    ring = copies.home().ring
    before = ring.copies
    with copies.edit(pages) as tensors:
        for tensor in tensors:
            tensor[0] ^= 1
    assert ring.copies == before + 1
    with store.batch() as batch:
        for page in pages:
            batch.write_at(page, 5, b"new")
    before = ring.copies
    assert len(copies.refresh().by_delta) == len(pages)
    assert ring.copies == before + 1
    assert_equal(copies, pages)


@pytest.mark.skipif(not has_triton(), reason="the package triton is not installed")
def test_launches_do_not_grow_with_pages(store, device, monkeypatch):
    from stoker.pages.devices import triton_tiles

    launches = []

    class Counted:
        def __init__(self, name):
            self._name, self._kernel = name, getattr(triton_tiles.launched, name)

        def __getitem__(self, grid):
            launches.append(self._name)
            return self._kernel[grid]

    for name in ("compare_tiles", "emit_tiles", "apply_tiles", "copy_tiles"):
        monkeypatch.setattr(triton_tiles.launched, name, Counted(name))
    copies = store.use_devices(DevicePages(store, device=device, kernels="triton", crossover_bytes=0, **SMALL))
    for count in (1, 40):
        pages = filled(store, *[300] * count)
        copies.push(pages)
        launches.clear()
        with copies.edit(pages) as tensors:
            for tensor in tensors:
                tensor[0] ^= 1
        assert launches == ["copy_tiles", "compare_tiles", "emit_tiles", "apply_tiles"]


def test_cupy_is_asked_for_and_not_imported(store, device):
    (page,) = filled(store, 64)
    store.devices.push([page], device)
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="pip install cupy-cuda12x"):
            cupy_array(store.devices, page)
        return
    if device == "cpu":
        with pytest.raises(DeviceError, match="only CUDA devices"):
            cupy_array(store.devices, page)
    else:
        assert cupy_array(store.devices, page).get().tobytes() == page.read().tobytes()


def test_pages_can_be_used_without_importing_torch():
    code = """
import sys
from stoker.pages import Store
Store.open(size_bytes=1 << 20).allocate(64).write(bytes(64))
sys.exit("torch" in sys.modules or "triton" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_devices_need_torch_and_say_so(store, monkeypatch):
    (page,) = filled(store, 64)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stoker\[torch\]'"):
        page.to("cuda")
    with pytest.raises(MissingExtraError):
        store.allocate(64, device="cuda")
    assert page.location == Location.HOST
    assert page.to("host") == store.lsn


def test_hashes_find_a_damaged_copy(store, copies):
    pages = filled(store, 100, 5000, 70_000)
    copies.push(pages)
    assert differing(copies) == []
    copies.copy_of(pages[2]).place.bytes[69_999] ^= 1
    copies.changing(pages[:1])[0][0] ^= 1
    fetched = copies.home().ring.fetched_bytes
    assert differing(copies) == [pages[2].id]
    assert copies.home().ring.fetched_bytes - fetched == 8 * (2 + 18)
    pages[2].write_at(0, b"behind")
    assert differing(copies) == []


def test_a_device_that_fails_leaves_the_store_sound(store, device, kernels, monkeypatch):
    copies = store.use_devices(DevicePages(store, device=device, kernels=kernels.name, crossover_bytes=0, **SMALL))
    pages = filled(store, 5000, 300)
    copies.push(pages)
    before, lsn = [page.read() for page in pages], store.lsn

    def fails(*given, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for tensor in copies.changing(pages):
        tensor[7] ^= 1
    with monkeypatch.context() as patched:
        patched.setattr(copies.home().kernels, "compare", fails)
        with pytest.raises(DeviceError, match="work on the device failed"):
            copies.commit()
    assert store.lsn == lsn
    assert all(np.array_equal(page.read(), was) for page, was in zip(pages, before, strict=True))
    copies.commit()
    assert_equal(copies, pages)
    pages[0].write_at(0, b"next")
    with monkeypatch.context() as patched:
        patched.setattr(copies.home().kernels, "apply", fails)
        with pytest.raises(DeviceError, match="work on the device failed"):
            copies.refresh()
    assert copies.refresh().whole == [pages[0].id]
    assert_equal(copies, pages)


def test_a_checkpoint_loads_its_device_pages_on_the_host(tmp_path, store, device):
    page = store.allocate(5000, name="kept", device=device)
    with store.devices.edit([page]) as (tensor,):
        tensor[4999] = 3
    store.checkpoint(tmp_path)
    with Store.restore(tmp_path) as again:
        found = again.page("kept")
        assert np.array_equal(found.read(), page.read())
        assert found.location == Location.DEVICE
        assert recall(again.devices, device).on_device == [found.id]


def test_a_gap_in_what_is_known_of_a_page_is_seen(device):
    with Store.open(size_bytes=4 << 20, log_bytes=64 << 10) as store:
        copies = store.use_devices(DevicePages(store, device=device, **SMALL))
        left, asked = filled(store, 5000, 5000)
        copies.push([left, asked])

        def overrun():
            for turn in range(30):
                asked.write(np.random.default_rng(turn).integers(0, 256, 5000, np.uint8))

        left.write_at(0, b"known")
        copies.refresh([asked])
        left.write_at(100, b"lost")
        overrun()
        copies.refresh([asked])
        left.write_at(200, b"known again")
        assert copies.refresh().whole == [left.id]
        assert_equal(copies, [left, asked])
        left.write_at(300, b"known")
        copies.refresh([asked])
        left.write_at(400, b"lost")
        overrun()
        assert left.id in copies.refresh().whole
        assert_equal(copies, [left, asked])
