"""Hosts as people name them: `a:2,b:2`, `[::1]:4`, `10.0.0.1`; and how many ranks each gets. Pure."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import UsageError

HOSTS_MAX: Final = 1 << 16
SLOTS_MAX: Final = 1 << 16
_HOST: Final = re.compile(
    r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9.-]+)?)\](?::(\d{1,6}))?|([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?)(?::(\d{1,6}))?"
)
_BARE_IPV6: Final = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
EXPECTED: Final = "names or addresses with a comma between, each with a number of ranks or none: a:2,b:2"


class Host(msgspec.Struct, frozen=True):
    """A host and the ranks it takes, 0 where none were told."""

    name: str
    slots: int = 0


def parse_hosts(words: str | Sequence[str]) -> tuple[Host, ...]:
    """Return the hosts of a list with commas or blanks between. An IPv6 address with slots stands in brackets.

    Raises UsageError for an empty list, a name no host can have, slots of 0, and a host that is named twice.
    """
    text = words if isinstance(words, str) else ",".join(words)
    hosts = tuple(_host(word) for word in re.split(r"[,\s]+", text.strip()) if word)
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise UsageError("--hosts: bad list", expected=EXPECTED, got=f"{len(hosts)} hosts")
    names = [host.name for host in hosts]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise UsageError("--hosts: named twice", where=twice, remedy=f"give it its ranks at once: {twice}:4")
    return hosts


def _host(word: str) -> Host:
    if _BARE_IPV6.fullmatch(word):
        return Host(word)
    match = _HOST.fullmatch(word)
    if match is None:
        raise UsageError("--hosts: not a host", where=word, expected=EXPECTED)
    slots = match[2] or match[4]
    if slots is not None and not 1 <= int(slots) <= SLOTS_MAX:
        raise UsageError("--hosts: bad number of ranks", where=word, expected=f"1 to {SLOTS_MAX}")
    return Host(match[1] or match[3], int(slots or 0))


def spread(hosts: Sequence[Host], ranks: int) -> tuple[Host, ...]:
    """Return the hosts with their ranks: as told, or evenly, one more on the first ones where it does not come out.

    Hosts that get none are left out. Raises UsageError when only some have slots, or the slots do not hold the ranks.
    """
    told = sum(host.slots for host in hosts)
    if told and any(not host.slots for host in hosts):
        raise UsageError("--hosts: ranks are told for some hosts only", expected="for all or for none")
    if not told:
        whole, more = divmod(ranks, len(hosts))
        dealt = (Host(host.name, whole + (place < more)) for place, host in enumerate(hosts))
        return tuple(host for host in dealt if host.slots)
    if told < ranks:
        raise UsageError("--hosts hold fewer ranks than accelerators", expected=f"at least {ranks}", got=f"{told}")
    return _fill(hosts, ranks)


def _fill(hosts: Sequence[Host], ranks: int) -> tuple[Host, ...]:
    filled, left = [], ranks
    for host in hosts:
        filled.append(Host(host.name, min(host.slots, left)))
        left -= filled[-1].slots
    return tuple(host for host in filled if host.slots)
