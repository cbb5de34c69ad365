"""Where a wait goes: by the book in the small, and for injected delays in the large."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from loader_datasets import build

from stoker.core.plan import Spread
from stoker.formats.api import FORMATS, Block
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.loader.stalls import BATCH, DECODE, OPEN, READ, STAGES, Stall, split_stall
from stoker.loader.tally import Tally, rounded
from stoker.storage.api import Store
from stoker.storage.layers.faulty import Faults, FaultyStore

QUEUE = len(STAGES)


def parts(stall: Stall, *spans: tuple[int, int, int, int]) -> dict[int, float]:
    split = split_stall(stall, np.array(spans, dtype=np.int64).reshape(-1, 4))
    assert split.sum() == pytest.approx(stall.ready_ns - stall.request_ns)
    return {stage: value for stage, value in enumerate(split.tolist()) if value}


def test_a_wait_with_nobody_at_work_is_the_queues() -> None:
    assert parts(Stall(0, 100, 200)) == {QUEUE: 100}
    assert parts(Stall(0, 100, 200), (READ, 0, 0, 100), (READ, 0, 200, 300)) == {QUEUE: 100}


def test_one_worker_takes_its_overlap_and_the_queue_the_rest() -> None:
    assert parts(Stall(0, 100, 200), (READ, 0, 50, 170)) == {READ: 70, QUEUE: 30}


def test_workers_at_the_same_time_share_it() -> None:
    spans = [(OPEN, 0, 100, 200), (OPEN, 0, 100, 200), (READ, 0, 150, 200)]
    found = parts(Stall(0, 100, 200), *spans)
    assert found == {OPEN: pytest.approx(50 + 100 / 3), READ: pytest.approx(50 / 3)}


def test_work_for_the_awaited_batch_goes_before_work_for_later_ones() -> None:
    spans = [(DECODE, 4, 100, 160), (OPEN, 5, 0, 300), (OPEN, 6, 0, 300)]
    assert parts(Stall(4, 100, 200), *spans[:1], (OPEN, 5, 0, 180)) == {DECODE: 60, OPEN: 20, QUEUE: 20}
    unfinished = tuple((stage, step, start, 200) for stage, step, start, _ in spans[1:])
    assert parts(Stall(4, 100, 200, unfinished), *spans) == {DECODE: 60, OPEN: 40}


def test_rounding_keeps_the_histograms_three_digits() -> None:
    values = np.array([0, 1, 2047, 2048, 2049, 123_456_789, 3_600_000_000_000])
    assert rounded(values).tolist()[:4] == [1, 1, 2047, 2048]
    assert (np.abs(rounded(values)[1:] - values[1:]) <= values[1:] / 1000).all()


def test_spans_are_kept_until_the_stall_they_overlap_is_over() -> None:
    tally = Tally(1)
    start = time.perf_counter_ns()
    tally.waiting(start)
    tally.log.append((READ, 0, start, start + 1_000_000))
    tally.fold()
    tally.log.append((DECODE, 0, start + 1_000_000, start + 3_000_000))
    tally.fold()
    tally.waited(0, start, start + 3_000_000)
    assert tally.stall_seconds() == {"read": 0.001, "decode": 0.002}
    assert tally.busy_seconds() == {"read": 0.001, "decode": 0.002}


class SlowDecode:
    """Another format, that sleeps or computes before it decodes."""

    def __init__(self, inner: object, *, busy: bool) -> None:
        self._inner = inner
        self._busy = busy

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def decode(self, data: memoryview, extent: object, layout: object) -> Block:
        end = time.perf_counter() + 0.02
        while self._busy and time.perf_counter() < end:
            pass
        if not self._busy:
            time.sleep(0.02)
        return self._inner.decode(data, extent, layout)  # type: ignore[attr-defined]


@pytest.fixture
def slow_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = FORMATS.load
    monkeypatch.setattr(FORMATS, "load", lambda name: SlowDecode(real(name), busy=request.param))
    yield


def shares(store: Store, **options: object) -> dict[str, float]:
    """Return each stage's share of the stall time over one epoch."""
    manifest = build(store, "npz", [1] * 24, (32, 32))
    with Loader(store, manifest, LoaderOptions(**{"batch_size": 4, "verify": 1.0, **options})) as loader:
        list(loader.epoch(1))
        stalls = loader.stall_seconds
        waited = sum(stalls.values())
    assert waited > 0.02
    return {stage: seconds / waited for stage, seconds in stalls.items()}


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("stage", ["open", "read"])
def test_a_slow_store_is_named_by_its_slow_call(memory: Store, stage: str, prefetch: int) -> None:
    faults = Faults(open_delay_seconds=0.02) if stage == "open" else Faults(read_delay_seconds=0.02)
    found = shares(FaultyStore(memory, faults), prefetch_batches=prefetch)
    assert max(found, key=lambda name: found[name]) == stage
    assert sum(share for name, share in found.items() if name != "queue") >= 0.8


@pytest.mark.parametrize("slow_format", [False, True], indirect=True, ids=["sleep", "cpu"])
@pytest.mark.parametrize("decode_threads", [0, 1])
@pytest.mark.usefixtures("slow_format")
def test_a_slow_decoder_is_named(memory: Store, decode_threads: int) -> None:
    found = shares(memory, decode_threads=decode_threads)
    assert max(found, key=lambda name: found[name]) == "decode"


def test_preprocessing_is_named_transform(memory: Store) -> None:
    found = shares(memory, preprocess=Spread("constant", {"value": 0.01}))
    assert max(found, key=lambda name: found[name]) == "transform"


def test_the_time_of_stacking_is_named_batch() -> None:
    assert parts(Stall(0, 100, 200), (BATCH, 0, 100, 200)) == {BATCH: 100}


def test_drawn_preprocessing_depends_on_the_seed_alone(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8, (8,))
    busy = []
    for threads in (1, 3):
        spread = Spread("exponential", {"scale": 0.004})
        options = LoaderOptions(batch_size=4, preprocess=spread, decode_threads=threads)
        with Loader(memory, manifest, options) as loader:
            list(loader.epoch(1))
            busy.append(loader.busy_seconds["transform"])
            assert loader.histograms["transform"].count == 8
    assert all(seconds > 0 for seconds in busy)
