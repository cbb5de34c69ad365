"""Ranges of one slice on their way from the shards: decides what to ask for next. No I/O, no threads, no clock.

First only the cells of data shards that cover the range are asked for. A shard that is lost, damaged or late is
rebuilt from the same columns of k others: whichever comes first. Shards are looked for where they belong, where they
were, then with the stand-ins, and at last on every disk.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, StokerError, UnavailableError
from stoker.fs.chunk.cells import covering_runs
from stoker.fs.cluster.placing import Placed, codec_of
from stoker.fs.code.layout import Span, clipped, joined_ranges, rebuild_range
from stoker.fs.disk.interface import Bytes, Wanted

Ranges = tuple[tuple[int, int], ...]
_NEAR, _FAR, _EVERYWHERE = range(3)
_FIRST_TIER: Final = _NEAR


class Fetch(msgspec.Struct, frozen=True):
    """Ranges of a shard to be asked of a disk. `checked`: its header must be asked for, too."""

    index: int
    disk: int
    ranges: Ranges
    checked: bool


class Gathering:
    """What is known of the ranges, and what is to be asked for."""

    def __init__(
        self, placed: Placed, asked: Sequence[tuple[int, int]], *, good: Callable[[int], bool], known: bool = False
    ) -> None:  # fmt: skip
        self.placed = placed
        self.known = known
        self.degraded = False
        self.error: StokerError | None = None
        self._good = good
        self._tier = _FIRST_TIER
        self._copies = placed.shape.k == 1
        first = self._first_copy() if self._copies else 0
        layout = placed.layout
        self._spans = [
            layout.copy_spans(first, *one) if self._copies else list(layout.spans(*one)) for one in asked
        ]  # fmt: skip
        wanted = joined_ranges(span for spans in self._spans for span in spans)
        self._wanted = {index: tuple(ranges) for index, ranges in wanted.items()}
        self._have: dict[int, list[tuple[int, int, memoryview]]] = {}
        self._exact: dict[tuple[int, int, int], memoryview] = {}
        self._asking: dict[int, list[Fetch]] = {}
        self._complete: set[int] = set()
        self._lost: set[int] = set()
        self._late: set[int] = set()
        self._refused: dict[int, set[int]] = {}
        self._found: dict[int, list[int]] = {}
        self._errors: list[tuple[int, StokerError]] = []

    def _first_copy(self) -> int:
        """Return which copy is asked first: by the slice's number, so that all disks are, unless its disk is ill."""
        width = self.placed.width
        turns = [(self.placed.data.id + turn) % width for turn in range(width)]
        return next((index for index in turns if self._good(self.placed.row[index])), turns[0])

    # -- where shards may be

    def _disks(self, index: int) -> Iterator[int]:
        """Return the disks to ask for a shard, without those that failed, the best first, as far as the tier goes."""
        homes = self.placed.homes(index)
        ordered = [disk for disk in homes if self._good(disk)]
        if self._tier >= _FAR:
            stand_ins = self.placed.stand_ins()
            ordered += [disk for disk in stand_ins if self._good(disk)]
            ordered += [disk for disk in (*homes, *stand_ins) if not self._good(disk)]
        ordered += self._found.get(index, [])
        refused = self._refused.get(index, set())
        return (disk for disk in ordered if disk not in refused)

    def _fetch(self, index: int, ranges: Ranges) -> list[Fetch]:
        """Return what to ask next for a shard; nothing, and it is lost, when all of its disks failed."""
        disk = next(self._disks(index), None)
        if disk is None:
            self._lost.add(index)
            return []
        fetch = Fetch(index, disk, ranges, not self.known)
        self._asking.setdefault(index, []).append(fetch)
        return [fetch]

    def wanted(self, fetch: Fetch) -> Wanted:
        """Return a fetch as a holder is asked for it."""
        layout = self.placed.layout
        runs = covering_runs(fetch.ranges, layout.cell_bytes, layout.shard_bytes(fetch.index))
        room_bytes = sum(run.stop - run.start for run in runs)
        return Wanted(self.placed.shard(fetch.index), fetch.ranges, fetch.checked, room_bytes)

    # -- what happens

    def first(self) -> list[Fetch]:
        """Return what to ask for to begin with."""
        fetches = [fetch for index, ranges in self._wanted.items() for fetch in self._fetch(index, ranges)]
        return fetches + (self._more() if self._lost else [])

    def arrived(self, fetch: Fetch, parts: Sequence[Bytes]) -> list[Fetch]:
        """Take what a disk gave."""
        self.known = True
        self._asking[fetch.index].remove(fetch)
        self._late.discard(fetch.index)
        pieces = self._have.setdefault(fetch.index, [])
        for (start, length), part in zip(fetch.ranges, parts, strict=True):
            data = memoryview(part).cast("B")
            pieces.append((start, length, data))
            self._exact[fetch.index, start, length] = data
        return []

    def failed(self, fetch: Fetch, error: StokerError) -> list[Fetch]:
        """Note that a disk did not give what it was asked for; return what to ask for instead."""
        self._asking[fetch.index].remove(fetch)
        self._errors.append((fetch.disk, error))
        self._refused.setdefault(fetch.index, set()).add(fetch.disk)
        return self._fetch(fetch.index, fetch.ranges) or self._more()

    def overdue(self, fetch: Fetch) -> list[Fetch]:
        """Note that a disk lets wait; return what to ask for beside it."""
        self._late.add(fetch.index)
        return self._more()

    def refuse(self, error: StokerError) -> None:
        """Give up: the slice is not the one that was asked for."""
        self.error = error

    @property
    def finished(self) -> bool:
        """Tell whether the bytes can be assembled, or never will be."""
        if self.error is not None:
            return True
        missing = self._missing()
        if not missing:
            return True
        if len(self._have) + self._ended < self.placed.shape.k:  # most answers find it so: no need to look closer
            return False
        columns = self._columns(missing)
        return sum(self._covers(index, columns) for index in range(self.placed.width)) >= self.placed.shape.k

    @cached_property
    def _ended(self) -> int:
        """How many shards are shorter than others: of columns behind their end they have all, which is nothing."""
        layout = self.placed.layout
        lengths = [layout.shard_bytes(index) for index in range(self.placed.width)]
        return sum(length < lengths[0] for length in lengths)

    @property
    def failures(self) -> int:
        """Return how many disks did not give what they were asked for."""
        return len(self._errors)

    @property
    def waits(self) -> bool:
        """Tell whether anything is being asked for."""
        return any(self._asking.values())

    @property
    def needs_search(self) -> bool:
        """Tell whether the shards must be looked for on every disk: nothing is asked for, and they do not suffice."""
        return not self.finished and not self.waits and self._tier < _EVERYWHERE

    def searched(self, found: dict[int, list[int]], errors: Sequence[tuple[int, StokerError]]) -> list[Fetch]:
        """Take where a search of all disks has found shards."""
        self._tier = _EVERYWHERE
        self._found = found
        self._errors += errors
        self._lost -= found.keys()
        fetches = [fetch for index in self._missing() for fetch in self._fetch(index, self._wanted[index])]
        return fetches + self._more()

    def give_up(self) -> None:
        """Conclude that there are too few shards."""
        self.error = self.error or too_few(self.placed, self._errors, some=bool(self._have or self._found))

    # -- rebuilding

    def _missing(self) -> list[int]:
        """Return the wanted shards that are not there; those that are never go again."""
        missing = []
        for index, ranges in self._wanted.items():
            if index in self._complete:
                continue
            if all(self._piece(index, start, length) is not None for start, length in ranges):
                self._complete.add(index)
            else:
                missing.append(index)
        return missing

    def _columns(self, missing: Sequence[int]) -> Ranges:
        """Return the columns that rebuild the wanted ranges of shards, in order, none over another."""
        joined: list[tuple[int, int]] = []
        for start, length in sorted(one for index in missing for one in self._wanted[index]):
            if joined and start <= sum(joined[-1]):
                low = joined[-1][0]
                joined[-1] = (low, max(sum(joined[-1]), start + length) - low)
            else:
                joined.append((start, length))
        return tuple(joined)

    def _clipped(self, index: int, ranges: Ranges) -> Ranges:
        cut = [(start, clipped(self.placed.layout, index, start, length)) for start, length in ranges]
        return tuple((start, length) for start, length in cut if length)

    def _covers(self, index: int, ranges: Ranges) -> bool:
        return all(self._piece(index, start, length) is not None for start, length in self._clipped(index, ranges))

    def _piece(self, index: int, start: int, length: int) -> memoryview | None:
        exact = self._exact.get((index, start, length))
        if exact is not None:
            return exact
        for low, size, data in self._have.get(index, ()):
            if low <= start and start + length <= low + size:
                return data[start - low : start - low + length]
        return None

    def _will_cover(self, index: int, ranges: Ranges) -> bool:
        """Tell whether a shard's columns are there, or were asked for of a disk that is not late."""
        if self._covers(index, ranges):
            return True
        if index in self._late or index in self._lost:
            return False
        asked = [one for fetch in self._asking.get(index, ()) for one in fetch.ranges]
        return bool(asked) and all(
            any(low <= start and start + length <= low + size for low, size in asked)
            for start, length in self._clipped(index, ranges)
        )

    def _more(self) -> list[Fetch]:
        """Return what to ask for so that k shards give the columns of those that are lost or late."""
        missing = [index for index in self._missing() if index in self._lost or index in self._late]
        if not missing:
            return []
        self.degraded = self.degraded or not self._copies
        columns = self._columns(missing)
        fetches: list[Fetch] = []
        short = self.placed.shape.k - sum(self._will_cover(index, columns) for index in range(self.placed.width))
        for index in self._suppliers(columns):
            if short <= 0:
                break
            asked = self._fetch(index, self._clipped(index, columns))
            fetches += asked
            short -= bool(asked)
        if short > 0 and not self.waits and self._tier < _FAR:
            self._tier = _FAR
            self._lost.clear()
            return self._more_of_lost(columns)
        return fetches

    def _more_of_lost(self, columns: Ranges) -> list[Fetch]:
        """Ask anew for shards that are lost, where stand-ins or disks that seem ill may have them."""
        fetches = []
        for index in range(self.placed.width):
            if not self._will_cover(index, columns):
                fetches += self._fetch(index, self._clipped(index, columns))
        return fetches

    def _suppliers(self, columns: Ranges) -> list[int]:
        """Return shards that could be asked for: those on good disks first, data before parity."""
        idle = [
            index
            for index in range(self.placed.width)
            if not self._will_cover(index, columns) and index not in self._late and index not in self._lost
        ]
        return sorted(idle, key=lambda index: (not self._good(self.placed.row[index]), index))

    # -- the bytes

    def bytes(self) -> list[Bytes]:
        """Return the bytes of each range. Raises what went wrong when they cannot be assembled."""
        if self.error is not None:
            raise self.error
        rebuilt = self._rebuilt()
        found: list[Bytes] = []
        for spans in self._spans:
            pieces = [self._bytes_of(span, rebuilt) for span in spans]
            found.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return found

    def _bytes_of(self, span: Span, rebuilt: dict[int, list[tuple[int, Bytes]]]) -> Bytes:
        piece = self._piece(span.index, span.offset, span.length)
        if piece is not None:
            return piece
        low, data = next(
            (low, data)
            for low, data in rebuilt[span.index]
            if low <= span.offset and span.offset + span.length <= low + len(data)
        )
        return memoryview(data)[span.offset - low : span.offset - low + span.length]

    def _rebuilt(self) -> dict[int, list[tuple[int, Bytes]]]:
        missing = self._missing()
        if not missing:
            return {}
        made: dict[int, list[tuple[int, Bytes]]] = {index: [] for index in missing}
        columns = self._columns(missing)
        sources = [index for index in range(self.placed.width) if self._covers(index, columns)]
        for start, length in columns:
            have: dict[int, Bytes] = {}
            for index in sources[: self.placed.shape.k]:
                cut = clipped(self.placed.layout, index, start, length)
                have[index] = (self._piece(index, start, cut) if cut else None) or b""
            for index, data in self._decoded(have, missing, length).items():
                made[index].append((start, data))
        return made

    def _decoded(self, have: dict[int, Bytes], missing: Sequence[int], length: int) -> dict[int, Bytes]:
        if self._copies:
            return dict.fromkeys(missing, next(iter(have.values())))
        layout = self.placed.layout
        return dict(rebuild_range(layout, codec_of(layout.k, layout.m), have, missing, length))


def too_few(placed: Placed, errors: Sequence[tuple[int, StokerError]], *, some: bool) -> StokerError:
    """Return the error for a slice that too few shards are left of, or none, by what its disks have said."""
    told = "; ".join(f"disk {disk}: {error.what}" for disk, error in errors[-4:])
    if not some and all(isinstance(error, NotFoundError) for _, error in errors):
        return NotFoundError("no such slice", where=placed.name)
    expected = f"{placed.shape.k} of {placed.width} shards"
    if any(not isinstance(error, NotFoundError | CorruptError) for _, error in errors):
        return UnavailableError("too few shards can be reached", where=placed.name, expected=expected, got=told)
    return CorruptError("too few shards are sound", where=placed.name, expected=expected, got=told)
