"""Writing one slice: its shards go to their disks side by side, and the write counts when enough of them are there.

A shard whose disk is down, full or fails goes to a stand-in, which follows from the map alone, so that readers find
it. One that finds no place is short: the slice is acknowledged only with as many shards as its class wants, and the
repair makes the rest. What is not acknowledged is removed again, unless it is the repetition of a write that was.
"""

from collections.abc import Callable, Iterator, Sequence

from stoker.core.errors import AlreadyExistsError, NoSpaceError, StokerError, StoreError, UnavailableError
from stoker.fs.cluster.asking import Holders, by_disk
from stoker.fs.cluster.lanes import Task
from stoker.fs.cluster.placing import Placed, Places, codec_of
from stoker.fs.cluster.works import Putting
from stoker.fs.code.layout import encode_slice
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.interface import Bytes, ShardHeader, ShardHolder, ShardId


class Writing:
    """One slice that is being written."""

    def __init__(
        self, holders: Holders, placed: Placed, parts: Sequence[Bytes], *, durable: bool, again: bool
    ) -> None:  # fmt: skip
        self._holders = holders
        self._again = again
        self._places: Places = holders.places()
        self._placed = placed
        self._durable = durable
        layout = placed.layout
        coder = codec_of(layout.k, layout.m) if layout.k > 1 else None
        self._shards = encode_slice(layout, parts, coder)
        self._headers = self._made_headers()
        self._pending: dict[Task, tuple[int, int]] = {}
        self._asked: set[tuple[int, int]] = set()
        self._errors: list[tuple[int, StokerError]] = []
        self.stored: dict[int, int] = {}

    def _made_headers(self) -> list[ShardHeader]:
        placed, cell_bytes = self._placed, self._placed.layout.cell_bytes
        equal = cell_crcs(self._shards[0], cell_bytes) if placed.shape.k == 1 else None
        return [
            placed.header(self._holders.volume, index, cell_crcs(shard, cell_bytes) if equal is None else equal)
            for index, shard in enumerate(self._shards)
        ]

    def run(self) -> list[int]:
        """Write; return the shards that are not where they belong. Raises when too few could be stored."""
        for index in range(self._placed.width):
            self._put(index)
        needed, late_at = self._placed.shape.needed, None
        while self._pending:
            lanes = self._holders.lanes
            if late_at is None and len(self.stored) >= needed:
                late_at = lanes.clock() + self._holders.options.linger_seconds
            left = None if late_at is None else late_at - lanes.clock()
            if left is not None and left <= 0:
                break
            lanes.wait(list(self._pending), left)
            for task in [task for task in self._pending if task.done()]:
                self._take(task)
        self._refuse_others()
        if len(self.stored) < needed:
            if not self._again:
                self._undo()
            raise self._too_few(needed)
        return [index for index in range(self._placed.width) if self.stored.get(index) != self._placed.row[index]]

    def _put(self, index: int) -> None:
        """Begin to store a shard where it belongs, else with the first stand-in that can take it."""
        for disk in self._candidates(index):
            fresh = (index, disk) not in self._asked
            if fresh and self._places.writable(disk) and self._holders.health.allows(disk):
                self._asked.add((index, disk))
                header, shard = self._headers[index], self._shards[index]
                self._pending[self._holders.begin(disk, Putting(header, shard, durable=self._durable))] = (index, disk)
                return

    def _candidates(self, index: int) -> Iterator[int]:
        """Return where a shard may go, in turn; where stand-ins are takes a while to find out, and is rarely asked."""
        yield self._placed.row[index]
        taken = {disk for _, disk in self._asked}
        yield from (disk for disk in self._placed.stand_ins() if disk not in taken)

    def _take(self, task: Task) -> None:
        index, disk = self._pending.pop(task)
        try:
            task.result()
        except StokerError as error:
            self._errors.append((disk, error))
            if not isinstance(error, AlreadyExistsError):
                self._put(index)
            return
        self.stored[index] = disk

    def _refuse_others(self) -> None:
        for _, error in self._errors:
            if isinstance(error, AlreadyExistsError):
                raise error

    def _undo(self) -> None:
        """Remove what was stored of a slice that is not acknowledged: a later reader must not find half of it."""
        where = [(disk, self._placed.shard(index)) for index, disk in self.stored.items()]
        self._holders.each({disk: _removing(shards) for disk, shards in by_disk(where).items()})

    def _too_few(self, needed: int) -> StoreError:
        told = "; ".join(f"disk {disk}: {error.what}" for disk, error in self._errors[-4:]) or "disks that are down"
        where = self._placed.name
        expected = f"{needed} of {self._placed.width} shards"
        got = f"{len(self.stored)}, {told}"
        if any(isinstance(error, NoSpaceError) for _, error in self._errors) or self._full():
            return NoSpaceError("too few disks have room for a slice", where=where, expected=expected, got=got)
        return UnavailableError("too few disks can be written", where=where, expected=expected, got=got)

    def _full(self) -> bool:
        known = self._places.cluster.by_id
        return any(disk in known and known[disk].full for disk in self._placed.row)


def _removing(shards: Sequence[ShardId]) -> Callable[[ShardHolder], None]:
    return lambda holder: holder.remove(shards)
