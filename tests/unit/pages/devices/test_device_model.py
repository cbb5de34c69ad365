"""Copies against a model: whatever is done in whatever order, host, device, log and model hold the same bytes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stoker.kernels.deltas import two_level_diff
from stoker.pages import Conflict, Store
from stoker.pages.devices import DevicePages, kernels_for
from stoker.pages.devices.tiles import Columns, TileTable, columns_of, payloads_of

torch = pytest.importorskip("torch", reason="the package torch is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WHICH = st.integers(0, 2)
SIZES = st.sampled_from([1, 63, 64, 65, 255, 4095, 4096, 4097, 9000])


class DeviceMachine(RuleBasedStateMachine):
    """The model: the bytes of each page, and of those being changed on the device the bytes there."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store.open(size_bytes=4 << 20, log_bytes=64 << 10)
        self.copies = self.store.use_devices(
            DevicePages(self.store, device=DEVICE, kernels="eager", slab_bytes=64 << 10, staging_bytes=16 << 10)
        )
        self.committed: dict[int, np.ndarray] = {}
        self.written: dict[int, np.ndarray] = {}
        self.overtaken: set[int] = set()

    def teardown(self) -> None:
        assert self.store.verify() == []
        self.store.close()

    def chosen(self, which: int) -> int:
        return sorted(self.committed)[which % len(self.committed)]

    @initialize(sizes=st.lists(SIZES, min_size=1, max_size=3))
    def begin_with(self, sizes: list[int]) -> None:
        for size in sizes:
            self.allocate(size)

    def allocate(self, size: int, seed: int = 0) -> None:
        page = self.store.allocate(size)
        page.write(np.random.default_rng(seed).integers(0, 256, size, np.uint8))
        self.committed[page.id] = page.read()

    @rule(which=WHICH, mode=st.sampled_from(["device", "unified"]))
    def push(self, which: int, mode: str) -> None:
        page = self.chosen(which)
        copy = self.copies.copy_of(page) if self.copies.has(page) else None
        if copy is not None and copy.changing and copy.place.slab.mode != mode:
            return
        self.copies.push([page], mode=mode)

    @rule(which=WHICH, at=st.integers(0, 8999), data=st.binary(min_size=1, max_size=40))
    def write_on_host(self, which: int, at: int, data: bytes) -> None:
        page = self.chosen(which)
        size = self.committed[page].size
        at, data = at % size, data[: size - at % size]
        before = self.store.arena.facts(page).epoch
        self.store.write_at(page, at, data)
        self.committed[page][at : at + len(data)] = list(data)
        if page in self.written and self.store.arena.facts(page).epoch != before:
            self.overtaken.add(page)

    @rule(which=WHICH, places=st.lists(st.integers(0, 8999), min_size=1, max_size=5))
    def write_all_on_host(self, which: int, places: list[int]) -> None:
        page = self.chosen(which)
        made = self.committed[page].copy()
        made[[place % made.size for place in places]] ^= 0x55
        if not np.array_equal(made, self.committed[page]) and page in self.written:
            self.overtaken.add(page)
        self.store.write(page, made)
        self.committed[page] = made

    @rule(which=WHICH)
    def overrun_the_log(self, which: int) -> None:
        """Write a page, and then so much that the ring forgets it."""
        self.write_all_on_host(which, [3])
        other = self.store.allocate_id(9000)
        for turn in range(12):
            self.store.write(other, np.random.default_rng(turn).integers(0, 256, 9000, np.uint8))
        self.store.free_id(other)

    @rule(which=WHICH, size=SIZES)
    def resize(self, which: int, size: int) -> None:
        page = self.chosen(which)
        before = self.committed[page]
        self.store.resize(page, size)
        made = np.zeros(size, np.uint8)
        made[: before.size] = before[:size]
        self.committed[page] = made
        if page in self.written and size != before.size:
            self.overtaken.add(page)

    @rule(which=WHICH)
    def begin(self, which: int) -> None:
        page = self.chosen(which)
        if page not in self.written:
            if not self.copies.has(page):
                self.copies.push([page])
            self.copies.changing([page])
            self.written[page] = self.committed[page].copy()

    @rule(which=WHICH, at=st.integers(0, 8999), value=st.integers(0, 255), run=st.integers(1, 200))
    def write_on_device(self, which: int, at: int, value: int, run: int) -> None:
        page = self.chosen(which)
        self.begin(which)
        at %= self.written[page].size
        self.copies.tensor(page)[at : at + run] = value
        self.written[page][at : at + run] = value

    @rule(crossover=st.sampled_from([0, 4096, 1 << 40]))
    def commit(self, crossover: int) -> None:
        self.copies.crossover_bytes = crossover
        if self.overtaken:
            try:
                self.copies.commit()
            except Conflict:
                return
            raise AssertionError("a conflict was not seen")
        self.copies.commit()
        self.committed |= self.written
        self.written.clear()

    @rule(which=WHICH)
    def discard(self, which: int) -> None:
        page = self.chosen(which)
        if self.copies.has(page):
            self.copies.discard([page])
            self.written.pop(page, None)
            self.overtaken.discard(page)

    @rule()
    def refresh(self) -> None:
        found = self.copies.refresh()
        assert set(found.conflicts) == self.overtaken
        for copy in self.copies.copies:
            if copy.page not in self.written:
                assert np.array_equal(copy.place.bytes.cpu().numpy(), self.committed[copy.page])

    @rule(which=WHICH)
    def forget(self, which: int) -> None:
        page = self.chosen(which)
        self.copies.forget(page)
        self.written.pop(page, None)
        self.overtaken.discard(page)

    @rule(which=WHICH, size=SIZES, seed=st.integers(0, 99))
    def replace(self, which: int, size: int, seed: int) -> None:
        page = self.chosen(which)
        self.copies.forget(page)
        self.store.free(page)
        self.written.pop(page, None)
        self.overtaken.discard(page)
        del self.committed[page]
        self.allocate(size, seed)

    @invariant()
    def host_and_device_are_as_the_model_says(self) -> None:
        for page, expected in self.committed.items():
            assert np.array_equal(self.store.read(page), expected)
        for page, expected in self.written.items():
            assert np.array_equal(self.copies.copy_of(page).place.bytes.cpu().numpy(), expected)


DeviceMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDeviceModel = DeviceMachine.TestCase


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=5),
    places=st.lists(st.integers(0, 1 << 16), max_size=60),
    order=st.randoms(use_true_random=False),
)
def test_any_layout_gives_the_payloads_of_the_log(sizes, places, order):
    kernels = kernels_for(DEVICE, "eager")
    slots = list(enumerate(sizes))
    order.shuffle(slots)
    starts, at = {}, 0
    for index, size in slots:
        starts[index], at = at, at + -(-size // 256) * 256
    chance = np.random.default_rng(len(places))
    base = chance.integers(0, 256, at + 4096 - at % 64, np.uint8)[: (at + 4095) // 64 * 64]
    fresh = base.copy()
    for place in places:
        fresh[place % base.size] ^= 1 + place % 255
    table = TileTable([(starts[index], size) for index, size in enumerate(sizes)])
    found = kernels.compare(torch.from_numpy(base).to(DEVICE), torch.from_numpy(fresh).to(DEVICE), table)
    payloads = payloads_of(table, Columns(found.blob.cpu().numpy(), found.dirty_lines, found.changed_bytes))
    pairs = [(base[starts[i] : starts[i] + size], fresh[starts[i] : starts[i] + size]) for i, size in enumerate(sizes)]
    assert payloads == [two_level_diff(was, now)[0] for was, now in pairs]
    made = columns_of(table, payloads)
    slab = torch.from_numpy(base.copy()).to(DEVICE)
    kernels.apply([slab], table, Columns(torch.from_numpy(made.blob).to(DEVICE), made.dirty_lines, made.changed_bytes))
    for index, (_, now) in enumerate(pairs):
        assert np.array_equal(slab[starts[index] : starts[index] + sizes[index]].cpu().numpy(), now)
