"""The formulas against vectors worked out by hand."""

import numpy as np
import pytest
from step_rows import joined, rows_of

from stoker.bench.workloads.metrics import (
    Exclusion,
    barrier_seconds,
    combine_epochs,
    compatible_figures,
    compute_seconds,
    durations_seconds,
    gap_seconds,
    kept,
    limiting_stage,
    rank_epochs,
    run_metrics,
    sustained_ratio,
    wait_seconds,
)
from stoker.bench.workloads.steps import EVALUATION, column
from stoker.core.result import Epoch

# wait, compute, barrier in ms; the first step waits for the pipeline to fill
FOUR = [(100.0, 20.0, 0.0), (5.0, 20.0, 0.0), (0.0, 20.0, 5.0), (10.0, 20.0, 0.0)]


def only(epochs: list[Epoch]) -> Epoch:
    (epoch,) = epochs
    return epoch


def test_au_is_compute_over_the_duration_of_the_kept_steps() -> None:
    epoch = only(rank_epochs(rows_of(FOUR), Exclusion()))
    assert epoch.au_ratio == pytest.approx(60 / 80)
    assert epoch.samples_per_second == pytest.approx(3 * 4 / 0.080)
    assert epoch.delivered_bytes_per_second == pytest.approx(3 * 400 / 0.080)
    assert (epoch.steps, epoch.samples) == (4, 16)
    assert epoch.wall_seconds == pytest.approx(0.200)


def test_without_exclusion_the_first_wait_counts() -> None:
    assert only(rank_epochs(rows_of(FOUR), Exclusion(start_steps=0))).au_ratio == pytest.approx(80 / 200)


def test_steps_excluded_at_the_end_do_not_count() -> None:
    epoch = only(rank_epochs(rows_of(FOUR), Exclusion(start_steps=1, end_steps=1)))
    assert epoch.au_ratio == pytest.approx(40 / 50)


def test_compatible_au_keeps_the_barrier_of_excluded_steps_as_dlio_does() -> None:
    steps = [(100.0, 20.0, 40.0), (5.0, 20.0, 0.0), (0.0, 20.0, 5.0), (10.0, 20.0, 0.0)]
    au, rate = compatible_figures(rows_of(steps), Exclusion())
    # wall 240 ms less request-to-compute-end of step 0 (120 ms) leaves its barrier of 40 ms inside the window
    assert au == pytest.approx(60 / 120)
    assert rate == pytest.approx((4 - 2) * 4 / 0.120)
    assert only(rank_epochs(rows_of(steps), Exclusion())).au_ratio == pytest.approx(60 / 80)


def test_compatible_throughput_subtracts_two_steps_whatever_is_excluded() -> None:
    _, one_excluded = compatible_figures(rows_of(FOUR), Exclusion(start_steps=1))
    _, none_excluded = compatible_figures(rows_of(FOUR), Exclusion(start_steps=0))
    assert one_excluded == pytest.approx(2 * 4 / 0.080)
    assert none_excluded == pytest.approx(2 * 4 / 0.200)


def test_compatible_throughput_of_one_step_is_zero_and_not_negative() -> None:
    assert compatible_figures(rows_of(FOUR[:1]), Exclusion()) == (0.0, 0.0)


def test_compatible_end_exclusion_counts_in_steps_of_the_epoch() -> None:
    # Two blocks of four steps: only an epoch-wide index of 7 would be excluded, which no block has.
    first = rows_of(FOUR)
    second = rows_of(FOUR, block=1, start_ms=1000)
    au, _ = compatible_figures(joined(first, second), Exclusion(start_steps=1, end_steps=1))
    assert au == pytest.approx(60 / 80)


def test_compatible_epoch_is_the_mean_of_its_blocks_weighted_by_steps() -> None:
    long_block, short_block = rows_of(FOUR), rows_of(FOUR[:2], block=1, start_ms=5000)
    au, rate = compatible_figures(joined(long_block, short_block), Exclusion())
    assert au == pytest.approx((4 * 60 / 80 + 2 * 20 / 25) / 6)
    assert rate == pytest.approx((4 * 2 * 4 / 0.080 + 2 * 0) / 6)


def test_time_between_blocks_is_nobody_s_wait() -> None:
    rows = joined(rows_of(FOUR), rows_of(FOUR, block=1, start_ms=60_000))
    epoch = only(rank_epochs(rows, Exclusion(start_steps=0)))
    assert epoch.au_ratio == pytest.approx(160 / 400)


def test_warm_up_leaves_out_the_first_steps_of_the_run_alone() -> None:
    rows = joined(rows_of(FOUR), rows_of(FOUR, epoch=2, start_ms=500))
    first, second = rank_epochs(rows, Exclusion(warmup_steps=3))
    assert first.au_ratio == pytest.approx(20 / 30)
    assert second.au_ratio == pytest.approx(60 / 80)
    assert column(kept(rows, Exclusion(warmup_steps=3)), "step").tolist() == [3, 1, 2, 3]


def test_an_epoch_with_nothing_to_keep_is_zero() -> None:
    epoch = only(rank_epochs(rows_of(FOUR[:1]), Exclusion(start_steps=5)))
    assert (epoch.au_ratio, epoch.samples_per_second, epoch.steps) == (0.0, 0.0, 1)


def test_an_evaluation_keeps_all_its_steps() -> None:
    epoch = only(rank_epochs(rows_of(FOUR, phase=EVALUATION), Exclusion()))
    assert epoch.phase == "evaluation"
    assert epoch.au_ratio == pytest.approx(80 / 200)
    assert epoch.samples_per_second_compatible == pytest.approx(16 / 0.200)
    assert epoch.au_compatible_ratio == pytest.approx(60 / 80)


def test_over_ranks_au_is_averaged_and_rates_are_summed() -> None:
    # The two ranks of DLIO's list-concatenation defect: 69.1 % and 88.5 % make 78.8 %, never 39.4 %.
    parts = [
        Epoch(epoch=1, phase="evaluation", steps=9, samples=18, au_ratio=0.691, samples_per_second=10.0),
        Epoch(epoch=1, phase="evaluation", steps=8, samples=16, au_ratio=0.885, samples_per_second=12.0),
    ]
    both = combine_epochs(parts)
    assert both.au_ratio == pytest.approx(0.788)
    assert both.samples_per_second == pytest.approx(22.0)
    assert (both.steps, both.samples, both.phase) == (8, 34, "evaluation")


def test_the_run_pools_steps_and_the_compatible_figure_is_the_mean_of_epochs() -> None:
    slow = [(100.0, 20.0, 0.0), (20.0, 20.0, 0.0)]
    rows = joined(rows_of(FOUR), rows_of(slow, epoch=2, start_ms=500))
    epochs = rank_epochs(rows, Exclusion())
    metrics = run_metrics([rows], epochs, Exclusion(), seed=1)
    assert metrics.au_ratio == pytest.approx(80 / 120)
    assert metrics.au_compatible_ratio == pytest.approx((60 / 80 + 20 / 40) / 2)
    assert metrics.samples_per_second == pytest.approx(16 / 0.120)
    assert metrics.steps == 4
    assert metrics.first_batch_seconds == pytest.approx(0.100)
    assert (metrics.au_low_ratio, metrics.au_high_ratio) == (0.0, 1.0)  # four steps tell nothing of the spread


def test_an_epoch_cut_short_is_left_out_of_the_compatible_mean() -> None:
    rows = joined(rows_of(FOUR), rows_of(FOUR[:2], epoch=2, start_ms=500))
    epochs = rank_epochs(rows, Exclusion())
    epochs[1].complete = False
    assert run_metrics([rows], epochs, Exclusion(), seed=1).au_compatible_ratio == pytest.approx(60 / 80)


def test_an_evaluation_is_no_part_of_the_run_s_figures() -> None:
    rows = joined(rows_of(FOUR), rows_of([(500.0, 1.0, 0.0)] * 3, phase=EVALUATION, start_ms=500))
    metrics = run_metrics([rows], rank_epochs(rows, Exclusion()), Exclusion(), seed=1)
    assert metrics.au_ratio == pytest.approx(60 / 80)
    assert metrics.steps == 3


def test_the_interval_holds_the_figure_and_repeats_with_its_seed() -> None:
    generator = np.random.default_rng(5)
    rows = rows_of([(float(wait), 20.0, 0.0) for wait in generator.exponential(3.0, 300)])
    one, other = (run_metrics([rows], rank_epochs(rows, Exclusion()), Exclusion(), seed=9) for _ in range(2))
    assert one == other
    assert 0 < one.au_low_ratio < one.au_ratio < one.au_high_ratio < 1
    assert one.au_high_ratio - one.au_low_ratio < 0.1


def test_a_run_without_steps_has_no_figures() -> None:
    metrics = run_metrics([rows_of([]), rows_of(FOUR)], [], Exclusion(), seed=1)
    assert (metrics.steps, metrics.au_low_ratio, metrics.au_high_ratio) == (0, 0.0, 1.0)
    assert run_metrics([], [], Exclusion(), seed=1).au_ratio == 0.0


def test_the_parts_of_the_steps_add_up_to_the_wall_time() -> None:
    rows = rows_of(FOUR, gap_ms=0.25)
    parts = [seconds(rows).sum() for seconds in (wait_seconds, compute_seconds, barrier_seconds, gap_seconds)]
    assert sum(parts) == pytest.approx(durations_seconds(rows).sum())
    assert durations_seconds(rows).sum() == pytest.approx(rank_epochs(rows, Exclusion())[0].wall_seconds)
    assert gap_seconds(rows) == pytest.approx([0.00025, 0.0005, 0.0005, 0.0005])


def test_the_limiting_stage_is_the_one_that_stalled_most() -> None:
    assert limiting_stage({"read": 3.0, "open": 1.0}) == ("read", 0.75)
    assert limiting_stage({}) == ("", 0.0)
    assert limiting_stage({"read": 0.0}) == ("", 0.0)


def test_what_was_read_ahead_is_not_credited_to_the_store() -> None:
    """Five steps of 1 s compute; the first two batches of the window were ready before it, the others took 1 s each."""
    waits = [2.0, 0.0, 0.0, 1.0, 1.0]
    rows = rows_of([(1000 * wait, 1000.0, 0.0) for wait in waits])
    exclusion = Exclusion(start_steps=1)
    window_au = 4 / 6
    assert sustained_ratio(rows, exclusion, prefetch_batches=0) == pytest.approx(window_au)
    # Whole epoch: 5 s of compute in 9 s; the window without two read-ahead steps: 2 s in 6 s.
    assert sustained_ratio(rows, exclusion, prefetch_batches=2) == pytest.approx(5 / 9)


def test_in_a_long_epoch_the_sustained_utilisation_meets_the_plain_one() -> None:
    rows = rows_of([(100.0, 1000.0, 0.0)] * 1000)
    plain = 1 / 1.1
    assert sustained_ratio(rows, Exclusion(start_steps=1), prefetch_batches=2) == pytest.approx(plain, rel=0.003)
