"""Bounds, back-pressure, and threads that always end."""

import gc
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from loader_datasets import build

from stoker.core.errors import UsageError
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions, in_flight_bytes
from stoker.storage.api import Reader, Store
from stoker.storage.layers.layer import Layer, ReaderLayer


class Watched(Layer):
    """Counts what was opened, and holds reads back while `gate` is closed."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.opened: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def _run(self, operation: str, key: str, action: Any) -> Any:
        return action()

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        self.opened.append(key)
        assert self.gate.wait(20)
        return ReaderLayer(self.inner.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes))


def settle(watched: Watched) -> int:
    """Return how many files are opened once no more are."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 0.25:
        if len(watched.opened) != count:
            count, since = len(watched.opened), time.monotonic()
        time.sleep(0.01)
    return count


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stoker-")]


def wait_for_no_threads() -> None:
    end = time.monotonic() + 10
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_reading_runs_ahead_by_the_batches_asked_for_and_no_more(memory: Store, prefetch: int) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    store = Watched(memory)
    options = LoaderOptions(batch_size=4, prefetch_batches=prefetch)
    with Loader(store, manifest, options) as loader:
        steps = loader.epoch(1)
        assert settle(store) == 0
        for asked in (1, 2, 3):
            next(steps)
            assert settle(store) == 4 * (asked + prefetch)


def test_bytes_in_flight_are_bounded(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (64, 64))
    file_bytes = int(manifest.sizes_bytes[0])
    store = Watched(memory)
    options = LoaderOptions(batch_size=2, prefetch_batches=10, in_flight_bytes_max=5 * file_bytes)
    with Loader(store, manifest, options) as loader:
        steps = loader.epoch(1)
        next(steps)
        assert settle(store) == 2 + 5
        next(steps)
        assert settle(store) == 4 + 5
        assert len(list(steps)) == 18


@pytest.mark.parametrize("name", ["npz", "raw"])
def test_samples_larger_than_the_bound_still_come(memory: Store, name: str) -> None:
    manifest = build(memory, name, [1, 7, 2, 9, 5], (64, 64))
    for prefetch in (0, 1, 5):
        options = LoaderOptions(batch_size=5, prefetch_batches=prefetch, in_flight_bytes_max=1)
        with Loader(memory, manifest, options) as loader:
            assert len(list(loader.epoch(1))) == 4


def test_kept_batches_do_not_count_as_in_flight(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 20, (256, 256))
    options = LoaderOptions(batch_size=2, in_flight_bytes_max=2 * int(manifest.sizes_bytes[0]))
    with Loader(memory, manifest, options) as loader:
        assert len(list(loader.epoch(1))) == 10


def test_several_large_files_are_read_at_once(memory: Store) -> None:
    manifest = build(memory, "npz", [50] * 8, (8,))
    store = Watched(memory)
    with Loader(store, manifest, LoaderOptions(batch_size=2, read_threads=3)) as loader:
        next(loader.epoch(1))
        assert settle(store) == 3


def test_nothing_is_read_beyond_the_cap_of_steps(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    store = Watched(memory)
    with Loader(store, manifest, LoaderOptions(batch_size=4, steps_max=2, prefetch_batches=5)) as loader:
        assert len(list(loader.epoch(1))) == 2
        assert settle(store) == 8


def test_leaving_the_loop_ends_the_threads(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    loader = Loader(memory, manifest, LoaderOptions(batch_size=4))
    for _ in loader.epoch(1):
        assert threads()
        break
    wait_for_no_threads()
    assert len(list(loader.epoch(2))) == 10
    assert not threads()
    loader.close()


def test_a_forgotten_loader_ends_its_threads(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    steps = Loader(memory, manifest, LoaderOptions(batch_size=4)).epoch(1)
    next(steps)
    assert threads()
    del steps
    gc.collect()
    wait_for_no_threads()


def test_close_joins_and_may_be_repeated(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    loader = Loader(memory, manifest, LoaderOptions(batch_size=4))
    steps = loader.epoch(1)
    batch = next(steps)
    loader.close()
    assert not threads()
    loader.close()
    with pytest.raises(UsageError, match="closed"):
        next(steps)
    with pytest.raises(UsageError, match="closed"):
        loader.epoch(1)
    assert np.isfinite(batch.samples[0]).all()
    assert loader.state_dict()["step"] == 1


def test_a_new_epoch_ends_the_one_that_is_open(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    with Loader(memory, manifest, LoaderOptions(batch_size=4)) as loader:
        old = loader.epoch(1)
        next(old)
        assert len(list(loader.epoch(2))) == 10
        with pytest.raises(Exception, match="another epoch"):
            next(old)


def test_an_interrupted_wait_can_be_taken_up_again(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8, (8,))
    store = Watched(memory)
    with Loader(store, manifest, LoaderOptions(batch_size=4)) as loader:
        steps = loader.epoch(1)
        store.gate.clear()
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(steps)
        timer.join()
        store.gate.set()
        assert [batch.step for batch in steps] == [0, 1]


def test_the_bound_of_bytes_follows_batch_and_memory(memory: Store) -> None:
    manifest = build(memory, "npz", [1], (8,))
    assert in_flight_bytes(LoaderOptions(batch_size=1, in_flight_bytes_max=7), manifest, 0, 4) == 7
    assert in_flight_bytes(LoaderOptions(batch_size=1), manifest, 0, 4) == 64 << 20
    manifest.sizes_bytes = np.array([1 << 60])
    most = in_flight_bytes(LoaderOptions(batch_size=4), manifest, 0, 4)
    assert 64 << 20 <= most < 1 << 50


def test_a_program_that_forgets_everything_still_ends() -> None:
    script = """
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.loader.manifest import Manifest
from stoker.storage.opening import open_store
import numpy as np
store = open_store("mem://end")
keys = [f"train/{n}" for n in range(50)]
for key in keys:
    store.put(key, bytes(8))
manifest = Manifest("raw", keys, np.full(50, 8), np.full(50, 1), options={"shape": (8,)})
steps = Loader(store, manifest, LoaderOptions(batch_size=2)).epoch(1)
next(steps)
print("left", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
