"""The workloads that come with the package: DLIO's 24 as YAML files, newer ones from the catalogue and the rules."""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from stoker.bench.rules.mlperf.tables import CheckpointModel, models
from stoker.bench.run.dlio.tree import SHIPPED, Origin, Tree, planted
from stoker.bench.run.dlio.yaml_text import load_text
from stoker.bench.workloads import catalogue
from stoker.bench.workloads.catalogue import CatalogueEntry
from stoker.core.errors import UnknownNameError
from stoker.core.registry import nearest

_SUFFIX: Final = ".yaml"


@cache
def _texts() -> dict[str, str]:
    folder = files("stoker.bench.run.dlio") / "workloads"
    found = [file for file in folder.iterdir() if file.name.endswith(_SUFFIX)]
    return {file.name.removesuffix(_SUFFIX): file.read_text(encoding="utf-8") for file in found}


def _entries() -> dict[str, CatalogueEntry]:
    """Return the catalogue's entries that DLIO ships no file for, by the names of the MLPerf templates."""
    named = {f"{entry.model}_{entry.accelerator}": entry for entry in catalogue.entries()}
    return {name: entry for name, entry in named.items() if name not in _texts()}


@cache
def _checkpoints() -> dict[str, CheckpointModel]:
    """Return the checkpointing models of the rules by the names of their templates, such as `llama3_8b`."""
    return {name.replace("-", "_"): model for name, model in models().checkpointing.items()}


def shipped_names() -> list[str]:
    """Return every workload name that needs no file of the user's, sorted."""
    return sorted([*_texts(), *_entries(), *_checkpoints()])


def load_shipped(name: str) -> Tree:
    """Return the shipped workload `name`. Raises UnknownNameError with the nearest name for an unknown one."""
    if name in _texts():
        return load_text(_texts()[name], f"{name}{_SUFFIX}", kind=SHIPPED)
    entry = _entries().get(name)
    if entry is not None:
        tree = planted(entry_workload(entry), Origin(SHIPPED, f"catalogue {entry.model}/{entry.accelerator}"))
        assert isinstance(tree, dict)
        return tree
    model = _checkpoints().get(name)
    if model is not None:
        tree = planted(checkpoint_workload(name, model), Origin(SHIPPED, f"checkpointing model {name}"))
        assert isinstance(tree, dict)
        return tree
    close = nearest(name, shipped_names())
    raise UnknownNameError(
        "no workload",
        where=name,
        remedy=(f"did you mean {close!r}? " if close else "")
        + f"a file needs --config-dir=DIR with DIR/workload/{name}.yaml; shipped: {', '.join(shipped_names())}",
    )


def checkpoint_workload(name: str, model: CheckpointModel) -> dict[str, Any]:
    """Return a checkpointing model as a DLIO workload: ten checkpoints written, ten read, five seconds between."""
    return {
        "model": {
            "name": name,
            "type": "transformer",
            "num_layers": model.layers,
            "model_datatype": "fp16",
            "optimizer_datatype": "fp32",
            "parallelism": {
                "tensor": model.tensor,
                "pipeline": model.pipeline,
                "zero_stage": model.zero_stage,
            },
            "transformer": {
                "vocab_size": model.vocab_size,
                "hidden_size": model.hidden_size,
                "ffn_hidden_size": model.ffn_hidden_size,
                "num_attention_heads": model.attention_heads,
                "num_kv_heads": model.kv_heads,
            },
        },
        "framework": "pytorch",
        "workflow": {"generate_data": False, "train": False, "checkpoint": True},
        "checkpoint": {
            "checkpoint_folder": f"checkpoints/{name}",
            "time_between_checkpoints": 5,
            "num_checkpoints_write": 10,
            "num_checkpoints_read": 10,
            "fsync": True,
        },
    }


def entry_workload(entry: CatalogueEntry) -> dict[str, Any]:
    """Return a catalogue entry as a DLIO workload."""
    dataset: dict[str, Any] = {
        "format": entry.format,
        "data_folder": f"data/{entry.model}",
        "num_files_train": entry.files,
        "num_samples_per_file": entry.samples_per_file,
        "record_length_bytes": entry.record_length_bytes,
    }
    if entry.record_length_stdev_bytes:
        dataset["record_length_bytes_stdev"] = entry.record_length_stdev_bytes
    if entry.record_resize_bytes:
        dataset["record_length_bytes_resize"] = entry.record_resize_bytes
    if entry.columns:
        dataset["parquet"] = {"columns": entry.parquet_columns()}
    if entry.row_group_rows:
        dataset["parquet"]["row_group_size"] = entry.row_group_rows
    return {
        "model": {"name": entry.model},
        "framework": entry.framework,
        "workflow": {"generate_data": False, "train": True, "checkpoint": False},
        "dataset": dataset,
        "reader": {
            "data_loader": entry.data_loader,
            "batch_size": entry.batch_size,
            "read_threads": entry.read_threads,
            "computation_threads": entry.computation_threads,
            "prefetch_size": entry.prefetch_batches,
            "file_shuffle": entry.file_shuffle,
            "sample_shuffle": entry.sample_shuffle,
        },
        "train": {"epochs": entry.epochs, "computation_time": entry.computation_seconds},
        "metric": {"au": entry.au_threshold_ratio},
    }
