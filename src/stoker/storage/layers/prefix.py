"""All keys below one folder of another store."""

from collections.abc import Iterator

import msgspec

from stoker.core.files import check_key
from stoker.storage.api import ObjectInfo, Store
from stoker.storage.base import check_object_key, check_prefix
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
