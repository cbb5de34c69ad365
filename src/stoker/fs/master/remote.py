"""The metadata over the network: finds the master that leads, asks again through failovers, and is answered once.

    master://host:port,host:port/VOLUME

Every changing call gets a number in its session, and is asked again under the same number until it is answered, by
whichever master leads then: so it is done once. A try takes 0.3 s at most. Calls of many threads travel together.
"""

import errno
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import DeniedError, StokerError, TransientError, UnavailableError, UsageError
from stoker.fs.master.messages import (
    CALLS_MAX,
    DESCRIBE,
    NEEDS_OWN_SESSION,
    STATUS,
    SUBMIT,
    Describe,
    MasterStatus,
    NotLeadingError,
    StaleError,
    Status,
    Submit,
    pack_call,
)
from stoker.fs.master.numbers import Numbers
from stoker.fs.meta.answers import Answer, Number, Refusal
from stoker.fs.meta.calls import BeginSession, Call, Caller, EndSession, Question, RenewSession, Request
from stoker.fs.meta.faults import HELD
from stoker.fs.meta.machine import Settings
from stoker.fs.meta.volume import granted, unpack_settings
from stoker.fs.meta.waiting import wait_for_names
from stoker.fs.wire import ClientOptions, Connection, Operation
from stoker.fs.wire.faults import UntrustedError

A = TypeVar("A")
Q = TypeVar("Q")
TRY_SECONDS: Final = 0.3
CONVERSE_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.02
_LANES: Final = 4
_TTL_SECONDS: Final = 60.0
_SUPERUSER: Final = Caller()
_SECRET_BYTES: Final = 16


def master_place(url: str) -> tuple[tuple[str, ...], str]:
    """Return the addresses and the volume of a `master://` URL. Raises UsageError."""
    scheme, _, rest = url.partition("://")
    listed, slash, volume = rest.partition("/")
    addresses = tuple(part for part in listed.split(",") if part)
    if scheme != "master" or not addresses or "@" in listed or "?" in rest or (slash and "/" in volume):
        raise UsageError("not the URL of masters", where=url, expected="master://host:port,host:port/VOLUME")
    return addresses, volume


class _Ticket:
    __slots__ = ("answers", "calls", "error", "leads", "wake")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.answers: list[Answer] | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.wake = threading.Semaphore(0)


class Combiner:
    """Sends what many threads ask for in few requests, at most `lanes` at a time: who comes first sends for all.

    `send` answers a list of calls in their order.
    """

    def __init__(self, send: Callable[[list[Call]], list[Answer]], lanes: int = _LANES) -> None:
        self._send = send
        self._free = lanes
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()

    def ask(self, calls: Sequence[Call]) -> list[Answer]:
        """Return the answers to calls. Raises what sending raised."""
        ticket = _Ticket(calls)
        with self._lock:
            self._waiting.append(ticket)
            if self._free:
                self._free -= 1
                ticket.leads = True
        try:
            if not ticket.leads:
                ticket.wake.acquire()
            if ticket.leads:  # even where another lane has answered it meanwhile: the lane must go on
                self._lead()
            if ticket.answers is None and ticket.error is None:
                ticket.wake.acquire()  # another lane has it
        except BaseException:
            self._abandon(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        return ticket.answers

    def _abandon(self, ticket: _Ticket) -> None:
        """Take out the ticket of a thread that was interrupted as it waited, and pass on its lane."""
        with self._lock:
            waits = ticket in self._waiting
            if waits:
                self._waiting.remove(ticket)
        if waits and ticket.leads:
            self._pass_on()

    def _take(self) -> list[_Ticket]:
        tickets: list[_Ticket] = []
        count = 0
        while self._waiting and (not tickets or count + len(self._waiting[0].calls) <= CALLS_MAX):
            tickets.append(self._waiting.popleft())
            count += len(tickets[-1].calls)
        return tickets

    def _lead(self) -> None:
        with self._lock:
            tickets = self._take()
        error: BaseException | None = None
        answers: list[Answer] = []
        try:
            if tickets:
                answers = self._send([call for ticket in tickets for call in ticket.calls])
        except BaseException as failure:
            error = failure
        place = 0
        for ticket in tickets:
            if error is None:
                ticket.answers = answers[place : place + len(ticket.calls)]
            else:
                ticket.error = (
                    error if isinstance(error, Exception) else UnavailableError("request was interrupted by its thread")
                )
            place += len(ticket.calls)
            ticket.wake.release()
        self._pass_on()
        if error is not None and not isinstance(error, Exception):
            raise error

    def _pass_on(self) -> None:
        """Give the lane to who waits longest."""
        with self._lock:
            following = next((ticket for ticket in self._waiting if not ticket.leads), None)
            if following is None:
                self._free += 1
                return
            following.leads = True
        following.wake.release()


class Masters:
    """Connections to masters, and which of them leads as far as is known. Safe from many threads."""

    def __init__(self, addresses: Sequence[str], *, token: str | None, tls: Any = None, volume: str = "") -> None:
        self.addresses = list(addresses)
        self._token = token
        self._tls = tls
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()
        self._current = self.addresses[0]
        self._closed = False

    @property
    def current(self) -> str:
        """Return the address that is asked next."""
        return self._current

    def connection(self, address: str) -> Connection:
        """Return a connection. Raises UnavailableError, DeniedError."""
        with self._lock:
            if self._closed:
                raise UsageError("metadata is closed", where=address)
            known = self._connections.get(address)
        if known is not None and known.usable:
            return known
        options = ClientOptions(connect_seconds=TRY_SECONDS)
        fresh = Connection(address, token=self._token, tls=self._tls, options=options)
        with self._lock:
            before = self._connections.get(address)
            other = before is not None and before.usable and before is not known
            closed = self._ended()
            if not other and not closed:
                self._connections[address] = fresh
        if other and before is not None:
            fresh.close()  # another thread was faster
            return before
        if before is not None:
            before.close()
        if closed:
            fresh.close()
            raise UsageError("metadata is closed", where=address)
        return fresh

    def _ended(self) -> bool:
        return self._closed

    def turn(self, from_address: str, to_address: str = "") -> None:
        """Ask another master from now on, unless somebody has turned already."""
        with self._lock:
            if self._current != from_address and not to_address:
                return
            if to_address:
                if to_address not in self.addresses:
                    self.addresses.append(to_address)
                self._current = to_address
                return
            place = self.addresses.index(from_address) if from_address in self.addresses else -1
            self._current = self.addresses[(place + 1) % len(self.addresses)]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            connections = list(self._connections.values())
            self._connections.clear()
        for connection in connections:
            connection.close()


class RemoteMetadata:
    """Implements `stoker.fs.meta.service.Metadata` over masters.

    With `stale_seconds` questions may be answered by any master whose copy is no older than that; `seen_revision` and
    `seen_age_seconds` tell of the newest answer. `patience_seconds` is how long a call is asked again.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        token: str | None = None,
        tls: Any = None,
        stale_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._masters = Masters(addresses, token=token, tls=tls)
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._age_ns = int(stale_seconds * 1e9)
        self._patience_ns = int(patience_seconds * 1e9)
        self._numbers: dict[int, Numbers] = {}
        self._own = 0
        self._own_until_ns = 0
        self._lock = threading.Lock()
        self._own_lock = threading.Lock()
        self._combiner = Combiner(self._exchange)
        self._questions = Combiner(self._exchange)
        self._closed = False
        self.seen_revision = 0
        self.seen_age_seconds = 0.0
        self.failovers = 0
        try:
            described = self._patiently(lambda connection: connection.call(DESCRIBE, Describe(), within_seconds=1.0)[0])
        except BaseException:
            self._masters.close()
            raise
        self._settings = unpack_settings(described.settings, f"master://{','.join(addresses)}")

    @classmethod
    def open(cls, url: str, *, token: str | None = None, tls: Any = None) -> "RemoteMetadata":
        """Open the volume at a `master://` URL. Raises UsageError, UnavailableError, DeniedError."""
        addresses, _ = master_place(url)
        return cls(addresses, token=token, tls=tls)

    @property
    def masters(self) -> Masters:
        """Return the connections to the masters."""
        return self._masters

    @property
    def settings(self) -> Settings:
        """Return what the volume is."""
        return self._settings

    # -- asking

    def run(self, request: Request[A], *, caller: Caller = _SUPERUSER, session: int = 0) -> A:
        """Do one request and return its answer. Raises MetaError with the errno when it is refused."""
        return granted(request, self.submit([Call(request, caller, session)])[0])

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Do calls in their order, each answered by itself and done once.

        What changes names that another session holds is done once they are given back, behind the others of the batch.

        Raises UnavailableError when no master answers in time: whether it was done is not known then.
        """
        answers = self._submit(batch)
        if any(isinstance(answer, Refusal) and answer.errno == HELD for answer in answers):
            wait_for_names(batch, answers, self._submit, self._patience_ns)
        return answers

    def _submit(self, batch: Sequence[Call]) -> list[Answer]:
        if len(batch) > CALLS_MAX:
            middle = len(batch) // 2
            return [*self._submit(batch[:middle]), *self._submit(batch[middle:])]
        if all(isinstance(call.request, Question) for call in batch):
            return self._questions.ask(batch)
        own = self._own_session() if any(_wants_own(call) for call in batch) else 0
        unknown = self.failovers
        numbered = [self._numbered(call, own) for call in batch]
        try:
            answers = self._combiner.ask([call for call, _ in numbered])
        finally:
            for call, ours in numbered:
                if ours:
                    self._numbers_of(call.session).done(call.seq)
        over = [n for n, answer in enumerate(answers) if own and _is_over(numbered[n][0], answer, own)]
        if over:
            self._forget_own(own)
            if self.failovers != unknown:
                raise UnavailableError("session of the connection was over: whether a request was done is not known")
            for place, answer in zip(over, self._submit([batch[place] for place in over]), strict=True):
                answers[place] = answer
        return answers

    def numbered(self, call: Call) -> Call:
        """Return a call of a session under a number, so that it may be submitted again and is done once."""
        return self._numbered(call, 0)[0] if call.session else call

    def answered(self, call: Call) -> None:
        """Note that the answer to a call from `numbered` has come."""
        numbers = self._numbers.get(call.session)
        if numbers is not None and call.seq:
            numbers.done(call.seq)

    def _numbered(self, call: Call, own: int) -> tuple[Call, bool]:
        """Return a call with a number, and whether it was given here."""
        if call.seq or isinstance(call.request, Question):
            return call, False
        session = call.session or (own if _wants_own(call) else 0)
        if not session:
            return call, False
        number, received = self._numbers_of(session).take()
        return Call(call.request, call.caller, session, number, received), True

    def _numbers_of(self, session: int) -> Numbers:
        with self._lock:
            return self._numbers.setdefault(session, Numbers())

    def _exchange(self, calls: list[Call]) -> list[Answer]:
        """Ask until answered; always the same, under the same numbers."""
        only_questions = all(isinstance(call.request, Question) for call in calls)
        request = Submit(tuple(pack_call(call) for call in calls), self._secret, self._age_ns if only_questions else 0)

        def once(connection: Connection) -> list[Answer]:
            answered, _ = connection.call(SUBMIT, request, within_seconds=TRY_SECONDS)
            if len(answered.answers) != len(calls):
                raise UnavailableError("master answers something else", where=connection.address)
            self.seen_revision = max(self.seen_revision, answered.revision)
            self.seen_age_seconds = answered.age_ns / 1e9
            return list(answered.answers)

        return self._patiently(once)

    def converse(self, operation: Operation[Q, A], request: Q, *, within_seconds: float = CONVERSE_SECONDS) -> A:
        """Ask the leading master something else than about names: what may be asked again.

        Raises UnavailableError when no master answers in time, and what the master raises.
        """
        return self._patiently(lambda connection: connection.call(operation, request, within_seconds=within_seconds)[0])

    def _patiently(self, once: Callable[[Connection], A]) -> A:
        """Try at one master after the other until one answers. Raises UnavailableError when the patience is spent."""
        deadline_ns = monotonic_ns() + self._patience_ns
        untrusted: set[str] = set()
        while True:
            address = self._masters.current
            try:
                return once(self._masters.connection(address))
            except NotLeadingError as error:
                last: StokerError = error
                self._masters.turn(address, error.got)
                pause = 0.0 if error.got and error.got != address else _PAUSE_SECONDS
            except StaleError as error:
                last, pause = error, _PAUSE_SECONDS
                self._masters.turn(address)
            except DeniedError:
                raise
            except UnavailableError as error:
                last, pause = error, _PAUSE_SECONDS / 4
                self.failovers += 1
                self._masters.turn(address)
                untrusted.update([address] if isinstance(error, UntrustedError) else [])
                if untrusted.issuperset(self._masters.addresses):
                    raise  # time makes no certificate good
            except TransientError as error:
                last, pause = error, _PAUSE_SECONDS
            if monotonic_ns() > deadline_ns:
                raise UnavailableError(
                    "no master answers",
                    where=",".join(self._masters.addresses),
                    expected=f"an answer within {self._patience_ns / 1e9:g} s",
                    got=str(last),
                    remedy="whether the request was done is not known",
                ) from last
            time.sleep(pause)

    # -- sessions

    def _own_session(self) -> int:
        """Return the session in which calls without one are numbered; it is renewed as it is used."""
        with self._own_lock:
            now_ns = monotonic_ns()
            if self._own and now_ns > self._own_until_ns - int(_TTL_SECONDS * 5e8):
                renewed = self._exchange([Call(RenewSession(), session=self._own)])[0]
                if isinstance(renewed, Refusal):
                    self._own = 0
                self._own_until_ns = now_ns + int(_TTL_SECONDS * 1e9)
            if not self._own:
                begun = self._exchange([Call(BeginSession(int(_TTL_SECONDS * 1e9)))])[0]
                if not isinstance(begun, Number):
                    raise UnavailableError("master begins no session", got=str(begun))
                self._own, self._own_until_ns = begun.value, now_ns + int(_TTL_SECONDS * 1e9)
            return self._own

    def _forget_own(self, own: int) -> None:
        with self._own_lock:
            if self._own == own:
                self._own = 0

    def make_durable(self) -> None:
        """Do nothing: masters answer what is durable."""

    def end_session(self, number: int) -> None:
        """Close what a session has open, give back its locks, and end it."""
        while self.run(EndSession(number)).more:
            pass
        with self._lock:
            self._numbers.pop(number, None)

    def close(self) -> None:
        """End what was begun here and close all connections; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._own:
            self._patience_ns = min(self._patience_ns, 1_000_000_000)
            try:
                while isinstance(answer := self._exchange([Call(EndSession(self._own))])[0], msgspec.Struct):
                    if isinstance(answer, Refusal) or not getattr(answer, "more", False):
                        break
            except StokerError:
                self._own = 0  # it ends by itself when its time is over
        self._masters.close()

    def __enter__(self) -> "RemoteMetadata":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wants_own(call: Call) -> bool:
    """Tell whether a call is numbered in the session of the connection: it changes something and has none."""
    unnumbered = not call.session and not call.seq
    return unnumbered and not isinstance(call.request, Question) and not isinstance(call.request, NEEDS_OWN_SESSION)


def _is_over(call: Call, answer: Answer, own: int) -> bool:
    """Tell whether a call was refused because the connection's session was over: it was not done."""
    return call.session == own and isinstance(answer, Refusal) and answer.errno == errno.ESTALE


def ask_status(address: str, *, token: str | None, tls: Any = None, within_seconds: float = 2.0) -> MasterStatus:
    """Return what a master says of itself. Raises UnavailableError, DeniedError."""
    connection = Connection(address, token=token, tls=tls, options=ClientOptions(connect_seconds=within_seconds))
    try:
        return connection.call(STATUS, Status(), within_seconds=within_seconds)[0]
    finally:
        connection.close()
