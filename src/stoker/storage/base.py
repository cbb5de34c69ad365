"""What every store and reader has in common, so that a backend writes only what is its own."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

from stoker.core.errors import ShortReadError, UsageError
from stoker.core.files import check_key
from stoker.storage.api import Buffer, Capabilities, Reader, fill
from stoker.storage.buffers import fresh_view

TEMPORARY_SUFFIX: Final = ".stoker-tmp"


class BaseReader(ABC):
    """The context manager half of a `Reader`."""

    object_bytes: int
    range_bytes: int

    @property
    def version(self) -> str:
        """Return the object's version, an empty text when the backend has none."""
        return ""

    @abstractmethod
    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range."""

    @abstractmethod
    def close(self) -> None:
        """Release the object; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BaseStore(ABC):
    """`get_into` and `get_range` out of `open_read`; everything else is the backend's."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the redacted URL."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""

    @abstractmethod
    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading."""

    def get_into(self, key: str, offset_bytes: int, into: memoryview) -> int:
        """Fill `into` from `key` at `offset_bytes`; return the bytes read, always `into.nbytes`."""
        with self.open_read(key, offset_bytes=offset_bytes, length_bytes=into.nbytes) as reader:
            fill(reader, into, where=f"{self.url} {key}")
        return into.nbytes

    def get_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> memoryview:
        """Return exactly the bytes asked for, in a fresh page-aligned buffer."""
        with self.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes) as reader:
            into = fresh_view(reader.range_bytes)
            reader.read_into(into)
        return into

    def close(self) -> None:  # noqa: B027 - most stores hold nothing open
        """Release connections and buffers; closing twice is harmless."""


def version_of(reader: Reader) -> str:
    """Return the version of the object that `reader` reads, an empty text when it does not know."""
    # Asking with isinstance would cost as much as the read of a small object.
    return str(getattr(reader, "version", ""))


def check_object_key(key: str) -> str:
    """Return `key` when an object may carry it: below the root, and not a name our temporary files use.

    Raises UsageError otherwise.
    """
    if TEMPORARY_SUFFIX in key:
        raise UsageError("key is reserved for temporary files", where=key, expected=f"no {TEMPORARY_SUFFIX!r} in it")
    return check_key(key)


def check_prefix(prefix: str) -> str:
    """Return `prefix` when it can begin a key: no `..`, no empty part but the last. Raises UsageError otherwise."""
    folder = prefix.rpartition("/")[0]
    if prefix.startswith("/") or "\0" in prefix:
        raise UsageError("prefix leaves its root", where=prefix, expected="the beginning of a relative key")
    if folder:
        check_key(folder)
    return prefix


def range_length(size_bytes: int, offset_bytes: int, length_bytes: int | None, *, where: str) -> int:
    """Return how many bytes the range of an object of `size_bytes` holds.

    Raises UsageError for a negative number, ShortReadError for a range that goes beyond the object's end.
    """
    check_range(offset_bytes, length_bytes, where=where)
    length = size_bytes - offset_bytes if length_bytes is None else length_bytes
    if length < 0 or offset_bytes + length > size_bytes:
        end = "the end" if length_bytes is None else str(offset_bytes + length)
        raise ShortReadError(
            "range goes beyond the object's end",
            where=where,
            expected=f"bytes {offset_bytes} to {end}",
            got=f"an object of {size_bytes} bytes",
        )
    return length


def check_range(offset_bytes: int, length_bytes: int | None, *, where: str) -> None:
    """Raise UsageError for a negative offset or length."""
    if offset_bytes < 0 or (length_bytes is not None and length_bytes < 0):
        raise UsageError(
            "range has a negative number",
            where=where,
            expected="an offset and a length of at least 0",
            got=f"{offset_bytes} and {length_bytes}",
        )


def byte_view(data: Buffer) -> memoryview:
    """Return `data` as a flat view of bytes, without a copy."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def short_read(where: str, *, wanted_bytes: int, got_bytes: int) -> ShortReadError:
    """Return the error for an object that ended before the range did."""
    return ShortReadError(
        "object ended early while it was read",
        where=where,
        expected=f"{wanted_bytes} bytes",
        got=f"{got_bytes} bytes",
        remedy="something truncated or replaced it; write it again",
    )
