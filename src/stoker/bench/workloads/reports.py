"""What a rank tells of itself: pure data, written to its log as it comes to be, so that it survives the rank."""

from typing import Final

import msgspec

from stoker.bench.workloads.counters import difference
from stoker.core.checkpoints import CheckpointNote
from stoker.core.kvcache import KvNote
from stoker.core.ledger import Counters, Ledger, sum_counters, total
from stoker.core.result import Reading
from stoker.core.vectors import Answer, VectorNote

LOG_NAME: Final = "rank-{rank:04d}.jsonl"


class StoreFacts(msgspec.Struct, frozen=True):
    """The target as one rank opened it. `kind` is the file system's type, or the scheme of what is none."""

    url: str = ""
    io_mode_requested: str = ""
    io_mode: str = ""
    kind: str = ""
    device: str = ""
    notes: tuple[str, ...] = ()
    durable: bool | None = None


class RankStart(msgspec.Struct, frozen=True):
    """Who the rank is. `host_rank` counts on its host; `usable_cpus` are the host's for this run."""

    rank: int
    host: str
    pid: int
    host_rank: int
    usable_cpus: float
    store: StoreFacts


class Snapshot(msgspec.Struct):
    """Everything counted so far inside the measured windows: from the first batch asked for until reading has ended.

    What is read to open the dataset, and evicting, lie outside.
    """

    ledger: Ledger = msgspec.field(default_factory=Ledger)
    counters: Counters | None = None
    busy_seconds: dict[str, float] = {}
    stall_seconds: dict[str, float] = {}
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def plus(self, later: "Snapshot", earlier: "Snapshot") -> "Snapshot":
        """Return this with what was counted between two snapshots added."""
        counted = None
        if later.counters is not None and earlier.counters is not None:
            counted = difference(later.counters, earlier.counters)
            counted = counted if self.counters is None else sum_counters((self.counters, counted))
        return Snapshot(
            ledger=total((self.ledger, ledger_difference(later.ledger, earlier.ledger))),
            counters=counted,
            busy_seconds=_plus(self.busy_seconds, later.busy_seconds, earlier.busy_seconds),
            stall_seconds=_plus(self.stall_seconds, later.stall_seconds, earlier.stall_seconds),
            cpu_seconds=self.cpu_seconds + later.cpu_seconds - earlier.cpu_seconds,
            wall_seconds=self.wall_seconds + later.wall_seconds - earlier.wall_seconds,
            peak_memory_bytes=max(self.peak_memory_bytes, later.peak_memory_bytes),
        )


def _plus(base: dict[str, float], later: dict[str, float], earlier: dict[str, float]) -> dict[str, float]:
    names = dict.fromkeys((*base, *later))
    sums = {name: base.get(name, 0.0) + later.get(name, 0.0) - earlier.get(name, 0.0) for name in names}
    return {name: value for name, value in sums.items() if value > 0}


def ledger_difference(later: Ledger, earlier: Ledger) -> Ledger:
    """Return what was entered between two states of a ledger."""
    return Ledger(**{name: getattr(later, name) - getattr(earlier, name) for name in Ledger.__struct_fields__})


class PhaseNote(msgspec.Struct):
    """One epoch or evaluation, as one rank knows it.

    `expected_samples` and `expected_digest` (of the order, hexadecimal) are of all ranks together; only rank 0 works
    the digest out. `digest` is of what this rank got. `resident_bytes` of `probed_bytes` were cached when it began.
    """

    epoch: int
    phase: int
    expected_samples: int = 0
    dropped_samples: int = 0
    resident_bytes: int | None = None
    probed_bytes: int | None = None
    digest: str = ""
    expected_digest: str = ""
    complete: bool = False
    ledger: Ledger = msgspec.field(default_factory=Ledger)


class RankReport(msgspec.Struct):
    """All of a rank but its steps. `error` tells why it failed; `finished` is False when it never came to its end.

    `reading` is what was told at the end of the last epoch.
    """

    start: RankStart
    snapshot: Snapshot = msgspec.field(default_factory=Snapshot)
    phases: list[PhaseNote] = []
    histograms: dict[str, str] = {}
    notes: list[str] = []
    error: str = ""
    finished: bool = False
    reading: Reading | None = None
    checkpoints: list[CheckpointNote] = []
    vectors: VectorNote | None = None
    answers: list[Answer] = []
    trials: list[KvNote] = []
