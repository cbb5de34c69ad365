"""Call traces: chosen functions alone, in a ring of fixed size, nothing installed before or after."""

import functools
import sys
import threading

import pytest

from stoker.core.errors import UsageError
from stoker.pages.capture.calls import CALL, EXCEPTION, HEADER, RECORD, RETURN, CallTrace, code_of, read_events

MONITORING = hasattr(sys, "monitoring")


def ring(records: int = 100) -> bytearray:
    return bytearray(HEADER.size + records * RECORD.size)


def leaf(x: int) -> int:
    return x + 1


def caller(x: int) -> int:
    return leaf(x) + unseen(x)


def unseen(x: int) -> int:
    return x


def fails() -> None:
    raise ValueError("on purpose")


def seen(memory: bytearray) -> list[tuple[int, int]]:
    return [(event.code, event.event) for event in read_events(memory)]


def test_calls_and_returns_of_chosen_functions_are_recorded() -> None:
    memory = ring()
    caller(0)
    with CallTrace([caller, leaf], memory):
        assert caller(1) == 3
        unseen(2)
    caller(5)
    assert seen(memory) == [(0, CALL), (1, CALL), (1, RETURN), (0, RETURN)]
    times = [event.time_ns for event in read_events(memory)]
    assert times == sorted(times)
    assert {event.thread for event in read_events(memory)} == {threading.get_ident()}


def test_exceptions_are_recorded_and_pass() -> None:
    memory = ring()
    with CallTrace([fails], memory), pytest.raises(ValueError, match="on purpose"):
        fails()
    assert seen(memory) == [(0, CALL), (0, EXCEPTION if MONITORING else RETURN)]


def test_nothing_is_installed_before_and_after() -> None:
    trace = CallTrace([leaf], ring())
    assert sys.getprofile() is None
    with trace:
        assert MONITORING or sys.getprofile() is not None
    trace.stop()
    assert sys.getprofile() is None
    if MONITORING:
        assert [sys.monitoring.get_tool(tool) for tool in (3, 4)] == [None, None]


def test_ring_keeps_the_newest() -> None:
    memory = ring(4)
    with CallTrace([leaf], memory) as trace:
        for _ in range(10):
            leaf(1)
    assert trace.capacity == 4
    assert seen(memory) == [(0, CALL), (0, RETURN)] * 2
    assert HEADER.unpack_from(memory) == (20, 4)


def test_generators_are_recorded() -> None:
    def numbers() -> object:
        yield 1
        yield 2

    memory = ring()
    with CallTrace([numbers], memory):
        assert list(numbers()) == [1, 2]
    assert seen(memory)[0] == (0, CALL)
    assert seen(memory)[-1] == (0, RETURN)


def test_other_threads_are_seen_where_the_interpreter_can() -> None:
    memory = ring()
    with CallTrace([leaf], memory):
        thread = threading.Thread(target=leaf, args=(1,))
        thread.start()
        thread.join()
    assert len(seen(memory)) == (2 if MONITORING else 0)


def test_another_profiler_is_not_disturbed() -> None:
    if MONITORING:
        pytest.skip("sys.monitoring lets several tools live side by side")
    mine = lambda *_: None  # noqa: E731 - one object to be found again
    sys.setprofile(mine)
    try:
        with pytest.raises(UsageError, match="another profiler"):
            CallTrace([leaf], ring()).start()
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)


def test_trace_can_go_on_after_a_stop_and_is_not_begun_twice() -> None:
    memory = ring()
    trace = CallTrace([leaf], memory)
    for _ in range(2):
        with trace:
            leaf(1)
            with pytest.raises(UsageError, match="already"):
                trace.start()
    assert len(seen(memory)) == 4


def test_two_functions_are_told_apart_by_identity_of_their_code() -> None:
    makers = [functools.partial(leaf), caller]
    with pytest.raises(UsageError, match="written in Python"):
        code_of(makers[0])
    with pytest.raises(UsageError, match="written in Python"):
        CallTrace([len], ring())
    assert code_of(functools.lru_cache(leaf)) is leaf.__code__


def test_ring_that_is_too_small_or_read_only_is_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        CallTrace([leaf], bytearray(30))
    with pytest.raises(UsageError, match="read-only"):
        CallTrace([leaf], memoryview(bytes(1000)))


@pytest.mark.parametrize("memory", [b"", bytes(100), HEADER.pack(1, 50)])
def test_memory_that_is_no_ring_is_refused(memory: bytes) -> None:
    with pytest.raises(UsageError, match="no ring"):
        list(read_events(memory))


def test_events_of_many_threads_are_all_counted() -> None:
    memory = ring(5000)

    def work() -> None:
        for _ in range(200):
            leaf(1)

    with CallTrace([leaf], memory):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
    assert len(seen(memory)) == (2000 if MONITORING else 400)
    assert all(event.time_ns for event in read_events(memory))
