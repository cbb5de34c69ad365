"""A client: one session with the metadata, one store of slices, and the files that are open over both."""

import errno
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from typing import Any, Final, TypeGuard, TypeVar, cast

import msgspec

from stoker.core.clock import sleep, wall_ns
from stoker.core.errors import StokerError
from stoker.fs.client.errors import refusing
from stoker.fs.client.holds import Holds
from stoker.fs.client.inode import OpenInode
from stoker.fs.client.layout import CHUNKS_MAX
from stoker.fs.client.openfile import OpenFile
from stoker.fs.client.options import ClientOptions
from stoker.fs.client.session import Keeper, Session
from stoker.fs.client.whole import WholeFiles
from stoker.fs.client.works import Inline, Works
from stoker.fs.meta.answers import Answer, Entry, Listing, Peeked, Refusal
from stoker.fs.meta.calls import (
    READ,
    Call,
    Caller,
    CopyRange,
    Create,
    Fallocate,
    FindLock,
    GetAttr,
    Lookup,
    Open,
    Peek,
    Put,
    Question,
    ReadExtents,
    Rename,
    Request,
    SetAttr,
    SetLock,
    SetXattr,
    Unlink,
)
from stoker.fs.meta.faults import MetaError, meta_error
from stoker.fs.meta.records import HAS_XATTR, Attr
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import CHUNK_BYTES
from stoker.fs.store.interface import Bytes, SliceStore

A = TypeVar("A")
_SUPERUSER: Final = Caller()
_DEFAULTS: Final = ClientOptions()
_OF_OPEN_FILES: Final = (SetLock, FindLock, Fallocate, CopyRange, ReadExtents)
_TICK_SECONDS: Final = 1.0


class Client:
    """Opens files. All methods may be called from many threads; a forked child must make its own.

    The client ends its session when it is closed; the metadata and the store stay the caller's. With `threads` False
    nothing happens but what is called: then `tick` is to be called now and then, as a simulator does.
    """

    def __init__(
        self,
        metadata: Metadata,
        store: SliceStore,
        options: ClientOptions = _DEFAULTS,
        *,
        threads: bool = True,
        clock: Callable[[], int] = wall_ns,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self.metadata = metadata
        self.store = store
        self.options = options
        self._clock = clock
        self._mutex = threading.RLock()
        self._inodes: dict[tuple[int, int], OpenInode] = {}
        self._light: dict[int, set[OpenFile]] = {}  # by inode, what is open to read and not in the session
        self._flushing: set[int] = set()
        self._closed = False
        self._loose = False  # something was made or emptied that may not be durable yet
        self.holds: Holds | None = None
        self.session = Session(metadata, options.session_seconds, self._lost, clock)
        self.session.number  # noqa: B018 - begins it
        self._pool: Executor = ThreadPoolExecutor(options.threads, "stoker-fs-pool") if threads else Inline()
        self._flushers: Executor = ThreadPoolExecutor(2, "stoker-fs-flush") if threads else Inline()
        self.works = Works(
            metadata, store, options, session=self.session, pool=self._pool, clock=clock, sleep=pause
        )  # fmt: skip
        self._whole = WholeFiles(self.works)
        self.holds = Holds(self.works) if threads and options.hold_seconds and not options.strict else None
        self._keepers = self._kept() if threads else []

    def _kept(self) -> list[Keeper]:
        every_seconds = min(self.options.flush_seconds / 4, _TICK_SECONDS)
        return [
            Keeper(self.session.renew, self.session.renewal_seconds, "stoker-fs-keep"),
            Keeper(self.flush_old, every_seconds, "stoker-fs-age"),
        ]

    # -- asking

    def ask(self, request: Request[A], *, caller: Caller = _SUPERUSER) -> A:
        """Do a request in the client's session; attributes tell what was written, shown to others or not."""
        if isinstance(request, Lookup | GetAttr):
            if self.holds is not None:
                return cast("A", self._righted(self.holds.ask(request, caller, self._asked), {}))
            if self.works.entries.is_on:
                return cast("A", self._entry(request, caller))
        return self._asked(request, caller)

    def _entry(self, request: Lookup | GetAttr, caller: Caller) -> Entry:
        """Answer from what is believed, or ask."""
        entries, counters = self.works.entries, self.works.counters
        key, generation = (caller, request), entries.generation
        counters.entry_hits += 1
        found = entries.get(key, self._clock())  # that there is no such name is a hit, too
        if found is not None:
            return self._righted(found, {})
        counters.entry_hits -= 1
        counters.entry_misses += 1
        try:
            answer = self._asked(request, caller)
        except MetaError as error:
            entries.put(key, error, generation, self._clock())
            raise
        if not self.has_unshown(answer.ino):
            entries.put(key, answer, generation, self._clock())
        return answer

    def _asked(self, request: Request[A], caller: Caller) -> A:
        self._settle(request)
        generations = self._generations()
        answer = self._in_session(lambda number: self.metadata.run(request, caller=caller, session=number), request)
        self._changed(request, answer)
        return self._righted(answer, generations)

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        """Do calls in their order as `ask` does, all in the client's session; a Refusal carries an errno."""
        for call in batch:
            self._settle(call.request)
        generations = self._generations()
        number = self.session.number
        with ExitStack() as asking:
            if self.holds is not None:
                for call in batch:
                    asking.enter_context(self.holds.changing(call.request))
            answers = self.metadata.submit([msgspec.structs.replace(call, session=number) for call in batch])
        for call, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, Refusal):
                self._changed(call.request, answer)
        return [self._righted(answer, generations) for answer in answers]

    def _in_session(self, task: Callable[[int], A], request: Request[Any]) -> A:
        """Do something in the session; in a new one when it turns out to be over, unless it is about what was open."""
        if self.holds is not None:
            with self.holds.changing(request):
                return self._in_living_session(task, request)
        return self._in_living_session(task, request)

    def _in_living_session(self, task: Callable[[int], A], request: Request[Any]) -> A:
        number = self.session.number
        try:
            return task(number)
        except MetaError as error:
            if error.errno != errno.ESTALE:
                raise
            self.session.renew()
            if self.session.is_alive(number) or isinstance(request, _OF_OPEN_FILES):
                raise
        return task(self.session.number)

    def _settle(self, request: Request[Any]) -> None:
        """Show what was written before a request that would come before it otherwise."""
        if self._light:
            self._harden(request)
        if isinstance(request, CopyRange):
            wanted = [request.source, request.target]
        elif _sees_content(request):
            wanted = [request.ino]
        else:
            return
        for ino in wanted:
            inode = self._inodes.get((self.session.number, ino))
            if inode is not None:
                inode.commit()

    def _changed(self, request: Request[Any], answer: object) -> None:
        """Let open files know what a request has changed."""
        if not isinstance(request, Question):
            self.works.entries.forget()
            self.works.folders.changed(request)
        if isinstance(request, SetAttr | Fallocate | SetXattr):
            ino = request.ino
        elif isinstance(request, CopyRange):
            ino = request.target
        elif isinstance(request, Put) and isinstance(answer, Entry):
            ino = answer.ino
        else:
            return
        inode = self._inodes.get((self.session.number, ino))
        if inode is not None:
            inode.changed(answer.attr if isinstance(answer, Entry) else None)

    def _generations(self) -> dict[int, int]:
        return {inode.ino: inode.layout.generation for inode in list(self._inodes.values())}

    def _righted(self, answer: A, generations: dict[int, int]) -> A:
        if isinstance(answer, Entry | Peeked):
            self._right(answer.ino, answer.attr, generations)
        elif isinstance(answer, Listing):
            for one in answer.entries:
                if one.attr is not None:
                    self._right(one.ino, one.attr, generations)
        return answer

    def _right(self, ino: int, attr: Any, generations: dict[int, int]) -> None:
        inode = self._inodes.get((self.session.number, ino)) if self._inodes else None
        if inode is not None:
            inode.right(attr, generations.get(ino, -1))

    # -- opening

    def open(self, ino: int, access: int, *, truncate: bool = False, caller: Caller = _SUPERUSER) -> OpenFile:
        """Open a file to READ, WRITE or both (their sum). What others have shown of it is seen from now on.

        Opening to read alone costs no transaction: the file is opened in the session once that matters.
        """
        if access == READ and not truncate and not self.options.strict:
            handle = self._open_light(ino, caller)
            if handle is not None:
                return handle
        request = Open(ino, access, truncate)
        self._settle(request)
        generations = self._generations()
        entry, number = self._opened(request, caller)
        return self._handle(entry, number, access, caller, generations, changed=truncate)

    def create(self, request: Create, *, caller: Caller = _SUPERUSER) -> tuple[Entry, OpenFile]:
        """Make a file, or find it, and open it as the request's `access` says."""
        if not request.access:
            raise meta_error(errno.EINVAL, "create", request.name.decode(errors="backslashreplace"))
        made = None if self.holds is None else self.holds.make(request, caller, self._living_session())
        if self.holds is not None and made is not None:
            handle = self._handle(made.entry, made.call.session, request.access, caller, {}, changed=False)
            self.holds.owe(made, handle.inode)
            return made.entry, handle
        generations = self._generations()
        entry, number = self._opened(request, caller)
        handle = self._handle(entry, number, request.access, caller, generations, changed=entry.made)
        if self.holds is not None and entry.made:
            self.holds.made_in(request.parent, number)
        return self._righted(entry, {}), handle

    def _opened(self, request: Open | Create, caller: Caller) -> tuple[Entry, int]:
        def task(number: int) -> tuple[Entry, int]:
            return self.metadata.run(request, caller=caller, session=number), number

        opened = self._in_session(task, request)
        if not isinstance(request, Open) or request.truncate:
            self._loose = True
            self.works.entries.forget()
        return opened

    def _handle(
        self, entry: Entry, number: int, access: int, caller: Caller, generations: dict[int, int], *, changed: bool
    ) -> OpenFile:
        with self._mutex:
            inode = self._inode_of(number, entry.ino, entry.attr)
        inode.opened(entry.attr, generations.get(entry.ino, 0))
        if changed:
            inode.making.note()
        return OpenFile(self, self.works, inode, access, caller, entry.attr.version)

    def _open_light(self, ino: int, caller: Caller) -> OpenFile | None:
        """Open a file to read without the session's knowing: None for what is no file, or too large to be known whole.

        Everything that shows is learned at once. While nobody takes its name away that is all that opening means; when
        this client does, or a lock is wanted, the file is opened in the session first. When another client removes it,
        reading goes on from what is known, whose slices garbage collection keeps for its grace.
        """
        generations = self._generations()
        number = self._living_session()
        if self.holds is not None:
            self.holds.begin(Peek(ino))
        found = self.metadata.run(Peek(ino), caller=caller)
        if not found.attr.is_file or not found.attr.nlink or found.attr.size_bytes > CHUNKS_MAX * CHUNK_BYTES:
            return None
        with self._mutex:
            inode = self._inode_of(number, ino, found.attr)
            inode.light += 1
        inode.peeked(found, generations.get(ino, 0))
        handle = OpenFile(self, self.works, inode, READ, caller, found.attr.version, light=True)
        with self._mutex:
            self._light.setdefault(ino, set()).add(handle)
        return handle

    def _inode_of(self, number: int, ino: int, attr: Attr) -> OpenInode:
        """Return what is open of a file, with one more handle; the mutex is held."""
        inode = self._inodes.get((number, ino))
        if inode is None:
            inode = self._inodes[number, ino] = OpenInode(self.works, ino, number, attr)
        inode.handles += 1
        return inode

    def _harden(self, request: Request[Any]) -> None:
        """Open in the session what was opened to read alone, before a request to which that matters."""
        if isinstance(request, Unlink):
            ino = self._named(request.parent, request.name)
        elif isinstance(request, Rename):
            ino = self._named(request.new_parent, request.new_name)
        elif isinstance(request, SetLock | ReadExtents):
            ino = request.ino
        elif isinstance(request, CopyRange):
            ino = request.source
        else:
            return
        with self._mutex:
            handles = list(self._light.pop(ino, ()))
        for handle in handles:
            handle.harden()

    def _named(self, parent: int, name: bytes) -> int:
        try:
            return self.metadata.run(Lookup(parent, name)).ino
        except MetaError:
            return 0  # the request itself tells what is wrong

    def let_go(self, handle: OpenFile, inode: OpenInode) -> bool:
        """Note that a handle of a file is closed; tell whether it was the last."""
        with self._mutex:
            light = self._light.get(inode.ino)
            if light is not None and handle in light:
                light.discard(handle)
                inode.light -= 1
                if not light:
                    del self._light[inode.ino]
            inode.handles -= 1
            if inode.handles:
                return False
            self._inodes.pop((inode.session, inode.ino), None)
        inode.making.forget()
        return True

    def put(self, request: Put, contents: Iterable[Bytes], *, caller: Caller = _SUPERUSER) -> Entry:
        """Store bytes and make a file of them, or give it this content, in one step; the request's slices are none.

        Durable when it returns; with those of other threads it shares the wait for the disk. Each of `contents` is at
        most 64 MiB, and at most as many as there are threads are in memory.
        """
        named = request.name.decode(errors="backslashreplace")
        with refusing("put", named), nullcontext() if self.holds is None else self.holds.changing(request):
            entry = self._whole.put(request, contents, self._living_session(), caller)
        self._changed(request, entry)
        return entry

    def _living_session(self) -> int:
        """Return the session, a new one when it turns out to be over."""
        number = self.session.number
        return number if self.session.is_alive(number) else self.session.number

    def has_no_xattr(self, ino: int) -> bool:
        """Tell whether an open file is known to have no extended attribute, by attributes that are still believed."""
        inode = self._inodes.get((self.session.number, ino)) if self._inodes and not self.options.strict else None
        return inode is not None and inode.layout.is_fresh(self._clock()) and not inode.layout.flags & HAS_XATTR

    def has_unshown(self, ino: int) -> bool:
        """Tell whether bytes of a file are written and not shown yet."""
        inode = self._inodes.get((self.session.number, ino)) if self._inodes else None
        return inode is not None and inode.dirty_since_ns != 0

    # -- flushing

    def _waiting(self) -> list[OpenInode]:
        """Return the files of which bytes wait, those of most bytes first."""
        waiting = [(inode.waiting_bytes, inode) for inode in list(self._inodes.values())]
        return [inode for count, inode in sorted(waiting, key=lambda pair: -pair[0]) if count]

    def relieve(self) -> None:
        """Show the bytes of one file, the one with most of them first. Raises MetaError when none could be shown."""
        error: MetaError | None = None
        waiting = self._waiting()
        for inode in waiting:
            try:
                inode.commit()
            except MetaError as failed:
                error = failed
            else:
                return
        if error is not None:
            raise error

    def flush_soon(self, inode: OpenInode) -> None:
        """Show a file's bytes in the background, unless that is under way."""
        with self._mutex:
            if id(inode) in self._flushing or self._closed:
                return
            self._flushing.add(id(inode))
        self._flushers.submit(self._flush_quietly, inode)

    def _flush_quietly(self, inode: OpenInode) -> None:
        """Show a file's bytes; what fails stays in memory, and is tried again and told by the next fsync or close."""
        try:
            inode.commit()
        except StokerError:
            return
        finally:
            with self._mutex:
                self._flushing.discard(id(inode))

    def flush_old(self) -> None:
        """Show bytes that have waited long enough; files that were only made are kept too."""
        with suppress(StokerError):  # files stay open in the session: it ends them
            self.works.commits.settle()
        if self._loose:
            self._loose = False
            with suppress(StokerError):  # promised to nobody: who asks for it is told
                self.metadata.make_durable()
        now_ns, limit_ns = self._clock(), int(self.options.flush_seconds * 1e9)
        for inode in list(self._inodes.values()):
            since_ns = inode.dirty_since_ns
            if since_ns and now_ns - since_ns >= limit_ns:
                self.flush_soon(inode)

    def flush_all(self) -> None:
        """Show everything that was written. Raises the first MetaError, once all was tried."""
        error: MetaError | None = None
        for inode in self._waiting():
            try:
                inode.commit()
            except MetaError as failed:
                error = error or failed
        if error is not None:
            raise error

    def tick(self) -> None:
        """Do what the client's threads do: renew the session, show what has waited long enough."""
        self.session.renew()
        self.flush_old()

    # -- the end

    def _lost(self, number: int) -> None:
        """Let the files of a session that is over refuse from now on; what they had not shown is gone."""
        with self._mutex:
            gone = [inode for (session, _), inode in self._inodes.items() if session == number]
            self._inodes = {key: inode for key, inode in self._inodes.items() if key[0] != number}
        if self.holds is not None:
            self.holds.lost()
        for inode in gone:
            inode.drop(stale=True)

    def counters(self) -> dict[str, int]:
        """Return what the client has done, in numbers."""
        facts: dict[str, int] = msgspec.structs.asdict(self.works.counters)
        facts["waiting_bytes"] = self.works.budget.used_bytes
        facts["waiting_bytes_peak"] = self.works.budget.peak_bytes
        facts["memory_bytes"] = self.works.blocks.cache.held_bytes
        facts["commits"] = self.works.commits.commits
        facts["packs"] = self.works.commits.packs
        facts["commits_served"] = self.works.commits.served
        facts["session_renewals"] = self.session.renewals
        facts["sessions_lost"] = self.session.lost
        return facts

    def close(self) -> None:
        """Show what was written, close all files and end the session; closing twice is harmless."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        for keeper in self._keepers:
            keeper.stop()
        self._flushers.shutdown()
        try:
            self.flush_all()
            if self.holds is not None:
                self.holds.close()
        finally:
            self._pool.shutdown()
            self.works.blocks.cache.clear()
            self.session.end()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sees_content(request: Request[Any]) -> TypeGuard[SetAttr | Fallocate | ReadExtents | Open | Peek]:
    """Tell whether a request is about what a file shows, or sets what showing it would set again."""
    if isinstance(request, Open):
        return request.truncate
    return isinstance(request, SetAttr | Fallocate | ReadExtents) or (isinstance(request, Peek) and not request.name)
