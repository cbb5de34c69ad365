"""Calls of chosen functions, written into a ring of fixed size: `sys.monitoring` from Python 3.12 on, else a profiler.

| Python | seen | other code pays |
|---|---|---|
| 3.12 and later | all threads | nothing; when an exception leaves any function, one check |
| 3.11 | the thread that starts the trace | a check on each of its calls and returns while the trace runs |

Nothing is patched. Without a trace nothing is installed. A trace is stopped in the thread that started it.

The ring is bytes, so it may be a page: a header of u64 events so far and u64 capacity, then records of 24 bytes:
u64 time in nanoseconds (monotonic), u64 thread, u32 number of the function, u32 event (1 call, 2 return, 3 exception).
While several threads write, the header may be short by their newest events; after `stop` it is exact.
"""

import inspect
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import UsageError

CALL: Final = 1
RETURN: Final = 2
EXCEPTION: Final = 3
HEADER: Final = struct.Struct("<QQ")
RECORD: Final = struct.Struct("<QQII")


class Event(msgspec.Struct, frozen=True):
    """One record of the ring; `code` numbers the traced functions from 0."""

    time_ns: int
    thread: int
    code: int
    event: int


class CallTrace:
    """Records calls and returns of the given functions or code objects between `start` and `stop`.

    `ring` is writable memory for the header and at least one record; the newest events overwrite the oldest. On 3.11
    every resumption of a generator counts as a call, every yield and every exception as a return.
    Raises UsageError for what has no Python code.
    """

    def __init__(self, functions: list[Any], ring: bytearray | memoryview) -> None:
        self._codes = [code_of(function) for function in functions]
        self._ring = memoryview(ring).cast("B")
        self.capacity: Final = (len(self._ring) - HEADER.size) // RECORD.size
        if self._ring.readonly or self.capacity < 1:
            raise UsageError(
                "ring for a call trace is too small or read-only",
                expected=f"writable, {HEADER.size + RECORD.size} bytes at least",
                got=f"{len(self._ring)} bytes",
            )
        HEADER.pack_into(self._ring, 0, 0, self.capacity)
        self._next = count()
        self._tracer: _Monitoring | _Profiler | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin. Raises UsageError when begun already, or when another profiler or too many tools are installed."""
        if self._tracer is not None:
            raise UsageError("calls are traced already", remedy="stop first")
        tracer = (
            _Monitoring(self._codes, self._record)
            if hasattr(sys, "monitoring")
            else _Profiler(self._codes, self._record)
        )
        tracer.start()
        self._tracer = tracer

    def stop(self) -> None:
        """End; nothing stays installed. May be repeated."""
        tracer, self._tracer = self._tracer, None
        if tracer is not None:
            tracer.stop()
            total = next(self._next)
            self._next = count(total)
            HEADER.pack_into(self._ring, 0, total, self.capacity)

    def _record(self, code: int, event: int) -> None:
        # the counter steps under the interpreter's lock, so that no two threads get one place
        number = next(self._next)
        place = HEADER.size + number % self.capacity * RECORD.size
        RECORD.pack_into(self._ring, place, monotonic_ns(), threading.get_ident(), code, event)
        HEADER.pack_into(self._ring, 0, number + 1, self.capacity)


def read_events(ring: bytes | bytearray | memoryview) -> Iterator[Event]:
    """Yield the events that a ring holds, the oldest first. Raises UsageError for memory that is no ring."""
    view = memoryview(ring).cast("B")
    total, capacity = HEADER.unpack_from(view) if len(view) >= HEADER.size else (0, 0)
    if capacity < 1 or HEADER.size + capacity * RECORD.size > len(view):
        raise UsageError("memory holds no ring of calls", got=f"{len(view)} bytes for {capacity} records")
    for number in range(max(0, total - capacity), total):
        yield Event(*RECORD.unpack_from(view, HEADER.size + number % capacity * RECORD.size))


def code_of(function: Any) -> CodeType:
    """Return the code object of a function, method or wrapper. Raises UsageError where there is none."""
    try:
        function = inspect.unwrap(function)
    except ValueError as error:
        raise UsageError("a wrapper that wraps itself cannot be traced") from error
    code = function if isinstance(function, CodeType) else getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        raise UsageError("only functions written in Python can be traced", got=repr(type(function).__name__))
    return code


class _Profiler:
    """The way of Python 3.11: one function for all calls of this thread."""

    _EVENTS: Final = {"call": CALL, "return": RETURN}

    def __init__(self, codes: list[CodeType], record: Callable[[int, int], None]) -> None:
        self._codes = codes
        self._numbers = {id(code): number for number, code in enumerate(codes)}
        self._record = record

    def start(self) -> None:
        if sys.getprofile() is not None:
            raise UsageError("another profiler is installed in this thread", remedy="remove it first")
        sys.setprofile(self._seen)

    def stop(self) -> None:
        if sys.getprofile() == self._seen:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, argument: object) -> None:
        number = self._numbers.get(id(frame.f_code))
        if number is not None and event in self._EVENTS:
            self._record(number, self._EVENTS[event])


class _Monitoring:
    """The way of Python 3.12 and later: events of the chosen code objects alone, but exceptions, which come for all."""

    def __init__(self, codes: list[CodeType], record: Callable[[int, int], None]) -> None:
        self._codes = codes
        self._numbers = {id(code): number for number, code in enumerate(codes)}
        self._record = record
        self._api: Any = vars(sys)["monitoring"]
        self._tool = -1

    def start(self) -> None:
        api = self._api
        self._tool = next((tool for tool in (3, 4) if api.get_tool(tool) is None), -1)
        if self._tool < 0:
            raise UsageError("no tool number of sys.monitoring is free", remedy="end another tool first")
        api.use_tool_id(self._tool, "stoker")
        events = api.events
        api.register_callback(self._tool, events.PY_START, lambda code, _: self._seen(code, CALL))
        api.register_callback(self._tool, events.PY_RETURN, lambda code, _, __: self._seen(code, RETURN))
        api.register_callback(self._tool, events.PY_UNWIND, lambda code, _, __: self._seen(code, EXCEPTION))
        api.set_events(self._tool, events.PY_UNWIND)
        for code in self._codes:
            api.set_local_events(self._tool, code, events.PY_START | events.PY_RETURN)

    def stop(self) -> None:
        api, events = self._api, self._api.events
        api.set_events(self._tool, 0)
        for code in self._codes:
            api.set_local_events(self._tool, code, 0)
        for event in (events.PY_START, events.PY_RETURN, events.PY_UNWIND):
            api.register_callback(self._tool, event, None)
        api.free_tool_id(self._tool)

    def _seen(self, code: CodeType, event: int) -> None:
        number = self._numbers.get(id(code))
        if number is not None:
            self._record(number, event)
