"""Many reads and writes at once: bounds, order, errors, early end."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stoker.core import seed
from stoker.core.errors import AlreadyExistsError, NotFoundError, ShortReadError, StokerError, UsageError
from stoker.core.units import KiB, MiB
from stoker.storage.api import Buffer, ObjectInfo, Reader, Store
from stoker.storage.buffers import aligned_view
from stoker.storage.layers.layer import Layer, ReaderLayer
from stoker.storage.opening import open_store
from stoker.storage.submit import ReadRequest, WriteRequest, read_many, write_many


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    """Return 20 objects, the n-th of n * 1000 bytes of value n."""
    store = open_store(f"mem://submit-{abs(hash(request.node.name))}")
    for number in range(20):
        store.put(f"{number:02}", bytes([number]) * (1000 * number))
    return store


class Watched(Layer):
    """Counts how many readers are open and how many bytes they hold; opens only when `gate` is."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()
        self.open_now = self.open_max = self.opened = 0

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        with self.lock:
            self.opened += 1
            self.open_now += 1
            self.open_max = max(self.open_max, self.open_now)
        self.gate.wait(10)
        return WatchedReader(super().open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes), self)


class WatchedReader(ReaderLayer):
    def __init__(self, inner: Reader, watch: Watched) -> None:
        super().__init__(inner)
        self.watch: Watched | None = watch

    def close(self) -> None:
        super().close()
        if self.watch is not None:
            with self.watch.lock:
                self.watch.open_now -= 1
            self.watch = None


def keys() -> Iterator[ReadRequest]:
    return (ReadRequest(f"{number:02}", tag=number) for number in range(20))


def test_ordered_results_come_in_the_order_of_the_requests(store: Store) -> None:
    results = list(read_many(store, keys(), ordered=True))
    assert [result.request.tag for result in results] == list(range(20))
    assert [bytes(result.data) for result in results] == [bytes([n]) * (1000 * n) for n in range(20)]
    assert all(result.started_ns <= result.opened_ns <= result.ended_ns for result in results)


def test_unordered_results_come_each_once(store: Store) -> None:
    assert sorted(int(r.request.key) for r in read_many(store, keys())) == list(range(20))


def test_a_range_lands_in_the_callers_buffer(store: Store) -> None:
    into = aligned_view(100)
    (result,) = read_many(store, [ReadRequest("03", offset_bytes=2900, into=into)])
    assert result.data is into
    assert bytes(into) == b"\x03" * 100


def test_a_buffer_of_another_length_is_an_error(store: Store) -> None:
    (result,) = read_many(store, [ReadRequest("03", length_bytes=50, into=aligned_view(100))])
    assert isinstance(result.error, ShortReadError)


def test_one_bad_object_does_not_stop_the_others(store: Store) -> None:
    requests = [ReadRequest("01"), ReadRequest("absent"), ReadRequest("02", length_bytes=9999), ReadRequest("../x")]
    errors = [type(result.error) for result in read_many(store, requests, ordered=True)]
    assert errors == [type(None), NotFoundError, ShortReadError, UsageError]


def test_an_object_beyond_the_limit_is_refused_before_memory_is_taken(store: Store) -> None:
    (result,) = read_many(store, [ReadRequest("19")], object_bytes_max=10 * KiB)
    assert isinstance(result.error, UsageError)
    assert "larger than a read may be" in str(result.error)


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_calls_than_allowed_are_under_way(store: Store, ordered: bool) -> None:
    watched = Watched(store)
    list(read_many(watched, keys(), in_flight_max=3, ordered=ordered))
    assert watched.open_max <= 3


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("bytes_max", [1, 5000, 40_000])
def test_a_small_budget_delays_but_never_blocks(store: Store, ordered: bool, known: bool, bytes_max: int) -> None:
    requests = [ReadRequest(f"{n:02}", length_bytes=1000 * n if known else None) for n in (19, 3, 18, 1, 17, 2, 16)] * 4
    results = list(read_many(store, requests, in_flight_max=6, in_flight_bytes_max=bytes_max, ordered=ordered))
    assert [result.error for result in results] == [None] * len(requests)


def test_requests_are_taken_only_as_far_as_the_bounds_allow(store: Store) -> None:
    taken = []

    def requests() -> Iterator[ReadRequest]:
        for request in keys():
            taken.append(request.tag)
            yield request

    results = read_many(store, requests(), in_flight_max=4)
    assert taken == []
    next(results)
    assert len(taken) <= 4
    next(results)
    assert len(taken) <= 5
    results.close()


def test_bytes_waiting_to_be_taken_count_as_in_flight(store: Store) -> None:
    watched = Watched(store)
    requests = [ReadRequest("10", length_bytes=10_000)] * 10
    results = read_many(watched, iter(requests), in_flight_max=10, in_flight_bytes_max=25_000)
    next(results)
    assert watched.opened <= 2
    results.close()


def test_closing_early_ends_the_threads_and_starts_no_more(store: Store) -> None:
    watched = Watched(store)
    results = read_many(watched, keys(), in_flight_max=4)
    next(results)
    results.close()
    opened = watched.opened
    assert opened <= 4
    assert watched.open_now == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "stoker-submit"]


def test_closing_early_wakes_a_worker_that_waits_for_room(store: Store) -> None:
    results = read_many(store, [ReadRequest("19"), ReadRequest("18"), ReadRequest("17")], in_flight_bytes_max=100)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "stoker-submit"]


def test_an_error_in_the_iterable_reaches_the_caller(store: Store) -> None:
    def requests() -> Iterator[ReadRequest]:
        yield ReadRequest("01")
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        list(read_many(store, requests()))
    assert not [thread for thread in threading.enumerate() if thread.name == "stoker-submit"]


@pytest.mark.parametrize("bounds", [{"in_flight_max": 0}, {"in_flight_bytes_max": 0}])
def test_a_bound_below_one_is_refused_at_once(store: Store, bounds: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_many(store, keys(), **bounds)
    with pytest.raises(UsageError):
        write_many(store, [], **bounds)


def test_nothing_asked_gives_nothing(store: Store) -> None:
    assert list(read_many(store, [])) == []
    assert list(write_many(store, [])) == []


def test_writes_carry_their_errors(store: Store) -> None:
    requests = [WriteRequest("new", b"abc", tag=1), WriteRequest("01", b"x", if_absent=True), WriteRequest("../x", b"")]
    results = list(write_many(store, requests, ordered=True))
    assert [type(result.error) for result in results] == [type(None), AlreadyExistsError, UsageError]
    assert results[0].info is not None
    assert results[0].info.size_bytes == 3
    assert results[0].request.tag == 1


def test_two_threads_may_read_many_from_one_store(store: Store) -> None:
    def all_of_them(_: int) -> int:
        return sum(result.data.nbytes for result in read_many(store, keys(), in_flight_max=3))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(all_of_them, range(4))) == {1000 * sum(range(20))}


class Grouped(Layer):
    """Takes puts in groups and remembers their keys."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.groups: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def put_many(
        self, items: Sequence[tuple[str, Buffer]], *, if_absent: bool = False
    ) -> list[ObjectInfo | StokerError]:
        self.gate.wait(10)
        self.groups.append([key for key, _ in items])
        results: list[ObjectInfo | StokerError] = []
        for key, data in items:
            try:
                results.append(self.inner.put(key, data, if_absent=if_absent))
            except StokerError as error:
                results.append(error)
        return results


@pytest.fixture
def grouped() -> Grouped:
    return Grouped(open_store(f"mem://grouped-{seed.run_id()}"))


def writes(sizes: Iterable[int]) -> Iterator[WriteRequest]:
    return (WriteRequest(f"{number:03}", bytes(size), tag=number) for number, size in enumerate(sizes))


@pytest.mark.parametrize("ordered", [True, False])
def test_small_puts_go_in_groups_and_large_ones_alone(grouped: Grouped, ordered: bool) -> None:
    sizes = [1000] * 40 + [2 * MiB] * 2 + [0] * 30
    results = list(write_many(grouped, writes(sizes), ordered=ordered))
    assert sorted(result.request.tag for result in results if isinstance(result.request.tag, int)) == list(range(72))
    if ordered:
        assert [result.request.tag for result in results] == list(range(72))
    assert [info.size_bytes for info in grouped.list()] == sizes
    assert sum(map(len, grouped.groups)) == 70
    assert max(map(len, grouped.groups)) == 32
    assert all(result.started_ns <= result.ended_ns and result.error is None for result in results)


def test_groups_keep_conditional_puts_apart_and_tell_errors_one_by_one(grouped: Grouped) -> None:
    grouped.put("b", b"old")
    requests = [WriteRequest(key, b"new", if_absent=key in "bc") for key in "abcd"]
    errors = [type(result.error) for result in write_many(grouped, requests, ordered=True)]
    assert errors == [type(None), AlreadyExistsError, type(None), type(None)]


def test_groups_stay_within_the_bounds(grouped: Grouped) -> None:
    pulled = 0

    def requests() -> Iterator[WriteRequest]:
        nonlocal pulled
        for request in writes([1000] * 100):
            pulled += 1
            yield request

    results = write_many(grouped, requests(), in_flight_max=16, in_flight_bytes_max=10_000)
    for taken in range(20):
        next(results)
        assert pulled - taken <= 11, "ten thousand bytes, and one held ready"
    results.close()
    assert max(map(len, grouped.groups)) <= 4


def test_closing_waits_for_the_groups_that_have_begun(grouped: Grouped) -> None:
    results = write_many(grouped, writes([10] * 500))
    next(results)
    results.close()
    put = sum(map(len, grouped.groups))
    assert put < 500
    assert len(list(grouped.list())) == put


def test_a_request_that_cannot_be_made_ends_the_puts(grouped: Grouped) -> None:
    def requests() -> Iterator[WriteRequest]:
        yield WriteRequest("before", b"x")
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        list(write_many(grouped, requests()))
    assert [info.key for info in grouped.list()] in ([], ["before"])
