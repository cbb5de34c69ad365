"""Where the host ends and the device begins: measured, kept for each machine and device, pinned by who wants to."""

import json

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages import Store
from stoker.pages.devices import DevicePages, measure_crossover, pin_crossover, routing
from stoker.pages.devices.home import DeviceHome
from stoker.pages.devices.routing import DEFAULT_BYTES, NEVER_BYTES, SIZES, cache_path, device_key, kept_crossover

pytest.importorskip("torch", reason="the package torch is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def home(device):
    return DeviceHome(device, slab_bytes=32 << 20, staging_bytes=4 << 20, bytes_max=None)


def test_nothing_measured_means_the_default(home):
    assert kept_crossover(home) == DEFAULT_BYTES


def test_what_is_measured_is_kept_for_this_device_alone(home, monkeypatch):
    monkeypatch.setattr(routing, "SIZES", SIZES[:3])
    found = measure_crossover(home)
    assert found in {*SIZES, NEVER_BYTES}
    assert kept_crossover(home) == found
    assert list(json.loads(cache_path().read_text())) == [device_key(home)]
    assert home.used_bytes == 0


def test_the_crossover_is_where_the_device_stays_ahead(home, monkeypatch):
    times = {size: (100, 200 if size <= 65_536 else 50) for size in SIZES}
    times[4096] = (100, 50)  # ahead once, and behind again: does not count
    monkeypatch.setattr(routing, "_timed", lambda home, size: times[size])
    assert measure_crossover(home) == 262_144
    monkeypatch.setattr(routing, "_timed", lambda home, size: (100, 100))
    assert measure_crossover(home) == NEVER_BYTES
    monkeypatch.setattr(routing, "_timed", lambda home, size: (100, 1))
    assert measure_crossover(home) == SIZES[0]


def test_a_pinned_one_stays(home):
    pin_crossover(home, 12_345)
    assert measure_crossover(home) == kept_crossover(home) == 12_345
    pin_crossover(home, None)
    assert kept_crossover(home) == DEFAULT_BYTES
    with pytest.raises(UsageError, match="0 or more"):
        pin_crossover(home, -1)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"odd": 3}'])
def test_a_file_that_cannot_be_read_is_measured_again(home, text):
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text(text)
    assert kept_crossover(home) == DEFAULT_BYTES
    pin_crossover(home, 1)
    assert kept_crossover(home) == 1


def test_the_crossover_decides_the_way_and_not_the_bytes(device):
    with Store.open(size_bytes=4 << 20) as store:
        copies = store.use_devices(DevicePages(store, device=device, slab_bytes=1 << 20, staging_bytes=64 << 10))
        page = store.allocate(40_000)
        copies.push([page])
        fetched = {}
        for crossover in (0, NEVER_BYTES):
            pin_crossover(copies.home(), crossover)
            before = copies.home().ring.fetched_bytes
            with copies.edit([page]) as (tensor,):
                tensor[1000] += 1
            fetched[crossover] = copies.home().ring.fetched_bytes - before
            assert np.array_equal(copies.copy_of(page).place.bytes.cpu().numpy(), page.read())
        assert fetched[0] < 200
        assert fetched[NEVER_BYTES] == 40_192  # the page, at a multiple of 256 bytes
        assert page.read()[1000] == 2
