"""What a transaction sees: a snapshot, its own writes over it, and a record of all that it has read.

Many requests share one view, one after the other; each can be undone by itself (`mark`, `undo`) without forgetting what
it has read, for its refusal rests on that.
"""

from typing import Final

from stoker.fs.meta.keys import HEAD_BYTES
from stoker.fs.meta.kv import KeyRange, Pair, ReadSet, Snapshot, bounds
from stoker.fs.meta.records import pack_count, unpack_count

_UNWRITTEN: Final = object()


class View:
    """One transaction in the making."""

    __slots__ = ("_base", "_heads", "_ranges", "_snapshot", "_undo", "writes")

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._base: dict[bytes, bytes | None] = {}
        self._ranges: list[KeyRange] = []
        self._undo: list[tuple[bytes, object]] = []
        self._heads: dict[bytes, set[bytes]] = {}
        self.writes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key` as this transaction sees it."""
        if key in self.writes:
            return self.writes[key]
        if key in self._base:
            return self._base[key]
        value = self._base[key] = self._snapshot.get(key)
        return value

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write `value`; None deletes."""
        self._undo.append((key, self.writes.get(key, _UNWRITTEN)))
        self.writes[key] = value
        head = self._heads.get(key[:HEAD_BYTES])
        if head is None:
            self._heads[key[:HEAD_BYTES]] = {key}
        else:
            head.add(key)

    def delete(self, key: bytes) -> None:
        """Delete `key`."""
        self.put(key, None)

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order as `Snapshot.scan` does, with this transaction's writes. Prefixes name a number."""
        assert len(prefix) >= 1
        start, end = bounds(prefix, after)
        ours = {key: self.writes[key] for key in self._written(prefix) if key >= start and (not end or key < end)}
        deleted = sum(value is None for value in ours.values())
        below = self._snapshot.scan(prefix, after, None if limit is None else limit + deleted)
        whole = limit is None or len(below) < limit + deleted
        # Up to the last key seen where the scan stopped early: what lies behind it was not read.
        read_end = end if whole else below[-1][0] + b"\0"
        self._ranges.append(KeyRange(start, read_end, len(below)))
        merged = {key: value for key, value in below if key not in ours}
        for key, value in ours.items():
            if value is not None and (not read_end or key < read_end):
                merged[key] = value
        pairs = sorted(merged.items())
        return pairs if limit is None else pairs[:limit]

    def _written(self, prefix: bytes) -> list[bytes]:
        if len(prefix) >= HEAD_BYTES:
            ours = self._heads.get(prefix[:HEAD_BYTES], ())
            return [key for key in ours if key.startswith(prefix) and key in self.writes]
        return [key for key in self.writes if key.startswith(prefix)]

    def count(self, key: bytes) -> int:
        """Return a counter."""
        return unpack_count(self.get(key))

    def add(self, key: bytes, difference: int) -> int:
        """Change a counter and return what it was."""
        before = unpack_count(self.get(key))
        self.put(key, pack_count(before + difference))
        return before

    def mark(self) -> int:
        """Return a place to go back to."""
        return len(self._undo)

    def undo(self, mark: int) -> None:
        """Take back what was written since `mark`; what was read stays read."""
        while len(self._undo) > mark:
            key, before = self._undo.pop()
            if before is _UNWRITTEN:
                del self.writes[key]
            else:
                assert before is None or isinstance(before, bytes)
                self.writes[key] = before

    def read_set(self) -> ReadSet:
        """Return all that was read from the snapshot."""
        keys = {key: value is not None for key, value in self._base.items()}
        return ReadSet(self._snapshot.revision, keys, tuple(self._ranges))
