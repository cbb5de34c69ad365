"""`mem://name/prefix`: objects in this process's memory, shared by all who open the same name in it."""

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from stoker.core.errors import AlreadyExistsError, NotFoundError
from stoker.core.files import check_key
from stoker.storage.api import Buffer, Capabilities, ObjectInfo, Reader
from stoker.storage.backends.batch_memory import Found, MemoryBatchReader
from stoker.storage.base import (
    BaseReader,
    BaseStore,
    byte_view,
    check_object_key,
    check_prefix,
    range_length,
    short_read,
)
from stoker.storage.batch import BatchReader
from stoker.storage.url import StoreURL


class MemoryReader(BaseReader):
    """A range of bytes in memory."""

    def __init__(self, content: memoryview, object_bytes: int, where: str, version: str = "") -> None:
        self._content = content
        self._where = where
        self._version = version
        self.range_bytes = content.nbytes
        self.object_bytes = object_bytes

    @property
    def version(self) -> str:
        """Return the object's version."""
        return self._version

    def read_into(self, into: memoryview) -> None:
        """Copy the next bytes of the range into `into`."""
        view = byte_view(into)
        if view.nbytes > self._content.nbytes:
            raise short_read(self._where, wanted_bytes=view.nbytes, got_bytes=self._content.nbytes)
        view[:] = self._content[: view.nbytes]
        self._content = self._content[view.nbytes :]

    def close(self) -> None:
        """Let go of the object."""
        self._content = memoryview(b"")


@dataclass(frozen=True, slots=True)
class _Stored:
    content: bytes
    version: str


@dataclass(slots=True)
class _Space:
    """The objects of one name. Reads need no lock: a dictionary's single steps are atomic."""

    objects: dict[str, _Stored] = field(default_factory=dict)
    writing: threading.Lock = field(default_factory=threading.Lock)
    versions: Iterator[int] = field(default_factory=itertools.count)


_SPACES: Final[dict[str, _Space]] = {}


def _renew_locks() -> None:
    """A lock that another thread held at the fork would never be released in the child."""
    for space in _SPACES.values():
        space.writing = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


class MemoryStore(BaseStore):
    """Objects in memory; they stay until they are deleted or the process ends."""

    def __init__(self, parsed: StoreURL) -> None:
        prefix = parsed.path.strip("/")
        self._base = f"{check_key(prefix)}/" if prefix else ""
        self._url = parsed.redacted
        self._location = parsed.location
        self._space = _SPACES.setdefault(parsed.host, _Space())

    @property
    def url(self) -> str:
        """Return the URL."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""
        return Capabilities(io_mode="memory", in_flight=4)

    def _path(self, key: str) -> str:
        return self._base + check_object_key(key)

    def _where(self, key: str) -> str:
        return f"{self._location}/{key}"

    def _stored(self, key: str) -> _Stored:
        stored = self._space.objects.get(self._path(key))
        if stored is None:
            raise NotFoundError("no such object", where=self._where(key))
        return stored

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading `length_bytes` from `offset_bytes`."""
        stored = self._stored(key)
        content = memoryview(stored.content)
        where = self._where(key)
        length = range_length(content.nbytes, offset_bytes, length_bytes, where=where)
        return MemoryReader(content[offset_bytes : offset_bytes + length], content.nbytes, where, stored.version)

    def batch_reader(self, *, residency: bool = True) -> BatchReader:
        """Return a reader of many objects at once; no page cache is involved."""
        return MemoryBatchReader(self._location, self._found)

    def _found(self, key: str) -> Found:
        content = memoryview(self._stored(key).content)
        return content.nbytes, content

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Keep a copy of `data` under `key`."""
        path = self._path(key)
        content = bytes(byte_view(data))
        with self._space.writing:
            if if_absent and path in self._space.objects:
                raise AlreadyExistsError("object already exists", where=self._where(key))
            version = f"{next(self._space.versions):x}"
            self._space.objects[path] = _Stored(content, version)
        return ObjectInfo(key, len(content), version)

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Keep the concatenation of `parts` under `key`."""
        content = bytearray()
        for part in parts:  # one after the other: a part may be filled anew once the next is asked for
            content += byte_view(part)
        return self.put(key, content, if_absent=if_absent)

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts."""
        stored = self._stored(key)
        return ObjectInfo(key, len(stored.content), stored.version)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        wanted = self._base + check_prefix(prefix)
        objects = self._space.objects.copy()
        found = ((path, objects[path]) for path in sorted(objects) if path.startswith(wanted))
        cut = len(self._base)
        return (ObjectInfo(path[cut:], len(stored.content), stored.version) for path, stored in found)

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is not an error."""
        self._space.objects.pop(self._path(key), None)

    def rename(self, source: str, target: str) -> None:
        """Make `source` appear as `target`, replacing what was there."""
        goal = self._path(target)
        with self._space.writing:
            stored = self._stored(source)
            self._space.objects[goal] = stored
            if goal != self._path(source):
                del self._space.objects[self._path(source)]


def open_memory(parsed: StoreURL) -> MemoryStore:
    """Open a `mem://` URL."""
    parsed.settings(())
    return MemoryStore(parsed)
