"""How a server's health follows from its signs of life: pure functions of what is known, the time, and what happened.

A sign each second; silent for 3 s it is suspect, for 10 s down, and 10 minutes later it is given up, so that what it
held is rebuilt elsewhere. Who stops on purpose is in maintenance for half an hour. Who comes back from being down must
answer for a while before it counts: twice as long with each time that it went, so that one that flaps does no harm.
Nobody is given up while most servers are silent: then it is rather the watcher that is cut off.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from stoker.fs.place.map import Health

SECOND_NS: Final = 1_000_000_000


class Limits(msgspec.Struct, frozen=True):
    """After how long a silence something is concluded, in nanoseconds.

    suspect_ns, down_ns     of silence
    out_ns                  of being down until it is given up
    maintenance_ns          that a server which stopped on purpose may stay away before it counts as down
    hold_ns, hold_max_ns    how long one that was down must answer before it is up: the first time, and at most
    calm_ns                 of being up after which earlier failures are forgotten
    silent_share_max        with a greater share of all servers silent none is given up
    """

    suspect_ns: int = 3 * SECOND_NS
    down_ns: int = 10 * SECOND_NS
    out_ns: int = 600 * SECOND_NS
    maintenance_ns: int = 1800 * SECOND_NS
    hold_ns: int = 1 * SECOND_NS
    hold_max_ns: int = 300 * SECOND_NS
    calm_ns: int = 600 * SECOND_NS
    silent_share_max: float = 0.5


class Watched(msgspec.Struct, frozen=True):
    """What is known of one server: its health, since when, and when it was last heard.

    `failures` counts how often it went down of late; `steady_ns` is since when it answers again, 0 while it does not.
    """

    health: Health = "up"
    since_ns: int = 0
    heard_ns: int = 0
    failures: int = 0
    steady_ns: int = 0


Event = Literal["heard", "tick", "stopping", "dead"]
"""A sign of life came; time passed; it said that it stops on purpose; it reported that its disk is beyond help."""


class Changed(msgspec.Struct, frozen=True):
    """What a watcher must write into the map. `rebuild`: what the server held must be rebuilt elsewhere."""

    was: Health
    health: Health
    rebuild: bool = False


def step(
    seen: Watched, now_ns: int, event: Event, limits: Limits, *, may_give_up: bool = True
) -> tuple[Watched, tuple[Changed, ...]]:  # fmt: skip
    """Return what is known after an event, and what changed by it. A clock that went back counts as standing still."""
    now_ns = max(now_ns, seen.heard_ns, seen.since_ns)
    after = seen
    if event == "heard":
        after = _heard(seen, now_ns, limits)
    elif event == "stopping":
        after = _turned(seen, "maintenance", now_ns)
    elif event == "dead":
        after = _turned(seen, "out", now_ns)
    else:
        while (later := _silent(after, now_ns, limits, may_give_up)) is not after:
            after = later
    if after.health == seen.health:
        return after, ()
    return after, (Changed(seen.health, after.health, rebuild=after.health == "out"),)


def _turned(seen: Watched, health: Health, now_ns: int) -> Watched:
    return msgspec.structs.replace(seen, health=health, since_ns=now_ns, steady_ns=0)


def _heard(seen: Watched, now_ns: int, limits: Limits) -> Watched:
    silent_ns = now_ns - seen.heard_ns
    seen = msgspec.structs.replace(seen, heard_ns=now_ns)
    if seen.health == "up":
        calm = seen.failures and now_ns - seen.since_ns >= limits.calm_ns
        return msgspec.structs.replace(seen, failures=0, since_ns=now_ns) if calm else seen
    if seen.health in ("suspect", "maintenance"):
        return _turned(seen, "up", now_ns)
    # It was down, or given up: it must answer for a while without a pause.
    if not seen.steady_ns or silent_ns >= limits.suspect_ns:
        return msgspec.structs.replace(seen, steady_ns=now_ns)
    hold_ns = min(limits.hold_ns << min(max(seen.failures - 1, 0), 32), limits.hold_max_ns)
    return _turned(seen, "up", now_ns) if now_ns - seen.steady_ns >= hold_ns else seen


def _silent(seen: Watched, now_ns: int, limits: Limits, may_give_up: bool) -> Watched:
    silent_ns = now_ns - seen.heard_ns
    if seen.health == "up" and silent_ns >= limits.suspect_ns:
        return _turned(seen, "suspect", seen.heard_ns + limits.suspect_ns)
    if seen.health == "suspect" and silent_ns >= limits.down_ns:
        return _down(seen, seen.heard_ns + limits.down_ns)
    if seen.health == "maintenance" and now_ns - seen.since_ns >= limits.maintenance_ns:
        return _down(seen, seen.since_ns + limits.maintenance_ns)
    if seen.health != "down":
        return seen
    if seen.steady_ns and silent_ns >= limits.suspect_ns:
        seen = msgspec.structs.replace(seen, steady_ns=0)
    if may_give_up and not seen.steady_ns and now_ns - seen.since_ns >= limits.out_ns:
        return _turned(seen, "out", now_ns)
    return seen


def _down(seen: Watched, when_ns: int) -> Watched:
    return msgspec.structs.replace(_turned(seen, "down", when_ns), failures=seen.failures + 1)


def taken_over(seen: Watched, now_ns: int) -> Watched:
    """Return what a new watcher knows of a server: the silence before its time is its own, not the server's."""
    since_ns = now_ns if seen.health in ("down", "maintenance") else seen.since_ns
    return msgspec.structs.replace(seen, heard_ns=now_ns, since_ns=since_ns, steady_ns=0)


def may_give_up(watched: Iterable[Watched], now_ns: int, limits: Limits) -> bool:
    """Tell whether servers may be given up: not while most are silent."""
    silent = [now_ns - one.heard_ns >= limits.suspect_ns for one in watched if one.health not in ("maintenance", "out")]
    return not silent or sum(silent) <= limits.silent_share_max * len(silent)


def tick_all(
    watched: Mapping[int, Watched], now_ns: int, limits: Limits
) -> tuple[dict[int, Watched], dict[int, tuple[Changed, ...]]]:  # fmt: skip
    """Let time pass for all servers; return what is known then, and what changed, by server."""
    allowed = may_give_up(watched.values(), now_ns, limits)
    after, changes = {}, {}
    for number, seen in watched.items():
        after[number], changed = step(seen, now_ns, "tick", limits, may_give_up=allowed)
        if changed:
            changes[number] = changed
    return after, changes
