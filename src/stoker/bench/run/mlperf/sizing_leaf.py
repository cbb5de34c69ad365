"""`datasize`: how large a dataset has to be, what to type next, and a leaf that later commands and the judge read."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from stoker.bench.report.submission import write_leaf
from stoker.bench.rules.mlperf.formulas import bytes_of_gib
from stoker.bench.rules.mlperf.sizing import (
    CheckpointSize,
    KvSize,
    TrainingSize,
    VectorSize,
    checkpoint_size,
    kv_option_size,
    kv_size,
    training_size,
    vector_size,
)
from stoker.bench.rules.mlperf.tables import models
from stoker.bench.run.dlio import to_plan
from stoker.bench.run.mlperf.facts import leaf_facts
from stoker.bench.run.mlperf.prepare import Prepared, measured_memory_bytes
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.rows import CHECKPOINTING, CLOSED, KVCACHE, TRAINING, VECTORDB
from stoker.core import clock

Size = TrainingSize | CheckpointSize | VectorSize | KvSize


def sizes_of(invocation: Invocation) -> list[Size]:
    """Return what a command's dataset, checkpoints, vectors or caches take. Raises UsageError for what does not fit."""
    place = invocation.place
    if place.family == TRAINING:
        return [_training(invocation)]
    if place.family == VECTORDB:
        return [_vectors(invocation)]
    return [_checkpoints(invocation)] if place.family == CHECKPOINTING else [*cache_sizes(invocation)]


def _checkpoints(invocation: Invocation) -> CheckpointSize:
    return checkpoint_size(
        invocation.place.model,
        processes=invocation.ranks,
        hosts=invocation.host_count,
        subset=bool(invocation.value("checkpoint_subset")),
        writes=invocation.value("num_checkpoints_write"),
        reads=invocation.value("num_checkpoints_read"),
        memory_bytes_per_host=bytes_of_gib(invocation.value("client_host_memory_in_gb")),
    )


def _training(invocation: Invocation) -> TrainingSize:
    return training_size(
        invocation.place.model,
        str(invocation.value("accelerator_type")),
        accelerators=invocation.ranks,
        hosts=invocation.host_count,
        memory_bytes_per_host=bytes_of_gib(invocation.value("client_host_memory_in_gb")),
        measured_memory_bytes=measured_memory_bytes(invocation),
    )


def next_command(invocation: Invocation, size: TrainingSize, words: list[str]) -> str:
    """Return the full datagen command to run next: `words` are the datasize command's own options that go on."""
    place = invocation.place
    told = ["stoker", "mlperf", place.division, place.family, place.model, "datagen", "file"]
    told += ["--num-processes", str(min(16, size.files)), *words]
    if invocation.value("data_dir") is None:
        told += ["--data-dir", "DATA_DIR"]
    told += ["--params", f"dataset.num_files_train={size.files}"]
    if size.subfolders:
        told.append(f"dataset.num_subfolders_train={size.subfolders}")
    return shlex.join(told)


def onward_words(invocation: Invocation) -> list[str]:
    """Return the options of a datasize that its datagen takes over: where, for which system, on which hosts."""
    told = []
    for name in ("results_dir", "systemname", "data_dir"):
        if invocation.given(name):
            told += [f"--{name.replace('_', '-')}", str(invocation.value(name))]
    if invocation.given("hosts"):
        told += ["--hosts", ",".join(host.name for host in invocation.hosts)]
    return told


def needed_bytes(prepared: Prepared) -> int:
    """Return the bytes that a command will write: a dataset, or checkpoints; a run of a ready dataset writes none.

    A dataset that was begun, or checkpoints that are written anew, need what is missing: the engine knows that, and
    looks for it, by itself.
    """
    invocation = prepared.invocation
    if invocation.place.family == KVCACHE:  # the cache makes do with what is there, if each client can hold an entry
        return max(size.largest_entry_bytes * size.clients for size in cache_sizes(invocation))
    if invocation.place.family == CHECKPOINTING:
        assert prepared.config is not None
        folder = Path(prepared.target.folder) if prepared.target.folder else None
        there = folder is not None and folder.is_dir() and any(folder.iterdir())
        return 0 if there else math.ceil(to_plan(prepared.config, invocation.ranks).plan.predicted.get("room_bytes", 0))
    if invocation.place.family == VECTORDB:
        return _vectors(invocation).total_bytes if invocation.place.command == "datagen" else 0
    if invocation.place.command != "datagen" or prepared.extent.files is None or prepared.extent.made is not None:
        return 0
    return math.ceil(prepared.extent.files * models().training[invocation.place.model].file_bytes)


def keep_size(prepared: Prepared, sizes: Sequence[Size], words: list[str], code_image: str) -> Path:
    """Write the leaf of a datasize and return its path."""
    invocation, home = prepared.invocation, prepared.home
    place = invocation.place
    model = place.model or str(invocation.value("model") or getattr(sizes[0], "model", ""))
    engine = str(invocation.value("vdb_engine") or "")
    stamp, leaf = home.new_leaf(place.division, prepared.system, place.family, model, place.command, engine)
    facts = leaf_facts(
        prepared,
        stamp,
        model=model,
        code_image=code_image,
        executed_command=shlex.join(["stoker", *words]),
        started_text=clock.local_text("%Y-%m-%dT%H:%M:%S"),
        parameters=_dataset(sizes[0]),
        extra=_extra(invocation, sizes),
    )
    name = f"{place.rules_family}_{place.command}"
    (leaf / f"{name}.stdout.log").write_text("".join(f"{size.sentence}\n" for size in sizes))
    (leaf / f"{name}.stderr.log").write_text("".join(f"{note}\n" for size in sizes for note in notes_of(size)))
    write_leaf(leaf, facts, run_folder=None)
    return leaf


def notes_of(size: Size) -> tuple[str, ...]:
    """Return what is to be noted of a size."""
    return size.notes if isinstance(size, TrainingSize | CheckpointSize) else ()


def _dataset(size: Size) -> dict[str, Any]:
    """Return what the metadata of a training's datasize have of the dataset; nothing for other families."""
    if not isinstance(size, TrainingSize):
        return {}
    counts = {"num_files_train": size.files, "num_subfolders_train": size.subfolders}
    return {"dataset": {**counts, "total_disk_bytes": round(size.total_bytes)}}


def _extra(invocation: Invocation, sizes: Sequence[Size]) -> dict[str, Any]:
    extra: dict[str, Any] = {"datasize": [msgspec.to_builtins(size) for size in sizes]}
    measured = measured_memory_bytes(invocation)
    if measured is not None:
        extra["system_info"] = {"num_hosts": 1, "total_memory_bytes": int(measured), "collection_method": "local"}
    return extra


def _vectors(invocation: Invocation) -> VectorSize:
    return vector_size(
        invocation.place.model,
        vectors=invocation.value("num_vectors"),
        dimension=invocation.value("dimension"),
        dtype=invocation.value("vector_dtype"),
    )


def cache_sizes(invocation: Invocation) -> list[KvSize]:
    """Return what the cache takes: closed fixes three workloads, the other divisions tell one."""
    clients = invocation.ranks
    if invocation.place.division == CLOSED:
        return [kv_option_size(option, clients=clients) for option in models().kv_cache.options]
    told = {name: invocation.value(name) for name in ("model", "num_users", "gpu_mem_gb", "cpu_mem_gb")}
    return [
        kv_size(
            told["model"],
            users=told["num_users"],
            clients=clients,
            gpu_memory_gb=told["gpu_mem_gb"],
            cpu_memory_gb=told["cpu_mem_gb"],
        )
    ]
