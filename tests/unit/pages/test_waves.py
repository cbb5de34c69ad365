"""Waves against others: writers in between, other processes, deaths, snapshots, restarts, threads, devices, events."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels.native import native_kernels
from stoker.pages import (
    Conflict,
    DeriveError,
    EdgeKind,
    EventKind,
    EventQueue,
    PagesError,
    PageState,
    Poisoned,
    Store,
)
from stoker.pages.arena.layout import Word
from stoker.pages.follow.replica import Replica
from stoker.pages.follow.tail import RingFollower
from stoker.pages.frames import Frame, FrameType, encode_wave, parts_of
from stoker.pages.graph import Input, Propagation, building


@pytest.fixture(params=["native", "plain"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose graph runs on the native engine, and one on its plain twin."""
    if request.param == "plain":
        monkeypatch.setattr(building, "wave_engine", lambda *_: None)
    elif native_kernels() is None:
        pytest.skip("native kernels are not installed")
    with Store.open(size_bytes=8 << 20, pages_max=4096, log_bytes=1 << 20) as opened:
        yield opened


def add_one(inputs: Sequence[Input], out: np.ndarray) -> None:
    """Put the sum of the inputs' first words, plus one, into the page."""
    out.view(np.uint64)[0] = sum(int(one.view(np.uint64)[0]) for one in inputs) + 1


def put(store: Store, page: int, number: int) -> None:
    store.write(page, np.array([number], np.uint64))


def number(store: Store, page: int) -> int:
    return int(store.read(page).view(np.uint64)[0])


def chain_of(store: Store, length: int, size_bytes: int = 8) -> list[int]:
    pages = [store.allocate(size_bytes).id for _ in range(length + 1)]
    store.graph.derive_all([("passthrough", [one], other, {}) for one, other in itertools.pairwise(pages)])
    return pages


def test_a_wave_is_one_frame_that_history_scan_and_replay_take_apart(store: Store) -> None:
    pages = chain_of(store, 5, 200)
    store.stabilize()
    store.write_at(pages[0], 100, b"abc")
    report = store.stabilize()
    frames = list(store.journal.scan(since=report.lsn))
    assert [FrameType(frame.type) for frame in frames] == [FrameType.WAVE]
    parts = list(parts_of(frames[0]))
    assert [(part.page, part.epoch, FrameType(part.type)) for part in parts] == [
        (page, 1, FrameType.DELTA) for page in pages[1:]
    ]
    assert [part.last for part in parts] == [False] * 4 + [True]
    assert encode_wave(parts) == bytes(frames[0].payload)
    for page in pages[1:]:
        assert [(one.epoch, one.kind) for one in store.history(page)][-1] == (1, "DELTA")
        deltas = list(store.journal.scan(page=page, kinds=frozenset({FrameType.DELTA, FrameType.IMAGE})))
        assert [(delta.page, delta.lsn) for delta in deltas] == [(page, report.lsn)]
        past = store.replay(page=page, epoch=1)
        assert bytes(past.pages[page].data[100:103]) == b"abc"
    assert store.verify() == []


def test_a_follower_and_a_checkpoint_hold_what_a_wave_made(store: Store, tmp_path: object) -> None:
    pages = chain_of(store, 30)
    with store.snapshot() as snapshot:
        replica = Replica(RingFollower(store.arena, snapshot.lsn), snapshot.images(), snapshot.lsn)
    for value in range(1, 5):
        put(store, pages[0], value)
        store.stabilize()
    replica.wait(store.lsn)
    assert [int(replica.state.pages[page].data.view(np.uint64)[0]) for page in pages] == [4] * 31
    store.checkpoint(str(tmp_path))
    with Store.restore(str(tmp_path)) as restored:
        assert restored.graph.graph.edges() == store.graph.graph.edges()
        put(restored, pages[0], 9)
        restored.stabilize()
        assert number(restored, pages[-1]) == 9


def test_hostile_waves_are_refused() -> None:
    part = Frame(1, FrameType.IMAGE, 3, 1, payload=b"12345678")
    good = encode_wave([part])
    for bad in (good[:-1], good[:20], good[:16] + b"\xff" + good[17:], good[:20] + b"\x01" + good[21:]):
        with pytest.raises(CorruptError, match="wave"):
            list(parts_of(Frame(1, FrameType.WAVE, payload=bad)))


def test_joins_see_both_inputs_new_and_are_made_once(store: Store) -> None:
    source = store.allocate(8).id
    seen: list[tuple[int, int]] = []

    def join(inputs: Sequence[Input], out: np.ndarray) -> None:
        one, other = (int(part.view(np.uint64)[0]) for part in inputs)
        assert one == other, "half of a diamond is old"
        seen.append((one, other))
        out.view(np.uint64)[0] = one

    at = source
    for depth in range(50):
        left, right, end = (store.allocate(8).id for _ in range(3))
        store.derive("passthrough" if depth % 2 else add_one, [at], left)
        store.derive("passthrough" if depth % 2 else add_one, [at], right)
        store.derive(join, [left, right], end)
        at = end
    put(store, source, 5)
    store.stabilize()
    seen.clear()
    put(store, source, 6)
    assert store.stabilize().failed == []
    assert len(seen) == 50
    assert number(store, at) == 6 + 25


def test_a_commit_in_between_makes_the_wave_begin_again(store: Store) -> None:
    source, other, out = (store.allocate(8).id for _ in range(3))
    values = [10, 20, 30]
    seen: list[int] = []

    def slow(inputs: Sequence[Input], out: np.ndarray) -> None:
        seen.append(int(inputs[0].view(np.uint64)[0]))
        if values:  # somebody else writes while this page is made
            writer = threading.Thread(target=put, args=(store, source, values.pop()))
            writer.start()
            writer.join()
        out[:] = inputs[0].data

    store.derive(slow, [source], out)
    put(store, source, 1)
    put(store, other, 1)
    report = store.stabilize()
    assert seen == [1, 30, 20, 10]
    assert report.recomputed == [out]
    assert number(store, out) == 10
    values.extend(range(100, 200))
    put(store, source, 2)
    with pytest.raises(Conflict, match="faster"):
        store.stabilize()
    values.clear()
    store.stabilize()
    assert number(store, out) == number(store, source)


def test_commits_of_other_processes_are_seen(store: Store) -> None:
    pages = chain_of(store, 3)
    store.stabilize()
    script = (
        "import sys, os\nimport numpy as np\nfrom stoker.pages import Store\n"
        "with Store.attach(int(sys.argv[1])) as store: store.write(int(sys.argv[2]), np.array([77], np.uint64))\n"
    )
    os.set_inheritable(store.descriptor, True)
    subprocess.run(
        [sys.executable, "-c", script, str(store.descriptor), str(pages[0])], check=True, close_fds=False, timeout=60
    )
    assert store.stale() == [pages[1]]
    assert store.stabilize().recomputed == pages[1:]
    assert number(store, pages[-1]) == 77


def test_a_lapped_log_hides_nothing(store: Store) -> None:
    pages = chain_of(store, 2)
    store.stabilize()
    put(store, pages[0], 3)
    written = store.lsn
    filler = store.allocate(4096)
    for value in range(1000):
        filler.write(np.full(4096, value % 251, np.uint8))
    assert store.journal.floor_lsn > written
    assert store.stabilize().recomputed == pages[1:]


def test_a_snapshot_keeps_what_a_wave_overwrites(store: Store) -> None:
    pages = chain_of(store, 4, 64)
    store.write(pages[0], bytes([1]) * 64)
    store.stabilize()
    with store.snapshot() as snapshot:
        store.write(pages[0], bytes([2]) * 64)
        assert store.stabilize().recomputed == pages[1:]
        assert all(bytes(snapshot.view(page)) == bytes([1]) * 64 for page in pages)
        assert all(bytes(store.read(page)) == bytes([2]) * 64 for page in pages)
    assert store.verify() == []


KILLED = """
import os, sys
import numpy as np
from stoker.pages import Store
from stoker.pages.arena.steps import kill_at
store = Store.attach(int(sys.argv[1]))
pages = [int(one) for one in sys.argv[3:]]
store.graph.stabilize()
kill_at(int(sys.argv[2]))
store.write(pages[0], np.array([int(sys.argv[2])], np.uint64))
store.graph.stabilize()
kill_at(0)
print("whole")
"""


@pytest.mark.slow
def test_a_death_in_a_wave_leaves_all_of_it_or_nothing() -> None:
    if native_kernels() is None:
        pytest.skip("native kernels are not installed: the long way's steps are tested elsewhere")
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = chain_of(store, 4)
        store.stabilize()
        store.graph.close()
        os.set_inheritable(store.descriptor, True)
        killed = 0
        for count in itertools.count(1):
            command = [sys.executable, "-c", KILLED, str(store.descriptor), str(count), *map(str, pages)]
            done = subprocess.run(command, close_fds=False, capture_output=True, text=True, timeout=60, check=False)
            if "whole" in done.stdout:
                break
            assert done.returncode == -9, done.stderr
            killed += 1
            store.mark(f"after {count}")  # the next owner of the lock mends what the dead one left
            values = {number(store, page) for page in pages[1:]}
            assert len(values) == 1, f"half a wave after step {count}: {values}"
            assert store.verify() == []
        assert killed > 10


def test_a_death_in_a_wave_over_a_snapshot_leaves_both_whole() -> None:
    """What a snapshot holds goes on elsewhere, each page of the wave by itself; every third step is one to die at."""
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = chain_of(store, 4)
        put(store, pages[0], 7)
        store.stabilize()
        store.graph.close()
        os.set_inheritable(store.descriptor, True)
        killed = 0
        with store.snapshot() as snapshot:
            for count in itertools.count(2, 3):
                command = [sys.executable, "-c", KILLED, str(store.descriptor), str(count), *map(str, pages)]
                done = subprocess.run(command, close_fds=False, capture_output=True, text=True, timeout=60, check=False)
                assert all(snapshot.view(page).view(np.uint64)[0] == 7 for page in pages), count
                if "whole" in done.stdout:
                    break
                assert done.returncode == -9, done.stderr
                killed += 1
                store.mark(f"after {count}")
                values = {number(store, page) for page in pages[1:]}
                assert len(values) == 1, f"half a wave after step {count}: {values}"
                assert store.verify() == []
        assert killed > 5


def test_a_restart_makes_only_what_changed_meanwhile_or_has_other_code(tmp_path: object) -> None:
    def copied(inputs: Sequence[Input], out: np.ndarray) -> None:
        out[:] = inputs[0].data

    def other_code(inputs: Sequence[Input], out: np.ndarray) -> None:
        out[:] = inputs[0].data + 1

    with Store.open(f"{tmp_path}/s", size_bytes=1 << 20, pages_max=128, log_bytes=1 << 16) as store:
        a, b, c = (store.allocate(8).id for _ in range(3))
        store.derive(copied, [a], b, name="copied")
        store.derive("passthrough", [b], c)
        put(store, a, 4)
        assert store.stabilize().recomputed == [b, c]
    with Store.open(f"{tmp_path}/s") as store:
        store.derive(copied, [a], b, name="copied")  # as before: nothing is out of date
        report = store.stabilize()
        assert (report.recomputed, report.unchanged) == ([], [])
        put(store, a, 5)
        assert store.stabilize().recomputed == [b, c]
    with Store.open(f"{tmp_path}/s") as store:
        store.graph.bind("copied", other_code)
        assert store.stabilize().recomputed == [b, c]
        assert number(store, c) == 5 + 0x0101010101010101


def test_freed_pages_leave_the_graph(store: Store) -> None:
    a, b, c, d = chain_of(store, 3)
    store.stabilize()
    store.free(c)
    report = store.stabilize()
    assert report.failed == [d]
    assert store.graph.graph.edges() == [(a, b, 0)]
    with pytest.raises(DeriveError, match="no page"):
        store.graph.require(d)
    store.derive("passthrough", [b], d)
    put(store, a, 8)
    assert store.stabilize().recomputed == [b, d]
    assert number(store, d) == 8


def test_a_resized_input_is_given_whole(store: Store) -> None:
    a, b = store.allocate(8).id, store.allocate(8).id
    sizes: list[int] = []

    def sized(inputs: Sequence[Input], out: np.ndarray) -> None:
        sizes.append(inputs[0].data.size)
        out.view(np.uint64)[0] = inputs[0].data.size

    store.derive(sized, [a], b)
    store.stabilize()
    store.resize(a, 100)
    store.stabilize()
    assert sizes == [8, 100]
    store.resize(b, 16)
    put(store, b, 0) if store.page(b).size_bytes == 8 else store.write(b, bytes(16))
    store.write(a, bytes([1]) * 100)
    store.stabilize()
    assert number(store, b) == 100


def test_the_graph_stands_while_a_wave_runs(store: Store) -> None:
    a, b, c = (store.allocate(8).id for _ in range(3))
    refused: list[str] = []

    def edits(inputs: Sequence[Input], out: np.ndarray) -> None:
        for edit in (lambda: store.link(a, c), lambda: store.graph.unlink(a, b), store.stabilize):
            with pytest.raises(UsageError, match="wave") as caught:
                edit()
            refused.append(str(caught.value))
        out[:] = inputs[0].data

    store.derive(edits, [a], b)
    version = store.graph.graph.version
    put(store, a, 1)
    assert store.stabilize().failed == []
    assert len(refused) == 3
    assert store.graph.graph.version == version


def test_structural_edits_begin_no_wave(store: Store) -> None:
    made: list[int] = []

    def counted(inputs: Sequence[Input], out: np.ndarray) -> None:
        made.append(1)
        out[:] = inputs[0].data

    a, b, c = (store.allocate(8).id for _ in range(3))
    graph = Propagation(store, mode="immediate")
    graph.derive(counted, [a], b)
    graph.link(b, c)
    graph.unlink(b, c)
    assert made == []
    put(store, a, 1)
    assert made == [1]
    graph.close()


def test_threads_of_other_commits_and_waves_agree(store: Store) -> None:
    sources = [store.allocate(8).id for _ in range(4)]
    total = store.allocate(8).id
    ends = [chain_of(store, 1)[0] for _ in range(4)]
    for source, end in zip(sources, ends, strict=True):
        store.derive("passthrough", [source], end)
    store.derive("sum", ends, total, dtype="<u8")

    def work(source: int) -> None:
        for value in range(200):
            put(store, source, value)
            if value % 5 == 0:
                store.stabilize()

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.stabilize()
    assert number(store, total) == 4 * 199
    assert store.stale() == []


def test_lazy_chains_are_made_as_far_as_asked(store: Store) -> None:
    a, b, c, d = (store.allocate(8).id for _ in range(4))
    store.derive(add_one, [a], b, lazy=True)
    store.derive(add_one, [b], c, lazy=True)
    store.derive(add_one, [a], d)
    put(store, a, 1)
    assert store.graph.refresh(c).recomputed == [b, c]
    assert [number(store, page) for page in (b, c, d)] == [2, 3, 0]
    assert store.stabilize().recomputed == [d]
    assert store.page(b).state == store.page(c).state == PageState.CLEAN
    put(store, a, 5)
    report = store.stabilize()
    assert (report.recomputed, report.marked) == ([d], [b])
    assert store.page(b).state == PageState.STALE


def test_artefacts_of_changed_pages_are_marked(store: Store) -> None:
    a, b, c = (store.allocate(8).id for _ in range(3))
    store.link(a, b, EdgeKind.ARTEFACT)
    store.link(a, c, EdgeKind.CONTROL)
    queue = EventQueue()
    store.subscribe([EventKind.IR_INVALIDATED, EventKind.PAGE_STALE], queue)
    put(store, a, 1)
    assert store.stabilize().marked == [b, c]
    assert store.page(b).state == store.page(c).state == PageState.STALE
    assert [(event.kind, event.page) for event in queue.take()] == [
        (EventKind.PAGE_STALE, b),
        (EventKind.PAGE_STALE, c),
        (EventKind.IR_INVALIDATED, b),
    ]


def test_device_copies_are_waited_for_before_the_wave_returns(store: Store) -> None:
    a, b, near, far = (store.allocate(8).id for _ in range(4))
    store.derive("passthrough", [a], b)
    store.link(a, near, EdgeKind.DEVICE)
    store.link(b, far, EdgeKind.DEVICE)
    told: list[object] = []

    def hook(pairs: Sequence[tuple[int, int]]) -> object:
        told.append(list(pairs))
        assert number(store, b) == 3, "copies begin once the wave is committed"
        return lambda: told.append("barrier")

    store.graph.device_hook = hook
    queue = EventQueue()
    store.subscribe([EventKind.GPU_SYNC_NEEDED, EventKind.GPU_SYNC_COMPLETE], queue)
    put(store, a, 3)
    store.stabilize()
    assert told == [[(a, near), (b, far)], "barrier"]
    assert [event.kind for event in queue.take()] == [EventKind.GPU_SYNC_NEEDED] * 2 + [EventKind.GPU_SYNC_COMPLETE] * 2
    store.stabilize()
    assert len(told) == 2


def test_logged_events_are_those_that_were_told(store: Store) -> None:
    pages = chain_of(store, 3)
    store.stabilize()
    queue = EventQueue()
    store.subscribe(None, queue)
    store.graph.log_events()
    for value in range(1, 4):
        put(store, pages[0], value)
        store.stabilize()
    told = queue.take()
    assert len(told) == 3 * 4 * 3
    assert list(store.logged_events()) == told
    order = {page: place for place, page in enumerate(store.graph.graph.order())}
    for lsn, events in itertools.groupby(told, key=lambda event: event.lsn):
        keys = [(order[event.page], event.epoch, event.kind) for event in events]
        assert keys == sorted(keys), f"order of events of LSN {lsn}"
    store.graph.log_events([])
    put(store, pages[0], 9)
    assert list(store.logged_events()) == told


def test_changed_ranges_come_through_pages_that_a_wave_made(store: Store) -> None:
    a, b, c = (store.allocate(4096).id for _ in range(3))
    told: list[object] = []

    def copies(inputs: Sequence[Input], out: np.ndarray) -> None:
        told.append(inputs[0].changed)
        out[:] = inputs[0].data

    store.derive("passthrough", [a], b)
    store.derive(copies, [b], c)
    store.stabilize()
    told.clear()
    store.write_at(a, 500, b"xyz")
    store.stabilize()
    with store.batch() as batch:
        batch.write_at(a, 900, b"q")
        batch.write_at(a, 3000, b"r")
    store.stabilize()
    assert told == [((500, 3),), ((900, 1), (3000, 1))]


def test_kinds_without_all_their_inputs_fail_like_functions(store: Store) -> None:
    a, b, small = store.allocate(6).id, store.allocate(8).id, store.allocate(2).id
    store.derive("sum", [a], b, dtype="<f4")  # six bytes are no whole number of elements
    store.derive("sum", [b], small, dtype="<f8")  # and two bytes no room
    report = store.stabilize()
    assert report.failed == [b]
    assert report.stale == [small]
    with pytest.raises(DeriveError):
        store.graph.require(b)


def test_a_closed_graph_says_so(store: Store) -> None:
    pages = chain_of(store, 2)
    graph = Propagation(store)
    graph.close()
    graph.close()
    for use in (graph.stabilize, graph.stale, lambda: graph.refresh(pages[1]), lambda: graph.link(pages[0], pages[2])):
        with pytest.raises(PagesError, match="closed"):
            use()
    other = Propagation(store)
    store.close()
    with pytest.raises(PagesError, match="closed"):
        other.stabilize()


def test_a_store_whose_disk_failed_takes_no_wave(tmp_path: object) -> None:
    with Store.open(f"{tmp_path}/s", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = chain_of(store, 2)
        store.stabilize()
        put(store, pages[0], 4)
        store.arena.words[Word.POISON] = 5
        with pytest.raises(Poisoned):
            store.stabilize()
        assert number(store, pages[1]) == 0
        store.arena.words[Word.POISON] = 0
        assert store.stabilize().recomputed == pages[1:]


def test_waves_of_a_folder_are_durable_and_there_after_a_restart(tmp_path: object) -> None:
    with Store.open(f"{tmp_path}/s", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = chain_of(store, 3, 200)
        for value in range(1, 300):  # several laps of the ring: waves wait for the flusher as other commits do
            store.write(pages[0], np.full(200, value % 251, np.uint8))
            report = store.stabilize()
            assert report.recomputed == pages[1:]
            assert store.durable_lsn >= report.lsn
        assert store.verify() == []
    with Store.open(f"{tmp_path}/s") as store:
        assert bytes(store.read(pages[3])) == bytes([299 % 251]) * 200
        assert store.history(pages[3])[-1].source == "propagation"
