"""Windows end when they can tell something: long enough, with a few reads of each reader, and not endless."""

import pytest

from stoker.core import clock
from stoker.core.units import MiB
from stoker.loader.pacing import READS_MIN, WINDOW_NS, WINDOW_NS_MAX, Pace
from stoker.loader.tally import Tally
from stoker.loader.tuning import Tuner, tuner_for
from stoker.loader.tuning_bounds import Settings
from stoker.storage.api import Capabilities

STORE = Capabilities("direct", in_flight=32)


class Hands:
    """Hands of a clock that stand still until they are moved."""

    def __init__(self) -> None:
        self.now_ns = 10**15


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(clock, "monotonic_ns", lambda: hands.now_ns)
    return hands


def made() -> tuple[Pace, Tuner, Tally]:
    tuner = tuner_for(STORE, cpus=2, sample_bytes=0, pinned=Settings(readers=2))
    tally = Tally(3)
    return Pace(tuner, tally), tuner, tally


def work(tally: Tally, hands: Hands, *, reads: int, wall_ns: int, rate: float = 1e9) -> None:
    """So many reads of 1 MiB requests end while the consumer waits; together they come at `rate`."""
    hands.now_ns += wall_ns
    tally.waited_ns += wall_ns
    for _ in range(reads):
        tally.read(0, wall_ns // reads, 16)
    tally.ledgers[0].requested_bytes += int(rate * wall_ns / 1e9)


def test_a_window_lasts_its_time(hands: Hands) -> None:
    pace, tuner, tally = made()
    work(tally, hands, reads=100, wall_ns=WINDOW_NS - 1)
    pace.consumer_took()
    assert tuner.told()["windows"] == 0
    hands.now_ns += 1
    pace.consumer_took()
    assert tuner.told()["windows"] == 1


def test_few_reads_make_a_longer_window_but_not_an_endless_one(hands: Hands) -> None:
    pace, tuner, tally = made()
    work(tally, hands, reads=2 * READS_MIN - 1, wall_ns=WINDOW_NS_MAX - 1)
    pace.consumer_took()
    assert tuner.told()["windows"] == 0
    hands.now_ns += 1
    pace.consumer_took()
    assert tuner.told()["windows"] == 1


def test_the_time_between_epochs_belongs_to_no_window(hands: Hands) -> None:
    pace, tuner, tally = made()
    work(tally, hands, reads=100, wall_ns=WINDOW_NS // 2)
    pace.end()
    hands.now_ns += 10 * WINDOW_NS
    pace.end()
    pace.begin()
    pace.consumer_took()
    assert tuner.told()["windows"] == 0


def test_a_window_goes_on_over_short_epochs(hands: Hands) -> None:
    pace, tuner, tally = made()
    for epoch in range(1, 9):
        pace.begin()
        work(tally, hands, reads=100, wall_ns=WINDOW_NS // 2)
        pace.consumer_took()
        assert tuner.told()["windows"] == epoch // 2
        pace.end()
        hands.now_ns += 10 * WINDOW_NS


def test_other_settings_are_told_of_and_kept_to(hands: Hands) -> None:
    pace, tuner, tally = made()
    changes = []
    for _ in range(20):
        deep = pace.settings.queue_depth
        work(tally, hands, reads=100, wall_ns=WINDOW_NS, rate=1e7 * min(deep, 256))
        changes.append(pace.consumer_took())
    assert any(changes) and tuner.settled
    assert pace.settings.queue_depth == 256


def test_what_the_reader_works_with_is_told(hands: Hands) -> None:
    pace, _, _ = made()
    assert pace.told()["engine"] == ""
    pace.note({"engine": "io_uring", "queue_depth": 32, "request_bytes": MiB})
    assert pace.told()["engine"] == "io_uring"
    assert pace.told()["pinned"] == ["readers"]
