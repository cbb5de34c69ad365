"""From the kernel's error numbers to ours."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stoker.core.errors import AlreadyExistsError, DeniedError, NoSpaceError, NotFoundError, StoreError, TransientError

_KINDS: Final[dict[int, tuple[type[StoreError], str, str]]] = {
    errno.ENOENT: (NotFoundError, "no such object", ""),
    errno.EEXIST: (AlreadyExistsError, "object already exists", ""),
    errno.EACCES: (DeniedError, "permissions forbid it", "check owner and mode of the file and its folders"),
    errno.EPERM: (DeniedError, "permissions forbid it", "check owner, mode and attributes of the file"),
    errno.EROFS: (DeniedError, "file system is mounted read-only", "mount it writable or choose another root"),
    errno.ELOOP: (DeniedError, "symbolic links below the root are not followed", "use a real file or folder"),
    errno.EXDEV: (DeniedError, "path leaves the root of the store", ""),
    errno.ENOSPC: (NoSpaceError, "no space left on the device", "free some or choose another root"),
    errno.EDQUOT: (NoSpaceError, "disk quota is used up", "free some or raise the quota"),
    errno.EFBIG: (NoSpaceError, "file is larger than the limit", "raise `ulimit -f` or use another file system"),
    errno.ESTALE: (TransientError, "network file system lost its handle of the file", ""),
    errno.ETIMEDOUT: (TransientError, "network file system did not answer in time", ""),
    errno.EMFILE: (StoreError, "too many files are open", "raise `ulimit -n` or lower the number of calls in flight"),
    errno.EISDIR: (StoreError, "a folder stands where the object should go", "choose another key"),
    errno.ENOTDIR: (StoreError, "an object stands where a folder of the key should be", "choose another key"),
    errno.EBADF: (StoreError, "store is closed", ""),
}


def store_error(error: OSError, where: str, *, reading: bool) -> StoreError:
    """Return the error to raise for a failed call on the object `where`.

    While `reading`, a path that leads through a file means that no such object exists.
    """
    number = error.errno or 0
    if reading and number in (errno.ENOTDIR, errno.EISDIR):
        number = errno.ENOENT
    if number not in _KINDS:
        return StoreError("operating system refused", where=where, got=os.strerror(number) if number else str(error))
    kind, what, remedy = _KINDS[number]
    return kind(what, where=where, remedy=remedy)


@contextmanager
def told(where: str, *, reading: bool) -> Iterator[None]:
    """Turn the kernel's errors inside a `with` block into ours."""
    try:
        yield
    except OSError as error:
        raise store_error(error, where, reading=reading) from error
