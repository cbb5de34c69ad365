"""The emulated accelerator: what is drawn, and how it sleeps."""

import numpy as np
import pytest

from stoker.bench.workloads.accelerator import SPIN_NS_MAX, Accelerator, draw_seconds
from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.core.plan import Spread

NORMAL = Spread("normal", {"mean": 0.01, "stdev": 0.02})


class SimulatedClock:
    """Time that passes by sleeping, late by `late_ns`, and a little by being looked at."""

    def __init__(self, *, late_ns: int, look_ns: int = 200) -> None:
        self.now_ns = 1_000
        self.late_ns, self.look_ns = late_ns, look_ns
        self.slept_ns = self.looks = 0

    def monotonic_ns(self) -> int:
        self.looks += 1
        self.now_ns += self.look_ns
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept_ns += round(seconds * 1e9)
        self.now_ns += round(seconds * 1e9) + self.late_ns


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    time = SimulatedClock(late_ns=60_000)
    monkeypatch.setattr(clock, "monotonic_ns", time.monotonic_ns)
    monkeypatch.setattr(clock, "sleep", time.sleep)
    return time


def constant(seconds: float) -> Accelerator:
    return Accelerator(Spread(parameters={"value": seconds}), seed=1, rank=0)


def test_a_step_s_time_depends_on_seed_rank_epoch_and_step_alone() -> None:
    def drawn(seed: int, rank: int, epoch: int, steps: list[int]) -> list[float]:
        accelerator = Accelerator(NORMAL, seed=seed, rank=rank)
        return [accelerator.seconds(epoch, step) for step in steps]

    forwards = drawn(1, 0, 1, [0, 1, 255, 256, 700])
    assert forwards == drawn(1, 0, 1, [700, 256, 255, 1, 0])[::-1]
    for other in (drawn(2, 0, 1, [0, 1]), drawn(1, 1, 1, [0, 1]), drawn(1, 0, 2, [0, 1])):
        assert other != forwards[:2]


@pytest.mark.parametrize(
    ("spread", "mean"),
    [
        (Spread("uniform", {"min": 1.0, "max": 3.0}), 2.0),
        (Spread("gamma", {"shape": 2.0, "scale": 0.5}), 1.0),
        (Spread("exponential", {"scale": 0.25}), 0.25),
        (Spread("poisson", {"lam": 4.0}), 4.0),
        (Spread("normal", {"mean": 5.0, "stdev": 0.1}), 5.0),
        (Spread(parameters={"value": 0.7}), 0.7),
    ],
)
def test_draws_have_the_mean_that_was_asked_for(spread: Spread, mean: float) -> None:
    drawn = draw_seconds(spread, np.random.default_rng(1), 20_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.03)
    assert spread.mean_seconds() == pytest.approx(mean)


def test_a_negative_draw_counts_without_its_sign() -> None:
    assert (draw_seconds(Spread("normal", {"mean": 0.0, "stdev": 1.0}), np.random.default_rng(1), 1000) >= 0).all()


@pytest.mark.parametrize(
    "spread",
    [
        Spread("triangle", {"value": 1.0}),
        Spread("normal", {"mean": 1.0}),
        Spread("normal", {"mean": 1.0, "stdev": -1.0}),
        Spread(parameters={"value": float("nan")}),
        Spread(parameters={"value": 1e9}),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_run(spread: Spread) -> None:
    with pytest.raises(UsageError, match="duration"):
        Accelerator(spread, seed=1, rank=0)


def test_compute_is_done_exactly_the_drawn_time_after_it_began(simulated: SimulatedClock) -> None:
    accelerator = constant(0.000375)
    for step in range(50):
        start_ns, done_ns = accelerator.compute(1, step)
        assert done_ns - start_ns == 375_000
        assert simulated.now_ns >= done_ns


def test_it_learns_how_late_sleeps_are_and_then_ends_within_a_glance(simulated: SimulatedClock) -> None:
    accelerator = constant(0.000375)
    for step in range(100):
        _, done_ns = accelerator.compute(1, step)
    assert simulated.now_ns - done_ns < 2_000
    assert simulated.slept_ns > 100 * (375_000 - SPIN_NS_MAX)


def test_it_never_spins_longer_than_a_tenth_of_a_millisecond(simulated: SimulatedClock) -> None:
    simulated.late_ns = 5_000_000
    accelerator = constant(0.02)
    for step in range(60):
        before_ns = simulated.now_ns
        accelerator.compute(1, step)
        assert simulated.now_ns - before_ns < 25_200_000
    simulated.late_ns, simulated.looks = 0, 0
    accelerator.compute(1, 60)
    assert simulated.looks * simulated.look_ns <= SPIN_NS_MAX + 10 * simulated.look_ns


def test_a_step_without_compute_takes_no_sleep(simulated: SimulatedClock) -> None:
    start_ns, done_ns = constant(0.0).compute(1, 0)
    assert start_ns == done_ns
    assert simulated.slept_ns == 0


def test_a_real_step_lasts_at_least_its_time() -> None:
    accelerator = constant(0.003)
    before_ns = clock.monotonic_ns()
    accelerator.compute(1, 0)
    assert clock.monotonic_ns() - before_ns >= 3_000_000
