"""The native engine of waves and its plain twin: the same pages, epochs, reports and log, whatever is done."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels
from stoker.pages import Store
from stoker.pages.frames import FrameType
from stoker.pages.graph import Input, Propagation
from stoker.pages.graph.plain_waves import PlainWaves

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="native kernels are not installed: nothing to compare")
ELEMENTS = ("<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f4", "<f8")
SIZES = (8, 16, 64, 72, 200, 256, 4096)


def mixes(inputs: Sequence[Input], out: np.ndarray, *, salt: int) -> np.ndarray:
    """Fold all inputs into the page; fail for one value in sixteen."""
    total = salt + sum(int(one.data.sum()) for one in inputs)
    if total % 16 == 3:
        raise ValueError("unlucky")
    out[:] = np.arange(out.size) * total % (total % 7 + 1)
    return out


class Pair:
    """Two stores in which the same is done, one with each engine."""

    def __init__(self, seed: int) -> None:
        self.stores = [Store.open(size_bytes=8 << 20, pages_max=512, log_bytes=1 << 20) for _ in range(2)]
        self.graphs = [
            Propagation(self.stores[0]),
            Propagation(self.stores[1], engine=PlainWaves(self.stores[1].arena)),
        ]
        self.chance = random.Random(seed)
        self.pages: list[int] = []
        self.sources: list[int] = []

    def close(self) -> None:
        for graph, store in zip(self.graphs, self.stores, strict=True):
            graph.close()
            store.close()

    def allocate(self, size: int) -> int:
        made = {store.allocate(size).id for store in self.stores}
        assert len(made) == 1
        self.pages.append(made.pop())
        return self.pages[-1]

    def derive(self, page: int, inputs: list[int]) -> None:
        kind = self.chance.choice(
            ["passthrough", "passthrough", "sum", "max", "min", "count", "concat", "hash", "cast", mixes, mixes]
        )
        parameters: dict[str, int | str] = {}
        if kind == "passthrough":
            parameters = {"offset": self.chance.choice([0, 0, 8, 70])}
        elif kind == "cast":
            parameters = {"source": "<f4", "target": "bfloat16"}
        elif kind is mixes:
            parameters = {"salt": self.chance.randrange(16)}
        elif kind in ("sum", "max", "min", "count"):
            parameters = {"dtype": self.chance.choice(ELEMENTS)}
        lazy = self.chance.random() < 0.1
        for graph in self.graphs:
            graph.derive(kind, inputs, page, lazy=lazy, **parameters)

    def write(self) -> None:
        page = self.chance.choice(self.sources)
        size = self.stores[0].page(page).size_bytes
        data = np.frombuffer(self.chance.randbytes(size), np.uint8).copy()
        if self.chance.random() < 0.5:
            data[8:] = 0
        for store in self.stores:
            store.write(page, data)

    def check(self) -> None:
        reports = [graph.stabilize() for graph in self.graphs]
        for field in ("changed", "recomputed", "unchanged", "failed", "stale", "marked"):
            assert getattr(reports[0], field) == getattr(reports[1], field), field
        facts = []
        for store, graph in zip(self.stores, self.graphs, strict=True):
            pages = [(page.id, page.epoch, int(page.state), page.read().tobytes()) for page in store.pages()]
            facts.append((pages, graph.stale(), store.lsn))
        assert facts[0][1:] == facts[1][1:]
        for one, other in zip(facts[0][0], facts[1][0], strict=True):
            assert one == other, self.graphs[0]._derivations.get(one[0])

    def frames(self) -> list[list[tuple[object, ...]]]:
        return [
            [
                (frame.lsn, frame.type, frame.page, frame.epoch, frame.codec, frame.elem_width, frame.flags,
                 frame.source, bytes(frame.payload))
                for frame in store.journal.scan()
                if frame.type not in (FrameType.CREATE, FrameType.META)
            ]
            for store in self.stores
        ]  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
def test_twins_agree_over_random_graphs_and_writes(seed: int) -> None:
    pair = Pair(seed)
    for index in range(40):
        page = pair.allocate(pair.chance.choice(SIZES))
        if index < 6:
            pair.sources.append(page)
        else:
            pair.derive(page, pair.chance.sample(pair.pages[:-1], pair.chance.randint(1, 3)))
    pair.check()
    gone: list[int] = []
    for round_ in range(40):
        for _ in range(pair.chance.randint(0, 3)):
            pair.write()
        if pair.chance.random() < 0.2:  # churn: another way to make a page
            page = pair.chance.choice(pair.pages[6:])
            before = [one for one in pair.pages[: pair.pages.index(page)] if one not in gone]
            pair.derive(page, pair.chance.sample(before, 2))
        if round_ == 20:
            gone.append(pair.sources.pop())
            for store in pair.stores:
                store.free(gone[0])
        if pair.chance.random() < 0.1:  # others write a derived page
            page = pair.chance.choice(list(pair.pages[6:]))
            for store in pair.stores:
                store.write_at(page, 0, bytes([round_]))
        pair.check()
    native, plain = pair.frames()
    assert native == plain
    assert any(frame[1] == FrameType.WAVE for frame in native)
    for store in pair.stores:
        assert store.verify() == []
        assert store.replay().digest() == pair.stores[0].replay().digest()
    pair.close()


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_twins_agree_at_every_cpu_level(level: str) -> None:
    with forced_cpu_level(level):
        test_twins_agree_over_random_graphs_and_writes(99)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_folds_agree_over_hostile_elements(dtype: str) -> None:
    kind = np.dtype(dtype)
    pair = Pair(1)
    size = 61 * kind.itemsize
    source, other = pair.allocate(size), pair.allocate(size)
    outs = [pair.allocate(max(kind.itemsize, 8)) for _ in range(4)]
    for graph in pair.graphs:
        for name, out in zip(("sum", "max", "min", "count"), outs, strict=True):
            graph.derive(name, [source, other], out, dtype=dtype)
    chance = np.random.default_rng(3)
    special = [0, -0.0, np.inf, -np.inf, np.nan, 1e30, 5e-324] if kind.kind == "f" else [0, 1]
    for round_ in range(30):
        data = chance.integers(0, 256, size, np.uint8).view(kind).copy()
        if round_ % 3 == 0:
            with np.errstate(all="ignore"):
                data[:] = chance.choice(np.array(special).astype(kind), 61)
        for store in pair.stores:
            store.write(source if round_ % 2 else other, data)
        pair.check()
    pair.close()
