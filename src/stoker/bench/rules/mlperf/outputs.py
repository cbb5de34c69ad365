"""Shapes of the documents that tools write: summaries, metadata, rollups, hash trees and their signatures.

What an engine or another version of a tool adds is let be; what is named here must be there and of its kind. Each is a
JSON Schema beside (`schemas/`), like the documents of `documents`.
"""

from types import GenericAlias
from typing import Annotated, Any, Final, Literal

import msgspec

from stoker.bench.rules.mlperf.rollups import FAMILY_COLUMNS, LEADING

Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_LOOSE: Final[dict[str, Any]] = {"frozen": True, "kw_only": True}


class TrainingMetric(msgspec.Struct, **_LOOSE):
    """The figures of a training run. "MB" are MiB of nominal record length."""

    train_au_percentage: list[float]
    train_au_mean_percentage: float
    train_au_meet_expectation: Literal["success", "fail"]
    train_au_stdev_percentage: Amount
    train_throughput_samples_per_second: list[float]
    train_throughput_mean_samples_per_second: Amount
    train_throughput_stdev_samples_per_second: Amount
    train_io_mean_MB_per_second: Amount
    train_io_stdev_MB_per_second: Amount


class CheckpointMetric(msgspec.Struct, **_LOOSE):
    """The figures of a checkpointing run, of the ways that it went: saved, loaded or both. "GB" are GiB."""

    checkpoint_size_GB: Amount
    save_checkpoint_io_mean_GB_per_second: Amount | msgspec.UnsetType = msgspec.UNSET
    save_checkpoint_io_stdev_GB_per_second: Amount | msgspec.UnsetType = msgspec.UNSET
    save_checkpoint_duration_mean_seconds: Amount | msgspec.UnsetType = msgspec.UNSET
    save_checkpoint_duration_stdev_seconds: Amount | msgspec.UnsetType = msgspec.UNSET
    load_checkpoint_io_mean_GB_per_second: Amount | msgspec.UnsetType = msgspec.UNSET
    load_checkpoint_io_stdev_GB_per_second: Amount | msgspec.UnsetType = msgspec.UNSET
    load_checkpoint_duration_mean_seconds: Amount | msgspec.UnsetType = msgspec.UNSET
    load_checkpoint_duration_stdev_seconds: Amount | msgspec.UnsetType = msgspec.UNSET


class TrainingSummary(msgspec.Struct, **_LOOSE):
    """The document `summary.json` of a training run. Lists of hosts hold a value a host; "GB" are GiB."""

    start: str
    end: str
    num_accelerators: Count
    num_hosts: Count
    hostname: str
    metric: TrainingMetric
    num_files_train: Count
    num_files_eval: Count
    num_samples_per_file: Count
    epochs: Count
    host_cpu_count: list[Count]
    host_processor_name: str
    potential_caching: list[bool | int]
    host_memory_GB: list[Amount]
    data_size_per_host_GB: Amount


class CheckpointSummary(msgspec.Struct, **_LOOSE):
    """The document `summary.json` of a checkpointing run."""

    start: str
    end: str
    num_accelerators: Count
    num_hosts: Count
    hostname: str
    metric: CheckpointMetric


class KvFigures(msgspec.Struct, **_LOOSE):
    """The figures of an option of the KV cache over its ranks and trials; "gbps" are GB/s."""

    option: Count
    aggregated_read_bandwidth_gbps: Amount
    aggregated_write_bandwidth_gbps: Amount
    aggregated_storage_throughput_tokens_per_sec: Amount
    rank_count: Count
    trial_count: Count
    partial_failure: bool
    missing_files: list[str]
    cpu_tier_ranks: list[Any]
    aggregated_device_read_p95_ms: Amount | None = None
    aggregated_device_write_p95_ms: Amount | None = None


class KvSummary(msgspec.Struct, **_LOOSE):
    """The document `summary.json` of a KV-cache run."""

    schema_version: str
    run_datetime: str
    npernode: Count
    host_count: Count
    total_ranks: Count
    trials_per_option: Count
    options: dict[str, KvFigures]
    partial_failure: bool
    trial_failures: dict[str, Any]


class HostMemory(msgspec.Struct, **_LOOSE):
    """Memory of a host in bytes."""

    total: Count


class HostInfo(msgspec.Struct, **_LOOSE):
    """A host as it was collected; what failed is left out."""

    hostname: str
    memory: HostMemory | msgspec.UnsetType = msgspec.UNSET
    cpu: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class SystemInfo(msgspec.Struct, **_LOOSE):
    """All hosts together, and each by its name. Empty where nothing was collected."""

    num_hosts: Count | msgspec.UnsetType = msgspec.UNSET
    total_cores: Count | msgspec.UnsetType = msgspec.UNSET
    total_memory_bytes: Count | msgspec.UnsetType = msgspec.UNSET
    hosts: list[HostInfo] | msgspec.UnsetType = msgspec.UNSET


class Metadata(msgspec.Struct, **_LOOSE):
    """The document `<family>_<time>_metadata.json` of a leaf. Times are of the launching host's clock."""

    benchmark_type: Literal["training", "checkpointing", "vectordb", "vector_database", "kvcache", "kv_cache"]
    model: str
    command: Literal["datasize", "datagen", "run"]
    run_datetime: Annotated[str, msgspec.Meta(pattern=r"^\d{8}_\d{6}$")]
    num_processes: Count
    accelerator: str
    parameters: dict[str, Any]
    override_parameters: dict[str, Any]
    args: dict[str, Any]
    executed_command: str
    exit_status: int
    runtime: Amount
    invocation_start_time: str
    provenance_file: str
    system_info: SystemInfo
    status: Literal["complete", "partial", "failed"] | msgspec.UnsetType = msgspec.UNSET
    status_reason: str | msgspec.UnsetType = msgspec.UNSET
    comparability_class: str | msgspec.UnsetType = msgspec.UNSET


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a hash tree: its path below the folder, its size and its digest."""

    path: str
    bytes: Count
    sha256: Sha256


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document `.stoker-bundle.json`; `files` are sorted by the bytes of their paths."""

    schema: Literal["stoker-bundle/1"]
    made_at: str
    tool: str
    algorithm: Literal["sha256"]
    total_bytes: Count
    root: Sha256
    left_out: list[str]
    files: list[BundleFile]


class BundleSignature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document `.stoker-bundle.sig`; key and signature in base64."""

    schema: Literal["stoker-bundle-signature/1"]
    algorithm: Literal["ed25519"]
    root: Sha256
    public_key: str
    fingerprint: str
    signature: str
    signed_at: str


_TEXTS: Final = (*LEADING[:10], "Accelerator Type", "Code", "Logs", "Checkpoint Mode", "Index Type")
_COLUMNS: Final = dict.fromkeys([*LEADING, *(name for names in FAMILY_COLUMNS.values() for name in names)])


def _column(at: int, name: str) -> tuple[str, Any, Any]:
    kind: Any = (str if name in _TEXTS else float) | msgspec.UnsetType | None
    return f"column_{at}", kind, msgspec.field(name=name, default=msgspec.UNSET)


ResultsRow: Final = msgspec.defstruct(
    "ResultsRow",
    [
        *(_column(at, name) for at, name in enumerate(_COLUMNS)),
        ("notes", list[str] | msgspec.UnsetType, msgspec.UNSET),
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    namespace={"__doc__": "A row of results.json: a result. A figure that is not known is null."},
)
OUTPUTS: Final[dict[str, Any]] = {
    "summary_training": TrainingSummary,
    "summary_checkpointing": CheckpointSummary,
    "summary_kv_cache": KvSummary,
    "metadata": Metadata,
    "results": GenericAlias(list, (ResultsRow,)),
    "bundle": Bundle,
    "bundle_signature": BundleSignature,
}
"""Kind of document -> its type."""
