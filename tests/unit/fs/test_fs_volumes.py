"""Volumes as files: engines give the same rows, kills lose nothing that was answered, faults are found."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fs_place import Place

from stoker.core.errors import CorruptError, MissingExtraError, StokerError, TransientError, UsageError
from stoker.fs.meta import MetaError, Tree, Volume, committing, fsck, keys
from stoker.fs.meta.answers import Done, Entry, Refusal
from stoker.fs.meta.calls import BeginSession, Call, Caller, Create, Lookup, Mkdir, SetLock, SetXattr, TakeSlices, Write
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.kv import Conflict
from stoker.fs.meta.machine import run_all
from stoker.fs.meta.records import pack_count
from stoker.fs.meta.view import View

URLS = ["sqlite://{}/volume.db", "lmdb://{}/volume"]
_WRITER = """
import sys
from stoker.fs.meta import Tree, Volume
with Volume.open(sys.argv[1]) as volume:
    tree = Tree(volume)
    for number in range(100_000):
        tree.mkdir(f"/d{number}")
        tree.create(f"/d{number}/file")
        tree.rename(f"/d{number}/file", f"/d{number}/renamed")
        print(number, flush=True)
"""


# -- engines


def random_calls(seed: int, count: int) -> list[Call]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "sim"))
    from fs_meta_world import Client, World

    world = World(seed)
    client = Client(0, Caller(), session=1)
    client.inodes = list(range(1, 12))
    client.writable = list(range(2, 12))
    client.slices = list(range(1, 200))
    calls = []
    for _ in range(count):
        calls.append(
            Call(world.request(client), client.caller, session=1, seq=len(calls) + 1, received=len(calls) // 2)
        )
    return calls


@pytest.mark.parametrize("seed", range(3))
def test_engines_give_the_same_answers_and_the_same_rows(tmp_path: Path, seed: int) -> None:
    calls = random_calls(seed, 400)
    start = [Call(BeginSession(10**12)), Call(TakeSlices(300))]
    outcomes = []
    with Volume.format("memory://", clock=lambda: 1) as first:
        empty = first.engine.scan(b"")
    for url in ("memory://", *(url.format(tmp_path) for url in URLS)):
        with open_engine(url + ("?sync=off" if "mem" not in url else ""), create=True) as engine:
            engine.bulk_load(empty)
            answers = []
            for group in (
                start,
                *(calls[n : n + 7] for n in range(0, 400, 7)),
            ):
                with engine.snapshot() as snapshot:
                    view = View(snapshot)
                    answers += run_all(view, group, 1000 + len(answers))
                assert not isinstance(engine.txn(view.read_set(), view.writes), Conflict)
            assert fsck(engine) == []
            outcomes.append((answers, engine.scan(b""), engine.changes(1, 10_000)))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0][1]) > 20


@pytest.mark.parametrize("url", URLS)
def test_what_was_answered_survives_a_killed_process(tmp_path: Path, url: str) -> None:
    killed(tmp_path, url, rounds=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("url", URLS)
def test_what_was_answered_survives_many_killed_processes(tmp_path: Path, url: str) -> None:
    killed(tmp_path, url, rounds=30)


def killed(folder: Path, url: str, rounds: int) -> None:
    """Kill a writer at different moments; all that it was told must be there, and nothing half."""
    chance = random.Random(1)
    for number in range(rounds):
        inside = folder / str(number)
        inside.mkdir()
        Volume.format(url.format(inside)).close()
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, url.format(inside)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(chance.randint(1, 20))]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.stdout.close()
        writer.wait()
        with Volume.open(url.format(inside)) as volume:
            assert fsck(volume.engine) == []
            tree = Tree(volume)
            for one in told:
                assert tree.listdir(f"/d{one}") == [b"renamed"]
            assert len(tree.listdir("/")) <= max(told) + 2
            tree.mkdir("/afterwards")


@pytest.mark.parametrize("url", URLS)
def test_threads_and_processes_share_a_volume(tmp_path: Path, url: str) -> None:
    at = url.format(tmp_path)
    Volume.format(at).close()
    script = (
        "import sys\nfrom stoker.fs.meta import Tree, Volume\n"
        "with Volume.open(sys.argv[1]) as volume:\n"
        "    for n in range(30): Tree(volume).create(f'/{sys.argv[2]}-{n}')\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", script, at, name]) for name in ("one", "two")]
    with Volume.open(at) as volume, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: Tree(volume).create(f"/here-{n}"), range(60)))
        assert [other.wait() for other in others] == [0, 0]
        assert len(Tree(volume).listdir("/")) == 120
        assert fsck(volume.engine) == []


def test_threads_share_transactions() -> None:
    volume = Volume.format("memory://")
    slow = threading.Event()
    txn = volume.engine.txn

    def held(*arguments: object, **named: object) -> object:
        slow.wait(5)
        return txn(*arguments, **named)  # type: ignore[arg-type]

    volume.engine.txn = held  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(16) as pool:
        before = volume.engine.revision()
        waiting = [pool.submit(Tree(volume).create, f"/f{n}") for n in range(16)]
        while volume._committer._turns.waiting < 15:
            threading.Event().wait(0.001)
        slow.set()
        assert len({one.result().ino for one in waiting}) == 16
    assert volume.engine.revision() - before == 2, "the first alone, then all who waited"


class _Interrupted:
    """A lock whose waiter is interrupted in the moment in which it has got it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def acquire(self) -> None:
        self.lock.acquire()
        raise KeyboardInterrupt

    def release(self) -> None:
        self.lock.release()

    def locked(self) -> bool:
        return self.lock.locked()


def test_who_is_interrupted_when_woken_to_lead_lets_another_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume.format("memory://")
    held, txn = threading.Event(), volume.engine.txn
    volume.engine.txn = lambda *both, **named: txn(*both, **named) if held.wait(5) else None  # type: ignore[method-assign,assignment]
    committer = volume._committer
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(Tree(volume).create, "/first")
        while not committer._turns._busy:
            threading.Event().wait(0.001)
        ticket = committing._Ticket([Call(Mkdir(ROOT, b"never", 0o755))])
        ticket._wake = _Interrupted()  # type: ignore[assignment]
        with monkeypatch.context() as patch:
            patch.setattr(committing, "_Ticket", lambda batch: ticket)
            interrupted = pool.submit(committer.submit, ticket.batch)
            while ticket not in committer._turns._waiting:
                threading.Event().wait(0.001)
        last = pool.submit(Tree(volume).create, "/last")
        while committer._turns.waiting < 2:
            threading.Event().wait(0.001)
        held.set()
        with pytest.raises(KeyboardInterrupt):
            interrupted.result(5)
        assert first.result(5).made
        assert last.result(5).made
    assert Tree(volume).listdir("/") == [b"first", b"last"]


def test_an_engine_that_fails_is_told_to_all_who_waited() -> None:
    volume = Volume.format("memory://")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    volume.engine.txn = full  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(Tree(volume).create, f"/f{n}") for n in range(4)]:
            with pytest.raises(OSError, match="full"):
                one.result()
    del volume.engine.txn
    assert Tree(volume).listdir("/") == []


def test_conflicts_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume.format("memory://")
    monkeypatch.setattr("stoker.fs.meta.committing._PAUSE_SECONDS", 0.0)
    volume.engine.txn = lambda *_, **__: Conflict(b"k", 1)  # type: ignore[method-assign,assignment]
    with pytest.raises(TransientError, match="faster than by this one"):
        volume.run(Mkdir(ROOT, b"d", 0o755))


@pytest.mark.parametrize("seed", range(4))
def test_a_view_shows_its_snapshot_with_its_own_writes(seed: int) -> None:
    chance = random.Random(seed)
    names = [b"i" + bytes([0] * 7 + [head]) + b"D%d" % tail for head in range(3) for tail in range(8)]
    below = {name: b"below" for name in names if chance.random() < 0.5}
    engine = MemoryEngine(MemoryState(), "memory://view")
    engine.txn(None, below)
    with engine.snapshot() as snapshot:
        view, model, marks = View(snapshot), dict(below), []
        for _ in range(300):
            kind, name = chance.choice(["put", "delete", "scan", "scan", "get", "mark", "undo"]), chance.choice(names)
            if kind == "put":
                view.put(name, b"ours")
                model[name] = b"ours"
            elif kind == "delete":
                view.delete(name)
                model.pop(name, None)
            elif kind == "get":
                assert view.get(name) == model.get(name)
            elif kind == "mark":
                marks.append((view.mark(), dict(model)))
            elif kind == "undo" and marks:
                mark, model = marks.pop()
                view.undo(mark)
                model = dict(model)
            elif kind == "scan":
                prefix, after = name[: chance.choice([1, 9, 10])], chance.choice([b"", chance.choice(names)])
                limit = chance.choice([None, 1, 2, 5])
                wanted = sorted((k, v) for k, v in model.items() if k.startswith(prefix) and k > after)
                assert view.scan(prefix, after, limit) == wanted[:limit]
        assert isinstance(engine.txn(view.read_set(), view.writes), int)
    assert dict(engine.scan(b"")) == model


# -- form


def test_a_volume_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/volume.db"
    with Volume.format(url) as volume:
        volume.engine.txn(None, {keys.VOLUME: b'{"name":"x","uuid":"y","made_ns":1,"version":99}'})
    with pytest.raises(UsageError, match="newer release"):
        Volume.open(url)
    with open_engine(url) as engine:
        engine.txn(None, {keys.VOLUME: b"{"})
    with pytest.raises(CorruptError, match="settings"):
        Volume.open(url)
    with open_engine(url) as engine:
        engine.txn(None, {keys.VOLUME: None})
    with pytest.raises(UsageError, match="no volume"):
        Volume.open(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("volume.db", "not the URL"),
        ("sqlite://", "names no path"),
        ("sqlite:///x\0y", "names no path"),
        ("sqlite://user:secret@host/x", "credentials"),
        ("sqlite:///x?sync=off&sync=full", "twice"),
        ("sqlite:///tmp/absent/x.db", "does not exist"),
        ("lmdb:///tmp/absent/x", "does not exist"),
        ("lmdb:///tmp/never?map_bytes=1KiB", "too small"),
        ("sqlite:///tmp/never?sync=maybe", "bad value"),
        ("sqllite:///x", "did you mean 'sqlite'"),
    ],
)
def test_bad_urls_are_refused_in_a_sentence(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Volume.format(url)
    assert "secret" not in str(caught.value)


def test_a_package_that_is_absent_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    monkeypatch.delitem(sys.modules, "stoker.fs.meta.engines.lmdb", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'stoker\[lmdb\]'"):
        Volume.format("lmdb:///tmp/never")


def test_a_bad_name_is_refused() -> None:
    for name in ("x" * 101, "a\nb"):
        with pytest.raises(UsageError, match="bad name"):
            Volume.format("memory://", name=name)


def test_an_engine_that_is_closed_says_so(tmp_path: Path) -> None:
    for url in URLS:
        volume = Volume.format(url.format(tmp_path))
        volume.close()
        volume.close()
        with pytest.raises(StokerError, match="closed"):
            volume.run(Lookup(ROOT, b"x"))
        with pytest.raises(StokerError, match="closed"):
            volume.run(Mkdir(ROOT, b"x", 0o755))


def test_an_lmdb_map_that_is_full_is_told(tmp_path: Path) -> None:
    with Volume.format(f"lmdb://{tmp_path}/volume?map_bytes=1MiB") as volume:
        volume.run(Create(ROOT, b"f", 0o644))
        with pytest.raises(StokerError, match="map_bytes"):
            for number in range(1000):
                volume.run(SetXattr(2, b"user.%d" % number, os.urandom(60_000)))
        assert fsck(volume.engine) == []
        volume.run(Mkdir(ROOT, b"d", 0o755))


# -- faults


def spoilt(place: Place, change: Callable[[dict[bytes, bytes]], None]) -> list[str]:
    """Return the rules that are broken after rows of the volume were changed behind its back."""
    pairs = dict(place.volume.engine.scan(b""))
    change(pairs)
    engine = MemoryEngine(MemoryState(), "memory://spoilt")
    engine.bulk_load(pairs.items())
    return [fault.rule for fault in fsck(engine)]


def furnished(place: Place) -> dict[str, int]:
    """Fill the volume with one of everything; return inodes by name."""
    session = place.session()
    tree = place.tree()
    inodes = {
        "dir": tree.mkdir("/dir").ino,
        "hard": tree.create("/dir/hard").ino,
        "link": tree.symlink("x", "/link").ino,
    }
    tree.link("/dir/hard", "/hard")
    tree.setxattr("/dir", b"user.x", b"1")
    inodes["file"] = place.file(b"file", session)
    inodes["orphan"] = place.file(b"orphan", session)
    tree.unlink("/orphan")
    place.volume.run(Write(inodes["file"], place.slices(100, 200)), session=session)
    place.volume.run(SetLock(inodes["file"], 1, True, 0, 10), session=session)
    place.sound()
    return inodes


def flip(key: bytes, place_in: int, by: int = 1) -> Callable[[dict[bytes, bytes]], None]:
    def change(pairs: dict[bytes, bytes]) -> None:
        value = bytearray(pairs[key])
        value[place_in] ^= by
        pairs[key] = bytes(value)

    return change


def test_fsck_finds_what_is_wrong(place: Place) -> None:
    inode = furnished(place)
    session = 1

    def drop(key: bytes) -> Callable[[dict[bytes, bytes]], None]:
        return lambda pairs: pairs.__delitem__(key)

    def put(key: bytes, value: bytes) -> Callable[[dict[bytes, bytes]], None]:
        return lambda pairs: pairs.__setitem__(key, value)

    attr = keys.attr_key(inode["file"])
    cases: list[tuple[Callable[[dict[bytes, bytes]], None], str]] = [
        (drop(keys.entry_key(ROOT, b"hard")), "links are counted"),
        (drop(attr), "an entry stands for an inode"),
        (drop(keys.attr_key(inode["dir"])), "entries stand in directories"),
        (put(keys.entry_key(ROOT, b"a/b"), b"\0" * 7 + bytes([inode["link"], 10])), "names are allowed ones"),
        (flip(keys.entry_key(ROOT, b"dir"), 8, 12), "an entry tells its inode's kind"),
        (drop(keys.parent_key(inode["hard"], ROOT)), "parents are those of the entries"),
        (put(keys.attr_key(inode["dir"])[:9] + b"?", b""), "keys are known"),
        (put(b"z" + bytes(9), b""), "keys are known"),
        (put(attr, b"\x01junk"), "rows are readable"),
        (flip(attr, 0, 2), "rows are readable"),
        (put(keys.entry_key(ROOT, b"dir"), b"x"), "rows are readable"),
        (drop(keys.target_key(inode["link"])), "a symbolic link has a target of its size"),
        (drop(keys.xattr_key(inode["dir"], b"user.x")), "flags tell of extended attributes"),
        (drop(keys.orphan_key(inode["orphan"])), "an inode without a name is open and known as an orphan"),
        (drop(keys.open_key(inode["orphan"], session)), "what is open is told by inode and by session"),
        (drop(keys.session_key(session)), "what is open belongs to a session"),
        (drop(keys.slice_key(1)), "references to slices are counted"),
        (put(keys.slice_key(50), b"\0" * 17 + b"\1"), "references to slices are counted"),
        (put(keys.freed_key(1), bytes(24)), "no freed slice is in use"),
        (put(keys.chunk_key(inode["file"], 0), b""), "a chunk without extents has no row"),
        (flip(keys.chunk_key(inode["file"], 0), 3, 64), "extents lie one behind the other"),
        (put(keys.chunk_key(inode["hard"], 0), bytes(30)), "only files that say so have data"),
        (put(keys.INODES, pack_count(99)), "the volume is counted"),
        (put(keys.BYTES, pack_count(99)), "the volume is counted"),
        (put(keys.NEXT_INODE, pack_count(3)), "the next number is a new one"),
        (put(keys.NEXT_SLICE, pack_count(1)), "numbers of slices were taken"),
        (put(keys.NEXT_TOKEN, pack_count(1)), "tokens were given out"),
        (put(keys.xattr_key(77, b"user.x"), b""), "rows belong to an inode"),
        (put(keys.doomed_key(inode["file"]), b""), "what is being freed has no attributes"),
        (drop(keys.attr_key(ROOT)), "the root is a directory"),
    ]
    for change, rule in cases:
        assert rule in spoilt(place, change), rule


def test_fsck_finds_a_loop(place: Place) -> None:
    inodes = [place.tree().mkdir(path).ino for path in ("/a", "/a/b")]

    def loop(pairs: dict[bytes, bytes]) -> None:
        pairs[keys.entry_key(inodes[1], b"a")] = pairs.pop(keys.entry_key(ROOT, b"a"))

    assert "every directory is below the root" in spoilt(place, loop)


def test_damaged_rows_are_an_error_and_no_answer(place: Place) -> None:
    inode = furnished(place)
    damaged = {keys.attr_key(inode["dir"]): b"\x09", keys.chunk_key(inode["file"], 0): b"x"}
    before = {key: place.volume.engine.get(key) for key in damaged}
    place.volume.engine.txn(None, damaged)
    with pytest.raises(MetaError, match=r"EIO.*attributes"):
        place.tree().stat("/dir")
    with pytest.raises(MetaError, match=r"EIO.*slices of a chunk"):
        place.volume.run(Write(inode["file"], place.slices(1)), session=1)
    answers = place.volume.submit([Call(Mkdir(inode["dir"], b"x", 0o755)), Call(Mkdir(ROOT, b"y", 0o755))])
    assert isinstance(answers[0], Refusal) and answers[0].errno == errno.EIO
    assert isinstance(answers[1], Entry), "who needs no damaged row is served"
    place.volume.engine.txn(None, before)


def test_numbers_that_no_field_holds_are_refused_alone(place: Place) -> None:
    answers = place.volume.submit(
        [
            Call(Create(ROOT, b"a", 0o644), Caller(2**40, 0)),
            Call(Create(2**70, b"a", 0o644)),
            Call(Lookup(-1, b"a")),
            Call(SetXattr(ROOT, b"user.a", b"")),
        ]
    )
    assert answers[:3] == [Refusal(errno.EINVAL)] * 3
    assert answers[3] == Done()


def test_a_waiting_thread_that_is_interrupted_holds_up_nobody() -> None:
    volume = Volume.format("memory://")
    leading, go = threading.Event(), threading.Event()
    txn = volume.engine.txn

    def held(*arguments: object, **named: object) -> object:
        leading.set()
        go.wait(20)
        return txn(*arguments, **named)  # type: ignore[arg-type]

    volume.engine.txn = held  # type: ignore[method-assign,assignment]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(Tree(volume).create, "/first")
            leading.wait(20)
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                Tree(volume).create("/interrupted")
            others = [pool.submit(Tree(volume).create, f"/other-{n}") for n in range(2)]
            go.set()
            assert len({one.result(20).ino for one in (first, *others)}) == 3
    finally:
        signal.signal(signal.SIGALRM, before)
    del volume.engine.txn
    Tree(volume).create("/later")
    assert Tree(volume).listdir("/") == [b"first", b"later", b"other-0", b"other-1"]


def test_errors_of_requests_survive_the_trip_between_processes() -> None:
    error = MetaError("x was refused", errno=errno.ENOENT, where="/a")
    rebuild, arguments, state = error.__reduce__()  # type: ignore[misc]
    again = rebuild(*arguments)
    again.__dict__.update(state)
    assert (again.errno, str(again)) == (errno.ENOENT, str(error))
