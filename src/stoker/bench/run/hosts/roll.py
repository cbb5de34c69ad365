"""Who is there, who was heard of when, who has arrived at the barrier, how far each is. Pure: time is passed in.

Ten thousand ranks are a few dictionaries: every message costs the same however many there are, and whoever has not been
heard of for the longest time stands first.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from stoker.bench.workloads.progress import Progress

NAMES_TOLD_MAX: Final = 8
SILENT: Final = "was not heard of for"
"""So a sentence tells that something timed out: it goes from process to process as text."""


class Member(msgspec.Struct):
    """A rank as its conductor knows it. `heard_ns` is when it was last heard of; `ended_ns` 0 while it works."""

    rank: int
    host: str
    pid: int
    heard_ns: int
    arrived: bool = False
    ended_ns: int = 0
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """Return the rank for people."""
        return f"rank {self.rank} on {self.host} (pid {self.pid})"


class HostDone(msgspec.Struct, frozen=True):
    """A host whose ranks have all done their work: when the first and the last of them had."""

    host: str
    ranks: int
    first_ns: int
    last_ns: int


class Roll:
    """The ranks of one run, `ranks` of them."""

    def __init__(self, ranks: int, *, deadline_ns: int) -> None:
        self.ranks, self.deadline_ns = ranks, deadline_ns
        self.members: dict[int, Member] = {}
        self.lost: dict[int, str] = {}
        self._running: dict[int, None] = {}  # in the order in which they were last heard of
        self._arrived = 0
        self._stop = self._stopping = False
        self._ended_by_host: dict[str, list[int]] = {}
        self._ranks_by_host: dict[str, int] = {}

    def hello(self, rank: int, host: str, pid: int, now_ns: int) -> str:
        """Enter a rank; return why it is refused, an empty text when it is not."""
        if not 0 <= rank < self.ranks:
            return f"there is no rank {rank} among {self.ranks}"
        if rank in self.members:
            return f"{self.members[rank].name} is here already"
        self.members[rank] = Member(rank, host, pid, now_ns)
        self._ranks_by_host[host] = self._ranks_by_host.get(host, 0) + 1
        self._running[rank] = None
        return ""

    def join(self, rank: int, host: str, pid: int, now_ns: int) -> None:
        """Enter the rank that keeps the roll: it counts for its host, and is never lost."""
        self.members[rank] = Member(rank, host, pid, now_ns)
        self._ranks_by_host[host] = self._ranks_by_host.get(host, 0) + 1

    def ask_stop(self) -> None:
        """Have every barrier from now on tell all ranks to stop."""
        self._stop = self._stopping = True

    @property
    def complete(self) -> bool:
        """Tell whether all ranks are here."""
        return len(self.members) == self.ranks

    @property
    def all_ended(self) -> bool:
        """Tell whether every rank that came has come to its end."""
        return not self._running

    def missing(self) -> list[int]:
        """Return the ranks that never came."""
        return [rank for rank in range(self.ranks) if rank not in self.members]

    def heard(self, rank: int, now_ns: int, progress: Progress | None = None) -> None:
        """Note that a rank gave a sign of life, and how far it is."""
        member = self.members[rank]
        member.heard_ns = now_ns
        member.progress = progress or member.progress
        if rank in self._running:
            del self._running[rank]
            self._running[rank] = None

    def arrive(self, rank: int, now_ns: int, *, stop: bool) -> bool | None:
        """Note a rank at the barrier; when it is the last, return whether any asked to stop, and begin anew."""
        self.heard(rank, now_ns)
        member = self.members[rank]
        assert not member.arrived, f"{member.name} arrived twice"
        member.arrived = True
        self._arrived += 1
        self._stop = self._stop or stop
        if self._arrived < self.ranks:
            return None
        answer, self._arrived, self._stop = self._stop, 0, self._stopping
        for each in self.members.values():
            each.arrived = False
        return answer

    def finished(self, rank: int, now_ns: int) -> None:
        """Note that a rank has done its work; it may still hand something over."""
        self.heard(rank, now_ns)
        member = self.members[rank]
        if not member.ended_ns:
            member.ended_ns = now_ns
            self._ended_by_host.setdefault(member.host, []).append(now_ns)

    def ended(self, rank: int, now_ns: int) -> None:
        """Note that a rank came to its end, and leaves."""
        if rank in self._running:
            self.finished(rank, now_ns)
            del self._running[rank]

    def gone(self, rank: int, reason: str) -> str:
        """Note that a rank is lost; return a sentence, an empty text when it had come to its end."""
        if rank not in self._running:
            return ""
        del self._running[rank]
        self.lost[rank] = f"{self.members[rank].name} {reason}"
        return self.lost[rank]

    def forgive(self, now_ns: int) -> None:
        """Take every rank as heard of now: nobody was listening."""
        for rank in self._running:
            self.members[rank].heard_ns = now_ns

    def overdue(self, now_ns: int) -> list[str]:
        """Take out the ranks that were not heard of for the deadline; return a sentence on each."""
        late = []
        for rank in self._running:
            silent_ns = now_ns - self.members[rank].heard_ns
            if silent_ns < self.deadline_ns:
                break
            late.append((rank, f"{SILENT} {silent_ns / 1e9:.0f} s"))
        return [self.gone(rank, reason) for rank, reason in late]

    def waited_for(self) -> list[str]:
        """Return the names of the ranks that the others wait for at the barrier."""
        return [member.name for member in self.members.values() if self._arrived and not member.arrived]

    def told(self) -> dict[int, Progress]:
        """Return how far each rank is that told anything."""
        return {rank: member.progress for rank, member in self.members.items() if member.progress is not None}

    def hosts_done(self) -> Iterator[HostDone]:
        """Yield the hosts whose ranks have all ended, in the order in which they did."""
        for host, ends in self._ended_by_host.items():
            if len(ends) == self._ranks_by_host[host]:
                yield HostDone(host, len(ends), min(ends), max(ends))

    @property
    def all_finished(self) -> bool:
        """Tell whether every rank that is here has done its work."""
        return all(member.ended_ns for member in self.members.values())

    @property
    def hosts(self) -> int:
        """Return how many hosts the ranks are on."""
        return len(self._ranks_by_host)

    def slowest_host(self) -> str:
        """Return the host of the rank that is least far, empty when none told anything."""
        told = [member for member in self.members.values() if member.progress is not None]
        return min(told, key=_how_far).host if told else ""


def _how_far(member: Member) -> tuple[int, int, int]:
    told = member.progress
    assert told is not None
    return told.epoch, told.phase, told.step


def first_names(sentences: list[str]) -> str:
    """Return the sentences as one, of very many the first."""
    more = len(sentences) - NAMES_TOLD_MAX
    return "; ".join(sentences[:NAMES_TOLD_MAX]) + (f"; and {more} more" if more > 0 else "")
