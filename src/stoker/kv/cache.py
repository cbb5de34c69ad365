"""A KV cache: entries written into tiers, read from where they lie, demoted and deleted to make room.

Whoever writes an entry moves, in its own thread, what has to make room for it, as inference servers do. Entries are
whole: one that is being written or moved is waited for, one that is read stays where it is.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final, NamedTuple

from stoker.core import seed
from stoker.core.errors import StokerError
from stoker.core.kvcache import DEMOTE_READ, DEMOTE_WRITE, READ, STORAGE, WRITE, KvPlan
from stoker.kv.account import Account
from stoker.kv.book import Book, Entry, Move
from stoker.kv.content import EntryContent, array_header, payload_bytes
from stoker.kv.memory import MemoryTier
from stoker.kv.spans import Spans
from stoker.kv.storage_tier import StorageTier
from stoker.kv.trace_log import EVICT, TraceLog
from stoker.storage.buffers import BufferPool

_WAIT_SECONDS: Final = 300.0


class Tier(NamedTuple):
    """A tier: its name, what holds its entries, and how many bytes that may be."""

    name: str
    held_in: MemoryTier | StorageTier
    capacity_bytes: int


class Done(NamedTuple):
    """What reading or writing an entry took, and where it lay."""

    tier: str
    tokens: int
    size_bytes: int
    span_ns: int


class KvCache:
    """The tiers of one rank. Safe from many threads."""

    def __init__(self, plan: KvPlan, tiers: Sequence[Tier], pool: BufferPool, *, content_seed: int) -> None:
        self._plan, self._tiers, self._pool, self._seed = plan, list(tiers), pool, content_seed
        self._book = Book([tier.capacity_bytes for tier in tiers])
        self._lock = threading.Lock()
        self._writing = threading.BoundedSemaphore(plan.allocations_max) if plan.allocations_max else nullcontext()
        self.account = Account([tier.name for tier in tiers])
        self.trace = TraceLog("")

    def begin(self, account: Account, trace: TraceLog) -> None:
        """Count in another account, and trace to another log, from now on."""
        with self._lock:
            self._book.forget_peaks()
        self.account, self.trace = account, trace

    def content(self, key: str, tokens: int) -> EntryContent:
        """Return what lies in an entry: this rank's share of the tokens' array."""
        plan = self._plan
        shape = plan.model.array_shape(tokens)
        size = payload_bytes(shape, plan.dtype)
        if plan.tensor_parallel > 1:
            size //= plan.tensor_parallel
            shape = (size // payload_bytes((1,), plan.dtype),)
        return EntryContent(self._seed, key, array_header(shape, plan.dtype), size)

    def holds(self, key: str) -> bool:
        """Tell whether an entry lies in some tier, or is on its way."""
        return self._book.find(key) is not None

    def keys(self) -> list[str]:
        """Return the keys of all entries."""
        with self._lock:
            return [key for tier in range(len(self._tiers)) for key in self._book.keys(tier)]

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, key: str, tokens: int, phase: str) -> Done | None:
        """Write a new entry and return what that took; None when no tier takes it, or it is there already."""
        content = self.content(key, tokens)
        with self._writing:
            with self._lock:
                if self._book.find(key) is not None:
                    return None
                placement = self._book.place(key, tokens, content.size_bytes)
            if placement is None:
                self.account.counted(rejected=1)
                return None
            entry = placement.entry
            try:
                for move in placement.moves:
                    self._move(move)
                tier = self._tiers[entry.tier]
                spans = tier.held_in.write(content)
            except BaseException:
                self._failed([entry, *(move.entry for move in placement.moves)])
                raise
            self._settle(entry)
        self.account.moved(tier.name, WRITE, content.size_bytes, spans)
        self.trace.row("Write", content.size_bytes, tier.name, key, phase)
        return Done(tier.name, tokens, content.size_bytes, spans.span_ns)

    def _move(self, move: Move) -> None:
        """Move an entry's bytes to where the book has them already, or delete them."""
        entry, source = move.entry, self._tiers[move.source]
        content = self.content(entry.key, entry.tokens)
        if move.target is None:
            source.held_in.delete(entry.key)
            lost = {"lost_entries": 1, "lost_bytes": entry.size_bytes} if not entry.reads else {}
            self.account.counted(**lost)
            self.account.tier_counted(source.name, deletes=1)
            self.trace.row("Write", entry.size_bytes, source.name, entry.key, EVICT)
            return
        target = self._tiers[move.target]
        spans = target.held_in.take(content, source.held_in.pieces(content))
        source.held_in.delete(entry.key)
        self.account.moved(source.name, DEMOTE_READ, entry.size_bytes, Spans())
        self.account.moved(target.name, DEMOTE_WRITE, entry.size_bytes, spans)
        self.account.tier_counted(source.name, demotions=1)
        self.trace.row("Read", entry.size_bytes, source.name, entry.key, EVICT)
        self.trace.row("Write", entry.size_bytes, target.name, entry.key, EVICT)
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        with self._lock:
            self._book.unpin(entry)
        entry.ready.set()

    def _failed(self, entries: Sequence[Entry]) -> None:
        """Forget entries that were under way: nobody knows how much of them lies there."""
        with self._lock:
            for entry in entries:
                if not entry.ready.is_set():
                    entry.failed = True
                    if entry.tier >= 0:
                        self._book.remove(entry)
                    entry.ready.set()

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, key: str, phase: str) -> Done | None:
        """Read an entry whole, look whether it is what was written, and return what that took; None when it is gone.

        Raises CorruptError for other bytes, and what the store raises.
        """
        with self._lock:
            entry = self._book.find(key)
            if entry is not None:
                self._book.use(entry)
        if entry is None:
            return None
        try:
            if not entry.ready.wait(_WAIT_SECONDS):
                raise StokerError(f"entry was not written within {_WAIT_SECONDS:g} s", where=key)
            if entry.failed:
                return None
            return self._read(entry, phase)
        finally:
            with self._lock:
                self._book.unpin(entry)

    def _read(self, entry: Entry, phase: str) -> Done:
        tier, plan = self._tiers[entry.tier], self._plan
        content = self.content(entry.key, entry.tokens)
        entry.reads += 1
        whole = plan.verify_ratio > 0 and _drawn(self._seed, entry) < plan.verify_ratio
        where = f"{tier.name} {entry.key}"
        with self._pool.acquire(min(plan.piece_bytes, content.size_bytes)) as lease:
            scratch = self._pool.acquire(lease.view.nbytes) if whole else None

            def look(start: int, piece: memoryview) -> None:
                if scratch is None:
                    content.check_stamps(start, piece, where=where)
                else:
                    content.check_whole(start, piece, scratch.view[: piece.nbytes], where=where)

            try:
                with entry.reading if tier.held_in.read_alone else nullcontext():
                    spans = tier.held_in.read(content, lease.view, look)
            finally:
                if scratch is not None:
                    scratch.release()
        self.account.moved(tier.name, READ, content.size_bytes, spans)
        checked = {"verified_bytes": content.size_bytes} if whole else {"stamped_bytes": content.size_bytes}
        self.account.counted(**checked)
        self.trace.row("Read", content.size_bytes, tier.name, entry.key, phase)
        return Done(tier.name, entry.tokens, content.size_bytes, spans.span_ns)

    # -- the end -----------------------------------------------------------------------------------------------------

    def fill_levels(self) -> None:
        """Enter what lies in each tier now, and the most that ever did, into the account."""
        with self._lock:
            for at, tier in enumerate(self._tiers):
                counts = self.account.tiers[tier.name]
                counts.entries = len(self._book.keys(at))
                counts.bytes, counts.bytes_max = self._book.used_bytes(at)

    def clear(self) -> int:
        """Delete every entry that nobody uses; return how many lay in storage. Not counted as the run's own deletes."""
        removed = 0
        for at, tier in enumerate(self._tiers):
            with self._lock:
                entries = [entry for key in self._book.keys(at) if (entry := self._book.find(key)) and not entry.pins]
                for entry in entries:
                    self._book.remove(entry)
            for entry in entries:
                tier.held_in.delete(entry.key)
            removed += len(entries) if tier.name == STORAGE else 0
        return removed


def _drawn(content_seed: int, entry: Entry) -> float:
    """Return a number in 0..1 for this read of this entry."""
    return seed.derive(content_seed, "kv-verify", entry.key, entry.reads) / 2**64
