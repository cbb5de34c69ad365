"""Errors that travel: one of the project's own goes by name with its fields, others only say that something failed."""

from typing import Final

from stoker.core import errors
from stoker.core.errors import StokerError, UnavailableError, UsageError
from stoker.fs.meta.faults import MetaError
from stoker.fs.wire.messages import Fault

TEXT_CHARACTERS_MAX: Final = 2000
UNKNOWN_OPERATION: Final = "the server does not know the operation"
"""What older servers, too, say of an operation that is newer than they are."""
_kinds: Final[dict[str, type[StokerError]]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, StokerError) and kind is not errors.InterruptedRunError
}


def let_travel(kind: type[StokerError]) -> type[StokerError]:
    """Make a kind of error arrive as what it is; its constructor takes what StokerError's does. A class decorator."""
    assert _kinds.get(kind.__name__, kind) is kind, f"two kinds of error are called {kind.__name__}"
    _kinds[kind.__name__] = kind
    return kind


let_travel(MetaError)


@let_travel
class RoomError(UsageError):
    """An answer is larger than whoever asked has room for."""


@let_travel
class UntrustedError(UnavailableError):
    """One end does not believe the other's certificate, or one of them speaks TLS and the other does not."""


def fault_of(error: BaseException, doing: str) -> Fault:
    """Return an error as it travels; of one that is not the project's own only its kind, for it may tell secrets."""
    if not isinstance(error, StokerError):
        return Fault("StokerError", f"{doing} failed at the server", got=type(error).__name__)
    facts = (error.what, error.where, error.expected, error.got, error.remedy)
    what, where, expected, got, remedy = (fact[:TEXT_CHARACTERS_MAX] for fact in facts)
    number = error.errno if isinstance(error, MetaError) else 0
    return Fault(_name_of(type(error)), what, where, expected, got, remedy, number)


def _name_of(kind: type[BaseException]) -> str:
    """Return the nearest name that the other end knows."""
    return next((base.__name__ for base in kind.__mro__ if _kinds.get(base.__name__) is base), "StokerError")


def error_of(fault: Fault) -> StokerError:
    """Return the error that travelled; of a kind that is not known, a StokerError."""
    kind = _kinds.get(fault.kind, StokerError)
    texts = (fault.what, fault.where, fault.expected, fault.got, fault.remedy)
    what, where, expected, got, remedy = (text[:TEXT_CHARACTERS_MAX] for text in texts)
    error = kind(what, where=where, expected=expected, got=got, remedy=remedy)
    if isinstance(error, MetaError) and fault.errno:
        error.errno = fault.errno
    return error
