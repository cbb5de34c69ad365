"""How far a run is, as whoever watches it gets to know."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

GENERATE: Final = "generate"


class ProgressEvent(msgspec.Struct, frozen=True):
    """How far the run is. `limit_seconds` is how long it will last: told by the plan or foreseen, 0.0 when unknown.

    Of the `hosts` so many have ended, the first and the last of them so many seconds after the start; `slowest_host` is
    where the rank is that is least far.
    """

    phase: str
    epoch: int
    step: int
    steps: int
    au_ratio: float
    bytes_per_second: float
    elapsed_seconds: float
    limit_seconds: float
    hosts: int = 1
    hosts_done: int = 0
    first_done_seconds: float | None = None
    last_done_seconds: float | None = None
    slowest_host: str = ""

    @property
    def done_ratio(self) -> float | None:
        """Return how much of the run is done, None when that is unknown."""
        return min(1.0, self.elapsed_seconds / self.limit_seconds) if self.limit_seconds > 0 else None

    @property
    def left_seconds(self) -> float | None:
        """Return how long it will still last, None when that is unknown."""
        return max(0.0, self.limit_seconds - self.elapsed_seconds) if self.limit_seconds > 0 else None


def generation_event(
    files_done: int,
    files_total: int,
    *,
    bytes_per_second: float,
    elapsed_seconds: float,
    left_seconds: float | None,
    **hosts: Any,
) -> ProgressEvent:
    """Return how far a dataset is: steps are files. `hosts` are the fields about hosts."""
    return ProgressEvent(
        phase=GENERATE,
        epoch=0,
        step=files_done,
        steps=files_total,
        au_ratio=0.0,
        bytes_per_second=bytes_per_second,
        elapsed_seconds=elapsed_seconds,
        limit_seconds=elapsed_seconds + left_seconds if left_seconds is not None else 0.0,
        **hosts,
    )


OnProgress = Callable[[ProgressEvent], None]
