"""What holds of the figures whatever the steps were."""

from hypothesis import given, settings
from hypothesis import strategies as st
from step_rows import joined, rows_of

from stoker.bench.workloads.metrics import Exclusion, durations_seconds, gap_seconds, rank_epochs, run_metrics

MILLISECONDS = st.floats(0, 1000).map(lambda value: round(value, 3))
STEPS = st.lists(st.tuples(MILLISECONDS, MILLISECONDS, MILLISECONDS), min_size=1, max_size=30)
EXCLUSIONS = st.builds(Exclusion, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=3), EXCLUSIONS, st.floats(0, 2))
def test_ratios_stay_between_nought_and_one(epochs: list, exclusion: Exclusion, gap_ms: float) -> None:
    parts = [
        rows_of(steps, epoch=number, start_ms=number * 1e6, gap_ms=gap_ms) for number, steps in enumerate(epochs, 1)
    ]
    rows = joined(*parts)
    figures = rank_epochs(rows, exclusion)
    metrics = run_metrics([rows, rows], figures, exclusion, seed=3)
    for epoch in figures:
        assert 0 <= epoch.au_ratio <= 1 + 1e-12
        assert epoch.samples_per_second >= 0
        assert epoch.samples_per_second_compatible >= 0
    assert 0 <= metrics.au_low_ratio <= metrics.au_ratio <= metrics.au_high_ratio <= 1 + 1e-12
    assert metrics.steps == sum(
        max(len(p) - max(exclusion.start_steps, exclusion.warmup_steps * (n == 0)) - exclusion.end_steps, 0)
        for n, p in enumerate(parts)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 1000), min_size=2, max_size=50), EXCLUSIONS)
def test_au_is_one_when_nothing_waits(computes: list, exclusion: Exclusion) -> None:
    rows = rows_of([(0.0, compute, 0.0) for compute in computes])
    metrics = run_metrics([rows], rank_epochs(rows, exclusion), exclusion, seed=3)
    assert metrics.steps == 0 or abs(metrics.au_ratio - 1) < 1e-12
    assert metrics.steps < 5 or metrics.au_low_ratio > 1 - 1e-9


@settings(max_examples=40, deadline=None)
@given(STEPS, st.floats(0, 5))
def test_steps_tile_the_wall_time(steps: list, gap_ms: float) -> None:
    rows = rows_of(steps, gap_ms=gap_ms)
    (epoch,) = rank_epochs(rows, Exclusion())
    assert abs(float(durations_seconds(rows).sum()) - epoch.wall_seconds) < 1e-9
    assert (gap_seconds(rows) > -1e-9).all()


@settings(max_examples=30, deadline=None)
@given(STEPS, st.floats(0, 500))
def test_waiting_longer_never_raises_au(steps: list, more_ms: float) -> None:
    slower = [(wait + more_ms, compute, barrier) for wait, compute, barrier in steps]
    before, after = (rank_epochs(rows_of(part), Exclusion())[0].au_ratio for part in (steps, slower))
    assert after <= before + 1e-9
