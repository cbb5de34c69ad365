"""Many reads or writes at once: bounded in number and in bytes, results as they come or in order.

The calling thread hands out requests while it waits for results, so the iterable of requests is consumed only as far
ahead as the bounds allow, and nothing runs on when the caller stops asking.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.core.units import GiB, MiB, format_bytes
from stoker.storage.api import Buffer, ObjectInfo, Store, fill
from stoker.storage.base import byte_view
from stoker.storage.batch import SupportsBatchWrite
from stoker.storage.buffers import fresh_view
from stoker.storage.window import Bounds, Window

IN_FLIGHT_BYTES: Final = 256 * MiB
OBJECT_BYTES_MAX: Final = 8 * GiB
GROUPED_MAX: Final = 128
"""How many small puts are under way at once when the store takes them in groups and nothing is asked for."""
_SMALL_BYTES: Final = MiB
_GROUP_BYTES: Final = 8 * MiB
_NOTHING: Final = memoryview(b"")


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One range of one object.

    `into`, when given, receives the bytes and sets the length unless `length_bytes` is told too; it belongs to the
    reading until the result comes. `tag` is the caller's own and travels along.
    """

    key: str
    offset_bytes: int = 0
    length_bytes: int | None = None
    into: memoryview | None = None
    tag: object = None

    @property
    def wanted_bytes(self) -> int | None:
        """Return how many bytes this asks for, None when only the store knows."""
        return self.length_bytes if self.into is None or self.length_bytes is not None else self.into.nbytes


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What came of a request: `data` whole, or `error`. Times are monotonic; `opened_ns` is 0 if it was not opened."""

    request: ReadRequest
    data: memoryview
    started_ns: int
    opened_ns: int
    ended_ns: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One object to put; `data` belongs to the writing until the result comes."""

    key: str
    data: Buffer
    if_absent: bool = False
    tag: object = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What came of a request: `info`, or `error`. Times are monotonic."""

    request: WriteRequest
    info: ObjectInfo | None
    started_ns: int
    ended_ns: int
    error: Exception | None = None


def read_many(
    store: Store,
    requests: Iterable[ReadRequest],
    *,
    in_flight_max: int | None = None,
    in_flight_bytes_max: int = IN_FLIGHT_BYTES,
    ordered: bool = False,
    object_bytes_max: int = OBJECT_BYTES_MAX,
) -> Generator[ReadResult, None, None]:
    """Yield a result for every request, as they come, or in the order of the requests when `ordered`.

    At most `in_flight_max` requests (the store's own number when None) and `in_flight_bytes_max` bytes are under way
    or waiting to be taken; one larger request goes alone. Without `into` the data lies in a fresh page-aligned buffer,
    refused beyond `object_bytes_max`. One bad object ends in its result's `error`, never in an exception here.
    Closing the generator waits for the reads that have begun and starts no more.

    Raises UsageError for a bound below 1, and whatever iterating over `requests` raises.
    """
    bounds = _bounds(store, in_flight_max, in_flight_bytes_max)

    def work(request: ReadRequest, charge: Callable[[int], None]) -> ReadResult:
        return _read(store, request, object_bytes_max, charge)

    window = Window(bounds, work, _read_bytes)
    return window.run(iter(requests), ordered=ordered)


def write_many(
    store: Store,
    requests: Iterable[WriteRequest],
    *,
    in_flight_max: int | None = None,
    in_flight_bytes_max: int = IN_FLIGHT_BYTES,
    ordered: bool = False,
) -> Generator[WriteResult, None, None]:
    """Yield a result for every put, as they come, or in the order of the requests when `ordered`.

    Bounds, errors and closing as in `read_many`; one request more than the bounds allow may be held ready. A store
    that offers it takes small objects in groups: their results share the times of the call that put them, and the
    store's own number of requests is then larger.
    """
    if isinstance(store, SupportsBatchWrite):
        return _write_groups(store, iter(requests), in_flight_max, in_flight_bytes_max, ordered=ordered)
    bounds = _bounds(store, in_flight_max, in_flight_bytes_max)
    window = Window(bounds, lambda request, _charge: _write(store, request), _write_bytes)
    return window.run(iter(requests), ordered=ordered)


def _write_groups(
    store: Store, requests: Iterator[WriteRequest], in_flight_max: int | None, bytes_max: int, *, ordered: bool
) -> Generator[WriteResult, None, None]:
    bounds = _bounds(store, in_flight_max, bytes_max)
    count_max = GROUPED_MAX if in_flight_max is None else in_flight_max
    # A quarter, so that some are written while the next are made; what may be held ready is taken off the bounds.
    portion = Bounds(max(1, count_max // 4), max(1, min(bytes_max // 4, _GROUP_BYTES)))
    # Of large objects no more are under way at once than without groups.
    weight = max(1, count_max // bounds.count_max)
    window: Window[list[WriteRequest], list[WriteResult]] = Window(
        Bounds(count_max - portion.count_max + 1, bytes_max - portion.bytes_max + 1),
        lambda group, _charge: _write_group(store, group),
        lambda group: sum(byte_view(request.data).nbytes for request in group),
        lambda group: weight if _is_large(group[0]) else len(group),
    )
    return _flattened(window.run(_groups(requests, portion), ordered=ordered))


def _groups(requests: Iterator[WriteRequest], portion: Bounds) -> Iterator[list[WriteRequest]]:
    """Yield small requests that go together in portions, large ones alone, all in their order."""
    group: list[WriteRequest] = []
    group_bytes = 0
    try:
        for request in requests:
            size_bytes = byte_view(request.data).nbytes
            full = len(group) == portion.count_max or group_bytes + size_bytes > portion.bytes_max
            if group and (full or _is_large(request) or request.if_absent != group[0].if_absent):
                yield group
                group, group_bytes = [], 0
            group.append(request)
            group_bytes += size_bytes
            if _is_large(request):
                yield group
                group, group_bytes = [], 0
    except Exception:
        if group:  # what came before the failure is put, as it is without groups
            yield group
        raise
    if group:
        yield group


def _is_large(request: WriteRequest) -> bool:
    return byte_view(request.data).nbytes > _SMALL_BYTES


def _flattened(groups: Generator[list[WriteResult], None, None]) -> Generator[WriteResult, None, None]:
    with closing(groups):
        for group in groups:
            yield from group


def _read_bytes(request: ReadRequest) -> int | None:
    return request.wanted_bytes


def _write_bytes(request: WriteRequest) -> int | None:
    return byte_view(request.data).nbytes


def _read(store: Store, request: ReadRequest, object_bytes_max: int, charge: Callable[[int], None]) -> ReadResult:
    started_ns = clock.monotonic_ns()
    opened_ns = 0
    try:
        reader = store.open_read(request.key, offset_bytes=request.offset_bytes, length_bytes=request.wanted_bytes)
        with reader:
            opened_ns = clock.monotonic_ns()
            into = request.into
            if into is None:
                _check_size(reader.range_bytes, object_bytes_max, request)
                if request.wanted_bytes is None:
                    charge(reader.range_bytes)
                into = fresh_view(reader.range_bytes)
            fill(reader, into, where=request.key)
    except Exception as error:
        return ReadResult(request, _NOTHING, started_ns, opened_ns, clock.monotonic_ns(), error)
    return ReadResult(request, into, started_ns, opened_ns, clock.monotonic_ns())


def _check_size(size_bytes: int, object_bytes_max: int, request: ReadRequest) -> None:
    if size_bytes > object_bytes_max:
        raise UsageError(
            "object is larger than a read may be",
            where=request.key,
            expected=f"at most {format_bytes(object_bytes_max)}",
            got=format_bytes(size_bytes),
            remedy="read it in ranges, or raise the limit",
        )


def _write(store: Store, request: WriteRequest) -> WriteResult:
    started_ns = clock.monotonic_ns()
    try:
        info = store.put(request.key, request.data, if_absent=request.if_absent)
    except Exception as error:
        return WriteResult(request, None, started_ns, clock.monotonic_ns(), error)
    return WriteResult(request, info, started_ns, clock.monotonic_ns())


def _write_group(store: Store, group: list[WriteRequest]) -> list[WriteResult]:
    if len(group) == 1 or not isinstance(store, SupportsBatchWrite):
        return [_write(store, request) for request in group]
    started_ns = clock.monotonic_ns()
    items = [(request.key, request.data) for request in group]
    try:
        outcomes: Sequence[ObjectInfo | Exception] = store.put_many(items, if_absent=group[0].if_absent)
    except Exception as error:
        outcomes = [error] * len(group)
    ended_ns = clock.monotonic_ns()
    return [
        WriteResult(request, None, started_ns, ended_ns, outcome)
        if isinstance(outcome, Exception)
        else WriteResult(request, outcome, started_ns, ended_ns)
        for request, outcome in zip(group, outcomes, strict=True)
    ]


def _bounds(store: Store, in_flight_max: int | None, in_flight_bytes_max: int) -> Bounds:
    count_max = store.capabilities.in_flight if in_flight_max is None else in_flight_max
    if count_max < 1 or in_flight_bytes_max < 1:
        raise UsageError(
            "bound of what is in flight is too small",
            expected="at least 1 request and 1 byte",
            got=f"{count_max} requests and {in_flight_bytes_max} bytes",
        )
    return Bounds(count_max, in_flight_bytes_max)
