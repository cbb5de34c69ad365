"""Live progress on stderr: a bar on a terminal, nothing off it, nothing when asked to be quiet."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from stoker.bench.report.text import plain
from stoker.bench.run.conduct import ProgressEvent
from stoker.bench.run.hosts.events import GENERATE
from stoker.core.units import format_rate, format_seconds
from stoker.loader.dataset.progress import Progress as GenerateProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Live:
    """One line a phase; `generate` and `run` are the callbacks of the library."""

    def __init__(self, progress: "Progress | None") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def _show(self, phase: str, *, done: float, total: float | None, text: str) -> None:
        if self._progress is None:
            return
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total, text=text)
        self._progress.update(self._tasks[phase], completed=done, total=total, text=text)

    def generate(self, event: GenerateProgress) -> None:
        """Show how far the generation is."""
        eta = f", {format_seconds(event.eta_seconds)} left" if event.eta_seconds is not None else ""
        text = f"{event.files_done}/{event.files_total} files, {format_rate(event.bytes_per_second)}{eta}"
        self._show("generate", done=event.files_done, total=event.files_total, text=text)

    def run(self, event: ProgressEvent) -> None:
        """Show the step, the accelerator utilisation so far and the rate."""
        self._show(event.phase, done=event.elapsed_seconds, total=event.limit_seconds or None, text=run_text(event))


_TOLD_BY_NAME: Final = ("save", "load", "insert", "index", "search")


def run_text(event: ProgressEvent) -> str:
    """Return how far a run is: step, utilisation, rate, share and time left, and of many hosts which are done."""
    words = _work(event)
    if event.done_ratio is not None and event.left_seconds is not None:
        words.append(f"{100 * event.done_ratio:.0f} %, {format_seconds(event.left_seconds)} left")
    return ", ".join([*words, *hosts_text(event)])


def work_text(event: ProgressEvent) -> str:
    """Return the same without share and time left, for who tells these by itself, and with a checkpoint's phase."""
    phase = f"{event.phase} " if event.phase in _TOLD_BY_NAME else ""
    return phase + ", ".join([*_work(event), *hosts_text(event)])


def _work(event: ProgressEvent) -> list[str]:
    rate = format_rate(event.bytes_per_second)
    if event.phase == GENERATE:
        return [f"{event.step}/{event.steps} files", rate]
    if event.phase in ("save", "load"):
        return [f"{event.step}/{event.steps}", rate]
    if event.phase in ("insert", "index"):
        return [f"{event.step}/{event.steps} vectors"]
    if event.phase == "search":
        return [f"{event.step}/{event.steps} requests" if event.steps else f"{event.step} requests"]
    if event.phase == "serve":
        return [f"trial {event.epoch}, {event.step}/{event.steps} s", rate]
    return [f"epoch {event.epoch} step {event.step}/{event.steps}", f"AU {100 * event.au_ratio:.1f} %", rate]


def hosts_text(event: ProgressEvent) -> list[str]:
    """Return, of many hosts, how many are done, and when the first and the last of them were; nothing of one host."""
    return [f"{event.hosts_done}/{event.hosts} hosts done" + _ends(event)] if event.hosts > 1 else []


def _ends(event: ProgressEvent) -> str:
    if event.first_done_seconds is None or event.last_done_seconds is None:
        return f", slowest {plain(event.slowest_host, 40)}" if event.slowest_host else ""
    return f" (first at {format_seconds(event.first_done_seconds)}, last at {format_seconds(event.last_done_seconds)})"


class StatusLine:
    """One line on a terminal that is written over and over, and gone before anything else is written there.

    Off a terminal nothing is written. Several threads may use it.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._shown = False
        self.live = self._stream.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text: str) -> None:
        """Replace the line, cut to the width of the terminal."""
        if self.live:
            width = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[2K{plain(text, max(width - 2, 10))}", shown=True)

    def clear(self) -> None:
        """Take the line away, if there is one."""
        if self._shown:
            self._write("\r\x1b[2K", shown=False)

    def _write(self, text: str, *, shown: bool) -> None:
        with self._lock, suppress(OSError, ValueError):  # a terminal that is gone stops nothing
            self._shown = shown
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def live(*, quiet: bool) -> Iterator[Live]:
    """Give the callbacks; they draw only when stderr is a terminal and `quiet` is not set."""
    if quiet or not sys.stderr.isatty():
        yield Live(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>9}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Live(progress)
