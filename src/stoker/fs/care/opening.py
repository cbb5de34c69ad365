"""The store of a volume whose bytes are on chunk servers, as everybody opens it: mounts, clients, and care."""

import ssl
from collections.abc import Callable

from stoker.fs.care.holders import WITHIN_SECONDS, Targets
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.cluster import ClusterStore, Lanes, Options, Short
from stoker.fs.meta.service import Metadata


class OpenedCluster(ClusterStore):
    """A ClusterStore with what it stands on, which it closes: its map, and connections to the disks."""

    def __init__(
        self,
        metadata: Metadata,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        options: Options | None = None,
        lanes: Lanes | None = None,
        within_seconds: float = WITHIN_SECONDS,
        told: Callable[[Short], object] = id,
    ) -> None:
        volume = metadata.settings.uuid
        self.maps = MapSource(metadata)
        self.maps.refresh()
        self.classes = ClassesByNumber(metadata)
        self.targets = Targets(self.maps, volume, token=token, tls=tls, within_seconds=within_seconds)
        super().__init__(volume, self.maps, self.targets, self.classes, lanes, options, told)
        self.maps.keep_fresh()

    def close(self) -> None:
        """End calls, connections and threads; twice is harmless."""
        self.maps.close()
        self.targets.close()
        super().close()


def open_cluster(
    metadata: Metadata,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    options: Options | None = None,
    lanes: Lanes | None = None,
    within_seconds: float = WITHIN_SECONDS,
    told: Callable[[Short], object] = id,
) -> OpenedCluster:
    """Return the store of a volume's slices on its chunk servers; whoever opens it closes it, not the metadata.

    It opens where no disk is known yet, too: what is asked of it raises NotFoundError then. Raises UnavailableError
    where the metadata do not answer.
    """
    return OpenedCluster(
        metadata, token=token, tls=tls, options=options, lanes=lanes, within_seconds=within_seconds, told=told
    )  # fmt: skip
