"""Writing one rank's files: content is made in one thread while another hands it to the store.

Memory is bounded by the buffers that are given, whatever the files' size. A file appears whole or not at all, which is
the store's promise; that the checkpoint does is the manifest's (`stoker.checkpoint.manifest`).
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from stoker.checkpoint.buffers import Buffers
from stoker.checkpoint.content import ShardContent
from stoker.checkpoint.layout import ShardFile
from stoker.checkpoint.timing import StageClock
from stoker.core import clock
from stoker.core.checkpoints import COMMIT, STAGE, WRITE
from stoker.core.errors import InterruptedRunError, StokerError, UsageError
from stoker.storage.api import Store, SupportsMultipart


class Shard(NamedTuple):
    """A file to write or read: its key in the store, its layout and its content."""

    key: str
    file: ShardFile
    content: ShardContent


class Staging(NamedTuple):
    """What writing may take: `buffers` of `buffer_bytes` for `writers` files at once."""

    buffers: int
    buffer_bytes: int
    writers: int = 1

    @property
    def memory_bytes(self) -> int:
        """Return the most memory that staging takes."""
        return self.per_writer * max(1, self.writers) * self.buffer_bytes

    @property
    def per_writer(self) -> int:
        """Return the buffers of each writer, two at least: one is filled while the other is written."""
        return max(2, self.buffers // max(1, self.writers))


class Writer:
    """Writes shards, again and again, with the same memory. One save at a time."""

    def __init__(self, store: Store, staging: Staging) -> None:
        """Raises UsageError for a store that cannot take objects piece by piece."""
        if not isinstance(store, SupportsMultipart):
            raise UsageError("store takes no objects in parts, so no checkpoints", where=store.url)
        self._store = store
        self._pools = [Buffers(staging.per_writer, staging.buffer_bytes) for _ in range(max(1, staging.writers))]

    def warm(self, shards: Sequence[Shard]) -> None:
        """Touch the memory that writing these shards will take, so that no clock runs while it is mapped."""
        size = sum(shard.file.size_bytes for shard in shards)
        for pool in self._pools:
            pool.warm(size // max(1, len(self._pools)))

    def write(
        self,
        shards: Sequence[Shard],
        clock_of: StageClock,
        *,
        on_bytes: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write all shards; when this returns they are as durable as the store makes a finished put.

        `on_bytes` is called with the size of each piece that the store has taken, from any thread. Raises
        InterruptedRunError when `stopped` says so, and what the store raises; of the file at hand nothing is left then.
        """
        todo: queue.SimpleQueue[Shard] = queue.SimpleQueue()
        for shard in shards:
            todo.put(shard)
        errors: list[BaseException] = []

        def halted() -> bool:
            return bool(errors) or stopped()

        def work(pool: Buffers) -> None:
            try:
                with closing(_Filled(todo, pool, halted)) as filled:
                    while (shard := filled.begin()) is not None:
                        _write_one(self._store, shard, filled, clock_of, on_bytes)
            except BaseException as error:
                errors.append(error)

        others = [threading.Thread(target=work, args=(pool,), name="stoker-shard") for pool in self._pools[1:]]
        for thread in others:
            thread.start()
        work(self._pools[0])
        for thread in others:
            thread.join()
        if errors:
            raise next((error for error in errors if not isinstance(error, InterruptedRunError)), errors[0])
        if stopped():
            raise InterruptedRunError("writing of the checkpoint was stopped")


def _next(todo: "queue.SimpleQueue[Shard]") -> Shard | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


def _write_one(
    store: Store, shard: Shard, filled: "_Filled", clock_of: StageClock, on_bytes: Callable[[int], None]
) -> None:
    assert isinstance(store, SupportsMultipart)
    pieces = _Pieces(filled, clock_of, on_bytes)
    info = store.put_parts(shard.key, pieces.views())
    clock_of.add(COMMIT, clock.monotonic_ns() - pieces.last_ns)
    if info.size_bytes != shard.file.size_bytes:
        raise StokerError(
            "store took another number of bytes than the file has",
            where=f"{store.url} {shard.key}",
            expected=f"{shard.file.size_bytes}",
            got=f"{info.size_bytes}",
        )


class _Filled:
    """The pieces of shard after shard, filled by a thread of their own as far ahead as there are buffers.

    So the next file's content is made while the one before is being made durable.
    """

    def __init__(self, todo: "queue.SimpleQueue[Shard]", pool: Buffers, halted: Callable[[], bool]) -> None:
        self._todo, self._pool, self._halted = todo, pool, halted
        self._ready: queue.SimpleQueue[Shard | memoryview | BaseException | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="stoker-fill")
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._given_up() and (shard := _next(self._todo)) is not None:
                self._ready.put(shard)
                self._fill(shard)
                self._ready.put(None)
            if self._given_up():
                raise InterruptedRunError("writing of the checkpoint was stopped")
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _fill(self, shard: Shard) -> None:
        offset, size = 0, shard.file.size_bytes
        while offset < size:
            view = self._pool.acquire(given_up=self._given_up)
            if view is None:
                raise InterruptedRunError("writing of the checkpoint was stopped")
            view = view[: size - offset]
            shard.content.fill(view, offset)
            offset += view.nbytes
            self._ready.put(view)
            del view  # else this thread would hold it until the next one is filled

    def _given_up(self) -> bool:
        return self._closed or self._halted()

    def _take(self) -> Shard | memoryview | None:
        taken = self._ready.get()
        if isinstance(taken, BaseException):
            raise taken
        return taken

    def begin(self) -> Shard | None:
        """Return the next shard, None behind the last one. Raises what filling raised."""
        taken = self._take()
        assert not isinstance(taken, memoryview)
        return taken

    def take(self) -> memoryview | None:
        """Return the shard's next piece, None behind its last one. Raises what filling raised."""
        taken = self._take()
        assert not isinstance(taken, Shard)
        return taken

    def nudge(self) -> None:
        """Tell the filling thread that a buffer may have come free."""
        self._pool.nudge()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._pool.nudge()
        self._thread.join()


class _Pieces:
    """Hands a shard's pieces to the store, and enters how long either waited for the other."""

    def __init__(self, filled: _Filled, clock_of: StageClock, on_bytes: Callable[[int], None]) -> None:
        self._filled, self._clock, self._on_bytes = filled, clock_of, on_bytes
        self.last_ns = clock.monotonic_ns()

    def views(self) -> Iterator[memoryview]:
        """Yield the pieces; the store asks for the next one when it can take it."""
        while True:
            asked_ns = clock.monotonic_ns()
            piece = self._filled.take()
            self.last_ns = given_ns = clock.monotonic_ns()
            self._clock.add(STAGE, given_ns - asked_ns)
            if piece is None:
                return
            size = piece.nbytes
            yield piece
            del piece
            self._clock.add(WRITE, clock.monotonic_ns() - given_ns)
            self._filled.nudge()
            self._on_bytes(size)
