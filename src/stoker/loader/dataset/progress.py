"""How far a long piece of work is."""

from collections.abc import Callable

import msgspec

from stoker.core.clock import monotonic_ns

_PAUSE_NS = 500_000_000


class Progress(msgspec.Struct, frozen=True):
    """A moment of the work. `phase` is `make` or `verify`; what was there before counts as done.

    `bytes_total` is estimated from what is done so far; `bytes_worked` are those of this call alone.
    """

    phase: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    bytes_worked: int
    elapsed_seconds: float

    @property
    def bytes_per_second(self) -> float:
        """Return the mean rate of this call."""
        return self.bytes_worked / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Return the time left at this rate, None before there is one."""
        rate = self.bytes_per_second
        return max(0, self.bytes_total - self.bytes_done) / rate if rate > 0 else None


OnProgress = Callable[[Progress], None]


class Meter:
    """Counts, and tells `on_progress` twice a second at most.

    `bytes_total` is what is expected before anything is done; unless it is `exact`, the mean of the files that are
    done takes its place.
    """

    def __init__(self, phase: str, files_total: int, bytes_total: int, on_progress: OnProgress | None) -> None:
        self.exact = False
        self.worked_bytes = 0
        self._phase = phase
        self._files_total = files_total
        self._bytes_total = bytes_total
        self._on_progress = on_progress
        self._files_done = 0
        self._done_bytes = 0
        self._start_ns = monotonic_ns()
        self._told_ns = self._start_ns - _PAUSE_NS

    def add(self, got_bytes: int, *, files: int = 1, worked: bool = True) -> None:
        """Count finished files; `worked` is false for what was there before."""
        self._files_done += files
        self._done_bytes += got_bytes
        self.worked_bytes += got_bytes if worked else 0

    def tick(self, *, now: bool = False) -> None:
        """Tell the progress when it is time, or `now`."""
        moment_ns = monotonic_ns()
        if self._on_progress is not None and (now or moment_ns - self._told_ns >= _PAUSE_NS):
            self._told_ns = moment_ns
            self._on_progress(self.progress())

    def progress(self) -> Progress:
        """Return where the work stands."""
        total = self._bytes_total
        if self._files_done and not self.exact:
            total = round(self._done_bytes / self._files_done * self._files_total)
        elapsed_seconds = (monotonic_ns() - self._start_ns) / 1e9
        return Progress(
            self._phase,
            self._files_done,
            self._files_total,
            self._done_bytes,
            max(total, self._done_bytes),
            self.worked_bytes,
            elapsed_seconds,
        )
