"""The collection inside an MPI job: one sampler a host, in its first rank; clocks compared between the ranks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from stoker.bench.run.hosts.clocks import PROBES, Probe, offset_of
from stoker.bench.run.hosts.collect import Collection, new_header
from stoker.bench.run.hosts.sampler import LocalSampler
from stoker.core import clock
from stoker.core.host_series import SAMPLES_MAX, ClockOffset, Header, HostSeries

_SAMPLED_OVER: Final = "mpi"


class Group(Protocol):
    """What the collection needs of the ranks' communicator."""

    rank: int
    host_rank: int

    def leaders(self) -> list[int]:
        """Return the first rank of each host, on every rank."""

    def ask(self, rank: int, mine: Sequence[int]) -> list[int]:
        """On rank 0: send whole numbers to `rank`, return what it answers."""

    def answer(self, make: "Answer") -> None:
        """On another rank: take a question of rank 0's and answer it."""

    def gather(self, data: bytes) -> list[bytes] | None:
        """Return what every rank passed, on rank 0."""


class Answer(Protocol):
    """Makes an answer to a question."""

    def __call__(self, question: Sequence[int]) -> Sequence[int]: ...


class _Told(msgspec.Struct, frozen=True):
    """What the first rank of a host sends to rank 0: its series, and its clock's origin as rank 0's clock had it."""

    series: HostSeries
    origin_ns: int


class MpiCollection:
    """The hosts of a run under MPI. Made, and finished, by all ranks at once."""

    def __init__(
        self,
        group: Group,
        folder: Path,
        interval_seconds: float,
        others: Sequence[str],
        *,
        samples_max: int = SAMPLES_MAX,
    ) -> None:
        self._group, self._samples_max = group, samples_max
        self._whole: Collection | None = None
        self._sampler: LocalSampler | None = None
        self._offset: ClockOffset | None = None
        self._origin_ns = 0
        self._sampled = interval_seconds > 0
        if self._sampled:
            ahead_ns = self._compare_clocks()
            self._begin(folder, interval_seconds, others, ahead_ns)

    def _begin(self, folder: Path, interval_seconds: float, others: Sequence[str], ahead_ns: int) -> None:
        if self._group.rank == 0:
            self._whole = Collection(folder, interval_seconds, others, samples_max=self._samples_max)
        elif self._group.host_rank == 0:
            header = new_header(interval_seconds, self._samples_max)
            self._origin_ns = header.origin_ns - ahead_ns
            try:
                self._sampler = LocalSampler(header, partial_folder=folder, source=_SAMPLED_OVER)
                self._sampler.start()
            except OSError:
                self._sampler = None  # rank 0 gets a series that says nothing was seen

    def _compare_clocks(self) -> int:
        """Let rank 0 compare its clocks with those of each host; return how far our monotonic one is ahead, in ns."""
        group, ahead_ns = self._group, 0
        for leader in group.leaders():
            if leader == 0:
                continue
            if group.rank == 0:
                self._ask(leader)
            elif group.rank == leader:
                for _ in range(PROBES):
                    group.answer(lambda _: (clock.wall_ns(), clock.monotonic_ns()))
                ahead_ns = self._hear()
        return ahead_ns

    def _ask(self, leader: int) -> None:
        """Ask a host's first rank for its clocks, and tell it what they came to."""
        walls, monotonic = [], []
        for _ in range(PROBES):
            sent_ns, sent_wall_ns = clock.monotonic_ns(), clock.wall_ns()
            wall_ns, monotonic_ns = self._group.ask(leader, (0, 0, 0))[:2]
            back_ns, back_wall_ns = clock.monotonic_ns(), clock.wall_ns()
            walls.append(Probe(sent_wall_ns, wall_ns, back_wall_ns))
            monotonic.append(Probe(sent_ns, monotonic_ns, back_ns))
        best = min(monotonic, key=lambda each: each.back_ns - each.sent_ns)
        ahead_ns = best.theirs_ns - (best.sent_ns + best.back_ns) // 2
        offset = offset_of(walls) or ClockOffset()
        told = (ahead_ns, round(offset.seconds * 1e9), round(offset.error_seconds * 1e9))
        self._group.ask(leader, told)

    def _hear(self) -> int:
        heard: list[int] = []

        def take(question: Sequence[int]) -> Sequence[int]:
            heard.extend(question)
            return (0, 0)

        self._group.answer(take)
        ahead_ns, offset_ns, error_ns = heard[:3]
        self._offset = ClockOffset(offset_ns / 1e9, error_ns / 1e9, PROBES)
        return ahead_ns

    def finish(self) -> list[HostSeries]:
        """Stop sampling everywhere; on rank 0 save the file and return all hosts, elsewhere nothing."""
        told = b""
        if self._sampler is not None:
            series = self._sampler.stop()
            series.offset = self._offset
            told = msgspec.msgpack.encode(_Told(series, self._origin_ns))
        passed = self._group.gather(told) if self._sampled else None
        if self._whole is None:
            return []
        others = [msgspec.msgpack.decode(data, type=_Told) for data in passed or [] if data]
        for other in others:
            _shift(other, self._whole.header)
        return self._whole.finish([other.series for other in others])


def _shift(other: _Told, header: Header) -> None:
    """Set a host's times to rank 0's clock."""
    column = other.series.columns.get("at_us")
    if column:
        column[0] = (column[0] or 0) + (other.origin_ns - header.origin_ns) // 1000
