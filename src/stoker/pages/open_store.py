"""A store that is open: how it is opened, attached, held and closed."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

from stoker.core.errors import UsageError
from stoker.kernels.arenas import ShortWays, fast_arena
from stoker.pages.arena.arena import PERSISTENT, Arena
from stoker.pages.arena.layout import plan_geometry
from stoker.pages.arena.mapping import attach_mapping, create_mapping, unlink_mapping
from stoker.pages.errors import PageNotFound, PagesError
from stoker.pages.flushing import Flusher, checked_durability
from stoker.pages.folder import StoreFolder, folder_lock
from stoker.pages.opening import create_folder, open_arena

SIZE_BYTES: Final = 256 << 20
PAGES_MAX: Final = 1 << 16
LOG_BYTES: Final = 16 << 20
SEGMENT_BYTES: Final = 64 << 20
Committed = Callable[[int, Sequence[int]], None]
"""Called after a commit, without the lock: its LSN and the ids of the pages it concerned."""


class OpenStore:
    """Pages that processes share. Every public call may be made from any thread.

    arena  the shared memory below
    name   by which others attach; empty for a store that only its descriptor names
    """

    def __init__(
        self,
        arena: Arena,
        folder: StoreFolder | None = None,
        flusher: Flusher | None = None,
        durability: str = "none",
    ) -> None:
        self.arena = arena
        self.folder = folder
        self.flusher = flusher
        self._durability = checked_durability(durability)
        self.name = arena.mapping.name
        self._pid = os.getpid()
        self._open = True
        self._leaves_behind = False
        self._names: dict[str, int] = {}
        self._names_structure = -1
        self._sources: dict[str, int] = {"": 0}
        self.listeners: list[Committed] = []
        self.closing: list[Callable[[], None]] = []  # called when the store closes, while it still can be used
        self._fast = fast_arena(arena.mapping.address, arena.geometry.arena_bytes)
        self._quick = self._fast if flusher is None or self._durability == "none" else None
        self._short: ShortWays | None = None
        arena.attach()

    # -- opening and closing -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = "",
        size_bytes: int = SIZE_BYTES,
        pages_max: int = PAGES_MAX,
        log_bytes: int = LOG_BYTES,
        durability: str = "",
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Open the store in a folder, or make one; without a path, make one that lives in shared memory alone.

        name        of a store in memory, by which others attach; one in a folder is opened by its path everywhere
        size_bytes  of all pages together; pages_max bounds their number. A folder keeps the sizes it was made with
        log_bytes   ring of the newest log frames; a commit takes at most half of it
        durability  of commits that do not tell their own: none, os, data (what a folder has by default), full

        Memory is taken as pages are allocated. The last process that closes the store removes the shared memory.
        Raises AlreadyExistsError for a name in use, OutOfSpace, CorruptLog, ChecksumError, UsageError.
        """
        if min(size_bytes, pages_max, log_bytes, segment_bytes) < 1:
            raise UsageError("sizes of a store of pages are at least 1 byte, or page")
        if path is None:
            if durability not in ("", "none"):
                raise UsageError("store without a folder cannot be durable", got=durability, remedy="give it a path")
            arena = memory_arena(name, size_bytes, pages_max, log_bytes)
            arena.publish()
            return cls(arena)
        checked_durability(durability or "data")
        if name:
            raise UsageError("store in a folder is opened by its path, not by a name", got=name)
        root = Path(path)
        with folder_lock(root):
            folder = (
                StoreFolder.open(root)
                if StoreFolder.exists(root)
                else create_folder(
                    root,
                    size_bytes=size_bytes,
                    pages_max=pages_max,
                    log_bytes=log_bytes,
                    segment_bytes=segment_bytes,
                )
            )
            arena, flusher = open_arena(folder)
            try:
                return cls(arena, folder, flusher, durability or "data")
            except BaseException:
                flusher.close()
                arena.mapping.close()
                raise

    @classmethod
    def attach(cls, where: str | int, *, take_over: bool = True) -> Self:
        """Join a store by its name, or by a descriptor that another process passed on.

        take_over  of a store whose processes were all killed: closing it removes it. Without, it is left as it was
                   found, for who only looks

        Such a process does not write the log of a store with a folder out; it can neither make its own commits durable.
        Raises PageNotFound for an unknown name, FormatError and ChecksumError for what is no sound store.
        """
        arena = Arena(attach_mapping(where))
        try:
            deserted = not arena.readers.attached()
            store = cls(arena)
        except BaseException:
            arena.mapping.close()
            raise
        store._leaves_behind = deserted and not take_over
        if arena.mapping.name and not arena.mapping.is_named():
            store.close()
            raise PageNotFound("no store of pages has this name any more", where=str(where))
        return store

    @property
    def durability(self) -> str:
        """Durability of commits that do not tell their own. Raises UsageError for an unknown one."""
        return self._durability

    @durability.setter
    def durability(self, durability: str) -> None:
        self._durability = checked_durability(durability)
        self._quick = self._fast if self.flusher is None or durability == "none" else None
        if self._short is not None:
            self._short.ready = self._quick is not None

    def take_long_ways(self) -> None:
        """Have every call go through Python's own steps from now on: slower, the same results, and tests can stop in
        between."""
        if self._short is not None:
            self._short.ready = False
            for name in ("write", "allocate_id", "free_id"):
                self.__dict__.pop(name, None)
        self._fast = self._quick = self._short = None

    @property
    def descriptor(self) -> int:
        """Descriptor of the shared memory, to pass to another process."""
        return self.arena.mapping.descriptor

    def check_open(self) -> None:
        """Raise PagesError when the store is closed, or was opened by the parent of this process."""
        if not self._open:
            raise PagesError("store of pages is closed", where=self.name)
        if self._pid != os.getpid():
            raise PagesError(
                "store of pages was opened by another process", where=self.name, remedy="attach it in this one"
            )

    def close(self) -> None:
        """Leave the store; the last one to leave removes its name. Twice is no error."""
        if not self._open or self._pid != os.getpid():
            return
        for done in list(self.closing):
            done()
        self._open = False
        self.take_long_ways()
        try:
            if self.folder and self.flusher:
                with folder_lock(self.folder.path):
                    self._leave(self.flusher)
            else:
                # Who attached a folder's store by its name cannot flush it: what is only in the ring must outlive it.
                kept = self._leaves_behind or self.arena.geometry.flags & PERSISTENT
                self.arena.detach(unlink=not kept)
        finally:
            if self.flusher:
                self.flusher.close()
            self.arena.mapping.close()

    def _leave(self, flusher: Flusher) -> None:
        """Leave the arena; what the last one leaves behind is durable, or stays in shared memory."""
        # Leaving comes first: one that is killed meanwhile may have committed since everything was made durable.
        last = self.arena.detach()
        if self.arena.poison():
            return
        flusher.rest()
        if last:
            unlink_mapping(self.name)

    def __enter__(self) -> Self:
        """Use it as a context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Leave the store when it was forgotten."""
        with suppress(AttributeError, PagesError):
            self.close()


def memory_arena(name: str, size_bytes: int, pages_max: int, log_bytes: int, *, next_lsn: int = 1) -> Arena:
    """Return a new arena without a folder; nobody finds it before it is published."""
    geometry = plan_geometry(
        uuid4().bytes, secrets.randbits(32), data_bytes=size_bytes, page_slots=pages_max, ring_bytes=log_bytes, flags=0
    )
    arena = Arena(create_mapping(geometry, name))
    try:
        arena.prepare(next_lsn)
    except BaseException:
        arena.mapping.discard()
        raise
    return arena
