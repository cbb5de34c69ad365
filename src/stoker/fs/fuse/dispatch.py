"""From a request's bytes to its answer's. Whatever the request is, it is answered, and never ends the server."""

import errno
from collections.abc import Callable
from typing import Any, Final

from stoker.core.errors import StokerError
from stoker.fs.client.errors import errno_of
from stoker.fs.fuse import files, folders, locking, names
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply, framed, refusal
from stoker.fs.fuse.greeting import Greeting, greet
from stoker.fs.fuse.requests import FORMS, Head, read_body, read_head
from stoker.fs.fuse.state import State
from stoker.fs.meta.faults import MetaError, Refused
from stoker.fs.store.interface import Bytes

Handler = Callable[..., Reply | None]
HANDLERS: Final[dict[int, Handler]] = {
    p.LOOKUP: names.lookup,
    p.FORGET: names.forget,
    p.BATCH_FORGET: names.batch_forget,
    p.GETATTR: names.getattr_,
    p.SETATTR: names.setattr_,
    p.STATX: names.statx,
    p.READLINK: names.readlink,
    p.SYMLINK: names.symlink,
    p.MKNOD: names.mknod,
    p.MKDIR: names.mkdir,
    p.UNLINK: names.unlink,
    p.RMDIR: names.rmdir,
    p.RENAME: names.rename,
    p.RENAME2: names.rename2,
    p.LINK: names.link,
    p.ACCESS: names.access,
    p.STATFS: names.statfs,
    p.SETXATTR: names.setxattr,
    p.GETXATTR: names.getxattr,
    p.LISTXATTR: names.listxattr,
    p.REMOVEXATTR: names.removexattr,
    p.OPENDIR: folders.opendir,
    p.READDIR: folders.readdir,
    p.READDIRPLUS: folders.readdirplus,
    p.RELEASEDIR: folders.releasedir,
    p.FSYNCDIR: folders.fsyncdir,
    p.OPEN: files.open_,
    p.CREATE: files.create,
    p.READ: files.read,
    p.WRITE: files.write,
    p.FLUSH: files.flush,
    p.RELEASE: files.release,
    p.FSYNC: files.fsync,
    p.FALLOCATE: files.fallocate,
    p.LSEEK: files.lseek,
    p.COPY_FILE_RANGE: files.copy_range,
    p.COPY_FILE_RANGE_64: files.copy_range_64,
    p.GETLK: locking.getlk,
    p.SETLK: locking.setlk,
    p.SETLKW: locking.setlkw,
    p.INTERRUPT: locking.interrupt,
    p.DESTROY: lambda _state, _head: EMPTY,
}
_CHANGES: Final = frozenset(
    {
        p.SETATTR, p.SYMLINK, p.MKNOD, p.MKDIR, p.UNLINK, p.RMDIR, p.RENAME, p.RENAME2, p.LINK, p.SETXATTR,
        p.REMOVEXATTR, p.CREATE, p.WRITE, p.FALLOCATE, p.COPY_FILE_RANGE, p.COPY_FILE_RANGE_64,
    }
)  # fmt: skip
_OF_AN_INODE: Final = frozenset(
    {p.GETATTR, p.STATX, p.SETATTR, p.OPEN, p.READLINK, p.SETXATTR, p.GETXATTR, p.LISTXATTR, p.REMOVEXATTR}
)
"""What is asked of an inode, whatever its name. When there is none any longer, the kernel must look the name up anew
instead of failing: another client may have made a new file of it. ESTALE tells that."""


class Answer:
    """The buffers to give to the kernel, and what to do when it does not take them."""

    __slots__ = ("buffers", "undo")

    def __init__(self, buffers: list[Bytes], undo: Callable[[], None] | None = None) -> None:
        self.buffers = buffers
        self.undo = undo


class Dispatcher:
    """Answers requests, from many threads. `complain` hears of failures that are nobody's mistake but ours."""

    def __init__(self, state: State, complain: Callable[[str], None]) -> None:
        self._state = state
        self._complain = complain
        self.greeting: Greeting | None = None

    def answer(self, message: memoryview) -> Answer | None:
        """Answer a request; None when nothing is to be said, or not yet."""
        head = read_head(message)
        if head is None:
            self._complain(f"the kernel sent {len(message)} bytes that are no request")
            return None
        try:
            return self._answered(head, message)
        except Exception as error:
            number = self._number(head, error)
            return None if head.opcode in p.SILENT else Answer(refusal(head.unique, number))

    def _answered(self, head: Head, message: memoryview) -> Answer | None:
        if head.opcode == p.INIT:
            self.greeting, body = greet(message)
            return Answer(framed(head.unique, [body]))
        form, handler = FORMS.get(head.opcode), HANDLERS.get(head.opcode)
        if form is None or handler is None:
            raise Refused(errno.ENOSYS)
        if self.greeting is None:
            raise Refused(errno.EIO)
        if self._state.options.read_only and head.opcode in _CHANGES:
            raise Refused(errno.EROFS)
        reply = handler(self._state, head, *read_body(form, message))
        if reply is None or head.opcode in p.SILENT:
            return None
        return Answer(framed(head.unique, reply.parts), reply.undo)

    def _number(self, head: Head, error: Exception) -> int:
        """Return the errno for an error, and complain of one that must not be."""
        if isinstance(error, Refused | MetaError) and error.errno != errno.EIO:
            gone = error.errno == errno.ENOENT and head.opcode in _OF_AN_INODE
            return errno.ESTALE if gone else error.errno
        number = errno_of(error) if isinstance(error, StokerError) else errno.EIO
        told: Any = error if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"
        self._complain(f"request {head.opcode} for inode {head.node} failed: {told}")
        return number
