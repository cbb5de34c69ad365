"""`python -m benchmarks.fleet`: the conductor's book-keeping for ten thousand ranks, with time that is only counted.

The real roll, host list, launcher words and progress of a run are driven by simulated ranks: each says hello, gives
signs of life, arrives at barriers and ends; a few die, stop or are cut off. Before that every family is sized and
foreseen for them, and the gates are decided on what all ranks saw. Prints seconds, memory and what was found.
"""

import argparse
import heapq
import json
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stoker.bench.rules.mlperf.verifier import JobFacts
from stoker.bench.run.foresee import ForeseeRequest, foresee
from stoker.bench.run.gates.deciding import shared_gate
from stoker.bench.run.gates.ranks import Look, by_host
from stoker.bench.run.gates.request import Gate
from stoker.bench.run.hosts.facts import TargetFacts
from stoker.bench.run.hosts.mpirun import Launcher, MpiOptions, command_line
from stoker.bench.run.hosts.names import Host, parse_hosts, spread
from stoker.bench.run.hosts.roll import HostDone, Roll
from stoker.bench.workloads.progress import Progress
from stoker.core.units import TiB

SECOND_NS = 10**9
DEADLINE_NS = 30 * SECOND_NS
BEAT_NS = 5 * SECOND_NS
STEPS = 20


@dataclass(frozen=True)
class Faults:
    """What goes wrong after ten steps: ranks that are killed or stopped, hosts that are cut off."""

    killed: frozenset[int] = frozenset()
    stopped: frozenset[int] = frozenset()
    cut: frozenset[str] = frozenset()


@dataclass
class Outcome:
    """What the conductor knew at the end."""

    hosts: tuple[Host, ...]
    words: list[str]
    lost: list[str] = field(default_factory=list)
    barriers: int = 0
    events: int = 0
    end_ns: int = 0
    waited_for: list[str] = field(default_factory=list)
    told: dict[int, Progress] = field(default_factory=dict)
    done: list[HostDone] = field(default_factory=list)
    slowest_host: str = ""


class Fleet:
    """Simulated ranks on simulated hosts. Deterministic by its seed; no real time passes."""

    def __init__(self, hosts: int, ranks: int, *, seed: int = 1, faults: Faults | None = None) -> None:
        named = parse_hosts(",".join(f"node-{number:04d}" for number in range(hosts)))
        self.hosts = spread(named, ranks)
        self.faults = faults or Faults()
        self.ranks = ranks
        self._chance = random.Random(seed)
        self._host_of = [host.name for host in self.hosts for _ in range(host.slots)]
        self._roll = Roll(ranks, deadline_ns=DEADLINE_NS)
        self._steps = [0] * ranks
        self._queue: list[tuple[int, int, str]] = []

    def run(self) -> Outcome:
        """Run until all ranks have ended, or every lost one is known and the others are called off."""
        launcher = Launcher("mpirun", "openmpi", (5, 0, 6))
        words = command_line(launcher, self.hosts, MpiOptions(), ["stoker"])
        out = Outcome(self.hosts, words)
        for rank in range(self.ranks):
            self._put(self._chance.randrange(SECOND_NS), rank, "hello")
        looked_ns = 0
        while self._queue:
            now_ns, rank, what = heapq.heappop(self._queue)
            out.events += 1
            out.end_ns = now_ns
            if now_ns - looked_ns > SECOND_NS:
                looked_ns = now_ns
                out.lost += self._roll.overdue(now_ns)
            self._take(now_ns, rank, what, out)
        if not self._roll.all_ended:
            out.lost += self._roll.overdue(out.end_ns + DEADLINE_NS)
        out.waited_for, out.told = self._roll.waited_for(), self._roll.told()
        out.done, out.slowest_host = list(self._roll.hosts_done()), self._roll.slowest_host()
        return out

    def _put(self, at_ns: int, rank: int, what: str) -> None:
        heapq.heappush(self._queue, (at_ns, rank, what))

    def _take(self, now_ns: int, rank: int, what: str, out: Outcome) -> None:
        roll = self._roll
        if self._is_faulty(rank) and what != "hello":
            if rank in self.faults.killed and what == "arrive":
                out.lost.append(roll.gone(rank, "ended: its connection was closed"))
            return
        if what == "hello":
            refused = roll.hello(rank, self._host_of[rank], 1000 + rank, now_ns)
            assert not refused, refused
            self._put(now_ns + self._chance.randrange(BEAT_NS), rank, "beat")
            self._put(2 * SECOND_NS, rank, "arrive")
        elif what == "beat":
            if self._steps[rank] < STEPS and now_ns < 100 * SECOND_NS:
                roll.heard(rank, now_ns, Progress(0, 1, self._steps[rank], STEPS, 0.9, 1e6))
                self._put(now_ns + BEAT_NS, rank, "beat")
        elif what == "arrive":
            self._arrive(now_ns, rank, out)
        else:
            roll.ended(rank, now_ns)

    def _is_faulty(self, rank: int) -> bool:
        late = self._steps[rank] >= STEPS // 2
        return late and (
            rank in self.faults.killed or rank in self.faults.stopped or self._host_of[rank] in self.faults.cut
        )

    def _arrive(self, now_ns: int, rank: int, out: Outcome) -> None:
        answer = self._roll.arrive(rank, now_ns, stop=False)
        if answer is None:
            return
        out.barriers += 1
        for each in range(self.ranks):
            self._steps[each] += 1
            jitter_ns = self._chance.randrange(SECOND_NS // 10)
            self._put(now_ns + SECOND_NS + jitter_ns, each, "arrive" if self._steps[each] < STEPS else "end")


def planned(hosts: int, ranks: int) -> dict[str, Any]:
    """Do what stands before a launch: size and foresee every family, hold the jobs against the rules, shut the gates.

    Each rank has looked at the shared file, one of them at another; the gates' record is made and read back.
    """
    named = spread(parse_hosts(",".join(f"node-{number:04d}" for number in range(hosts))), ranks)
    slots = tuple(host.slots for host in named)
    common: dict[str, Any] = {"division": "closed", "hosts": hosts, "slots": slots, "memory_bytes_per_host": TiB}
    jobs = [
        JobFacts(family="training", model="retinanet", accelerator="b200", processes=ranks, **common),
        JobFacts(family="checkpointing", model="llama3-1t", accelerator="b200", processes=1024, **common),
        JobFacts(family="vector_database", model="DISKANN", **common),
        JobFacts(family="kv_cache", model="llama3.1-8b", processes=hosts, **common),
    ]
    told = [foresee(ForeseeRequest(job=job, line_rate_bytes_per_second=12.5e9)) for job in jobs]
    holders = [host.name for host in named for _ in range(host.slots)]
    looks = [
        msgspec.json.decode(msgspec.json.encode(Look(rank, name, _seen(rank, ranks))), type=Look)
        for rank, name in enumerate(holders)
    ]
    gate = shared_gate(by_host(looks), "token", "/data")
    kept = msgspec.json.decode(msgspec.json.encode(gate), type=Gate)
    return {
        "foreseen": len(told),
        "rules": sum(len(each.verdict.rules) for each in told),
        "files": sum(getattr(each.sizes[0], "files", 0) for each in told),
        "looks": len(looks),
        "blind": [name for name, look in kept.facts["seen"].items() if not look["same_content"]],
        "gate": gate.state,
    }


def _seen(rank: int, ranks: int) -> TargetFacts:
    return TargetFacts(device=51, inode=7, free_bytes=TiB, found="else" if rank == ranks - 1 else "token")


def figures(hosts: int, ranks: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (scenario, what it took and found)."""
    began = time.perf_counter()
    before = planned(hosts, ranks)
    yield "before the launch", {"seconds": time.perf_counter() - began, **before, "peak_memory_bytes": _peak_bytes()}
    faults = Faults(frozenset({17}), frozenset({ranks // 2}), frozenset({f"node-{hosts - 1:04d}"}))
    for name, chosen in (("all end", None), ("three faults", faults)):
        began = time.perf_counter()
        out = Fleet(hosts, ranks, faults=chosen).run()
        yield (
            name,
            {
                "seconds": time.perf_counter() - began,
                "events": out.events,
                "barriers": out.barriers,
                "virtual_seconds": out.end_ns / 1e9,
                "lost": len(out.lost),
                "hosts_done": len(out.done),
                "peak_memory_bytes": _peak_bytes(),
            },
        )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(words: list[str] | None = None) -> None:
    """Run all scenarios and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1250)
    parser.add_argument("--ranks", type=int, default=10_000)
    options = parser.parse_args(words)
    command = f"python -m benchmarks.fleet --hosts {options.hosts} --ranks {options.ranks}"
    print(json.dumps({"command": command, **dict(figures(options.hosts, options.ranks))}, indent=1))


if __name__ == "__main__":
    main()
