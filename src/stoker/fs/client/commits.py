"""Group commit over a store and the metadata: what many threads want shown at once waits for the disks once.

Bytes become durable before any file shows them, so a power failure leaves a file with its old bytes or its new ones.
As in the metadata's own group commit there is no thread and no timer: the first of those who waited commits for all.
While one group is shown, the bytes of the next become durable: they wait for two devices, or for one in turns.

Bytes that are few may come unstored, as loose ones. Those of a group are stored side by side in packs, so that many
small files cost one request to each disk, and one wait.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from stoker.core.errors import StokerError, TransientError
from stoker.core.turns import Turns, Waiter
from stoker.fs.client.packs import Loose, Part, in_packs
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes

_GROUP_TICKETS_MAX: Final = 256
_LATER_MAX: Final = 64
_GATHER_SECONDS: Final = 0.001
"""A group that is much smaller than those before it waits so long: who was served just now comes again, and a group
costs several times as much. Who writes alone never waits."""


class DurabilityError(Exception):
    """Slices could not be made durable; nothing was asked of the metadata. Carries the store's error."""

    def __init__(self, error: StokerError) -> None:
        super().__init__(str(error))
        self.error = error


class Keeping(NamedTuple):
    """How bytes become durable: slices that are stored already, and contents as a new slice each."""

    make_durable: Callable[[Sequence[Slice]], None]
    store: Callable[[Sequence[Bytes], int, int], Slice]
    """Stores bytes as one slice, durably: its parts, the session that shows it, its class."""


class Ticket(Waiter):
    """What one thread wants: slices that are stored, loose bytes, and the calls that are made of where those are."""

    __slots__ = ("answers", "calls", "error", "loose", "parts", "slices")

    def __init__(
        self, slices: Sequence[Slice], calls: Callable[[Sequence[Part]], Sequence[Call]], loose: Sequence[Loose]
    ) -> None:  # fmt: skip
        super().__init__()
        self.slices = slices
        self.calls = calls
        self.loose = loose
        self.parts: list[Part] = []
        self.answers: list[Answer] = []
        self.error: BaseException | None = None


class CommitGroup:
    """Makes slices durable and does calls, those of many threads together. `commits` counts the groups."""

    def __init__(self, metadata: Metadata, keeping: Keeping) -> None:
        self._metadata = metadata
        self._keeping = keeping
        self._turns: Turns[Ticket] = Turns()
        self._mutex = threading.Lock()  # of what is put off, and of what is counted
        self._later: list[Call] = []
        self._usual = 0  # twice the size of the latest groups
        self.commits = 0
        self.served = 0
        self.packs = 0

    def commit(self, slices: Sequence[Slice], calls: Sequence[Call]) -> list[Answer]:
        """Make slices durable, then do the calls, and return their answers.

        Raises DurabilityError when the first cannot be done, and what the metadata raises: whether the calls were done
        is then unknown.
        """
        return self._ask(Ticket(slices, lambda _: calls, ()))

    def commit_loose(
        self, slices: Sequence[Slice], loose: Sequence[Loose], calls: Callable[[Sequence[Part]], Sequence[Call]]
    ) -> list[Answer]:  # fmt: skip
        """Store loose bytes, too, and do the calls that are made of where they are, in their order; see `commit`.

        `calls` is called once, by the thread that commits; it must not raise.
        """
        return self._ask(Ticket(slices, calls, loose))

    def later(self, call: Call) -> None:
        """Do a call with the next group, or when `settle` is called; its answer is nobody's.

        It is for what changes nothing that anybody waits for. When a group's outcome is unknown it goes with the next
        one under the same number; where the metadata numbers no calls, it is not repeated.
        """
        with self._mutex:
            self._later.append(call)
            many = len(self._later) % _LATER_MAX == 0
        if many:
            with suppress(StokerError):  # whoever puts off a call does not wait for it
                self.settle()

    def settle(self) -> None:
        """Do the calls that were put off. Raises what the metadata raises."""
        if self._later:
            self.commit((), ())

    @property
    def put_off(self) -> int:
        """How many calls wait for the next group, or for `settle`."""
        return len(self._later)

    @property
    def waiting(self) -> int:
        """How many wait for the next group."""
        return self._turns.waiting

    def _ask(self, ticket: Ticket) -> list[Answer]:
        if self._turns.come(ticket):
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.answers

    def _lead(self, own: Ticket) -> None:
        """Commit for those who wait, oneself first among them."""
        if self.waiting < self._usual // 2:
            try:
                time.sleep(_GATHER_SECONDS)
            except BaseException:
                self._turns.leave(own)
                raise
        group = self._turns.take(_GROUP_TICKETS_MAX)
        try:
            self.commit_all(group, self._turns.pass_on)
        finally:
            self._turns.serve(group)

    def commit_all(self, group: list[Ticket], durable: Callable[[], None] = lambda: None) -> None:
        """Commit tickets as one group, whose outcomes they then hold; `durable` is called when the bytes are.

        Raises nothing but what interrupts the thread.
        """
        try:
            try:
                ready = self._durable(self._packed(group))
            finally:
                durable()
            self._do(ready)
        except BaseException as error:
            for ticket in group:
                told = error if isinstance(error, Exception) else TransientError("commit was interrupted")
                ticket.error = ticket.error or told
            if not isinstance(error, Exception):
                raise
        finally:
            with self._mutex:
                self.commits += 1
                self.served += len(group)
                self._usual = (self._usual + 2 * len(group)) // 2

    # -- loose bytes

    def _packed(self, group: list[Ticket]) -> list[Ticket]:
        """Store the loose bytes of all; return those for whom it was done. One who fails does not fail the others."""
        for ticket in group:
            ticket.parts = [Part(Slice(0, 0, 0), 0, 0)] * len(ticket.loose)
        wanted = [(ticket, place) for ticket in group for place in range(len(ticket.loose))]
        for pack in in_packs(wanted, lambda one: one[0].loose[one[1]]):
            self._store_pack([one for one in pack if one[0].error is None])
        return [ticket for ticket in group if ticket.error is None]

    def _store_pack(self, members: Sequence[tuple[Ticket, int]]) -> None:
        """Store bytes as one slice; where that fails each by itself, so that each has its own error."""
        if not members:
            return
        contents = [ticket.loose[place] for ticket, place in members]
        first = contents[0]
        try:
            data = self._keeping.store([one.data for one in contents], first.session, first.storage_class)
        except StokerError as error:
            if len(members) == 1:
                members[0][0].error = DurabilityError(error)
                return
            for member in members:
                self._store_pack([member] if member[0].error is None else [])
            return
        self.packs += len(members) > 1
        offset = 0
        for (ticket, place), one in zip(members, contents, strict=True):
            ticket.parts[place] = Part(data, offset, len(one.data))
            offset += len(one.data)

    # -- slices that are stored, and the calls

    def _durable(self, group: list[Ticket]) -> list[Ticket]:
        """Make the slices of all durable; return those for whom it was done. One who fails does not fail the others."""
        slices = [data for ticket in group for data in ticket.slices]
        if not slices:
            return group
        try:
            self._keeping.make_durable(slices)
        except StokerError as error:
            if len(group) == 1:
                group[0].error = DurabilityError(error)
                return []
            return [ticket for ticket in group if self._durable([ticket])]
        return group

    def _do(self, group: list[Ticket]) -> None:
        asked = [ticket.calls(ticket.parts) for ticket in group]
        with self._mutex:
            later, self._later = self._later, []
        later = [self._metadata.numbered(call) for call in later]
        calls = [*(call for some in asked for call in some), *later]
        try:
            answers = iter(self._metadata.submit(calls) if calls else ())
        except BaseException:
            with self._mutex:
                self._later[:0] = [call for call in later if call.seq]
            raise
        for call in later:
            self._metadata.answered(call)
        for ticket, some in zip(group, asked, strict=True):
            ticket.answers = [next(answers) for _ in some]
