"""Holding the names of a directory: who may change them meanwhile, when it is over; files made under given numbers."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from fs_place import SECOND_NS, Place

from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.answers import Answer, Entry, Refusal
from stoker.fs.meta.calls import (
    EXCHANGE,
    READ,
    WRITE,
    Call,
    Caller,
    Close,
    Create,
    GetAttr,
    Link,
    Lookup,
    Mkdir,
    Mknod,
    Open,
    Put,
    ReadDir,
    Rename,
    Request,
    Rmdir,
    SetAttr,
    Symlink,
    Unlink,
)
from stoker.fs.meta.faults import HELD
from stoker.fs.meta.holdcalls import AskNames, HoldNames, ReturnNames, TakeInodes
from stoker.fs.meta.keys import ROOT, attr_key, hold_key
from stoker.fs.meta.machine import run
from stoker.fs.meta.records import NAMES_HELD
from stoker.fs.meta.view import View

TTL_NS = 3 * SECOND_NS


def answer(place: Place, request: Request[Any], session: int) -> Answer:
    """Return what a request would be answered, without waiting and without doing it."""
    with place.volume.engine.snapshot() as snapshot:
        return run(View(snapshot), Call(request, session=session), place.now_ns)


def number(found: Answer) -> int:
    return found.errno if isinstance(found, Refusal) else 0


def folder(place: Place, name: bytes = b"d") -> int:
    return place.volume.run(Mkdir(ROOT, name, 0o777)).ino


CHANGES: dict[str, Callable[[int, int], Request[Any]]] = {
    "create": lambda d, ino: Create(d, b"new", 0o644),
    "put": lambda d, ino: Put(d, b"new", 0o644, ()),
    "mkdir": lambda d, ino: Mkdir(d, b"new", 0o755),
    "mknod": lambda d, ino: Mknod(d, b"new", 0o010644),
    "symlink": lambda d, ino: Symlink(d, b"new", b"target"),
    "link": lambda d, ino: Link(ino, d, b"new"),
    "unlink": lambda d, ino: Unlink(d, b"old"),
    "rename within": lambda d, ino: Rename(d, b"old", d, b"new"),
    "rename out": lambda d, ino: Rename(d, b"old", ROOT, b"out"),
    "rename into": lambda d, ino: Rename(ROOT, b"file", d, b"new"),
    "exchange": lambda d, ino: Rename(ROOT, b"file", d, b"old", EXCHANGE),
    "rmdir": lambda d, ino: Rmdir(d, b"sub"),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_nobody_else_changes_held_names(place: Place, what: str) -> None:
    d = folder(place)
    ino = place.volume.run(Create(ROOT, b"file", 0o644)).ino
    place.volume.run(Create(d, b"old", 0o644))
    place.volume.run(Mkdir(d, b"sub", 0o755))
    holder, other = place.session(), place.session()
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    request = CHANGES[what](d, ino)
    assert answer(place, request, other) == Refusal(HELD, str(d))
    assert number(answer(place, request, holder)) == 0
    place.now_ns += TTL_NS - 1
    assert number(answer(place, request, other)) == HELD
    place.now_ns += 1
    assert number(answer(place, request, other)) == 0
    place.volume.run(request, session=other)  # what is over is cleared away
    with place.volume.engine.snapshot() as snapshot:
        assert snapshot.get(hold_key(d)) is None
    assert not place.volume.run(GetAttr(d)).attr.flags & NAMES_HELD


def test_what_is_no_change_of_names_goes_on(place: Place) -> None:
    d = folder(place)
    ino = place.volume.run(Create(d, b"old", 0o644)).ino
    holder, other = place.session(), place.session()
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    for request in (
        Lookup(d, b"old"), GetAttr(d), ReadDir(d), Open(ino, READ | WRITE), SetAttr(ino, mode=0o600),
        SetAttr(d, mode=0o755), Create(d, b"old", 0o644, access=READ),
    ):  # fmt: skip
        assert number(answer(place, request, other)) == 0, request
    assert number(answer(place, Create(d, b"old", 0o644, exclusive=True), other)) == errno.EEXIST


def test_a_held_directory_is_not_removed_under_its_holder(place: Place) -> None:
    d = folder(place)
    folder(place, b"free")
    holder, other = place.session(), place.session()
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    assert number(answer(place, Rmdir(ROOT, b"d"), other)) == HELD
    assert number(answer(place, Rename(ROOT, b"free", ROOT, b"d"), other)) == HELD
    assert number(answer(place, Rename(ROOT, b"d", ROOT, b"e"), other)) == 0  # it stays what it is
    place.volume.run(Rmdir(ROOT, b"d"), session=holder)
    with place.volume.engine.snapshot() as snapshot:
        assert snapshot.get(hold_key(d)) is None
        assert snapshot.get(attr_key(d)) is None


def test_a_held_directory_that_is_open_goes_with_its_hold(place: Place) -> None:
    d = folder(place)
    holder = place.session()
    place.volume.run(Open(d, READ), session=holder)
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    place.volume.run(Rmdir(ROOT, b"d"), session=holder)
    assert fsck(place.volume.engine) == []
    place.refused(errno.ENOENT, HoldNames(d, TTL_NS), session=holder)
    place.volume.run(Close(d, READ), session=holder)


def test_a_hold_is_one_sessions_and_is_asked_back(place: Place) -> None:
    d = folder(place)
    holder, other = place.session(), place.session()
    found = place.volume.run(HoldNames(d, TTL_NS), session=holder)
    assert (found.ino, found.attr.size_bytes) == (d, 0)
    place.refused(errno.EAGAIN, HoldNames(d, TTL_NS), session=other)
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    place.volume.run(AskNames(d), session=other)
    place.refused(errno.EAGAIN, HoldNames(d, TTL_NS), session=holder)
    assert number(answer(place, Create(d, b"n", 0o644), other)) == HELD  # asking alone takes nothing away
    place.volume.run(ReturnNames(d), session=other)  # it is not his
    assert number(answer(place, Create(d, b"n", 0o644), other)) == HELD
    place.volume.run(ReturnNames(d), session=holder)
    assert number(answer(place, Create(d, b"n", 0o644), other)) == 0
    place.volume.run(HoldNames(d, TTL_NS), session=other)
    place.volume.run(AskNames(d), session=holder)
    place.now_ns += TTL_NS
    place.volume.run(HoldNames(d, TTL_NS), session=holder)  # over is over, whatever was asked
    place.volume.run(AskNames(ROOT))  # nobody's


def test_what_holds_refuse(place: Place) -> None:
    d = folder(place)
    session = place.session()
    ino = place.file(b"f", session)
    for ttl_ns in (0, -1, 10 * SECOND_NS + 1):
        place.refused(errno.EINVAL, HoldNames(d, ttl_ns), session=session)
    place.refused(errno.ENOTDIR, HoldNames(ino, TTL_NS), session=session)
    place.refused(errno.ENOENT, HoldNames(999, TTL_NS), session=session)
    place.refused(errno.ESTALE, HoldNames(d, TTL_NS))
    place.refused(errno.EINVAL, TakeInodes(0))
    place.refused(errno.EINVAL, TakeInodes(1 << 20))


def test_who_waits_for_names_gets_them(place: Place) -> None:
    """A real wait: the volume asks until the hold is over, as masters' clients do."""
    d = folder(place)
    holder, other = place.session(), place.session()
    place.volume.run(HoldNames(d, TTL_NS), session=holder)
    ends_ns = place.now_ns + TTL_NS
    asked: list[int] = []

    def clock() -> int:
        asked.append(place.now_ns)
        place.now_ns += SECOND_NS // 10
        return place.now_ns

    waiting = Volume(place.volume.engine, clock=clock)
    made = waiting.run(Create(d, b"n", 0o644), session=other)
    assert made.made
    assert asked[0] < ends_ns <= place.now_ns


# -- files under given numbers


def test_a_file_is_made_once_under_its_number(place: Place) -> None:
    session = place.session()
    first = place.volume.run(TakeInodes(3)).value
    request = Create(ROOT, b"f", 0o640, 0o022, access=WRITE, ino=first, made_ns=place.now_ns - 5)
    caller = Caller(1000, 1001)
    for _ in range(3):  # asked again, as after an answer that was lost
        found = place.volume.run(request, session=session, caller=caller)
        assert isinstance(found, Entry)
        assert (found.ino, found.made, found.attr.mode & 0o777, found.attr.opens) == (first, True, 0o640, 1)
        assert found.attr.btime_ns == found.attr.mtime_ns == place.now_ns - 5
    place.volume.run(Close(first, WRITE), session=session)
    place.refused(errno.EBADF, Close(first, WRITE), session=session)
    other = Create(ROOT, b"f", 0o640, access=WRITE, ino=first + 1)
    place.refused(errno.EEXIST, other, session=session)
    place.refused(errno.EINVAL, Create(ROOT, b"g", 0o640, ino=first + 3), session=session)
    later = Create(ROOT, b"h", 0o640, ino=first + 2, made_ns=place.now_ns + SECOND_NS)
    assert place.volume.run(later, session=session).attr.mtime_ns == place.now_ns  # nobody makes files in the future


def test_a_removed_file_is_opened_only_by_who_has_it_open(place: Place) -> None:
    """Who finds it by a name that he still believes would write where nobody can read."""
    one, two = place.session(), place.session()
    ino = place.file(b"f", one)
    place.volume.run(Unlink(ROOT, b"f"), session=one)
    place.refused(errno.ENOENT, Open(ino, WRITE), session=two)
    place.volume.run(Open(ino, READ), session=one)
    for access in (READ, READ | WRITE):
        place.volume.run(Close(ino, access), session=one)
    place.refused(errno.ENOENT, Open(ino, WRITE), session=one)
