"""What a store promises.

A store is a flat map from keys (relative paths with `/`) to immutable byte strings. Six verbs are enough for
every backend; what only some can do stands in a capability protocol of its own, to be asked for with
`isinstance`.

Reading goes through `open_read`, which hands out a `Reader`: opening (for an object store: until the response's
headers) and moving the bytes are two calls, so whoever times them knows which of the two was slow.
"""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import ShortReadError
from stoker.kernels.mapping import MappingWatch

Buffer = bytes | bytearray | memoryview


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object as a listing or a stat tells it. `version` changes when the content does (etag or size-mtime)."""

    key: str
    size_bytes: int
    version: str = ""


class Capabilities(msgspec.Struct, frozen=True):
    """Facts about a store, as data.

    io_mode       what really happens: `buffered`, `direct`, `memory`, `null`, `network`
    alignment_bytes   buffers, offsets and lengths that are multiples of it avoid a bounce copy
    durable       a finished put survives power loss
    atomic_put    a reader sees the old object or the whole new one, never a part
    in_flight     how many concurrent reads serve it well when nothing is known
    cache_evictable   `SupportsCache` can make the next read come from the device
    notes         sentences every result must repeat, such as a fallback to buffered I/O
    """

    io_mode: str
    alignment_bytes: int = 1
    durable: bool = False
    atomic_put: bool = True
    in_flight: int = 16
    cache_evictable: bool = False
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """One opened object, or one range of it.

    `object_bytes` is the whole object's size as the backend tells it; `range_bytes` what this reader will give.
    Not safe from several threads. Close it, or use it as a context manager.
    """

    object_bytes: int
    range_bytes: int

    def read_into(self, into: memoryview) -> None:
        """Fill `into` (contiguous uint8) with the next bytes of the range.

        Raises ShortReadError when the object ends before `into` is full: a partial object is never data.
        """

    def close(self) -> None:
        """Release the object; closing twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class SupportsVersion(Protocol):
    """A reader that knows which version of the object it reads, as `ObjectInfo.version` tells it."""

    @property
    def version(self) -> str:
        """Return the version, an empty text when it is not known after all."""


@runtime_checkable
class SupportsResume(Protocol):
    """A reader whose `read_into` may be called again after a TransientError, with the same memory.

    It then fetches only what is still missing, and raises StoreError when the object has changed meanwhile.
    """

    resumes: bool


@runtime_checkable
class Store(Protocol):
    """The narrow interface. Every method is safe from many threads and may be repeated: nothing is appended.

    `url` is redacted: it is safe to print and to keep in a result.
    """

    @property
    def url(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading `length_bytes` from `offset_bytes` (to the end when None).

        Raises NotFoundError; ShortReadError when the range goes beyond the end; DeniedError; TransientError.
        """

    def get_into(self, key: str, offset_bytes: int, into: memoryview) -> int:
        """Fill `into` from `key` at `offset_bytes`; return the bytes read, always `into.nbytes`."""

    def get_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> memoryview:
        """Return exactly the bytes asked for, in a fresh buffer."""

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all.

        Raises AlreadyExistsError with `if_absent`; NoSpaceError; DeniedError.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts. Raises NotFoundError."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order, lazily where the backend allows."""

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is not an error."""

    def close(self) -> None:
        """Release connections and buffers; closing twice is harmless."""


@runtime_checkable
class SupportsMultipart(Protocol):
    """Puts objects larger than memory."""

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store the concatenation of `parts` under `key`; nothing carries the name before all of it is there.

        A part may be in use after the next one is asked for: its memory must not change while a view of it is alive.
        """


@runtime_checkable
class SupportsRename(Protocol):
    """Renames atomically, so a rename can be a commit."""

    def rename(self, source: str, target: str) -> None:
        """Make `source` appear as `target` in one step, replacing what was there."""


@runtime_checkable
class SupportsCache(Protocol):
    """Knows what of an object this host's page cache holds."""

    def cached_bytes(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> int | None:
        """Return how many bytes of the range are in the page cache, None when that cannot be told."""

    def evict(self, key: str) -> None:
        """Drop the object's clean pages from this host's page cache."""


@runtime_checkable
class SupportsMapping(Protocol):
    """Lends what lies in this host's page cache without a copy."""

    def map_cached(
        self, key: str, offset_bytes: int, length_bytes: int, watch: MappingWatch, tag: int
    ) -> tuple[NDArray[np.uint8], int] | None:
        """Return the range as a flat, writable array that never changes the object, and the whole object's size.

        None unless all of the range is in the page cache and can be mapped: then it is read as usual. An object that
        shrinks later gives zeros, and its `tag` to the watch. Raises NotFoundError, DeniedError, TransientError.
        """


@runtime_checkable
class KnowsUnwritten(Protocol):
    """Can tell whether what was put has left this host's page cache."""

    def unwritten_bytes(self, key: str) -> int | None:
        """Return how many bytes of the object lie in the page cache and not on the device yet, None when unknown."""


@runtime_checkable
class KnowsResidency(Protocol):
    """A reader that can tell, before it moves bytes, where they will come from."""

    def cached_bytes(self) -> int | None:
        """Return how many bytes of this reader's range the host's page cache holds now, None when unknown."""


@runtime_checkable
class SupportsSync(Protocol):
    """Can make durable, afterwards, what was put without that."""

    def sync(self, key: str) -> None:
        """Make the object survive power loss: its bytes and its name. Raises NotFoundError."""


@runtime_checkable
class SupportsLocalPath(Protocol):
    """Lies in a local folder: its device's counters can be found."""

    @property
    def root(self) -> str: ...


@runtime_checkable
class SupportsSweep(Protocol):
    """Can tidy up after writers that were killed."""

    def sweep(self, prefix: str = "") -> int:
        """Remove the unfinished remains of puts, and the empty folders, below the folder `prefix`; return how many.

        `prefix` itself and the folders above it go too when that leaves them empty; the root stays.
        Only for what nobody is writing to any more: an unfinished file of a living writer goes too.
        """


@runtime_checkable
class SupportsWireCount(Protocol):
    """Knows what came over the network, to be held against what the kernel's interface counters say."""

    @property
    def received_body_bytes(self) -> int:
        """Return the bytes of response bodies received so far by this store, read or thrown away."""


@runtime_checkable
class SupportsRequestCount(Protocol):
    """Counts its requests by kind: what a service bills, and what shows a needless one."""

    @property
    def request_counts(self) -> dict[str, int]:
        """Return the requests sent so far, failed ones too, by kind.

        `get` (whole objects), `get_range`, `head`, `list` (pages), `put`, `multipart_part`, `multipart_control` (what
        begins and completes an upload in parts), `delete`.
        """

    @property
    def gap_body_bytes(self) -> int:
        """Return how many bytes of response bodies nobody wanted: they lay between ranges that shared a request."""

    @property
    def endpoint_counts(self) -> dict[str, dict[str, int]]:
        """Return, for each address of the service, the `requests` it was given and the `failures` among them."""


@runtime_checkable
class SupportsRetryCount(Protocol):
    """Repeats what failed for a passing reason, and counts it."""

    @property
    def retry_count(self) -> int:
        """Return how many calls were repeated so far."""


def fill(reader: Reader, into: memoryview, *, where: str) -> None:
    """Read the whole range of `reader` into `into`. Raises ShortReadError unless the sizes are equal."""
    if reader.range_bytes != into.nbytes:
        raise ShortReadError(
            "object is not as long as expected",
            where=where,
            expected=f"{into.nbytes} bytes",
            got=f"{reader.range_bytes} bytes",
        )
    reader.read_into(into)
