"""How many clients of a KV cache there are, and on how many hosts: each client is a rank."""

from typing import NamedTuple

from stoker.core.errors import UsageError


class CacheLayout(NamedTuple):
    """Clients in all, hosts, and clients of each host."""

    ranks: int
    hosts: int
    each: int


def cache_layout(hosts: int, total: int | None, each: int | None) -> CacheLayout:
    """Return the layout: `total` clients, `each` on every host, both where they agree, else one a host.

    Raises UsageError where they disagree, or the processes do not spread evenly.
    """
    if total is None:
        each = int(each or 1)
        return CacheLayout(each * hosts, hosts, each)
    if total % hosts:
        expected = f"a multiple of {hosts} hosts"
        raise UsageError("--num-processes does not spread evenly", expected=expected, got=str(total))
    if each is not None and each * hosts != total:
        raise UsageError(
            "--num-processes and --npernode disagree", expected=f"{each} x {hosts} hosts", got=f"{total} processes"
        )
    return CacheLayout(int(total), hosts, int(total) // hosts)
