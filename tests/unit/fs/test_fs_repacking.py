"""Packs of which little shows: what is left moves, and nothing that can be seen changes, whatever else happens."""

import errno
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import pytest
from client_place import Clients

from stoker.core.errors import StoreError, UnavailableError, UsageError
from stoker.fs.client.checking import check_data
from stoker.fs.client.garbage import collect_garbage
from stoker.fs.client.repacking import Repacked, repack
from stoker.fs.fuse.upkeep import Upkeep
from stoker.fs.meta.calls import (
    KEEP_SIZE,
    PUNCH_HOLE,
    READ,
    WRITE,
    Caller,
    CopyRange,
    Create,
    Fallocate,
    Lookup,
    Open,
    Put,
    Rename,
    Request,
    SetAttr,
    TakeSlices,
    Unlink,
    Write,
)
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.keys import ROOT, holder_in, number_in
from stoker.fs.meta.pack_calls import ListSparse, Moved, Repack
from stoker.fs.meta.slices import Slice, unpack_extents

HOUR = 3600.0


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def pack(clients: Clients, session: int, contents: dict[bytes, bytes], storage_class: int = 0) -> Slice:
    """Store files side by side in one slice, as a group commit does."""
    number = clients.metadata.run(TakeSlices(1), session=session).value
    data = Slice(number, 0, sum(map(len, contents.values())), storage_class)
    clients.slices.write(data, list(contents.values()), durable=True)
    offset = 0
    for name, content in contents.items():
        request = Put(ROOT, name, 0o600, (data,), parts=((offset, len(content)),))
        clients.metadata.run(request, session=session)
        offset += len(content)
    return data


def files(first: int, number: int, size_bytes: int = 1000) -> dict[bytes, bytes]:
    return {b"%d" % n: random.Random(n).randbytes(size_bytes) for n in range(first, first + number)}


def held_bytes(clients: Clients) -> int:
    return sum(data.size_bytes for data in clients.slices.inventory())


def collect(clients: Clients) -> None:
    clients.wait(2 * HOUR)
    clients.place.volume.tidy()
    collect_garbage(clients.metadata, clients.store, HOUR, now_ns=clients.place.now_ns)


def content(clients: Clients, name: bytes) -> bytes:
    return clients.shown(clients.metadata.run(Lookup(ROOT, name)).ino)


def check(clients: Clients) -> None:
    """Hold the counts by chunk against the chunks, and all bytes against their checksums."""
    clients.place.sound()
    with clients.place.volume.engine.snapshot() as snapshot:
        assert check_data(snapshot, clients.store, deep=True) == []
        pairs = dict(snapshot.scan(b""))
    counted = {
        (number_in(key), *holder_in(key)): int.from_bytes(value, "big")
        for key, value in pairs.items()
        if key[:1] == b"p" and key[9:10] == b"H"
    }
    packs = {number for number, _, _ in counted}
    found: Counter[tuple[int, int, int]] = Counter()
    for key, value in pairs.items():
        if key[:1] == b"i" and key[9:10] == b"C":
            for extent in unpack_extents(value):
                if extent.id in packs:
                    found[extent.id, number_in(key), int.from_bytes(key[10:14], "big")] += extent.length
    assert counted == found


def test_what_is_left_of_a_sparse_pack_moves_and_its_room_comes_back(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    kept = {}
    for first in (0, 100, 200):
        made = files(first, 20)
        pack(clients, session, made)
        for n, name in enumerate(made):
            if n % 7:
                clients.metadata.run(Unlink(ROOT, name))
            else:
                kept[name] = made[name]
    full = pack(clients, session, files(300, 20))
    collect(clients)
    assert held_bytes(clients) == 80_000
    before = clients.metadata.run(Lookup(ROOT, b"0")).attr
    planned = repack(clients.metadata, clients.store, dry_run=True)
    done = repack(clients.metadata, clients.store)
    assert done == planned == Repacked(packs=3, moved_bytes=9000, freed_bytes=60_000)
    assert clients.metadata.run(Lookup(ROOT, b"0")).attr == before
    assert all(content(clients, name) == data for name, data in kept.items())
    collect(clients)
    assert held_bytes(clients) == 29_000
    assert full in set(clients.slices.inventory())
    assert all(content(clients, name) == data for name, data in kept.items())
    check(clients)
    assert repack(clients.metadata, clients.store) == Repacked()


def test_a_pass_is_bounded_and_the_next_goes_on_behind_it(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    for first in range(0, 400, 20):
        made = files(first, 20)
        pack(clients, session, made)
        for name in list(made)[3:]:
            clients.metadata.run(Unlink(ROOT, name))
    after, passes = 0, 0
    while passes == 0 or after:
        done = repack(clients.metadata, clients.store, budget_bytes=10_000, after=after)
        assert done.moved_bytes <= 12_000
        after, passes = done.after, passes + 1
    assert passes == 6
    collect(clients)
    assert held_bytes(clients) == 60_000
    check(clients)


def test_the_fraction_decides_and_has_bounds(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    made = files(0, 10)
    pack(clients, session, made)
    for name in list(made)[4:]:
        clients.metadata.run(Unlink(ROOT, name))
    assert repack(clients.metadata, clients.store).packs == 0
    assert repack(clients.metadata, clients.store, fraction=0.4).packs == 1
    for fraction in (0, -1, 0.6):
        with pytest.raises(UsageError, match="fraction"):
            repack(clients.metadata, clients.store, fraction=fraction)


def test_a_pack_that_is_filled_again_is_no_candidate(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    (data,) = clients.place.slices(100)
    clients.slices.write(data, [bytes(100)], durable=True)
    for name, part in ((b"a", (0, 10)), (b"b", (10, 10))):
        clients.metadata.run(Put(ROOT, name, 0o600, (data,), parts=(part,)), session=session)
    assert clients.metadata.run(ListSparse()).packs == ()
    clients.metadata.run(Unlink(ROOT, b"a"))
    assert [one.shown_bytes for one in clients.metadata.run(ListSparse()).packs] == [10]
    clients.metadata.run(Put(ROOT, b"c", 0o600, (data,), parts=((20, 80),)), session=session)
    assert clients.metadata.run(ListSparse()).packs == ()
    check(clients)


def test_an_open_file_is_read_on_when_its_pack_is_gone(clients: Clients) -> None:
    session = clients.place.session(9 * HOUR)
    made = files(0, 10)
    pack(clients, session, made)
    one = clients.client()
    handle = one.open(clients.metadata.run(Lookup(ROOT, b"0")).ino, READ)
    assert bytes(handle.read(0, 10)) == made[b"0"][:10]
    for name in list(made)[1:]:
        clients.metadata.run(Unlink(ROOT, name))
    assert repack(clients.metadata, clients.store).packs == 1
    assert collect_garbage(clients.metadata, clients.store, 0, now_ns=clients.place.now_ns).freed == 1
    assert bytes(handle.read(0, 1000)) == made[b"0"]
    handle.close()


def test_only_who_may_do_everything_moves_and_only_what_was_copied(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    data = pack(clients, session, files(0, 4))
    ino = clients.metadata.run(Lookup(ROOT, b"0")).ino
    (fresh,) = clients.place.slices(500)
    for offset, length, new in ((0, 500, 0), (1, 500, 0)):  # less than what the file shows
        request = Repack(fresh, (Moved(data.id, 0, offset, length, new),), ((ino, 0),))
        clients.place.refused(errno.EAGAIN, request, session=session)
    for moved in (Moved(data.id, 0, 0, 501, 0), Moved(data.id, 0, -1, 5, 0), Moved(fresh.id, 0, 0, 5, 0)):
        clients.place.refused(errno.EINVAL, Repack(fresh, (moved,), ((ino, 0),)), session=session)
    clients.place.refused(errno.EPERM, request, session=session, caller=Caller(1000, 1000))
    clients.place.refused(errno.EPERM, ListSparse(), caller=Caller(1000, 1000))
    clients.place.refused(errno.ESTALE, request)
    check(clients)


def test_a_pack_whose_bytes_are_damaged_stops_no_other(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    from stoker.core.errors import CorruptError

    session = clients.place.session(HOUR)
    packs = []
    for first in (0, 100, 200):
        made = files(first, 10)
        packs.append(pack(clients, session, made))
        for name in list(made)[1:]:
            clients.metadata.run(Unlink(ROOT, name))
    plain = clients.store.read

    def read(ranges: Sequence[Any]) -> list[Any]:
        if any(one.slice == packs[1] for one in ranges):
            raise CorruptError("not what was stored")
        return plain(ranges)

    monkeypatch.setattr(clients.store, "read", read)
    done = repack(clients.metadata, clients.store)
    assert (done.packs, done.unchanged) == (2, 1)


class Meddler:
    """The metadata as a repacker sees it: before its request number `at` somebody else changes files, or it dies."""

    def __init__(self, clients: Clients, at: int, meddle: Any, *, after: bool = False) -> None:
        self._volume = clients.place.volume
        self._left = count(at, -1)
        self._meddle = meddle
        self._after = after
        self.end_session = self._volume.end_session

    def run(self, request: Request[Any], **named: Any) -> Any:
        if next(self._left) != 0:
            return self._volume.run(request, **named)
        if self._after:
            self._volume.run(request, **named)
        self._meddle()
        return self._volume.run(request, **named)


def die() -> None:
    raise UnavailableError("killed")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(6))
def test_a_repacker_that_is_killed_at_any_step_loses_nothing(clients: Clients, at: int, after: bool) -> None:
    session = clients.place.session(HOUR)
    made = files(0, 20)
    pack(clients, session, made)
    for name in list(made)[3:]:
        clients.metadata.run(Unlink(ROOT, name))
    metadata: Any = Meddler(clients, at, die, after=after)
    metadata.end_session = lambda number: None  # who is killed ends nothing: its lease does
    try:
        repack(metadata, clients.store)
        assert at >= 4
    except UnavailableError:
        pass
    for name in list(made)[:3]:
        assert content(clients, name) == made[name]
    check_sound_after_passes(clients)
    assert held_bytes(clients) == 3000
    assert all(content(clients, name) == made[name] for name in list(made)[:3])


def check_sound_after_passes(clients: Clients) -> None:
    collect(clients)
    repack(clients.metadata, clients.store)
    collect(clients)
    check(clients)


@pytest.mark.parametrize("verb", ["read", "write"])
def test_a_store_that_fails_leaves_every_file_as_it_was(clients: Clients, verb: str) -> None:
    session = clients.place.session(HOUR)
    made = files(0, 20)
    pack(clients, session, made)
    for name in list(made)[2:]:
        clients.metadata.run(Unlink(ROOT, name))
    clients.store.fault = lambda met: StoreError("the disk is gone") if met == verb else None
    with pytest.raises(StoreError, match="disk is gone"):
        repack(clients.metadata, clients.store)
    clients.store.fault = lambda met: None
    assert all(content(clients, name) == made[name] for name in list(made)[:2])
    check_sound_after_passes(clients)
    assert held_bytes(clients) == 2000


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_done_between_its_steps_every_file_reads_as_its_model(clients: Clients, seed: int) -> None:
    rng = random.Random(seed)
    session = clients.place.session(99 * HOUR)
    model: dict[bytes, bytes] = {}
    for round_ in range(4):
        made = files(round_ * 100, rng.randint(4, 20), rng.choice((10, 700)))
        pack(clients, session, made)
        model |= made
        for _ in range(30):
            change(clients, session, model, rng)

        metadata: Any = Meddler(clients, rng.randint(0, 5), partial(change_some, clients, session, model, rng))
        repack(metadata, clients.store, fraction=rng.choice((0.25, 0.5)))
        check(clients)
        if rng.random() < 0.5:
            collect(clients)
            check(clients)
    assert {name: content(clients, name) for name in model} == model
    for name in list(model):
        clients.metadata.run(Unlink(ROOT, name))
    clients.metadata.end_session(session)
    collect(clients)
    assert held_bytes(clients) == 0
    with clients.place.volume.engine.snapshot() as snapshot:
        assert snapshot.scan(b"p") == snapshot.scan(b"q") == []


def change_some(clients: Clients, session: int, model: dict[bytes, bytes], rng: random.Random) -> None:
    """Do several things to files."""
    for _ in range(rng.randint(1, 8)):
        change(clients, session, model, rng)


def change(clients: Clients, session: int, model: dict[bytes, bytes], rng: random.Random) -> None:
    """Do something to a file, as other clients do while a repacker works, and to its model."""
    if not model:
        return
    run, name = clients.metadata.run, rng.choice(sorted(model))
    data = model[name]
    ino = run(Open(run(Lookup(ROOT, name)).ino, READ | WRITE), session=session).ino
    what = rng.choice(("unlink", "unlink", "unlink", "rename", "cut", "write", "punch", "copy"))
    at, length = rng.randrange(len(data) + 1), rng.randint(1, 300)
    if what == "unlink":
        run(Unlink(ROOT, name))
        del model[name]
    elif what == "rename":
        other = rng.choice(sorted(model))
        run(Rename(ROOT, name, ROOT, other))
        model[other] = model.pop(name)
    elif what == "cut":
        run(SetAttr(ino, size_bytes=at), session=session)
        model[name] = data[:at]
    elif what == "write":
        written = rng.randbytes(length)
        number = run(TakeSlices(1), session=session).value
        clients.slices.write(Slice(number, 0, length), [written], durable=True)
        run(Write(ino, (Slice(number, 0, length),), at), session=session)
        model[name] = data[:at] + written + data[at + length :]
    elif what == "punch":
        run(Fallocate(ino, PUNCH_HOLE | KEEP_SIZE, at, length), session=session)
        model[name] = (data[:at] + bytes(length) + data[at + length :])[: len(data)]
    else:
        target = b"copy-%d" % rng.randrange(5)
        goal = run(Create(ROOT, target, 0o600, access=WRITE), session=session).ino
        before = model.get(target, b"")
        if goal != ino:
            copied = data[at : at + length]
            run(CopyRange(ino, at, goal, 0, length), session=session)
            model[target] = copied + before[len(copied) :]


def test_a_row_of_a_pack_that_is_gone_stops_no_pass(clients: Clients) -> None:
    """Software that knows nothing of the list frees a pack and leaves its row."""
    session = clients.place.session(HOUR)
    for first in (0, 100):
        made = files(first, 10)
        pack(clients, session, made)
        for name in list(made)[1:]:
            clients.metadata.run(Unlink(ROOT, name))
    volume = clients.place.volume
    with volume.engine.snapshot() as snapshot:
        rows = dict(snapshot.scan(b"q"))
    lost = min(rows)
    clients.metadata.run(Unlink(ROOT, b"0"))
    assert volume.engine.get(lost) is None
    volume.engine.txn(None, {lost: b""})
    assert repack(clients.metadata, clients.store).packs == 1
    volume.engine.txn(None, {lost: None})


def test_the_upkeep_of_a_mount_packs_anew_and_gives_the_room_back(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    made = files(0, 20)
    pack(clients, session, made)
    for name in list(made)[1:]:
        clients.metadata.run(Unlink(ROOT, name))
    told: list[str] = []
    upkeep = Upkeep(clients.place.volume, clients.slices, told.append, clock=lambda: clients.place.now_ns)
    assert [one.freed for one in upkeep.tidy()] == [0]
    assert upkeep.repacked == Repacked(packs=1, moved_bytes=1000, freed_bytes=20_000)
    clients.wait(61)
    assert [one.freed for one in upkeep.tidy()] == [1]
    assert (held_bytes(clients), told) == (1000, [])
    assert content(clients, b"0") == made[b"0"]
    check(clients)


def test_a_refusal_that_says_more_than_try_again_is_told(clients: Clients) -> None:
    session = clients.place.session(HOUR)
    made = files(0, 10)
    pack(clients, session, made)
    for name in list(made)[1:]:
        clients.metadata.run(Unlink(ROOT, name))
    metadata: Any = Meddler(clients, 3, lambda: clients.place.volume.end_session(session + 1))
    metadata.end_session = lambda number: None
    with pytest.raises(MetaError):
        repack(metadata, clients.store)
    assert content(clients, b"0") == made[b"0"]
