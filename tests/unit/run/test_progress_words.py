"""How far a run is, in words."""

from stoker.bench.run.conduct import ProgressEvent
from stoker.cli.live import run_text

EVENT = ProgressEvent("train", 2, 30, 100, 0.915, 2.0 * (1 << 30), 12.0, 40.0)


def test_one_host() -> None:
    text = run_text(EVENT)
    assert text == "epoch 2 step 30/100, AU 91.5 %, 2.00 GiB/s, 30 %, 28.00 s left"


def test_an_end_that_is_not_known_is_not_guessed() -> None:
    event = ProgressEvent("train", 1, 3, 0, 0.5, 0.0, 12.0, 0.0)
    assert event.done_ratio is None and event.left_seconds is None
    assert "left" not in run_text(event)


def test_many_hosts() -> None:
    event = ProgressEvent("train", 2, 30, 100, 0.9, 1.0, 12.0, 40.0, hosts=4, slowest_host="node-3")
    assert run_text(event).endswith("0/4 hosts done, slowest node-3")
    event = ProgressEvent(
        "train",
        2,
        99,
        100,
        0.9,
        1.0,
        39.0,
        40.0,
        hosts=4,
        hosts_done=2,
        first_done_seconds=30.0,
        last_done_seconds=38.0,
    )
    assert run_text(event).endswith("2/4 hosts done (first at 30.00 s, last at 38.00 s)")
