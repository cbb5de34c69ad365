"""Repair of one slice: what is lost or astray is put where it belongs, and only then is anything forgotten."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from stoker.core.errors import AlreadyExistsError, CorruptError, StokerError
from stoker.fs.cluster.asking import Holders
from stoker.fs.cluster.gathering import too_few
from stoker.fs.cluster.placing import Placed, Places, codec_of
from stoker.fs.code.layout import rebuild_range
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.interface import Bytes, ShardHeader, ShardHolder, ShardId
from stoker.fs.meta.slices import Slice


@runtime_checkable
class Fetcher(Protocol):
    """A holder that fetches shards from others by itself, so that their bytes take no detour."""

    def pull(self, shard: ShardId, source: str, *, durable: bool) -> None:
        """Fetch a shard from the chunk server at the address `source`, verify and store it."""

    def header(self, shard: ShardId) -> ShardHeader:
        """Return the header of a shard."""


class Repaired(msgspec.Struct, frozen=True):
    """What a repair has done to a slice.

    `spare` is how many shards it could lose before; negative means that it was lost. `rebuilt` shards were decoded,
    `copied` ones moved; `removed` counts what was deleted elsewhere; `short` shards still have no place that takes
    them, `refused` are those of them whose place should have. `error` says why nothing could be done.
    """

    slice: Slice
    spare: int
    rebuilt: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()
    removed: int = 0
    short: tuple[int, ...] = ()
    error: str = ""
    refused: tuple[int, ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """A slice as its disks tell of it: where each shard is, how many it could lose further, which group it is of.

    `can_repair` tells whether a repair could do something now: a disk that is down takes no shard.
    """

    slice: Slice
    disks: dict[int, tuple[int, ...]]
    spare: int
    pool: tuple[int, str]
    group: int
    missing: tuple[int, ...]
    astray: tuple[int, ...]
    can_repair: bool = True

    @property
    def needs_repair(self) -> bool:
        """Tell whether a shard is lost or lies elsewhere than it belongs."""
        return bool(self.missing or self.astray)


def seen_slices(everything: Iterable[tuple[int, ShardHeader, bool]], places: Places) -> Iterator[Seen]:
    """Return slices from all shards of all disks, which come in the order of their names."""
    placed: Placed | None = None
    found: dict[int, list[int]] = {}
    for disk, header, bad in everything:
        shard = header.shard
        data = Slice(shard.slice_id, shard.generation, header.slice_bytes, header.storage_class)
        if placed is None or placed.data != data:
            if placed is not None:
                yield seen_at(placed, found)
            placed, found = places.of(data), {}
        if not bad and placed.owns(header):
            found.setdefault(shard.index, []).append(disk)
    if placed is not None:
        yield seen_at(placed, found)


def seen_at(placed: Placed, found: dict[int, list[int]]) -> Seen:
    """Return a slice whose shards were found on these disks."""
    missing = tuple(index for index in range(placed.width) if placed.row[index] not in found.get(index, ()))
    astray = tuple(sorted(index for index, disks in found.items() if set(disks) - {placed.row[index]}))
    known, row = placed.mapping.cluster.by_id, placed.row
    takes = any(row[index] in known and known[row[index]].writable for index in missing)
    leaves = any(row[index] in found[index] for index in astray)
    return Seen(
        placed.data,
        {index: tuple(disks) for index, disks in sorted(found.items())},
        len(found) - placed.shape.k,
        placed.mapping.pool.key,
        placed.group,
        missing,
        astray,
        takes or leaves,
    )


def exposure(seen: Iterable[Seen]) -> dict[int, int]:
    """Return how many slices there are by how many shards they could lose further; below 0 they are lost."""
    counts: dict[int, int] = {}
    for one in seen:
        counts[one.spare] = counts.get(one.spare, 0) + 1
    return dict(sorted(counts.items()))


class Repair:
    """One slice that is being repaired."""

    def __init__(self, holders: Holders, placed: Placed, *, deep: bool) -> None:
        self._holders = holders
        self._placed = placed
        self._deep = deep
        self._places = holders.places()
        self._errors: list[tuple[int, StokerError]] = []

    def run(self) -> Repaired:
        """Repair it; raises what too few shards mean."""
        placed = self._placed
        found, self._errors = self._holders.search(self._places, placed)
        if self._deep:
            self._read_all(found)
        spare = len(found) - placed.shape.k
        if spare < 0:
            raise too_few(placed, self._errors, some=bool(found))
        lost = [index for index in range(placed.width) if placed.row[index] not in found.get(index, ())]
        todo = [index for index in lost if self._places.writable(placed.row[index])]
        copied = [index for index in todo if found.get(index)]
        rebuilt = [index for index in todo if not found.get(index)]
        pulled = self._pulled(found, copied)
        shards = self._copies(found, [index for index in copied if index not in pulled])
        rebuilt += [index for index in copied if index not in shards and index not in pulled]
        copied = [index for index in copied if index in shards or index in pulled]
        shards |= self._rebuilt(found, rebuilt) if rebuilt else {}
        stored = pulled | self._store(found, shards)
        removed = self._forget(found, stored)
        return Repaired(
            placed.data,
            spare,
            tuple(index for index in sorted(rebuilt) if index in stored),
            tuple(index for index in copied if index in stored),
            removed,
            tuple(index for index in lost if index not in stored),
            refused=tuple(index for index in todo if index not in stored),
        )

    # -- reading

    def _whole(self, index: int) -> tuple[tuple[int, int], ...]:
        size = self._placed.layout.shard_bytes(index)
        return ((0, size),) if size else ()

    def _get(self, wanted: dict[int, int]) -> dict[int, Bytes]:
        """Return whole shards from the disks named, verified; what fails is noted."""
        placed = self._placed
        tasks = {
            index: (disk, self._holders.begin(disk, _getting(placed.shard(index), self._whole(index))))
            for index, disk in wanted.items()
        }
        shards: dict[int, Bytes] = {}
        for index, (disk, task) in tasks.items():
            while not task.done():
                self._holders.lanes.wait([task], None)
            try:
                parts = task.result()
                shards[index] = parts[0] if parts else b""
            except StokerError as error:
                self._errors.append((disk, error))
        return shards

    def _read_all(self, found: dict[int, list[int]]) -> None:
        """Read every shard wherever it is; those that are damaged are found no more. Compare data with parity."""
        shards: dict[int, Bytes] = {}
        for index in list(found):
            for disk in list(found[index]):
                got = self._get({index: disk})
                shards |= got
                if not got:
                    found[index].remove(disk)
            if not found[index]:
                del found[index]
        self._compare(shards)

    def _compare(self, shards: dict[int, Bytes]) -> None:
        """Raise CorruptError when shards that all fit their checksums are not those of one slice."""
        extra = sorted(shards)[self._placed.shape.k :]
        if not extra:
            return
        made = self._decoded({index: shards[index] for index in shards if index not in extra}, extra)
        for index in extra:
            if made[index] != shards[index]:
                raise CorruptError(
                    "shards of a slice do not fit each other", where=self._placed.name, got=f"shard {index}",
                    remedy="restore the file from a backup, then remove it here",
                )  # fmt: skip

    def _pulled(self, found: dict[int, list[int]], indexes: Sequence[int]) -> dict[int, int]:
        """Have disks fetch shards from where they lie, by themselves; return those that are there then.

        What cannot be fetched so, for whatever reason, is copied or decoded here.
        """
        stored: dict[int, int] = {}
        known = self._placed.mapping.cluster.by_id
        for index in indexes:
            home = self._placed.row[index]
            for disk in found[index]:
                address = known[disk].address if disk in known else ""
                try:
                    if self._holders.call(home, _fetching(self._placed.shard(index), address)):
                        stored[index] = home
                        break
                except StokerError as error:
                    self._errors.append((home, error))
        return stored

    def _copies(self, found: dict[int, list[int]], indexes: Sequence[int]) -> dict[int, Bytes]:
        """Return shards that lie elsewhere, as far as one of their copies can be read."""
        shards: dict[int, Bytes] = {}
        for index in indexes:
            for disk in found[index]:
                shards |= self._get({index: disk})
                if index in shards:
                    break
        return shards

    def _rebuilt(self, found: dict[int, list[int]], lost: Sequence[int]) -> dict[int, Bytes]:
        """Return lost shards, decoded from k others; those that turn out damaged are replaced by further ones."""
        sources: dict[int, Bytes] = {}
        waiting = [
            (index, disk) for turn in range(self._placed.width) for index, disks in sorted(found.items())
            for disk in disks[turn : turn + 1] if index not in lost
        ]  # fmt: skip
        while len(sources) < self._placed.shape.k:
            batch: dict[int, int] = {}
            for index, disk in list(waiting):
                if index not in sources and index not in batch and len(sources) + len(batch) < self._placed.shape.k:
                    batch[index] = disk
                    waiting.remove((index, disk))
            if not batch:
                raise too_few(self._placed, self._errors, some=True)
            sources |= self._get(batch)
        return self._decoded(sources, lost)

    def _decoded(self, sources: dict[int, Bytes], lost: Sequence[int]) -> dict[int, Bytes]:
        layout = self._placed.layout
        if layout.k == 1:
            return dict.fromkeys(lost, next(iter(sources.values())))
        made = rebuild_range(layout, codec_of(layout.k, layout.m), sources, lost, layout.shard_bytes(layout.k))
        return {index: memoryview(data)[: layout.shard_bytes(index)] for index, data in made.items()}

    # -- writing

    def _store(self, found: dict[int, list[int]], shards: dict[int, Bytes]) -> dict[int, int]:
        """Put shards where they belong, durable; return those that are there then, as their headers say."""
        works: dict[int, list[tuple[int, Callable[[ShardHolder], Any]]]] = {}
        for index, data in shards.items():
            header = self._placed.header(
                self._holders.volume, index, cell_crcs([data], self._placed.layout.cell_bytes)
            )  # fmt: skip
            works.setdefault(self._placed.row[index], []).append((index, _replacing(header, data)))
        stored: dict[int, int] = {}
        for disk, todo in works.items():
            for index, work in todo:
                try:
                    self._holders.call(disk, work)
                    stored[index] = disk
                except StokerError as error:
                    self._errors.append((disk, error))
        return stored

    def _forget(self, found: dict[int, list[int]], stored: dict[int, int]) -> int:
        """Remove shards that lie elsewhere than they belong, once they are where they belong; return how many.

        One that its writer put there may not be durable yet, while the one elsewhere is.
        """
        removed = 0
        for index, disks in found.items():
            home = self._placed.row[index]
            elsewhere = [disk for disk in disks if disk != home]
            if not elsewhere or (index not in stored and not (home in disks and self._is_durable(index, home))):
                continue
            for disk in elsewhere:
                try:
                    self._holders.call(disk, _removing(self._placed.shard(index)))
                    removed += 1
                except StokerError as error:
                    self._errors.append((disk, error))
        return removed

    def _is_durable(self, index: int, disk: int) -> bool:
        """Make a shard durable that was found where it belongs; tell whether it is."""
        try:
            self._holders.call(disk, _syncing(self._placed.shard(index)))
        except StokerError as error:
            self._errors.append((disk, error))
            return False
        return True


def _getting(shard: ShardId, ranges: Sequence[tuple[int, int]]) -> Callable[[ShardHolder], Any]:
    return lambda holder: holder.get(shard, ranges) if ranges else []


def _syncing(shard: ShardId) -> Callable[[ShardHolder], Any]:
    return lambda holder: holder.sync([shard])


def _removing(shard: ShardId) -> Callable[[ShardHolder], Any]:
    return lambda holder: holder.remove([shard])


def _replacing(header: ShardHeader, data: Bytes) -> Callable[[ShardHolder], Any]:
    """Store a shard durably, over a damaged one of the same name if need be, and see that it is there."""

    def work(holder: ShardHolder) -> None:
        try:
            holder.put(header, [data], durable=True)
        except AlreadyExistsError:
            holder.remove([header.shard])
            holder.put(header, [data], durable=True)
        if holder.header(header.shard) != header:
            raise CorruptError("a shard that was stored is another", where=str(header.shard))

    return work


def _fetching(shard: ShardId, address: str) -> Callable[[ShardHolder], bool]:
    """Have a holder that can do so fetch a shard from another's address, verified, and see that it is there."""

    def work(holder: ShardHolder) -> bool:
        if not isinstance(holder, Fetcher) or not address:
            return False
        holder.pull(shard, address, durable=True)
        return holder.header(shard).shard == shard

    return work
