"""The disks of a cluster map behind their addresses."""

import threading
from collections.abc import Callable
from typing import Final

from stoker.core.errors import UnavailableError
from stoker.fs.chunk.target import Target
from stoker.fs.place import ClusterMap
from stoker.fs.wire import Peer
from stoker.fs.wire.keys import Tls

WITHIN_SECONDS: Final = 10.0
UNREACHED_SECONDS: Final = 1.0
"""A server that cannot be reached for so long is given up: others have the bytes, or take them."""


class Targets:
    """Gives the holder of a disk's shards by the disk's number: `holders` for a ClusterStore.

    A disk whose address changes in the map gets another connection; the old one is closed then.
    """

    def __init__(
        self,
        source: Callable[[], ClusterMap],
        volume: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        within_seconds: float = WITHIN_SECONDS,
    ) -> None:
        self._source = source
        self._volume = volume
        self._token = token
        self._tls = tls
        self._within_seconds = within_seconds
        self._targets: dict[int, Target] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, number: int) -> Target:
        """Return the holder. Raises UnavailableError for a disk that is not in the map, or has no address there."""
        disk = self._source().by_id.get(number)
        if disk is None or not disk.address:
            raise UnavailableError("disk has no address", where=f"disk {number}")
        with self._lock:
            if self._closed:
                raise UnavailableError("connections to disks are closed", where=f"disk {number}")
            found = self._targets.get(number)
            if found is not None and found.address == disk.address:
                return found
            made = self._targets[number] = self._target(disk.address)
        if found is not None:
            found.close()
        return made

    def _target(self, address: str) -> Target:
        peer = Peer(
            address, token=self._token, tls=self._tls, volume=self._volume, unreached_seconds=UNREACHED_SECONDS
        )  # fmt: skip
        return Target(address, within_seconds=self._within_seconds, peer=peer)

    def close(self) -> None:
        """End all connections; twice is harmless."""
        with self._lock:
            self._closed = True
            targets, self._targets = list(self._targets.values()), {}
        for target in targets:
            target.close()
