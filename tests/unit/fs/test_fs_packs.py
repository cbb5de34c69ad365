"""Packs: several small files in one slice. Who may show which part, what frees it, and what failures leave."""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
from client_place import Clients
from fs_place import Place
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import StoreError, UnavailableError
from stoker.fs.client import FileTree
from stoker.fs.client.checking import check_data
from stoker.fs.client.commits import CommitGroup, DurabilityError, Keeping, Ticket
from stoker.fs.client.garbage import collect_garbage
from stoker.fs.client.packs import Loose, Part, in_packs
from stoker.fs.meta import MetaError
from stoker.fs.meta.answers import Answer, Entry, Number, Refusal
from stoker.fs.meta.calls import (
    WRITE,
    Call,
    CopyRange,
    Create,
    ListFreed,
    Lookup,
    MakeClass,
    Peek,
    Put,
    SetClass,
    Unlink,
    Write,
)
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import coded
from stoker.fs.store.interface import SMALL_CELL_BYTES, SMALL_SLICE_BYTES, Bytes

HOUR = 3600.0


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def put(name: bytes, data: Slice, offset: int, length: int) -> Put:
    return Put(ROOT, name, 0o600, (data,), parts=((offset, length),))


def freed(place: Place) -> list[int]:
    return [one.slice.id for one in place.volume.run(ListFreed()).slices]


# -- the metadata


def test_a_pack_is_freed_with_the_last_file_that_shows_a_part(place: Place) -> None:
    session = place.session()
    (data,) = place.slices(100)
    for name, offset, length in ((b"a", 0, 40), (b"b", 40, 60)):
        place.volume.run(put(name, data, offset, length), session=session)
    (shown,) = place.volume.run(Peek(ROOT, b"b")).shown
    assert (shown.offset_bytes, shown.extent.slice, shown.extent.offset, shown.extent.length) == (0, data, 40, 60)
    assert place.volume.run(Lookup(ROOT, b"b")).attr.size_bytes == 60
    place.volume.run(Unlink(ROOT, b"a"))
    assert freed(place) == []
    place.sound()
    place.volume.run(Unlink(ROOT, b"b"))
    assert freed(place) == [data.id]
    place.sound()


def test_a_pack_is_shown_by_who_packs_it_alone(place: Place) -> None:
    session, other = place.session(), place.session()
    packed, whole, copied = place.slices(100, 100, 100)
    place.volume.run(put(b"a", packed, 0, 10), session=session)
    place.refused(errno.EAGAIN, put(b"b", packed, 10, 10), session=other)
    place.refused(errno.EAGAIN, put(b"b", Slice(packed.id, 0, 200), 10, 10), session=session)
    place.refused(errno.EINVAL, Put(ROOT, b"b", 0o600, (packed,)), session=session)
    place.volume.run(Put(ROOT, b"w", 0o600, (whole,)), session=session)
    place.refused(errno.EAGAIN, put(b"b", whole, 0, 10), session=session)
    for offset, length in ((-1, 10), (0, 0), (95, 10), (0, 101)):
        place.refused(errno.EINVAL, put(b"b", copied, offset, length), session=session)
    place.refused(errno.EINVAL, Put(ROOT, b"b", 0o600, (copied,), parts=((0, 1), (1, 1))), session=session)
    ino = place.file(b"c", session)
    source = place.volume.run(Create(ROOT, b"a", 0o600, access=3), session=session).ino
    assert place.volume.run(CopyRange(source, 2, ino, 0, 5), session=session).value == 5
    place.volume.run(put(b"b", packed, 10, 10), session=session)  # a copy takes nothing from the packer
    place.sound()


def test_one_file_may_show_several_parts_of_a_pack(place: Place) -> None:
    session = place.session()
    (data,) = place.slices(100)
    ino = place.file(b"f", session, WRITE)
    request = Write(ino, (data, data), 7, parts=((50, 10), (0, 20)))
    assert place.volume.run(request, session=session) == Number(7)
    found = [(one.offset_bytes, one.extent.offset, one.extent.length) for one in place.volume.run(Peek(ino)).shown]
    assert found == [(7, 50, 10), (17, 0, 20)]
    place.sound()


def test_a_pack_that_was_freed_is_shown_no_more_unless_nobody_can_know(place: Place) -> None:
    session = place.session()
    first, second = place.slices(100, 100)
    calls = [put(b"a", first, 0, 10), put(b"a", second, 0, 10), put(b"b", first, 10, 10)]
    answers = place.volume.submit([Call(request, session=session) for request in calls])
    assert all(isinstance(answer, Entry) for answer in answers)
    assert freed(place) == []
    place.sound()
    place.volume.run(Unlink(ROOT, b"a"))
    assert freed(place) == [second.id]
    place.now_ns += 1
    place.refused(errno.EAGAIN, put(b"c", second, 10, 10), session=session)
    place.sound()


def test_slices_of_another_class_than_the_file_s_are_refused_where_that_is_asked(place: Place) -> None:
    session = place.session()
    (data,) = place.slices(10)
    number = place.volume.run(MakeClass(coded("two", 1, 1))).value
    place.volume.run(SetClass(ROOT, number))
    place.refused(errno.EAGAIN, Put(ROOT, b"f", 0o600, (data,), fitting=True), session=session)
    place.refused(errno.ENOENT, Unlink(ROOT, b"f"))
    fitting = Slice(data.id, 0, 10, number)
    made = place.volume.run(Put(ROOT, b"f", 0o600, (fitting,), fitting=True), session=session)
    assert made.attr.storage_class == number


# -- the client


def together(clients: Clients, works: Sequence[Callable[[], object]]) -> list[BaseException | None]:
    """Run works in threads: the first waits in the store until all others wait for their turn."""
    told: list[BaseException | None] = [None] * len(works)
    clients.store.gate = threading.Event()
    group = clients.made[-1].works.commits

    def run(number: int) -> None:
        try:
            works[number]()
        except Exception as error:
            told[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    ended = threading.Event()
    while group.waiting < len(works) - 1 and not ended.wait(0.001):
        pass
    clients.store.gate.set()
    for thread in threads:
        thread.join(60)
    clients.store.gate = None
    return told


def test_files_of_one_moment_share_a_slice_and_are_read_by_themselves(clients: Clients) -> None:
    one = clients.client(threads=True)
    tree = FileTree(one)
    contents = {f"/{n}": bytes([n]) * (5000 + n) for n in range(9)}
    tree.write_bytes("/first", b"x")
    before = clients.store.calls["write"]
    works = [lambda path=path, data=data: tree.write_bytes(path, data) for path, data in contents.items()]
    assert together(clients, works) == [None] * 9
    assert clients.store.calls["write"] - before == 2
    assert one.counters()["packs"] == 1
    with clients.client() as other:
        reader = FileTree(other)
        fetched = 0
        for path, data in contents.items():
            assert reader.read_bytes(path) == data
        fetched = other.counters()["fetched_bytes"]
        assert fetched <= sum(map(len, contents.values())) + len(contents) * 2 * SMALL_CELL_BYTES
        assert list(reader.read_each(list(contents))) == list(contents.values())


def test_what_is_left_of_a_pack_outlives_garbage_collection(clients: Clients) -> None:
    tree = FileTree(clients.client(threads=True))
    tree.write_bytes("/first", b"x")
    works = [lambda n=n: tree.write_bytes(f"/{n}", b"%d" % n) for n in range(6)]
    assert together(clients, works) == [None] * 6

    def collected() -> int:
        clients.wait(HOUR)
        return collect_garbage(clients.metadata, clients.store, HOUR, now_ns=clients.place.now_ns).freed

    held = len(list(clients.slices.inventory()))
    for n in range(5):
        tree.unlink(f"/{n}")
    collected()
    with clients.client() as other:
        assert FileTree(other).read_bytes("/5") == b"5"
    with clients.place.volume.engine.snapshot() as snapshot:
        assert check_data(snapshot, clients.store, deep=True) == []
    tree.unlink("/5")
    collected()
    assert len(list(clients.slices.inventory())) == 1 < held


def test_a_pack_that_cannot_be_stored_is_stored_piece_by_piece(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = FileTree(clients.client(threads=True, attempts=1))
    tree.write_bytes("/first", b"x")
    plain = clients.store.write

    def write(data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        if any(bytes(part).startswith(b"bad") for part in parts):
            raise StoreError("disk hates this")
        plain(data, parts, durable=durable)

    monkeypatch.setattr(clients.store, "write", write)
    works = [lambda n=n: tree.write_bytes(f"/{n}", b"bad" if n == 3 else b"good") for n in range(7)]
    told = together(clients, works)
    assert [n for n, error in enumerate(told) if error is not None] == [3]
    assert isinstance(told[3], MetaError) and "disk hates this" in str(told[3])
    assert not tree.exists("/3")
    assert all(tree.read_bytes(f"/{n}") == b"good" for n in range(7) if n != 3)


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("append", [True, False])
def test_what_became_of_bytes_in_a_pack_is_found_out(clients: Clients, done: bool, append: bool) -> None:
    one = clients.client(threads=True)
    handles = [clients.file(one, b"%d" % n) for n in range(5)]
    for n, handle in enumerate(handles):
        handle.write(0, b"%d" % n * 10, append=append)
    answers = clients.metadata.submit
    lost: list[int] = []

    def submit(batch: Sequence[Call]) -> list[Answer]:
        writes = sum(isinstance(call.request, Write) for call in batch)
        if writes > 1 and not lost:
            lost.append(writes)
            if done:
                clients.metadata.volume.submit(batch)
            raise UnavailableError("the answer got lost")
        return answers(batch)

    one.works.commits._metadata.submit = submit  # type: ignore[method-assign]
    assert together(clients, [handle.fsync for handle in handles]) == [None] * 5
    assert lost and lost[0] > 1
    for n, handle in enumerate(handles):
        assert clients.shown(handle.ino) == b"%d" % n * 10
        handle.close()


def test_a_pack_that_nobody_showed_is_garbage_once_its_session_is_over(clients: Clients) -> None:
    one = clients.client(threads=True, attempts=1)
    tree = FileTree(one)
    tree.write_bytes("/first", b"x")
    works = [lambda n=n: tree.write_bytes(f"/gone/{n}" if n else "/here", b"%d" % n) for n in range(4)]
    tree.mkdir("/gone")
    ino = tree.stat("/gone").ino
    calls = [Put(ino, b"%d" % n, 0o600, ()) for n in range(4)]
    tree.rmdir("/gone")
    works = [lambda call=call: one.put(call, [b"abc"]) for call in calls]
    assert all(isinstance(error, MetaError) for error in together(clients, works))
    assert len(list(clients.slices.inventory())) == 3
    one.close()
    clients.wait(2 * HOUR)
    clients.place.volume.tidy()
    done = collect_garbage(clients.metadata, clients.store, HOUR, now_ns=clients.place.now_ns)
    assert done.lost == 2
    assert len(list(clients.slices.inventory())) == 1


# -- how they are made


sizes = st.integers(1, SMALL_SLICE_BYTES // 2)
loose = st.builds(Loose, sizes.map(bytes), st.integers(1, 2), st.integers(0, 1), st.booleans())


@given(st.lists(loose, max_size=30))
def test_packs_hold_all_once_in_order_and_no_more_than_fits(contents: list[Loose]) -> None:
    packs = list(in_packs(list(enumerate(contents)), lambda one: one[1]))
    assert sorted(number for pack in packs for number, _ in pack) == list(range(len(contents)))
    for pack in packs:
        assert [number for number, _ in pack] == sorted(number for number, _ in pack)
        assert len({(one.session, one.storage_class) for _, one in pack}) == 1
        assert len(pack) == 1 or sum(len(one.data) for _, one in pack) <= SMALL_SLICE_BYTES
        assert len(pack) == 1 or not any(one.alone for _, one in pack)


@given(st.lists(st.tuples(st.sampled_from("kdx"), st.booleans()), min_size=1, max_size=12))
def test_each_member_of_a_group_has_its_own_outcome(members: list[tuple[str, bool]]) -> None:
    """Bytes that no disk takes, and refusals of the metadata, are told to whose they are."""
    shown: list[bytes] = []
    stored: dict[int, bytes] = {}

    def store(parts: Sequence[Bytes], session: int, kind: int) -> Slice:
        whole = b"".join(parts)
        if b"d" in whole:
            raise StoreError("disk")
        stored[len(stored) + 1] = whole
        return Slice(len(stored), 0, len(whole))

    class Metadata:
        def submit(self, batch: Sequence[Call]) -> list[Answer]:
            answers: list[Answer] = []
            for call in batch:
                part = Part(call.request.slices[0], *(call.request.parts[0] if call.request.parts else (0, 1)))
                data = stored[part.slice.id][part.offset : part.offset + part.length]
                shown.append(data)
                answers.append(Refusal(errno.ENOENT) if data == b"x" else Number(0))
            return answers

    group = CommitGroup(Metadata(), Keeping(lambda slices: None, store))  # type: ignore[arg-type]
    tickets = []
    for letter, alone in members:

        def calls(parts: Sequence[Part]) -> list[Call]:
            return [Call(Put(1, b"n", 0, (parts[0].slice,), parts=((parts[0].offset, parts[0].length),)))]

        tickets.append(Ticket((), calls, [Loose(letter.encode(), 1, 0, alone)]))
    group.commit_all(tickets)
    for (letter, _), ticket in zip(members, tickets, strict=True):
        if letter == "d":
            assert isinstance(ticket.error, DurabilityError)
        else:
            assert ticket.error is None
            assert ticket.answers == [Refusal(errno.ENOENT) if letter == "x" else Number(0)]
    assert sorted(shown) == sorted(letter.encode() for letter, _ in members if letter != "d")


def test_who_is_interrupted_as_it_gathers_keeps_nobody_waiting(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = clients.client(threads=True)
    tree = FileTree(one)
    tree.write_bytes("/first", b"x")
    monkeypatch.setattr(one.works.commits, "_usual", 100)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("stoker.fs.client.commits.time", SimpleNamespace(sleep=interrupt))
        tree.write_bytes("/never", b"y")
    tree.write_bytes("/next", b"z")
    assert tree.read_bytes("/next") == b"z"
    assert not tree.exists("/never")
