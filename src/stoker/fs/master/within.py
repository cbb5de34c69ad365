"""The metadata for what runs in the same process as a master: without a network, and without a session."""

from collections.abc import Sequence
from typing import Final, TypeVar

from stoker.fs.master.core import only_questions
from stoker.fs.master.daemon import Master
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call, Caller, EndSession, Request
from stoker.fs.meta.keys import VOLUME
from stoker.fs.meta.machine import Settings
from stoker.fs.meta.volume import granted, unpack_settings

A = TypeVar("A")
WITHIN_SECONDS: Final = 5.0
_SUPERUSER: Final = Caller()


class OwnMetadata:
    """Implements `Metadata` over the master of this process, for upkeep.

    Where it does not lead, questions are answered from its copy, which may lag behind, and what changes something
    raises NotLeadingError. Requests are asked once and bear no number, so they must be such that asking again does no
    harm.
    """

    def __init__(self, master: Master, within_seconds: float = WITHIN_SECONDS) -> None:
        self._master = master
        self._within_seconds = within_seconds

    @property
    def settings(self) -> Settings:
        """Return what the volume is. Raises NotLeadingError while this master has no copy yet."""
        core = self._master.core
        data = core.copy.get(VOLUME)
        if data is None:
            raise core.not_leading()
        return unpack_settings(data, self._master.volume)

    def run(self, request: Request[A], *, caller: Caller = _SUPERUSER, session: int = 0) -> A:
        """Do one request and return its answer. Raises MetaError with the errno when it is refused."""
        return granted(request, self.submit([Call(request, caller, session)])[0])

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Do calls in their order, each answered by itself."""
        if only_questions(batch) and not self._master.leads:
            return self._master.core.read(batch, b"")
        return self._master.commit(batch, b"", self._within_seconds)

    def numbered(self, call: Call) -> Call:
        """Return the call: requests bear no number here."""
        return call

    def answered(self, call: Call) -> None:
        """Do nothing; see `numbered`."""

    def make_durable(self) -> None:
        """Do nothing: what is answered is in the journal."""

    def end_session(self, number: int) -> None:
        """End a session that has no secret."""
        while self.run(EndSession(number)).more:
            pass

    def close(self) -> None:
        """Do nothing: whoever made the master closes it."""
