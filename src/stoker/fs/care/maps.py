"""The newest cluster map that is known here, kept fresh beside whoever uses it."""

import threading
from typing import Final

from stoker.core.errors import NotFoundError, StokerError, UsageError
from stoker.fs.meta.calls import GetMap, ListClasses
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap
from stoker.fs.place.map import unpack_map

EVERY_SECONDS: Final = 1.0


class MapSource:
    """Gives the newest map known, without waiting: a `source` for a ClusterStore.

    `refresh` asks the metadata; `keep_fresh` has a thread do it, for which reads never wait. `failure` says why the
    last time brought nothing.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._newest: ClusterMap | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: StokerError | None = None

    def __call__(self) -> ClusterMap:
        """Return the newest map that is known. Raises NotFoundError where the volume has none."""
        found = self._newest or self.refresh()
        if found is None:
            raise NotFoundError(
                "volume has no cluster map yet", where=self._metadata.settings.name,
                remedy="start chunk servers that report to its masters",
            )  # fmt: skip
        return found

    @property
    def known(self) -> ClusterMap | None:
        """Return the newest map that is known, None for none."""
        return self._newest

    def refresh(self) -> ClusterMap | None:
        """Ask for a newer map now; return the newest. Raises what the metadata raise, and CorruptError."""
        known = self._newest
        try:
            data = self._metadata.run(GetMap(known.epoch if known is not None else 0)).data
        except StokerError as error:
            self.failure = error
            raise
        self.failure = None
        return self.learn(unpack_map(data)) if data else self._newest

    def learn(self, made: ClusterMap) -> ClusterMap:
        """Take a map that somebody brings; return the newest, which may be another."""
        with self._lock:
            if self._newest is None or made.epoch > self._newest.epoch:
                self._newest = made
            return self._newest

    def want(self) -> None:
        """Have the thread refresh at once, without waiting for it."""
        self._wanted.set()

    def keep_fresh(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Have a thread refresh over and over, until `close`."""
        self._thread = threading.Thread(
            target=self._refresh_on, args=(every_seconds,), daemon=True, name="stoker-map-source"
        )
        self._thread.start()

    def _refresh_on(self, every_seconds: float) -> None:
        while True:
            self._wanted.wait(every_seconds)
            self._wanted.clear()
            if self._closing.is_set():
                return
            try:
                self.refresh()
            except StokerError:
                continue  # told by `failure`; the map that is known stays good for reading

    def close(self) -> None:
        """End the thread; twice is harmless."""
        self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class ClassesByNumber:
    """Gives a storage class by its number. Classes never change, so what was told once is kept."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._known: dict[int, StorageClass] = {}

    def __call__(self, number: int) -> StorageClass:
        """Return a class. Raises UsageError for one that the volume does not have."""
        found = self._known.get(number)
        if found is None:
            self.all()
            found = self._known.get(number)
        if found is None:
            known = ", ".join(str(one) for one in sorted(self._known))
            raise UsageError("no such storage class", where=str(number), expected=known)
        return found

    def all(self) -> tuple[StorageClass, ...]:
        """Return all classes that there are now."""
        classes = self._metadata.run(ListClasses()).classes
        self._known.update((one.id, one) for one in classes)
        return classes
