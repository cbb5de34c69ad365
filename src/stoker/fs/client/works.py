"""What all open files of a client share: metadata, store, numbers, threads, bounds, and how failures are met."""

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from stoker.core.errors import TransientError, UnavailableError
from stoker.fs.client.blocks import BlockReader
from stoker.fs.client.budget import Budget
from stoker.fs.client.commits import CommitGroup, Keeping
from stoker.fs.client.counters import Counters
from stoker.fs.client.entries import EntryCache
from stoker.fs.client.folders import Folders
from stoker.fs.client.numbers import TakenNumbers
from stoker.fs.client.options import ClientOptions
from stoker.fs.client.session import Session
from stoker.fs.meta.calls import FREED, USED, Caller, JudgeSlices, Request, TakeSlices
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes, SliceStore

A = TypeVar("A")
T = TypeVar("T")
_SUPERUSER = Caller()


class Inline(Executor):
    """Does everything at once, in the caller's thread: for who wants one thread only."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        """Do it and return its outcome."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class Works:
    """Shared by the open files of a client. Time and threads are handed in."""

    def __init__(
        self,
        metadata: Metadata,
        store: SliceStore,
        options: ClientOptions,
        *,
        session: Session,
        pool: Executor,
        clock: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self.metadata = metadata
        self.store = store
        self.options = options
        self.session = session
        self.pool = pool
        self.clock = clock
        self.counters = Counters()
        self.numbers = TakenNumbers(metadata, options.slice_numbers, TakeSlices)
        self.budget = Budget(options.buffer_bytes)
        keep = Keeping(lambda slices: self.patiently(lambda: store.make_durable(slices)), self.store_durably)
        self.commits = CommitGroup(metadata, keep)
        self.blocks = BlockReader(store, options, self.counters)
        self.puts_off = not options.strict and not isinstance(pool, Inline)
        self.folders = Folders(0.0 if options.strict else options.attribute_seconds)
        self.entries = EntryCache(0.0 if options.strict else options.entry_seconds)
        self._sleep = sleep

    def patiently(self, task: Callable[[], T]) -> T:
        """Do a task, again when it fails for a passing reason, as often and as late as the options say."""
        pause_seconds = self.options.pause_seconds
        for _ in range(self.options.attempts - 1):
            try:
                return task()
            except (TransientError, UnavailableError):
                self.counters.retries += 1
                self._sleep(pause_seconds)
                pause_seconds *= 2
        return task()

    def ask(self, request: Request[A], *, session: int, caller: Caller = _SUPERUSER) -> A:
        """Do a request of an open file. Notes when the session turns out to be over."""
        try:
            return self.patiently(lambda: self.metadata.run(request, caller=caller, session=session))
        except MetaError as error:
            if error.errno == errno.ESTALE:
                self.session.lose(session)
            raise

    def shown_slices(self, slices: Sequence[Slice]) -> set[Slice]:
        """Return those slices that a file shows, or has shown."""
        answer = self.metadata.run(JudgeSlices(tuple(data.id for data in slices), 0))
        return {data for data, verdict in zip(slices, answer.verdicts, strict=True) if verdict in (USED, FREED)}

    def new_slice(self, size_bytes: int, session: int, storage_class: int) -> Slice:
        """Return a slice that nobody else has, to be shown in a session."""
        return Slice(self.numbers.take(session), 0, size_bytes, storage_class)

    def store_slice(self, data: Slice, content: Bytes) -> None:
        """Store a slice, patiently; it is durable only later."""
        self.patiently(lambda: self.store.write(data, [content], durable=False))
        self.counters.stored_slices += 1
        self.counters.stored_bytes += data.size_bytes

    def store_durably(self, parts: Sequence[Bytes], session: int, storage_class: int) -> Slice:
        """Store bytes as one new slice, durably, and return it."""
        data = self.new_slice(sum(len(part) for part in parts), session, storage_class)
        self.patiently(lambda: self.store.write(data, parts, durable=True))
        self.counters.stored_slices += 1
        self.counters.stored_bytes += data.size_bytes
        return data

    def store_all(self, contents: Iterable[Bytes], session: int, storage_class: int) -> list[Slice]:
        """Store slices, several at once, and return them. Raises what the first that failed raised.

        The contents are taken one by one, and few are in memory at once.
        """
        slices: list[Slice] = []
        flying: deque[Future[None]] = deque()
        source = iter(contents)
        content = next(source, None)
        try:
            while content is not None:
                data = self.new_slice(len(content), session, storage_class)
                slices.append(data)
                following = next(source, None)
                if following is None:
                    self.store_slice(data, content)  # the last, or only one: no other thread is needed
                else:
                    flying.append(self.pool.submit(self.store_slice, data, content))
                if len(flying) >= self.options.threads:
                    flying.popleft().result()
                content = following
            while flying:
                flying.popleft().result()
        finally:
            for future in flying:
                future.exception()
        return slices
