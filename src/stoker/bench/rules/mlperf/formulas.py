"""Formulas of the rules, as pure functions: sizes of datasets and checkpoints, hash of the core, comparability."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from stoker.bench.rules.mlperf.tables import CheckpointModel, TrainingModel
from stoker.core.units import GiB, format_bytes

STEPS_PER_EPOCH_MIN: Final = 500
HOST_MEMORY_MULTIPLE: Final = 5
CHECKPOINT_MEMORY_MULTIPLE: Final = 3
MEMORY_TOLERANCE: Final = 0.05
CORE_ALGORITHM: Final = "core-config-v1"
CORE_HASH_DIGITS: Final = 16
# The keys that decide what a workload does. A key that ends in `.*` stands for all below it.
CORE_KEYS: Final = {
    "training": (
        "framework",
        "metric.au",
        "model.*",
        "workflow.*",
        "dataset.format",
        "dataset.num_samples_per_file",
        "dataset.record_length_bytes",
        "dataset.record_length_bytes_stdev",
        "dataset.record_length_bytes_resize",
        "reader.data_loader",
        "reader.batch_size",
        "reader.file_shuffle",
        "reader.sample_shuffle",
        "reader.shuffle_size",
        "train.epochs",
        "train.computation_time",
        "train.computation_time_stdev",
        "train.total_training_steps",
        "checkpoint.*",
    ),
    "checkpointing": ("framework", "model.*", "workflow.*", "checkpoint.*"),
}
CORE_KEYS_LEFT_OUT: Final = {
    "training": ("checkpoint.checkpoint_folder",),
    "checkpointing": (
        "checkpoint.checkpoint_folder",
        "checkpoint.num_checkpoints_write",
        "checkpoint.num_checkpoints_read",
    ),
}
_DEPTH_MAX: Final = 8


def files_needed(model: TrainingModel, *, accelerators: int, batch_size: int, memory_bytes: float) -> tuple[int, int]:
    """Return the least files by bytes and by steps: five times the hosts' memory, and 500 steps an epoch.

    `memory_bytes` is that of all hosts. Rounded up; the larger of the two is what a run needs.
    """
    return minimum_files(
        file_bytes=model.file_bytes,
        samples_per_file=model.samples_per_file,
        per_step_samples=accelerators * batch_size,
        memory_bytes=memory_bytes,
    )


def minimum_files(
    *, file_bytes: float, samples_per_file: int, per_step_samples: int, memory_bytes: float
) -> tuple[int, int]:
    """Return the same for files of any make; `per_step_samples` are those of a step of all accelerators."""
    by_bytes = math.ceil(HOST_MEMORY_MULTIPLE * memory_bytes / file_bytes)
    return by_bytes, math.ceil(STEPS_PER_EPOCH_MIN * per_step_samples / samples_per_file)


def parameter_count(model: CheckpointModel) -> int:
    """Return the parameters of the model.

    2Vd + d + L(2d + d(d + 2k) + dd + 3df) with d hidden size, f feed-forward size, V vocabulary, L layers and
    k = floor(d / heads) x kv heads. llama3-8b: 8,030,261,248.
    """
    d, f = model.hidden_size, model.ffn_hidden_size
    k = d // model.attention_heads * model.kv_heads
    return 2 * model.vocab_size * d + d + model.layers * (2 * d + d * (d + 2 * k) + d * d + 3 * d * f)


def model_bytes(model: CheckpointModel) -> float:
    """Return the bytes of a checkpoint's model: 2 a parameter; norms are kept by every tensor rank."""
    norms = (2 * model.layers + 1) * model.hidden_size * (model.tensor - 1)
    return 2.0 * (parameter_count(model) + norms)


def optimizer_bytes(model: CheckpointModel, processes: int) -> float:
    """Return the bytes of a checkpoint's optimizer: 12 a parameter (fp32: master weights and two moments), and five
    rows more for each of the `processes`."""
    return 3.0 * 4 * (parameter_count(model) // processes + 5 * model.hidden_size) * processes


def checkpoint_bytes(model: CheckpointModel) -> float:
    """Return the bytes of a whole checkpoint of the closed job: model and optimizer."""
    return model_bytes(model) + optimizer_bytes(model, model.processes)


def memory_that_counts(declared_bytes: float, measured_bytes: float | None) -> tuple[float, str]:
    """Return the clients' memory that a dataset is sized by, and a note when declared and measured differ.

    It is the declared one, or the measured one where that is more than 5 % larger: two ways of counting the same
    memory differ by a few percent.
    """
    if measured_bytes is None or abs(measured_bytes - declared_bytes) <= MEMORY_TOLERANCE * declared_bytes:
        return declared_bytes, ""
    counts = max(declared_bytes, measured_bytes)
    which = "measured" if counts == measured_bytes else "declared"
    told = f"{format_bytes(declared_bytes)} of memory were declared, {format_bytes(measured_bytes)} measured"
    return counts, f"{told}, more than {MEMORY_TOLERANCE:.0%} apart: the {which} ones count"


def core_values(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved configuration that decides what the workload does, as dotted keys."""
    wanted, left_out = CORE_KEYS[family], CORE_KEYS_LEFT_OUT[family]
    flat = flattened(config)
    return {
        key: value
        for key, value in sorted(flat.items())
        if key not in left_out and any(_is_one_of(key, each) for each in wanted)
    }


def _is_one_of(key: str, wanted: str) -> bool:
    return key.startswith(wanted[:-1]) if wanted.endswith("*") else key == wanted


def core_hash(family: str, config: Mapping[str, Any]) -> str:
    """Return the hash of the core: 16 hex digits of SHA-256 over its dotted keys as compact, sorted JSON.

    Whole numbers written as floats count as whole, so that `5` and `5.0` are one configuration.
    """
    values = {key: _canonical(value) for key, value in core_values(family, config).items()}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:CORE_HASH_DIGITS]


def comparability_class(*, edition: str, division: str, family: str, model: str, accelerator: str, core: str) -> str:
    """Return the class of a result: two are comparable exactly when their classes are equal."""
    return "/".join((edition, division, family, model, accelerator or "-", core))


def flattened(tree: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Return the leaves of nested mappings under dotted keys; what lies deeper than 8 levels stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and depth < _DEPTH_MAX:
            flat |= flattened(value, f"{name}.", depth + 1)
        else:
            flat[name] = value
    return flat


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def bytes_of_gib(gib: float) -> float:
    """Return GiB as bytes: the tool's "GB" of memory are binary."""
    return gib * GiB
