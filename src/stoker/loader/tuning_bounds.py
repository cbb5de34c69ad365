"""What reading can be set to, how far, and where to begin: pure functions of what the store says of itself."""

from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.core.units import GiB, KiB, MiB, format_bytes
from stoker.storage.api import Capabilities

READERS_MAX: Final = 64
READERS_ROOM: Final = 8
"""Readers that may be tried on however few CPUs: they mostly wait."""
QUEUE_DEPTH_MAX: Final = 1024
REQUEST_BYTES_LEAST: Final = 64 * KiB
REQUEST_BYTES_MOST: Final = 16 * MiB
REQUEST_UNIT_BYTES: Final = 4 * KiB
"""Requests are multiples of it: read engines split at blocks and pages."""
PINNED_MOST: Final = {"readers": 1024, "queue_depth": 4096, "request_bytes": GiB}
"""What may be pinned, where choosing goes less far."""
_DEPTH_FACTOR: Final = 32
_QUEUED_MODES: Final = ("direct", "network")
"""Modes whose every read waits for something far away: many at once is what helps them first."""


class Settings(msgspec.Struct, frozen=True):
    """How a rank reads: threads, requests under way in each, and the most bytes of a request.

    Where something is pinned, 0 says: not this one.
    """

    readers: int = 0
    queue_depth: int = 0
    request_bytes: int = 0


KNOBS: Final = Settings.__struct_fields__


class Limits(msgspec.Struct, frozen=True):
    """The least and the most of each setting, inclusive. `pinned` names those that the user decided: low is high."""

    low: Settings
    high: Settings
    pinned: tuple[str, ...] = ()

    def holds(self, settings: Settings) -> bool:
        """Tell whether all settings lie within."""
        low, high = msgspec.structs.astuple(self.low), msgspec.structs.astuple(self.high)
        values = msgspec.structs.astuple(settings)
        return all(least <= value <= most for least, value, most in zip(low, values, high, strict=True))

    def step(self, settings: Settings, knob: str, *, up: bool) -> Settings | None:
        """Return the settings with one doubled or halved within the limits, None when it stands at its limit."""
        value, least, most = getattr(settings, knob), getattr(self.low, knob), getattr(self.high, knob)
        moved = min(value * 2, most) if up else max(value // 2, least)
        return None if moved == value else msgspec.structs.replace(settings, **{knob: moved})


def limits_for(
    capabilities: Capabilities, cpus: int, sample_bytes: int, pinned: Settings, *, queues: bool = True
) -> Limits:
    """Return how far the settings may go for this store.

    `cpus` are this rank's. `sample_bytes` is the size of what is read as one, 0 when unknown: no request is larger.
    `queues` tells that a reader keeps several requests under way; where it does not, each has one, whole.
    Raises UsageError for a pinned value that cannot be, or that would have no effect here.
    """
    _check(capabilities, pinned, queues=queues)
    request_most = _request_bytes_most(capabilities, sample_bytes)
    low = Settings(1, 1, min(REQUEST_BYTES_LEAST, request_most))
    if queues:
        depth_most = min(_DEPTH_FACTOR * max(capabilities.in_flight, 1), QUEUE_DEPTH_MAX)
        high = Settings(min(max(2 * cpus, READERS_ROOM), READERS_MAX), depth_most, request_most)
    else:
        low = msgspec.structs.replace(low, request_bytes=request_most)
        high = Settings(min(max(2 * cpus, 4 * capabilities.in_flight), READERS_MAX), 1, request_most)
    chosen = {knob: getattr(pinned, knob) for knob in KNOBS if getattr(pinned, knob)}
    replace = msgspec.structs.replace
    return Limits(replace(low, **chosen), replace(high, **chosen), pinned=tuple(chosen))


def first_guess(capabilities: Capabilities, cpus: int, limits: Limits) -> Settings:
    """Return where to begin: deep queues for what is far away, a few readers for what may lie in memory."""
    far = capabilities.io_mode in _QUEUED_MODES
    depth = capabilities.in_flight if far else max(capabilities.in_flight // 2, 1)
    readers = min(cpus, 2 if far else 4)
    if limits.high.queue_depth == 1 and far:
        readers = capabilities.in_flight // 4  # without queues threads alone keep requests under way
    request = 8 * MiB if capabilities.io_mode == "network" else MiB
    guess = (readers, depth, request)
    return Settings(*(_within(limits, knob, value) for knob, value in zip(KNOBS, guess, strict=True)))


def knob_order(capabilities: Capabilities) -> tuple[str, ...]:
    """Return which setting to try first, second and last."""
    if capabilities.io_mode in _QUEUED_MODES:
        return ("queue_depth", "readers", "request_bytes")
    return ("readers", "queue_depth", "request_bytes")


def _within(limits: Limits, knob: str, value: int) -> int:
    least: int = getattr(limits.low, knob)
    most: int = getattr(limits.high, knob)
    return max(least, min(value, most))


def _request_bytes_most(capabilities: Capabilities, sample_bytes: int) -> int:
    """Return the power of two that holds what is read as one, aligned, within what is sensible at all."""
    wanted = sample_bytes if sample_bytes > 0 else REQUEST_BYTES_MOST
    wanted = max(wanted, capabilities.alignment_bytes, REQUEST_UNIT_BYTES)
    return min(1 << (wanted - 1).bit_length(), REQUEST_BYTES_MOST)


def _check(capabilities: Capabilities, pinned: Settings, *, queues: bool) -> None:
    for knob, most in PINNED_MOST.items():
        if not 0 <= getattr(pinned, knob) <= most:
            raise UsageError(f"{knob} is out of range", expected=f"0 to {most}", got=str(getattr(pinned, knob)))
    if not queues and (pinned.queue_depth > 1 or pinned.request_bytes):
        raise UsageError(
            "queue depth and request size cannot be set here",
            expected="a store whose readers keep several requests under way",
            got=f"a store that reads one range at a time ({capabilities.io_mode})",
            remedy="leave both at 0 and set the reader threads",
        )
    unit_bytes = max(capabilities.alignment_bytes, REQUEST_UNIT_BYTES)
    if pinned.request_bytes % unit_bytes:
        raise UsageError(
            "request size does not fit the target",
            expected=f"a multiple of {format_bytes(unit_bytes)}",
            got=f"{pinned.request_bytes} bytes",
        )
