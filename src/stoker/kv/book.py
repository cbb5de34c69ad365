"""Which entry lies in which tier, and who has to make room for whom. No bytes are moved here.

A new entry goes to the first tier that takes it. A tier above the last is emptied down to 80 % for it, takes nothing
larger than 95 % of its capacity, and demotes what was used longest ago to the next tier that takes it; the last tier
deletes. Nothing ever moves up again. Entries in use (`pins`) stay where they are.
"""

import heapq
import threading
from dataclasses import dataclass, field
from typing import Final, NamedTuple

FILL_RATIO: Final = 0.8
LARGE_RATIO: Final = 0.95
_SLACK: Final = 64


@dataclass(eq=False, slots=True)
class Entry:
    """An entry. `tier` is the number of its tier, -1 once it is gone; `ready` is set while its bytes lie there.

    `reading` is held by who must be its only reader."""

    key: str
    tokens: int
    size_bytes: int
    tier: int
    used: int = 0
    pins: int = 0
    reads: int = 0
    failed: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    reading: threading.Lock = field(default_factory=threading.Lock)


class Move(NamedTuple):
    """An entry leaves tier `source` for `target`, or for good where that is None."""

    entry: Entry
    source: int
    target: int | None


class Placement(NamedTuple):
    """Where a new entry goes (pinned, not ready), and what must be moved before, in this order."""

    entry: Entry
    moves: list[Move]


class _Shelf:
    """One tier's entries, by when they were used last."""

    def __init__(self, capacity_bytes: int, *, last: bool) -> None:
        self.capacity_bytes = capacity_bytes
        self.limit_bytes = capacity_bytes if last else int(capacity_bytes * LARGE_RATIO)
        self.target_bytes = capacity_bytes if last else int(capacity_bytes * FILL_RATIO)
        self.entries: dict[str, Entry] = {}
        self.used_bytes = self.used_bytes_max = self.pinned_bytes = 0
        self._order: list[tuple[int, str]] = []

    def add(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        self.used_bytes += entry.size_bytes
        self.used_bytes_max = max(self.used_bytes_max, self.used_bytes)
        self.pinned_bytes += entry.size_bytes if entry.pins else 0
        heapq.heappush(self._order, (entry.used, entry.key))

    def drop(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self.used_bytes -= entry.size_bytes
        self.pinned_bytes -= entry.size_bytes if entry.pins else 0

    def used_again(self, entry: Entry) -> None:
        """Note that the entry was used; its older places in the order are passed over later."""
        heapq.heappush(self._order, (entry.used, entry.key))
        if len(self._order) > 2 * len(self.entries) + _SLACK:
            self._order = [(each.used, each.key) for each in self.entries.values()]
            heapq.heapify(self._order)

    def excess(self, size_bytes: int) -> int:
        """Return how much must leave before so many bytes come."""
        return self.used_bytes + size_bytes - max(self.target_bytes, size_bytes)

    def victims(self, excess_bytes: int) -> list[Entry]:
        """Return entries that nobody uses, the longest unused first, which together free so much."""
        found, kept = [], []
        while excess_bytes > 0 and self._order:
            used, key = item = heapq.heappop(self._order)
            entry = self.entries.get(key)
            if entry is None or entry.used != used:
                continue
            kept.append(item)
            if not entry.pins:
                found.append(entry)
                excess_bytes -= entry.size_bytes
        for item in kept:
            heapq.heappush(self._order, item)
        return found


class Book:
    """All tiers, the fastest first. Not safe from several threads: its owner holds a lock."""

    def __init__(self, capacities: list[int]) -> None:
        """`capacities` are in bytes, one a tier."""
        self._shelves = [_Shelf(size, last=at == len(capacities) - 1) for at, size in enumerate(capacities)]
        self._entries: dict[str, Entry] = {}
        self._uses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key, None when there is none."""
        return self._entries.get(key)

    def keys(self, tier: int) -> list[str]:
        """Return the keys of a tier's entries."""
        return list(self._shelves[tier].entries)

    def used_bytes(self, tier: int) -> tuple[int, int]:
        """Return the bytes that lie in a tier, and the most that ever did."""
        shelf = self._shelves[tier]
        return shelf.used_bytes, shelf.used_bytes_max

    def forget_peaks(self) -> None:
        """Let the most that ever lay in each tier be what lies there now."""
        for shelf in self._shelves:
            shelf.used_bytes_max = shelf.used_bytes

    def use(self, entry: Entry) -> None:
        """Pin an entry and make it the one used last."""
        self._uses += 1
        entry.used = self._uses
        self.pin(entry)
        self._shelves[entry.tier].used_again(entry)

    def pin(self, entry: Entry) -> None:
        """Keep an entry where it is until as many `unpin` calls."""
        if not entry.pins:
            self._shelves[entry.tier].pinned_bytes += entry.size_bytes
        entry.pins += 1

    def unpin(self, entry: Entry) -> None:
        """Give an entry free again."""
        entry.pins -= 1
        if not entry.pins and entry.tier >= 0:
            self._shelves[entry.tier].pinned_bytes -= entry.size_bytes

    def remove(self, entry: Entry) -> None:
        """Forget an entry, pinned or not."""
        self._shelves[entry.tier].drop(entry)
        entry.tier = -1
        del self._entries[entry.key]

    def place(self, key: str, tokens: int, size_bytes: int) -> Placement | None:
        """Enter a new entry where it will lie, with all that moves for it; None when no tier takes it.

        What moves is entered where it goes, pinned and not ready: whoever moves the bytes says when it is.
        """
        moves: list[Move] = []
        for tier in range(len(self._shelves)):
            if self._room(tier, size_bytes, moves):
                self._uses += 1
                entry = Entry(key, tokens, size_bytes, tier, used=self._uses, pins=1)
                self._entries[key] = entry
                self._shelves[tier].add(entry)
                return Placement(entry, moves)
        return None

    def _room(self, tier: int, size_bytes: int, moves: list[Move]) -> bool:
        """Make room in a tier, all of it or nothing."""
        shelf = self._shelves[tier]
        excess = shelf.excess(size_bytes)
        if size_bytes > shelf.limit_bytes or excess > shelf.used_bytes - shelf.pinned_bytes:
            return False
        for entry in shelf.victims(excess):
            self._demote(entry, tier, moves)
        return True

    def _demote(self, entry: Entry, tier: int, moves: list[Move]) -> None:
        target = next(
            (at for at in range(tier + 1, len(self._shelves)) if self._room(at, entry.size_bytes, moves)), None
        )
        if target is None:
            self.remove(entry)
        else:
            self._shelves[tier].drop(entry)
            entry.tier = target
            entry.pins = 1
            self._shelves[target].add(entry)
        entry.ready.clear()
        moves.append(Move(entry, tier, target))
