"""How far a command is, as it stands on a terminal, in a log, and as many ranks that make a dataset tell it."""

import io

import pytest

from stoker.bench.run.hosts.events import GENERATE, generation_event
from stoker.bench.run.mlperf.generation_news import News
from stoker.cli.live import StatusLine, run_text, work_text

SECOND = 1_000_000_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_is_written_over_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    line = StatusLine(terminal)
    line.clear()
    assert terminal.getvalue() == ""
    line.show("one")
    line.show("a line that is too long for it\x1b[31m")
    line.clear()
    line.clear()
    one, two, gone = terminal.getvalue().split("\r\x1b[2K")[1:]
    assert (one, gone) == ("one", "")
    assert two.startswith("a line that") and len(two) <= 19


def test_off_a_terminal_nothing_is_written() -> None:
    log = io.StringIO()
    line = StatusLine(log)
    line.show("one")
    line.clear()
    assert (log.getvalue(), line.live) == ("", False)


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    line = StatusLine(terminal)
    terminal.close = lambda: None  # type: ignore[method-assign]
    line.show("one")
    io.StringIO.close(terminal)
    line.show("two")
    line.clear()


def test_many_ranks_are_one_event_with_their_hosts() -> None:
    news = News(["a", "a", "b"], 30, began_ns=0)
    event = news.event(SECOND)
    assert (event.phase, event.step, event.steps, event.done_ratio) == (GENERATE, 0, 30, None)
    news.take(0, 10, 1000, True, 2 * SECOND)
    news.take(1, 8, 800, False, 3 * SECOND)
    news.take(2, 2, 200, False, 3 * SECOND)
    event = news.event(4 * SECOND)
    assert (event.step, event.bytes_per_second, event.left_seconds) == (20, 500.0, 2.0)
    assert (event.hosts, event.hosts_done, event.slowest_host) == (2, 0, "b")
    assert work_text(event) == "20/30 files, 500 B/s, 0/2 hosts done, slowest b"
    news.take(1, 10, 1000, True, 5 * SECOND)
    assert not news.all_ended
    news.take(2, 10, 1000, True, 9 * SECOND)
    event = news.event(10 * SECOND)
    assert news.all_ended and event.done_ratio == 1.0
    assert (event.hosts_done, event.first_done_seconds, event.last_done_seconds) == (2, 5.0, 9.0)
    assert run_text(event).endswith("100 %, 0 ns left, 2/2 hosts done (first at 5.00 s, last at 9.00 s)") or run_text(
        event
    ).endswith("2/2 hosts done (first at 5.00 s, last at 9.00 s)")


def test_a_dataset_without_a_rate_tells_no_time() -> None:
    event = generation_event(0, 5, bytes_per_second=0.0, elapsed_seconds=1.0, left_seconds=None)
    assert run_text(event) == "0/5 files, 0 B/s"
