"""A store beside a model of dictionaries, driven by Hypothesis; and the same operations give the same log everywhere."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.pages import PageNotFound, PagesError, Snapshot, State, Store
from stoker.pages.arena.audit import audit
from stoker.pages.arena.mapping import FOLDER, PREFIX, unlink_mapping

SIZES = {"size_bytes": 1 << 20, "pages_max": 128, "log_bytes": 128 << 10, "segment_bytes": 32 << 10}
HERE = Path(__file__).parent
Pages = dict[str, tuple[int, bytes, dict[str, Any]]]
"""By name: epoch, bytes, other metadata."""


class Model:
    """What a store should hold, and what it held after each commit."""

    def __init__(self) -> None:
        self.pages: Pages = {}
        self.past: dict[int, Pages] = {0: {}}
        self.marks: dict[str, int] = {}

    def commit(self, lsn: int) -> None:
        self.past[lsn] = dict(self.pages)

    def write(self, name: str, data: bytes) -> None:
        epoch, before, meta = self.pages[name]
        if before != data:
            self.pages[name] = (epoch + 1, data, meta)


def held(images: list[Any]) -> Pages:
    """Return pages of a snapshot or state as the model knows them."""
    found: Pages = {}
    for image in images:
        meta = image.facts()
        found[str(meta.pop("name"))] = (image.epoch, bytes(image.data), meta)
    return found


class StoreMachine(RuleBasedStateMachine):
    """One store with a folder; snapshots are held over any number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=FOLDER))
        self.model = Model()
        self.made = 0
        self.snapshots: list[tuple[Snapshot, Pages]] = []
        self.floor = 0
        self.store = Store.open(self.place / "s", durability="os", **SIZES)

    def teardown(self) -> None:
        self._close_snapshots()
        assert self.store.verify() == []
        self.store.close()
        shutil.rmtree(self.place)

    def _close_snapshots(self) -> None:
        while self.snapshots:
            self.snapshots.pop()[0].close()

    def _name(self, choice: int) -> str:
        return sorted(self.model.pages)[choice % len(self.model.pages)]

    def _data(self, size: int, seed: int, share: float, before: bytes) -> bytes:
        chance = np.random.default_rng(seed)
        data = np.frombuffer(before, np.uint8).copy()
        changed = chance.random(size) < share
        data[changed] = chance.integers(0, 256, int(changed.sum()), np.uint8)
        return data.tobytes()

    @property
    def _some(self) -> bool:
        return bool(self.model.pages)

    @rule(size=st.integers(1, 6000), colour=st.text("abc", max_size=3))
    def create(self, size: int, colour: str) -> None:
        if len(self.model.pages) < 30:
            self.made += 1
            name = f"p{self.made}"
            self.store.allocate(size, name=name, meta={"colour": colour})
            self.model.pages[name] = (0, bytes(size), {"colour": colour})
            self.model.commit(self.store.lsn)

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99), seed=st.integers(0, 1 << 30), share=st.sampled_from([0.0, 0.01, 0.3, 1.0]))
    def write(self, choice: int, seed: int, share: float) -> None:
        name = self._name(choice)
        before = self.model.pages[name][1]
        data = self._data(len(before), seed, share, before)
        self.model.write(name, data)
        self.model.commit(self.store.page(name).write(data))

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99), at=st.integers(0, 5999), data=st.binary(min_size=1, max_size=300))
    def write_at(self, choice: int, at: int, data: bytes) -> None:
        name = self._name(choice)
        before = self.model.pages[name][1]
        at %= len(before)
        data = data[: len(before) - at]
        self.model.write(name, before[:at] + data + before[at + len(data) :])
        self.model.commit(self.store.page(name).write_at(at, data))

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99), size=st.integers(1, 6000))
    def resize(self, choice: int, size: int) -> None:
        name = self._name(choice)
        epoch, before, meta = self.model.pages[name]
        if size != len(before):
            self.model.pages[name] = (epoch + 1, before[:size].ljust(size, b"\0"), meta)
        self.model.commit(self.store.page(name).resize(size))

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99), key=st.sampled_from(["colour", "size", "note"]), value=st.text("xyz", max_size=80))
    def set_meta(self, choice: int, key: str, value: str) -> None:
        name = self._name(choice)
        epoch, data, meta = self.model.pages[name]
        self.model.pages[name] = (epoch, data, {**meta, key: value})
        self.model.commit(self.store.page(name).set_meta(**{key: value}))

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99))
    def free(self, choice: int) -> None:
        name = self._name(choice)
        page = self.store.page(name)
        del self.model.pages[name]
        self.model.commit(page.free())
        with pytest.raises(PageNotFound):
            page.read()

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99))
    def clone(self, choice: int) -> None:
        name = self._name(choice)
        self.made += 1
        copy = f"p{self.made}"
        _, data, meta = self.model.pages[name]
        self.store.page(name).clone(name=copy)
        self.model.pages[copy] = (int(any(data)), data, meta)
        self.model.commit(self.store.lsn)

    @precondition(lambda self: self._some)
    @rule(choices=st.lists(st.integers(0, 99), min_size=1, max_size=4), value=st.integers(1, 255), fail=st.booleans())
    def batch(self, choices: list[int], value: int, fail: bool) -> None:
        names = {self._name(choice) for choice in choices}
        try:
            with self.store.batch() as batch:
                for name in sorted(names):
                    batch.write(self.store.page(name), np.full(len(self.model.pages[name][1]), value, np.uint8))
                fresh = batch.allocate(100, name="fresh")
                batch.free(fresh)
                if fail:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        for name in names:
            self.model.write(name, bytes([value]) * len(self.model.pages[name][1]))
        self.model.commit(batch.lsn)

    @rule(name=st.sampled_from(["one", "two", "three"]))
    def mark(self, name: str) -> None:
        name = f"{name} {len(self.model.marks)}"
        self.model.marks[name] = self.store.mark(name)
        self.model.commit(self.model.marks[name])

    @precondition(lambda self: len(self.snapshots) < 3)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.store.snapshot(), dict(self.model.pages)))

    @precondition(lambda self: self.snapshots)
    @rule(choice=st.integers(0, 2))
    def close_snapshot(self, choice: int) -> None:
        self.snapshots.pop(choice % len(self.snapshots))[0].close()

    @rule(incremental=st.booleans())
    def checkpoint(self, incremental: bool) -> None:
        written = self.store.checkpoint(incremental=incremental, keep=2)
        kept = self.store.journal.checkpoints()
        self.floor = max(self.floor, kept[0] if len(kept) > 1 else 0)
        assert written.pages == len(self.model.pages)
        self.model.commit(self.store.lsn)

    @rule(lose_memory=st.booleans(), kill=st.booleans())
    def start_again(self, lose_memory: bool, kill: bool) -> None:
        """Close and open; or leave as a killed process does, and lose the shared memory with what nobody wrote out."""
        self._close_snapshots()
        if kill:
            name = self.store.name
            self.store.sync("os")
            self._forget()
            if lose_memory:
                unlink_mapping(name)
        else:
            self.store.close()
            assert not (FOLDER / f"{PREFIX}{self.store.name}").exists()
        self.store = Store.open(self.place / "s", durability="os")

    def _forget(self) -> None:
        """Leave nothing undone that the death of this process would not do: descriptors close, no more."""
        assert self.store.flusher is not None
        self.store._open = False
        self.store._fast = None
        self.store.flusher.close()
        self.store.arena.mapping.close()

    @precondition(lambda self: len(self.model.past) > 1)
    @rule(choice=st.integers(0, 999))
    def replay_to_a_commit(self, choice: int) -> None:
        lsns = sorted(self.model.past)
        lsn = lsns[choice % len(lsns)]
        try:
            state = self.store.replay(lsn=lsn)
        except PagesError as error:
            assert "before what is kept" in str(error) or "behind" in str(error)
            assert lsn < self.store.journal.floor_lsn
            return
        assert held(list(state.pages.values())) == self.model.past[lsn]

    @precondition(lambda self: self.model.marks)
    @rule(choice=st.integers(0, 99))
    def replay_to_a_mark(self, choice: int) -> None:
        name = sorted(self.model.marks)[choice % len(self.model.marks)]
        lsn = self.model.marks[name]
        try:
            state = self.store.replay(mark=name)
        except PagesError:
            assert self.store.journal.floor_lsn > 1
            return
        assert held(list(state.pages.values())) == self.model.past[lsn]

    @precondition(lambda self: self._some)
    @rule(choice=st.integers(0, 99))
    def replay_to_an_epoch(self, choice: int) -> None:
        name = self._name(choice)
        epoch, data, _ = self.model.pages[name]
        page = self.store.page(name)
        if page.lsn > self.store.journal.floor_lsn and self.store.journal.floor_lsn <= 1:
            state = self.store.replay(page=page.id, epoch=epoch)
            assert bytes(state.pages[page.id].data) == data

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        with self.store.snapshot() as snapshot:
            assert held(list(snapshot.images())) == self.model.pages
        for page in self.store.pages():
            assert bytes(page.read()) == self.model.pages[page.name][1]
        assert audit(self.store.arena) == []

    @invariant()
    def snapshots_never_change(self) -> None:
        for snapshot, expected in self.snapshots:
            assert held(list(snapshot.images())) == expected

    @invariant()
    def the_log_has_no_gap(self) -> None:
        lsns = [frame.lsn for frame in self.store.journal.scan()]
        assert lsns == list(range(self.store.lsn - len(lsns) + 1, self.store.lsn + 1))


FAST = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
SLOW = settings(max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))


class TestStoreModel(StoreMachine.TestCase):  # type: ignore[misc, valid-type]
    """The model in a few seconds."""

    settings = FAST


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestStoreModelAtLength(StoreMachine.TestCase):  # type: ignore[misc, valid-type]
    """The same, longer and at random."""

    settings = SLOW


# -- determinism ------------------------------------------------------------------------------------------------------


def drive(store: Store, seed: int, restart: Callable[[Store], Store]) -> tuple[str, list[str]]:
    """Do the same operations everywhere; return the digest of the pages, and the log without its times."""
    chance = random.Random(seed)
    for _ in range(60):
        names = [page.name for page in store.pages()]
        what = chance.choice(["create", "write", "write_at", "many", "resize", "meta", "free", "restart"])
        if what == "create" or not names:
            store.allocate(chance.randint(1, 5000), name=f"p{chance.getrandbits(40)}")
            continue
        if what == "restart":
            store = restart(store)
        page = store.page(chance.choice(names))
        size = page.size_bytes
        if what == "write":
            data = np.frombuffer(chance.randbytes(size), np.uint8).copy()
            data[chance.randint(0, size) :] = page.read()[: len(data[chance.randint(0, 0) :])][-1]
            page.write(data)
        elif what == "write_at":
            page.write_at(size // 2, chance.randbytes(size - size // 2), source="half")
        elif what == "many":
            store.update_many([page.id], np.full((1, size), chance.randint(0, 255), np.uint8))
        elif what == "resize":
            page.resize(chance.randint(1, 5000))
        elif what == "meta":
            page.set_meta(note="n" * chance.randint(0, 50))
        elif what == "free":
            page.free()
    log = [
        f"{frame.lsn} {frame.type} {frame.page} {frame.epoch} {frame.codec} {frame.flags} {payload_of(frame).hex()}"
        for frame in store.journal.scan()
    ]
    with store.snapshot() as snapshot:
        digest = State.of(snapshot.images(), snapshot.lsn).digest()
    assert store.replay().digest() == digest
    assert store.verify() == []
    store.close()
    return digest, log


def payload_of(frame: Any) -> bytes:
    """Return a frame's payload without the places in the arena, which depend on what was freed when."""
    payload = bytearray(frame.payload)
    for kind, start, end in ((1, 8, 20), (3, 8, 20), (7, 0, 12)):
        if frame.type == kind:
            payload[start:end] = bytes(end - start)
    return bytes(payload)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=FOLDER) as place:
        made = Store.open(Path(place) / "s", durability="os", **SIZES)
        print(json.dumps(drive(made, int(sys.argv[1]), lambda store: store)))


WAYS = [
    {"STOKER_KERNELS": "plain"},
    {"STOKER_KERNELS": "auto", "STOKER_CPU_LEVEL": "scalar"},
    {"STOKER_KERNELS": "auto", "STOKER_CPU_LEVEL": "avx2"},
    {"STOKER_KERNELS": "auto"},
]


def test_the_same_operations_give_the_same_log_with_all_kernels() -> None:
    found = []
    for way in WAYS:
        command = [sys.executable, str(Path(__file__)), "7"]
        done = subprocess.run(command, env={**os.environ, **way}, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        found.append(json.loads(done.stdout))
    assert all(one == found[0] for one in found)
    assert len(found[0][1]) > 50
