"""Writing a file whole or not at all while its content still comes: a temporary name, durable, then the real one."""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stoker.core import seed
from stoker.kernels.syscalls import rename_no_replace
from stoker.storage.api import Buffer
from stoker.storage.base import TEMPORARY_SUFFIX

# What link(2) answers where a file system has no hard links.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

PartsWriter = Callable[[int, Iterable[Buffer]], None]


@dataclass(frozen=True, slots=True)
class WriteMode:
    """How files are written.

    fsync   `full` (the file and its folder), `data` (only the file's bytes) or `none`
    flags   added to the flags of open(2), such as O_DIRECT
    write   puts all parts into an open file, from its beginning
    """

    fsync: str
    flags: int
    write: PartsWriter


def temporary_name() -> str:
    """Return a name no object may have and no other writer uses."""
    return f".{seed.run_id()}{TEMPORARY_SUFFIX}"


def write_new_file(
    folder: int, name: str, parts: Iterable[Buffer], mode: WriteMode, *, if_absent: bool
) -> os.stat_result:
    """Make the concatenation of `parts` appear as `name` in the open `folder` in one step; return its facts.

    Raises OSError (FileExistsError with `if_absent`) or what `parts` raises; then nothing is left behind.
    """
    temporary = temporary_name()
    try:
        status = _write_temporary(folder, temporary, parts, mode)
        if if_absent:
            _publish_absent(folder, temporary, name)
        else:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if mode.fsync == "full":
        os.fsync(folder)
    return status


def _write_temporary(folder: int, name: str, parts: Iterable[Buffer], mode: WriteMode) -> os.stat_result:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | mode.flags
    file = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        mode.write(file, parts)
        if mode.fsync == "full":
            os.fsync(file)
        elif mode.fsync == "data":
            os.fdatasync(file)
        return os.fstat(file)
    finally:
        os.close(file)


def _publish_absent(folder: int, temporary: str, name: str) -> None:
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        rename_no_replace(folder, temporary, name)
        return
    os.unlink(temporary, dir_fd=folder)
