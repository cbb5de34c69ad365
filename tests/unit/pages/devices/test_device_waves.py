"""Device edges: after a wave each device is refreshed once, and the wave ends when all are done."""

import threading

import numpy as np
import pytest

from stoker.pages import EdgeKind, EventKind, Store
from stoker.pages.devices import DevicePages

torch = pytest.importorskip("torch", reason="the package torch is not installed")

SMALL = {"slab_bytes": 1 << 20, "staging_bytes": 64 << 10}


@pytest.fixture
def store(device):
    with Store.open(size_bytes=8 << 20) as opened:
        opened.use_devices(DevicePages(opened, device=device, **SMALL))
        yield opened


def equal(store, page):
    return np.array_equal(store.devices.copy_of(page).place.bytes.cpu().numpy(), page.read())


def linked(store, *, size=5000):
    source, derived = store.allocate(size), store.allocate(size)
    store.derive("passthrough", [source], derived)
    store.stabilize()
    store.devices.push([source, derived])
    return source, derived


def test_a_derived_page_is_refreshed_behind_its_wave(store):
    source, derived = linked(store)
    target = store.allocate(5000)
    store.devices.push([target])
    store.link(derived, derived_copy := store.allocate(64), EdgeKind.DEVICE)
    store.devices.push([derived_copy])
    waves = store._waves.waves
    with store.batch() as batch:
        batch.write_at(source, 10, b"abc")
        batch.write_at(derived_copy, 0, b"xyz")
    store.stabilize()
    assert equal(store, derived_copy)
    assert store._waves.waves == waves + 1
    assert not equal(store, derived)  # it hangs on no device edge


def test_a_page_that_its_user_writes_counts_as_a_wave(store):
    parent, child = store.allocate(64), store.allocate(64)
    store.devices.push([child])
    store.link(parent, child, EdgeKind.DEVICE)
    with store.batch() as batch:
        batch.write_at(parent, 0, b"a")
        batch.write_at(child, 0, b"b")
    assert not equal(store, child)
    store.stabilize()
    assert equal(store, child)
    store.graph.mode = "immediate"
    with store.batch() as batch:
        batch.write_at(parent, 0, b"c")
        batch.write_at(child, 0, b"d")
    assert equal(store, child)


def test_each_device_is_refreshed_once_a_wave_in_order(store):
    parent, *children = [store.allocate(3000) for _ in range(5)]
    for child in children:
        store.link(parent, child, EdgeKind.DEVICE)
    store.devices.push(children)
    calls = []
    home = store.devices.home()
    apply = home.apply

    def counted(places, payloads):
        calls.append([place.offset for place in places])
        return apply(places, payloads)

    home.apply = counted
    with store.batch() as batch:
        for page in (parent, *children[::-1]):
            batch.write_at(page, 7, b"zz")
    store.stabilize()
    offsets = [store.devices.copy_of(child).place.offset for child in children]
    assert calls == [offsets]
    assert store._waves.last.by_delta == [child.id for child in children]
    assert all(equal(store, child) for child in children)


def test_two_devices_are_refreshed_in_order_and_done_when_the_wave_is(store):
    parent, *children = (store.allocate(3000) for _ in range(5))
    homes = [store.devices.home(name) for name in ("cpu:1", "cpu")]
    for index, child in enumerate(children):
        store.devices.push([child], homes[index % 2].name)
        store.link(parent, child, EdgeKind.DEVICE)
    calls = []
    for home in homes:
        home.apply = lambda *given, home=home, do=home.apply: (calls.append(("apply", home.name)), do(*given))[1]
        lane = home.lane
        lane.barrier = lambda home=home, do=lane.barrier: (calls.append(("barrier", home.name)), do())[1]
    with store.batch() as batch:
        for page in (parent, *children):
            batch.write_at(page, 0, b"new")
    store.stabilize()
    assert calls == [("apply", "cpu"), ("apply", "cpu:1"), ("barrier", "cpu"), ("barrier", "cpu:1")]
    assert all(equal(store, child) for child in children)
    assert [found.copies for found in store.device_stats() if found.device in ("cpu", "cpu:1")] == [2, 2]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices are here")
def test_two_cuda_devices_follow_one_wave(store):
    parent, one, other = (store.allocate(3000) for _ in range(3))
    store.devices.push([one], "cuda:0")
    store.devices.push([other], "cuda:1")
    store.link(parent, one, EdgeKind.DEVICE)
    store.link(parent, other, EdgeKind.DEVICE)
    with store.batch() as batch:
        for page in (parent, one, other):
            batch.write_at(page, 0, b"new")
    store.stabilize()
    assert equal(store, one)
    assert equal(store, other)


def test_events_tell_when_devices_are_wanted_and_done(store):
    source, derived = linked(store)
    store.link(derived, child := store.allocate(64), EdgeKind.DEVICE)
    store.devices.push([child])
    heard = []
    store.subscribe([EventKind.GPU_SYNC_NEEDED, EventKind.GPU_SYNC_COMPLETE], heard.append)
    with store.batch() as batch:
        batch.write_at(source, 0, b"1")
        batch.write_at(child, 0, b"2")
    store.stabilize()
    assert [(event.kind, event.page) for event in heard] == [
        (EventKind.GPU_SYNC_NEEDED, child.id),
        (EventKind.GPU_SYNC_COMPLETE, child.id),
    ]


def test_a_page_being_changed_on_its_device_is_left_alone(store):
    parent, child = store.allocate(64), store.allocate(64)
    store.devices.push([child])
    store.link(parent, child, EdgeKind.DEVICE)
    (tensor,) = store.devices.changing([child])
    tensor[5] = 77
    with store.batch() as batch:
        batch.write_at(parent, 0, b"a")
        batch.write_at(child, 0, b"b")
    store.stabilize()
    assert store._waves.last.conflicts == [child.id]
    assert tensor[5] == 77


def test_a_commit_from_the_device_begins_a_wave(store):
    source, derived = linked(store)
    store.graph.mode = "immediate"
    with store.devices.edit([source]) as (tensor,):
        tensor[100] = 5
    assert derived.read()[100] == 5


def test_commits_and_waves_of_two_threads_come_to_an_end(store):
    source, derived = linked(store)
    store.link(source, derived, EdgeKind.DEVICE)
    store.graph.mode = "immediate"
    failed = []

    def from_device():
        try:
            for turn in range(20):
                with store.devices.edit([source]) as (tensor,):
                    tensor[turn] = turn + 1
        except BaseException as error:
            failed.append(error)

    def from_host():
        try:
            for _ in range(20):
                store.stabilize()
                store.devices.refresh()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for work in (from_device, from_host)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)
    store.stabilize()
    store.devices.refresh()
    assert derived.read()[:20].tolist() == list(range(1, 21))
    assert equal(store, source)
    assert equal(store, derived)
