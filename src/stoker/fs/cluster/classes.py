"""The storage classes of a volume, asked of its metadata once: classes never change."""

from threading import Lock

from stoker.core.errors import NotFoundError
from stoker.fs.meta.calls import ListClasses
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.storage_class import StorageClass


class KnownClasses:
    """Gives a class by its number; the metadata is asked again only for a number that was not there yet."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._lock = Lock()
        self._known: dict[int, StorageClass] = {}

    def __call__(self, number: int) -> StorageClass:
        """Return a class. Raises NotFoundError for a number that the volume does not have."""
        found = self._known.get(number)
        if found is not None:
            return found
        with self._lock:
            self._known = {made.id: made for made in self._metadata.run(ListClasses()).classes}
        if number not in self._known:
            known = ", ".join(made.name for made in self._known.values())
            raise NotFoundError("no such storage class", where=str(number), expected=known)
        return self._known[number]
