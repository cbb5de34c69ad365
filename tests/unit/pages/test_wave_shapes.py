"""Graphs of known shapes: exactly the changed and necessary pages are made, whatever the size."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from stoker.pages import CycleError, Store
from stoker.pages.graph import DependencyGraph, Input


def opened(pages_max: int) -> Store:
    return Store.open(size_bytes=64 << 20, pages_max=pages_max, log_bytes=64 << 20)


@pytest.fixture
def store() -> Iterator[Store]:
    with opened(1 << 15) as made:
        yield made


def allocate(store: Store, count: int) -> list[int]:
    return store.allocate_many([8] * count).tolist()


def put(store: Store, page: int, number: int) -> None:
    store.write(page, np.array([number], np.uint64))


def numbers(store: Store, pages: list[int]) -> list[int]:
    return [int(store.read(page).view(np.uint64)[0]) for page in pages]


@pytest.mark.parametrize("length", [1, 10, 1000, 20_000])
def test_chain(store: Store, length: int) -> None:
    pages = allocate(store, length + 1)
    store.graph.derive_all([("passthrough", [pages[i]], pages[i + 1], {}) for i in range(length)])
    store.stabilize()
    put(store, pages[0], 7)
    report = store.stabilize()
    assert report.recomputed == pages[1:]
    assert numbers(store, pages[-1:]) == [7]
    assert store.stabilize().recomputed == []
    middle = pages[len(pages) // 2]
    put(store, middle, 9)
    assert store.stabilize().recomputed == pages[len(pages) // 2 + 1 :]


def test_fan_out_and_fan_in(store: Store) -> None:
    source, total, *fan = allocate(store, 10_002)
    store.graph.derive_all([("passthrough", [source], page, {}) for page in fan])
    store.derive("sum", fan, total, dtype="<u8")
    store.stabilize()
    put(store, source, 3)
    assert store.stabilize().recomputed == [*fan, total]
    assert numbers(store, [total]) == [30_000]
    put(store, fan[7], 4)
    assert store.stabilize().recomputed == [total]
    assert numbers(store, [total]) == [30_001]


def test_balanced_tree(store: Store) -> None:
    pages = allocate(store, 2047)
    inner = range(1023)
    store.graph.derive_all(
        [("sum", [pages[2 * i + 1], pages[2 * i + 2]], pages[i], {"dtype": "<u8"}) for i in reversed(inner)]
    )
    store.stabilize()
    for leaf in (1023, 1500, 2046):
        put(store, pages[leaf], 1)
        assert len(store.stabilize().recomputed) == 10
    assert numbers(store, pages[:1]) == [3]


def test_grid(store: Store) -> None:
    side = 40
    pages = np.array(allocate(store, side * side)).reshape(side, side).tolist()
    store.graph.derive_all(
        [
            ("sum", [pages[i - 1][j]] * (i > 0) + [pages[i][j - 1]] * (j > 0), pages[i][j], {"dtype": "<u8"})
            for i in range(side)
            for j in range(side)
            if i or j
        ]
    )
    store.stabilize()
    put(store, pages[0][0], 1)
    assert len(store.stabilize().recomputed) == side * side - 1
    assert numbers(store, [pages[3][3]]) == [20]
    put(store, pages[10][10], 5)
    assert len(store.stabilize().recomputed) == (side - 10) ** 2 - 1


def test_cutoff(store: Store) -> None:
    source, flag, *below = allocate(store, 1002)
    store.derive("count", [source], flag, dtype="<u8")
    store.graph.derive_all([("passthrough", [flag], page, {}) for page in below])
    put(store, source, 1)
    store.stabilize()
    epochs = [store.page(page).epoch for page in (flag, below[0])]
    for value in range(2, 50):
        put(store, source, value)
        report = store.stabilize()
        assert (report.recomputed, report.unchanged) == ([], [flag])
    assert [store.page(page).epoch for page in (flag, below[0])] == epochs
    put(store, source, 0)
    assert store.stabilize().recomputed == [flag, *below]


def necessary(children: dict[int, list[int]], starts: list[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(starts)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_graph(count: int) -> None:
    chance = random.Random(6)
    with opened(count + 16) as store:
        pages = allocate(store, count)
        children: dict[int, list[int]] = {}
        derived = []
        for index in range(count // 20, count):
            inputs = sorted({pages[chance.randrange(index)] for _ in range(2)})
            derived.append(("sum", inputs, pages[index], {"dtype": "<u8"}))
            for one in inputs:
                children.setdefault(one, []).append(pages[index])
        store.graph.derive_all(derived)
        store.stabilize()
        for round_ in range(5):
            sources = chance.sample(pages[: count // 20], 1 + round_)
            for source in sources:
                # Values grow, and sums with them: every page below comes out different.
                put(store, source, chance.randrange(1 << 30) + (round_ << 40) + 1)
            assert set(store.stabilize().recomputed) == necessary(children, sources)


def test_churn(store: Store) -> None:
    chance = random.Random(8)
    pages = allocate(store, 300)
    inputs: dict[int, list[int]] = {}
    for round_ in range(200):
        page = chance.randrange(20, 300)
        inputs[pages[page]] = [pages[one] for one in chance.sample(range(page), 2)]
        store.derive("sum", inputs[pages[page]], pages[page], dtype="<u8")
        put(store, pages[chance.randrange(20)], round_ + 1)
        store.stabilize()
        values = dict(zip(pages, numbers(store, pages), strict=True))
        assert all(values[page] == sum(values[one] for one in sources) % 2**64 for page, sources in inputs.items())
    edges = {(source, page, 0) for page, sources in inputs.items() for source in sources}
    assert set(store.graph.graph.edges()) == edges


def test_deep_cycles_are_refused_with_their_way() -> None:
    graph = DependencyGraph((node, node + 1, 0) for node in range(5000))
    for start, end in ((5000, 0), (3000, 10), (1, 0)):
        with pytest.raises(CycleError) as caught:
            graph.add(start, end)
        path = caught.value.path
        assert path[0] == path[-1] == end
        assert list(path[:-1]) == list(range(end, start + 1))
    assert len(graph.edges()) == 5000


class Counted(DependencyGraph):
    """Counts the steps of its searches."""

    steps = 0

    def _moved(self, *args: object) -> Iterator[dict[int, int]]:
        for step in super()._moved(*args):
            Counted.steps += 1
            yield step


@pytest.mark.parametrize("backwards", [False, True])
def test_chains_are_built_in_linear_time_from_either_end(backwards: bool) -> None:
    Counted.steps = 0
    nodes = 100_000
    order = range(nodes - 1, -1, -1) if backwards else range(nodes)
    graph = Counted((node, node + 1, 0) for node in order)
    assert Counted.steps <= 2 * nodes
    assert graph.depth() == nodes
    assert graph.order() == list(range(nodes + 1))


def test_heights_do_not_drift_apart_for_ever() -> None:
    graph = DependencyGraph()
    for _ in range(4000):
        graph.add(1, 2)
        graph.remove(1, 2)
        graph.add(2, 1)
        graph.remove(2, 1)
    assert abs(graph.height(1) - graph.height(2)) < 2000


def test_questions_about_a_graph() -> None:
    graph = DependencyGraph([(1, 2, 0), (1, 3, 1), (2, 4, 0), (3, 4, 0), (4, 5, 2)])
    assert graph.closure() == {1: {2, 3, 4, 5}, 2: {4, 5}, 3: {4, 5}, 4: {5}, 5: set()}
    assert graph.reverse_post_order(1) == [1, 2, 3, 4, 5]
    assert graph.reverse_post_order() == [1, 2, 3, 4, 5]
    assert (graph.ancestors(4), graph.descendants(2), graph.depth()) == ({1, 2, 3}, {4, 5}, 3)
    assert graph.order([5, 3, 1]) == [1, 3, 5]
    twin = DependencyGraph(reversed(graph.edges()))
    assert twin.digest() == graph.digest()
    version = graph.version
    assert not graph.add(1, 2)
    assert graph.version == version
    graph.add(1, 5)
    assert graph.version > version
    assert graph.digest() != twin.digest()
    diamonds = DependencyGraph(
        edge
        for at in range(0, 300, 3)
        for edge in ((at, at + 1, 0), (at, at + 2, 0), (at + 1, at + 3, 0), (at + 2, at + 3, 0))
    )
    assert diamonds.depth() == 200  # 2^100 ways, counted once each


def test_joins_of_many_generations_agree(store: Store) -> None:
    """Every page tells its generation; a page whose inputs disagree fails."""

    def same(inputs: Sequence[Input], out: np.ndarray) -> None:
        (generation,) = {int(one.view(np.uint64)[0]) for one in inputs}
        out.view(np.uint64)[0] = generation

    chance = random.Random(9)
    pages = allocate(store, 200)
    for index in range(1, 200):
        inputs = [pages[one] for one in sorted({chance.randrange(index) for _ in range(3)})]
        store.derive(same, inputs, pages[index], name="same")
    for generation in range(1, 20):
        put(store, pages[0], generation)
        report = store.stabilize()
        assert report.failed == []
        assert report.recomputed == store.graph.graph.order(pages[1:])
