"""What each layer adds: counts, repetition, ceilings, faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.core import clock
from stoker.core.errors import (
    AlreadyExistsError,
    NotFoundError,
    ShortReadError,
    StoreError,
    TransientError,
    UnavailableError,
)
from stoker.core.histogram import Histogram
from stoker.storage.api import (
    Buffer,
    ObjectInfo,
    Reader,
    Store,
    SupportsCache,
    SupportsLocalPath,
    SupportsMultipart,
    SupportsRename,
    SupportsRetryCount,
    SupportsWireCount,
)
from stoker.storage.buffers import aligned_view
from stoker.storage.layers.faulty import Faults, FaultyStore
from stoker.storage.layers.layer import Layer, ReaderLayer
from stoker.storage.layers.limits import LimitedStore, TokenBucket
from stoker.storage.layers.prefix import PrefixStore
from stoker.storage.layers.recording import OperationRow, RecordingStore
from stoker.storage.layers.retry import RetryPolicy, RetryStore
from stoker.storage.opening import open_store
from stoker.storage.submit import ReadRequest, read_many


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Store:
    return open_store(f"mem://layers-{abs(hash(request.node.name))}")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace sleeping by a list of how long it would have been."""
    waited: list[float] = []
    monkeypatch.setattr(clock, "sleep", waited.append)
    return waited


# capabilities


def test_a_layer_offers_what_the_inner_store_offers_and_no_more(tmp_path: Path, memory: Store) -> None:
    folder = RecordingStore(PrefixStore(LimitedStore(open_store(str(tmp_path)), 2, None), "a"))
    for capability in (SupportsMultipart, SupportsRename, SupportsCache, SupportsLocalPath):
        assert isinstance(folder, capability)
    for capability in (SupportsWireCount, SupportsRetryCount):
        assert not isinstance(folder, capability)
    assert not isinstance(RecordingStore(memory), SupportsCache)
    assert not isinstance(PrefixStore(open_store("null://"), "a"), SupportsRename)
    assert isinstance(RecordingStore(RetryStore(memory, RetryPolicy())), SupportsRetryCount)


def test_a_layer_passes_capabilities_on_below_its_prefix(tmp_path: Path) -> None:
    store = PrefixStore(open_store(str(tmp_path)), "a/b")
    assert isinstance(store, SupportsCache)
    assert isinstance(store, SupportsRename)
    assert isinstance(store, SupportsLocalPath)
    store.put("object", b"abc")
    store.rename("object", "other")
    assert (tmp_path / "a/b/other").read_bytes() == b"abc"
    assert store.cached_bytes("other") in (3, None)
    assert store.root == str(tmp_path)


# recording


def test_recording_counts_operations_bytes_and_durations(memory: Store) -> None:
    rows: list[OperationRow] = []
    store = RecordingStore(memory, rows.append)
    store.put("object", bytes(1000))
    store.get_range("object", 0, 600)
    store.get_range("object")
    with pytest.raises(NotFoundError):
        store.stat("absent")
    assert [info.key for info in store.list()] == ["object"]
    found = store.snapshot()
    assert {name: (s.count, s.errors, s.bytes) for name, s in found.items()} == {
        "put": (1, 0, 1000),
        "open_read": (2, 0, 0),
        "read": (2, 0, 1600),
        "stat": (1, 1, 0),
        "list": (1, 0, 0),
    }
    assert Histogram.decode(found["read"].histogram).count == 2
    assert [row.operation for row in rows] == ["put", "open_read", "read", "open_read", "read", "stat", "list"]
    assert [row.error for row in rows if row.operation == "stat"] == ["NotFoundError"]
    assert all(row.started_ns <= row.ended_ns for row in rows)
    store.reset()
    assert store.snapshot() == {}


def test_recording_from_many_threads_loses_nothing(memory: Store) -> None:
    store = RecordingStore(memory)
    memory.put("object", bytes(10))
    list(read_many(store, [ReadRequest("object")] * 500, in_flight_max=8))
    assert store.snapshot()["read"].count == 500
    assert store.snapshot()["read"].bytes == 5000


# retry


class Failing(Layer):
    """Fails the first `failures` calls; then bodies break after half, `breaks` times."""

    def __init__(self, inner: Store, failures: int = 0, breaks: int = 0) -> None:
        super().__init__(inner)
        self.failures = failures
        self.breaks = breaks
        self.calls = 0
        self.opened: list[tuple[int, int | None]] = []

    def _fail(self) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise TransientError("not now", where="somewhere")

    def stat(self, key: str) -> ObjectInfo:
        self._fail()
        return self.inner.stat(key)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        info = self.inner.put(key, data, if_absent=if_absent)
        self._fail()  # the answer is lost, not the object
        return info

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        self._fail()
        self.opened.append((offset_bytes, length_bytes))
        return Breaking(self.inner.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes), self)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for number, info in enumerate(self.inner.list(prefix)):
            if number == 2:
                self._fail()
            yield info


class Breaking(ReaderLayer):
    def __init__(self, inner: Reader, store: Failing) -> None:
        super().__init__(inner)
        self.store = store

    def read_into(self, into: memoryview) -> None:
        if self.store.breaks:
            self.store.breaks -= 1
            self.inner.read_into(into[: into.nbytes // 2])
            into[into.nbytes // 2 :] = b"?" * (into.nbytes - into.nbytes // 2)
            raise TransientError("broke off", where="somewhere")
        self.inner.read_into(into)


def test_a_passing_failure_is_repeated_and_counted(memory: Store, waits: list[float]) -> None:
    memory.put("object", b"abc")
    store = RetryStore(Failing(memory, failures=3), RetryPolicy(attempts=4))
    assert store.stat("object").size_bytes == 3
    assert store.retry_count == 3
    assert all(longest / 2 <= waited <= longest for waited, longest in zip(waits, (0.1, 0.2, 0.4), strict=True))


def test_tries_are_bounded_in_number(memory: Store, waits: list[float]) -> None:
    failing = Failing(memory, failures=99)
    with pytest.raises(UnavailableError, match=r"not now, 4 times 'somewhere'.*retry_attempts"):
        RetryStore(failing, RetryPolicy(attempts=4)).stat("object")
    assert failing.calls == 4


def test_tries_are_bounded_in_time(memory: Store, waits: list[float]) -> None:
    failing = Failing(memory, failures=99)
    with pytest.raises(UnavailableError):
        RetryStore(failing, RetryPolicy(attempts=99, deadline_seconds=0.3)).stat("object")
    assert failing.calls <= 4


def test_a_lasting_failure_is_not_repeated(memory: Store) -> None:
    failing = Failing(memory)
    with pytest.raises(NotFoundError):
        RetryStore(failing, RetryPolicy()).stat("absent")
    assert failing.calls == 1


def test_a_body_that_breaks_is_fetched_again_from_where_it_broke(memory: Store, waits: list[float]) -> None:
    data = bytes(range(250)) * 4
    memory.put("object", data)
    failing = Failing(memory)
    store = RetryStore(failing, RetryPolicy())
    into = aligned_view(900)
    with store.open_read("object", offset_bytes=100) as reader:
        reader.read_into(into[:400])
        failing.breaks = 2
        reader.read_into(into[400:])
    assert bytes(into) == data[100:]
    assert failing.opened == [(100, None), (500, 500), (500, 500)]
    assert store.retry_count == 2


def test_a_body_of_another_version_is_never_mixed_in(memory: Store, waits: list[float]) -> None:
    memory.put("object", b"a" * 100)
    failing = Failing(memory)
    into = aligned_view(100)
    with RetryStore(failing, RetryPolicy()).open_read("object") as reader:
        reader.read_into(into[:50])
        memory.put("object", b"b" * 100)
        failing.breaks = 1
        with pytest.raises(StoreError, match="object changed while it was read"):
            reader.read_into(into[50:])


def test_a_conditional_put_whose_answer_was_lost_still_counts_as_done(memory: Store, waits: list[float]) -> None:
    store = RetryStore(Failing(memory, failures=1), RetryPolicy())
    assert store.put("object", b"mine", if_absent=True).size_bytes == 4
    with pytest.raises(AlreadyExistsError):
        RetryStore(Failing(memory), RetryPolicy()).put("object", b"mine", if_absent=True)
    with pytest.raises(AlreadyExistsError):
        RetryStore(Failing(memory, failures=1), RetryPolicy()).put("object", b"thine", if_absent=True)


def test_a_listing_goes_on_behind_the_last_key(memory: Store, waits: list[float]) -> None:
    for key in "abcde":
        memory.put(key, b"x")
    store = RetryStore(Failing(memory, failures=2), RetryPolicy())
    assert [info.key for info in store.list()] == list("abcde")
    assert store.retry_count == 2


# limits


def test_no_more_calls_than_turns(memory: Store) -> None:
    memory.put("object", bytes(100))
    open_now: list[int] = []

    class Counting(Layer):
        now = 0

        def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
            Counting.now += 1
            open_now.append(Counting.now)
            return Closing(super().open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes))

    class Closing(ReaderLayer):
        def close(self) -> None:
            Counting.now -= 1
            super().close()

    store = LimitedStore(Counting(memory), 2, None)
    list(read_many(store, [ReadRequest("object")] * 50, in_flight_max=8))
    assert max(open_now) <= 2


def test_a_turn_ends_also_after_an_error_and_when_closed_twice(memory: Store) -> None:
    memory.put("object", bytes(100))
    store = LimitedStore(memory, 1, None)
    for _ in range(3):
        with pytest.raises(NotFoundError):
            store.open_read("absent")
    reader = store.open_read("object")
    reader.close()
    reader.close()
    store.stat("object")
    with store.open_read("object"):
        pass


def test_a_token_bucket_keeps_the_average(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now_ns)
    bucket = TokenBucket(1000.0)
    for _ in range(10):
        bucket.take(500)
    assert waits[-1] == pytest.approx(5.0, abs=0.06)
    now_ns = 60_000_000_000
    waits.clear()
    bucket.take(1000)
    assert waits[0] == pytest.approx(1.0, abs=0.06)


def test_a_limited_read_waits_for_its_bytes(memory: Store, waits: list[float]) -> None:
    memory.put("object", bytes(100_000))
    store = LimitedStore(memory, None, 100_000.0)
    store.get_range("object")
    store.get_range("object")
    assert sum(waits) == pytest.approx(0.95 + 1.95, abs=0.2)
    assert "reading limited to 97.66 KiB/s" in store.capabilities.notes


# faults


def outcome(store: Store, key: str) -> str:
    try:
        store.get_range(key)
    except StoreError as error:
        return type(error).__name__
    return "good"


def filled(memory: Store, count: int = 200) -> list[str]:
    keys = [f"{number:03}" for number in range(count)]
    for key in keys:
        memory.put(key, b"x" * 100)
    return keys


def test_equal_seeds_meet_equal_faults_in_any_order(memory: Store) -> None:
    keys = filled(memory)
    faults = Faults(fail_ratio=0.2, short_ratio=0.1, seed=7)
    first, second = FaultyStore(memory, faults), FaultyStore(memory, faults)
    forwards = {key: outcome(first, key) for key in keys}
    backwards = {key: outcome(second, key) for key in reversed(keys)}
    assert forwards == backwards
    other = FaultyStore(memory, Faults(fail_ratio=0.2, short_ratio=0.1, seed=8))
    assert forwards != {key: outcome(other, key) for key in keys}


def test_faults_come_in_about_the_share_asked_for(memory: Store) -> None:
    keys = filled(memory, 1000)
    store = FaultyStore(memory, Faults(fail_ratio=0.2, short_ratio=0.1, seed=1))
    found = [outcome(store, key) for key in keys]
    assert 150 < found.count("TransientError") < 250
    assert 50 < found.count("ShortReadError") < 110


def test_a_failing_read_fails_at_opening_or_midway(memory: Store) -> None:
    keys = filled(memory, 100)
    store = FaultyStore(memory, Faults(fail_ratio=1.0))
    opened = 0
    for key in keys:
        try:
            reader = store.open_read(key)
        except TransientError:
            continue
        opened += 1
        into = aligned_view(100)
        with reader, pytest.raises(TransientError):
            reader.read_into(into)
        assert bytes(into) == b"x" * 50 + b"\0" * 50
    assert 20 < opened < 80


def test_a_short_read_is_an_error_and_never_data(memory: Store) -> None:
    filled(memory, 1)
    with pytest.raises(ShortReadError):
        FaultyStore(memory, Faults(short_ratio=1.0)).get_range("000")


def test_one_per_cent_of_failures_loses_no_object(memory: Store, waits: list[float]) -> None:
    keys = filled(memory, 500)
    store = RetryStore(FaultyStore(memory, Faults(fail_ratio=0.01, seed=3)), RetryPolicy())
    results = list(read_many(store, [ReadRequest(key) for key in keys], in_flight_max=4))
    assert sorted(result.request.key for result in results) == keys
    assert all(result.error is None and bytes(result.data) == b"x" * 100 for result in results)
    assert store.retry_count > 0


def test_delays_are_waited_where_they_belong(memory: Store, waits: list[float]) -> None:
    filled(memory, 1)
    store = FaultyStore(memory, Faults(open_delay_seconds=0.02, read_delay_seconds=0.03))
    with store.open_read("000") as reader:
        assert waits == [0.02]
        reader.read_into(aligned_view(100))
    assert waits == [0.02, 0.03]
    assert "20 ms before opening, 30 ms before reading" in store.capabilities.notes[0]
