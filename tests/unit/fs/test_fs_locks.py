"""Locks, sessions, leases, repeated requests: who holds what until when."""

import errno
import random

import pytest
from fs_place import SECOND_NS, Place

from stoker.fs.meta.answers import Done, Entry, Number, Refusal
from stoker.fs.meta.calls import (
    READ,
    WRITE,
    Call,
    Close,
    Create,
    EndSession,
    ExpireSessions,
    FindLock,
    GetAttr,
    Mkdir,
    Open,
    ReadDir,
    RenewSession,
    Rmdir,
    SetLock,
    Unlink,
    Usage,
    Write,
)
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.locking import END


def lock(ino: int, owner: int, kind: str, start: int = 0, end: int = END, *, whole: bool = False) -> SetLock:
    return SetLock(ino, owner, {"w": True, "r": False, "u": None}[kind], start, end, whole)


# -- locks


def test_flock_is_shared_or_exclusive_and_converts(place: Place) -> None:
    one, two = place.session(), place.session()
    ino = place.file(b"f", one)
    place.volume.run(Open(ino, READ), session=two)
    place.volume.run(lock(ino, 1, "r", whole=True), session=one)
    place.volume.run(lock(ino, 1, "r", whole=True), session=two)
    place.refused(errno.EAGAIN, lock(ino, 1, "w", whole=True), session=one)
    place.volume.run(lock(ino, 1, "u", whole=True), session=two)
    place.volume.run(lock(ino, 1, "w", whole=True), session=one)
    place.refused(errno.EAGAIN, lock(ino, 1, "r", whole=True), session=two)
    place.refused(errno.EAGAIN, lock(ino, 2, "r", whole=True), session=one)
    held = place.volume.run(FindLock(ino, 9, False, whole=True)).held
    assert held is not None and (held.session, held.exclusive) == (one, True)
    assert place.volume.run(FindLock(ino, 9, True)).held is None, "fcntl does not see flock"
    place.volume.run(lock(ino, 1, "w", 0, 10), session=one)


@pytest.mark.parametrize("seed", range(5))
def test_ranges_split_and_join_as_a_table_of_bytes_says(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    size = 24
    owners = [(place.session(), owner) for _ in range(2) for owner in (1, 2)]
    ino = place.file(b"f", owners[0][0])
    for session in {session for session, _ in owners}:
        place.volume.run(Open(ino, READ | WRITE), session=session)
    table: list[dict[tuple[int, int], str]] = [{} for _ in range(size)]
    for _ in range(200):
        who = chance.choice(owners)
        kind = chance.choice("rrwuu")
        start, end = sorted(chance.sample(range(size + 1), 2))
        blocked = kind != "u" and any(
            other != who and "w" in (kind, held) for cell in table[start:end] for other, held in cell.items()
        )
        if blocked:
            place.refused(errno.EAGAIN, lock(ino, who[1], kind, start, end), session=who[0])
            assert place.volume.run(FindLock(ino, who[1], kind == "w", start, end), session=who[0]).held is not None
            continue
        place.volume.run(lock(ino, who[1], kind, start, end), session=who[0])
        for cell in table[start:end]:
            cell.pop(who, None)
            if kind != "u":
                cell[who] = kind
        place.sound()


def test_locks_need_a_file_that_is_open_the_right_way(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session, READ)
    place.refused(errno.EBADF, lock(ino, 1, "w", 0, 1), session=session)
    place.volume.run(lock(ino, 1, "r", 0, 1), session=session)
    place.volume.run(lock(ino, 1, "w", whole=True), session=session)
    place.refused(errno.EBADF, lock(ino, 1, "r", 0, 1), session=place.session())
    for start, end in ((5, 5), (5, 4), (-1, 4), (0, END + 1)):
        place.refused(errno.EINVAL, lock(ino, 1, "r", start, end), session=session)


def test_closing_gives_locks_back(place: Place) -> None:
    one, two = place.session(), place.session()
    ino = place.file(b"f", one)
    place.volume.run(Open(ino, READ | WRITE), session=one)
    place.volume.run(Open(ino, READ | WRITE), session=two)
    place.volume.run(lock(ino, 7, "w", 0, 10), session=one)
    place.volume.run(lock(ino, 8, "w", 10, 20), session=one)
    place.volume.run(Close(ino, READ | WRITE, owner=7), session=one)
    place.volume.run(lock(ino, 1, "w", 0, 10), session=two)
    place.refused(errno.EAGAIN, lock(ino, 1, "w", 10, 20), session=two)
    place.volume.run(Close(ino, READ | WRITE), session=one)
    place.volume.run(lock(ino, 1, "w", 10, 20), session=two)


def test_tokens_grow_and_fence_who_has_lost_his_lock(place: Place) -> None:
    slow, quick = place.session(10), place.session(1000)
    ino = place.file(b"f", slow)
    place.volume.run(Open(ino, WRITE), session=quick)
    old = place.volume.run(lock(ino, 1, "w", whole=True), session=slow).value
    place.volume.run(Write(ino, place.slices(1), token=old), session=slow)
    place.refused(errno.EAGAIN, lock(ino, 1, "w", whole=True), session=quick)
    place.now_ns += 11 * SECOND_NS  # the slow one sleeps beyond its lease; nobody has cleaned up yet
    new = place.volume.run(lock(ino, 1, "w", whole=True), session=quick).value
    assert new > old
    place.refused(errno.ESTALE, Write(ino, place.slices(1), token=old), session=slow)
    place.refused(errno.ESTALE, RenewSession(), session=slow)
    place.refused(errno.ESTALE, Write(ino, place.slices(1), token=old), session=quick)
    place.volume.run(Write(ino, place.slices(1), token=new), session=quick)
    place.volume.run(lock(ino, 1, "u", whole=True), session=quick)
    place.refused(errno.ESTALE, Write(ino, place.slices(1), token=new), session=quick)


# -- sessions


def test_an_open_file_lives_until_it_is_closed(place: Place) -> None:
    one, two = place.session(), place.session()
    ino = place.file(b"f", one)
    place.volume.run(Open(ino, READ), session=two)
    place.volume.run(Unlink(ROOT, b"f"))
    assert place.volume.run(GetAttr(ino)).attr.nlink == 0
    place.volume.run(Write(ino, place.slices(10)), session=one)
    place.volume.run(Close(ino, READ | WRITE), session=one)
    place.sound()
    assert place.volume.run(GetAttr(ino)).attr.size_bytes == 10
    place.volume.run(Close(ino, READ), session=two)
    place.refused(errno.ENOENT, GetAttr(ino))
    assert place.volume.run(Usage()).inodes == 1


def test_a_file_that_is_replaced_while_open_lives_on(place: Place) -> None:
    session = place.session()
    old = place.file(b"old", session)
    place.volume.run(Create(ROOT, b"new", 0o644))
    place.tree().rename("/new", "/old")
    assert place.volume.run(GetAttr(old)).attr.nlink == 0
    place.volume.end_session(session)
    place.refused(errno.ENOENT, GetAttr(old))


def test_a_removed_directory_that_is_open_takes_no_names(place: Place) -> None:
    session = place.session()
    ino = place.volume.run(Mkdir(ROOT, b"d", 0o777)).ino
    place.volume.run(Open(ino, READ), session=session)
    place.volume.run(Rmdir(ROOT, b"d"))
    place.refused(errno.ENOENT, Create(ino, b"f", 0o644))
    place.refused(errno.ENOENT, Mkdir(ino, b"f", 0o755))
    assert place.volume.run(ReadDir(ino)).entries == ()
    place.volume.run(Close(ino, READ), session=session)
    place.refused(errno.ENOENT, GetAttr(ino))


def test_sessions_that_give_no_sign_of_life_are_ended(place: Place) -> None:
    quiet, alive = place.session(10), place.session(10)
    inodes = [place.file(b"f%d" % number, quiet) for number in range(10)]
    place.volume.run(lock(inodes[0], 1, "w", whole=True), session=quiet)
    place.volume.run(Unlink(ROOT, b"f0"))
    for _ in range(4):
        place.now_ns += 6 * SECOND_NS
        place.volume.run(RenewSession(), session=alive)
    place.refused(errno.ESTALE, Close(inodes[0], READ | WRITE), session=quiet)
    steps = 0
    while place.volume.run(ExpireSessions(limit=3)).more:
        place.sound()
        steps += 1
    assert steps >= 3, "a bounded number of rows at a time"
    place.refused(errno.ENOENT, GetAttr(inodes[0]))
    place.refused(errno.ESTALE, EndSession(quiet))
    place.volume.run(RenewSession(), session=alive)


def test_leases_have_bounds(place: Place) -> None:
    for seconds in (0, -1, 1e9):
        with pytest.raises(Exception, match="EINVAL"):
            place.session(seconds)


# -- repeated requests


def test_a_repeated_request_is_done_once_and_answered_the_same(place: Place) -> None:
    session = place.session()

    def numbered(request: object, seq: int, received: int = 0) -> object:
        return place.volume.submit([Call(request, session=session, seq=seq, received=received)])[0]  # type: ignore[arg-type]

    first = numbered(Create(ROOT, b"f", 0o644, exclusive=True), 1)
    assert isinstance(first, Entry) and first.made
    place.now_ns += 1000
    assert numbered(Create(ROOT, b"f", 0o644, exclusive=True), 1) == first
    assert numbered(Create(ROOT, b"f", 0o644, exclusive=True), 2) == Refusal(errno.EEXIST)
    place.volume.run(Unlink(ROOT, b"f"))
    assert numbered(Create(ROOT, b"f", 0o644, exclusive=True), 2) == Refusal(errno.EEXIST), "refusals too"
    assert numbered(Unlink(ROOT, b"f"), 3) == Refusal(errno.ENOENT)
    assert isinstance(numbered(Mkdir(ROOT, b"d", 0o755), 4, received=3), Entry)
    assert numbered(Unlink(ROOT, b"f"), 3) == Refusal(errno.ENOENT)
    assert numbered(Mkdir(ROOT, b"d", 0o755), 2) == Refusal(errno.EINVAL), "what was received is not done again"
    kept = [key for key, _ in place.volume.engine.scan(b"s") if key[9:10] == b"R"]
    assert len(kept) == 2


def test_answers_that_nobody_confirms_are_bounded(place: Place) -> None:
    session = place.session(1e6)
    batch = [Call(RenewSession(), session=session, seq=seq) for seq in range(1, 4200)]
    answers = place.volume.submit(batch)
    assert answers[:4096] == [Done()] * 4096
    assert answers[4096:] == [Refusal(errno.ENOBUFS)] * 103
    assert place.volume.submit([Call(RenewSession(), session=session, seq=4200, received=4200)]) == [Done()]
    assert isinstance(place.volume.submit([Call(Create(ROOT, b"f", 0o644), session=session, seq=4201)])[0], Entry)


def test_many_requests_share_a_transaction_and_each_is_answered(place: Place) -> None:
    before = place.volume.engine.revision()
    answers = place.volume.submit(
        [Call(request) for request in (
            Mkdir(ROOT, b"d", 0o755), Mkdir(ROOT, b"d", 0o755), Create(2, b"f", 0o644), Rmdir(ROOT, b"d"),
            Unlink(2, b"f"), Rmdir(ROOT, b"d"), Mkdir(ROOT, b"d", 0o755),
        )]
    )  # fmt: skip
    assert place.volume.engine.revision() == before + 1
    told = [answer.errno if isinstance(answer, Refusal) else 0 for answer in answers]
    assert told == [0, errno.EEXIST, 0, errno.ENOTEMPTY, 0, 0, 0]
    assert not isinstance(answers[0], Number)
    assert place.tree().listdir("/") == [b"d"]
