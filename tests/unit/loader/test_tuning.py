"""The tuner finds what suits a device, says why it stopped, and never leaves its limits."""

import json
import random
import statistics

import pytest
from tuned_devices import WALL_NS, WIDE, Device, best_rate, tuned

from stoker.core.errors import UsageError
from stoker.core.units import GiB, KiB, MiB
from stoker.loader import tuning
from stoker.loader.tuning import Tuner, Window, tuner_for
from stoker.loader.tuning_bounds import Limits, Settings, first_guess, limits_for
from stoker.storage.api import Capabilities

START = Settings(2, 32, MiB)
ORDER = ("queue_depth", "readers", "request_bytes")
BUFFERED = Capabilities(io_mode="buffered")
DIRECT = Capabilities(io_mode="direct", alignment_bytes=4096, in_flight=32)
NETWORK = Capabilities(io_mode="network", in_flight=32)
AUTO = Settings()
MANY_WINDOWS = 60


def new_tuner(start: Settings = START, limits: Limits = WIDE, cpus: float = 4) -> Tuner:
    return Tuner(limits, start, order=ORDER, cpus=cpus)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.10])
@pytest.mark.parametrize(
    "device",
    [
        Device(latency_s=0.1, ceiling=2 * GiB),
        Device(latency_s=1.0, ceiling=0.5 * GiB),
        Device(latency_s=1e-6, ceiling=GiB),
        Device(latency_s=0.002, ceiling=4 * GiB, knee=16),
        Device(latency_s=0.02, ceiling=8 * GiB, knee=128),
    ],
    ids=["deeper", "much deeper", "bandwidth", "slower beyond 16", "slower beyond 128"],
)
def test_settles_near_the_best_within_a_dozen_windows(device: Device, noise: float) -> None:
    windows = []
    for seed in range(20):
        device.noise, device.chance = noise, random.Random(seed)
        tuner = new_tuner()
        windows.append(tuned(tuner, device, MANY_WINDOWS))
        assert tuner.settled
        assert device.rate(tuner.settings) >= 0.85 * best_rate(device, tuner, WIDE)
        assert tuner.told()["why"] == tuning.GROWN
    assert statistics.median(windows) <= 14
    assert max(windows) <= 24


def test_a_plateau_moves_nothing_when_nothing_is_gained() -> None:
    tuner = new_tuner()
    tuned(tuner, Device(latency_s=1e-6, ceiling=GiB), MANY_WINDOWS)
    assert tuner.settings == START
    assert tuner.told()["start"] == tuner.told()["chosen"]


def test_stops_where_the_client_has_no_cpu_left() -> None:
    device = Device(latency_s=0.5, ceiling=8 * GiB, cpu_s=4 / (0.5 * GiB))
    tuner = new_tuner()
    tuned(tuner, device, MANY_WINDOWS)
    assert tuner.told()["why"] == tuning.CPU
    assert device.rate(tuner.settings) == 0.5 * GiB
    assert tuner.settings.queue_depth <= 256


def test_a_fed_consumer_leaves_everything_as_it_is() -> None:
    device = Device(ceiling=GiB, demand=0.2 * GiB)
    tuner = new_tuner()
    assert tuned(tuner, device, MANY_WINDOWS) == tuning.QUIET_WINDOWS
    assert tuner.settings == START
    assert tuner.told()["why"] == tuning.FED


def test_what_feeds_the_consumer_is_kept_even_in_the_middle_of_a_trial() -> None:
    device = Device(latency_s=1.0, ceiling=8 * GiB, demand=0.2 * GiB)
    tuner = new_tuner()
    tuned(tuner, device, MANY_WINDOWS)
    assert tuner.told()["why"] == tuning.FED
    assert device.rate(tuner.settings) >= device.demand


def test_a_fed_consumer_that_waits_for_long_begins_a_search() -> None:
    device = Device(latency_s=1.0, ceiling=8 * GiB, demand=0.05 * GiB)
    tuner = new_tuner()
    tuned(tuner, device, MANY_WINDOWS)
    device.demand = 4 * GiB
    for _ in range(tuning.CHANGED_WINDOWS):
        assert tuner.settled
        tuner.observe(device.window(tuner.settings))
    assert not tuner.settled
    tuned(tuner, device, MANY_WINDOWS)
    assert tuner.settings.queue_depth > START.queue_depth


def test_one_window_of_waiting_in_a_fed_run_changes_nothing() -> None:
    fed, slow = Device(ceiling=GiB, demand=0.2 * GiB), Device(ceiling=0.1 * GiB)
    tuner = new_tuner()
    for _ in range(10):
        for device in (fed, fed, fed, slow):
            tuner.observe(device.window(tuner.settings))
    assert tuner.settled and tuner.settings == START


def test_another_throughput_for_good_begins_a_search() -> None:
    tuner = new_tuner()
    tuned(tuner, Device(latency_s=1e-6, ceiling=0.1 * GiB), MANY_WINDOWS)
    assert tuner.settings == START
    second_epoch = Device(latency_s=0.1, ceiling=4 * GiB)
    for _ in range(MANY_WINDOWS):
        tuner.observe(second_epoch.window(tuner.settings))
    assert tuner.settled
    assert second_epoch.rate(tuner.settings) == 4 * GiB
    assert tuner.told()["searches"] == 2


def test_a_short_dip_does_not_begin_a_search() -> None:
    device, dip = Device(latency_s=1e-6, ceiling=GiB), Device(latency_s=1e-6, ceiling=0.3 * GiB)
    tuner = new_tuner()
    tuned(tuner, device, MANY_WINDOWS)
    for _ in range(10):
        for each in (dip, dip, device):
            tuner.observe(each.window(tuner.settings))
    assert tuner.told()["searches"] == 1


def test_reading_that_is_not_the_limit_is_left_alone() -> None:
    tuner = new_tuner()
    decoding = Window(WALL_NS, MiB, 1, waited_ns=WALL_NS, read_busy_ns=WALL_NS // 100, cpu_ns=WALL_NS)
    for _ in range(4):
        tuner.observe(decoding)
    assert tuner.told()["why"] == tuning.ELSEWHERE
    assert tuner.settings == START


def test_windows_without_reading_tell_nothing() -> None:
    tuner = new_tuner()
    for window in (Window(0, 0, 0, 0, 0, 0), Window(WALL_NS, 0, 0, WALL_NS, 0, 0)):
        assert tuner.observe(window) == START
    assert tuner.told()["windows"] == 0
    assert tuner.told()["why"] == tuning.SHORT


def test_a_run_that_ends_in_the_middle_says_so() -> None:
    tuner = new_tuner()
    tuner.observe(Device(latency_s=1.0).window(tuner.settings))
    assert not tuner.settled
    assert tuner.told()["why"] == tuning.TRYING


def test_larger_requests_are_not_tried_where_no_request_is_that_large() -> None:
    tuner, seen = new_tuner(), set()
    device = Device(latency_s=0.01, ceiling=4 * GiB)
    for _ in range(MANY_WINDOWS):
        window = device.window(tuner.settings)
        tuner.observe(Window(WALL_NS, window.read_bytes, window.read_bytes // (16 * KiB), WALL_NS, 2 * WALL_NS, 0))
        seen.add(tuner.settings.request_bytes)
    assert seen == {MiB}


def test_more_readers_are_not_tried_while_those_there_are_idle() -> None:
    tuner, seen = new_tuner(Settings(8, 32, MiB)), set()
    device = Device(latency_s=1e-6, ceiling=GiB)
    for _ in range(MANY_WINDOWS):
        window = device.window(tuner.settings)
        tuner.observe(Window(WALL_NS, window.read_bytes, window.requests, WALL_NS, 2 * WALL_NS, 0))
        seen.add(tuner.settings.readers)
    assert seen == {8}


def test_everything_pinned_is_never_tried() -> None:
    pinned = Settings(3, 7, 100 * 4096)
    tuner = tuner_for(DIRECT, cpus=2, sample_bytes=10 * MiB, pinned=pinned)
    device = Device(latency_s=1.0, noise=0.1)
    for _ in range(20):
        assert tuner.observe(device.window(tuner.settings)) == pinned
    assert tuner.settled
    told = tuner.told()
    assert told["why"] == tuning.PINNED
    assert told["pinned"] == ["readers", "queue_depth", "request_bytes"]


@pytest.mark.parametrize("knob", ["readers", "queue_depth", "request_bytes"])
def test_one_pinned_setting_stays_while_the_others_move(knob: str) -> None:
    pinned = Settings(**{knob: 4096 if knob == "request_bytes" else 1})
    tuner = tuner_for(DIRECT, cpus=4, sample_bytes=10 * MiB, pinned=pinned)
    device, seen = Device(latency_s=1.0, ceiling=8 * GiB), set()
    for _ in range(MANY_WINDOWS):
        seen.add(getattr(tuner.observe(device.window(tuner.settings)), knob))
    assert seen == {getattr(pinned, knob)}
    assert tuner.told()["chosen"] != tuner.told()["start"]


def test_the_first_guess_suits_the_kind_of_target() -> None:
    def guess(capabilities: Capabilities, cpus: int = 8) -> Settings:
        return first_guess(capabilities, cpus, limits_for(capabilities, cpus, 140 * MiB, AUTO))

    assert guess(BUFFERED) == Settings(4, 8, MiB)
    assert guess(BUFFERED, cpus=2).readers == 2
    assert guess(DIRECT) == Settings(2, 32, MiB)
    assert guess(NETWORK) == Settings(2, 32, 8 * MiB)
    assert guess(Capabilities(io_mode="memory", in_flight=4)).queue_depth == 2


def test_requests_are_no_larger_than_what_is_read_as_one() -> None:
    limits = limits_for(BUFFERED, 2, 110 * KiB, AUTO)
    assert limits.high.request_bytes == 128 * KiB
    assert limits_for(DIRECT, 2, 1, AUTO).high.request_bytes == 4096
    assert limits_for(DIRECT, 2, 1, AUTO).low.request_bytes == 4096
    assert limits_for(NETWORK, 2, 0, AUTO).high.request_bytes == 16 * MiB


def test_a_store_that_reads_one_range_at_a_time_has_readers_alone_to_tune() -> None:
    tuner = tuner_for(NETWORK, cpus=2, sample_bytes=8 * MiB, pinned=AUTO, queues=False)
    assert tuner.settings == Settings(8, 1, 8 * MiB)
    device, seen = Device(latency_s=0.1, ceiling=8 * GiB), set()
    for _ in range(MANY_WINDOWS):
        settings = tuner.observe(device.window(tuner.settings))
        seen.add((settings.queue_depth, settings.request_bytes))
    assert seen == {(1, 8 * MiB)}
    assert tuner.settings.readers == 64


@pytest.mark.parametrize(
    ("capabilities", "pinned", "queues", "words"),
    [
        (BUFFERED, Settings(queue_depth=-1), True, "queue_depth"),
        (BUFFERED, Settings(queue_depth=8), False, "one range at a time"),
        (BUFFERED, Settings(request_bytes=MiB), False, "one range at a time"),
        (DIRECT, Settings(request_bytes=5000), True, "multiple of 4.00 KiB"),
        (BUFFERED, Settings(request_bytes=5000), True, "multiple of 4.00 KiB"),
        (BUFFERED, Settings(readers=1025), True, "readers"),
    ],
)
def test_what_cannot_be_pinned_is_refused(
    capabilities: Capabilities, pinned: Settings, queues: bool, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        limits_for(capabilities, 2, MiB, pinned, queues=queues)


def test_what_is_told_is_json() -> None:
    tuner = new_tuner()
    tuned(tuner, Device(latency_s=0.1), MANY_WINDOWS)
    told = tuner.told()
    assert json.loads(json.dumps(told)) == told
    assert told["start"] == {"readers": 2, "queue_depth": 32, "request_bytes": MiB}
    assert told["settled"] and told["windows"] > 2 and told["pinned"] == []
