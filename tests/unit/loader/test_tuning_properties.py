"""Whatever the device, its noise and the limits: the tuner stays within these, comes to rest, near the best."""

import random

from hypothesis import given
from hypothesis import strategies as st
from tuned_devices import WALL_NS, Device, best_rate, tuned

from stoker.loader.tuning import WINDOWS_MAX, Tuner, Window
from stoker.loader.tuning_bounds import KNOBS, Limits, Settings

POWERS = {"readers": (0, 5), "queue_depth": (0, 10), "request_bytes": (12, 24)}
LONGEST_LADDER = sum(2 * (high - low) for low, high in POWERS.values())
COUNTS = st.integers(0, 2**40)


@st.composite
def tuners(draw: st.DrawFn) -> tuple[Tuner, Limits]:
    ladders = {knob: sorted(draw(st.lists(st.integers(*POWERS[knob]), min_size=3, max_size=3))) for knob in KNOBS}
    low, start, high = (Settings(*(1 << ladders[knob][place] for knob in KNOBS)) for place in range(3))
    limits = Limits(low, high)
    return Tuner(limits, start, order=tuple(draw(st.permutations(KNOBS))), cpus=4), limits


NOISES = st.floats(0.0, 0.05)
CHANCES = st.integers(0, 1000).map(random.Random)
CEILINGS = st.floats(1e6, 1e11)
LATENCY_BOUND = st.builds(Device, latency_s=st.floats(1e-6, 10.0), ceiling=CEILINGS, noise=NOISES, chance=CHANCES)
SLOWER_WHEN_DEEP = st.builds(
    Device, latency_s=st.just(1e-9), ceiling=CEILINGS, knee=st.integers(1, 4096), noise=NOISES, chance=CHANCES
)


@given(tuners(), LATENCY_BOUND | SLOWER_WHEN_DEEP)
def test_comes_to_rest_near_the_best(made: tuple[Tuner, Limits], device: Device) -> None:
    tuner, limits = made
    tuned(tuner, device, WINDOWS_MAX + LONGEST_LADDER)
    assert tuner.settled
    assert device.rate(tuner.settings) >= 0.85 * best_rate(device, tuner, limits)


@given(tuners(), st.lists(st.builds(Window, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS), max_size=60))
def test_never_leaves_the_limits_whatever_is_measured(made: tuple[Tuner, Limits], windows: list[Window]) -> None:
    tuner, limits = made
    for window in windows:
        assert limits.holds(tuner.observe(window))
    assert tuner.told()["windows"] <= len(windows)


@given(tuners(), st.integers(0, 1000))
def test_comes_to_rest_on_a_device_without_rules(made: tuple[Tuner, Limits], seed: int) -> None:
    tuner, _ = made
    chance = random.Random(seed)
    for _ in range(WINDOWS_MAX + LONGEST_LADDER):
        if tuner.settled:
            break
        tuner.observe(Window(WALL_NS, chance.randrange(1, 10**9), 1, WALL_NS, WALL_NS * tuner.settings.readers, 0))
    assert tuner.settled
