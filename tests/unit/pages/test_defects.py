"""What the system that pages come after did wrong, one test each: it would fail if the defect were here.

Missing are the three about device code: a persistent kernel whose threads all pop the queue, whole uploads with a
synchronization per delta, and device code that is text only. Devices have tests of their own.
"""

import ast
import errno
import importlib
import os
import pkgutil
import threading
from pathlib import Path

import numpy as np
import pytest

import stoker.pages
from stoker.pages import (
    Conflict,
    CorruptLog,
    CycleError,
    EventKind,
    InvalidDelta,
    OutOfSpace,
    PageNotFound,
    PagesError,
    Store,
    Target,
    compat,
)
from stoker.pages.delta import Delta
from stoker.pages.disk import OsDisk
from stoker.pages.frames import Codec, Frame, FrameType, decode_frame, encode_frame
from stoker.pages.graph import DependencyGraph
from stoker.pages.history import CheckpointFacts, State, replay, write_checkpoint
from stoker.pages.images import PageImage
from stoker.pages.wire import HEADER_BYTES, encode_wire

SMALL = {"size_bytes": 4 << 20, "pages_max": 512, "log_bytes": 1 << 17, "segment_bytes": 1 << 17}


def noise(size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


# -- the log ---------------------------------------------------------------------------------------------------------


def test_01_the_log_is_synced_and_checksummed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(64)
        lsn = page.write(b"a" * 64)
        assert store.durable_lsn >= lsn, "acknowledged means synced"
        assert store.counters()["syncs"] >= 1
    segment = next((tmp_path / "s" / "log").iterdir())
    data = bytearray(segment.read_bytes())
    data[data.index(b"a" * 64)] ^= 1
    segment.write_bytes(bytes(data))
    with pytest.raises(CorruptLog):
        Store.open(tmp_path / "s")


class FullDisk(OsDisk):
    """A disk that is full after some writes."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def write(self, *arguments: object) -> None:
        """Write, or fail."""
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(*arguments)  # type: ignore[arg-type]


def test_02_a_checkpoint_that_fails_leaves_the_one_of_its_name(tmp_path: Path) -> None:
    facts = CheckpointFacts(bytes(16), 5, 1)
    path = write_checkpoint(tmp_path, [PageImage(1, 1, 1, noise(5 << 20))], facts).path
    before = path.read_bytes()
    for writes in range(2):
        with pytest.raises(OutOfSpace):
            write_checkpoint(tmp_path, [PageImage(1, 1, 1, noise(5 << 20, 2))] * 2, facts, disk=FullDisk(writes))
        assert path.read_bytes() == before
        assert [one.name for one in tmp_path.iterdir()] == [path.name], "and nothing half-written"


def test_03_replay_reads_the_checkpoints_that_are_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(4096, name="a")
        for index in range(200):
            page.write(noise(4096, index))
        store.checkpoint(keep=1)
        assert store.journal.floor_lsn > 1, "the log alone would not do"
        page.write_at(7, b"behind the checkpoint")
        lsn = store.lsn
        assert bytes(store.replay(lsn=lsn).pages[page.id].data) == bytes(page.read())


def test_04_sparse_payloads_are_replayed_where_they_belong() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(4096)
        page.write(noise(4096))
        data = page.read()
        data[[0, 1000, 2000, 4095]] ^= 0xFF
        page.write(data)
        deltas = list(store.journal.scan(page=page.id, kinds=frozenset({FrameType.DELTA})))
        assert len(deltas[-1].payload) < 200
        assert (store.replay().pages[page.id].data == data).all()


def test_05_an_epoch_of_one_page_is_one_moment_of_all() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        left, right = store.allocate(8), store.allocate(8)
        for index in range(1, 10):
            with store.batch() as batch:
                batch.write(left, index.to_bytes(8, "little"))
                if index % 3 == 0:
                    batch.write(right, index.to_bytes(8, "little"))
        for epoch in range(1, 10):
            state = store.replay(page=left.id, epoch=epoch)
            assert int.from_bytes(bytes(state.pages[left.id].data), "little") == epoch
            assert int.from_bytes(bytes(state.pages[right.id].data), "little") == epoch // 3 * 3


def test_06_creation_resizing_and_removal_are_replayed() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(8, name="a")
        page.write(b"12345678")
        store.mark("small")
        page.resize(16)
        twin = page.clone(name="b")
        gone = store.allocate(8)
        gone.free()
        page.set_meta(name="c", note=1)
        state = store.replay()
        assert sorted(state.pages) == [page.id, twin.id]
        assert bytes(state.pages[page.id].data) == b"12345678" + bytes(8)
        assert state.pages[page.id].facts() == {"name": "c", "note": 1}
        assert state.digest() == store.journal.state().digest()
        assert store.replay(mark="small").pages[page.id].size_bytes == 8


def test_07_no_version_goes_unasked_and_what_goes_is_told(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(2048)
        for index in range(300):
            page.write(np.full(2048, index % 250 + 1, np.uint8))
        assert [one.epoch for one in store.history(page)] == list(range(301)), "far more than the ring holds"
        store.checkpoint(keep=1)
        floor = store.journal.floor_lsn
        assert floor > 1
        with pytest.raises(PagesError, match=f"LSN {floor - 1} or later"):
            store.replay(lsn=1)


def test_08_checking_an_epoch_and_writing_are_one_step() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(8)

        def add(times: int) -> None:
            for _ in range(times):
                while True:
                    facts, data = store.arena.read(page.id)
                    following = int.from_bytes(bytes(data), "little") + 1
                    try:
                        page.write(following.to_bytes(8, "little"), expect_epoch=facts.epoch)
                        break
                    except Conflict:
                        continue

        threads = [threading.Thread(target=add, args=(100,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert int.from_bytes(bytes(page.read()), "little") == 400
        logged = [frame.epoch for frame in store.journal.scan(page=page.id)]
        assert logged == list(range(401)), "the log has them in the order in which they were applied"


# -- propagation -----------------------------------------------------------------------------------------------------


def diamond(store: Store, seen: list[tuple[int, int]]) -> list[int]:
    """Make a source, two sides that copy it, and a join that notes what it saw."""
    pages = [store.allocate(8) for _ in range(4)]

    def join(inputs: list, out: np.ndarray) -> bytes:
        seen.append((int(inputs[0].data[0]), int(inputs[1].data[0])))
        return bytes(inputs[0].data)

    store.derive("passthrough", [pages[0]], pages[1])
    store.derive("passthrough", [pages[0]], pages[2])
    store.derive(join, [pages[1], pages[2]], pages[3], name="join")
    return [page.id for page in pages]


def test_09_a_join_is_made_once_and_never_from_half_a_change() -> None:
    seen: list[tuple[int, int]] = []
    with Store.open(size_bytes=1 << 20) as store:
        pages = diamond(store, seen)
        store.graph.mode = "immediate"
        store.stabilize()
        seen.clear()
        for value in range(1, 6):
            store.write(pages[0], bytes([value]) * 8)
        assert seen == [(value, value) for value in range(1, 6)]


def order_of_a_wave(seed: int) -> list[tuple[int, int]]:
    """Build a tree in an order of its own, and return the pages of a wave with their parents."""
    with Store.open(size_bytes=1 << 20) as store:
        pages = [store.allocate(8).id for _ in range(30)]
        parent_of = {pages[index]: pages[index // 2] for index in range(1, 30)}
        wanted = list(parent_of.items())
        for which in np.random.default_rng(seed).permutation(len(wanted)):
            store.derive("passthrough", [wanted[which][1]], wanted[which][0])
        store.write(pages[0], b"12345678")
        return [(page, parent_of[page]) for page in store.stabilize().recomputed]


def test_10_a_wave_has_one_order_that_follows_the_edges() -> None:
    for seed in range(4):
        order = order_of_a_wave(seed)
        assert order == order_of_a_wave(seed)
        place = {page: index for index, (page, _) in enumerate(order)}
        assert len(place) == 29
        assert all(place.get(parent, -1) < place[page] for page, parent in order)


def test_11_edges_that_lead_upwards_cost_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[int] = []
    search = DependencyGraph._order_anew

    def counted(self: DependencyGraph, parent: int, child: int) -> None:
        searches.append(child)
        search(self, parent, child)

    monkeypatch.setattr(DependencyGraph, "_order_anew", counted)
    graph = DependencyGraph()
    for node in range(20_000):
        graph.add(node, node + 1)
    assert not searches
    with pytest.raises(CycleError):
        graph.add(20_000, 0)
    assert searches == [0]
    assert graph.order()[-1] == 20_000, "and no search recurses: the chain is deeper than the stack"


def test_12_loops_and_doubled_edges_are_refused() -> None:
    graph = DependencyGraph()
    with pytest.raises(CycleError) as told:
        graph.add(1, 1)
    assert told.value.path == (1, 1)
    assert graph.add(1, 2)
    assert not graph.add(1, 2)
    assert graph.edges() == [(1, 2, 0)]


# -- deltas ----------------------------------------------------------------------------------------------------------


def test_13_a_mask_is_no_longer_than_the_bits_it_needs() -> None:
    old = np.zeros(4096, np.uint8)
    new = old.copy()
    new[123] = 1
    delta = Delta.diff(old, new, page=1, epoch=1)
    assert len(delta.payload) == 8 + 8 + 1, "a bitmap of the lines, the mask of one line, one byte"


@pytest.mark.parametrize("size", [1, 64, 4096, 100_000])
def test_14_data_without_a_pattern_do_not_grow(tmp_path: Path, size: int) -> None:
    with Store.open(size_bytes=1 << 20, log_bytes=1 << 19) as store:
        page = store.allocate(size)
        page.write(noise(size))
        frame = list(store.journal.scan(page=page.id))[-1]
        assert len(frame.payload) <= max(size, 24)
        assert store.checkpoint(tmp_path).stored_bytes <= size
    assert len(encode_wire(noise(size), noise(size, 2), 1)) <= HEADER_BYTES + size


@pytest.mark.parametrize("run", [1, 126, 127, 128, 129, 255, 256, 257, 300, 4096])
def test_15_runs_of_any_length_come_back(run: int) -> None:
    old = np.zeros(4096 + run, np.uint8)
    new = old.copy()
    new[2000 : 2000 + run] = 7
    page = old.copy()
    Delta.from_bytes(Delta.diff(old, new, page=1, epoch=1).to_bytes()).apply(page)
    assert (page == new).all()


def test_16_a_dense_payload_of_another_size_fails() -> None:
    delta = Delta(page=1, epoch=1, size_bytes=8, payload=b"1234567", codec=Codec.RAW)
    page = np.zeros(8, np.uint8)
    with pytest.raises(InvalidDelta):
        delta.apply(page)
    assert not page.any()
    with Store.open(size_bytes=1 << 20) as store, pytest.raises(InvalidDelta, match="8 bytes"):
        store.allocate(8).write(b"1234567")


# -- memory ----------------------------------------------------------------------------------------------------------


def test_17_memory_that_is_used_again_is_clean_and_ids_are_not() -> None:
    ids: set[int] = set()
    with Store.open(size_bytes=1 << 20, pages_max=8) as store:
        for _ in range(50):
            page = store.allocate(4096)
            assert not page.read().any()
            assert page.id not in ids
            ids.add(page.id)
            page.write(b"\xff" * 4096)
            page.free()
            with pytest.raises(PageNotFound):
                page.read()


# -- the interface ---------------------------------------------------------------------------------------------------


def test_20_every_option_of_a_store_has_an_effect(tmp_path: Path) -> None:
    with Store.open(size_bytes=1 << 16) as small, pytest.raises(OutOfSpace):
        small.allocate(1 << 17)
    with Store.open(size_bytes=1 << 20, pages_max=2) as few:
        few.allocate_many([8, 8])
        with pytest.raises(OutOfSpace):
            few.allocate(8)
    with Store.open(size_bytes=1 << 20, log_bytes=1 << 16) as short, pytest.raises(OutOfSpace):
        short.allocate(1 << 17).write(noise(1 << 17))
    name = f"defect-20-{os.getpid()}"
    with Store.open(name=name, size_bytes=1 << 20), Store.attach(name) as same:
        assert same.name == name
    segments = {}
    for size in (1 << 16, 1 << 20):
        with Store.open(tmp_path / str(size), **{**SMALL, "segment_bytes": size}) as store:
            page = store.allocate(1 << 14)
            for index in range(12):
                page.write(noise(1 << 14, index))
        segments[size] = len(list((tmp_path / str(size) / "log").iterdir()))
    assert segments[1 << 16] > segments[1 << 20] == 1
    for durability, durable in {"none": False, "os": False, "data": True, "full": True}.items():
        with Store.open(tmp_path / durability, durability=durability, **SMALL) as store:
            lsn = store.allocate(8).write(b"12345678")
            assert (store.durable_lsn >= lsn) == durable
            assert (store.counters()["flushes"] > 0) == (durability != "none")


def modules() -> list[str]:
    found = pkgutil.walk_packages(stoker.pages.__path__, "stoker.pages.")
    return [one.name for one in found]


@pytest.mark.parametrize("name", ["stoker.pages", *modules()])
def test_22_every_name_that_is_exported_is_there(name: str) -> None:
    if "triton" in name:
        pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert getattr(module, public, None) is not None, f"{name}.{public}"


def test_23_depth_is_found_where_paths_are_beyond_counting() -> None:
    graph = DependencyGraph()
    for layer in range(100):
        for parent in (2 * layer, 2 * layer + 1):
            graph.add(parent, 2 * layer + 2)
            graph.add(parent, 2 * layer + 3)
    assert graph.depth() in (100, 101), "2^100 paths"


def test_24_numbers_and_subscriptions_are_of_one_store_and_lose_nothing() -> None:
    heard: list[int] = []
    with Store.open(size_bytes=1 << 20) as one, Store.open(size_bytes=1 << 20) as other:
        one.subscribe([EventKind.PAGE_CHANGED], lambda event: heard.append(event.page))
        pages = [one.allocate(8) for _ in range(4)]
        other.allocate(8).write(b"12345678")

        def write(page: stoker.pages.Page) -> None:
            for index in range(50):
                page.write((index + 1).to_bytes(8, "little"))

        threads = [threading.Thread(target=write, args=(page,)) for page in pages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(heard) == sorted(page.id for page in pages for _ in range(50))
        assert other.counters()["commits"] == 2
        assert one.counters()["commits"] == 4 + 200


def test_25_pages_that_nobody_changes_stay(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        cold = store.allocate(4096, name="cold")
        cold.write(noise(4096))
        busy = store.allocate(4096, name="busy")
        for index in range(300):
            busy.write(noise(4096, index))
            if index % 50 == 0:
                store.snapshot().close()
                store.arena.sweep()
                store.checkpoint(incremental=True)
        assert (cold.read() == noise(4096)).all()
    with Store.open(tmp_path / "s") as store:
        assert (store.page("cold").read() == noise(4096)).all()


def test_26_a_batch_is_all_or_nothing() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        left, right = store.allocate(8), store.allocate(8)
        before = store.lsn

        def half_done() -> None:
            with store.batch() as batch:
                batch.write(left, b"11111111")
                batch.free(right)
                batch.allocate(8, name="new")
                raise ValueError("on purpose")

        with pytest.raises(ValueError, match="on purpose"):
            half_done()
        assert store.lsn == before
        assert not left.read().any()
        assert len(store.pages()) == 2
        with store.batch() as batch:
            batch.write(left, b"22222222")
            batch.write(right, b"22222222")
            assert bytes(store.read(left)) == bytes(8), "nobody sees a half"
        assert [bytes(page.read()) for page in (left, right)] == [b"22222222"] * 2


def test_27_no_test_of_pages_asserts_a_constant() -> None:
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assert):
                assert not isinstance(node.test, ast.Constant), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                checks = [one for one in ast.walk(node) if isinstance(one, ast.Assert | ast.With | ast.Call)]
                assert checks, f"{path.name}:{node.lineno} checks nothing"


def test_28_what_counts_has_64_bits() -> None:
    far = (1 << 40) + 5
    frame = Frame(far, FrameType.DELTA, page=far, epoch=far, time_ns=far, payload=b"x")
    found = decode_frame(encode_frame(frame, 1), 0, 1)
    assert found is not None
    assert (found.lsn, found.page, found.epoch, found.time_ns) == (far, far, far, far)
    state = State.of([PageImage(1, far, far, np.zeros(8, np.uint8))], far)
    with Store.of_state(state, size_bytes=1 << 20, pages_max=8) as store:
        assert store.write(1, b"12345678") == far + 1
        assert store.page(1).epoch == far + 1


def test_29_deltas_of_one_base_conflict_and_chains_go_in_order() -> None:
    with compat.mmsb() as state:
        page = compat.create_page(state, size=8)
        both = [compat.create_delta(state, page, text) for text in (b"first___", b"second__")]
        with pytest.raises(Conflict):
            compat.batch_route_deltas(state, both)
        assert compat.query_page(state, page) == bytes(8), "neither was applied"
        first = compat.create_delta(state, page, b"first___")
        base = np.frombuffer(b"first___", np.uint8)
        second = Delta.diff(base, np.frombuffer(b"second__", np.uint8), page=page, epoch=2)
        compat.batch_route_deltas(state, [second, first])
        assert compat.query_page(state, page) == b"second__"


def test_30_nine_bytes_do_not_go_into_a_page_of_eight() -> None:
    with compat.mmsb() as state:
        page = compat.create_page(state, size=8)
        with pytest.raises(InvalidDelta, match=r"expected 8 bytes, got 9"):
            compat.update_page(state, page, b"too long!")
        assert compat.query_page(state, page) == bytes(8)


def test_a_log_that_lost_its_beginning_is_not_replayed_from_nothing() -> None:
    with Store.open(size_bytes=1 << 20, log_bytes=1 << 16) as store:
        page = store.allocate(4096)
        for index in range(100):
            page.write(noise(4096, index))
        with pytest.raises(PagesError, match="kept in part"):
            store.replay(lsn=store.lsn)
        frames = [frame for frame in store.journal.scan() if frame.page == page.id]
        with pytest.raises(InvalidDelta):
            replay(State(), frames, Target())
