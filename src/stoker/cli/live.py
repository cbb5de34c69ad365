"""Live progress on stderr: a bar on a terminal, nothing off it, nothing when asked to be quiet."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stoker.bench.report.text import plain
from stoker.bench.run.conduct import ProgressEvent
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


def run_text(event: ProgressEvent) -> str:
    """Return how far a run is: step, utilisation, rate, share and time left, and of many hosts which are done."""
    if event.phase in ("save", "load"):
        words = [f"{event.step}/{event.steps}", format_rate(event.bytes_per_second)]
        return ", ".join(words + _left(event))
    words = [f"epoch {event.epoch} step {event.step}/{event.steps}", f"AU {100 * event.au_ratio:.1f} %"]
    words.append(format_rate(event.bytes_per_second))
    return ", ".join(words + _left(event))


def _left(event: ProgressEvent) -> list[str]:
    """Return the share and the time left, and of many hosts which are done."""
    words = []
    if event.done_ratio is not None and event.left_seconds is not None:
        words.append(f"{100 * event.done_ratio:.0f} %, {format_seconds(event.left_seconds)} left")
    if event.hosts > 1:
        words.append(f"{event.hosts_done}/{event.hosts} hosts done" + _ends(event))
    return words


def _ends(event: ProgressEvent) -> str:
    if event.first_done_seconds is None or event.last_done_seconds is None:
        return f", slowest {plain(event.slowest_host, 40)}" if event.slowest_host else ""
    return f" (first at {format_seconds(event.first_done_seconds)}, last at {format_seconds(event.last_done_seconds)})"


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
