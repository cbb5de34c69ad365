"""Group commit: what many threads ask for at once becomes one transaction, and each gets its own answer.

There is no timer and no thread: who comes while a commit runs waits in the queue, and the first of those who waited
commits for all of them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from stoker.core.errors import TransientError, UsageError
from stoker.core.turns import Turns, Waiter
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


class _Ticket(Waiter):
    """Calls that wait: answered or failed once served."""

    __slots__ = ("answers", "batch", "error", "revision")

    def __init__(self, batch: Sequence[Call]) -> None:
        super().__init__()
        self.batch = batch
        self.answers: list[Answer] | None = None
        self.error: BaseException | None = None
        self.revision = 0  # what the answers rest on


class Committer:
    """Runs calls over an engine, many in one transaction. `clock` gives the time in nanoseconds since 1970."""

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._turns: Turns[_Ticket] = Turns()

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Run calls in their order and return their answers once they are durable; see `waits_for_disk`.

        Raises StoreError when the engine fails: whether the calls were done is then unknown, and a numbered call may
        be sent again. Raises TransientError when other processes were always faster.
        """
        ticket = _Ticket(batch)
        if self._turns.come(ticket):
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        if waits_for_disk(batch):
            # Also where nothing was written: what the answer rests on may be another's, and not durable yet.
            self._engine.make_durable(ticket.revision)
        return ticket.answers

    def _lead(self) -> None:
        """Commit for those who wait, oneself first among them, then wake the next to lead, then those who are served.

        In this order the next commit begins while the served ones are still waking up.
        """
        tickets = self._turns.take(GROUP_CALLS_MAX, lambda ticket: len(ticket.batch))
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
            self._turns.pass_on()
            self._turns.serve(tickets)

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
