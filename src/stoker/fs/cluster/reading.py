"""Reading ranges of slices: asks holders side by side, and beside the slow ones others."""

from collections.abc import Sequence
from itertools import groupby

from stoker.core.errors import NotFoundError, StokerError
from stoker.fs.cluster.asking import Holders, Remembered
from stoker.fs.cluster.gathering import Fetch, Gathering
from stoker.fs.cluster.lanes import Task
from stoker.fs.cluster.placing import Placed, Places
from stoker.fs.disk.interface import Bytes, ShardHolder
from stoker.fs.store.interface import SliceRange


class Reading:
    """Some ranges that are being read."""

    def __init__(self, holders: Holders, known: Remembered, ranges: Sequence[SliceRange]) -> None:
        self._holders = holders
        self._known = known
        self._places: Places = holders.places()
        self._good = holders.good(self._places)
        self._gatherings = [self._gathering(same) for same in _by_slice(ranges)]
        self._pending: dict[Task, tuple[Gathering, Fetch, float]] = {}
        self._hedged: set[Task] = set()

    def _gathering(self, ranges: Sequence[SliceRange]) -> Gathering:
        data = ranges[0].slice
        seen = not self._holders.options.check_headers or self._known.get((data.id, data.generation)) == data
        asked = [(one.offset, one.length) for one in ranges]
        return Gathering(self._places.of(data), asked, good=self._good, known=seen)

    def run(self) -> list[Bytes]:
        """Return the bytes of each range. Raises what the first range that cannot be read met."""
        for gathering in self._gatherings:
            self._ask(gathering, gathering.first())
        while any(not gathering.finished for gathering in self._gatherings):
            if not self._pending:
                self._search()
                continue
            self._wait()
        found = [part for gathering in self._gatherings for part in gathering.bytes()]
        self._note()
        return found

    def degraded(self) -> list[Placed]:
        """Return the slices that were not read from where they belong."""
        return [gathering.placed for gathering in self._gatherings if gathering.degraded]

    def _note(self) -> None:
        health = self._holders.health
        for gathering in self._gatherings:
            health.count("reads")
            if gathering.degraded:
                health.count("degraded_reads")
            data = gathering.placed.data
            self._known.put((data.id, data.generation), data)

    def _ask(self, gathering: Gathering, fetches: Sequence[Fetch]) -> None:
        for fetch in fetches:
            task = self._holders.begin(fetch.disk, _getting(gathering.placed, fetch), read=True)
            self._pending[task] = (gathering, fetch, self._holders.lanes.clock())

    def _wait(self) -> None:
        """Wait until something comes, or until somebody is late, and act on it."""
        lanes = self._holders.lanes
        hedge_seconds = self._holders.health.hedge_seconds()
        due = [begun + hedge_seconds for task, (_, _, begun) in self._pending.items() if task not in self._hedged]
        lanes.wait(list(self._pending), max(min(due) - lanes.clock(), 0.0) if due else None)
        for task in [task for task in self._pending if task.done()]:
            self._take(task)
        now = lanes.clock()
        for task, (gathering, fetch, begun) in list(self._pending.items()):
            if task not in self._hedged and now >= begun + hedge_seconds:
                self._hedged.add(task)
                if not gathering.finished:
                    self._holders.health.count("hedged_reads")
                    self._ask(gathering, gathering.overdue(fetch))
        for task in [task for task, (gathering, _, _) in self._pending.items() if gathering.finished]:
            del self._pending[task]

    def _take(self, task: Task) -> None:
        gathering, fetch, _ = self._pending.pop(task)
        try:
            parts = task.result()
        except StokerError as error:
            self._ask(gathering, gathering.failed(fetch, error))
            return
        if parts is None:
            gathering.refuse(NotFoundError("no such slice", where=gathering.placed.name, got="one of another size"))
        else:
            self._ask(gathering, gathering.arrived(fetch, parts))

    def _search(self) -> None:
        """Look on every disk for the shards of slices that are read by no other way; give up those searched for."""
        for gathering in [one for one in self._gatherings if not one.finished]:
            if gathering.needs_search:
                self._holders.health.count("searched_reads")
                self._ask(gathering, gathering.searched(*self._holders.search(self._places, gathering.placed)))
            if not self._goes_on(gathering):
                gathering.give_up()

    @staticmethod
    def _goes_on(gathering: Gathering) -> bool:
        return gathering.waits or gathering.finished


def _by_slice(ranges: Sequence[SliceRange]) -> list[Sequence[SliceRange]]:
    """Return ranges in runs of one slice."""
    return [list(same) for _, same in groupby(ranges, key=lambda one: one.slice)]


def _getting(placed: Placed, fetch: Fetch) -> "_Getting":
    return _Getting(placed, fetch)


class _Getting:
    """Asks a holder for ranges of a shard; None when its header is that of another slice."""

    def __init__(self, placed: Placed, fetch: Fetch) -> None:
        self._placed = placed
        self._fetch = fetch

    def __call__(self, holder: ShardHolder) -> list[Bytes] | None:
        shard = self._placed.shard(self._fetch.index)
        if self._fetch.checked and not self._placed.owns(holder.header(shard)):
            return None
        return holder.get(shard, self._fetch.ranges)
