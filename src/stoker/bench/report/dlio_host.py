"""What DLIO's files tell about the hosts, taken from a saved result."""

import math
from typing import Any, Final

import msgspec

from stoker.core.result import Result

GIB: Final = 1 << 30


class HostFacts(msgspec.Struct, frozen=True):
    """The hosts in the order of their first rank, and the machine that was looked at, which stands for all of them.

    `cpuinfo` and `meminfo` are what the result holds of the kernel's files of that name, in their words.
    """

    hosts: tuple[str, ...]
    cpu_count: int
    memory_bytes: int
    processor: str
    cpuinfo: dict[str, str]
    meminfo: dict[str, str]

    @property
    def memory_gib(self) -> float:
        """Return the memory of a host in GiB, which DLIO labels GB."""
        return self.memory_bytes / GIB


def host_facts(result: Result) -> HostFacts:
    """Return the facts; what the result does not hold is 0 or empty."""
    machine = result.machine
    hosts = tuple(dict.fromkeys(rank.host for rank in result.ranks if rank.host))
    name = str(machine.get("host", ""))
    memory_bytes, processor = _whole(machine, "memory_bytes"), str(machine.get("cpu_model", ""))
    return HostFacts(
        hosts=hosts or ((name,) if name else ("",)),
        cpu_count=_whole(machine, "cpu_count"),
        memory_bytes=memory_bytes,
        processor=processor,
        cpuinfo={"model name": processor} if processor else {},
        meminfo={"MemTotal": f"{memory_bytes // 1024} kB"} if memory_bytes else {},
    )


def data_gib_per_host(result: Result, facts: HostFacts) -> float:
    """Return the nominal training data that one host reads in an epoch, in GiB."""
    plan = result.plan
    ranks_per_host = math.ceil(plan.ranks / len(facts.hosts))
    samples = ranks_per_host * plan.dataset.samples // plan.ranks
    return samples * plan.dataset.record_length_bytes / GIB


def may_be_cached(result: Result, facts: HostFacts) -> int:
    """Return 1 when a host's data fit into its memory, 0 when they do not or the memory is unknown."""
    return int(0 < data_gib_per_host(result, facts) < facts.memory_gib)


def _whole(machine: dict[str, Any], name: str) -> int:
    value = machine.get(name, 0)
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0
