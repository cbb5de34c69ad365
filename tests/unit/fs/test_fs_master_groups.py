"""How many calls a master puts into one entry of its log while others are on their way."""

import uuid
from collections import deque
from collections.abc import Sequence

import pytest

from stoker.fs.journal.member import Member
from stoker.fs.journal.roles import Committed, Role
from stoker.fs.journal.state import Position
from stoker.fs.master import core as master
from stoker.fs.master.core import MasterCore, Ticket
from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import Call, Mkdir
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.machine import new_volume


class Log:
    """A member that leads, whose entries are in the log when the test says so; it stands for a Member."""

    role = Role.LEADING
    shown_ns = 1 << 62
    leader = None
    name = "one"

    def __init__(self, window: int) -> None:
        self.events: deque[object] = deque()
        copy = MemoryEngine(MemoryState(), "memory://one")
        copy.bulk_load(new_volume("v", uuid.UUID(int=1), 1, uid=0, gid=0, mode=0o755).items())
        self.state = Holding(copy)
        self._window = window
        self.sent = 0
        self.done = 0

    @property
    def room(self) -> bool:
        return self.sent - self.done < self._window

    def append(self, record: bytes, time_ns: int, now_ns: int, *, revision: int) -> int:
        assert record
        self.sent += 1
        return self.sent


class Holding:
    """A copy and a moment."""

    def __init__(self, copy: MemoryEngine) -> None:
        self.copy = copy
        self.position = Position()


class Masters:
    """A master over such a log, and whom it has answered."""

    def __init__(self, window: int = 4) -> None:
        self.log = Log(window)
        member: Member = self.log  # type: ignore[assignment]
        self.core = MasterCore(member, lambda: 5)
        self.answered: list[int] = []
        self._made = 0

    def ask(self, calls: int = 1) -> None:
        names = [b"%d-%d" % (self._made, number) for number in range(calls)]
        self._made += 1
        number = self._made

        def told(ticket: Ticket) -> None:
            assert ticket.answers is not None and all(isinstance(one, Entry) for one in ticket.answers)
            self.answered.append(number)

        requests: Sequence[Call] = [Call(Mkdir(ROOT, name, 0o755)) for name in names]
        self.core.submit(Ticket(requests, b"", told), 1)

    def commit(self) -> None:
        self.log.done += 1
        self.log.events.append(Committed(self.log.done))
        self.core.step(1)


def test_few_callers_do_not_wait_for_each_other() -> None:
    masters = Masters()
    masters.ask()
    masters.ask()
    assert masters.log.sent == 2


def test_with_many_callers_an_entry_has_as_many_calls_as_are_on_their_way() -> None:
    masters = Masters()
    for _ in range(16):
        masters.ask()
    assert masters.log.sent == 4, "1, 1, 2 and 4 calls; the other 8 wait for room"
    masters.commit()
    assert (masters.log.sent, masters.answered) == (5, [1])
    for _ in range(4):
        masters.commit()
    assert masters.answered == list(range(1, 17))


def test_calls_that_are_too_few_go_when_what_flies_has_landed() -> None:
    masters = Masters()
    masters.ask(8)
    masters.ask(7)
    assert masters.log.sent == 1
    masters.commit()
    assert masters.log.sent == 2
    masters.commit()
    assert masters.answered == [1, 2]


def test_many_calls_go_however_many_fly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "_ENOUGH_CALLS", 4)
    masters = Masters()
    masters.ask(9)
    masters.ask(3)
    assert masters.log.sent == 1
    masters.ask(1)
    assert masters.log.sent == 2
