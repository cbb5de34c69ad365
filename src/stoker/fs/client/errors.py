"""What goes wrong with bytes, as the numbers of POSIX: a file's caller gets a MetaError whatever failed below."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.core.errors import DeniedError, NoSpaceError, StokerError
from stoker.fs.meta.faults import MetaError


def errno_of(error: StokerError) -> int:
    """Return the number for an error: ENOSPC for a full store, EIO for what failed or is damaged."""
    if isinstance(error, MetaError):
        return error.errno
    if isinstance(error, NoSpaceError):
        return errno.ENOSPC
    if isinstance(error, DeniedError):
        return errno.EACCES
    return errno.EIO


def as_refusal(error: StokerError, verb: str, where: str) -> MetaError:
    """Return an error as the MetaError that a file's caller gets; what failed, and where, stays in its sentence."""
    if isinstance(error, MetaError):
        return error
    number = errno_of(error)
    return MetaError(f"{verb} failed ({errno.errorcode[number]})", errno=number, where=where, got=str(error))


@contextmanager
def refusing(verb: str, where: str) -> Iterator[None]:
    """Turn any error of the metadata or the store into a MetaError."""
    try:
        yield
    except MetaError:
        raise
    except StokerError as error:
        raise as_refusal(error, verb, where) from error


def stale(where: str) -> MetaError:
    """Return the error of a file whose session was lost."""
    return MetaError(
        "file was opened in a session that is over (ESTALE)",
        errno=errno.ESTALE,
        where=where,
        got="no sign of life reached the metadata within the lease",
        remedy="open it again",
    )
