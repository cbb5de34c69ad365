"""Group commit: what many threads ask for at once becomes one transaction, and each gets its own answer.

There is no timer and no thread: who comes while a commit runs waits in the queue, and the first of those who waited
commits for all of them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from stoker.core.errors import TransientError, UsageError
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call, Close, Create, Open, Question
from stoker.fs.meta.keys import MOVED
from stoker.fs.meta.kv import Conflict, Engine
from stoker.fs.meta.machine import run_all
from stoker.fs.meta.view import View

GROUP_CALLS_MAX: Final = 1024
_ATTEMPTS_MAX: Final = 100
_PAUSE_SECONDS: Final = 0.002
_PAUSE_SECONDS_MAX: Final = 0.1


class _Ticket:
    """Calls that wait: settled when answered or failed, or else woken to commit for all who wait."""

    __slots__ = ("answers", "batch", "error", "leads", "revision", "wake")

    def __init__(self, batch: Sequence[Call]) -> None:
        self.batch = batch
        self.answers: list[Answer] | None = None
        self.error: BaseException | None = None
        self.leads = False  # woken to commit for all who wait
        self.revision = 0  # what the answers rest on
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def settled(self) -> bool:
        return self.answers is not None or self.error is not None


class Committer:
    """Runs calls over an engine, many in one transaction. `clock` gives the time in nanoseconds since 1970."""

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: deque[_Ticket] = deque()
        self._mutex = threading.Lock()
        self._busy = False

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Run calls in their order and return their answers once they are durable; see `waits_for_disk`.

        Raises StoreError when the engine fails: whether the calls were done is then unknown, and a numbered call may
        be sent again. Raises TransientError when other processes were always faster.
        """
        ticket = _Ticket(batch)
        with self._mutex:
            self._waiting.append(ticket)
            leads, self._busy = not self._busy, True
        if not leads:
            try:
                ticket.wake.acquire()
            except BaseException:
                self._abandon(ticket)
                raise
        if not ticket.settled:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        if waits_for_disk(batch):
            # Also where nothing was written: what the answer rests on may be another's, and not durable yet.
            self._engine.make_durable(ticket.revision)
        return ticket.answers

    def _abandon(self, ticket: _Ticket) -> None:
        """Take out a ticket whose thread was interrupted; when it had been woken to lead, wake another."""
        with self._mutex:
            if ticket not in self._waiting:
                return
            self._waiting.remove(ticket)
            if ticket.leads:
                self._wake_next()

    def _wake_next(self) -> None:
        """Wake who waits longest to lead; the mutex is held."""
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0].leads = True
            self._waiting[0].wake.release()

    def _lead(self) -> None:
        """Commit for those who wait, oneself first among them, then wake the next to lead, then those who are served.

        In this order the next commit begins while the served ones are still waking up.
        """
        tickets = self._take()
        try:
            found, revision = self._commit([call for ticket in tickets for call in ticket.batch])
            answers = iter(found)
            for ticket in tickets:
                ticket.revision = revision
                ticket.answers = [next(answers) for _ in ticket.batch]
        except BaseException as error:
            # Whoever waits must hear of it, and an interrupt must also end the thread that it came to.
            for ticket in tickets:
                ticket.error = error if isinstance(error, Exception) else TransientError("commit was interrupted")
            if not isinstance(error, Exception):
                raise
        finally:
            with self._mutex:
                self._wake_next()
            for ticket in tickets[1:]:
                ticket.wake.release()

    def _take(self) -> list[_Ticket]:
        """Take those who wait, in their order, up to the size of a group; the first however large it is."""
        with self._mutex:
            tickets = [self._waiting.popleft()]
            count = len(tickets[0].batch)
            while self._waiting and count + len(self._waiting[0].batch) <= GROUP_CALLS_MAX:
                tickets.append(self._waiting.popleft())
                count += len(tickets[-1].batch)
        return tickets

    def _commit(self, batch: Sequence[Call]) -> tuple[list[Answer], int]:
        """Return the answers, and the revision that is to be durable before they may be relied on."""
        for attempt in range(_ATTEMPTS_MAX):
            if attempt:
                time.sleep(min(_PAUSE_SECONDS * attempt, _PAUSE_SECONDS_MAX))
            with self._engine.snapshot() as snapshot:
                view = View(snapshot)
                # Read like everything else: who prepares a commit while the volume moves away meets a conflict.
                moved = view.get(MOVED)
                if moved is not None:
                    raise _moved(self._engine.url, moved)
                answers = run_all(view, batch, self._clock())
            if not view.writes:
                return answers, snapshot.revision
            done = self._engine.txn(view.read_set(), view.writes, durable=False)
            if not isinstance(done, Conflict):
                return answers, done
        raise TransientError(
            "metadata is changed by other processes faster than by this one",
            where=self._engine.url,
            got=f"{_ATTEMPTS_MAX} conflicts",
            remedy="try again",
        )


def waits_for_disk(batch: Sequence[Call]) -> bool:
    """Tell whether calls are to be durable when they are answered.

    A file that is made and opened, opened, or closed is seen by everybody at once. That it survives a power failure is
    promised by the next transaction that waits, as that of its content does, or by `make_durable`.
    """
    return not all(
        isinstance(call.request, Open | Close | Question) or (isinstance(call.request, Create) and call.request.access)
        for call in batch
    )


def _moved(url: str, place: bytes) -> UsageError:
    where = place.decode(errors="backslashreplace")
    return UsageError("volume has moved: nothing is written here any more", where=url, remedy=f"open it at {where}")
