"""A client that makes files without asking: what others see and when, who wins, and what failures leave."""

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from client_place import Clients
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import UnavailableError
from stoker.fs.client import Client
from stoker.fs.meta import MetaError
from stoker.fs.meta.acl import DEFAULT_NAME
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import (
    READ,
    WRITE,
    Call,
    Caller,
    Create,
    GetAttr,
    Link,
    Lookup,
    Mkdir,
    Peek,
    Put,
    ReadDir,
    Rename,
    Rmdir,
    SetAttr,
    SetLock,
    SetXattr,
    Symlink,
    Unlink,
)
from stoker.fs.meta.holdcalls import HoldNames, ReturnNames
from stoker.fs.meta.keys import ROOT, hold_key

HOLD_SECONDS = 3.0


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def holding(clients: Clients, parent: int = ROOT) -> Client:
    """Return a client that holds the names of a directory."""
    client = clients.client(threads=True, hold_seconds=HOLD_SECONDS)
    for name in (b"first", b"second"):
        client.create(Create(parent, name, 0o666, access=WRITE))[1].close()
    assert client.counters()["holds"] == 1
    return client


def is_held(clients: Clients, parent: int = ROOT) -> bool:
    with clients.place.volume.engine.snapshot() as snapshot:
        return snapshot.get(hold_key(parent)) is not None


def until(what: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names(clients: Clients, parent: int = ROOT) -> list[bytes]:
    """Return what the metadata has."""
    return [one.name for one in clients.place.volume.run(ReadDir(parent)).entries]


def test_files_are_made_without_asking_and_told_soon(clients: Clients) -> None:
    client = holding(clients)
    clients.file(client, b"numbers are taken").close()
    before = clients.metadata.asked
    handles = [clients.file(client, b"%d" % n) for n in range(50)]
    assert clients.metadata.asked == before  # what tells of them is submitted, by the thread
    assert client.counters()["made_here"] == 51
    until(lambda: len(names(clients)) == 53)
    for n, handle in enumerate(handles):
        handle.write(0, b"content of %d" % n)
        handle.close()
        assert clients.shown(handle.ino) == b"content of %d" % n


def test_a_file_is_told_with_what_is_written_to_it(clients: Clients) -> None:
    client = holding(clients)
    handle = clients.file(client)
    handle.write(0, b"content")
    handle.fsync()
    assert clients.place.volume.run(Lookup(ROOT, b"f")).ino == handle.ino
    assert clients.shown(handle.ino) == b"content"
    handle.close()


def test_a_file_that_was_only_made_is_there_when_it_is_closed_or_synced(clients: Clients) -> None:
    client = holding(clients)
    for name, access in ((b"w", WRITE), (b"r", READ)):
        clients.file(client, name, access).close()
        assert name in names(clients)
    handle = clients.file(client, b"synced")
    handle.fsync()
    assert b"synced" in names(clients)
    handle.close()


def test_its_maker_sees_a_file_at_once_whatever_he_asks(clients: Clients) -> None:
    client = holding(clients)
    asks: list[Callable[[int, bytes], object]] = [
        lambda ino, name: client.ask(GetAttr(ino)).attr.nlink,
        lambda ino, name: client.ask(Lookup(ROOT, name)).ino == ino or 1 / 0,
        lambda ino, name: name in [one.name for one in client.ask(ReadDir(ROOT)).entries] or 1 / 0,
        lambda ino, name: client.open(ino, READ).close(),
        lambda ino, name: client.open(ino, WRITE).close(),
        lambda ino, name: client.ask(SetAttr(ino, mode=0o600)),
        lambda ino, name: client.ask(Link(ino, ROOT, b"linked")),
        lambda ino, name: [client.ask(Rename(ROOT, a, ROOT, b)) for a, b in ((name, b"g"), (b"g", name))],
        lambda ino, name: client.create(Create(ROOT, name, 0o666, access=WRITE))[1].close(),
        lambda ino, name: client.put(Put(ROOT, name, 0o666, ()), [b"whole"]),
        lambda ino, name: client.submit([Call(Peek(ino)), Call(GetAttr(ino))]),
    ]
    for n, ask in enumerate(asks):
        handle = clients.file(client, b"%d" % n)
        assert client.counters()["made_here"] == n + 1
        ask(handle.ino, b"%d" % n)
        handle.close()
        client.ask(Unlink(ROOT, b"%d" % n))
        with pytest.raises(MetaError) as caught:
            client.ask(Lookup(ROOT, b"%d" % n))
        assert caught.value.errno == errno.ENOENT


def test_a_lock_and_a_synced_directory_tell_of_all_files(clients: Clients) -> None:
    client = holding(clients)
    locked = clients.file(client, b"locked")
    handle = clients.file(client, b"made under the lock")
    client.ask(SetLock(locked.ino, 1, None))
    assert b"made under the lock" in names(clients)
    more = clients.file(client, b"more")
    assert client.holds is not None
    client.holds.tell()
    assert b"more" in names(clients)
    for one in (locked, handle, more):
        one.close()


def test_taken_names_are_taken(clients: Clients) -> None:
    client = holding(clients)
    client.ask(Symlink(ROOT, b"link", b"target"))
    handle = clients.file(client, b"mine")
    for name in (b"first", b"link", b"mine"):
        with pytest.raises(MetaError) as caught:
            client.create(Create(ROOT, name, 0o666, exclusive=True, access=WRITE))
        assert caught.value.errno == errno.EEXIST
    handle.close()
    client.ask(Unlink(ROOT, b"mine"))
    client.create(Create(ROOT, b"mine", 0o666, exclusive=True, access=WRITE))[1].close()


def test_names_that_cannot_be_are_refused_as_ever(clients: Clients) -> None:
    client = holding(clients)
    for name, number in ((b"n" * 256, errno.ENAMETOOLONG), (b"a/b", errno.EINVAL)):
        for request in (Lookup(ROOT, name), Create(ROOT, name, 0o666, access=WRITE)):
            with pytest.raises(MetaError) as caught:
                client.create(request) if isinstance(request, Create) else client.ask(request)
            assert caught.value.errno == number


def test_another_client_gets_the_names_and_sees_all_files(clients: Clients) -> None:
    client, other = holding(clients), clients.client(threads=True, hold_seconds=HOLD_SECONDS)
    handles = [clients.file(client, b"mine %d" % n) for n in range(20)]
    start = time.monotonic()
    clients.file(other, b"other").close()  # the metadata's clock stands still: it is given back, not over
    assert time.monotonic() - start < HOLD_SECONDS
    assert len([name for name in names(clients) if name.startswith(b"mine")]) == 20
    assert client.counters()["holds_asked_back"] == 1
    until(lambda: not is_held(clients))
    clients.file(client, b"asked for").close()
    assert client.counters()["made_here"] == 20  # the directory is left alone for a while
    for handle in handles:
        handle.close()


def test_one_wins_each_name(clients: Clients) -> None:
    made = [clients.client(threads=True, hold_seconds=HOLD_SECONDS) for _ in range(3)]
    wins: list[tuple[bytes, int, int]] = []

    def race(index: int) -> None:
        for n in range(60):
            name = b"%d" % ((n * 7 + index) % 60)
            try:
                handle = made[index].create(Create(ROOT, name, 0o666, exclusive=True, access=WRITE))[1]
            except MetaError as error:
                assert error.errno == errno.EEXIST
                continue
            handle.write(0, b"%d" % index)
            handle.close()
            wins.append((name, index, handle.ino))

    threads = [threading.Thread(target=race, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _, _ in wins) == sorted(b"%d" % n for n in range(60))
    assert sum(client.counters()["holds"] for client in made) > 0
    for name, index, ino in wins:
        assert clients.place.volume.run(Lookup(ROOT, name)).ino == ino
        assert clients.shown(ino) == b"%d" % index


def test_a_holder_that_died_is_waited_for_until_its_hold_is_over(clients: Clients) -> None:
    dead = clients.place.session()
    clients.place.volume.run(HoldNames(ROOT, int(HOLD_SECONDS * 1e9)), session=dead)
    other = clients.client(threads=True, hold_seconds=HOLD_SECONDS)
    done = threading.Event()

    def make() -> None:
        clients.file(other, b"n").close()
        done.set()

    thread = threading.Thread(target=make)
    thread.start()
    assert not done.wait(0.2)
    clients.wait(HOLD_SECONDS)
    assert done.wait(10)
    thread.join()


def test_what_is_not_used_is_given_back(clients: Clients) -> None:
    holding(clients)
    assert is_held(clients)
    until(lambda: not is_held(clients))


def test_what_is_used_is_held_on(clients: Clients) -> None:
    client = holding(clients)
    for n in range(30):
        clients.wait(0.1)  # the metadata's time goes on: without being made longer the hold would be over
        clients.file(client, b"%d" % n).close()
        time.sleep(0.02)
    assert client.counters()["holds"] == 1
    assert client.counters()["made_here"] == 30


def test_closing_tells_of_all_and_gives_back(clients: Clients) -> None:
    client = holding(clients)
    clients.file(client, b"left open").write(0, b"content")
    clients.made.remove(client)
    client.close()
    assert not is_held(clients)
    assert clients.shown(clients.place.volume.run(Lookup(ROOT, b"left open")).ino) == b"content"


def test_the_directory_tells_of_what_was_made(clients: Clients) -> None:
    client = holding(clients)
    parent = client.ask(Mkdir(ROOT, b"d", 0o777)).ino
    for name in (b"a", b"b"):
        client.create(Create(parent, name, 0o666, access=WRITE))[1].close()
    before = client.ask(GetAttr(parent)).attr
    handles = [client.create(Create(parent, b"%d" % n, 0o666, access=WRITE))[1] for n in range(5)]
    after = client.ask(GetAttr(parent)).attr
    assert (after.size_bytes, after.version) == (before.size_bytes + 5, before.version + 5)
    assert after.mtime_ns > 0
    for handle in handles:
        handle.close()
    found = clients.place.volume.run(GetAttr(parent)).attr
    assert (found.size_bytes, found.version) == (after.size_bytes, after.version)
    client.ask(Unlink(parent, b"0"))
    assert client.ask(GetAttr(parent)).attr.size_bytes == after.size_bytes - 1
    with pytest.raises(MetaError) as caught:
        client.ask(Rmdir(ROOT, b"d"))
    assert caught.value.errno == errno.ENOTEMPTY


def test_a_large_directory_is_held_by_what_was_looked_up(clients: Clients) -> None:
    parent = clients.place.volume.run(Mkdir(ROOT, b"d", 0o777)).ino
    for n in range(1001):
        clients.place.volume.run(Create(parent, b"%d" % n, 0o666))
    client = holding(clients, parent)
    client.create(Create(parent, b"not looked up", 0o666, access=WRITE))[1].close()
    assert client.counters()["made_here"] == 0
    with pytest.raises(MetaError):
        client.ask(Lookup(parent, b"new"))
    client.create(Create(parent, b"new", 0o666, exclusive=True, access=WRITE))[1].close()
    assert client.counters()["made_here"] == 1
    with pytest.raises(MetaError) as caught:
        client.create(Create(parent, b"new", 0o666, exclusive=True, access=WRITE))
    assert caught.value.errno == errno.EEXIST


MODES = st.integers(0, 0o7777)
CALLERS = st.builds(
    Caller, st.sampled_from([0, 1000, 1001]), st.sampled_from([0, 1000, 5]), st.sampled_from([(), (5,), (7, 1000)])
)


@settings(max_examples=40, deadline=None)
@given(mode=MODES, umask=st.integers(0, 0o777), folder_mode=st.integers(0, 0o7777), caller=CALLERS)
def test_what_is_foretold_is_what_becomes(mode: int, umask: int, folder_mode: int, caller: Caller) -> None:
    """A file that was made here has the attributes that asking would have given, or is refused the same."""
    clients = Clients()
    try:
        parent = clients.place.volume.run(Mkdir(ROOT, b"d", 0o777)).ino
        client = holding(clients, parent)
        client.ask(SetAttr(parent, mode=folder_mode, uid=1000, gid=5))
        client.ask(GetAttr(parent))  # in a mount the kernel asks
        outcomes: list[object] = []
        for name, maker in ((b"here", client), (b"asked", clients.client())):
            try:
                entry, handle = maker.create(Create(parent, name, mode, umask, access=WRITE), caller=caller)
            except MetaError as error:
                outcomes.append(error.errno)
                continue
            handle.close()
            found = clients.place.volume.run(GetAttr(entry.ino)).attr
            told = msgspec.structs.replace(entry.attr, opens=0)
            if maker is client:
                assert msgspec.structs.replace(found, opens=0) == told
            outcomes.append((told.mode, told.uid, told.gid, told.nlink, told.size_bytes, told.parent))
        assert outcomes[0] == outcomes[1]
    finally:
        clients.close()


def test_lists_that_files_inherit_are_asked_for(clients: Clients) -> None:
    parent = clients.place.volume.run(Mkdir(ROOT, b"d", 0o777)).ino
    acl = b"\x02\x00\x00\x00" + b"".join(
        tag + permissions + b"\xff\xff\xff\xff"
        for tag, permissions in ((b"\x01\x00", b"\x06\x00"), (b"\x04\x00", b"\x00\x00"), (b"\x20\x00", b"\x00\x00"))
    )
    clients.place.volume.run(SetXattr(parent, DEFAULT_NAME, acl))
    client = holding(clients, parent)
    entry, handle = client.create(Create(parent, b"f", 0o666, access=WRITE))
    handle.close()
    assert client.counters()["made_here"] == 0
    assert entry.attr.mode & 0o777 == 0o600


# -- failures


def test_a_file_whose_name_somebody_took_after_all_is_refused_and_nothing_is_lost(clients: Clients) -> None:
    """As after clocks that lied: the hold is gone, and another has made the name before it was told."""
    client = holding(clients)
    thief = clients.place.session()
    submit = clients.metadata.submit

    def steal(batch: Sequence[Call]) -> list[Answer]:
        if any(isinstance(call.request, Create) and call.request.ino for call in batch):
            clients.place.volume.run(ReturnNames(ROOT), session=client.session.number)
            stolen = clients.place.volume.run(Create(ROOT, b"f", 0o600, access=WRITE), session=thief)
            assert stolen.made
            clients.metadata.submit = submit  # type: ignore[method-assign]
        return submit(batch)

    clients.metadata.submit = steal  # type: ignore[method-assign]
    handle = clients.file(client)
    handle.write(0, b"never shown")
    for _ in range(2):
        with pytest.raises(MetaError) as caught:
            handle.fsync()
        assert caught.value.errno == errno.EEXIST
    with pytest.raises(MetaError):
        handle.close()
    found = clients.place.volume.run(Lookup(ROOT, b"f"))
    assert found.ino != handle.ino
    assert found.attr.size_bytes == 0
    assert client.counters()["waiting_bytes"] == 0
    clients.place.volume.end_session(thief)


def test_a_lost_answer_makes_no_file_twice(clients: Clients) -> None:
    client = holding(clients)
    handle = clients.file(client)
    handle.write(0, b"content")
    clients.metadata.lose_answers = 1
    handle.fsync()
    assert clients.metadata.lose_answers == 0
    assert clients.place.volume.run(Lookup(ROOT, b"f")).ino == handle.ino
    assert clients.place.volume.run(GetAttr(handle.ino)).attr.opens == 1
    handle.close()
    assert clients.shown(handle.ino) == b"content"


def test_a_volume_that_is_full_is_told_and_tried_again(clients: Clients) -> None:
    client = holding(clients)
    handle = clients.file(client)
    handle.write(0, b"content")
    clients.metadata.refusal = errno.ENOSPC
    if b"f" not in names(clients):
        with pytest.raises(MetaError) as caught:
            handle.fsync()
        assert caught.value.errno == errno.ENOSPC
    clients.metadata.refusal = 0
    handle.fsync()
    assert clients.shown(handle.ino) == b"content"
    handle.close()


def test_files_of_a_session_that_is_over_are_refused(clients: Clients) -> None:
    client = holding(clients)
    handle = clients.file(client)
    handle.write(0, b"never shown")
    clients.wait(61)
    with pytest.raises(MetaError) as caught:
        handle.fsync()
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(MetaError):
        handle.close()
    clients.file(client, b"of the new session").close()
    assert b"of the new session" in names(clients)


def test_masters_that_do_not_answer_are_told_later(clients: Clients) -> None:
    client = holding(clients)
    submit, down = clients.metadata.submit, threading.Event()

    def refuse(batch: Sequence[Call]) -> list[Answer]:
        if down.is_set():
            raise UnavailableError("no master answers")
        return submit(batch)

    clients.metadata.submit = refuse  # type: ignore[method-assign]
    down.set()
    handle = clients.file(client)
    handle.write(0, b"content")
    with pytest.raises(MetaError):
        handle.fsync()
    down.clear()
    handle.fsync()
    assert clients.shown(handle.ino) == b"content"
    handle.close()


def test_a_strict_client_holds_nothing(clients: Clients) -> None:
    client = clients.client(threads=True, hold_seconds=HOLD_SECONDS, strict=True)
    for n in range(5):
        clients.file(client, b"%d" % n).close()
    assert client.counters()["holds"] == client.counters()["made_here"] == 0
