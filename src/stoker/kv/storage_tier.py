"""The tier on a store: an object an entry, in a folder of its own that carries our mark.

Before a read this host's page cache forgets the entry where that can be done, so that the device gives it. A write
through the page cache is put first and synced then, so that both can be timed apart.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from stoker.core import clock
from stoker.core.errors import CorruptError, NotFoundError, PreflightError, ShortReadError, UsageError
from stoker.kv.content import EntryContent
from stoker.kv.memory import OnPiece
from stoker.kv.spans import Spans
from stoker.storage.api import (
    KnowsResidency,
    Reader,
    Store,
    SupportsCache,
    SupportsMultipart,
    SupportsSweep,
    SupportsSync,
)
from stoker.storage.buffers import BufferPool

MARKER: Final = "stoker-kv-cache.json"
SUFFIX: Final = ".npy"
_SCHEMA: Final = "stoker-kv-cache/1"
_MARKER_BYTES_MAX: Final = 1 << 16
_OURS: Final = re.compile(
    r"(?:conv_\d+_\d+_turn_\d+|user_\d+_req_\d+|rag_doc\d+_chunk_\d+|kv_system_[0-9a-f]{16}|precond_\d+|prepop_\d+"
    r"|page_[0-9a-f]{32})\.npy"
)


class _Mark(msgspec.Struct, frozen=True):
    """The marker of a folder whose entries are ours to remove."""

    schema: str
    run: str


class StorageTier:
    """Entries below `folder` of a store. Safe from many threads."""

    def __init__(self, store: Store, folder: str, pool: BufferPool, piece_bytes: int) -> None:
        """Raises UsageError for a store that takes no objects in parts."""
        if not isinstance(store, SupportsMultipart):
            raise UsageError("store takes no objects in parts, so no KV cache", where=store.url)
        self._parts: SupportsMultipart = store
        self._store, self._folder, self._pool, self._piece_bytes = store, folder.rstrip("/"), pool, piece_bytes
        self._buffered = store.capabilities.io_mode == "buffered"
        self._cache = store if isinstance(store, SupportsCache) and store.capabilities.cache_evictable else None
        self._sync = store if isinstance(store, SupportsSync) else None
        self._keeps = store.capabilities.io_mode != "null"
        self.synced = True
        self.read_alone = self._cache is not None
        """Whether two readers of an entry would read from what the other brought into the page cache."""

    @property
    def store(self) -> Store:
        """Return the store."""
        return self._store

    def key(self, key: str) -> str:
        """Return what the store calls an entry."""
        return f"{self._folder}/{key}{SUFFIX}" if self._folder else f"{key}{SUFFIX}"

    # -- the folder --------------------------------------------------------------------------------------------------

    def begin(self, run: str) -> int:
        """Mark the folder as ours; return how many entries of a run that was killed were removed from it.

        Raises PreflightError where files lie there that are named like ours and do not carry our mark.
        """
        if not self._keeps:
            return 0
        ours = self._ours()
        if self._marked():
            for name in ours:
                self._store.delete(name)
        elif ours:
            raise PreflightError(
                "folder of the KV cache holds files named like ours, without our mark",
                where=f"{self._store.url} {self._folder}",
                got=f"{len(ours)} files, {ours[0]!r} first",
                remedy="remove them, or name another folder: ours overwrites nothing it did not write",
            )
        self._store.put(self._marker, msgspec.json.encode(_Mark(_SCHEMA, run)))
        return len(ours)

    def end(self) -> None:
        """Take the mark away, once all entries are deleted; a folder that is empty then goes, too."""
        if not self._keeps:
            return
        self._store.delete(self._marker)
        if isinstance(self._store, SupportsSweep) and self._folder:
            self._store.sweep(self._folder)

    @property
    def _marker(self) -> str:
        return f"{self._folder}/{MARKER}" if self._folder else MARKER

    def _marked(self) -> bool:
        try:
            size = self._store.stat(self._marker).size_bytes
            data = bytes(self._store.get_range(self._marker)) if size <= _MARKER_BYTES_MAX else b""
            return msgspec.json.decode(data, type=_Mark).schema == _SCHEMA
        except NotFoundError:
            return False
        except msgspec.DecodeError as error:
            raise CorruptError("mark of a KV cache cannot be read", where=self._marker, got=str(error)) from error

    def _ours(self) -> list[str]:
        prefix = f"{self._folder}/" if self._folder else ""
        names = [info.key for info in self._store.list(prefix)]
        return [name for name in names if _OURS.fullmatch(name[len(prefix) :])]

    # -- entries -----------------------------------------------------------------------------------------------------

    def write(self, content: EntryContent) -> Spans:
        """Make an entry piece by piece and put it; it is durable, as far as was asked, when this returns."""
        spans = Spans()
        return self._put(content, self._made(content, spans), spans)

    def take(self, content: EntryContent, pieces: Iterator[memoryview]) -> Spans:
        """Put an entry that comes from another tier."""
        return self._put(content, pieces, Spans())

    def _put(self, content: EntryContent, pieces: Iterator[memoryview], spans: Spans) -> Spans:
        key = self.key(content.key)
        began_ns = clock.monotonic_ns()
        self._parts.put_parts(key, pieces)
        put_ns = clock.monotonic_ns()
        if self.synced and self._sync is not None:
            self._sync.sync(key)
        synced_ns, put_ns = clock.monotonic_ns() - put_ns, put_ns - began_ns - spans.content_ns
        spans.device_ns = synced_ns + (0 if self._buffered else put_ns)
        spans.host_ns = put_ns if self._buffered else 0
        return spans

    def _made(self, content: EntryContent, spans: Spans) -> Iterator[memoryview]:
        for start in range(0, content.size_bytes, self._piece_bytes):
            began_ns = clock.monotonic_ns()
            lease = self._pool.acquire(min(self._piece_bytes, content.size_bytes - start))
            content.fill(start, lease.view)
            spans.content_ns += clock.monotonic_ns() - began_ns
            yield lease.view
            lease.release()

    def read(self, content: EntryContent, scratch: memoryview, look: OnPiece) -> Spans:
        """Read an entry piece by piece into `scratch` and let `look` see each.

        Raises NotFoundError for an entry that somebody removed, ShortReadError for one of another size, and what `look`
        raises.
        """
        key, spans = self.key(content.key), Spans()
        began_ns = clock.monotonic_ns()
        if self._cache is not None:
            self._cache.evict(key)
        opened_ns = clock.monotonic_ns()
        spans.host_ns = opened_ns - began_ns
        with self._store.open_read(key) as reader:
            self._require_size(reader, content, key)
            spans.device_ns += clock.monotonic_ns() - opened_ns
            spans.cached_bytes = reader.cached_bytes() if isinstance(reader, KnowsResidency) else 0
            self._read_pieces(reader, scratch, look, spans)
        return spans

    def _read_pieces(self, reader: Reader, scratch: memoryview, look: OnPiece, spans: Spans) -> None:
        for start in range(0, reader.range_bytes, scratch.nbytes):
            piece = scratch[: min(scratch.nbytes, reader.range_bytes - start)]
            began_ns = clock.monotonic_ns()
            reader.read_into(piece)
            read_ns = clock.monotonic_ns()
            if self._keeps:
                look(start, piece)
            spans.device_ns += read_ns - began_ns
            spans.content_ns += clock.monotonic_ns() - read_ns

    def _require_size(self, reader: Reader, content: EntryContent, key: str) -> None:
        if self._keeps and reader.range_bytes != content.size_bytes:
            raise ShortReadError(
                "entry of the KV cache has another size than was written",
                where=key,
                expected=f"{content.size_bytes} bytes",
                got=f"{reader.range_bytes} bytes",
            )

    def pieces(self, content: EntryContent) -> Iterator[memoryview]:
        """There is no tier below storage that an entry could go to."""
        raise UsageError("storage is the last tier", where=content.key)

    def delete(self, key: str) -> None:
        """Remove an entry."""
        self._store.delete(self.key(key))
