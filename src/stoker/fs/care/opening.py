"""The store of a volume whose bytes are on chunk servers, as everybody opens it: mounts, clients, and care."""

import time

from stoker.fs.care.holders import WITHIN_SECONDS, Targets
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.care.messages import NOTE_SHORT, NoteShort
from stoker.fs.care.notes import Notes
from stoker.fs.cluster import ClusterStore, Lanes, Options, Short
from stoker.fs.master.remote import RemoteMetadata
from stoker.fs.meta.service import Metadata
from stoker.fs.wire.keys import Tls


class OpenedCluster(ClusterStore):
    """A ClusterStore with what it stands on, which it closes: its map, and connections to the disks."""

    def __init__(
        self,
        metadata: Metadata,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        options: Options | None = None,
        lanes: Lanes | None = None,
        within_seconds: float = WITHIN_SECONDS,
    ) -> None:
        volume = metadata.settings.uuid
        self.maps = MapSource(metadata)
        self.maps.refresh()
        self.classes = ClassesByNumber(metadata)
        self.targets = Targets(self.maps, volume, token=token, tls=tls, within_seconds=within_seconds)
        self._notes: Notes | None = None
        if isinstance(metadata, RemoteMetadata):
            self._notes = Notes(lambda slices: metadata.converse(NOTE_SHORT, NoteShort(slices)), time.monotonic)
        super().__init__(volume, self.maps, self.targets, self.classes, lanes, options, self._found_short)
        self.maps.keep_fresh()

    def _found_short(self, short: Short) -> None:
        """Look for a newer map, which may say why; tell the masters."""
        self.maps.want()
        if self._notes is not None:
            self._notes(short)

    def close(self) -> None:
        """Let calls end, tell what is to be told, end connections and threads; twice is harmless."""
        super().close()
        if self._notes is not None:
            self._notes.close()
        self.maps.close()
        self.targets.close()


def open_cluster(
    metadata: Metadata,
    *,
    token: str | None = None,
    tls: Tls | None = None,
    options: Options | None = None,
    lanes: Lanes | None = None,
    within_seconds: float = WITHIN_SECONDS,
) -> OpenedCluster:
    """Return the store of a volume's slices on its chunk servers; whoever opens it closes it, not the metadata.

    Where the metadata are masters, they are told of slices that need a repair as they are found.
    It opens where no disk is known yet, too: what is asked of it raises NotFoundError then. Raises UnavailableError
    where the metadata do not answer.
    """
    return OpenedCluster(
        metadata, token=token, tls=tls, options=options, lanes=lanes, within_seconds=within_seconds
    )  # fmt: skip
