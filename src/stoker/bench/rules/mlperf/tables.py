"""Tables of the rules: models and accelerators, process counts, allowed overrides, what differs between editions."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from stoker.core.errors import UsageError
from stoker.core.registry import nearest

DATA: Final = "stoker.bench.rules.mlperf"
EDITIONS: Final = ("1.0", "2.0", "3.0")
CLOSED: Final = "closed"
OPEN: Final = "open"
WHATIF: Final = "whatif"


class Edition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an edition asks of a tree. `training_runs` counts the warm-up ones, too."""

    training_runs: int
    warm_up_runs: int
    submitter_folders: tuple[str, ...]
    submitter_folders_optional: tuple[str, ...]


class TrainingAccelerator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An emulated accelerator. `status` maps an edition to closed (legal in open, too) or whatif."""

    batch_size: int
    computation_seconds: float
    status: dict[str, str]


class TrainingModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A training model's template, as far as a rule holds a run to it."""

    framework: str
    data_loader: str
    format: str
    samples_per_file: int
    record_length_bytes: float
    epochs: int
    au_threshold_ratio: float
    accelerators: dict[str, TrainingAccelerator]
    record_length_stdev_bytes: float = 0.0
    record_resize_bytes: int = 0

    @property
    def file_bytes(self) -> float:
        """Return the nominal bytes of a file."""
        return self.samples_per_file * self.record_length_bytes


class CheckpointModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpointing model: its shape, its parallelism, and the multiple that open process counts keep."""

    layers: int
    hidden_size: int
    ffn_hidden_size: int
    attention_heads: int
    kv_heads: int
    vocab_size: int
    tensor: int
    pipeline: int
    data: int
    zero_stage: int
    open_multiple: int
    subset_ranks: int = 0

    @property
    def processes(self) -> int:
        """Return the process count of closed: tensor x pipeline x data parallelism."""
        return self.tensor * self.pipeline * self.data


class VectorTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the vector-database workload allows."""

    closed_indexes: tuple[str, ...]
    open_indexes: tuple[str, ...]
    closed_engines: tuple[str, ...]
    runs: int


class KvOption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the three fixed workloads of the KV cache; memory in GB as the tool's options count it."""

    name: str
    model: str
    users: int
    duration_seconds: int
    gpu_memory_gb: int
    cpu_memory_gb: int
    concurrent_allocs: int
    generation: str


class KvTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the KV-cache workload fixes."""

    models: tuple[str, ...]
    trials: int
    seed: int
    delay_seconds: int
    options: dict[str, KvOption]


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All models."""

    training: dict[str, TrainingModel]
    checkpointing: dict[str, CheckpointModel]
    accelerator_memory_gb: dict[str, int]
    vector_database: VectorTable
    kv_cache: KvTable


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that may be changed: to any value, to one of `values`, from `minimum` on, or for some `models` only."""

    key: str
    values: tuple[int | float | str, ...] = ()
    minimum: float | None = None
    models: tuple[str, ...] = ()


class FamilyOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of a family: allowed in closed, allowed in open besides, and known but never to be changed."""

    known: tuple[str, ...] = ()
    closed: tuple[Override, ...] = ()
    open: tuple[Override, ...] = ()


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that may be overridden; `tool_keys` are set by the tool itself and never counted."""

    tool_keys: tuple[str, ...]
    training: FamilyOverrides
    checkpointing: FamilyOverrides
    vector_database: FamilyOverrides
    kv_cache: FamilyOverrides

    def family(self, name: str) -> FamilyOverrides:
        """Return the keys of the family."""
        table: FamilyOverrides = getattr(self, name)
        return table


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(files(DATA).joinpath("data", f"{name}.toml").read_text(encoding="utf-8"))


@cache
def models() -> Models:
    """Return the table of models."""
    return msgspec.convert(_toml("models"), Models)


@cache
def overrides() -> Overrides:
    """Return the table of overrides."""
    return msgspec.convert(_toml("overrides"), Overrides)


@cache
def editions() -> dict[str, Edition]:
    """Return the editions by name."""
    found = msgspec.convert(_toml("editions"), dict[str, Edition])
    assert tuple(found) == EDITIONS
    return found


def training_models(edition: str, division: str) -> dict[str, tuple[str, ...]]:
    """Return the models of a division of an edition, each with its accelerators."""
    legal = (CLOSED, WHATIF) if division == WHATIF else (CLOSED,)
    found = {
        name: tuple(kind for kind, entry in model.accelerators.items() if entry.status.get(edition) in legal)
        for name, model in models().training.items()
    }
    return {name: kinds for name, kinds in found.items() if kinds}


def override_breach(family: str, division: str, model: str, key: str, value: object) -> str:
    """Return why `key` may not be overridden with `value`, nothing when it may.

    An unknown key is always a breach, and the nearest known one is told.
    """
    table = overrides().family(family)
    if key in overrides().tool_keys:
        return ""
    allowed = [*(table.open if division == OPEN else ()), *table.closed]
    entry = next((each for each in allowed if each.key == key), None)
    if entry is not None:
        return _value_breach(entry, model, value)
    if key in table.known or any(each.key == key for each in table.open):
        return f"{key} may not be changed in {division}"
    every = [*table.known, *overrides().tool_keys, *(each.key for each in (*table.closed, *table.open))]
    close = nearest(key, every)
    return f"{key} is unknown" + (f"; did you mean {close}?" if close else "")


def _value_breach(entry: Override, model: str, value: object) -> str:
    if entry.models and model not in entry.models:
        return f"{entry.key} may be changed for {', '.join(entry.models)} only"
    if entry.values and not any(_same(value, legal) for legal in entry.values):
        return f"{entry.key} must be one of {', '.join(map(str, entry.values))}"
    if entry.minimum is not None and not _at_least(value, entry.minimum):
        return f"{entry.key} must be a number from {entry.minimum:g} on"
    return ""


def _same(value: object, legal: int | float | str) -> bool:
    """Compare as the command line does: a number may stand as text."""
    if isinstance(value, bool):
        return False
    return str(value).strip() == str(legal)


def _at_least(value: object, minimum: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        return float(value) >= minimum
    except (ValueError, OverflowError):
        return False


def edition_of(version: str) -> str:
    """Return the edition that a version such as `3.0`, `v3.0` or `3.0.2` is of. Raises UsageError."""
    found = re.fullmatch(r"v?(\d+\.\d+)(\.\d+)*", version, re.ASCII)
    if found is None or found[1] not in EDITIONS:
        raise UsageError("no such edition of the rules", where=version, expected=", ".join(EDITIONS))
    return found[1]
