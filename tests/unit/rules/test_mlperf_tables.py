"""The tables say what the rules say: sizes, models, overrides; and they agree with the benchmark's own catalogue."""

import math

import pytest

from stoker.bench.rules.mlperf import tables
from stoker.bench.rules.mlperf.formulas import (
    CORE_HASH_DIGITS,
    checkpoint_bytes,
    comparability_class,
    core_hash,
    core_values,
    files_needed,
    parameter_count,
)
from stoker.bench.rules.mlperf.tables import models, override_breach, training_models
from stoker.bench.workloads.catalogue.entries import CatalogueEntry
from stoker.core.units import GiB


@pytest.mark.parametrize(
    ("model", "kind", "hosts", "memory", "accelerators", "by_bytes", "by_steps"),
    [
        ("unet3d", "b200", 1, 512, 8, 18_751, 28_000),
        ("unet3d", "b200", 4, 256, 64, 37_501, 224_000),
        ("retinanet", "b200", 1, 512, 8, 8_511_285, 96_000),
        ("retinanet", "b200", 1, 377, 40, 6_267_099, 480_000),
        ("resnet50", "h100", 2, 128, 16, 9_582, 2_558),
        ("cosmoflow", "h100", 2, 128, 16, 485_910, 8_000),
    ],
)
def test_files_needed(model, kind, hosts, memory, accelerators, by_bytes, by_steps) -> None:
    entry = models().training[model]
    batch = entry.accelerators[kind].batch_size
    memory_bytes = hosts * memory * GiB
    assert files_needed(entry, accelerators=accelerators, batch_size=batch, memory_bytes=memory_bytes) == (
        by_bytes,
        by_steps,
    )


@pytest.mark.parametrize(
    ("model", "parameters", "total_gib", "processes"),
    [
        ("llama3-8b", 8_030_261_248, 104.70, 8),
        ("llama3-70b", 69_882_617_856, 911.21, 64),
        ("llama3-405b", 405_853_388_800, 5_292.25, 512),
        ("llama3-1t", 1_183_035_102_480, 15_426.59, 1_024),
    ],
)
def test_checkpoint_sizes(model: str, parameters: int, total_gib: float, processes: int) -> None:
    entry = models().checkpointing[model]
    assert parameter_count(entry) == parameters
    assert checkpoint_bytes(entry) / GiB == pytest.approx(total_gib, abs=0.01)
    assert entry.processes == processes


def test_models_of_editions_and_divisions() -> None:
    assert training_models("3.0", "closed") == {"unet3d": ("b200",), "retinanet": ("b200", "mi355")}
    assert training_models("3.0", "open") == training_models("3.0", "closed")
    assert set(training_models("3.0", "whatif")) == {"unet3d", "retinanet", "cosmoflow", "resnet50", "dlrm", "flux"}
    assert set(training_models("2.0", "closed")) == {"unet3d", "resnet50", "cosmoflow"}
    assert training_models("2.0", "closed")["unet3d"] == ("a100", "h100")


@pytest.mark.parametrize("model", list(models().training))
def test_models_agree_with_the_catalogue_of_workloads(model: str) -> None:
    from stoker.bench.workloads.catalogue.entries import entry

    ours = models().training[model]
    for kind, accelerator in ours.accelerators.items():
        other: CatalogueEntry = entry(model, kind)
        assert (ours.framework, ours.data_loader, ours.format) == (other.framework, other.data_loader, other.format)
        assert (ours.samples_per_file, ours.epochs) == (other.samples_per_file, other.epochs)
        assert math.isclose(ours.record_length_bytes, other.record_length_bytes)
        assert math.isclose(ours.record_length_stdev_bytes, other.record_length_stdev_bytes)
        assert ours.au_threshold_ratio == other.au_threshold_ratio
        assert accelerator.batch_size == other.batch_size
        assert math.isclose(accelerator.computation_seconds, other.computation_seconds)
        known = {edition.removeprefix("v"): status for edition, status in other.status.items()}
        assert {edition: accelerator.status[edition] for edition in known} == known


@pytest.mark.parametrize(
    ("family", "division", "model", "key", "value", "told"),
    [
        ("training", "closed", "unet3d", "reader.prefetch_size", "2", ""),
        ("training", "closed", "unet3d", "reader.prefetch_size", 3, "must be one of 0, 1, 2"),
        ("training", "closed", "unet3d", "reader.prefetch_size", True, "must be one of"),
        ("training", "closed", "unet3d", "reader.odirect", True, ""),
        ("training", "closed", "retinanet", "reader.odirect", True, "unet3d only"),
        ("training", "closed", "unet3d", "reader.read_threads", 0, "from 1 on"),
        ("training", "closed", "unet3d", "reader.read_threads", "many", "from 1 on"),
        ("training", "closed", "unet3d", "reader.read_thread", 4, "did you mean reader.read_threads?"),
        ("training", "open", "unet3d", "qqqq", 4, "qqqq is unknown"),
        ("training", "closed", "unet3d", "framework", "tensorflow", "may not be changed in closed"),
        ("training", "open", "unet3d", "framework", "tensorflow", ""),
        ("training", "open", "unet3d", "train.epochs", 1, "may not be changed in open"),
        ("training", "closed", "unet3d", "dataset.skip_listing", True, ""),
        ("checkpointing", "closed", "llama3-8b", "checkpoint.num_checkpoints_write", 5, "must be one of 0, 10"),
        ("checkpointing", "open", "llama3-8b", "checkpoint.num_checkpoints_write", 5, "must be one of 0, 10"),
        ("vector_database", "closed", "HNSW", "index.index_type", "IVF_FLAT", "must be one of DISKANN"),
        ("vector_database", "open", "HNSW", "index.index_type", "IVF_FLAT", ""),
        ("kv_cache", "closed", "", "num_users", 5, "may not be changed in closed"),
        ("kv_cache", "open", "", "num_users", 5, ""),
    ],
)
def test_overrides(family, division, model, key, value, told) -> None:
    breach = override_breach(family, division, model, key, value)
    if division == "open" and "num_checkpoints" in key:
        assert breach == ""  # counts are free in open
    else:
        assert told in breach
        assert bool(told) == bool(breach)


def test_editions_count_runs() -> None:
    assert {name: edition.training_runs for name, edition in tables.editions().items()} == {
        "1.0": 5,
        "2.0": 6,
        "3.0": 6,
    }


CONFIG = {
    "framework": "pytorch",
    "metric": {"au": 0.9},
    "model": {"name": "unet3d", "shape": {"a": 1}},
    "dataset": {"format": "npz", "num_files_train": 10, "record_length_bytes": 5.0},
    "reader": {"batch_size": 7, "read_threads": 4},
    "train": {"epochs": 5},
    "checkpoint": {"checkpoint_folder": "/a", "fsync": True},
}


def test_core_holds_what_decides_the_workload_and_nothing_else() -> None:
    assert set(core_values("training", CONFIG)) == {
        "framework",
        "metric.au",
        "model.name",
        "model.shape.a",
        "dataset.format",
        "dataset.record_length_bytes",
        "reader.batch_size",
        "train.epochs",
        "checkpoint.fsync",
    }


def test_core_hash_ignores_what_may_vary_and_notices_what_may_not() -> None:
    before = core_hash("training", CONFIG)
    assert len(before) == CORE_HASH_DIGITS
    free = {**CONFIG, "reader": {"batch_size": 7.0, "read_threads": 8}, "dataset": {**CONFIG["dataset"]}}
    free["dataset"]["num_files_train"] = 99
    assert core_hash("training", free) == before
    assert core_hash("training", {**CONFIG, "train": {"epochs": 6}}) != before
    assert core_hash("checkpointing", CONFIG) != before


def test_comparability_class_parts() -> None:
    facts = {"edition": "3.0", "division": "closed", "family": "training", "model": "unet3d", "accelerator": "b200"}
    one = comparability_class(**facts, core="0" * 16)
    assert one == comparability_class(**facts, core="0" * 16)
    for key in facts:
        assert comparability_class(**{**facts, key: "x"}, core="0" * 16) != one
