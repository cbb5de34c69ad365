"""The plain twin of the native write engines: one file after the other, by the calls that Python offers."""

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from stoker.core.errors import UsageError
from stoker.kernels.syscalls import rename_no_replace
from stoker.kernels.writing import (
    PIECE_COLUMNS,
    PIECE_COLUMNS_OPEN,
    PIECE_FILE,
    WRITE_REQUEST_BYTES,
    WRITTEN_COLUMNS,
    WRITTEN_STATUS,
    Int64s,
    WritePolicy,
    check_settings,
    fsync_number,
)

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_RENAME: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class PlainWriteEngine:
    """See `stoker.kernels.writing.WriteEngine`."""

    kind = "plain"

    def __init__(self, queue_depth: int = 1, request_bytes: int = WRITE_REQUEST_BYTES) -> None:
        check_settings(queue_depth, request_bytes)
        self.queue_depth = queue_depth
        self.request_bytes = request_bytes
        self._begun_status = 0

    def write_open(self, file: int, pieces: Int64s, *, fsync: str = "none") -> int:
        """Write piece by piece."""
        fsync_number(fsync, start=True)
        check_pieces(pieces, PIECE_COLUMNS_OPEN, 1)
        try:
            self._write(file, pieces)
            _sync(file, fsync)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def begin_open(self, file: int, pieces: Int64s) -> None:
        """Write at once."""
        self._begun_status = self._begun_status or self.write_open(file, pieces)

    def finish_open(self) -> int:
        """Return what came of it."""
        status, self._begun_status = self._begun_status, 0
        return status

    def write_files(
        self,
        folder: int,
        names: Sequence[tuple[str, str]],
        pieces: Int64s,
        sizes: Int64s,
        *,
        policy: WritePolicy,
        files_done: Int64s,
    ) -> None:
        """Write file by file."""
        fsync_number(policy.fsync)
        check_pieces(pieces, PIECE_COLUMNS, len(names))
        check_files(sizes, files_done, len(names))
        for number, (name, temporary) in enumerate(names):
            done = files_done[number]
            done[:] = 0
            theirs = pieces[pieces[:, PIECE_FILE] == number]
            try:
                _check_names(name, temporary)
                facts = self._make(folder, temporary, theirs, int(sizes[number]), policy)
                _publish(folder, temporary, name, if_absent=policy.if_absent)
                done[:] = (0, facts.st_size, facts.st_mtime_ns)
            except OSError as error:
                done[WRITTEN_STATUS] = error.errno or errno.EIO
        good = files_done[:, WRITTEN_STATUS] == 0
        if policy.fsync == "full" and good.any():
            try:
                os.fsync(folder)
            except OSError as error:
                files_done[good, WRITTEN_STATUS] = error.errno or errno.EIO

    def _make(
        self, folder: int, temporary: str, pieces: Int64s, size_bytes: int, policy: WritePolicy
    ) -> os.stat_result:
        """Make the temporary file whole and durable; nothing is left of it when that fails."""
        file = os.open(temporary, _CREATE | policy.flags, 0o666, dir_fd=folder)
        try:
            try:
                self._write(file, pieces)
                if int((pieces[:, 0] + pieces[:, 1]).max(initial=0)) != size_bytes:
                    os.ftruncate(file, size_bytes)
                _sync(file, policy.fsync)
                return os.fstat(file)
            finally:
                os.close(file)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise

    def _write(self, file: int, pieces: Int64s) -> None:
        for offset, length, address, *_ in pieces.tolist():
            done_bytes = 0
            while done_bytes < length:
                request_bytes = min(self.request_bytes, length - done_bytes)
                source = (ctypes.c_char * request_bytes).from_address(address + done_bytes)
                done_bytes += os.pwrite(file, source, offset + done_bytes)

    def close(self) -> None:
        """Nothing to release."""


def check_pieces(pieces: Int64s, columns: int, files: int) -> None:
    """Raise UsageError unless the columns have their shape and every number can be."""
    if pieces.ndim != 2 or pieces.shape[1] != columns:
        raise UsageError("columns of the pieces have a wrong shape", expected=f"(n, {columns})", got=str(pieces.shape))
    if len(pieces) == 0:
        return
    offset, length, address = pieces[:, 0], pieces[:, 1], pieces[:, 2]
    # Addresses use all 64 bits on some machines, so a negative one is no mistake.
    numbers_good = pieces[:, :2].min() >= 0 and not (offset > 2**63 - 1 - length).any()
    if not numbers_good or ((address == 0) & (length > 0)).any():
        raise UsageError("columns of the pieces hold a number that cannot be")
    if columns == PIECE_COLUMNS:
        owners = pieces[:, PIECE_FILE]
        if owners.min() < 0 or owners.max() >= files or (owners[1:] < owners[:-1]).any():
            raise UsageError("pieces do not stand in the order of their files")


def check_files(sizes: Int64s, files_done: Int64s, files: int) -> None:
    """Raise UsageError unless the columns of the files have their shape."""
    if sizes.shape != (files,) or files_done.shape != (files, WRITTEN_COLUMNS) or (sizes < 0).any():
        raise UsageError(
            "columns of the files are wrong", got=f"{sizes.shape} and {files_done.shape} for {files} files"
        )


def _check_names(*names: str) -> None:
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise OSError(errno.EINVAL, "not a plain name", name)


def _sync(file: int, fsync: str) -> None:
    if fsync == "full":
        os.fsync(file)
    elif fsync == "data":
        os.fdatasync(file)


def _publish(folder: int, temporary: str, name: str, *, if_absent: bool) -> None:
    try:
        if not if_absent:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        _rename_absent(folder, temporary, name)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _rename_absent(folder: int, temporary: str, name: str) -> None:
    try:
        rename_no_replace(folder, temporary, name)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        # Old kernels and network file systems do not know the flag; a link refuses to replace, too.
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.unlink(temporary, dir_fd=folder)
