"""A store of slices in this process's memory: for tests, the simulator, and volumes that end with the process."""

import threading
from collections.abc import Iterator, Sequence

import crc32c

from stoker.core.errors import CorruptError, NoSpaceError, NotFoundError, StoreError
from stoker.fs.meta.slices import CHUNK_BYTES, Slice
from stoker.fs.store.interface import Bytes, SliceRange


class MemorySliceStore:
    """Slices in memory, checked as those of a disk are. `capacity_bytes` bounds what it takes, None does not.

    It knows which slices a power failure would leave: `lose_power` drops the others.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self._held: dict[Slice, tuple[bytes, int]] = {}
        self._durable: set[Slice] = set()
        self._mutex = threading.Lock()
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Return how many bytes the slices have together."""
        return self._used_bytes

    def write(self, data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        """Store a slice. Raises StoreError for parts that are not its size, NoSpaceError beyond the capacity."""
        content = b"".join(parts)
        where = _name(data)
        if len(content) != data.size_bytes or not 0 < data.size_bytes <= CHUNK_BYTES:
            expected = f"{data.size_bytes} bytes, of 1 to {CHUNK_BYTES}"
            raise StoreError("slice does not have its size", where=where, expected=expected, got=f"{len(content)}")
        with self._mutex:
            held = self._held.get(data)
            if held is not None and held[0] != content:
                raise StoreError("slice is there with other bytes", where=where, remedy="slices are written once")
            if held is None:
                self._make_room(data)
                self._held[data] = (content, crc32c.crc32c(content))
                self._used_bytes += data.size_bytes
            if durable:
                self._durable.add(data)

    def _make_room(self, data: Slice) -> None:
        if self.capacity_bytes is not None and self._used_bytes + data.size_bytes > self.capacity_bytes:
            free_bytes = self.capacity_bytes - self._used_bytes
            expected = f"{data.size_bytes} free bytes"
            raise NoSpaceError("store is full", where=_name(data), expected=expected, got=f"{free_bytes}")

    def make_durable(self, slices: Sequence[Slice]) -> None:
        """Note that slices survive `lose_power`. Raises NotFoundError for one that is not there."""
        with self._mutex:
            for data in slices:
                if data not in self._held:
                    raise NotFoundError("no such slice", where=_name(data))
            self._durable.update(slices)

    def read(self, ranges: Sequence[SliceRange]) -> list[Bytes]:
        """Return the bytes of each range."""
        return [self._read(one) for one in ranges]

    def _read(self, one: SliceRange) -> Bytes:
        held = self._held.get(one.slice)
        if held is None:
            raise NotFoundError("no such slice", where=_name(one.slice))
        content, checksum = held
        if one.offset < 0 or one.length < 0 or one.offset + one.length > len(content):
            got = f"bytes {one.offset} to {one.offset + one.length} of {len(content)}"
            raise StoreError("range is not within its slice", where=_name(one.slice), got=got)
        if one.length == len(content) and crc32c.crc32c(content) != checksum:
            raise CorruptError("bytes of a slice are not those stored", where=_name(one.slice))
        return memoryview(content)[one.offset : one.offset + one.length]

    def remove(self, slices: Sequence[Slice]) -> None:
        """Remove slices; those that are not there are removed already."""
        with self._mutex:
            for data in slices:
                if self._held.pop(data, None) is not None:
                    self._used_bytes -= data.size_bytes
                self._durable.discard(data)

    def inventory(self) -> Iterator[Slice]:
        """Return every slice that is there."""
        with self._mutex:
            return iter(list(self._held))

    def lose_power(self) -> int:
        """Drop what is not durable, as a power failure would; return how many slices went."""
        with self._mutex:
            lost = self._held.keys() - self._durable
        self.remove(sorted(lost, key=lambda data: data.id))
        return len(lost)

    def close(self) -> None:
        """Do nothing: the slices live as long as the store."""


def _name(data: Slice) -> str:
    return f"slice {data.id} generation {data.generation}"
