"""The result of a run: one versioned JSON, readable years later by a judge that never met the runner.

    <run folder>/
      result.json           this schema, written atomically at the end (or when a signal ended the run)
      events.jsonl          the conductor's event log          ranks/rank-0000.jsonl   one log a rank
      series.npz            per-step columns, arrays `rank0000/<column>` (no pickles)
      fs_separation.json    whether the target lies on another file system than this folder (local targets)
      hosts.jsonl.zst       what was seen of the hosts meanwhile; see `stoker.core.host_series`
      report.html           made from the above alone

A run killed at any instant leaves its logs; `stoker.bench.run.recover` makes the labelled partial result from them.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.checkpoints import Checkpoint, CheckpointFigures, CheckpointNote
from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic
from stoker.core.kvcache import KvFigures, KvNote, KvTrial
from stoker.core.ledger import Counters, Ledger
from stoker.core.plan import Job, TrainingPlan
from stoker.core.vectors import VectorFigures, VectorNote

SCHEMA: Final = "stoker-result/1"
RESULT_FILE: Final = "result.json"
EVENTS_FILE: Final = "events.jsonl"
SERIES_FILE: Final = "series.npz"
RANKS_FOLDER: Final = "ranks"
RESULT_BYTES_MAX: Final = 1 << 30
STATUSES: Final = ("complete", "partial", "failed")
STAGES: Final = (
    "list",
    "open",
    "read",
    "verify",
    "decode",
    "transform",
    "batch",
    "transfer",
    "queue",
    "compute",
    "checkpoint_stage",
    "checkpoint_write",
    "checkpoint_commit",
)
STEP_COLUMNS: Final = (
    "epoch",
    "phase",  # 0 train, 1 evaluation
    "block",
    "step",
    "request_ns",  # asked the loader for the batch
    "ready_ns",  # got it
    "compute_start_ns",
    "compute_end_ns",
    "end_ns",  # barrier passed: the step is over
    "samples",
    "delivered_bytes",
    "requested_bytes",
)


class Epoch(msgspec.Struct):
    """One epoch (or evaluation) of the whole run; per-rank values are averaged (AU) or summed (rates).

    `*_compatible_*` follow DLIO's formulas (throughput counts steps - 2), the others ours; see docs/metrics.
    `cached_before_ratio` is the share of the dataset in the page cache when the epoch began, None when unknown.
    `order_digest` is the XOR over ranks of the digest of the samples visited; `coverage_exact` tells that every
    usable sample was visited exactly once (None for an epoch that was cut short).
    """

    epoch: int
    phase: str = "train"
    steps: int = 0
    samples: int = 0
    dropped_samples: int = 0
    wall_seconds: float = 0.0
    au_ratio: float = 0.0
    au_compatible_ratio: float = 0.0
    samples_per_second: float = 0.0
    samples_per_second_compatible: float = 0.0
    delivered_bytes_per_second: float = 0.0
    cached_before_ratio: float | None = None
    order_digest: str = ""
    coverage_exact: bool | None = None
    complete: bool = True


class Reading(msgspec.Struct, frozen=True):
    """How a rank read, as it stood at the end: the engine, and the settings in use with how they came to be.

    engine      what moves the bytes, such as `io_uring`; empty where a reader has one ordinary read under way
    readers, queue_depth, request_bytes     threads, requests under way in each, the most bytes of a request
    start       the settings it began with      pinned      the names of those that were asked for, not chosen
    why         why no others were chosen, in words
    settled     False: the run ended while others were being tried
    windows     stretches of time that were measured for it
    """

    engine: str = ""
    readers: int = 0
    queue_depth: int = 0
    request_bytes: int = 0
    start: dict[str, int] = {}
    pinned: tuple[str, ...] = ()
    why: str = ""
    settled: bool = False
    windows: int = 0


class RankResult(msgspec.Struct):
    """What one rank did.

    `histograms` maps a stage to an encoded latency histogram (per operation), plus `step` and `stall`; `stall_seconds`
    splits the time the accelerator waited over the stages that were at work meanwhile. `reading` is None where nothing
    was told of it.
    """

    rank: int
    host: str = ""
    pid: int = 0
    epochs: list[Epoch] = []
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    counters: Counters = msgspec.field(default_factory=Counters)
    histograms: dict[str, str] = {}
    stall_seconds: dict[str, float] = {}
    busy_seconds: dict[str, float] = {}
    cpu_seconds: float = 0.0
    compute_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str = ""
    reading: Reading | None = None
    checkpoints: list[CheckpointNote] = []
    vectors: VectorNote | None = None
    trials: list[KvNote] = []


class Metrics(msgspec.Struct):
    """The run's figures. Ratios are 0..1; the interval is 95 %, by block bootstrap over steps.

    `au_sustained_ratio` is what the store has surely kept up: AU without what was read ahead of the measured window,
    or AU over whole epochs with the excluded steps, whichever is more. In long epochs it meets `au_ratio`.
    `client_cpu_ratio` is the CPU time of all ranks over wall time x usable CPUs: near 1 the client is the limit.
    `limiting_stage` is the stage with the most stall time, empty when nothing stalled.
    """

    au_ratio: float = 0.0
    au_low_ratio: float = 0.0
    au_high_ratio: float = 0.0
    au_sustained_ratio: float = 0.0
    au_compatible_ratio: float = 0.0
    samples_per_second: float = 0.0
    samples_per_second_compatible: float = 0.0
    delivered_bytes_per_second: float = 0.0
    store_bytes_per_second: float = 0.0
    steps: int = 0
    stall_seconds: dict[str, float] = {}
    limiting_stage: str = ""
    limiting_share_ratio: float = 0.0
    client_cpu_ratio: float = 0.0
    first_batch_seconds: float = 0.0


class HostSummary(msgspec.Struct, frozen=True):
    """A host during the run: means over its samples, None where nothing was seen of it.

    `source` tells how it was seen: local, mpi or ssh. Disks and interfaces are summed so that no byte counts twice.
    The clock is ahead of the conductor's by the offset, give or take the error. `errors` are sentences.
    """

    host: str
    source: str = ""
    ranks: int = 0
    logical_cpus: int = 0
    memory_bytes: int = 0
    samples: int = 0
    cpu_busy_ratio: float | None = None
    cpu_busy_max_ratio: float | None = None
    memory_available_min_bytes: int | None = None
    disk_read_bytes_per_second: float | None = None
    disk_write_bytes_per_second: float | None = None
    network_receive_bytes_per_second: float | None = None
    network_transmit_bytes_per_second: float | None = None
    clock_offset_seconds: float | None = None
    clock_error_seconds: float | None = None
    errors: tuple[str, ...] = ()


class Evidence(msgspec.Struct):
    """The ledger of all ranks beside what was counted by others, and how reading and writing were really done.

    `durable` tells whether the store promises that a finished write survives power loss, None where nobody said.
    """

    io_mode_requested: str = ""
    io_mode: str = ""
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    counters: Counters = msgspec.field(default_factory=Counters)
    target_kind: str = ""  # file system type or `s3`, `az`, `gs`, `mem`, `null`
    device: str = ""
    notes: list[str] = []
    durable: bool | None = None


class Result(msgspec.Struct):
    """Everything a judge needs."""

    id: str
    job: Job
    plan: TrainingPlan
    schema: str = SCHEMA
    stoker_version: str = ""
    status: str = "partial"
    reason: str = ""
    started_utc: str = ""
    ended_utc: str = ""
    wall_seconds: float = 0.0
    clock_step_seconds: float = 0.0
    machine: dict[str, Any] = {}
    epochs: list[Epoch] = []
    ranks: list[RankResult] = []
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    histograms: dict[str, str] = {}
    notes: list[str] = []
    hosts: list[HostSummary] = []
    checkpoints: list[Checkpoint] = []
    checkpointing: CheckpointFigures | None = None
    vectors: VectorFigures | None = None
    trials: list[KvTrial] = []
    kvcache: KvFigures | None = None


class Finding(msgspec.Struct, frozen=True):
    """One judgement: the rule's id, how grave (`blocks` a yes, `warns`, `informs`), and the four facts."""

    rule: str
    severity: str
    title: str
    expected: str = ""
    observed: str = ""
    where: str = ""
    remedy: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """`answer` is one of yes, no, not_proven, invalid, partial, client_limited; `headline` says it in a sentence."""

    answer: str
    headline: str
    findings: tuple[Finding, ...] = ()


def save_result(folder: Path, result: Result) -> Path:
    """Write `result.json` into the run folder, whole or not at all, and return its path."""
    path = folder / RESULT_FILE
    write_atomic(path, msgspec.json.format(msgspec.json.encode(result), indent=1))
    return path


def load_result(path: Path) -> Result:
    """Return the result in `path` (a run folder or its JSON file).

    Raises CorruptError for a file that is not a result of a schema we know, or is over 1 GiB.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    if file.stat().st_size > RESULT_BYTES_MAX:
        raise CorruptError("result is too large", where=str(file), expected="at most 1 GiB")
    try:
        result = msgspec.json.decode(file.read_bytes(), type=Result)
    except msgspec.DecodeError as error:
        raise CorruptError("not a result", where=str(file), expected=SCHEMA, got=str(error)) from error
    if result.schema != SCHEMA:
        raise CorruptError("result has another schema", where=str(file), expected=SCHEMA, got=result.schema)
    return result
