"""How far apart two clocks are, from questions and answers over a wire. Pure but for the asking.

A question leaves at `sent`, the other side reads its clock, the answer is back at `back`; the other clock was read
somewhere between, most likely in the middle. The probe with the shortest way there and back tells most.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from stoker.core import clock
from stoker.core.host_series import ClockOffset

PROBES: Final = 8


class Probe(NamedTuple):
    """One question: our clock before and after, the other's in between; nanoseconds since 1970."""

    sent_ns: int
    theirs_ns: int
    back_ns: int


def offset_of(probes: Sequence[Probe], *, resolution_ns: int = 0) -> ClockOffset | None:
    """Return how far the other clock is ahead; None without a probe.

    The error is half of the shortest way there and back, and the resolution of the other clock on top.
    """
    good = [probe for probe in probes if probe.back_ns >= probe.sent_ns]
    if not good:
        return None
    best = min(good, key=lambda probe: probe.back_ns - probe.sent_ns)
    middle_ns = (best.sent_ns + best.back_ns) // 2
    error_ns = (best.back_ns - best.sent_ns + 1) // 2 + resolution_ns
    return ClockOffset((best.theirs_ns - middle_ns) / 1e9, error_ns / 1e9, len(good))


def probe(ask: Callable[[], int], *, now_ns: Callable[[], int] = clock.wall_ns, times: int = PROBES) -> list[Probe]:
    """Ask the other side for its clock several times."""
    probes = []
    for _ in range(times):
        sent_ns = now_ns()
        theirs_ns = ask()
        probes.append(Probe(sent_ns, theirs_ns, now_ns()))
    return probes
