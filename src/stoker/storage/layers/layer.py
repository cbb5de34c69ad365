"""A store around a store.

A layer offers a capability exactly when the inner store does: the class is put together when the layer is made, so
`isinstance(layer, SupportsCache)` tells the truth.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Self, TypeVar, cast

from stoker.storage.api import (
    Buffer,
    Capabilities,
    KnowsResidency,
    KnowsUnwritten,
    ObjectInfo,
    Reader,
    Store,
    SupportsCache,
    SupportsLocalPath,
    SupportsMultipart,
    SupportsRename,
    SupportsRequestCount,
    SupportsRetryCount,
    SupportsSweep,
    SupportsSync,
    SupportsWireCount,
)
from stoker.storage.base import BaseReader, BaseStore, version_of

T = TypeVar("T")


class Layer(BaseStore):
    """Passes everything on.

    A subclass overrides `_run` (around every call), `_inside` and `_outside` (how keys are called), or single verbs.
    """

    def __new__(cls, inner: Store, *_: object, **__: object) -> Self:
        """Return an instance of `cls` together with the capabilities of `inner`."""
        return cast("Self", object.__new__(_composed(cls, _offered(inner))))

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def _run(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Make one call of the inner store."""
        return action()

    def _inside(self, key: str) -> str:
        """Return what the inner store calls `key`."""
        return key

    def _outside(self, info: ObjectInfo) -> ObjectInfo:
        """Return the inner store's facts under our key."""
        return info

    @property
    def url(self) -> str:
        """Return the inner store's redacted URL."""
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about the inner store."""
        return self.inner.capabilities

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading."""
        path = self._inside(key)
        return self._run(
            "open_read", key, lambda: self.inner.open_read(path, offset_bytes=offset_bytes, length_bytes=length_bytes)
        )

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all."""
        path = self._inside(key)
        return self._run("put", key, lambda: self._outside(self.inner.put(path, data, if_absent=if_absent)))

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts."""
        path = self._inside(key)
        return self._run("stat", key, lambda: self._outside(self.inner.stat(path)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        return self._run("list", prefix, lambda: map(self._outside, self.inner.list(prefix)))

    def delete(self, key: str) -> None:
        """Remove the object."""
        path = self._inside(key)
        self._run("delete", key, lambda: self.inner.delete(path))

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()


class ReaderLayer(BaseReader):
    """A reader around a reader; it knows what the page cache holds exactly when the inner one does."""

    def __new__(cls, inner: Reader, *_: object, **__: object) -> Self:
        """Return an instance of `cls` together with the capability of `inner`."""
        return cast("Self", object.__new__(_composed_reader(cls, type(inner))))

    def __init__(self, inner: Reader) -> None:
        self.inner = inner
        self.object_bytes = inner.object_bytes
        self.range_bytes = inner.range_bytes

    @property
    def version(self) -> str:
        """Return the inner reader's version."""
        return version_of(self.inner)

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range."""
        self.inner.read_into(into)

    def close(self) -> None:
        """Release the object."""
        self.inner.close()


class _Residency(ReaderLayer):
    def cached_bytes(self) -> int | None:
        """Return how many bytes of the range the page cache holds."""
        return cast("KnowsResidency", self.inner).cached_bytes()


@cache
def _composed_reader(kind: type[ReaderLayer], inner: type) -> type[ReaderLayer]:
    if not hasattr(inner, "cached_bytes"):
        return kind
    return cast("type[ReaderLayer]", type(kind.__name__, (kind, _Residency), {"__doc__": kind.__doc__}))


class _Multipart(Layer):
    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store the concatenation of `parts` under `key`."""
        inner = cast("SupportsMultipart", self.inner)
        path = self._inside(key)
        return self._run("put_parts", key, lambda: self._outside(inner.put_parts(path, parts, if_absent=if_absent)))


class _Rename(Layer):
    def rename(self, source: str, target: str) -> None:
        """Make `source` appear as `target` in one step."""
        inner = cast("SupportsRename", self.inner)
        before, after = self._inside(source), self._inside(target)
        self._run("rename", source, lambda: inner.rename(before, after))


class _Cache(Layer):
    def cached_bytes(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> int | None:
        """Return how many bytes of the range are in the page cache."""
        return cast("SupportsCache", self.inner).cached_bytes(self._inside(key), offset_bytes, length_bytes)

    def evict(self, key: str) -> None:
        """Drop the object's clean pages from this host's page cache."""
        cast("SupportsCache", self.inner).evict(self._inside(key))


class _Unwritten(Layer):
    def unwritten_bytes(self, key: str) -> int | None:
        """Return how many bytes of the object are not on the device yet."""
        return cast("KnowsUnwritten", self.inner).unwritten_bytes(self._inside(key))


class _LocalPath(Layer):
    @property
    def root(self) -> str:
        """Return the local folder."""
        return cast("SupportsLocalPath", self.inner).root


class _Sweep(Layer):
    def sweep(self, prefix: str = "") -> int:
        """Remove the unfinished remains of puts, and the empty folders, below the folder `prefix`."""
        folder = self._inside(f"{prefix.rstrip('/')}/x" if prefix else "x").removesuffix("x")
        return cast("SupportsSweep", self.inner).sweep(folder)


class _Sync(Layer):
    def sync(self, key: str) -> None:
        """Make the object survive power loss."""
        path = self._inside(key)
        self._run("sync", key, lambda: cast("SupportsSync", self.inner).sync(path))


class _WireCount(Layer):
    @property
    def received_body_bytes(self) -> int:
        """Return the bytes of response bodies received so far."""
        return cast("SupportsWireCount", self.inner).received_body_bytes


class _RequestCount(Layer):
    @property
    def request_counts(self) -> dict[str, int]:
        """Return the requests sent so far, by kind."""
        return cast("SupportsRequestCount", self.inner).request_counts

    @property
    def gap_body_bytes(self) -> int:
        """Return how many received bytes nobody wanted."""
        return cast("SupportsRequestCount", self.inner).gap_body_bytes

    @property
    def endpoint_counts(self) -> dict[str, dict[str, int]]:
        """Return the requests and failures of each address of the service."""
        return cast("SupportsRequestCount", self.inner).endpoint_counts


class _RetryCount(Layer):
    @property
    def retry_count(self) -> int:
        """Return how many calls were repeated so far."""
        return cast("SupportsRetryCount", self.inner).retry_count


_CAPABILITIES: tuple[tuple[type[Any], type[Layer]], ...] = (
    (SupportsMultipart, _Multipart),
    (SupportsRename, _Rename),
    (SupportsCache, _Cache),
    (KnowsUnwritten, _Unwritten),
    (SupportsLocalPath, _LocalPath),
    (SupportsSweep, _Sweep),
    (SupportsSync, _Sync),
    (SupportsWireCount, _WireCount),
    (SupportsRequestCount, _RequestCount),
    (SupportsRetryCount, _RetryCount),
)


def _offered(inner: Store) -> tuple[type[Layer], ...]:
    return tuple(passing for asked, passing in _CAPABILITIES if isinstance(inner, asked))


@cache
def _composed(kind: type[Layer], passing: tuple[type[Layer], ...]) -> type[Layer]:
    """Return `kind` with the capabilities in `passing`, behind those it has of its own."""
    return cast("type[Layer]", type(kind.__name__, (kind, *passing), {"__doc__": kind.__doc__}))
