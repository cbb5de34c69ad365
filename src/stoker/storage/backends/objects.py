"""`s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix`: objects over HTTP, through obstore.

One read is one GET: size and version come with its headers, so there is no HEAD before it. Objects larger than a
part are uploaded in parts and looked at afterwards, because a service may lose a part without saying so.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import obstore

from stoker.core.errors import NotFoundError, ShortReadError, StoreError, TransientError, UsageError
from stoker.core.files import check_key
from stoker.core.units import MiB, format_bytes
from stoker.storage.api import Buffer, Capabilities, ObjectInfo, Reader
from stoker.storage.backends.object_batch import ObjectBatchReader, Tuning
from stoker.storage.backends.object_clients import Client, Request, azure_client, google_client, s3_client
from stoker.storage.backends.object_crew import Crew
from stoker.storage.backends.object_endpoints import connected
from stoker.storage.backends.object_errors import NO_BUCKET
from stoker.storage.backends.object_reader import ObjectReader, Source
from stoker.storage.backends.object_wire import Facts, Wire, version_in
from stoker.storage.base import (
    BaseStore,
    byte_view,
    check_object_key,
    check_prefix,
    check_range,
    range_length,
)
from stoker.storage.url import StoreURL

_LIST_PAGE: Final = 1000
# Conditional uploads travel in one request, so they must fit into memory.
_CONDITIONAL_BYTES_MAX: Final = 256 * MiB


class ObjectStore(BaseStore):
    """A bucket, or the part of it below a prefix."""

    def __init__(self, parsed: StoreURL, request: Request, connect: Callable[[Request], Client]) -> None:
        prefix = parsed.path.strip("/")
        self._base = f"{check_key(prefix)}/" if prefix else ""
        self._url = parsed.redacted
        self._location = parsed.location
        self._settings = request.settings
        self._crew = Crew(self._settings["queue_depth"])
        self._pinned = frozenset(parsed.query)
        self._wire = Wire(parsed.location, connected(request, connect))

    @property
    def url(self) -> str:
        """Return the redacted URL."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""
        return Capabilities(io_mode="network", durable=True, in_flight=32)

    @property
    def received_body_bytes(self) -> int:
        """Return the bytes of response bodies received so far."""
        return self._wire.received_bytes

    @property
    def gap_body_bytes(self) -> int:
        """Return how many of the received bytes nobody wanted: they lay between ranges that shared a request."""
        return self._wire.gap_bytes

    @property
    def request_counts(self) -> dict[str, int]:
        """Return the requests made so far, by kind."""
        return self._wire.counts

    @property
    def endpoint_counts(self) -> dict[str, dict[str, int]]:
        """Return the `requests` and `failures` of each endpoint so far."""
        return self._wire.ring.counts

    @property
    def retry_count(self) -> int:
        """Return how many requests were made again at another endpoint."""
        return self._wire.failovers

    def batch_reader(self, *, residency: bool = True) -> ObjectBatchReader:
        """Return a reader of many ranges; there is no page cache to tell of."""
        tuning = Tuning(
            self._settings["queue_depth"],
            self._settings["request_bytes"],
            self._settings["coalesce_bytes"],
            self._pinned,
        )
        return ObjectBatchReader(self._wire, self._path, self.stat, tuning)

    def where(self, key: str) -> str:
        """Return how messages name the object."""
        return self._wire.where(key)

    def _path(self, key: str) -> str:
        return self._base + check_object_key(key)

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading: one GET, which asks for no more than `?request_bytes=` of the range."""
        path = self._path(key)
        check_range(offset_bytes, length_bytes, where=self.where(key))
        if length_bytes == 0:
            return self._open_nothing(key, offset_bytes, to_end=False)
        request_bytes = int(self._settings["request_bytes"])
        first_bytes = request_bytes if length_bytes is None else min(length_bytes, request_bytes)
        try:
            body = self._wire.get(key, path, offset_bytes, first_bytes)
        except ShortReadError:  # the service does not know ranges of length 0: look whether this is one
            if length_bytes is not None:
                raise
            if offset_bytes:
                return self._open_nothing(key, offset_bytes, to_end=True)
            body = self._wire.get(key, path, 0, None)
        wanted_bytes = range_length(body.facts.object_bytes, offset_bytes, length_bytes, where=self.where(key))
        return ObjectReader(self._source(key), body.facts, range(offset_bytes, offset_bytes + wanted_bytes), body)

    def _open_nothing(self, key: str, offset_bytes: int, *, to_end: bool) -> Reader:
        info = self.stat(key)
        range_length(info.size_bytes, offset_bytes, 0, where=self.where(key))
        if to_end and offset_bytes != info.size_bytes:
            raise TransientError("object changed while it was opened", where=self.where(key))
        facts = Facts(range(0), info.size_bytes, info.version)
        return ObjectReader(self._source(key), facts, range(offset_bytes, offset_bytes), None)

    def _source(self, key: str) -> Source:
        settings = self._settings
        return Source(self._wire, key, self._path(key), self._crew, settings["queue_depth"], settings["request_bytes"])

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all."""
        path = self._path(key)
        view = byte_view(data)
        if view.nbytes > self._settings["part_bytes"] and not if_absent:
            return self._put_in_parts(key, path, _slices(view, self._settings["part_bytes"]))
        mode: Any = "create" if if_absent else "overwrite"
        body = view if view.nbytes else b""
        result = self._wire.ask(
            "put",
            key,
            lambda client: obstore.put(client, path, body, mode=mode, use_multipart=False),
            elsewhere=not if_absent,
        )
        return ObjectInfo(key, view.nbytes, version_in(result))

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store the concatenation of `parts`, holding a few parts in memory.

        Raises UsageError for more than 256 MiB with `if_absent`: services take conditions only on whole uploads.
        """
        path = self._path(key)
        given = iter(parts)
        limit_bytes = _CONDITIONAL_BYTES_MAX if if_absent else self._settings["part_bytes"]
        head, complete = _take(given, limit_bytes)
        if complete:
            return self.put(key, head, if_absent=if_absent)
        if if_absent:
            raise UsageError(
                "object is too large for a conditional upload",
                where=self.where(key),
                expected=f"at most {format_bytes(limit_bytes)}",
                remedy="put it without if_absent",
            )
        return self._put_in_parts(key, path, itertools.chain([head], given))

    def _put_in_parts(self, key: str, path: str, parts: Iterable[Buffer]) -> ObjectInfo:
        sent = _Sent(parts)
        try:
            result = self._wire.upload(
                key,
                lambda uploader: obstore.put(
                    uploader,
                    path,
                    iter(sent),
                    use_multipart=True,
                    chunk_size=self._settings["part_bytes"],
                    max_concurrency=self._settings["part_concurrency"],
                ),
                lambda: self._upload_counts(sent.size_bytes),
            )
        except Exception:
            if sent.error is not None:
                raise sent.error from None
            raise
        return self._checked(key, sent.size_bytes, version_in(result))

    def _upload_counts(self, sent_bytes: int) -> dict[str, int]:
        # Azure's blocks need no beginning, only the list of them at the end.
        control = 1 if self._location.startswith("az:") else 2
        return {"multipart_part": -(-sent_bytes // self._settings["part_bytes"]), "multipart_control": control}

    def _checked(self, key: str, sent_bytes: int, version: str) -> ObjectInfo:
        """Return the facts of what was just uploaded in parts, after a look at it. Raises StoreError for a loss."""
        info = self.stat(key)
        if info.size_bytes == sent_bytes:
            return ObjectInfo(key, sent_bytes, version or info.version)
        if info.version == version:
            self.delete(key)
        raise StoreError(
            "object is not what was uploaded",
            where=self.where(key),
            expected=f"{sent_bytes} bytes",
            got=f"{info.size_bytes} bytes",
            remedy="the service lost a part, or another writer was faster; write it again",
        )

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts."""
        path = self._path(key)
        return self._info(self._wire.ask("head", key, lambda client: obstore.head(client, path)))

    def _info(self, meta: Any) -> ObjectInfo:
        return ObjectInfo(meta["path"][len(self._base) :], meta["size"], version_in(meta))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order.

        All of them are fetched before the first is yielded: not every service lists in key order.
        """
        wanted = self._base + check_prefix(prefix)
        return self._list(prefix, wanted)

    def _list(self, prefix: str, wanted: str) -> Iterator[ObjectInfo]:
        # The client's prefixes are whole folders; ours may end anywhere.
        folder = wanted.rpartition("/")[0] or None
        found: list[ObjectInfo] = []
        for page in self._wire.pages(prefix, lambda client: obstore.list(client, folder, chunk_size=_LIST_PAGE)):
            found.extend(self._info(meta) for meta in page if meta["path"].startswith(wanted))
        yield from sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is not an error."""
        path = self._path(key)
        try:
            self._wire.ask("delete", key, lambda client: obstore.delete(client, path))
        except NotFoundError as error:
            if error.what == NO_BUCKET:
                raise

    def close(self) -> None:
        """End the threads that fetch parts; closing twice is harmless."""
        self._crew.close()


class _Sent:
    """Iterates over parts, counting their bytes and remembering what their maker raised."""

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._parts = parts
        self.size_bytes = 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[memoryview]:
        try:
            for part in self._parts:
                view = byte_view(part)
                if view.nbytes:
                    self.size_bytes += view.nbytes
                    yield view
        except Exception as error:
            self.error = error
            raise


def _take(parts: Iterator[Buffer], limit_bytes: int) -> tuple[bytes, bool]:
    """Return the parts up to `limit_bytes` joined, one more than that at most, and whether these were all."""
    taken: list[memoryview] = []
    taken_bytes = 0
    for part in parts:
        view = byte_view(part)
        taken.append(view)
        taken_bytes += view.nbytes
        if taken_bytes > limit_bytes:
            return b"".join(taken), False
    return b"".join(taken), True


def _slices(view: memoryview, part_bytes: int) -> Iterator[memoryview]:
    return (view[start : start + part_bytes] for start in range(0, view.nbytes, part_bytes))


def open_s3(parsed: StoreURL) -> ObjectStore:
    """Open an `s3://` URL. Raises DeniedError without credentials; nothing is asked of the service yet."""
    return ObjectStore(parsed, Request.of(parsed), s3_client)


def open_azure(parsed: StoreURL) -> ObjectStore:
    """Open an `az://` URL. Raises DeniedError without credentials; nothing is asked of the service yet."""
    return ObjectStore(parsed, Request.of(parsed), azure_client)


def open_google(parsed: StoreURL) -> ObjectStore:
    """Open a `gs://` URL. Raises DeniedError without credentials; nothing is asked of the service yet."""
    return ObjectStore(parsed, Request.of(parsed), google_client)
