"""Finds the settings of reading that suit the target, from what was measured: no threads, no clock, no input or output.

Whoever reads measures windows of time and asks after each what to use next. While the consumer waits for data, one
setting at a time is doubled (or halved, where doubling made it worse) and kept when throughput grew. It ends when
nothing grows any more, or when the limit is seen to lie elsewhere; and begins again when throughput has changed for
good, as when the second epoch comes out of the cache.
"""

from collections.abc import Generator
from typing import Any, Final

import msgspec

from stoker.loader.tuning_bounds import Limits, Settings, first_guess, knob_order, limits_for
from stoker.storage.api import Capabilities

GAIN_RATIO_MIN: Final = 0.05
"""A setting is kept when it brings this much more: less is noise, or not worth the memory."""
STALL_RATIO_MIN: Final = 0.02
"""A consumer that waits for less of its time than this is fed."""
CPU_RATIO_MAX: Final = 0.95
CHANGE_RATIO_MIN: Final = 0.30
CHANGED_WINDOWS: Final = 3
QUIET_WINDOWS: Final = 3
WINDOWS_MAX: Final = 48
"""Windows of one search; it ends long before unless noise leads it in circles."""
_CLEAR_GAIN: Final = 1.30
_CLEAR_LOSS: Final = 0.80
_ANOTHER_ROUND: Final = 1.10
"""A setting that brought this much may have made room for the others: they are tried once more."""
_READING_RATIO_MIN: Final = 0.10
_READERS_BUSY_MIN: Final = 0.50

GROWN: Final = "throughput stopped growing"
CPU: Final = "the client's CPU is the limit"
FED: Final = "the consumer does not wait"
ELSEWHERE: Final = "reading is not what the consumer waits for"
PINNED: Final = "nothing left to choose"
TRYING: Final = "still trying when the run ended"
SHORT: Final = "the run was too short to measure"
ENOUGH: Final = "throughput never came to rest"


class Window(msgspec.Struct, frozen=True):
    """What happened in a stretch of time.

    read_bytes, requests    what the readers got, and in how many requests
    waited_ns       how long the consumer waited for a batch
    read_busy_ns    how long the readers were reading, summed over them
    cpu_ns          CPU time of the whole process
    """

    wall_ns: int
    read_bytes: int
    requests: int
    waited_ns: int
    read_busy_ns: int
    cpu_ns: int


class _Sum:
    """Windows with the same settings, seen as one."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.wall_ns = self.read_bytes = self.requests = self.read_busy_ns = self.cpu_ns = 0

    def add(self, window: Window) -> None:
        self.rates.append(_rate(window))
        self.wall_ns += window.wall_ns
        self.read_bytes += window.read_bytes
        self.requests += window.requests
        self.read_busy_ns += window.read_busy_ns
        self.cpu_ns += window.cpu_ns

    @property
    def rate(self) -> float:
        """Return the median of the (one or two) windows, in bytes per second."""
        return sum(self.rates) / len(self.rates)


Search = Generator[Settings, Window, str]
Measure = Generator[Settings, Window, _Sum]


class Tuner:
    """Chooses settings within limits. Ask `observe` after each window; keep to `settings` meanwhile.

    settings    those to use now
    """

    def __init__(self, limits: Limits, start: Settings, *, order: tuple[str, ...], cpus: float) -> None:
        assert limits.holds(start)
        assert cpus > 0
        self.settings = self._start = self._best = start
        self._limits, self._cpus = limits, cpus
        self._knobs = tuple(knob for knob in order if getattr(limits.low, knob) < getattr(limits.high, knob))
        self._why = SHORT if self._knobs else PINNED
        self._windows = self._quiet = self._changed = self._searches = 0
        self._rate = 0.0
        self._seen = _Sum()
        self._search: Search | None = None

    @property
    def readers_max(self) -> int:
        """Return the most readers there can ever be."""
        return self._limits.high.readers

    @property
    def settled(self) -> bool:
        """Tell whether nothing is being tried, and something is known: the settings stay until the target changes."""
        return self._search is None and self._why != SHORT

    def observe(self, window: Window) -> Settings:
        """Return the settings to use next, after a window in which `settings` were used."""
        if window.wall_ns <= 0 or window.read_bytes <= 0:
            return self.settings  # between epochs: nothing to learn
        self._windows += 1
        if not self._knobs:
            return self.settings
        if window.waited_ns < STALL_RATIO_MIN * window.wall_ns:
            self._hold()
            return self.settings
        self._quiet = 0
        if self._search is not None:
            self._go_on(self._search, window)
        elif self._why == SHORT or self._changed_for_good(window):
            self._begin(window)
        return self.settings

    def told(self, *, engine: str = "") -> dict[str, Any]:
        """Return what was chosen and why, as JSON-ready data for results.

        `engine` is what moves the bytes; empty where each reader has one ordinary read under way.
        """
        return {
            "engine": engine,
            "start": msgspec.structs.asdict(self._start),
            "chosen": msgspec.structs.asdict(self.settings),
            "pinned": list(self._limits.pinned),
            "why": self._why,
            "settled": self.settled,
            "windows": self._windows,
            "searches": self._searches,
        }

    def _hold(self) -> None:
        """The consumer is fed: what is in use, tried or not, is good enough."""
        self._quiet += 1
        self._changed = 0
        if self._quiet >= QUIET_WINDOWS and (self._search is not None or self._why == SHORT):
            self._search, self._best, self._why = None, self.settings, FED

    def _changed_for_good(self, window: Window) -> bool:
        """Tell whether the consumer has waited for several windows, at another throughput than was settled on."""
        other = self._why == FED or abs(_rate(window) - self._rate) > CHANGE_RATIO_MIN * self._rate
        self._changed = self._changed + 1 if other else 0
        return self._changed >= CHANGED_WINDOWS

    def _begin(self, window: Window) -> None:
        """Begin a search at the settings in use; this window, in which they were used, is its first."""
        self._changed = 0
        self._searches += 1
        self._why = TRYING
        self._search = search = self._climb()
        next(search)
        self._go_on(search, window)

    def _go_on(self, search: Search, window: Window) -> None:
        try:
            self.settings = search.send(window)
        except StopIteration as end:
            self.settings, self._why, self._search = self._best, end.value, None
        assert self._limits.holds(self.settings)

    def _climb(self) -> Search:
        """Try one setting after the other, from the best known; return why there is nothing more to try."""
        first_window = self._windows
        self._seen = yield from self._measure(self._best, clear=False)
        self._rate = self._seen.rate
        if self._seen.read_busy_ns < _READING_RATIO_MIN * self._seen.wall_ns:
            return ELSEWHERE
        turn = fruitless = 0
        while fruitless < len(self._knobs) and not self._cpu_bound():
            if self._windows - first_window > WINDOWS_MAX:
                return ENOUGH
            before = self._rate
            yield from self._climb_knob(self._knobs[turn % len(self._knobs)])
            turn += 1
            fruitless = 1 if self._rate > before * _ANOTHER_ROUND else fruitless + 1
        return CPU if self._cpu_bound() else GROWN

    def _climb_knob(self, knob: str) -> Generator[Settings, Window, None]:
        """Double a setting as long as it brings something; halve it where doubling made it worse."""
        go_down = True
        for up in (True, False):
            gained = False
            while (trial := self._limits.step(self._best, knob, up=up)) is not None:
                if self._cpu_bound() or not self._matters(knob, trial, up=up):
                    return
                seen = yield from self._measure(trial, clear=True)
                if seen.rate < self._rate * (1 + GAIN_RATIO_MIN):
                    go_down = seen.rate < self._rate * (1 - GAIN_RATIO_MIN)
                    break
                self._best, self._seen, self._rate, gained = trial, seen, seen.rate, True
            if gained or not go_down:
                return

    def _measure(self, settings: Settings, *, clear: bool) -> Measure:
        """Use settings for two windows, or one if its outcome is `clear` of all noise."""
        seen = _Sum()
        seen.add((yield settings))
        if not (clear and not _CLEAR_LOSS < seen.rate / self._rate < _CLEAR_GAIN):
            seen.add((yield settings))
        return seen

    def _cpu_bound(self) -> bool:
        return self._seen.cpu_ns >= CPU_RATIO_MAX * self._cpus * self._seen.wall_ns

    def _matters(self, knob: str, trial: Settings, *, up: bool) -> bool:
        """Tell whether the change can have an effect at all, from what was seen with the best settings."""
        seen, best = self._seen, self._best
        if knob == "readers" and up:
            return seen.read_busy_ns >= _READERS_BUSY_MIN * best.readers * seen.wall_ns
        if knob == "request_bytes":
            mean_bytes = seen.read_bytes / max(seen.requests, 1)
            return mean_bytes > (best.request_bytes / 2 if up else trial.request_bytes)
        return True


def tuner_for(
    capabilities: Capabilities, *, cpus: int, sample_bytes: int, pinned: Settings, queues: bool = True
) -> Tuner:
    """Return a tuner for a store. The arguments and what is raised: see `limits_for`."""
    limits = limits_for(capabilities, cpus, sample_bytes, pinned, queues=queues)
    return Tuner(limits, first_guess(capabilities, cpus, limits), order=knob_order(capabilities), cpus=cpus)


def _rate(window: Window) -> float:
    """Return bytes per second."""
    return window.read_bytes * 1e9 / window.wall_ns
