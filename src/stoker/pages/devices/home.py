"""One device as the home of copies: its memory, its kernels, its stream and the way over the bus."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stoker.core.errors import UsageError
from stoker.pages.devices.kernels import TileKernels, kernels_for
from stoker.pages.devices.lanes import Arrival, Lane
from stoker.pages.devices.managed import ADVICE
from stoker.pages.devices.slabs import Place, Slab, SlabPool
from stoker.pages.devices.staging import StagingRing
from stoker.pages.devices.tiles import Bytes, Columns, TileTable, columns_of, payloads_of
from stoker.pages.errors import DeviceError
from stoker.pages.interchange import need_torch


class DeviceHome:
    """What one process has on one device.

    name       as torch tells it: `cuda:0`, `cpu`
    bytes_max  of all slabs and shadows together; None for what the device has
    """

    def __init__(
        self, device: str, *, kernels: str = "auto", slab_bytes: int, staging_bytes: int, bytes_max: int | None
    ) -> None:
        self.torch = need_torch("pages on a device")
        self.device = checked_device(self.torch, device)
        self.name = str(self.device)
        self.kernels = kernels_for(self.device, kernels)
        self.lane = Lane(self.torch, self.device)
        self.ring = StagingRing(self.torch, self.device, self.lane, staging_bytes)
        self.bytes_max = bytes_max
        self._slab_bytes = slab_bytes
        self._pools: dict[str, SlabPool] = {}
        self._host_kernels = kernels_for("cpu") if self.device.type != "cpu" else self.kernels

    # -- memory --------------------------------------------------------------------------------------------------

    def take(self, size_bytes: int, mode: str) -> Place:
        """Return a place for a page, its bytes undefined. Raises DeviceError where the device is full."""
        if mode not in self._pools:
            self._pools[mode] = SlabPool(self.torch, self.device, mode, self._slab_bytes)
        pool = self._pools[mode]
        self._check_room(pool.fits(size_bytes))
        return pool.take(size_bytes)

    def give(self, place: Place) -> None:
        """Take a place back, once the lane is done with it."""
        self.lane.barrier()
        self._pools[place.slab.mode].give(place)

    def _check_room(self, more_bytes: int) -> None:
        if self.bytes_max is not None and more_bytes and self.slab_bytes + more_bytes > self.bytes_max:
            raise DeviceError(
                "memory for copies of pages is used up",
                where=self.name,
                expected=f"at most {self.bytes_max} bytes",
                got=f"{self.slab_bytes + more_bytes} bytes",
                remedy="free copies there, or allow more with bytes_max",
            )

    @property
    def slab_bytes(self) -> int:
        """Bytes of all slabs and their shadows."""
        slabs = [slab for pool in self._pools.values() for slab in pool.slabs]
        return sum(slab.size_bytes * (1 + (slab.shadow is not None)) for slab in slabs)

    @property
    def used_bytes(self) -> int:
        """Bytes of the places taken."""
        return sum(slab.used_bytes for pool in self._pools.values() for slab in pool.slabs)

    def _grouped(self, places: Sequence[Place]) -> Iterator[tuple[Slab, list[int], TileTable]]:
        """Yield each slab with the indices of its places and their table: one launch does them all."""
        rows: dict[int, list[int]] = defaultdict(list)
        for index, place in enumerate(places):
            rows[id(place.slab)].append(index)
        for indices in rows.values():
            table = TileTable([(places[index].offset, places[index].size_bytes) for index in indices])
            yield places[indices[0]].slab, indices, table

    def _kernels_of(self, slab: Slab) -> TileKernels:
        return self.kernels if slab.current.device.type == self.device.type else self._host_kernels

    # -- whole pages ---------------------------------------------------------------------------------------------

    def put(self, places: Sequence[Place], images: Sequence[Bytes], *, stream: Any = None) -> Arrival:
        """Write whole pages into their places, and into their shadows where those are kept."""
        with self.lane.running(stream):
            for slab, indices, table in self._grouped(places):
                chosen = [images[index] for index in indices]
                if slab.host is not None:
                    self._write_in_place(slab, table, places, indices, chosen)
                    continue
                staged, offsets = self.ring.send(chosen)
                sizes = [image.size for image in chosen]
                source = TileTable(list(zip(offsets, sizes, strict=True)))
                self._kernels_of(slab).copy(slab.current, table, staged, source)
                if slab.shadow is not None:
                    self._kernels_of(slab).copy(slab.shadow, table, staged, source)
            return self.lane.arrival()

    def _write_in_place(
        self, slab: Slab, table: TileTable, places: Sequence[Place], indices: Sequence[int], images: Sequence[Bytes]
    ) -> None:
        """Write memory that the host sees; the device is done with it first."""
        self.lane.barrier()
        memory = slab.host.numpy()
        for index, image in zip(indices, images, strict=True):
            offset = places[index].offset
            memory[offset : offset + image.size] = image
        if slab.shadow is not None:
            self._kernels_of(slab).copy(slab.shadow, table, slab.current, table)

    def hashes(self, places: Sequence[Place]) -> list[list[int]]:
        """Return XXH3-64 of each place's tiles of 4 KiB, the last one padded with zeros; 8 bytes a tile come over."""
        found: list[list[int]] = [[]] * len(places)
        with self.lane.running():
            for slab, indices, table in self._grouped(places):
                made = self._kernels_of(slab).hashes(slab.current, table)
                words = self.ring.fetch(made.view(self.torch.uint8)).view(np.uint64)
                for row, index in enumerate(indices):
                    found[index] = words[table.firsts[row] : table.firsts[row + 1]].tolist()
        return found

    def prefetch(self, place: Place, *, to_host: bool) -> None:
        """Have unified memory moved to the device or the host; other memory stays where it is."""
        managed = place.slab.managed
        if managed is not None:
            stream = self.torch.cuda.current_stream(self.device).cuda_stream
            managed.prefetch(place.offset, place.size_bytes, None if to_host else self.device.index, stream)

    def advise(self, place: Place, advice: str) -> None:
        """Tell the driver how unified memory is used, in a word of `managed.ADVICE`. Raises UsageError."""
        if advice not in ADVICE:
            raise UsageError("unknown advice", expected=", ".join(ADVICE), got=advice)
        if place.slab.managed is not None:
            place.slab.managed.advise(place.offset, place.size_bytes, advice, self.device.index)

    def zero(self, places: Sequence[Place]) -> None:
        """Fill places with zeros."""
        with self.lane.running():
            for slab, _, table in self._grouped(places):
                self._kernels_of(slab).zero(slab.current, table)

    def get(self, places: Sequence[Place]) -> list[Bytes]:
        """Return the bytes of places as they are now, copies."""
        found: list[Any] = [None] * len(places)
        with self.lane.running():
            for slab, indices, table in self._grouped(places):
                ends, end = [], 0
                for index in indices:
                    ends.append(end)
                    end += -(-places[index].size_bytes // 256) * 256
                sizes = [places[index].size_bytes for index in indices]
                gathered = self.torch.empty(end, dtype=self.torch.uint8, device=slab.current.device)
                target = TileTable(list(zip(ends, sizes, strict=True)))
                self._kernels_of(slab).copy(gathered, target, slab.current, table)
                data = self.ring.fetch(gathered)
                for index, start, size in zip(indices, ends, sizes, strict=True):
                    found[index] = data[start : start + size]
        return found

    # -- changes -------------------------------------------------------------------------------------------------

    def keep_shadows(self, places: Sequence[Place]) -> None:
        """Note the bytes of places as they are now. Raises DeviceError where the device is full."""
        with self.lane.running():
            for slab, _, table in self._grouped(places):
                if slab.shadow is None:
                    self._check_room(slab.size_bytes)
                    slab.ensure_shadow()
                self._kernels_of(slab).copy(slab.shadow, table, slab.current, table)

    def changes(self, places: Sequence[Place]) -> tuple[list[bytes], list[tuple[Slab, TileTable, Columns]]]:
        """Return the payload of each place against its shadow, and what `settle` needs: one copy a slab."""
        payloads, kept = [b""] * len(places), []
        with self.lane.running():
            for slab, indices, table in self._grouped(places):
                columns = self._kernels_of(slab).compare(slab.shadow, slab.current, table)
                kept.append((slab, table, columns))
                on_host = self.ring.fetch(columns.blob)
                found = payloads_of(table, Columns(on_host, columns.dirty_lines, columns.changed_bytes))
                for index, payload in zip(indices, found, strict=True):
                    payloads[index] = payload
        return payloads, kept

    def settle(self, kept: Sequence[tuple[Slab, TileTable, Columns]]) -> None:
        """Bring shadows to what `changes` found, once it is committed; nothing crosses the bus."""
        with self.lane.running():
            for slab, table, columns in kept:
                self._kernels_of(slab).apply([slab.shadow], table, columns)

    def apply(self, places: Sequence[Place], payloads: Sequence[bytes | memoryview]) -> Arrival:
        """Write payloads into places and their shadows; only they cross the bus, one copy a slab."""
        with self.lane.running():
            for slab, indices, table in self._grouped(places):
                made = columns_of(table, [payloads[index] for index in indices])
                staged, _ = self.ring.send([made.blob])
                on_device = staged[: made.blob.size].to(slab.current.device)
                targets = [slab.current] if slab.shadow is None else [slab.current, slab.shadow]
                columns = Columns(on_device, made.dirty_lines, made.changed_bytes)
                self._kernels_of(slab).apply(targets, table, columns)
            return self.lane.arrival()

    def cast(self, places: Sequence[Place], masters: Sequence[Any]) -> list[bytes]:
        """Round float32 masters to bfloat16 into places, and return the payload of each."""
        payloads = [b""] * len(places)
        with self.lane.running():
            for slab, indices, table in self._grouped(places):
                columns = self._kernels_of(slab).cast([masters[index] for index in indices], slab.current, table)
                on_host = self.ring.fetch(columns.blob)
                found = payloads_of(table, Columns(on_host, columns.dirty_lines, columns.changed_bytes))
                for index, payload in zip(indices, found, strict=True):
                    payloads[index] = payload
        return payloads


def checked_device(torch: Any, device: str) -> Any:
    """Return the device of a name, `auto` being CUDA where it is there. Raises DeviceError for a missing one.

    The host may be several devices, `cpu` and `cpu:1`: each has memory and an order of its own.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(
            "no such kind of device", got=device, remedy="name it as torch does: cuda, cuda:1, cpu"
        ) from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise DeviceError("device is not there", got=device, expected=f"one of {count} CUDA devices", remedy="cpu")
        return torch.device("cuda", found.index if found.index is not None else torch.cuda.current_device())
    if found.type != "cpu":
        raise DeviceError("pages live on CUDA devices and on the host", got=device)
    return found
