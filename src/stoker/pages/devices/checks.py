"""Are copies what the store says they are? By hashes: 8 bytes cross the bus for each 4 KiB."""

from stoker.kernels.checking import xxh3_64
from stoker.pages.devices.copies import DevicePages
from stoker.pages.devices.tiles import TILE_BYTES, Bytes


def differing(pages: DevicePages) -> list[int]:
    """Return pages whose copy should be equal to what is committed, and is not.

    Copies that are behind, or being changed, are not looked at. XXH3-64 finds damage, not forgery.
    """
    found = []
    with pages.lock:
        for home in pages.homes:
            copies = [copy for copy in pages.copies if copy.home is home and not copy.changing]
            hashes = home.hashes([copy.place for copy in copies])
            for copy, made in zip(copies, hashes, strict=True):
                facts, data = pages.store.arena.read(copy.page)
                if facts.epoch == copy.epoch and made != tile_hashes(data):
                    found.append(copy.page)
    return sorted(found)


def tile_hashes(data: Bytes) -> list[int]:
    """Return XXH3-64 of each tile of a page, the last one padded with zeros."""
    tiles = (data[start : start + TILE_BYTES].tobytes() for start in range(0, data.size, TILE_BYTES))
    return [xxh3_64(tile.ljust(TILE_BYTES, b"\0")) for tile in tiles]
