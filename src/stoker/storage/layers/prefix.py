"""All keys below one folder of another store."""

from collections.abc import Callable, Iterator

import msgspec

from stoker.core.errors import StokerError, UsageError
from stoker.core.files import check_key
from stoker.storage.api import ObjectInfo, Store
from stoker.storage.base import check_object_key, check_prefix
from stoker.storage.batch import BatchRead, BatchReader, SupportsBatchRead
from stoker.storage.layers.batch_layer import BatchLayer
from stoker.storage.layers.layer import Layer


class PrefixStore(Layer):
    """`prefix/key` of the inner store is `key` here; nothing outside the prefix can be reached.

    `url` is what the whole is called; when not told, the inner store's URL with `?prefix=`.
    """

    def __init__(self, inner: Store, prefix: str, url: str = "") -> None:
        super().__init__(inner)
        self._base = check_key(prefix.strip("/")) + "/"
        self._url = url or f"{inner.url}{'&' if '?' in inner.url else '?'}prefix={self._base.rstrip('/')}"

    @property
    def url(self) -> str:
        """Return the redacted URL."""
        return self._url

    def _inside(self, key: str) -> str:
        return self._base + check_object_key(key)

    def _outside(self, info: ObjectInfo) -> ObjectInfo:
        return msgspec.structs.replace(info, key=info.key[len(self._base) :])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        return map(self._outside, self.inner.list(self._base + check_prefix(prefix)))

    def batch_reader(self, *, residency: bool = True) -> BatchReader | None:
        """Return a reader of many ranges below the prefix, None when the inner store offers none."""
        if not isinstance(self.inner, SupportsBatchRead):
            return None
        reader = self.inner.batch_reader(residency=residency)
        return None if reader is None else _PrefixBatchReader(reader, self._inside)


class _PrefixBatchReader(BatchLayer):
    def __init__(self, inner: BatchReader, inside: Callable[[str], str]) -> None:
        super().__init__(inner)
        self._inside = inside
        self._latest: tuple[BatchRead, BatchRead] | None = None

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch. Raises UsageError for a key that leaves the prefix."""
        within = BatchRead([self._inside(key) for key in batch.keys], batch.ranges)
        within.objects_done, within.ranges_done = batch.objects_done, batch.ranges_done
        self._latest = (batch, within)
        self._inner.read(within)

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return what `open_read` would have raised for a range of the batch that was read last."""
        if self._latest is None or batch is not self._latest[0]:
            raise UsageError("range did not fail in the batch that was read last", where=str(index))
        return self._inner.error(self._latest[1], index)
