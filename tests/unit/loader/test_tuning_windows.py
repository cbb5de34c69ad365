"""Windows hold what was counted between two moments, and are long enough to tell something."""

from stoker.loader.tuning import Window
from stoker.loader.tuning_windows import REQUESTS_MIN, WINDOW_NS, WINDOW_NS_MAX, Sums, Windows

BEGUN_NS = 10**15
MANY = Sums(read_bytes=1000, requests=100, waited_ns=7, read_busy_ns=50, cpu_ns=9)


def test_a_window_holds_the_difference() -> None:
    windows = Windows(BEGUN_NS, Sums(1, 2, 3, 4, 5))
    assert windows.due(BEGUN_NS + WINDOW_NS)
    assert windows.end(BEGUN_NS + WINDOW_NS, MANY) == Window(WINDOW_NS, 999, 98, 4, 46, 4)
    assert not windows.due(BEGUN_NS + WINDOW_NS + 1)


def test_a_short_window_goes_on() -> None:
    windows = Windows(BEGUN_NS, Sums())
    assert not windows.due(BEGUN_NS + WINDOW_NS - 1)
    assert windows.end(BEGUN_NS + WINDOW_NS - 1, MANY) is None
    window = windows.end(BEGUN_NS + WINDOW_NS, MANY)
    assert window is not None and window.wall_ns == WINDOW_NS


def test_few_requests_make_a_longer_window_but_not_an_endless_one() -> None:
    windows = Windows(BEGUN_NS, Sums())
    few = Sums(read_bytes=1000, requests=REQUESTS_MIN - 1)
    assert windows.end(BEGUN_NS + WINDOW_NS_MAX - 1, few) is None
    window = windows.end(BEGUN_NS + WINDOW_NS_MAX, few)
    assert window is not None and window.requests == REQUESTS_MIN - 1


def test_a_new_beginning_forgets_what_lay_between() -> None:
    windows = Windows(BEGUN_NS, Sums())
    windows.begin(BEGUN_NS + 10 * WINDOW_NS, MANY)
    window = windows.end(BEGUN_NS + 11 * WINDOW_NS, Sums(1500, 120, 8, 60, 10))
    assert window == Window(WINDOW_NS, 500, 20, 1, 10, 1)
