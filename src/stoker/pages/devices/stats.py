"""What one process has on its devices, as numbers."""

import msgspec

from stoker.pages.devices.copies import Copy, DevicePages
from stoker.pages.errors import PageNotFound
from stoker.pages.frames import Residency


class DeviceStats(msgspec.Struct, frozen=True):
    """One device at one moment.

    copies, copy_bytes            pages that have a copy there
    pages_by_mode, bytes_by_mode  the same by the memory they lie in
    pages_by_residency            by which side is newer: both, both_host_newer, both_device_newer
    slab_bytes                    taken from the device, shadows and free places among them
    sent_bytes, fetched_bytes     over the bus so far, in `bus_copies` copies
    crossover_bytes               batches from this size on are compared on the device
    """

    device: str
    kernels: str
    copies: int
    copy_bytes: int
    pages_by_mode: dict[str, int]
    bytes_by_mode: dict[str, int]
    pages_by_residency: dict[str, int]
    slab_bytes: int
    sent_bytes: int
    fetched_bytes: int
    bus_copies: int
    crossover_bytes: int


def device_stats(pages: DevicePages) -> list[DeviceStats]:
    """Return the numbers of all devices in use, by name."""
    with pages.lock:
        found = []
        for home in pages.homes:
            copies = [copy for copy in pages.copies if copy.home is home]
            modes = sorted({copy.place.slab.mode for copy in copies})
            newer = [residency_of(pages, copy).name.lower() for copy in copies]
            sizes = {mode: [copy.place.size_bytes for copy in copies if copy.place.slab.mode == mode] for mode in modes}
            found.append(
                DeviceStats(
                    device=home.name,
                    kernels=home.kernels.name,
                    copies=len(copies),
                    copy_bytes=sum(copy.place.size_bytes for copy in copies),
                    pages_by_mode={mode: len(sizes[mode]) for mode in modes},
                    bytes_by_mode={mode: sum(sizes[mode]) for mode in modes},
                    pages_by_residency={one: newer.count(one) for one in sorted(set(newer))},
                    slab_bytes=home.slab_bytes,
                    sent_bytes=home.ring.sent_bytes,
                    fetched_bytes=home.ring.fetched_bytes,
                    bus_copies=home.ring.copies,
                    crossover_bytes=pages.crossover(home),
                )
            )
        return found


def residency_of(pages: DevicePages, copy: Copy) -> Residency:
    """Return which side of a copy is newer, as this process sees it; DEVICE where the page is gone from the store."""
    try:
        behind = pages.store.arena.facts(copy.page).epoch != copy.epoch
    except PageNotFound:
        return Residency.DEVICE
    if behind:
        return Residency.BOTH_HOST_NEWER
    return Residency.BOTH_DEVICE_NEWER if copy.changing else Residency.BOTH
