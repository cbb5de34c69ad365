"""A file that was made here: the metadata may not know it yet, and what opening has changed may not be durable yet.

Who holds the names of a directory makes files in it without asking. Such a file is owed to the metadata: it is told
with what is committed of the file first, else with others after some milliseconds. Until then nobody else sees it.
"""

import errno
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Final, Protocol

from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Answer, Entry, Refusal
from stoker.fs.meta.calls import Call
from stoker.fs.meta.faults import MetaError, meta_error

RETRIABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS, errno.EAGAIN)


class Making:
    """What opening a file has made and changed. Its methods are called by who holds the file's commit lock."""

    def __init__(self, works: Works, where: str) -> None:
        self._works = works
        self._where = where
        self._owed: Call | None = None
        self._known: Callable[[], None] = lambda: None
        self._error: MetaError | None = None
        self.changes = 0  # made or emptied by opening: durable only with what is shown later
        self._kept = 0

    # -- a file that is owed

    @property
    def is_owed(self) -> bool:
        """Tell whether the metadata does not know the file yet."""
        return self._owed is not None

    def owe(self, call: Call, known: Callable[[], None]) -> None:
        """Note the call that tells the metadata of the file; `known` is called when that is done, or never will be."""
        self._owed, self._known = call, known
        self.changes += 1

    def forget(self) -> None:
        """Hear that nobody has the file open any more: what could not be told is told to nobody."""
        if self._owed is not None:
            self._owed = None
            self._known()

    def calls(self) -> list[Call]:
        """Return what is to be asked before anything else about the file. Raises MetaError when it cannot be made."""
        if self._error is not None:
            raise self._error
        return [] if self._owed is None else [self._owed]

    def take(self, answers: Sequence[Answer]) -> None:
        """Take the answers to `calls`. Raises MetaError when the file was refused: it is none, and never will be."""
        for answer in answers:
            refused = isinstance(answer, Refusal)
            if isinstance(answer, Refusal):
                error = meta_error(answer.errno, "create", self._where, answer.detail)
                if answer.errno in RETRIABLE:
                    raise error
                self._error = error
            self._owed = None
            self._known()
            if refused and self._error is not None:
                raise self._error
            assert isinstance(answer, Entry)

    def tell(self) -> None:
        """Have the metadata know the file, unless it does. Raises MetaError, and what asking raises."""
        owed = self.calls()
        if owed:
            self.take(self._works.patiently(lambda: self._works.commits.commit((), owed)))

    # -- what is durable

    def note(self) -> None:
        """Note that opening has made or emptied the file, which is not durable yet."""
        self.changes += 1

    def kept(self, changes: int) -> None:
        """Note that as many changes are durable."""
        self._kept = max(self._kept, changes)

    def keep(self) -> None:
        """Have what opening has changed survive a power failure, unless it does. Raises StoreError."""
        changes = self.changes
        if changes > self._kept:
            self._works.metadata.make_durable()
            self.kept(changes)


class Made(Protocol):
    """What is needed of a file that is open."""

    ino: int
    commit_lock: Lock
    making: Making


def tell_all(works: Works, inodes: Sequence[Made], *, wait: bool) -> None:
    """Have the metadata know many files at once; without `wait` not those that are being committed.

    Raises what asking raises. Who was refused hears of it when he flushes or closes his file.
    """
    with ExitStack() as locked:
        owing = []
        ordered = sorted({one.ino: one for one in inodes}.items())  # in one order: two who do this never lock up
        for _, inode in ordered:
            if not inode.commit_lock.acquire(blocking=wait):
                continue
            locked.callback(inode.commit_lock.release)
            if inode.making.is_owed:
                owing.append(inode.making)
        if owing:
            calls = [call for making in owing for call in making.calls()]
            answers = works.patiently(lambda: works.commits.commit((), calls))
            for making, answer in zip(owing, answers, strict=True):
                _taken(making, answer)


def _taken(making: Making, answer: Answer) -> None:
    try:
        making.take([answer])
    except MetaError:
        return  # it is told to who has the file open
