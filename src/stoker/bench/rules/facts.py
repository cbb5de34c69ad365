"""Facts that follow from a result by arithmetic alone, shared by the rules and the reports."""

from typing import Final

import msgspec

from stoker.bench.rules.rule import CHECKPOINTING, KVCACHE, TRAINING, VECTORS
from stoker.core.result import Result

AGREEMENT_RATIO_MAX: Final = 0.01
CLIENT_CPU_RATIO_MAX: Final = 0.9
CLIENT_STAGES: Final = ("verify", "decode", "transform", "batch")
STORE_STAGES: Final = ("list", "open", "read")
NO_STORE_MODES: Final = ("memory", "null")
NO_STORE_KINDS: Final = ("mem", "null")
OBJECT_KINDS: Final = ("s3", "az", "gs")
# Formats whose files hold every payload byte as it is, when no compression was asked for.
PLAIN_FORMATS: Final = ("raw", "npy", "npz", "tfrecord", "hdf5", "indexed_binary", "mmap_indexed_binary")
_PAGE_ROUNDING_BYTES: Final = 4095


class Comparison(msgspec.Struct, frozen=True):
    """The bytes claimed from the store beside what someone else counted; `counted_bytes` is None when nobody did.

    `difference_ratio` is (claimed - counted) / requested: positive when the counters saw less than was claimed.
    `rounding_ratio` is the part of an excess that reading whole pages explains, 0 where pages play no part.
    """

    counter: str
    claimed_bytes: int
    counted_bytes: int | None
    difference_ratio: float | None
    rounding_ratio: float = 0.0

    @property
    def unconfirmed(self) -> bool:
        """Tell whether nobody counted, or counted over 1 % less than was claimed."""
        return self.difference_ratio is None or self.difference_ratio > AGREEMENT_RATIO_MAX

    @property
    def exceeded(self) -> bool:
        """Tell whether more was counted than the claim, 1 % and the rounding to pages explain."""
        return self.difference_ratio is not None and -self.difference_ratio > AGREEMENT_RATIO_MAX + self.rounding_ratio


def saves_alone(result: Result) -> bool:
    """Tell whether the run wrote and read checkpoints and trained nothing."""
    return result.plan.checkpoint is not None and not result.plan.trains


def serves_cache(result: Result) -> bool:
    """Tell whether the run served a KV cache."""
    return result.plan.kvcache is not None


def searches(result: Result) -> bool:
    """Tell whether the run loaded or searched a collection of vectors."""
    return result.plan.vectors is not None


def workload_of(result: Result) -> str:
    """Return what the run did: training, checkpointing, kvcache or vectordb."""
    if searches(result):
        return VECTORS
    if serves_cache(result):
        return KVCACHE
    return CHECKPOINTING if saves_alone(result) else TRAINING


def share(part: float, whole: float) -> float:
    """Return part / whole, 0.0 when the whole is not positive."""
    return part / whole if whole > 0 else 0.0


def is_object_store(result: Result) -> bool:
    """Tell whether the data came over an object-store client, whose own byte count is then the witness."""
    evidence = result.evidence
    return evidence.io_mode == "network" or evidence.target_kind in OBJECT_KINDS


def reads_store(result: Result) -> bool:
    """Tell whether any storage was read at all: not memory, not the null store, and more than nothing."""
    evidence = result.evidence
    outside = evidence.io_mode not in NO_STORE_MODES and evidence.target_kind not in NO_STORE_KINDS
    return outside and evidence.ledger.requested_bytes > 0


def measured(result: Result) -> bool:
    """Tell whether any step was kept: without one, no figure of the run means anything."""
    return result.metrics.steps > 0


def cache_ratio(result: Result) -> float:
    """Return the share of the requested bytes that this host's page cache served."""
    ledger = result.evidence.ledger
    return share(ledger.from_cache_bytes, ledger.requested_bytes)


def compare_counters(result: Result) -> Comparison:
    """Hold the ledger's bytes from the store against the witness that fits the target.

    For object stores the witness is the client's count of response bodies, less what lay between wanted ranges and
    so was never claimed; for everything else the kernel's `read_bytes` of the ranks. The kernel fetches whole pages,
    so buffered reading may exceed the claim by up to a page a file opened; that much is no disagreement.
    """
    ledger, counters = result.evidence.ledger, result.evidence.counters
    network = is_object_store(result)
    counter = "http_body_bytes" if network else "process_read_bytes"
    counted = counters.http_body_bytes if network else counters.process_read_bytes
    if network and counted is not None:
        counted -= counters.http_gap_bytes or 0
    claimed, requested = ledger.from_store_bytes, ledger.requested_bytes
    if counted is None:
        return Comparison(counter, claimed, None, None)
    pages_rounded = ledger.files_opened if result.evidence.io_mode == "buffered" else 0
    rounding = share(pages_rounded * _PAGE_ROUNDING_BYTES, requested)
    return Comparison(counter, claimed, counted, share(claimed - counted, requested), rounding)


def is_plain(result: Result) -> bool:
    """Tell whether the format stores every payload byte as it is, so that reading less than delivering is odd."""
    dataset = result.plan.dataset
    compression = str(dataset.options.get("compression") or "none").lower()
    return dataset.format in PLAIN_FORMATS and compression == "none"


def client_stall_share(result: Result) -> float:
    """Return the share of the stall that the client's own stages caused."""
    stall = result.metrics.stall_seconds
    return share(sum(stall.get(stage, 0.0) for stage in CLIENT_STAGES), sum(stall.values()))


def client_stages_lead(result: Result) -> bool:
    """Tell whether the limiting stage is the client's own and its stages outweigh those of the store."""
    stall = result.metrics.stall_seconds
    client = sum(stall.get(stage, 0.0) for stage in CLIENT_STAGES)
    store = sum(stall.get(stage, 0.0) for stage in STORE_STAGES)
    return result.metrics.limiting_stage in CLIENT_STAGES and client >= store


def percent(ratio: float, digits: int = 1) -> str:
    """Return a ratio for people, `96.4 %`."""
    return f"{ratio * 100:.{digits}f} %"
