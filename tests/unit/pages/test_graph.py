"""Derived pages: once a wave, in order, whole or stale."""

import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.kernels.native import native_kernels
from stoker.pages import CycleError, DeriveError, EdgeKind, EventKind, EventQueue, FormatError, PageState, Store
from stoker.pages.graph import DependencyGraph, Input, Propagation, building
from stoker.pages.graph.edges import HEADER, decode_edges, encode_edges
from stoker.pages.graph.events import Event, decode_event, encode_event


@pytest.fixture(params=["native", "plain"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose graph runs on the native engine, and one on its plain twin."""
    if request.param == "plain":
        monkeypatch.setattr(building, "wave_engine", lambda *_: None)
    elif native_kernels() is None:
        pytest.skip("native kernels are not installed")
    with Store.open(size_bytes=8 << 20, pages_max=4096, log_bytes=1 << 20) as opened:
        yield opened


def add_one(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
    """Return the sum of the inputs' first words, plus one."""
    out.view(np.uint64)[0] = sum(int(one.view(np.uint64)[0]) for one in inputs) + 1
    return out


def set_number(store: Store, page: int, number: int) -> None:
    store.write(page, np.array([number], np.uint64))


def number(store: Store, page: int) -> int:
    return int(store.read(page).view(np.uint64)[0])


def test_random_graphs_are_what_an_oracle_says_and_each_page_is_made_once(store: Store) -> None:
    chance = random.Random(4)
    pages = [store.allocate(8).id for _ in range(120)]
    parents = {page: chance.sample(pages[:index], min(index, chance.randint(1, 3))) for index, page in enumerate(pages)}
    made: list[int] = []

    for page, sources in parents.items():
        if sources:

            def recompute(inputs: Sequence[Input], out: np.ndarray, page: int = page) -> np.ndarray:
                made.append(page)
                return add_one(inputs, out)

            store.derive(recompute, sources, page, name=f"f{page}")
    store.stabilize()
    for round_ in range(30):
        sources = chance.sample([page for page in pages if not parents[page]], 1)
        with store.batch() as batch:
            for source in sources:
                batch.write(source, np.array([round_ * 1000 + source], np.uint64))
        made.clear()
        report = store.stabilize()
        assert len(made) == len(set(made)), "a page was made twice in one wave"
        assert set(made) == store.graph.graph.descendants(*sources)
        expected: dict[int, int] = {}
        for page in pages:
            own = parents[page]
            expected[page] = sum(expected[one] for one in own) + 1 if own else number(store, page)
        assert {page: number(store, page) for page in pages} == expected
        assert store.lsn == report.lsn


def test_a_page_that_comes_out_the_same_stops_the_wave(store: Store) -> None:
    source, middle, end = (store.allocate(8).id for _ in range(3))
    made = []

    def parity(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
        out.view(np.uint64)[0] = int(inputs[0].view(np.uint64)[0]) % 2
        return out

    def last(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
        made.append(1)
        return add_one(inputs, out)

    store.derive(parity, [source], middle)
    store.derive(last, [middle], end)
    set_number(store, source, 1)
    store.stabilize()
    made.clear()
    epoch = store.page(middle).epoch
    set_number(store, source, 3)
    assert store.stabilize().unchanged == [middle]
    assert made == []
    assert store.page(middle).epoch == epoch
    assert store.stale() == []


def test_all_pages_of_a_wave_are_one_commit(store: Store) -> None:
    chain = [store.allocate(8).id for _ in range(20)]
    for one, other in itertools.pairwise(chain):
        store.derive("passthrough", [one], other)
    set_number(store, chain[0], 7)
    commits = store.counters()["commits"]
    report = store.stabilize()
    assert report.recomputed == chain[1:]
    assert store.counters()["commits"] == commits + 1
    assert [number(store, page) for page in chain] == [7] * 20


def test_a_failing_page_leaves_what_is_below_stale_and_can_be_tried_again(store: Store) -> None:
    source, bad, below, other = (store.allocate(8).id for _ in range(4))
    broken = [True]

    def fails(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
        if broken[0]:
            raise ValueError("broken")
        return add_one(inputs, out)

    store.derive(fails, [source], bad)
    store.derive(add_one, [bad], below)
    store.derive("passthrough", [source], other)
    set_number(store, source, 5)
    report = store.stabilize()
    assert (report.failed, report.stale, number(store, other)) == ([bad], [below], 5)
    assert store.page(bad).state == store.page(below).state == PageState.STALE
    with pytest.raises(DeriveError, match="broken"):
        store.graph.require(bad)
    broken[0] = False
    store.stabilize()
    assert (number(store, bad), number(store, below)) == (6, 7)
    assert store.page(below).state == PageState.CLEAN
    store.graph.require(bad)


def test_lazy_pages_are_made_when_asked_for(store: Store) -> None:
    source, lazy = store.allocate(8).id, store.allocate(8).id
    store.derive(add_one, [source], lazy, lazy=True)
    set_number(store, source, 5)
    store.stabilize()
    assert number(store, lazy) == 0
    assert store.page(lazy).state == PageState.STALE
    store.graph.refresh(lazy)
    assert number(store, lazy) == 6
    assert store.page(lazy).state == PageState.CLEAN


def test_changed_ranges_are_told(store: Store) -> None:
    source, out = store.allocate(4096).id, store.allocate(4096).id
    told: list[object] = []

    def copies(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
        told.append(inputs[0].changed)
        for start, length in inputs[0].changed or [(0, out.size)]:
            out[start : start + length] = inputs[0].data[start : start + length]
        return out

    store.derive(copies, [source], out)
    store.stabilize()
    store.write_at(source, 1000, b"abc")
    store.write_at(source, 3000, b"d")
    store.stabilize()
    assert told == [None, ((1000, 3), (3000, 1))]
    assert np.array_equal(store.read(source), store.read(out))


def test_cycles_are_refused_with_their_way(store: Store) -> None:
    a, b, c = (store.allocate(8).id for _ in range(3))
    store.link(a, b)
    store.link(b, c)
    with pytest.raises(CycleError) as caught:
        store.link(c, a)
    assert caught.value.path == (a, b, c, a)
    with pytest.raises(CycleError):
        store.link(a, a)
    assert store.graph.graph.edges() == [(a, b, 0), (b, c, 0)]


def test_deep_chains_and_churn_keep_the_order() -> None:
    graph = DependencyGraph((index, index + 1, 0) for index in range(20_000))
    assert graph.depth() == 20_000
    with pytest.raises(CycleError):
        graph.add(20_000, 0)
    chance, graph, edges = random.Random(2), DependencyGraph(), set()
    for _ in range(3000):
        one, other = chance.randint(0, 60), chance.randint(0, 60)
        if chance.random() < 0.3 and edges:
            edge = chance.choice(sorted(edges))
            graph.remove(*edge)
            edges.discard(edge)
            continue
        try:
            graph.add(one, other)
            edges.add((one, other, 0))
        except CycleError as error:
            assert one == other or one in reachable(edges, other)
            assert error.path[0] == error.path[-1]
        place = {node: index for index, node in enumerate(graph.order())}
        assert all(place[parent] < place[child] for parent, child, _ in edges)
    assert set(graph.edges()) == edges


def reachable(edges: set[tuple[int, int, int]], start: int) -> set[int]:
    found, waiting = {start}, [start]
    while waiting:
        at = waiting.pop()
        for parent, child, _ in edges:
            if parent == at and child not in found:
                found.add(child)
                waiting.append(child)
    return found


def test_the_graph_is_there_after_a_restart_and_in_the_past(tmp_path: object) -> None:
    with Store.open(f"{tmp_path}/s", size_bytes=1 << 20, pages_max=128, log_bytes=1 << 16) as store:
        a, b, c = (store.allocate(8).id for _ in range(3))
        store.derive("passthrough", [a], b)
        store.derive(add_one, [b], c)
        set_number(store, a, 4)
        store.stabilize()
        store.link(a, c, EdgeKind.ARTEFACT)
        store.graph.unlink(a, c, EdgeKind.ARTEFACT)
        edges = store.graph.graph.edges()
    with Store.open(f"{tmp_path}/s") as store:
        assert store.graph.graph.edges() == edges
        assert store.stale() == [], "signatures say that nothing is out of date"
        assert store.graph.unbound() == ["add_one"]
        set_number(store, a, 9)
        assert store.stabilize().failed == [c]
        store.graph.bind("add_one", add_one)
        store.stabilize()
        assert number(store, c) == 10
        assert store.verify() == []


def test_built_in_functions(store: Store) -> None:
    source = store.allocate(16)
    source.write(np.array([1.5, -2.0, 3.25, 0.0], np.float32))
    outs = {
        name: store.allocate(size)
        for name, size in {"sum": 4, "max": 4, "min": 4, "count": 8, "hash": 16, "concat": 32, "cast": 8}.items()
    }
    for name in ("sum", "max", "min", "count"):
        store.derive(name, [source], outs[name], dtype="<f4")
    store.derive("hash", [source], outs["hash"])
    store.derive("concat", [source, source], outs["concat"])
    store.derive("cast", [source], outs["cast"], source="<f4", target="bfloat16")
    store.stabilize()
    values = {name: outs[name].read() for name in outs}
    assert [float(values[name].view(np.float32)[0]) for name in ("sum", "max", "min")] == [2.75, 3.25, -2.0]
    assert int(values["count"].view(np.uint64)[0]) == 3
    assert bytes(values["concat"]) == bytes(source.read()) * 2
    assert values["cast"].view(np.uint16).tolist() == [0x3FC0, 0xC000, 0x4050, 0]
    assert values["hash"].any()


def test_purity_is_checked(store: Store) -> None:
    a, b, c = (store.allocate(8).id for _ in range(3))
    store.derive(add_one, [a], b)
    calls = [0]

    def impure(inputs: Sequence[Input], out: np.ndarray) -> np.ndarray:
        calls[0] += 1
        out[0] = calls[0]
        return out

    store.derive(impure, [a], c)
    assert store.graph.check_purity(b)
    assert not store.graph.check_purity(c)


def test_threads_make_the_same(store: Store) -> None:
    source = store.allocate(8).id
    outs = [store.allocate(8).id for _ in range(40)]
    total = store.allocate(8).id
    parallel = Propagation(store, workers=4)
    for out in outs:
        parallel.derive(add_one, [source], out)
    parallel.derive(add_one, outs, total)
    parallel._cost_ns = dict.fromkeys([*outs, total], 1e9)
    set_number(store, source, 2)
    parallel.stabilize()
    assert number(store, total) == 40 * 3 + 1
    parallel.close()


def test_immediate_mode_follows_each_commit(store: Store) -> None:
    a, b = store.allocate(8).id, store.allocate(8).id
    graph = Propagation(store, mode="immediate")
    graph.derive(add_one, [a], b)
    set_number(store, a, 4)
    assert number(store, b) == 5
    with graph.deferred():
        set_number(store, a, 8)
        assert number(store, b) == 5
    assert number(store, b) == 9
    graph.close()
    set_number(store, a, 1)
    assert number(store, b) == 9


def test_events_come_in_order_and_full_queues_count(store: Store) -> None:
    a, b, c = (store.allocate(8).id for _ in range(3))
    store.derive(add_one, [a], b)
    store.link(b, c, EdgeKind.DEVICE)
    pairs: list[tuple[int, int]] = []
    store.graph.device_hook = pairs.extend
    queue, few = EventQueue(), EventQueue(capacity=2)
    store.subscribe(None, queue)
    store.subscribe([EventKind.PAGE_CHANGED], few)
    handle = store.subscribe(None, lambda event: 1 // 0)
    set_number(store, a, 3)
    store.stabilize()
    kinds = [(event.page, EventKind(event.kind).name) for event in queue.take()]
    told = ["PAGE_INVALIDATED", "DELTA_APPLIED", "PAGE_CHANGED"]
    assert kinds == [(a, kind) for kind in told] + [(b, kind) for kind in told] + [(c, "GPU_SYNC_NEEDED")]
    assert pairs == [(b, c)]
    assert store.graph.events.failures == 7
    assert store.graph.events.unsubscribe(handle)
    for value in range(5):
        set_number(store, a, value + 10)
    assert (len(few.take()), few.dropped) == (2, 5)
    event = Event(EventKind.PAGE_CHANGED, 1, 2, 3, 4, b"detail")
    assert decode_event(encode_event(event)) == event
    for cut in range(48):
        with pytest.raises(FormatError):
            decode_event(encode_event(event)[:cut])


def test_hostile_graph_pages_are_refused() -> None:
    good = encode_edges([(1, 2, 0), (2, 3, 1)])
    assert [edge for edge, _ in decode_edges(good)] == [(1, 2, 0), (2, 3, 1)]
    for bad in (b"", good[:10], b"x" * 64, good[:-1], HEADER.pack(b"STKGRAPH", 2**60), good[:33] + b"\xff" + good[34:]):
        with pytest.raises(FormatError):
            list(decode_edges(bad))


def test_unknown_functions_and_modes_are_refused(store: Store) -> None:
    page = store.allocate(8)
    with pytest.raises(UsageError, match="unknown recompute"):
        store.derive("no_such", [page], store.allocate(8))
    with pytest.raises(UsageError, match="mode"):
        Propagation(store, mode="sometimes")
