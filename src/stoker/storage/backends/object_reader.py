"""One range of one object: a stream, or parts side by side when much is asked for at once."""

from dataclasses import dataclass

from stoker.core.errors import StokerError, StoreError, TransientError
from stoker.storage.backends.object_crew import Crew
from stoker.storage.backends.object_plan import Piece, deliver, spans
from stoker.storage.backends.object_wire import Body, Facts, Wire
from stoker.storage.base import BaseReader, byte_view, short_read
from stoker.storage.buffers import address_of


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader asks, and how: parts of `request_bytes`, `queue_depth` of them at once by the threads of `crew`."""

    wire: Wire
    key: str
    path: str
    crew: Crew
    queue_depth: int
    request_bytes: int


class ObjectReader(BaseReader):
    """The bytes of `wanted`, of which `body` brings the first.

    A read longer than a request fetches its parts side by side. One in small pieces goes on with one further request
    for all of the rest. Each response must be of the version that the first one told.
    """

    resumes = True

    def __init__(self, source: Source, facts: Facts, wanted: range, body: Body | None) -> None:
        self._source = source
        self._facts = facts
        self._body = body
        self._rest = memoryview(b"")
        self._position = wanted.start
        self._end = wanted.stop
        self._missing: list[tuple[int, int]] = []
        self._pending = (0, 0)
        self.range_bytes = len(wanted)
        self.object_bytes = facts.object_bytes

    @property
    def version(self) -> str:
        """Return the object's etag."""
        return self._facts.version

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range.

        After a TransientError the same call fetches only what is still missing.
        """
        view = byte_view(into)
        if not view.nbytes:
            return
        if view.nbytes > self._end - self._position:
            raise short_read(
                self._source.wire.where(self._source.key),
                wanted_bytes=view.nbytes,
                got_bytes=self._end - self._position,
            )
        self._begin(view)
        if view.nbytes <= max(self._source.request_bytes, self._held_bytes):
            self._read_stream(view)
        else:
            self._read_parts(view)
        self._position += view.nbytes
        self._pending = (0, 0)

    @property
    def _held_bytes(self) -> int:
        """Return how many bytes the open response still has for us."""
        return self._rest.nbytes + (self._body.missing_bytes if self._body is not None else 0)

    def _begin(self, view: memoryview) -> None:
        """Go on with a read that failed midway, or begin one."""
        asked = (address_of(view), view.nbytes)
        if self._pending == asked:
            return
        if self._pending != (0, 0):  # a failed read was given up: the response stands in the middle of it
            self.close()
        self._pending = asked
        self._missing = [(0, view.nbytes)]

    def _read_stream(self, view: memoryview) -> None:
        at = self._missing[0][0]
        while at < view.nbytes:
            if not self._rest.nbytes:
                self._rest = self._next_chunk(self._position + at)
            taken_bytes = min(view.nbytes - at, self._rest.nbytes)
            view[at : at + taken_bytes] = self._rest[:taken_bytes]
            self._rest = self._rest[taken_bytes:]
            at += taken_bytes
            self._missing[0] = (at, view.nbytes)

    def _next_chunk(self, offset_bytes: int) -> memoryview:
        chunk = b""
        while not chunk:
            if self._body is None:
                self._body = self._opened(offset_bytes, self._end)
            try:
                chunk = self._body.next_chunk()
            except StokerError:
                self._body = None
                raise
            if not chunk:
                self._body = None
        return memoryview(chunk)

    def _read_parts(self, view: memoryview) -> None:
        address = self._pending[0]
        jobs: list[tuple[int, int]] = []
        held_bytes = self._held_bytes
        for start, end in self._missing:
            first = held_bytes if start == 0 else start
            jobs += [(0, held_bytes)] if first > start else []
            jobs += [(first + low, first + high) for low, high in spans(end - first, self._source.request_bytes)]
        failures: dict[tuple[int, int], StokerError] = {}

        def fetch(job: tuple[int, int]) -> None:
            try:
                if job[0] == 0 and held_bytes:
                    self._drain(view[: job[1]])
                else:
                    start, end = (self._position + bound for bound in job)
                    deliver(self._opened(start, end), [Piece(0, start, end - start, address + job[0])])
            except StokerError as error:
                failures[job] = error

        self._source.crew.run(fetch, jobs, at_once=self._source.queue_depth)
        self._body, self._rest = None, memoryview(b"")
        self._missing = sorted(failures)
        if failures:
            raise min(failures.values(), key=lambda error: isinstance(error, TransientError))

    def _drain(self, view: memoryview) -> None:
        """Fill `view` from the open response, which has just as many bytes."""
        at = self._rest.nbytes
        view[:at] = self._rest
        while self._body is not None and (chunk := self._body.next_chunk()):
            view[at : at + len(chunk)] = chunk
            at += len(chunk)
        assert at == view.nbytes, "a body brings what its headers say, or raises"

    def _opened(self, start: int, end: int) -> Body:
        """Ask for a range once more. Raises StoreError when it comes of another version of the object."""
        source = self._source
        body = source.wire.get(source.key, source.path, start, end - start)
        if (body.facts.object_bytes, body.facts.version) != (self._facts.object_bytes, self._facts.version):
            raise StoreError(
                "object changed while it was read",
                where=source.wire.where(source.key),
                expected=f"{self._facts.object_bytes} bytes, version {self._facts.version!r}",
                got=f"{body.facts.object_bytes} bytes, version {body.facts.version!r}",
                remedy="read it again from the beginning",
            )
        return body

    def close(self) -> None:
        """Drop the connection when the body was not read to its end."""
        self._body = None
        self._rest = memoryview(b"")
