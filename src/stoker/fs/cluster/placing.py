"""Where the shards of a slice are by a map: the slice's class gives the form, its number the placement group."""

from collections.abc import Callable, Iterator
from functools import cache

from stoker.fs.code import Codec, Layout
from stoker.fs.disk.interface import ShardHeader, ShardId
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import Shape, StorageClass
from stoker.fs.place import ClusterMap, Disk, Mapping
from stoker.fs.store.interface import SMALL_CELL_BYTES, SMALL_SLICE_BYTES

codec_of = cache(Codec)


class Placed:
    """One slice by one map: its layout, and the disks of each shard, where it belongs first."""

    def __init__(self, data: Slice, made: StorageClass, mapping: Mapping) -> None:
        self.data = data
        self.shape: Shape = made.shape(data.size_bytes)
        fine = self.shape.k == 1 and data.size_bytes <= SMALL_SLICE_BYTES
        cell_bytes = min(made.cell_bytes, SMALL_CELL_BYTES) if fine else made.cell_bytes
        self.layout = Layout(self.shape.k, self.shape.m, cell_bytes, data.size_bytes)
        self.mapping = mapping
        self.group = mapping.pool.group_of(data.id)
        self.row = mapping.row(self.group)

    @property
    def width(self) -> int:
        """How many shards the slice has."""
        return self.shape.width

    @property
    def name(self) -> str:
        """The slice as errors name it."""
        return f"slice {self.data.id} generation {self.data.generation}"

    def shard(self, index: int) -> ShardId:
        """Return the name of a shard."""
        return ShardId(self.data.id, self.data.generation, index)

    def homes(self, index: int) -> list[int]:
        """Return the disks where a shard belongs, and where it did."""
        return list(self.mapping.homes(self.group, index))

    def stand_ins(self) -> tuple[int, ...]:
        """Return the disks that stand in for those which cannot be written."""
        known = self.mapping.cluster.by_id
        return tuple(disk for disk in self.mapping.stand_ins(self.group) if disk in known and disk not in self.row)

    def header(self, volume: str, index: int, crcs: bytes) -> ShardHeader:
        """Return the header of a shard."""
        layout = self.layout
        return ShardHeader(
            volume, self.shard(index), self.data.storage_class, layout.k, layout.m,
            layout.cell_bytes, layout.slice_bytes, layout.shard_bytes(index), crcs,
        )  # fmt: skip

    def owns(self, header: ShardHeader) -> bool:
        """Tell whether a header that was found is that of a shard of this very slice."""
        layout, index = self.layout, header.shard.index
        if index >= self.width or header.shard != self.shard(index):
            return False
        told = (header.storage_class, header.k, header.m, header.slice_bytes, header.shard_bytes)
        wanted = (self.data.storage_class, layout.k, layout.m, layout.slice_bytes, layout.shard_bytes(index))
        # A copy is the slice, however large the cells of its checksums; elsewhere they say which bytes are where.
        return told == wanted and (layout.k == 1 or header.cell_bytes == layout.cell_bytes)


class Places:
    """Finds where slices are by one map. Kept as long as the map is."""

    def __init__(self, cluster: ClusterMap, classes: Callable[[int], StorageClass]) -> None:
        self.cluster = cluster
        self._classes = classes
        self._mappings: dict[tuple[int, str], Mapping] = {}

    def of(self, data: Slice) -> Placed:
        """Return where a slice is. Raises UsageError for a form that the map has no pool for."""
        made = self._classes(data.storage_class)
        key = (made.shape(data.size_bytes).width, made.domain)
        mapping = self._mappings.get(key)
        if mapping is None:
            mapping = self._mappings[key] = Mapping(self.cluster, self.cluster.pool(*key))
        return Placed(data, made, mapping)

    def answering(self) -> Iterator[Disk]:
        """Return the disks that may be asked."""
        return (disk for disk in self.cluster.disks if disk.answers)

    def answers(self, number: int) -> bool:
        """Tell whether a disk may be asked by the map."""
        disk = self.cluster.by_id.get(number)
        return disk is not None and disk.answers

    def writable(self, number: int) -> bool:
        """Tell whether a disk may be written by the map."""
        disk = self.cluster.by_id.get(number)
        return disk is not None and disk.writable
