"""Histograms merge exactly, round-trip, and keep their error below 0.1 %."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.histogram import HIGHEST_NS, Histogram, merge_encoded

DURATIONS = st.lists(st.integers(1, 10**12), min_size=1, max_size=40)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


@settings(max_examples=25, deadline=None)
@given(DURATIONS, DURATIONS)
def test_merging_equals_counting_everything_in_one(left: list[int], right: list[int]) -> None:
    merged = merge_encoded([{"read": histogram_of(left).encode()}, {"read": histogram_of(right).encode()}])
    both = histogram_of(left + right)
    again = Histogram.decode(merged["read"])
    assert again.count == both.count == len(left) + len(right)
    assert again.quantiles_seconds() == both.quantiles_seconds()


@settings(max_examples=25, deadline=None)
@given(DURATIONS)
def test_the_largest_value_is_within_a_thousandth(values: list[int]) -> None:
    largest = histogram_of(values).quantile_ns(1.0)
    assert abs(largest - max(values)) <= max(values) * 0.001 + 1


def test_values_outside_the_range_are_clamped_not_dropped() -> None:
    histogram = histogram_of([0, -5, HIGHEST_NS * 2])
    assert histogram.count == 3


def test_an_empty_histogram_answers_zero() -> None:
    assert Histogram().quantile_ns(0.5) == 0
    assert Histogram().mean_ns() == 0.0
    assert Histogram.decode("").count == 0
