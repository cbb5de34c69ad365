"""A store of slices in one local folder, for volumes without daemons: each slice is one shard of a disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from stoker.core.errors import CorruptError, NotFoundError, StoreError
from stoker.core.units import KiB
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.disk import Disk
from stoker.fs.disk.interface import HolderStatus, ShardHeader, ShardId
from stoker.fs.disk.state import DiskOptions
from stoker.fs.disk.upkeep import Keeper, Upkeep, UpkeepOptions
from stoker.fs.meta.slices import CHUNK_BYTES, Slice
from stoker.fs.store.interface import Bytes, SliceRange

_PAGE: Final = 1000
_FINE_CELL_BYTES: Final = 4 * KiB
_CELL_BYTES: Final = 64 * KiB
"""A read of 4 KiB from a large slice reads this much and verifies it, in about a tenth of a millisecond."""


class LocalStore:
    """A `SliceStore` over the disk in a folder, which this process alone may have open.

    With `upkeep` None nothing is checkpointed, compacted or scrubbed but by whoever calls the disk's methods.
    """

    def __init__(
        self,
        folder: Path,
        options: DiskOptions | None = None,
        *,
        upkeep: UpkeepOptions | None = UpkeepOptions(),  # noqa: B008 - frozen
    ) -> None:
        """Open the store in a folder. Raises NotFoundError where none is, UsageError for one that is open."""
        self.disk = Disk(folder, options)
        self._keeper = None if upkeep is None else Keeper(Upkeep(self.disk, upkeep))

    @classmethod
    def make(
        cls, folder: Path, options: DiskOptions | None = None, *, volume: str | None = None,
        upkeep: UpkeepOptions | None = UpkeepOptions(),  # noqa: B008 - frozen
    ) -> Self:  # fmt: skip
        """Make an empty folder a store, of a volume of its own unless told, and open it. Raises UsageError."""
        Disk.make(folder, volume or str(uuid4()), options).close()
        return cls(folder, options, upkeep=upkeep)

    def write(self, data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        """See SliceStore. Raises AlreadyExistsError where the slice is there with other bytes."""
        given_bytes = sum(memoryview(part).nbytes for part in parts)
        if given_bytes != data.size_bytes or not 0 < data.size_bytes <= CHUNK_BYTES:
            raise StoreError(
                "slice does not have its size", where=self._name(data), got=f"{given_bytes}",
                expected=f"{data.size_bytes} bytes, of 1 to {CHUNK_BYTES}",
            )  # fmt: skip
        cell_bytes = _FINE_CELL_BYTES if data.size_bytes <= _CELL_BYTES else _CELL_BYTES
        header = ShardHeader(
            volume=self.disk.volume, shard=_shard(data), storage_class=data.storage_class, k=1, m=0,
            cell_bytes=cell_bytes, slice_bytes=data.size_bytes, shard_bytes=data.size_bytes,
            crcs=cell_crcs(parts, cell_bytes),
        )  # fmt: skip
        self.disk.put(header, parts, durable=durable, checked=True)

    def make_durable(self, slices: Sequence[Slice]) -> None:
        """See SliceStore. Raises NotFoundError for one that is not there."""
        self.disk.sync([_shard(data) for data in slices])

    def read(self, ranges: Sequence[SliceRange]) -> list[Bytes]:
        """See SliceStore. Ranges of one slice that stand side by side are read together."""
        found: list[Bytes] = []
        start = 0
        while start < len(ranges):
            end = start + 1
            while end < len(ranges) and ranges[end].slice == ranges[start].slice:
                end += 1
            found += self._read(ranges[start].slice, ranges[start:end])
            start = end
        return found

    def _read(self, data: Slice, ranges: Sequence[SliceRange]) -> list[Bytes]:
        for one in ranges:
            if one.offset < 0 or one.length < 0 or one.offset + one.length > data.size_bytes:
                got = f"bytes {one.offset} to {one.offset + one.length} of {data.size_bytes}"
                raise StoreError("range is not within its slice", where=self._name(data), got=got)
        with self.disk.reading(_shard(data)) as reader:
            header = reader.header
            if (header.slice_bytes, header.storage_class) != (data.size_bytes, data.storage_class):
                got = f"one of {header.slice_bytes} bytes and class {header.storage_class}"
                raise NotFoundError("no such slice", where=self._name(data), got=got)
            return reader.read([(one.offset, one.length) for one in ranges])

    def remove(self, slices: Sequence[Slice]) -> None:
        """See SliceStore; a removal survives a power failure."""
        self.disk.remove([_shard(data) for data in slices])

    def inventory(self) -> Iterator[Slice]:
        """See SliceStore. Raises CorruptError where something on the disk cannot be read: it might be a slice."""
        after: ShardId | None = None
        more = True
        while more:
            page = self.disk.listing(after, _PAGE)
            if not page.complete:
                raise CorruptError("inventory is not complete", where=str(self.disk.folder))
            for header in page.headers:
                shard = header.shard
                yield Slice(shard.slice_id, shard.generation, header.slice_bytes, header.storage_class)
                after = shard
            more = page.more

    def status(self) -> HolderStatus:
        """Return how the disk fares."""
        return self.disk.status()

    def close(self) -> None:
        """See SliceStore. Raises StoreError when not everything could be made durable."""
        if self._keeper is not None:
            self._keeper.close()
        self.disk.close()

    def _name(self, data: Slice) -> str:
        return f"slice {data.id} generation {data.generation} in {self.disk.folder}"


def _shard(data: Slice) -> ShardId:
    return ShardId(data.id, data.generation, 0)
