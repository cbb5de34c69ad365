"""What a master does with calls, as a state machine without any I/O: groups, speculation, answers in order.

While entries are on their way into the log, the next group is already run over what will be there when they arrive. It
is answered only when its own entry and all before it are in the log; when the master loses power instead, nobody was
told of anything, and all of it is forgotten.
"""

import errno
import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stoker.core.errors import StokerError, TransientError
from stoker.fs.journal.member import Member
from stoker.fs.journal.roles import Committed, Deposed, FellBehind, Led
from stoker.fs.master.messages import NotLeadingError
from stoker.fs.meta.answers import Answer, Number, Refusal
from stoker.fs.meta.calls import BeginSession, Call, EndSession, Question
from stoker.fs.meta.keys import session_key, session_secret_key
from stoker.fs.meta.kv import Copy, Pair, Snapshot
from stoker.fs.meta.machine import run
from stoker.fs.meta.view import View

GROUP_CALLS_MAX: Final = 1024
WAITING_CALLS_MAX: Final = 16_384
"""How many calls may wait; beyond it a client is told to come again."""
_ENOUGH_CALLS: Final = GROUP_CALLS_MAX // 2


def _digest(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=16).digest()


class Ticket:
    """Calls that wait for their answers; `told` is called once, when they or an error are there."""

    __slots__ = ("answers", "calls", "error", "secret", "told")

    def __init__(self, calls: Sequence[Call], secret: bytes, told: Callable[["Ticket"], None]) -> None:
        self.calls = calls
        self.secret = secret
        self.answers: list[Answer] | None = None
        self.error: StokerError | None = None
        self.told = told

    def settle(self, answers: list[Answer] | None, error: StokerError | None = None) -> None:
        """Give the answers, or the error."""
        self.answers, self.error = answers, error
        self.told(self)


class _Below(Snapshot):
    """What a group sees beneath its own view: the copy with what is on its way into the log."""

    def __init__(self, base: Snapshot, flying: Sequence[dict[bytes, bytes | None]]) -> None:
        self.revision = base.revision + len(flying)
        self._base = base
        self._view = View(base)
        for writes in flying:
            for key, value in writes.items():
                self._view.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        return self._view.get(key)

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        return self._view.scan(prefix, after, limit)

    def close(self) -> None:
        self._base.close()


class _Group:
    """Calls of several tickets as one transaction on its way: the number of its last entry, what it writes."""

    __slots__ = ("answers", "number", "tickets", "writes")

    def __init__(self, tickets: list[Ticket], answers: list[Answer], writes: dict[bytes, bytes | None]) -> None:
        self.tickets = tickets
        self.answers = answers
        self.writes = writes
        self.number = 0

    def settle(self, error: StokerError | None = None) -> None:
        answers = iter(self.answers)
        for ticket in self.tickets:
            ticket.settle(None if error else [next(answers) for _ in ticket.calls], error)


class MasterCore:
    """See the module. `clock` gives nanoseconds since 1970."""

    def __init__(self, member: Member, clock: Callable[[], int]) -> None:
        self.member = member
        self._clock = clock
        self._waiting: deque[Ticket] = deque()
        self._waiting_calls = 0
        self._flying: deque[_Group] = deque()
        self._unchanged: deque[tuple[int, _Group]] = deque()  # what changes nothing, and from when power must be shown
        self._checking: deque[tuple[int, Ticket]] = deque()  # asked when, what waits for a later sign of power
        self.fell_behind = False
        self.failure: StokerError | None = None
        self.terms = 0

    @property
    def copy(self) -> Copy:
        """Return the copy that is read."""
        return self.member.state.copy

    # -- inputs

    def submit(self, ticket: Ticket, now_ns: int) -> None:
        """Take calls; they are answered in their order, in one transaction with those of others."""
        if self._waiting_calls + len(ticket.calls) > WAITING_CALLS_MAX and self._waiting:
            ticket.settle(None, TransientError("master has too much to do", got=f"{self._waiting_calls} calls waiting"))
            return
        self._waiting.append(ticket)
        self._waiting_calls += len(ticket.calls)
        self.step(now_ns)

    def step(self, now_ns: int) -> None:
        """Take note of what happened, and send what can be sent."""
        while self.member.events:
            event = self.member.events.popleft()
            if isinstance(event, Committed):
                self._committed(event.number)
            elif isinstance(event, Deposed):
                self.failure = event.error
                self._drop()
            elif isinstance(event, Led):
                self.terms += 1
                self.failure = None
            elif isinstance(event, FellBehind):
                self.fell_behind = True
        while self._waiting and self.member.room and self._is_worth_an_entry():
            self._send(now_ns)
        while self._checking and self.member.shown_ns >= self._checking[0][0]:
            ticket = self._checking.popleft()[1]
            ticket.settle(self.read(ticket.calls, ticket.secret))
        self._settle_unchanged()
        if self._checking or (self._unchanged and self.member.shown_ns < self._unchanged[0][0]):
            self.member.check(now_ns)

    def ask(self, ticket: Ticket, now_ns: int) -> None:
        """Answer questions as soon as it is shown that this master leads at a moment behind `now_ns`."""
        self._checking.append((now_ns, ticket))
        self.step(now_ns)

    def read(self, calls: Sequence[Call], secret: bytes) -> list[Answer]:
        """Answer questions from the copy as it is; may be called from any thread."""
        with self.copy.snapshot() as snapshot:
            view = View(snapshot)
            return [_run(view, call, secret, self._clock()) for call in calls]

    def not_leading(self) -> NotLeadingError:
        """Return the error that sends a client to the leader."""
        leader = self.member.leader
        there = leader.address if leader is not None and leader.name != self.member.name else ""
        return NotLeadingError("this master does not lead", where=self.member.name, got=there, remedy="ask the leader")

    def refuse_all(self) -> None:
        """Tell those who wait that this master does not lead."""
        waiting = [*self._waiting, *(ticket for _, ticket in self._checking)]
        self._waiting.clear()
        self._checking.clear()
        self._waiting_calls = 0
        for ticket in waiting:
            ticket.settle(None, self.not_leading())

    # -- inside

    def _drop(self) -> None:
        """Forget what was on its way: whether it is done, only the log will tell, and the client asks again."""
        flying = [*self._flying, *(group for _, group in self._unchanged)]
        self._flying.clear()
        self._unchanged.clear()
        for group in flying:
            group.settle(self.failure or self.not_leading())
        self.refuse_all()

    def _committed(self, number: int) -> None:
        while self._flying and self._flying[0].number <= number:
            self._flying.popleft().settle()

    def _is_worth_an_entry(self) -> bool:
        """Tell whether those who wait are as many as those who fly, or are enough anyway.

        An entry costs every server of the log the same however many calls are in it. So with few callers each still has
        an entry on its way, and with many an entry carries a good part of them.
        """
        flying = sum(len(group.answers) for group in self._flying)
        return self._waiting_calls >= min(flying, _ENOUGH_CALLS)

    def _take(self) -> list[Ticket]:
        tickets = [self._waiting.popleft()]
        count = len(tickets[0].calls)
        while self._waiting and count + len(self._waiting[0].calls) <= GROUP_CALLS_MAX:
            tickets.append(self._waiting.popleft())
            count += len(tickets[-1].calls)
        self._waiting_calls -= count
        return tickets

    def _send(self, now_ns: int) -> None:
        tickets = self._take()
        moment_ns = max(self._clock(), self.member.state.position.time_ns)
        base = self.copy.snapshot()
        with _Below(base, [group.writes for group in self._flying]) as below:
            view = View(below)
            answers = [_run(view, call, ticket.secret, moment_ns) for ticket in tickets for call in ticket.calls]
            group = _Group(tickets, answers, view.writes)
            revision = below.revision + 1
        if not view.writes:
            self._answer_unchanged(group, now_ns)
            return
        record = msgspec.msgpack.encode(list(view.writes.items()))
        group.number = self.member.append(record, moment_ns, now_ns, revision=revision)
        self._flying.append(group)

    def _answer_unchanged(self, group: _Group, now_ns: int) -> None:
        """Answer a group that changes nothing when all that it has seen is in the log, and power is shown.

        The log alone is not enough: what is on its way may be there for long, and somebody else lead since. And the
        calls are not run again, for by then they might change something.
        """
        group.number = self._flying[-1].number if self._flying else 0
        shown_ns = -(1 << 62) if self.member.valid(now_ns) else now_ns
        self._unchanged.append((shown_ns, group))
        self._settle_unchanged()

    def _settle_unchanged(self) -> None:
        while self._unchanged:
            shown_ns, group = self._unchanged[0]
            if (self._flying and self._flying[0].number <= group.number) or self.member.shown_ns < shown_ns:
                return
            self._unchanged.popleft()
            group.settle()


def _run(view: View, call: Call, secret: bytes, now_ns: int) -> Answer:
    """Run a call, once it is shown that its session is the caller's own."""
    for session in _sessions_of(call):
        kept = view.get(session_secret_key(session))
        if kept is not None and not hmac.compare_digest(kept, _digest(secret)):
            return Refusal(errno.EACCES)
    answer = run(view, call, now_ns)
    begun = answer.value if isinstance(call.request, BeginSession) and isinstance(answer, Number) else 0
    # A numbered request that comes again gets the number of a session that may be over by now.
    if begun and secret and view.get(session_key(begun)) is not None:
        view.put(session_secret_key(begun), _digest(secret))
    return answer


def _sessions_of(call: Call) -> tuple[int, ...]:
    """Return the sessions that a call acts for."""
    if isinstance(call.request, EndSession):
        return (call.session, call.request.session) if call.session else (call.request.session,)
    return (call.session,) if call.session else ()


def only_questions(calls: Sequence[Call]) -> bool:
    """Tell whether calls change nothing."""
    return all(isinstance(call.request, Question) for call in calls)
