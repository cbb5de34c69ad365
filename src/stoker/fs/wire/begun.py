"""A request that was sent, whose answer is taken by whoever asked: no thread waits for it meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from stoker.core.errors import StokerError, TransientError, UnavailableError, UsageError
from stoker.fs.wire.faults import UNKNOWN_OPERATION, RoomError
from stoker.fs.wire.streams import Clock

T = TypeVar("T")


class AskAgainError(StokerError):
    """What came is no answer that can be used; another one may be."""


class Begun(Generic[T]):
    """The answer that is to come.

    future   where it arrives
    finish   makes of it what was asked for; raises AskAgainError where it must be asked for once more
    again    asks once more and waits, for so many seconds; called by whoever finds that the answer was `lost`
    usable   tells whether the connection still stands: what fails over one that does not is no answer
    until    when it is too late, by the clock
    """

    def __init__(
        self,
        *,
        future: "Future[tuple[Any, memoryview]]",
        finish: Callable[[Any, memoryview], T],
        again: Callable[[float], T],
        usable: Callable[[], bool],
        until: float,
        clock: Clock,
        address: str,
    ) -> None:
        self.future, self.until = future, until
        self.usable = usable
        self._finish, self._again = finish, again
        self._clock, self._address = clock, address
        self._looked = self._lost = False
        self._value: T | None = None
        self._error: StokerError | None = None

    def done(self) -> bool:
        """Tell whether it has come, or is too late."""
        return self.future.done() or self._clock() >= self.until

    @property
    def lost(self) -> bool:
        """Tell of one that is done whether it is no answer: `again` asks once more then."""
        self._look()
        return self._lost

    def result(self) -> T:
        """Return what was asked for, of one that is done and not lost. Raises what the server has said."""
        self._look()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # it is there when no error is

    def again(self) -> T:
        """Ask once more, and wait for what is left of the time. Raises as the first time."""
        return self._again(max(0.001, self.until - self._clock()))

    def _look(self) -> None:
        if self._looked:
            return
        self._looked = True
        if not self.future.done():
            self._error = UnavailableError("no answer in time", where=self._address)
            return
        try:
            self._value = self._finish(*self.future.result())
        except StokerError as error:
            self._error, self._lost = error, is_no_answer(error, self.usable)


def is_no_answer(error: BaseException, usable: Callable[[], bool]) -> bool:
    """Tell whether an error says nothing of what was asked, over a connection that is `usable`: ask again."""
    if isinstance(error, AskAgainError | TransientError | RoomError):
        return True
    if isinstance(error, UsageError) and error.what == UNKNOWN_OPERATION:
        return True
    return isinstance(error, UnavailableError) and not usable()
