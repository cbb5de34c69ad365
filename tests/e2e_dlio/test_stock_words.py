"""DLIO and we understand the same words, and tell what came of them under the same keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from dlio_commands import CONFIG_FOLDER, Place, tiny
from dlio_schema import hydra_file
from stock_dlio import needs_stock, resolved, stock, stock_python

from stoker.bench.run.dlio import compose, resolve, shipped_names

pytestmark = [needs_stock, pytest.mark.slow]
# Loads every workload named on the command line the way DLIO does, and prints its attributes.
RESOLVER = """
import json, sys
from enum import Enum
from pathlib import Path
import dlio_benchmark
from hydra import compose, initialize_config_dir
from dlio_benchmark.utils.config import ConfigArguments, LoadConfig
from dlio_benchmark.utils.utility import DLIOMPI

DLIOMPI.get_instance().initialize()
folder = str(Path(dlio_benchmark.__file__).parent / "configs")
found = {}
with initialize_config_dir(folder, version_base=None):
    for name in sys.argv[2].split(","):
        ConfigArguments.reset()
        args = ConfigArguments.get_instance()
        LoadConfig(args, compose("config", [f"workload={name}"])["workload"])
        values = {attribute: getattr(args, attribute) for attribute in sys.argv[1].split(",")}
        found[name] = {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
print(json.dumps(found))
"""
# our path → DLIO's attribute
ATTRIBUTES = {
    "model.name": "model",
    "framework": "framework",
    "workflow.generate_data": "generate_data",
    "workflow.train": "do_train",
    "workflow.evaluation": "do_eval",
    "workflow.checkpoint": "do_checkpoint",
    "dataset.format": "format",
    "dataset.data_folder": "data_folder",
    "dataset.file_prefix": "file_prefix",
    "dataset.num_files_train": "num_files_train",
    "dataset.num_files_eval": "num_files_eval",
    "dataset.num_samples_per_file": "num_samples_per_file",
    "dataset.num_subfolders_train": "num_subfolders_train",
    "dataset.num_subfolders_eval": "num_subfolders_eval",
    "dataset.record_length_bytes": "record_length",
    "dataset.record_length_bytes_stdev": "record_length_stdev",
    "dataset.record_length_bytes_resize": "record_length_resize",
    "dataset.generation_buffer_size": "generation_buffer_size",
    "dataset.compression": "compression",
    "dataset.keep_files": "keep_files",
    "dataset.record_element_type": "record_element_type",
    "reader.data_loader": "data_loader",
    "reader.batch_size": "batch_size",
    "reader.batch_size_eval": "batch_size_eval",
    "reader.read_threads": "read_threads",
    "reader.computation_threads": "computation_threads",
    "reader.prefetch_size": "prefetch_size",
    "reader.shuffle_size": "shuffle_size",
    "reader.sample_shuffle": "sample_shuffle",
    "reader.transfer_size": "transfer_size",
    "reader.odirect": "odirect",
    "train.epochs": "epochs",
    "train.total_training_steps": "total_training_steps",
    "train.seed": "seed",
    "train.seed_change_epoch": "seed_change_epoch",
    "evaluation.eval_after_epoch": "eval_after_epoch",
    "evaluation.epochs_between_evals": "epochs_between_evals",
    "checkpoint.checkpoint_folder": "checkpoint_folder",
    "checkpoint.checkpoint_after_epoch": "checkpoint_after_epoch",
    "checkpoint.epochs_between_checkpoints": "epochs_between_checkpoints",
    "checkpoint.steps_between_checkpoints": "steps_between_checkpoints",
    "checkpoint.num_checkpoints_write": "num_checkpoints_write",
    "checkpoint.num_checkpoints_read": "num_checkpoints_read",
    "model.model_size_bytes": "model_size",
    "model.num_layers": "num_layers",
    "model.parallelism.tensor": "tensor_parallelism",
    "model.parallelism.pipeline": "pipeline_parallelism",
    "model.parallelism.zero_stage": "zero_stage",
    "output.metric.exclude_start_steps": "metric_exclude_start_steps",
    "output.metric.exclude_end_steps": "metric_exclude_end_steps",
    "metric.au": "au",
}
DURATIONS = {"train.computation_time": "computation_time", "evaluation.eval_time": "eval_time"}
QUERIES = ("dataset.num_files_train", "train.computation_time", "reader.batch_size", "reader.file_shuffle")
EVALUATED = tiny(
    "npz",
    workflow={"evaluation": True},
    dataset={"num_files_eval": 4, "data_folder": "data"},
    reader={"batch_size_eval": 2},
    evaluation={"eval_time": 0.005},
)


@pytest.fixture
def stock_shipped(place: Place) -> dict[str, dict[str, Any]]:
    """Return what DLIO makes of the workloads that both ship, by name and attribute."""
    script = "import dlio_benchmark, json, pathlib; print(json.dumps([file.stem for file in "
    script += "(pathlib.Path(dlio_benchmark.__file__).parent / 'configs/workload').glob('*.yaml')]))"
    names = sorted(resolved(place, script))
    assert set(names) <= set(shipped_names())
    attributes = ",".join((*ATTRIBUTES.values(), *DURATIONS.values()))
    found: dict[str, dict[str, Any]] = resolved(place, RESOLVER, attributes, ",".join(names))
    return found


def test_every_workload_that_both_ship_resolves_to_the_same_values(stock_shipped: dict[str, dict[str, Any]]) -> None:
    assert len(stock_shipped) >= 24
    different = []
    for name, theirs in stock_shipped.items():
        (composition,) = compose([f"workload={name}"])
        ours = resolve(composition)
        for path, attribute in ATTRIBUTES.items():
            if same(ours.value(path), theirs[attribute]):
                continue
            different.append((name, path, ours.value(path), theirs[attribute]))
        for path, attribute in DURATIONS.items():
            if duration(ours.value(path), ours.value(f"{path}_stdev")) != duration(theirs[attribute], None):
                different.append((name, path, ours.value(path), theirs[attribute]))
    assert different == []


def same(ours: Any, theirs: Any) -> bool:
    """Tell whether two values mean the same: an absent one may be empty, a folder may end in a slash."""
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours.rstrip("/") == theirs.rstrip("/")
    return bool(ours == theirs) or (not ours and not theirs)


def duration(value: Any, stdev: Any) -> dict[str, Any]:
    """Return a duration as DLIO keeps it; a missing or zero one is empty."""
    whole = dict(value) if isinstance(value, dict) else {"mean": value} if value else {}
    if stdev:
        whole["stdev"] = stdev
    return whole


@pytest.mark.parametrize("key", QUERIES)
def test_a_query_is_answered_alike(place: Place, key: str) -> None:
    place.workload("mine", tiny("npz", reader={"file_shuffle": "seed"}))
    words = ["workload=mine", f"++workload.workflow.query={key}", f"--config-dir={CONFIG_FOLDER}"]
    program = (
        "import sys; sys.argv[0] = 'dlio_benchmark_query'; from dlio_benchmark.main import query_config; query_config()"
    )
    theirs = stock_python(place, "-c", program, *words)
    assert theirs.code == 0, theirs.errors
    assert place.stoker("dlio", *words).out.strip() == theirs.out.splitlines()[-1].strip()


@pytest.fixture
def both_outputs(tmp_path: Path) -> tuple[Place, Place]:
    """Run the same workload with evaluation by both; return the places: ours and theirs."""
    places = Place(tmp_path / "ours"), Place(tmp_path / "theirs")
    for place in places:
        place.folder.mkdir()
        place.workload("mine", EVALUATED)
    assert places[0].dlio("workload=mine").code in (0, 3)
    stock(places[1], "workload=mine")
    return places


def missing(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return the paths where ours lacks a key of theirs, or has a value of another type."""
    if type(ours) is not type(theirs):
        return [f"{path}: {type(ours).__name__} instead of {type(theirs).__name__}"]
    if isinstance(theirs, list):
        return missing(ours[0], theirs[0], f"{path}[0]") if ours and theirs else []
    if not isinstance(theirs, dict) or path.endswith(("host_cpuinfo", "host_meminfo")):
        return []
    found = [f"{path}.{key} is missing" for key in theirs if key not in ours]
    return found + [text for key in theirs if key in ours for text in missing(ours[key], theirs[key], f"{path}.{key}")]


def test_the_output_files_have_all_keys_of_dlios_with_the_same_types(both_outputs: tuple[Place, Place]) -> None:
    ours, theirs = both_outputs
    listed = [{file.name for file in (place.folder / "out").iterdir()} for place in both_outputs]
    assert listed[1] <= listed[0]
    for name in ("summary.json", "0_output.json", "0_per_epoch_stats.json"):
        assert missing(ours.json(name), theirs.json(name)) == []
    for name in ("config.yaml", "overrides.yaml"):
        assert hydra_file(ours, name) == hydra_file(theirs, name)
    both_hydra = [hydra_file(place, "hydra.yaml")["hydra"] for place in (ours, theirs)]
    for key in ("run", "output_subdir", "mode"):
        assert both_hydra[0][key] == both_hydra[1][key]
    assert both_hydra[0]["overrides"]["task"] == both_hydra[1]["overrides"]["task"]
    assert both_hydra[0]["runtime"]["choices"]["workload"] == both_hydra[1]["runtime"]["choices"]["workload"]


def test_the_same_run_takes_as_many_steps_in_both(both_outputs: tuple[Place, Place]) -> None:
    counts = []
    for place in both_outputs:
        output = place.json("0_output.json")
        counts.append({epoch: [len(output[epoch]["load"][part]) for part in ("block1", "eval")] for epoch in "12"})
    assert counts[0] == counts[1] == {"1": [4, 2], "2": [4, 2]}
    metrics = [place.json("summary.json")["metric"] for place in both_outputs]
    assert json.dumps(sorted(metrics[0])) == json.dumps(sorted(metrics[1]))
