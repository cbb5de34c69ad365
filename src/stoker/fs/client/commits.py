"""Group commit over a store and the metadata: what many threads want shown at once waits for the disks once.

Bytes become durable before any file shows them, so a power failure leaves a file with its old bytes or its new ones.
As in the metadata's own group commit there is no thread and no timer: the first of those who waited commits for all.
While one group is shown, the bytes of the next become durable: they wait for two devices, or for one in turns.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from stoker.core.errors import StokerError, TransientError
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice

_GROUP_TICKETS_MAX: Final = 256


class DurabilityError(Exception):
    """Slices could not be made durable; nothing was asked of the metadata. Carries the store's error."""

    def __init__(self, error: StokerError) -> None:
        super().__init__(str(error))
        self.error = error


class _Ticket:
    __slots__ = ("answers", "calls", "done", "error", "slices", "taken")

    def __init__(self, slices: Sequence[Slice], calls: Sequence[Call]) -> None:
        self.slices = slices
        self.calls = calls
        self.answers: list[Answer] = []
        self.error: BaseException | None = None
        self.taken = False  # is in a group that somebody commits
        self.done = False


class CommitGroup:
    """Makes slices durable and does calls, those of many threads together. `commits` counts the groups."""

    def __init__(self, metadata: Metadata, make_durable: Callable[[Sequence[Slice]], None]) -> None:
        self._metadata = metadata
        self._make_durable = make_durable
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._busy = False
        self.commits = 0
        self.served = 0

    def commit(self, slices: Sequence[Slice], calls: Sequence[Call]) -> list[Answer]:
        """Make slices durable, then do the calls, and return their answers.

        Raises DurabilityError when the first cannot be done, and what the metadata raises: whether the calls were done
        is then unknown.
        """
        ticket = _Ticket(slices, calls)
        with self._changed:
            self._waiting.append(ticket)
            while not ticket.done and (self._busy or ticket.taken):
                self._changed.wait()
            group = [] if ticket.done else self._take(ticket)
        if group:
            self._lead(group)
        if ticket.error is not None:
            raise ticket.error
        return ticket.answers

    def _take(self, own: _Ticket) -> list[_Ticket]:
        """Take those who wait, one's own ticket among them; the lock is held."""
        self._busy = True
        group, self._waiting = self._waiting[:_GROUP_TICKETS_MAX], self._waiting[_GROUP_TICKETS_MAX:]
        if own not in group:
            group.append(own)
            self._waiting.remove(own)
        for ticket in group:
            ticket.taken = True
        return group

    def _pass_on(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _lead(self, group: list[_Ticket]) -> None:
        try:
            try:
                ready = self._durable(group)
            finally:
                self._pass_on()
            self._do(ready)
        except BaseException as error:
            for ticket in group:
                told = error if isinstance(error, Exception) else TransientError("commit was interrupted")
                ticket.error = ticket.error or told
            if not isinstance(error, Exception):
                raise
        finally:
            with self._changed:
                self.commits += 1
                self.served += len(group)
                for ticket in group:
                    ticket.done = True
                self._changed.notify_all()

    def _durable(self, group: list[_Ticket]) -> list[_Ticket]:
        """Make the slices of all durable; return those for whom it was done. One who fails does not fail the others."""
        slices = [data for ticket in group for data in ticket.slices]
        if not slices:
            return group
        try:
            self._make_durable(slices)
        except StokerError as error:
            if len(group) == 1:
                group[0].error = DurabilityError(error)
                return []
            return [ticket for ticket in group if self._durable([ticket])]
        return group

    def _do(self, group: list[_Ticket]) -> None:
        calls = [call for ticket in group for call in ticket.calls]
        answers = iter(self._metadata.submit(calls) if calls else ())
        for ticket in group:
            ticket.answers = [next(answers) for _ in ticket.calls]
