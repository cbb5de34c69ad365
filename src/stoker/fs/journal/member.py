"""One who takes part in the journal: follows the log, comes to power, leads. A state machine without any I/O.

Time is handed in; what is to be asked of etcd lies in `outbox`, and its answers are brought by `replied`; what happened
lies in `events`. So the same steps run under threads and under a simulator.

Power is the key `epoch`. Whoever writes it, under the condition that nobody wrote it since he looked, leads; every
append carries the condition that it is still his, so that one who was superseded can append nothing, whatever his
clock says. Reads are another matter: see `valid`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from stoker.core.errors import CorruptError, StokerError
from stoker.fs.journal.entries import (
    Keys,
    Leader,
    LogReader,
    Transaction,
    pack_nothing,
    pack_transaction,
    packed,
    unpack_floor,
    unpack_leader,
)
from stoker.fs.journal.etcd import (
    Compact,
    Compare,
    Get,
    KeyValue,
    Outcome,
    Put,
    Request,
    Seen,
    Txn,
    UnknownOutcomeError,
    first,
)
from stoker.fs.journal.roles import (
    Asked,
    Committed,
    Deposed,
    Event,
    FellBehind,
    Flight,
    Led,
    Role,
    Timing,
    append_request,
    check_request,
    poll_request,
    trim_request,
)
from stoker.fs.journal.state import Following, Position


class Member:
    """See the module. `nonce` draws a text that nobody else draws."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        state: Following,
        nonce: Callable[[], str],
        *,
        address: str = "",
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.keys = keys
        self.state = state
        self.timing = timing or Timing()
        self.role = Role.FOLLOWING
        self.leader: Leader | None = None
        self.leader_seen_ns = 0  # when something of the leader's epoch was last seen
        self.polled = False
        self.behind = False
        self.polled_ns = -(1 << 62)  # the copy holds all that was committed before; long ago at first
        self.outbox: deque[tuple[int, Request]] = deque()
        self.events: deque[Event] = deque()
        self._nonce = nonce
        self._reader = self._fresh_reader()
        self._asked: dict[int, Asked] = {}
        self._token = 0
        self._known = KeyValue(keys.epoch, b"", 0, 0)
        self._poll_due_ns = 0
        self._poll_asked = 0
        self._claim: Txn | None = None
        self._claim_value = b""
        self._claim_due_ns: int | None = None
        self._fence = 0
        self._ready_ns = 0
        self._lease_ns = self.timing.lease_ns
        self._valid_from_ns = -(1 << 62)
        self._check_asked = 0
        self._flights: dict[int, Flight] = {}
        self._unsent: deque[int] = deque()
        self._next = 0
        self._compact_from = 0

    # -- what others see

    @property
    def number(self) -> int:
        """Return the last entry whose effects are in the copy, as far as it has whole transactions."""
        return self.state.position.number

    @property
    def epoch(self) -> int:
        """Return the epoch this member leads, or claims; else the newest it knows of."""
        return 0 if self.leader is None else self.leader.epoch

    def valid(self, now_ns: int) -> bool:
        """Tell whether this member leads and reads of its copy are fresh.

        Its last sign of power was asked for less than a lease ago: whoever came to power later waits that long
        before he serves. It rests on both clocks' rates, not on what they show; commits do not rest on it.
        """
        return self.role is Role.LEADING and now_ns - self._valid_from_ns < self.timing.lease_ns

    @property
    def shown_ns(self) -> int:
        """Return the newest moment at which this member is known to have led; long ago where it does not lead."""
        return self._valid_from_ns if self.role is Role.LEADING else -(1 << 62)

    @property
    def fresh_ns(self) -> int:
        """Return the newest moment up to which the copy is known to hold all that was committed."""
        return max(self.polled_ns, self._valid_from_ns)

    @property
    def room(self) -> bool:
        """Tell whether another transaction may be appended now."""
        return self.role is Role.LEADING and len(self._flights) < self.timing.window

    # -- inputs

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        polls = self.role in (Role.FOLLOWING, Role.READING)
        if polls and not self._waits(self._poll_asked, now_ns) and now_ns >= self._poll_due_ns:
            self._poll(now_ns)
        elif self.role is Role.CLAIMING and self._claim_due_ns is not None and now_ns >= self._claim_due_ns:
            self._send_claim(now_ns)
        elif self.role is Role.WAITING and now_ns >= self._ready_ns:
            self.role = Role.LEADING
            self.events.append(Led())
        if self.role in (Role.FILLING, Role.WAITING, Role.LEADING):
            for number, flight in self._flights.items():
                if not flight.done and 0 < flight.again_ns <= now_ns:
                    self._send(number, flight, now_ns)
            if now_ns - self._valid_from_ns >= self.timing.check_ns:
                self.check(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """Return when `tick` has something to do next."""
        due = now_ns + self.timing.check_ns
        if self.role is Role.WAITING:
            due = min(due, self._ready_ns)
        if self.role in (Role.FOLLOWING, Role.READING) and not self._waits(self._poll_asked, now_ns):
            due = min(due, self._poll_due_ns)
        if self._claim_due_ns is not None:
            due = min(due, self._claim_due_ns)
        again = [flight.again_ns for flight in self._flights.values() if not flight.done and flight.again_ns]
        return max(min([due, *again]), now_ns)

    def replied(self, token: int, outcome: Outcome | StokerError, now_ns: int) -> None:
        """Take etcd's answer to a request of the outbox, or the error that came instead."""
        asked = self._asked.pop(token, None)
        if asked is not None:
            asked.kind(asked.argument, outcome, asked.sent_ns, now_ns)

    def hinted(self, seen: Seen, now_ns: int) -> None:
        """Take what a watch of the journal saw; it saves a poll, nothing rests on it."""
        for pair in seen.puts:
            if pair.key == self.keys.epoch:
                self._learn(pair, now_ns)
            elif pair.key.startswith(self.keys.log) and self.role is Role.FOLLOWING:
                number = self.keys.number(pair.key)
                if number == self._reader.number + 1:
                    self._follow([pair], now_ns)
                elif number > self._reader.number:
                    self._poll_due_ns = now_ns
        if seen.compacted:
            self._poll_due_ns = now_ns

    def poll_soon(self, now_ns: int) -> None:
        """Read at the next tick."""
        self._poll_due_ns = now_ns

    def poll_later(self, now_ns: int) -> None:
        """Read again in a while: what was read last made no sense."""
        self._poll_due_ns = now_ns + self.timing.poll_ns

    def claim(self, now_ns: int) -> bool:
        """Ask for power; tells whether it could be asked for."""
        if self.role is not Role.FOLLOWING or not self.polled or self.behind:
            return False
        self.role = Role.CLAIMING
        epoch = 1 + (unpack_leader(self._known.value).epoch if self._known.modified else 0)
        self._lease_ns = 0 if self.leader is not None and not self.leader.name else self.timing.lease_ns
        self._claim_value = packed(Leader(epoch, self.name, self.address, self._nonce()))
        put = Put(self.keys.epoch, self._claim_value)
        condition = Compare(self.keys.epoch, modified=self._known.modified)
        self._claim = Txn((condition,), (put,), (Get(self.keys.epoch),))
        self._send_claim(now_ns)
        return True

    def step_down(self, error: StokerError | None = None) -> None:
        """Lead no more; what is in flight is left to whoever comes to power."""
        was = self.role
        self.role = Role.FOLLOWING
        self._claim_due_ns = None
        self._check_asked = self._poll_asked = 0
        self._asked.clear()
        self._flights.clear()
        self._unsent.clear()
        self._reader = self._fresh_reader()
        self._poll_due_ns = 0
        self._valid_from_ns = -(1 << 62)
        if was is not Role.FOLLOWING:
            self.events.append(Deposed(error))

    def resign(self, now_ns: int, told: Callable[[None], None]) -> None:
        """Give power back, so that whoever comes next need not wait; `told` is called when that is done or failed."""
        if self.role is not Role.LEADING:
            told(None)
            return
        fence = Compare(self.keys.epoch, modified=self._fence)
        gone = packed(Leader(self.epoch, "", "", self._nonce()))
        self.step_down()  # from here on nothing is read as a leader's
        request = Txn((fence,), (Put(self.keys.epoch, gone),))
        self._ask(request, lambda *_: told(None), None, now_ns)

    def reseed(self, state: Following) -> None:
        """Go on with another copy, one that was seeded from a snapshot."""
        self.state = state
        self.behind = False
        self._reader = self._fresh_reader()
        self._poll_due_ns = 0

    def append(self, record: bytes, time_ns: int, now_ns: int, *, forgets: bool = False, revision: int) -> int:
        """Send a transaction on its way into the log; return the number that its last entry will have."""
        assert self.role is Role.LEADING, "only a leader appends"
        for value in pack_transaction(self.epoch, Transaction(revision, time_ns, record, forgets)):
            self._flights[self._next] = Flight(value)
            self._unsent.append(self._next)
            self._next += 1
        self._send_more(now_ns)
        return self._next - 1

    def check(self, now_ns: int) -> None:
        """Ask whether the epoch is still this member's."""
        if not self._waits(self._check_asked, now_ns):
            self._check_asked = self._ask(check_request(self.keys, self._fence), self._checked, None, now_ns)

    def trim(self, floor: int, now_ns: int) -> None:
        """Forget the entries before `floor`, as long as this member leads."""
        self._ask(trim_request(self.keys, self._fence, floor), self._trimmed, None, now_ns)

    def _waits(self, token: int, now_ns: int) -> bool:
        """Tell whether an answer to a request is still waited for; after a while another is sent beside it."""
        asked = self._asked.get(token)
        return asked is not None and now_ns - asked.sent_ns < self.timing.hedge_ns

    # -- following

    def _fresh_reader(self) -> LogReader:
        return LogReader(self.state.position.number, self.state.position.epoch)

    def _ask(self, request: Request, kind: Callable[..., None], argument: Any, now_ns: int) -> int:
        self._token += 1
        self._asked[self._token] = Asked(kind, argument, now_ns)
        self.outbox.append((self._token, request))
        return self._token

    def _poll(self, now_ns: int) -> None:
        """Read what comes next in the log, with who leads and where the log begins, all of one revision."""
        start = max([self._reader.number, *self._flights]) + 1
        request = poll_request(self.keys, start, self.timing.page)
        self._poll_asked = self._ask(request, self._polled, None, now_ns)

    def _polled(self, _: object, outcome: Outcome | StokerError, sent_ns: int, now_ns: int) -> None:
        self._poll_asked = 0
        self._poll_due_ns = now_ns + self.timing.retry_ns
        if isinstance(outcome, StokerError):
            return
        entries, epochs, floors = outcome.found
        floor = unpack_floor(floors[0].value if floors else None)
        pair = first(epochs)
        if pair is not None:
            self._learn(pair, now_ns)
        self.polled = True
        if floor > self._reader.number + 1:
            self._fell_behind(floor)
            return
        if self.role is Role.READING:
            self._read(entries, outcome.more, now_ns)
        elif self.role is Role.FOLLOWING:
            before = self._reader.number
            self._follow(list(entries), now_ns)
            advanced = self._reader.number > before
            if not outcome.more:
                self.polled_ns = max(self.polled_ns, sent_ns)
            self._poll_due_ns = now_ns + (0 if outcome.more and advanced else self.timing.poll_ns)

    def _fell_behind(self, floor: int) -> None:
        self.step_down()
        self.behind = True
        self._poll_due_ns = 1 << 62  # until it is seeded
        self.events.append(FellBehind(floor))

    def _learn(self, pair: KeyValue, now_ns: int) -> None:
        """Take note of who leads."""
        if pair.modified <= self._known.modified:
            return
        self._known = pair
        self.leader = unpack_leader(pair.value)
        self.leader_seen_ns = now_ns
        if self._fence and pair.modified > self._fence and self.role not in (Role.FOLLOWING, Role.CLAIMING):
            self.step_down()

    def _follow(self, entries: list[KeyValue], now_ns: int) -> None:
        """Take the entries that come next; stop at a gap."""
        done = []
        for pair in entries:
            if self.keys.number(pair.key) != self._reader.number + 1:
                break
            transaction = self._reader.feed(self._reader.number + 1, pair.value)
            if transaction is not None:
                done.append(transaction)
            if self._reader.epoch == self.epoch:
                self.leader_seen_ns = now_ns
        self._apply(done)

    def _apply(self, done: list[Transaction]) -> None:
        """Bring transactions into the copy; a copy that cannot take them is tried again from where it stands."""
        reader = self._reader
        if reader.whole == self.number:
            return
        time_ns = max(reader.time_ns, self.state.position.time_ns)
        if reader.whole != reader.number and not done:
            return  # parts of a transaction are open: the copy stays in front of them, to read them again if need be
        try:
            self.state.apply(done, Position(reader.whole, reader.epoch, time_ns))
        except StokerError as error:
            self._reader = self._fresh_reader()
            if self.role is Role.FOLLOWING:
                self.events.append(Deposed(error))
            else:
                self.step_down(error)

    # -- coming to power

    def _send_claim(self, now_ns: int) -> None:
        assert self._claim is not None
        self._claim_due_ns = now_ns + self.timing.hedge_ns
        self._ask(self._claim, self._claimed, None, now_ns)

    def _claimed(self, _: object, outcome: Outcome | StokerError, sent_ns: int, now_ns: int) -> None:
        if self.role is not Role.CLAIMING:
            return  # another try was answered first
        if isinstance(outcome, UnknownOutcomeError):
            due_ns = now_ns + self.timing.retry_ns  # the same again: it is done at most once
            self._claim_due_ns = min(self._claim_due_ns or due_ns, due_ns)
            return
        if isinstance(outcome, StokerError):
            self.step_down(outcome)
            return
        self._claim_due_ns = None
        if outcome.succeeded:
            pair = KeyValue(self.keys.epoch, self._claim_value, 0, outcome.revision)
        else:
            there = first(outcome.found[0])
            if there is None or there.value != self._claim_value:
                if there is not None:
                    self._learn(there, now_ns)
                self.step_down()
                return
            pair = there  # an earlier try of the same claim was done
        self._fence = pair.modified
        self.role = Role.READING
        # What was asked before power came may not tell all that is there.
        self._asked = {token: asked for token, asked in self._asked.items() if asked.kind != self._polled}
        self._poll_asked = 0
        self._learn(pair, now_ns)
        if self.role is Role.READING:
            self._ready_ns = now_ns + self._lease_ns
            self._valid_from_ns = sent_ns
            self._poll_due_ns = now_ns
            self._reader = self._fresh_reader()

    def _read(self, entries: tuple[KeyValue, ...], more: bool, now_ns: int) -> None:
        """Take what the log holds: nothing of earlier epochs can come any more."""
        for pair in entries:
            self._flights[self.keys.number(pair.key)] = Flight(pair.value, done=True)
        if more:
            self._poll_due_ns = now_ns
            return
        last = max([self._reader.number, *self._flights])
        for number in range(self._reader.number + 1, last + 2):
            if number not in self._flights:
                self._flights[number] = Flight(pack_nothing(self.epoch, self.state.revision, 0))
                self._unsent.append(number)
        self._next = last + 2
        self.role = Role.FILLING
        self._send_more(now_ns)
        self._drain(now_ns)

    # -- leading

    def _send_more(self, now_ns: int) -> None:
        flying = sum(1 for flight in self._flights.values() if flight.again_ns and not flight.done)
        while self._unsent and flying < self.timing.window:
            number = self._unsent.popleft()
            self._send(number, self._flights[number], now_ns)
            flying += 1

    def _send(self, number: int, flight: Flight, now_ns: int) -> None:
        request = append_request(self.keys, self._fence, number, flight.value)
        flight.again_ns = now_ns + self.timing.hedge_ns
        flight.tries += 1
        self._ask(request, self._appended, number, now_ns)

    def _appended(self, number: int, outcome: Outcome | StokerError, sent_ns: int, now_ns: int) -> None:
        flight = self._flights.get(number)
        if flight is None or flight.done:
            return  # another try was answered first
        flight.tries -= 1
        if isinstance(outcome, UnknownOutcomeError):
            # The same again, under the same conditions: it is done once, and the refusal tells what the log holds.
            if not flight.tries:
                flight.again_ns = min(flight.again_ns, now_ns + self.timing.retry_ns)
            return
        if isinstance(outcome, StokerError):
            self.step_down(outcome)
            return
        if outcome.succeeded:
            flight.done = True
            self._valid_from_ns = max(self._valid_from_ns, sent_ns)
        else:
            entries, epochs = outcome.found
            there, pair = first(entries), first(epochs)
            if there is not None and there.value == flight.value:
                flight.done = True  # an earlier try was done
                self._drain(now_ns)
            if pair is not None and pair.modified != self._fence:
                self._learn(pair, now_ns)
                if self.role is not Role.FOLLOWING:
                    self.step_down()
                return
            if not flight.done:
                self.step_down(CorruptError("somebody writes into the log who does not lead", where=f"entry {number}"))
                return
        self._drain(now_ns)
        self._send_more(now_ns)

    def _drain(self, now_ns: int) -> None:
        """Bring into the copy what is in the log without a gap, and tell of it."""
        done = []
        before = self._reader.number
        while (flight := self._flights.get(self._reader.number + 1)) is not None and flight.done:
            del self._flights[self._reader.number + 1]
            transaction = self._reader.feed(self._reader.number + 1, flight.value)
            if transaction is not None:
                done.append(transaction)
        if self._reader.number == before:
            return
        self.leader_seen_ns = now_ns
        number = self._reader.number
        self._apply(done)
        if self.role is Role.FOLLOWING:
            return  # the copy could not take it
        self.events.append(Committed(number))
        if self.role is Role.FILLING and not self._flights:
            self.role = Role.WAITING

    def _checked(self, _: object, outcome: Outcome | StokerError, sent_ns: int, now_ns: int) -> None:
        self._check_asked = 0
        if isinstance(outcome, StokerError):
            return
        if outcome.succeeded:
            self._valid_from_ns = max(self._valid_from_ns, sent_ns)
            return
        pair = first(outcome.found[0])
        if pair is not None:
            self._learn(pair, now_ns)
        if self.role is not Role.FOLLOWING:
            self.step_down()

    def _trimmed(self, _: object, outcome: Outcome | StokerError, sent_ns: int, now_ns: int) -> None:
        if isinstance(outcome, Outcome) and outcome.succeeded:
            # Up to the trim before this one: who watches, here or for another program, has until then to catch up.
            if self._compact_from:
                self._ask(Compact(self._compact_from), lambda *_: None, None, now_ns)  # nothing rests on it
            self._compact_from = outcome.revision
