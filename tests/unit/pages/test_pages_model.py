"""A store beside a model of dictionaries, driven by Hypothesis; and the same operations give the same log."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.pages import Page, PageNotFound, PagesError, Snapshot, State, Store
from stoker.pages.arena.audit import audit
from stoker.pages.arena.layout import Reader
from stoker.pages.arena.mapping import FOLDER, PREFIX, unlink_mapping
from stoker.pages.frames import Frame, FrameType

SIZES = {"size_bytes": 1 << 20, "pages_max": 128, "log_bytes": 128 << 10, "segment_bytes": 32 << 10}
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
        try:
            self._close_snapshots()
            assert self.store.verify() == []
        finally:
            self.store.close()
            (FOLDER / f"{PREFIX}{self.store.name}").unlink(missing_ok=True)
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
        """Do what the death of this process would: descriptors close, and its line in the table is of nobody."""
        assert self.store.flusher is not None
        self.store.arena.words[self.store.arena._line + Reader.START_TICKS] += 1
        self.store._open = False
        self.store.take_long_ways()
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


_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
FAST = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=_PHASES,
)
SLOW = settings(
    max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES
)


class TestStoreModel(StoreMachine.TestCase):  # type: ignore[misc, valid-type]
    """The model in a few seconds."""

    settings = FAST


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestStoreModelAtLength(StoreMachine.TestCase):  # type: ignore[misc, valid-type]
    """The same, longer and at random."""

    settings = SLOW


# -- determinism ------------------------------------------------------------------------------------------------------


class Told(msgspec.Struct):
    """What a sequence of operations came to. `log` is without times; `changes` also without ids and LSNs."""

    digest: str
    pages: list[str]
    log: list[str]
    changes: list[str]


def drive(path: Path, seed: int, *, restarts: bool) -> Told:
    """Do the same operations everywhere, some of which leave the store and open it again where that is asked for."""
    chance = random.Random(seed)
    store = Store.open(path, durability="os", **SIZES)
    for _ in range(80):
        what = chance.choice(["create", "write", "write_at", "many", "resize", "meta", "free", "restart"])
        names = sorted(page.name for page in store.pages())
        if what == "restart":
            if restarts:
                store.close()
                store = Store.open(path, durability="os")
        elif what == "create" or not names:
            store.allocate(chance.randint(1, 5000), name=f"p{chance.getrandbits(40)}")
        else:
            change(store, store.page(chance.choice(names)), what, chance)
    told = _told(store)
    store.close()
    return told


def change(store: Store, page: Page, what: str, chance: random.Random) -> None:
    """Do one thing to a page."""
    size = page.size_bytes
    if what == "write":
        kept = chance.randint(0, size)
        page.write(bytes(page.read()[:kept]) + chance.randbytes(size - kept))
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


def _told(store: Store) -> Told:
    with store.snapshot() as snapshot:
        digest = State.of(snapshot.images(), snapshot.lsn).digest()
        pages = sorted(repr((image.epoch, image.meta, bytes(image.data))) for image in snapshot.images())
    assert store.replay().digest() == digest
    assert store.verify() == []
    frames = list(store.journal.scan())
    lite = [f"{one.type} {one.epoch} {one.codec} {one.flags} {payload_of(one)}" for one in frames]
    log = [f"{one.lsn} {one.page} {text}" for one, text in zip(frames, lite, strict=True)]
    changes = [text for one, text in zip(frames, lite, strict=True) if one.type != FrameType.SOURCE]
    return Told(digest, pages, log, changes)


def payload_of(frame: Frame) -> str:
    """Return a frame's payload without the places in the arena, which after a restart depend on what was freed."""
    payload = bytearray(frame.payload)
    for kind, start, end in ((FrameType.CREATE, 8, 20), (FrameType.RESIZE, 8, 20), (FrameType.META, 0, 12)):
        if frame.type == kind:
            payload[start:end] = bytes(end - start)
    return payload.hex()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        done = drive(Path(temporary) / "s", int(sys.argv[1]), restarts=False)
        sys.stdout.buffer.write(msgspec.json.encode(done))


WAYS = [
    {"STOKER_KERNELS": "plain"},
    {"STOKER_KERNELS": "auto", "STOKER_CPU_LEVEL": "scalar"},
    {"STOKER_KERNELS": "auto", "STOKER_CPU_LEVEL": "avx2"},
    {"STOKER_KERNELS": "auto"},
]


@pytest.fixture(scope="module")
def drivings() -> list[Told]:
    found = []
    for way in WAYS:
        command = [sys.executable, str(Path(__file__)), "7"]
        done = subprocess.run(command, env={**os.environ, **way}, capture_output=True, check=False)
        assert not done.returncode, done.stderr
        found.append(msgspec.json.decode(done.stdout, type=Told))
    return found


def test_the_same_operations_give_the_same_log_with_all_kernels(drivings: list[Told]) -> None:
    assert all(one == drivings[0] for one in drivings)
    assert len(drivings[0].log) > 60


def test_the_same_operations_give_the_same_whatever_was_closed_between(drivings: list[Told], tmp_path: Path) -> None:
    """Ids differ: none is used twice, and nobody knows which a lost memory had given."""
    restarted = drive(tmp_path / "s", 7, restarts=True)
    assert restarted.pages == drivings[0].pages
    assert restarted.changes == drivings[0].changes
    assert restarted.log != drivings[0].log
