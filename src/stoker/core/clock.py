"""The only doors to time: durations from the monotonic clock, dates from the wall clock.

A stepped wall clock never changes a duration; `WallCheck` tells by how much it moved.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

_REALTIME_COARSE = 5  # Linux's CLOCK_REALTIME_COARSE, which Python does not name
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
monotonic_ns = time.perf_counter_ns
sleep = time.sleep


def wall_seconds() -> float:
    """Return the wall-clock time in seconds since the epoch."""
    return time.time()


def wall_ns() -> int:
    """Return nanoseconds since the epoch: for records that must be ordered within a second."""
    return time.time_ns()


def wall_tick_ns() -> int:
    """Return the same as of the kernel's last tick, up to 4 ms ago: for what happens a million times a second."""
    return time.clock_gettime_ns(_REALTIME_COARSE)


def utc_text(seconds: float | None = None) -> str:
    """Return an ISO 8601 UTC time with microseconds, `2026-01-31T12:00:00.000000Z`; now when not told."""
    moment = datetime.fromtimestamp(wall_seconds() if seconds is None else seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def local_text(form: str) -> str:
    """Return the time now in this host's zone, in a form of `strftime`."""
    return time.strftime(form, time.localtime(wall_seconds()))


def utc_text_of_ns(time_ns: int) -> str:
    """Return nanoseconds since 1970 as an ISO 8601 UTC time that loses none of them."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def ns_of_utc(text: str) -> int:
    """Return the nanoseconds since 1970 of an ISO 8601 time: UTC unless it tells an offset, midnight unless it tells
    the hour. Raises ValueError for other text."""
    found = _ISO_TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"not a time: {text!r}")
    day, hour, fraction, zone = found.groups(default="")
    moment = datetime.fromisoformat(f"{day}T{hour or '00:00'}{(zone or 'Z').replace('Z', '+00:00')}")
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(seconds=1) * 1_000_000_000 + int(
        fraction.ljust(9, "0")
    )


@dataclass(frozen=True, slots=True)
class WallCheck:
    """Holds the wall clock against the monotonic one over a run."""

    wall_start_seconds: float = field(default_factory=wall_seconds)
    monotonic_start_ns: int = field(default_factory=monotonic_ns)

    def step_seconds(self) -> float:
        """Return how far the wall clock was stepped since the start; about 0 when it was left alone."""
        elapsed_seconds = (monotonic_ns() - self.monotonic_start_ns) / 1e9
        return wall_seconds() - self.wall_start_seconds - elapsed_seconds
