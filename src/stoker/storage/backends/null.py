"""`null://`: infinitely fast storage, the ceiling that every other result is held against.

A put keeps only the size; a read costs nothing and leaves the buffer as it is. Keys that were never put have the
size `?object_bytes=` tells. With `?template=/path` one file is read into memory once per process and served, really
copied, for every key, so that decoders in any number of processes get valid bytes.
"""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from stoker.core.errors import AlreadyExistsError, NotFoundError, UsageError
from stoker.core.units import GiB, format_bytes
from stoker.storage.api import Buffer, Capabilities, ObjectInfo, Reader
from stoker.storage.backends.batch_memory import MemoryBatchReader
from stoker.storage.backends.memory import MemoryReader
from stoker.storage.backends.posix_errors import told
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
from stoker.storage.url import StoreURL, UrlOption

OPTIONS: Final = (
    UrlOption("object_bytes", "bytes", "the size of objects that were never put", low=0),
    UrlOption("template", "path", "a file whose content every key has"),
)
_TEMPLATE_BYTES_MAX: Final = 4 * GiB
_TEMPLATES: Final[dict[str, memoryview]] = {}


class NullReader(BaseReader):
    """A range of nothing."""

    def __init__(self, range_bytes: int, object_bytes: int, where: str) -> None:
        self._left_bytes = range_bytes
        self._where = where
        self.range_bytes = range_bytes
        self.object_bytes = object_bytes

    def read_into(self, into: memoryview) -> None:
        """Leave `into` as it is."""
        if into.nbytes > self._left_bytes:
            raise short_read(self._where, wanted_bytes=into.nbytes, got_bytes=self._left_bytes)
        self._left_bytes -= into.nbytes

    def close(self) -> None:
        """Nothing to release."""


class NullStore(BaseStore):
    """Sizes without content, or one content for all keys."""

    def __init__(self, parsed: StoreURL, object_bytes: int | None, template: memoryview | None) -> None:
        self._url = parsed.redacted
        self._location = parsed.location
        self._template = template
        self._object_bytes = object_bytes if template is None else template.nbytes
        self._sizes_bytes: dict[str, int] = {}
        self._writing = threading.Lock()

    @property
    def url(self) -> str:
        """Return the URL."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""
        if self._template is not None:
            return Capabilities(io_mode="memory", in_flight=4, notes=("null:// served one template for every key",))
        return Capabilities(io_mode="null", in_flight=4, notes=("null:// moved no bytes",))

    def _size_bytes(self, key: str) -> int:
        """Return the size a read of `key` gives: with a template, always the template's."""
        if self._template is not None:
            return self._template.nbytes
        size_bytes = self._sizes_bytes.get(check_object_key(key), self._object_bytes)
        if size_bytes is None:
            raise NotFoundError(
                "no such object", where=f"{self._location}/{key}", remedy="put it first, or add ?object_bytes=SIZE"
            )
        return size_bytes

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open any key for reading `length_bytes` from `offset_bytes`."""
        where = f"{self._location}/{check_object_key(key)}"
        size_bytes = self._size_bytes(key)
        length = range_length(size_bytes, offset_bytes, length_bytes, where=where)
        if self._template is None:
            return NullReader(length, size_bytes, where)
        return MemoryReader(self._template[offset_bytes : offset_bytes + length], size_bytes, where)

    def batch_reader(self, *, residency: bool = True) -> BatchReader:
        """Return a reader of many keys at once."""
        return MemoryBatchReader(self._location, lambda key: (self._size_bytes(check_object_key(key)), self._template))

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Note the size of `data`."""
        return self._note(key, byte_view(data).nbytes, if_absent=if_absent)

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Note the size of all `parts`."""
        return self._note(key, sum(byte_view(part).nbytes for part in parts), if_absent=if_absent)

    def _note(self, key: str, size_bytes: int, *, if_absent: bool) -> ObjectInfo:
        check_object_key(key)
        with self._writing:
            if if_absent and key in self._sizes_bytes:
                raise AlreadyExistsError("object already exists", where=f"{self._location}/{key}")
            self._sizes_bytes[key] = size_bytes
        return self._info(key, size_bytes)

    def _info(self, key: str, size_bytes: int) -> ObjectInfo:
        return ObjectInfo(key, size_bytes, f"{size_bytes:x}")

    def stat(self, key: str) -> ObjectInfo:
        """Return the size a read of the key would give."""
        return self._info(check_object_key(key), self._size_bytes(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield what was put, in key order."""
        check_prefix(prefix)
        sizes_bytes = self._sizes_bytes.copy()
        keys = sorted(key for key in sizes_bytes if key.startswith(prefix))
        return (self._info(key, self._size_bytes(key)) for key in keys if key in self._sizes_bytes)

    def delete(self, key: str) -> None:
        """Forget what was put."""
        self._sizes_bytes.pop(check_object_key(key), None)


def open_null(parsed: StoreURL) -> NullStore:
    """Open a `null://` URL. Raises UsageError for two sources of sizes, NotFoundError for a missing template."""
    settings = parsed.settings(OPTIONS)
    path, object_bytes = settings["template"], settings["object_bytes"]
    if path and object_bytes is not None:
        raise UsageError("null:// takes ?template= or ?object_bytes=, not both", where=parsed.redacted)
    return NullStore(parsed, object_bytes, _template(path) if path else None)


def _template(path: str) -> memoryview:
    """Return a file's content, read once per process."""
    if path not in _TEMPLATES:
        with told(path, reading=True):
            size_bytes = Path(path).stat().st_size
            if size_bytes > _TEMPLATE_BYTES_MAX:
                raise UsageError(
                    "template is too large to be kept in memory",
                    where=path,
                    expected=f"at most {format_bytes(_TEMPLATE_BYTES_MAX)}",
                    got=format_bytes(size_bytes),
                )
            _TEMPLATES[path] = memoryview(Path(path).read_bytes())
    return _TEMPLATES[path]
