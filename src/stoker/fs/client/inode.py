"""One file as a client has it open, for all its handles: what is written and not shown yet, and what shows.

Bytes go through three states. Written ones lie in a buffer and may be written over. Sealed ones no longer change: they
are stored as slices, several at once. A commit makes the slices durable and shows them in one transaction; only then
are the bytes let go of. So whatever fails before can be tried again, and nothing that was acknowledged depends on it.
"""

import errno
import threading
from collections.abc import Sequence

from stoker.core.errors import NotFoundError, StokerError
from stoker.fs.client.buffer import Buffer
from stoker.fs.client.commits import DurabilityError
from stoker.fs.client.compaction import Layers, compact
from stoker.fs.client.doubt import runs_shown
from stoker.fs.client.errors import as_refusal, stale
from stoker.fs.client.gather import gather, ranges_of
from stoker.fs.client.layout import Layout
from stoker.fs.client.making import RETRIABLE, Making
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.client.packs import LOOSE_BYTES_MAX, Loose, Part
from stoker.fs.client.runs import Piece, Run, awaited, joined, write_call
from stoker.fs.client.spans import Span, painted, shown_spans
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Answer, Done, Extents, Number, Peeked, Refusal
from stoker.fs.meta.calls import Call, Caller, GetAttr, Peek, ReadExtents
from stoker.fs.meta.context import drop_privileges
from stoker.fs.meta.faults import MetaError, meta_error
from stoker.fs.meta.records import Attr
from stoker.fs.meta.slices import CHUNK_BYTES
from stoker.fs.store.interface import Bytes

_READ_ATTEMPTS = 3


class OpenInode:
    """A file that handles of one session have open. Its methods may be called from many threads."""

    def __init__(self, works: Works, ino: int, session: int, attr: Attr) -> None:
        self.ino = ino
        self.session = session
        self.handles = self.light = 0  # light: how many of them are not open in the session
        self.where = f"inode {ino}"
        self.layout = Layout(works.options.attribute_seconds, attr)
        self._works = works
        self._lock = threading.RLock()  # over all below, never held while a store or the metadata works
        self.commit_lock = threading.Lock()  # of who commits: what is sealed first is shown first
        self._buffer = Buffer()
        self._append = bytearray()
        self._append_at = 0
        self._runs: list[Run] = []
        self._caller = Caller()
        self._written_ns = 0
        self._dirty_since_ns = 0
        self._stale = False
        self._in_doubt: Sequence[Call] | None = None  # what was asked with runs of which nobody knows if they show
        self._lost_error: MetaError | None = None
        self.losses = 0  # how often bytes were given up: a handle that has seen fewer is to be told
        self._layers = Layers()
        self.making = Making(works, self.where)

    # -- facts

    @property
    def waiting_bytes(self) -> int:
        """Return how many bytes are written and not shown yet."""
        with self._lock:
            return self._buffer.held_bytes + len(self._append) + sum(run.size_bytes for run in self._runs)

    @property
    def dirty_since_ns(self) -> int:
        """Return since when bytes wait, 0 when none do."""
        return self._dirty_since_ns

    @property
    def size_bytes(self) -> int:
        """Return the file's size with what is not shown yet."""
        with self._lock:
            ends = [self.layout.size_bytes, self._buffer.end, *(run.end for run in self._runs)]
            if self._append:
                ends.append(self._append_at + len(self._append))
            return max(ends)

    def right(self, attr: Attr, generation: int) -> Attr:
        """Return attributes as they are with what is not shown yet. `generation` is from before they were asked."""
        with self._lock:
            if generation == self.layout.generation:
                self.layout.learn(attr, self._works.clock())
            if not self._dirty_since_ns:
                return attr
            attr.size_bytes = max(attr.size_bytes, self.size_bytes)
            attr.mtime_ns = attr.ctime_ns = max(attr.mtime_ns, self._written_ns)
            if self._caller.uid:
                drop_privileges(attr)
            return attr

    # -- writing

    def write(self, offset: int, data: memoryview, caller: Caller) -> None:
        """Lay bytes into the buffer, whose room was taken before; full pieces begin to be stored."""
        with self._lock:
            self._check_room(len(data))
            self._seal_append()
            grown = self._buffer.write(offset, data)
            self._works.budget.give(len(data) - grown)
            self._note(caller)
            self._seal([(one.offset, one.data) for one in self._buffer.take_full()])

    def append(self, data: memoryview, caller: Caller) -> int:
        """Put bytes, whose room was taken before, behind the file's end as it is known; return where."""
        with self._lock:
            self._check_room(len(data))
            if not self._append:
                self._seal([(one.offset, one.data) for one in self._buffer.take_all()])
                self._append_at = self.size_bytes
            at = self._append_at + len(self._append)
            self._append += data
            self._note(caller)
            if len(self._append) >= PIECE_BYTES:
                self._seal_append()
            return at

    def append_now(self, data: memoryview, caller: Caller) -> int:
        """Put bytes behind the file's end and show them; return where they are."""
        with self._lock:
            at = self.append(data, caller)
            self._seal_append()
            run = self._runs[-1]
            place = at - run.offset
        self.commit()
        return run.at + place

    def _note(self, caller: Caller) -> None:
        now_ns = self._works.clock()
        self._written_ns = now_ns
        self._dirty_since_ns = self._dirty_since_ns or now_ns
        if caller.uid or not self._caller.uid:
            self._caller = caller

    def _seal_append(self) -> None:
        if self._append:
            data, self._append = self._append, bytearray()
            self._seal([(self._append_at, data)], append=True)

    def _seal(self, parts: Sequence[tuple[int, bytearray]], *, append: bool = False) -> None:
        for offset, data in parts:
            run = Run(offset, data, append=append, caller=self._caller, written_ns=self._written_ns)
            self._runs.append(run)
            for piece in run.pieces:
                if len(piece.data) == PIECE_BYTES:
                    self._begin(piece)

    def _begin(self, piece: Piece) -> None:
        """Let a piece be stored by another thread."""
        piece.future = self._works.pool.submit(self._store, piece)

    def _store(self, piece: Piece) -> None:
        new = self._works.new_slice(len(piece.data), self.session, self.layout.storage_class)
        self._works.store_slice(new, piece.data)
        piece.slice = new

    def _check_room(self, count: int) -> None:
        """Raise MetaError (ESTALE), and give the room back, when nothing can be written any more."""
        if self._stale:
            self._works.budget.give(count)
        self._check_alive()

    def _check_alive(self) -> None:
        if self._stale:
            raise stale(self.where)

    # -- committing

    def commit(self, last: Sequence[Call] = (), answers: list[Answer] | None = None) -> bool:
        """Show all that was written, durably, and do the calls `last` in the same transaction; tell if there was any.

        `answers` gets those of `last` when they were done, even where an error is raised. Raises MetaError: what may
        succeed later is kept, and the next commit tries again; the rest is given up, told to each handle once.
        """
        shown = self._commit(last, answers)
        with self._lock:
            due = [] if last else self._layers.due()  # a file that was closed cannot be changed
        for place in due:
            self._works.pool.submit(self._compact, place)
        return shown

    def _compact(self, place: int) -> None:
        """Store a place again that shows many slices, unless the file is being committed: then the next commit asks."""
        if not self.commit_lock.acquire(blocking=False):
            return
        try:
            with self._lock:
                if self._stale or place not in self._layers.due():
                    return
                self._layers.done(place)
            if compact(self._works, self.ino, self.session, place):
                self._works.counters.compacted += 1
                self.changed()
        except (StokerError, DurabilityError):
            return  # all shows as before; what was stored is garbage once the session is over
        finally:
            self.commit_lock.release()

    def _commit(self, last: Sequence[Call], answers: list[Answer] | None) -> bool:
        with self.commit_lock:
            with self._lock:
                runs, changes = self._sealed(), self.making.changes
            if not runs:
                return False
            told: list[Answer] = [] if answers is None else answers
            try:
                self._store_runs(runs)
                self._works.patiently(lambda: self._show(runs, last, told))
            except DurabilityError as failed:
                # What a disk says it could not keep may be half there: the next attempt stores it as new slices.
                for piece in (piece for run in runs for piece in run.pieces):
                    piece.put_into(None)
                self._works.counters.flush_failures += 1
                raise as_refusal(failed.error, "write", self.where) from failed.error
            except StokerError as error:
                self._works.counters.flush_failures += 1
                if isinstance(error, MetaError) and error.errno == errno.ESTALE:
                    self._works.session.lose(self.session)
                raise as_refusal(error, "write", self.where) from error
            self.making.kept(changes)
            return True

    def tell(self) -> None:
        """Have the metadata know of the file. Raises MetaError when it does not want it, and what asking raises."""
        if self.making.is_owed:
            with self.commit_lock:
                self.making.tell()

    def keep_changes(self) -> None:
        """Have what opening has changed survive a power failure, unless it does. Raises MetaError, StoreError."""
        with self.commit_lock:
            self.making.tell()
            self.making.keep()

    def _sealed(self) -> list[Run]:
        self._seal_append()
        self._seal([(one.offset, one.data) for one in self._buffer.take_all()])
        return list(self._runs)

    def _store_runs(self, runs: Sequence[Run]) -> None:
        """Return when all pieces are stored, but for few bytes. Raises what the last that failed raised."""
        pieces = [piece for run in runs for piece in run.pieces]
        pending = [piece for piece in pieces if piece.future is None and piece.slice is None]
        if sum(len(piece.data) for piece in pending) <= LOOSE_BYTES_MAX:
            pending = []  # they are stored with those of other files
        for piece in pending[1:]:
            self._begin(piece)
        failed: BaseException | None = None
        if pending:
            try:
                self._store(pending[0])
            except StokerError as error:
                failed = error
        failed = awaited(pieces) or failed
        if failed is not None:
            raise failed

    def _settle(self, runs: Sequence[Run]) -> list[Run]:
        """Ask which runs are shown already, after an attempt of which nobody knows how it ended; return the others."""
        done = runs_shown(self._works, self.ino, runs)
        if done:
            self._works.metadata.make_durable()  # they show; that it survives was not answered
        with self._lock:
            self._release(done)
            self.layout.forget()
        self._in_doubt = None
        return [run for run in runs if run not in done]

    def _show(self, runs: Sequence[Run], last: Sequence[Call], told: list[Answer]) -> None:
        if self._in_doubt is not None:
            self.making.tell()
            before, in_doubt = len(runs), self._in_doubt
            runs = self._settle(runs)
            if len(runs) < before and last and in_doubt is last:
                told.append(Done())  # in the same transaction as what is shown
                last = ()
        groups, owed = joined(runs), self.making.calls()
        pieces = [piece for run in runs for piece in run.pieces]
        loose = [piece for piece in pieces if piece.slice is None]

        def calls(parts: Sequence[Part]) -> list[Call]:
            for piece, part in zip(loose, parts, strict=True):
                piece.put_into(part)
            return [*owed, *(write_call(self.ino, self.session, group) for group in groups), *last]

        alone = any(run.append for run in runs)  # whether it is shown must be known for sure
        contents = [Loose(piece.data, self.session, self.layout.storage_class, alone) for piece in loose]
        try:
            answers = self._works.commits.commit_loose([p.slice for p in pieces if p.slice], contents, calls)
        except StokerError:
            self._in_doubt = last
            raise
        told += answers[len(owed) + len(groups) :]
        self.making.take(answers[: len(owed)])
        self._take_answers(groups, answers[len(owed) :])

    def _take_answers(self, groups: Sequence[list[Run]], answers: Sequence[Answer]) -> None:
        """Let go of runs that are shown, or never will be. Raises MetaError for the first that is refused."""
        refused: tuple[Refusal, list[Run]] | None = None
        for group, answer in zip(groups, answers, strict=False):
            if isinstance(answer, Refusal):
                refused = refused or (answer, group)
                if answer.errno not in (*RETRIABLE, errno.ESTALE):
                    self._give_up(group, answer)
                for piece in (piece for run in group for piece in run.pieces if answer.errno == errno.EAGAIN):
                    piece.put_into(None)  # a pack that was freed
                continue
            if isinstance(answer, Number):
                group[0].at = answer.value
            self._layers.note(group)
            self._release(group)
        if refused is not None:
            raise meta_error(refused[0].errno, "write", self.where, refused[0].detail)

    def _release(self, runs: Sequence[Run]) -> None:
        """Let go of runs that are shown."""
        with self._lock:
            self._take_out(runs)
            self._works.entries.forget()
            if runs:
                self.layout.shown(runs[0].at, sum(run.size_bytes for run in runs))
            self._settled()

    def _take_out(self, runs: Sequence[Run]) -> int:
        """Take runs out of those that wait, unless they are out; return their bytes."""
        gone = set(map(id, runs))
        taken_bytes = sum(run.size_bytes for run in self._runs if id(run) in gone)
        self._runs = [run for run in self._runs if id(run) not in gone]
        self._works.budget.give(taken_bytes)
        return taken_bytes

    def _settled(self) -> None:
        if not self.waiting_bytes:
            self._dirty_since_ns = 0
            self._caller = Caller()

    def _give_up(self, runs: Sequence[Run], refusal: Refusal) -> None:
        """Let go of runs that can never be shown; each handle is told once."""
        with self._lock:
            self._works.counters.dropped_bytes += self._take_out(runs)
            self._lost_error = meta_error(refusal.errno, "write", self.where, refusal.detail)
            self.losses += 1
            self._settled()

    def drop(self, *, stale: bool = False) -> int:
        """Let go of all that is not shown; return how many bytes. With `stale` the file refuses from now on."""
        with self._lock:
            self._stale = self._stale or stale
            lost_bytes = self.waiting_bytes
            self._buffer = Buffer()
            self._append = bytearray()
            self._runs = []
            self._works.budget.give(lost_bytes)
            self._works.counters.dropped_bytes += lost_bytes
            self.losses += bool(lost_bytes)
            self._settled()
            return lost_bytes

    def loss(self) -> MetaError:
        """Return the error of bytes that were given up."""
        return self._lost_error or stale(self.where)

    # -- reading

    def read(self, offset: int, size: int, *, passing: bool = False) -> list[Bytes]:
        """Return the bytes of a range as far as the file goes, in pieces; see `BlockReader.read` for `passing`."""
        for attempt in range(_READ_ATTEMPTS):
            spans, end = self.spans(offset, size)
            try:
                return gather(self._works.blocks, [(spans, offset, end)], passing=passing)[0]
            except NotFoundError:
                # The slice may have been freed and removed since its extents were read: look again.
                if attempt == _READ_ATTEMPTS - 1:
                    raise
                with self._lock:
                    self.layout.forget()
        raise AssertionError("unreachable")

    def spans(self, offset: int, size: int) -> tuple[list[Span], int]:
        """Return what a range consists of, between lie zeros, and where it ends."""
        while True:
            generation = self._look(offset, size)
            with self._lock:
                self._check_alive()
                if generation != self.layout.generation or not self.layout.covers(offset, size):
                    continue
                end = min(offset + size, self.size_bytes)
                spans = self.layout.spans(offset, min(end, self.layout.size_bytes))
                for span in self._unshown(offset, end):
                    spans = painted(spans, span)
                return spans, end

    def _unshown(self, start: int, stop: int) -> list[Span]:
        """Return what is written and not shown yet in a range, the newest last."""
        found = [span for run in self._runs if run.offset < stop and run.end > start for span in run.spans()]
        found += [Span(at, at + len(data), data, 0) for at, data in self._buffer.within(start, stop)]
        if self._append:
            found.append(Span(self._append_at, self._append_at + len(self._append), bytes(self._append), 0))
        return [span.clipped(start, stop) for span in found if span.start < stop and span.stop > start]

    def all_spans(self, offset: int) -> tuple[list[Span], int]:
        """Return what the file consists of from `offset` on, and where it ends; for who may only write, too."""
        self.tell()
        while True:
            generation = self.layout.generation
            found = self._works.ask(Peek(self.ino), session=0)
            with self._lock:
                if generation != self.layout.generation:
                    continue
                self.layout.learn(found.attr, self._works.clock())
                end = self.size_bytes
                spans = shown_spans(found.shown, offset, end)
                for span in self._unshown(offset, end):
                    spans = painted(spans, span)
                return spans, end

    def fetch_ahead(self, start: int, stop: int) -> None:
        """Have the bytes of a range in memory. Whatever goes wrong is told to who reads them."""
        try:
            spans, _ = self.spans(start, stop - start)
            self._works.counters.ahead_bytes += self._works.blocks.fetch_ahead(ranges_of(spans))
        except StokerError:
            return

    def _look(self, offset: int, size: int) -> int:
        """Have extents of a range at hand, and return the generation that they are of."""
        works, layout = self._works, self.layout
        with self._lock:
            self._check_alive()
            generation = layout.generation
            if works.options.strict:
                layout.forget_extents()
            elif layout.is_fresh(works.clock()):
                if layout.covers(offset, size):
                    works.counters.extent_hits += 1
                    return generation
            else:
                layout.doubt()
        self.tell()
        if layout.doubted:
            try:
                attr = works.ask(GetAttr(self.ino), session=self.session).attr
            except MetaError as error:
                if error.errno != errno.ENOENT or not self.light:
                    raise
                with self._lock:
                    layout.freeze()
                return generation
            with self._lock:
                if generation == layout.generation:
                    layout.learn(attr, works.clock())
                if layout.generation != generation or layout.covers(offset, size):
                    return layout.generation
        works.counters.extent_misses += 1
        start, stop = layout.wanted(offset, size)
        if self.light:  # nobody may have it open in the session
            found = works.ask(Peek(self.ino), session=0)
            start, answer = 0, Extents(found.shown, found.attr.size_bytes, found.attr.version)
            stop = max(stop, -(-found.attr.size_bytes // CHUNK_BYTES) * CHUNK_BYTES)
        else:
            answer = works.ask(ReadExtents(self.ino, start, stop - start), session=self.session)
        with self._lock:
            if generation == layout.generation:
                layout.add(start // CHUNK_BYTES, stop // CHUNK_BYTES, answer, works.clock())
            return layout.generation

    # -- what others, or requests, have changed

    def opened(self, attr: Attr, generation: int) -> None:
        """Take what opening the file has told; what others have shown is seen from now on."""
        with self._lock:
            if generation == self.layout.generation:
                self.layout.learn(attr, self._works.clock())
            else:
                self.layout.doubt()

    def peeked(self, found: Peeked, generation: int) -> None:
        """Take what looking at the file has told, all that shows with it."""
        with self._lock:
            if generation == self.layout.generation:
                answer = Extents(found.shown, found.attr.size_bytes, found.attr.version)
                stop = -(-found.attr.size_bytes // CHUNK_BYTES)
                self.layout.learn(found.attr, self._works.clock())
                self.layout.add(0, stop, answer, self._works.clock())
            else:
                self.layout.doubt()

    def changed(self, attr: Attr | None = None) -> None:
        """Forget what showed: a request has changed it, and answered `attr`."""
        with self._lock:
            self.layout.forget()
            if attr is not None:
                self.layout.learn(attr, self._works.clock())
