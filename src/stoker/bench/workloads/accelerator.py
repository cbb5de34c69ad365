"""The emulated accelerator: it computes by sleeping, exactly as long as it was drawn to.

A plain sleep ends 50 to 100 µs late, which is a quarter of the shortest step there is (0.375 ms). So the sleep ends
early by as much as sleeps are late here, learnt from the sleeps themselves, and the rest is spun, 100 µs at most.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.core.plan import Spread
from stoker.core.seed import derive

SPIN_NS_MAX: Final = 100_000
_BLOCK_STEPS: Final = 256
_LEARNING_RATE: Final = 0.1
_SLICE_SECONDS: Final = 3600.0


class Accelerator:
    """One rank's accelerator. The seconds of a step depend on seed, rank, epoch and step alone. Not thread-safe."""

    def __init__(self, computation: Spread, *, seed: int, rank: int) -> None:
        """Raises UsageError for a spread that cannot be drawn from."""
        self._spread = computation
        self._seed = seed
        self._rank = rank
        self._block: tuple[int, int] = (-1, -1)
        self._drawn_ns: NDArray[np.int64] = np.zeros(_BLOCK_STEPS, np.int64)
        self._late_ns = SPIN_NS_MAX / 2
        self.seconds(0, 0)

    def seconds(self, epoch: int, step: int) -> float:
        """Return how long the step computes."""
        return self._planned_ns(epoch, step) / 1e9

    def _planned_ns(self, epoch: int, step: int) -> int:
        block = (epoch, step // _BLOCK_STEPS)
        if block != self._block:
            seed = derive(self._seed, "compute", self._rank, *block)
            drawn = draw_seconds(self._spread, np.random.default_rng(seed), _BLOCK_STEPS)
            self._drawn_ns = np.rint(drawn * 1e9).astype(np.int64)
            self._block = block
        return int(self._drawn_ns[step % _BLOCK_STEPS])

    def compute(self, epoch: int, step: int) -> tuple[int, int]:
        """Compute the step; return when it began and when it was done, in monotonic nanoseconds.

        Done is the drawn time after the beginning: should this process wake later, the accelerator had been idle by
        then, and the time is the harness's, not compute.
        """
        start_ns = clock.monotonic_ns()
        done_ns = start_ns + self._planned_ns(epoch, step)
        self._sleep_until(done_ns)
        return start_ns, done_ns

    def _sleep_until(self, deadline_ns: int) -> None:
        left_ns = deadline_ns - clock.monotonic_ns()
        margin_ns = min(self._late_ns, SPIN_NS_MAX)
        while left_ns > margin_ns:
            seconds = min((left_ns - margin_ns) / 1e9, _SLICE_SECONDS)
            before_ns = clock.monotonic_ns()
            clock.sleep(seconds)
            late_ns = clock.monotonic_ns() - before_ns - seconds * 1e9
            # One very late wake-up tells of a busy machine, not of the timer: it may not raise the margin beyond use.
            self._late_ns += _LEARNING_RATE * (min(late_ns, 2 * SPIN_NS_MAX) - self._late_ns)
            left_ns = deadline_ns - clock.monotonic_ns()
        while clock.monotonic_ns() < deadline_ns:
            pass


def draw_seconds(spread: Spread, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return `count` durations in seconds, the absolute value of each draw (as DLIO does).

    Raises UsageError for an unknown kind, or parameters that are missing or cannot be.
    """
    p = spread.parameters
    kinds: dict[str, Callable[[], NDArray[np.float64]]] = {
        "constant": lambda: np.full(count, float(p["value"])),
        "normal": lambda: generator.normal(p["mean"], p["stdev"], count),
        "uniform": lambda: generator.uniform(p["min"], p["max"], count),
        "gamma": lambda: generator.gamma(p["shape"], p["scale"], count),
        "exponential": lambda: generator.exponential(p["scale"], count),
        "poisson": lambda: generator.poisson(p["lam"], count).astype(np.float64),
    }
    if spread.kind not in kinds:
        raise UsageError("unknown kind of duration", where=spread.kind, expected=" or ".join(kinds))
    try:
        drawn = np.abs(kinds[spread.kind]())
    except (KeyError, ValueError) as error:
        raise UsageError(f"duration of kind {spread.kind} cannot be drawn", got=f"{p}", expected=str(error)) from error
    if not np.isfinite(drawn).all() or drawn.max(initial=0.0) > _SLICE_SECONDS * 24:
        raise UsageError("duration of a step is out of range", got=f"{p}", expected="0 seconds to a day")
    return drawn
