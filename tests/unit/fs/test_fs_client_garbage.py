"""Garbage: what is removed, what never is, and that the volume's bytes can be checked."""

import random
from collections.abc import Iterator

import pytest
from client_place import Clients

from stoker.core.errors import StoreError, UsageError
from stoker.fs.client import FileTree
from stoker.fs.client.checking import check_data
from stoker.fs.client.garbage import Collected, Removed, collect_garbage
from stoker.fs.meta.calls import FREED, LOST, TAKEN, USED, JudgeSlices, MergeTaken, TakeSlices
from stoker.fs.meta.keys import taken_key
from stoker.fs.meta.slices import Slice

HOUR = 3600.0


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def collect(clients: Clients, told: list[Removed] | None = None, *, dry_run: bool = False) -> Collected:
    tell = (told if told is not None else []).append
    return collect_garbage(
        clients.metadata, clients.store, HOUR, now_ns=clients.place.now_ns, dry_run=dry_run, tell=tell
    )


def faults(clients: Clients, *, deep: bool = False) -> list[str]:
    with clients.place.volume.engine.snapshot() as snapshot:
        return [fault.where for fault in check_data(snapshot, clients.store, deep=deep)]


def test_freed_slices_go_after_their_grace_and_their_reason_is_told(clients: Clients) -> None:
    tree = FileTree(clients.client())
    ino = tree.write_bytes("/f", b"old").ino
    clients.wait(5)
    freed_ns = clients.place.now_ns
    tree.write_bytes("/f", b"newer")
    clients.wait(HOUR - 1)
    assert (collect(clients).freed, collect(clients).waiting) == (0, 1)
    clients.wait(1)
    told: list[Removed] = []
    assert collect(clients, told, dry_run=True).freed == 1
    assert len(list(clients.slices.inventory())) == 2
    done = collect(clients, told)
    assert (done.freed, done.bytes, done.lost, done.waiting) == (1, 3, 0, 0)
    assert told == [Removed(Slice(1, 0, 3), "freed", ino, freed_ns)] * 2
    assert [data.id for data in clients.slices.inventory()] == [2]
    assert collect(clients).freed == 0
    assert tree.read_bytes("/f") == b"newer"
    assert faults(clients, deep=True) == []


def test_what_was_stored_and_never_shown_goes_once_its_session_is_over(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    handle.write(0, b"x" * (4 << 20))  # a whole piece is stored at once
    clients.slices.write(Slice(99_999, 0, 1), [b"?"], durable=True)  # of a taker nobody knows
    clients.wait(50)
    one.session.renew()
    assert collect(clients).lost == 0
    clients.made.remove(one)
    clients.wait(HOUR - 51)
    assert collect(clients).lost == 0  # over, but not long enough ago
    clients.wait(60)
    told: list[Removed] = []
    assert collect(clients, told).lost == 1
    assert [removed.why for removed in told] == ["lost"]
    assert [data.id for data in clients.slices.inventory()] == [99_999]


def test_an_error_ends_the_pass_and_nothing_else_goes(clients: Clients) -> None:
    tree = FileTree(clients.client())
    tree.write_bytes("/f", b"old")
    tree.write_bytes("/f", b"new")
    clients.wait(HOUR)
    clients.store.fault = lambda verb: StoreError("no") if verb == "remove" else None
    with pytest.raises(StoreError):
        collect(clients)
    clients.store.fault = lambda verb: StoreError("no") if verb == "inventory" else None
    with pytest.raises(StoreError):
        collect(clients)
    clients.store.fault = lambda verb: None
    assert collect(clients).inventory == 1
    with pytest.raises(UsageError):
        collect_garbage(clients.metadata, clients.store, -1, now_ns=0)


def test_verdicts_and_the_joining_of_ranges(clients: Clients) -> None:
    volume, place = clients.place.volume, clients.place
    sessions = [place.session(60) for _ in range(4)]
    for session in sessions:
        volume.run(TakeSlices(10), session=session)
    volume.run(TakeSlices(10))
    verdicts = lambda *ids: volume.run(JudgeSlices(ids, 0)).verdicts  # noqa: E731
    assert verdicts(0, 1, 10, 11, 41, 51, 2**63) == (TAKEN,) * 7
    for session in (sessions[0], sessions[1], sessions[3]):
        volume.end_session(session)
    assert verdicts(1, 10, 11, 20, 21, 30, 31, 40, 41) == (LOST,) * 4 + (TAKEN,) * 2 + (LOST,) * 2 + (TAKEN,)
    for limit in (2, 100):
        after = 0
        while after := volume.run(MergeTaken(after, limit)).value:
            pass
    with volume.engine.snapshot() as snapshot:
        rows = [key for key, _ in snapshot.scan(b"t")]
    assert rows == [taken_key(20), taken_key(30), taken_key(40), taken_key(50)]
    assert verdicts(1, 10, 11, 20, 21, 30, 31, 40, 41) == (LOST,) * 4 + (TAKEN,) * 2 + (LOST,) * 2 + (TAKEN,)
    tree = FileTree(clients.client())
    tree.write_bytes("/f", b"a")
    tree.write_bytes("/g", b"a")
    tree.unlink("/g")
    assert verdicts(51, 52, 53) == (USED, FREED, TAKEN)


def test_missing_smaller_and_damaged_slices_are_found(clients: Clients) -> None:
    tree = FileTree(clients.client())
    for name in "abc":
        tree.write_bytes(f"/{name}", name.encode() * 9)
    assert faults(clients, deep=True) == []
    clients.slices.remove([Slice(1, 0, 9), Slice(2, 0, 9)])
    clients.slices.write(Slice(2, 0, 5), [b"small"], durable=True)
    clients.slices._held[Slice(3, 0, 9)] = (b"cccccccc!", clients.slices._held[Slice(3, 0, 9)][1])
    assert faults(clients) == ["slice 1 generation 0", "slice 2 generation 0"]
    assert faults(clients, deep=True) == ["slice 1 generation 0", "slice 2 generation 0", "slice 3 generation 0"]


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 60))])
def test_whatever_happens_nothing_that_a_file_shows_is_ever_removed(seed: int) -> None:
    """Clients write, replace, remove and die; passes run in between; in the end all garbage is gone."""
    rng = random.Random(seed)
    clients = Clients()
    living = [clients.client(buffer_bytes=4000) for _ in range(2)]
    content: dict[str, bytes] = {}
    for _ in range(60):
        number = rng.randrange(len(living))
        client, name = living[number], f"/{rng.randrange(5)}"
        tree = FileTree(client)
        what = rng.random()
        if what < 0.4:
            content[name] = rng.randbytes(rng.randrange(1, 3000))
            tree.write_bytes(name, content[name])
        elif what < 0.6:
            data = rng.randbytes(rng.randrange(1, 3000))
            with tree.open(name, "ab") as file:
                file.write(data)
            content[name] = content.get(name, b"") + data
        elif what < 0.75 and name in content:
            tree.unlink(name)
            del content[name]
        elif what < 0.85:
            unshown = tree.open(f"/gone{rng.randrange(9)}", "wb")
            unshown.write(rng.randbytes(5000))
            clients.made.remove(client)  # it dies with what it wrote
            unshown.handle._closed = True
            living[number] = clients.client(buffer_bytes=4000)
        clients.wait(rng.choice((1, 20, 5000)))
        for each in living:
            each.tick()
        clients.place.volume.tidy()
        if rng.random() < 0.5:
            collect(clients)
        assert faults(clients) == []
    clients.wait(2 * HOUR)
    for each in living:
        each.tick()
    clients.place.volume.tidy()
    collect(clients)
    reader = FileTree(living[0])
    for name in {name.decode() for name in reader.listdir("/") if name.startswith(b"gone")}:
        reader.unlink(f"/{name}")
    assert {name: bytes(reader.read_bytes(name)) for name in content} == content
    clients.wait(2 * HOUR)
    for each in living:
        each.tick()
    collect(clients)
    shown = sum(len(data) for data in content.values())
    assert shown <= clients.slices.used_bytes <= shown + 200_000
    clients.close()
