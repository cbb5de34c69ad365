"""States of pages: what is DIRTY, COMPUTING, STALE, QUARANTINED, who ends that, and what a killed process leaves."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from stoker.kernels.native import native_kernels
from stoker.pages import Conflict, DeriveError, PagesError, PageState, Quarantined, Store
from stoker.pages.arena.layout import EDITED
from stoker.pages.graph import Input, Propagation, building

SMALL = {"size_bytes": 1 << 20, "pages_max": 64, "log_bytes": 256 << 10}
EDITOR = """
import sys, time
from stoker.pages import Store
store = Store.attach(sys.argv[1])
with store.page("a").edit() as array:
    array[:] = 7
    print("in", flush=True)
    sys.stdin.readline()
"""
MAKER = """
import os, sys
from stoker.pages import Store
from stoker.pages.graph import Propagation, building
if sys.argv[2] == "plain":
    building.wave_engine = lambda *_: None
store = Store.attach(sys.argv[1])
made = [store.page(name) for name in ("b", "c")]
def slow(inputs, out):
    os.write(1, b"in\\n")
    os.read(0, 1)
    out[:] = inputs[0].data + 1
graph = Propagation(store, workers=int(sys.argv[3]))
for page in made:
    graph.derive(slow, [store.page("a")], page, name="made")
graph._cost_ns = {page.id: 1e9 for page in made}
graph.stabilize()
os.write(1, b"made\\n")
os.read(0, 1)
"""


@pytest.fixture(params=["native", "plain"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with pages a, b, c, on short ways and native waves, and one on neither."""
    if request.param == "plain":
        monkeypatch.setattr(building, "wave_engine", lambda *_: None)
    elif native_kernels() is None:
        pytest.skip("native kernels are not installed")
    with Store.open(name=f"states-{uuid4().hex}", **SMALL) as opened:
        if request.param == "plain":
            opened.take_long_ways()
        for name in "abc":
            opened.allocate(256, name=name).write(np.arange(256).astype(np.uint8))
        yield opened


def process(store: Store, script: str, *words: str) -> subprocess.Popen[str]:
    """Begin a process, and return when it is where it says so."""
    command = [sys.executable, "-c", script, store.name, *words]
    begun = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert begun.stdout is not None
    assert begun.stdout.readline() == "in\n"
    return begun


def killed(begun: subprocess.Popen[str]) -> None:
    begun.send_signal(signal.SIGKILL)
    begun.communicate()


def damage(store: Store, name: str, offset: int = 7) -> bytes:
    """Change a byte of a page past all commits; return what the page was."""
    facts, before = store.arena.read(store.page(name).id)
    store.arena.mapping.data[facts.offset + offset] ^= 1
    return bytes(before)


def add_one(inputs: Sequence[Input], out: np.ndarray) -> None:
    out[:] = sum(one.data for one in inputs) + np.uint8(1)


# -- DIRTY -----------------------------------------------------------------------------------------------------------


def test_a_page_is_dirty_for_every_process_while_one_edits_it(store: Store) -> None:
    editor = process(store, EDITOR)
    page = store.page("a")
    assert (page.state, store.page("b").state) == (PageState.DIRTY, PageState.CLEAN)
    assert page.read()[0] == 0, "nothing of the edit is there before it ends"
    editor.communicate("\n")
    assert (page.state, bytes(page.read())) == (PageState.CLEAN, b"\7" * 256)


def test_who_is_killed_over_an_edit_leaves_the_page_as_it_was(store: Store) -> None:
    editor, before = process(store, EDITOR), bytes(store.page("a").read())
    killed(editor)
    page = store.page("a")
    assert (page.state, bytes(page.read()), store.verify()) == (PageState.CLEAN, before, [])
    assert store.arena.sweep() == 2, "its line as a process, and that of its edit"


def test_an_edit_that_raises_or_comes_too_late_is_over(store: Store) -> None:
    page = store.page("a")
    with pytest.raises(ZeroDivisionError), page.edit() as array:
        array[0] = 1 // 0
    assert page.state == PageState.CLEAN
    with pytest.raises(Conflict), page.edit() as array:
        array[0] = 9
        store.write_at(page.id, 0, b"other")
    assert page.state == PageState.CLEAN
    with page.edit(), page.edit():
        assert page.state == PageState.DIRTY
    assert page.state == PageState.CLEAN


def test_edits_go_on_where_no_line_is_left_to_tell_of_them(store: Store) -> None:
    lines = []
    while line := store.arena.announce(EDITED, store.page("b").id):
        lines.append(line)
    with store.page("a").edit() as array:
        array[0] = 5
        assert (store.page("a").state, store.page("b").state) == (PageState.CLEAN, PageState.DIRTY)
    assert store.page("a").read()[0] == 5
    for line in lines:
        store.arena.withdraw(line)
    assert store.page("b").state == PageState.CLEAN


# -- COMPUTING -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "workers"), [("native", 1), ("plain", 1), ("native", 2)])
def test_a_page_is_computing_while_its_function_runs(engine: str, workers: int) -> None:
    if engine == "native" and native_kernels() is None:
        pytest.skip("native kernels are not installed")
    with Store.open(name=f"states-{uuid4().hex}", **SMALL) as store:
        for name in "abc":
            store.allocate(256, name=name)
        maker = process(store, MAKER, engine, str(workers))
        if workers > 1:
            assert maker.stdout is not None
            maker.stdout.readline()
        states = [store.page(name).state for name in "abc"]
        computing = PageState.COMPUTING
        assert states == [PageState.CLEAN, computing, computing if workers > 1 else PageState.STALE]
        assert store.page("b").read()[0] == 0, "readers have what it was"
        assert maker.stdin is not None
        maker.stdin.write("..")
        maker.stdin.flush()
        while maker.stdout is not None and maker.stdout.readline() != "made\n":
            pass
        assert [store.page(name).state for name in "abc"] == [PageState.CLEAN] * 3
        assert store.page("b").read()[0] == 1
        maker.communicate(".")


@pytest.mark.parametrize("workers", [1, 2])
def test_who_is_killed_over_a_recompute_leaves_a_stale_page_that_the_next_graph_makes(
    store: Store, workers: int
) -> None:
    maker = process(store, MAKER, "native" if store._fast else "plain", str(workers))
    if workers > 1:
        assert maker.stdout is not None
        maker.stdout.readline()
    killed(maker)
    page, before = store.page("b"), bytes(store.page("b").read())
    assert (page.state, bytes(page.read())) == (PageState.STALE, before)
    store.arena.sweep()
    assert store.arena.readers.killed(), "a sweep does not forget it"
    graph = Propagation(store)
    assert not store.arena.readers.killed()
    assert store.arena.facts(page.id).state == PageState.STALE, "now the log says so"
    graph.bind("made", add_one)
    assert graph.stale() == [page.id, store.page("c").id]
    assert graph.stabilize().recomputed == [page.id, store.page("c").id]
    assert (page.state, page.read()[3], store.verify()) == (PageState.CLEAN, 4, [])


def test_who_is_killed_while_it_takes_over_leaves_that_to_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(process(store, MAKER, "native", "1"))

    def no_more(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Propagation, "_set_stale", no_more)
        Propagation(store)
    assert store.page("b").state == PageState.STALE
    graph = Propagation(store)
    assert not store.arena.readers.killed()
    graph.bind("made", add_one)
    assert store.page("b").id in graph.stabilize().recomputed


def test_a_function_that_raises_is_computing_no_more(store: Store) -> None:
    seen = []

    def failing(inputs: Sequence[Input], out: np.ndarray) -> None:
        seen.append(store.page("b").state)
        raise ValueError

    store.derive(failing, [store.page("a")], store.page("b"))
    for _ in range(2):
        store.stabilize()
        assert store.page("b").state == PageState.STALE
    assert seen == [PageState.COMPUTING] * 2


def test_threads_that_make_pages_at_once_tell_each_of_theirs(store: Store) -> None:
    both, seen = threading.Barrier(2, timeout=30), []

    def together(inputs: Sequence[Input], out: np.ndarray) -> None:
        both.wait()
        seen.append((store.page("b").state, store.page("c").state))
        both.wait()
        out[:] = 3

    graph = Propagation(store, workers=2)
    for name in "bc":
        graph.derive(together, [store.page("a")], store.page(name), name="together")
    graph._cost_ns = {store.page(name).id: 1e9 for name in "bc"}
    graph.stabilize()
    assert seen == [(PageState.COMPUTING, PageState.COMPUTING)] * 2
    assert {store.page(name).state for name in "bc"} == {PageState.CLEAN}


# -- QUARANTINED -----------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Store, int], object]] = {
    "read": lambda store, page: store.read(page),
    "read into": lambda store, page: store.read(page, np.empty(256, np.uint8)),
    "view": lambda store, page: store.snapshot().view(page),
    "tensor memory": lambda store, page: store.snapshot().private_view(page),
    "write": lambda store, page: store.write(page, bytes(256)),
    "write of an array": lambda store, page: store.write(page, np.zeros(256, np.uint8)),
    "write_at": lambda store, page: store.write_at(page, 3, b"xyz"),
    "update_many": lambda store, page: store.update_many([page], np.zeros((1, 256), np.uint8)),
    "write_each": lambda store, page: store.write_each([page], [bytes(256)]),
    "edit": lambda store, page: store.page(page).edit().__enter__(),
    "resize": lambda store, page: store.resize(page, 300),
    "clone": lambda store, page: store.clone(page),
    "checkpoint": lambda store, page: store.checkpoint("/nowhere"),
    "derive": lambda store, page: store.derive("passthrough", [store.page("b")], page),
}


@pytest.mark.parametrize("use", USES)
def test_a_page_in_quarantine_is_neither_read_nor_built_upon(store: Store, use: str) -> None:
    truth, page = damage(store, "a"), store.page("a")
    told = store.verify(quarantine=True)
    assert told[-1] == f"page {page.id} was put into quarantine"
    lsn = store.lsn
    with pytest.raises(Quarantined, match="heal"):
        USES[use](store, page.id)
    assert page.state == PageState.QUARANTINED
    assert store.pages()[0].epoch == 1, "facts are told"
    assert use == "derive" or store.lsn == lsn
    assert store.verify() == [f"page {page.id} is in quarantine"]
    assert store.heal() == [page.id]
    assert (page.state, bytes(page.read()), page.epoch) == (PageState.CLEAN, truth, 2)
    assert (store.verify(), store.heal()) == ([], [])


def test_a_sound_store_has_nothing_to_quarantine(store: Store) -> None:
    lsn = store.lsn
    assert store.verify(quarantine=True) == []
    assert store.lsn == lsn


def test_other_pages_go_on_and_the_damaged_one_can_be_freed(store: Store) -> None:
    damage(store, "a")
    store.verify(quarantine=True)
    store.page("b").write(bytes(256))
    store.page("a").free()
    assert (store.heal(), store.verify()) == ([], [])


def test_a_page_that_was_written_since_it_was_compared_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(store, "a")
    journal = store.journal
    replay = journal.replay

    def meanwhile(*words: object) -> object:
        state = replay(*words)  # type: ignore[arg-type]
        store.page("a").write(np.full(256, 9, np.uint8))
        return state

    monkeypatch.setattr(journal, "replay", meanwhile)
    journal.verify(quarantine=True)
    assert store.page("a").state == PageState.CLEAN
    assert store.verify() == [], "every byte was overwritten"


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_folder_heals_from_its_checkpoint_and_its_log(tmp_path: Path, checkpoint: bool) -> None:
    with Store.open(tmp_path / "bus", **SMALL) as store:
        page = store.allocate(5000, name="a")
        page.write(np.arange(5000).astype(np.uint8))
        if checkpoint:
            store.checkpoint(keep=1)
        page.write_at(100, b"after it")
        truth = damage(store, "a", 4999)
        assert store.verify(quarantine=True)
        other = Store.open(tmp_path / "bus")
        with other, pytest.raises(Quarantined):
            other.page("a").read()
        assert store.heal() == [page.id]
        assert bytes(page.read()) == truth
        store.checkpoint()
    with Store.open(tmp_path / "bus") as store:
        assert (bytes(store.page("a").read()), store.verify()) == (truth, [])


def test_quarantine_outlasts_the_store_and_its_bytes_are_sound_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "bus", **SMALL) as store:
        store.allocate(300, name="a").write(bytes(range(100)) * 3)
        truth = damage(store, "a")
        store.verify(quarantine=True)
    with Store.open(tmp_path / "bus") as store:
        assert store.page("a").state == PageState.QUARANTINED
        store.heal()
        assert bytes(store.page("a").read()) == truth


def test_heal_refuses_where_the_log_does_not_reach_back(store: Store) -> None:
    damage(store, "a")
    store.verify(quarantine=True)
    for index in range(2000):
        store.write(store.page("b").id, np.full(256, index % 251, np.uint8))
    assert store.journal.floor_lsn > 1
    with pytest.raises(PagesError, match="kept in part"):
        store.heal()
    assert store.page("a").state == PageState.QUARANTINED


def test_heal_under_a_snapshot_leaves_what_the_snapshot_holds(store: Store) -> None:
    truth = damage(store, "a")
    with store.snapshot() as snapshot:
        store.verify(quarantine=True)
        held = bytes(snapshot.view(store.page("a").id))
        store.heal()
        assert (bytes(snapshot.view(store.page("a").id)), bytes(store.page("a").read())) == (held, truth)


@pytest.mark.parametrize("function", ["passthrough", "concat", add_one])
def test_a_wave_makes_nothing_of_a_page_in_quarantine(store: Store, function: object) -> None:
    a, b, c = (store.page(name) for name in "abc")
    store.derive(function, [a, b], c)  # type: ignore[arg-type]
    store.stabilize()
    before = bytes(c.read())
    damage(store, "b")
    store.verify(quarantine=True)
    a.write(np.full(256, 3, np.uint8))
    if function == "passthrough":
        return  # it is made from its first input alone
    for _ in range(2):
        report = store.stabilize()
        assert (report.failed, report.recomputed) == ([c.id], [])
        assert (c.state, bytes(c.read())) == (PageState.STALE, before)
    with pytest.raises(DeriveError, match="quarantine"):
        store.graph.require(c)
    store.heal()
    assert store.stabilize().recomputed == [c.id]
    assert (c.state, store.verify()) == (PageState.CLEAN, [])
    store.graph.require(c)


@pytest.mark.parametrize("function", ["passthrough", "to bfloat16", "sum", add_one])
def test_a_derived_page_in_quarantine_stays_there_until_it_is_healed(store: Store, function: object) -> None:
    a, c = store.page("a"), store.allocate(128 if function == "to bfloat16" else 256)
    given: dict[str, str] = {}
    if function == "to bfloat16":
        function, given = "cast", {"source": "<f4", "target": "bfloat16"}
    elif function == "sum":
        given = {"dtype": "<u4"}
    store.derive(function, [a], c, **given)  # type: ignore[arg-type]
    store.stabilize()
    facts = store.arena.facts(c.id)
    store.arena.mapping.data[facts.offset + 5] ^= 1
    store.verify(quarantine=True)
    a.write(np.full(256, 3, np.uint8))
    for _ in range(2):
        assert store.stabilize().failed == [c.id]
        assert c.state == PageState.QUARANTINED
    store.heal()
    assert store.stabilize().recomputed == [c.id]
    assert (c.state, store.verify()) == (PageState.CLEAN, [])


def test_a_wave_under_way_commits_nothing_over_a_page_that_is_quarantined_meanwhile(store: Store) -> None:
    a, b = store.page("a"), store.page("b")
    turns = itertools.count()

    def meanwhile(inputs: Sequence[Input], out: np.ndarray) -> None:
        if not next(turns):
            damage(store, "b")
            store.journal.verify(quarantine=True)
        out[:] = inputs[0].data + 1

    store.derive(meanwhile, [a], b)
    report = store.stabilize()
    assert report.recomputed == []
    assert b.state == PageState.QUARANTINED
    store.heal()
    store.stabilize()
    assert (bytes(b.read()), store.verify()) == (bytes((np.arange(256) + 1).astype(np.uint8)), [])


def test_a_forked_child_announces_itself_and_not_its_parent(store: Store) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            with Store.attach(store.name) as mine, mine.page("a").edit():
                os.write(write, bytes([mine.arena.readers.busy(mine.page("a").id)[0]]))
                signal.pause()
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"\1"
    assert store.page("a").state == PageState.DIRTY
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert store.page("a").state == PageState.CLEAN
    os.close(read)
    os.close(write)
