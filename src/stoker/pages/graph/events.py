"""What happened to pages, told to whoever asked: kinds, records, subscriptions."""

import logging
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.pages.errors import FormatError
from stoker.pages.frames import Frame, FrameType

_LOG: Final = logging.getLogger(__name__)
RECORD: Final = struct.Struct("<B7xQQQQI4x")


class EventKind(IntEnum):
    """Kinds of events. Of one page and epoch, INVALIDATED comes before APPLIED before CHANGED."""

    PAGE_CREATED = 1
    PAGE_DELETED = 2
    PAGE_INVALIDATED = 3
    DELTA_APPLIED = 4
    PAGE_CHANGED = 5
    PAGE_STALE = 6
    GPU_SYNC_NEEDED = 7
    GPU_SYNC_COMPLETE = 8
    IR_INVALIDATED = 9
    INFERENCE_START = 10
    INFERENCE_COMPLETE = 11
    OPTIMIZATION_START = 12
    OPTIMIZATION_COMPLETE = 13
    BATCH = 14


_KINDS: Final = frozenset(int(kind) for kind in EventKind)


class Event(msgspec.Struct, frozen=True):
    """One event. `detail` is whatever belongs to it, as bytes."""

    kind: int
    page: int = 0
    epoch: int = 0
    lsn: int = 0
    time_ns: int = 0
    detail: bytes = b""


def encode_event(event: Event) -> bytes:
    """Return the record of an event: 48 bytes and the detail."""
    fields = (event.kind, event.time_ns, event.page, event.epoch, event.lsn, len(event.detail))
    return RECORD.pack(*fields) + event.detail


def decode_event(data: bytes) -> Event:
    """Return the event of a record. Raises FormatError."""
    if len(data) < RECORD.size:
        raise FormatError("record of an event is cut off", got=f"{len(data)} bytes")
    kind, time_ns, page, epoch, lsn, detail_bytes = RECORD.unpack_from(data)
    if kind not in _KINDS or len(data) != RECORD.size + detail_bytes:
        raise FormatError("record of an event cannot be read", got=f"kind {kind}, {detail_bytes} bytes of detail")
    return Event(kind, page, epoch, lsn, time_ns, data[RECORD.size :])


class EventQueue:
    """Keeps the newest events for somebody who takes them. `dropped` counts those that found no room.

    overflow  what goes when it is full: `drop_oldest`, `drop_newest`

    Raises UsageError for no capacity, or another word.
    """

    def __init__(self, capacity: int = 8192, overflow: str = "drop_oldest") -> None:
        if capacity < 1 or overflow not in ("drop_oldest", "drop_newest"):
            raise UsageError("queue of events holds at least one, and drops the oldest or the newest")
        self._events: deque[Event] = deque()
        self._capacity = capacity
        self._overflow = overflow
        self._lock = threading.Lock()
        self.dropped = 0

    def __call__(self, event: Event) -> None:
        """Put an event."""
        with self._lock:
            if len(self._events) >= self._capacity:
                self.dropped += 1
                if self._overflow == "drop_newest":
                    return
                self._events.popleft()
            self._events.append(event)

    def take(self) -> list[Event]:
        """Return all events that wait, oldest first, and forget them."""
        with self._lock:
            found = list(self._events)
            self._events.clear()
            return found


Handler = Callable[[Event], None]
Filter = Callable[[Event], bool]


class Subscriptions:
    """Who wants to hear what. A handler that raises is logged and counted in `failures`; nobody else notices.

    changed  called when somebody came or went
    """

    def __init__(self, changed: Callable[[], None] | None = None) -> None:
        self._changed = changed or _nothing
        self._lock = threading.Lock()
        self._next = 1
        self._found: dict[int, tuple[frozenset[int], Handler, Filter | None]] = {}
        self.failures = 0

    def subscribe(self, kinds: Iterable[EventKind] | None, handler: Handler, *, wanted: Filter | None = None) -> int:
        """Call `handler` for events of these kinds (None for all) that `wanted` lets pass; return a handle."""
        chosen = frozenset(int(kind) for kind in (EventKind if kinds is None else kinds))
        with self._lock:
            handle = self._next
            self._next += 1
            self._found[handle] = (chosen, handler, wanted)
        self._changed()
        return handle

    def unsubscribe(self, handle: int) -> bool:
        """Forget a subscription; tell whether there was one."""
        with self._lock:
            found = self._found.pop(handle, None)
        self._changed()
        return found is not None

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._found.clear()
        self._changed()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def emit(self, events: Iterable[Event]) -> None:
        """Tell everybody, in the order of the events."""
        with self._lock:
            found = list(self._found.values())
        if not found:
            return
        for event in events:
            for kinds, handler, wanted in found:
                if event.kind in kinds:
                    self._call(event, handler, wanted)

    def _call(self, event: Event, handler: Handler, wanted: Filter | None) -> None:
        try:
            if wanted is None or wanted(event):
                handler(event)
        except Exception:
            self.failures += 1
            _LOG.exception("handler of page events failed")


def _nothing() -> None:
    """Nobody asked to be told."""


def events_of(frames: Iterable[Frame]) -> Iterator[Event]:
    """Yield the events that EVENT frames of a log hold, in their order. Raises FormatError."""
    for frame in frames:
        if frame.type == FrameType.EVENT:
            yield decode_event(bytes(frame.payload))
