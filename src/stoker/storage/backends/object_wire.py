"""The requests of one object store: which endpoint gets them, what is counted, whose errors come out."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import obstore

from stoker.core.errors import StoreError, TransientError
from stoker.storage.backends.object_clients import Client
from stoker.storage.backends.object_endpoints import Endpoint, Ring
from stoker.storage.backends.object_errors import guarded
from stoker.storage.base import short_read

T = TypeVar("T")

# Larger pieces of a body cost more CPU time (their memory is mapped anew each time) and hold more in flight; smaller
# ones cost more calls.
CHUNK_BYTES: Final = 256 * 1024
REQUEST_KINDS: Final = ("get", "get_range", "head", "list", "put", "multipart_part", "multipart_control", "delete")


class _Runtime:
    """The client's threads belong to one process: after a fork they are gone, and every call would hang."""

    def __init__(self) -> None:
        self._owner = 0

    def enter(self, where: str) -> None:
        """Note that this process uses the client. Raises StoreError in a fork of a process that did."""
        process = os.getpid()
        if self._owner not in (0, process):
            raise StoreError(
                "object stores were used before this process was forked",
                where=where,
                remedy="start workers with spawn or forkserver",
            )
        self._owner = process


_RUNTIME: Final = _Runtime()


class Facts(NamedTuple):
    """What a response's headers told: which bytes follow, of an object how large, in which version."""

    span: range
    object_bytes: int
    version: str


class Body:
    """The body of one response, piece by piece. `missing_bytes` are still to come."""

    def __init__(self, wire: "Wire", where: str, endpoint: Endpoint, got: Any) -> None:
        self._wire = wire
        self._where = where
        self._endpoint = endpoint
        self.facts = Facts(range(*got.range), got.meta["size"], version_in(got.meta))
        self.missing_bytes = len(self.facts.span)
        self._chunks: Iterator[bytes] = iter(got.stream(min_chunk_size=max(1, min(self.missing_bytes, CHUNK_BYTES))))

    def next_chunk(self) -> bytes:
        """Return the next bytes, nothing at the end. Raises TransientError when they do not come.

        ShortReadError: the body ended before the bytes that its headers promised.
        """
        if not self.missing_bytes:
            return b""
        chunk: bytes = self._wire.noting(self._endpoint, lambda: guarded(self._where, partial(next, self._chunks, b"")))
        if not chunk:
            wanted_bytes = len(self.facts.span)
            raise short_read(self._where, wanted_bytes=wanted_bytes, got_bytes=wanted_bytes - self.missing_bytes)
        if len(chunk) > self.missing_bytes:
            raise StoreError("service sent more bytes than it said", where=self._where)
        self.missing_bytes -= len(chunk)
        self._wire.count_received(len(chunk))
        return chunk


class Wire:
    """Sends requests and counts them. Safe from many threads."""

    def __init__(self, location: str, endpoints: Sequence[Endpoint]) -> None:
        self._location = location
        self.ring = Ring(endpoints)
        self.received_bytes = 0
        self.gap_bytes = 0
        self.failovers = 0
        self._counts = dict.fromkeys(REQUEST_KINDS, 0)
        self._counting = threading.Lock()

    @property
    def counts(self) -> dict[str, int]:
        """Return the requests made so far, by kind."""
        with self._counting:
            return dict(self._counts)

    def count(self, kind: str, endpoint: Endpoint, number: int = 1) -> None:
        """Add requests of a kind, sent to `endpoint`."""
        with self._counting:
            self._counts[kind] += number
        self.ring.asked(endpoint, number)

    def count_received(self, count_bytes: int) -> None:
        """Add to the received bytes."""
        with self._counting:
            self.received_bytes += count_bytes

    def count_gaps(self, count_bytes: int) -> None:
        """Add to the bytes that were received for being between wanted ones."""
        with self._counting:
            self.gap_bytes += count_bytes

    def where(self, key: str) -> str:
        """Return how messages name the object."""
        return f"{self._location}/{key}"

    def ask(self, kind: str, key: str, action: Callable[[Client], T], *, elsewhere: bool = True) -> T:
        """Make one request about `key` at the endpoint whose turn it is; its failures become ours.

        One that fails for a passing reason is made again at the other endpoints, unless `elsewhere` forbids it.
        """
        return self._answered(kind, key, action, elsewhere=elsewhere)[0]

    def get(self, key: str, path: str, offset_bytes: int, length_bytes: int | None) -> Body:
        """Ask for a range of `path`, to the end when `length_bytes` is None; return what comes.

        A range that begins in the object and goes beyond its end comes cut. Raises ShortReadError when it begins
        beyond; TransientError when something else came than was asked for.
        """
        asked: Any = {}
        if length_bytes is not None:
            asked = {"range": (offset_bytes, offset_bytes + length_bytes)}
        elif offset_bytes:
            asked = {"range": {"offset": offset_bytes}}
        kind = "get_range" if asked else "get"
        got, endpoint = self._answered(kind, key, lambda client: obstore.get(client, path, options=asked or None))
        where = self.where(key)
        body = Body(self, where, endpoint, got)
        size_bytes = body.facts.object_bytes
        end_bytes = size_bytes if length_bytes is None else min(offset_bytes + length_bytes, size_bytes)
        if body.facts.span != range(offset_bytes, end_bytes):
            raise short_read(where, wanted_bytes=end_bytes - offset_bytes, got_bytes=len(body.facts.span))
        return body

    def upload(self, key: str, action: Callable[[Client], T], counts: Callable[[], Mapping[str, int]]) -> T:
        """Run an upload in parts at one endpoint, whose client repeats single parts; its failures become ours.

        `counts` tells, at the end, how many requests of which kind that took; repeated parts nobody tells.
        """
        where = self.where(key)
        _RUNTIME.enter(where)
        endpoint = self.ring.turn()[0]
        try:
            return self.noting(endpoint, lambda: guarded(where, partial(action, endpoint.uploader)))
        finally:
            for kind, number in counts().items():
                self.count(kind, endpoint, number)

    def pages(self, key: str, action: Callable[[Client], Iterable[T]]) -> Iterator[T]:
        """Yield the pages of a listing, all from one endpoint; its failures become ours."""
        where = self.where(key)
        _RUNTIME.enter(where)
        endpoint = self.ring.turn()[0]
        pages = iter(guarded(where, partial(action, endpoint.client)))
        self.count("list", endpoint)
        following = partial(guarded, where, lambda: next(pages, None))
        page = self.noting(endpoint, following)
        while page is not None:
            yield page
            page = self.noting(endpoint, following)
            if page is not None:  # the client looks ahead: the last page told that it is the last
                self.count("list", endpoint)

    def noting(self, endpoint: Endpoint, action: Callable[[], T]) -> T:
        """Return what `action` returns; a passing failure leaves `endpoint` out for a while."""
        try:
            return action()
        except TransientError:
            self.ring.failed(endpoint)
            raise

    def _answered(
        self, kind: str, key: str, action: Callable[[Client], T], *, elsewhere: bool = True
    ) -> tuple[T, Endpoint]:
        where = self.where(key)
        _RUNTIME.enter(where)
        failures: list[tuple[Endpoint, TransientError]] = []
        for endpoint in self.ring.turn():
            self.count(kind, endpoint)
            try:
                answer = guarded(where, partial(action, endpoint.client))
            except TransientError as error:
                self.ring.failed(endpoint)
                failures.append((endpoint, error))
            else:
                self.ring.worked(endpoint)
                self._note_failovers(len(failures))
                return answer, endpoint
            if not elsewhere:
                break
        self._note_failovers(len(failures) - 1)
        raise _combined(failures, where)

    def _note_failovers(self, number: int) -> None:
        if number:
            with self._counting:
                self.failovers += number


def version_in(facts: Any) -> str:
    """Return the etag in the client's facts about an object."""
    return str(facts.get("e_tag") or "").strip('"')


def _combined(failures: Sequence[tuple[Endpoint, TransientError]], where: str) -> TransientError:
    if len(failures) == 1:
        return failures[0][1]
    told = ", ".join(f"{endpoint.name}: {error.got or error.what}" for endpoint, error in failures)
    return TransientError("no endpoint answers", where=where, got=told)
