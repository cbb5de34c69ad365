"""What clients need of the metadata, be it a volume in this process or masters elsewhere."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call, Caller, Request
from stoker.fs.meta.machine import Settings

A = TypeVar("A")


class Metadata(Protocol):
    """Answers requests about names and files. Every method may be called from many threads at once.

    What changes something is durable when it is answered, and done once even where the answer had to be asked for
    again; but for opening, making by opening, and closing, which may be durable only when `make_durable` or another
    change returns that was asked for later. Raises MetaError with the errno of a request that is refused.
    """

    @property
    def settings(self) -> Settings:
        """What the volume is."""

    def run(self, request: Request[A], *, caller: Caller = ..., session: int = 0) -> A:
        """Do one request and return its answer."""

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Do calls in their order, each answered by itself; a Refusal carries an errno."""

    def numbered(self, call: Call) -> Call:
        """Return a call under a number, so that it may be submitted again and is done once.

        It is as it was where calls have no numbers, or it has one. `answered` must be told of it in the end.
        """

    def answered(self, call: Call) -> None:
        """Note that the answer to a call from `numbered` has come."""

    def make_durable(self) -> None:
        """Return when all that can be seen now survives a power failure."""

    def end_session(self, number: int) -> None:
        """Close what a session has open, give back its locks, and end it."""

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
