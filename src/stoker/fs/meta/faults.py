"""Refusals by the numbers of POSIX: a transaction raises `Refused`, a caller gets `MetaError`."""

import errno
import os
from typing import Final

from stoker.core.errors import StokerError

HELD: Final = errno.EINPROGRESS
"""The errno that refuses a change of names that another session holds, with the directory's number as the detail: who
asks has them asked back, and tries again. No program gets to see it."""


class Refused(Exception):
    """A request cannot be done; carries the errno and hardly more, for it is raised thousands of times a second."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number)
        self.errno = number
        self.detail = detail


class MetaError(StokerError):
    """A request was refused; `errno` is the number that POSIX has for it."""

    def __init__(self, what: str, *, errno: int = errno.EIO, **facts: str) -> None:
        super().__init__(what, **facts)
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the number, too, on the trip between processes."""
        return (*super().__reduce__(), {"errno": self.errno})


def meta_error(number: int, verb: str, where: str, detail: str = "") -> MetaError:
    """Return the error of a refused request: the verb, the name, and what the system calls the number."""
    name = errno.errorcode.get(number, str(number))
    return MetaError(
        f"{verb} was refused ({name}: {os.strerror(number).lower()})", errno=number, where=where, got=detail
    )
