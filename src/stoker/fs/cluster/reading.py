"""Reading ranges of slices: asks holders side by side, and beside the slow ones others.

What is wanted of one disk goes there together, in few requests: each costs as much as many small shards.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from stoker.core.errors import NotFoundError, StokerError
from stoker.core.units import KiB, MiB
from stoker.fs.cluster.asking import Holders, Remembered
from stoker.fs.cluster.gathering import Fetch, Gathering
from stoker.fs.cluster.lanes import Task
from stoker.fs.cluster.placing import Placed, Places
from stoker.fs.cluster.works import Getting
from stoker.fs.disk.interface import Bytes, Outcome, Wanted
from stoker.fs.store.interface import SliceRange

_TOGETHER_BYTES_MAX: Final = 2 * MiB
"""So much is asked for by one request; of larger pieces each by itself, so that disks and servers work side by side."""
_TOGETHER_MAX: Final = 128
_RANGES_TOGETHER_MAX: Final = 512
_SHARD_WEIGHT_BYTES: Final = 64 * KiB
"""What looking for a shard takes, told in bytes that could be read meanwhile."""
Pair = tuple[Gathering, Fetch]


class _Batch(NamedTuple):
    """What one request asks for, and when it is late."""

    pairs: Sequence[Pair]
    due: float


class Reading:
    """Some ranges that are being read."""

    def __init__(self, holders: Holders, known: Remembered, ranges: Sequence[SliceRange]) -> None:
        self._holders = holders
        self._known = known
        self._places: Places = holders.places()
        self._good = holders.good(self._places)
        self._ranges = ranges
        self._groups = list(_by_slice(ranges))
        self._gatherings = [self._gathering([ranges[number] for number in numbers]) for numbers in self._groups]
        self._open = dict.fromkeys(self._gatherings)
        self._pending: dict[Task, _Batch] = {}
        self._hedged: set[Task] = set()

    def _gathering(self, ranges: Sequence[SliceRange]) -> Gathering:
        data = ranges[0].slice
        seen = not self._holders.options.check_headers or self._known.get((data.id, data.generation)) == data
        asked = [(one.offset, one.length) for one in ranges]
        return Gathering(self._places.of(data), asked, good=self._good, known=seen)

    def run(self) -> list[Bytes]:
        """Return the bytes of each range. Raises what the first slice that cannot be read met."""
        self._ask([(gathering, fetch) for gathering in self._gatherings for fetch in gathering.first()])
        self._close(self._gatherings)
        while self._open:
            if not self._pending:
                self._search()
                continue
            self._wait()
        found: list[Bytes] = [b""] * len(self._ranges)
        for gathering, numbers in zip(self._gatherings, self._groups, strict=True):
            for number, part in zip(numbers, gathering.bytes(), strict=True):
                found[number] = part
        self._note()
        return found

    def degraded(self) -> list[Placed]:
        """Return the slices that lack shards where they belong; one that is only late is not missing."""
        return [gathering.placed for gathering in self._gatherings if gathering.degraded and gathering.failures]

    def _note(self) -> None:
        health = self._holders.health
        for gathering in self._gatherings:
            health.count("reads")
            if gathering.degraded:
                health.count("degraded_reads")
            data = gathering.placed.data
            self._known.put((data.id, data.generation), data)

    def _ask(self, pairs: Sequence[Pair]) -> None:
        for disk, some, wanted in _batches(pairs):
            weight_bytes = sum(one.room_bytes + _SHARD_WEIGHT_BYTES for one in wanted)
            task = self._holders.begin(disk, Getting(wanted), read_bytes=weight_bytes)
            late_seconds = self._holders.health.hedge_seconds(weight_bytes)
            self._pending[task] = _Batch(some, self._holders.lanes.clock() + late_seconds)

    def _close(self, gatherings: Iterable[Gathering]) -> None:
        """Take out what is finished, and what is asked for in vain."""
        for gathering in gatherings:
            if gathering in self._open and gathering.finished:
                del self._open[gathering]

    def _wait(self) -> None:
        """Wait until something comes, or until somebody is late, and act on it."""
        lanes = self._holders.lanes
        due = {task: batch.due for task, batch in self._pending.items() if task not in self._hedged}
        lanes.wait(list(self._pending), max(min(due.values()) - lanes.clock(), 0.0) if due else None)
        for task in [task for task in self._pending if task.done()]:
            self._take(task)
        now = lanes.clock()
        for task, when in due.items():
            if task in self._pending and now >= when:
                self._hedge(task)
        for task in [task for task, batch in self._pending.items() if not self._wanted(batch)]:
            del self._pending[task]

    def _hedge(self, task: Task) -> None:
        """Ask others for what a request that is late should bring."""
        self._hedged.add(task)
        late = [(gathering, fetch) for gathering, fetch in self._pending[task].pairs if gathering in self._open]
        if late:
            self._holders.health.count("hedged_reads")
            self._ask([(gathering, more) for gathering, fetch in late for more in gathering.overdue(fetch)])
            self._close(gathering for gathering, _ in late)

    def _wanted(self, batch: _Batch) -> bool:
        return any(gathering in self._open for gathering, _ in batch.pairs)

    def _take(self, task: Task) -> None:
        pairs = self._pending.pop(task).pairs
        try:
            outcomes: Sequence[Outcome] = task.result()
        except StokerError as error:
            outcomes = [error] * len(pairs)
        else:
            self._count(pairs, outcomes)
        self._ask(
            [
                (gathering, more)
                for (gathering, fetch), outcome in zip(pairs, outcomes, strict=True)
                for more in _taken(gathering, fetch, outcome)
            ]
        )
        self._close(gathering for gathering, _ in pairs)

    def _count(self, pairs: Sequence[Pair], outcomes: Sequence[Outcome]) -> None:
        """Note shards that are damaged: the request as a whole went well."""
        for (_, fetch), outcome in zip(pairs, outcomes, strict=True):
            if isinstance(outcome, StokerError):
                self._holders.health.failed(fetch.disk, outcome)

    def _search(self) -> None:
        """Look on every disk for the shards of slices that are read by no other way; give up those searched for."""
        for gathering in list(self._open):
            if gathering.needs_search:
                self._holders.health.count("searched_reads")
                found = gathering.searched(*self._holders.search(self._places, gathering.placed))
                self._ask([(gathering, fetch) for fetch in found])
            if not gathering.waits and not gathering.finished:
                gathering.give_up()
            self._close([gathering])


def _taken(gathering: Gathering, fetch: Fetch, outcome: Outcome) -> list[Fetch]:
    """Give what came to whom it is for; return what to ask for then."""
    if isinstance(outcome, StokerError):
        return gathering.failed(fetch, outcome)
    if fetch.checked and (outcome.header is None or not gathering.placed.owns(outcome.header)):
        gathering.refuse(NotFoundError("no such slice", where=gathering.placed.name, got="one of another size"))
        return []
    return gathering.arrived(fetch, outcome.parts)


def _by_slice(ranges: Sequence[SliceRange]) -> Iterator[list[int]]:
    """Return the numbers of ranges of one slice each, in the order of their offsets; of very many, in several lists."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(ranges):
        data = one.slice
        found.setdefault((data.id, data.generation, data.size_bytes, data.storage_class), []).append(number)
    for numbers in found.values():
        if len(numbers) > 1:
            numbers.sort(key=lambda number: ranges[number].offset)
        for start in range(0, len(numbers), _RANGES_TOGETHER_MAX):
            yield numbers[start : start + _RANGES_TOGETHER_MAX]


def _batches(pairs: Sequence[Pair]) -> Iterator[tuple[int, list[Pair], list[Wanted]]]:
    """Return what to ask of which disk by one request each."""
    by_disk: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_disk.setdefault(pair[1].disk, []).append(pair)
    for disk, some in by_disk.items():
        together: list[Pair] = []
        wanted: list[Wanted] = []
        room_bytes = ranges = 0
        for gathering, fetch in some:
            one = gathering.wanted(fetch)
            room_bytes += one.room_bytes
            ranges += len(one.ranges)
            over = room_bytes > _TOGETHER_BYTES_MAX or ranges > _RANGES_TOGETHER_MAX
            if together and (over or len(together) == _TOGETHER_MAX):
                yield disk, together, wanted
                together, wanted, room_bytes, ranges = [], [], one.room_bytes, len(one.ranges)
            together.append((gathering, fetch))
            wanted.append(one)
        yield disk, together, wanted
