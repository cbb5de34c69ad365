"""Trees with one thing wrong, each with exactly the rules that must tell of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlperf_places import GONE, Spot

SYSTEM = "closed/example/systems/sysA.yaml"
ROOT_OF_RESULTS = "closed/example/results/sysA"
TRAINING = f"{ROOT_OF_RESULTS}/training/unet3d"
RUNS = f"{TRAINING}/run/*"
CHECKPOINT = f"{ROOT_OF_RESULTS}/checkpointing/llama3-8b"
SPLIT = f"{ROOT_OF_RESULTS}/checkpointing/llama3-70b"
OPEN_CHECKPOINT = "open/example/results/sysA/checkpointing/llama3-70b"
VECTORS = f"{ROOT_OF_RESULTS}/vector_database/milvus/DISKANN"
KV = f"{ROOT_OF_RESULTS}/kv_cache/llama3.1-8b/run/*"
OPEN_KV = "open/example/results/sysA/kv_cache/tiny-1b/run/*"
OPEN_TRAINING = "open/example/results/sysA/training/retinanet"
OPEN_VECTORS = "open/example/results/sysA/vector_database/milvus/IVF_FLAT"
IMAGE = "code-images/code-01234567"
SOLUTION = "system_under_test.solution"
OVERRIDES = "override_parameters|"
OTHER_DIGEST = "f" * 32


@dataclass(frozen=True)
class Broken:
    """A spoiled tree: from which valid one, how, and the rules that must be found, no others."""

    name: str
    base: str
    rules: frozenset[str]
    spoil: Callable[[Spot], Any]
    checksum: str = ""


CORPUS: list[Broken] = []


def broken(name: str, base: str, rules: str, spoil: Callable[[Spot], Any], checksum: str = "") -> None:
    CORPUS.append(Broken(name, base, frozenset(rules.split()), spoil, checksum))


def scale(factor: float) -> Callable[[Any], Any]:
    return lambda old: [each * factor for each in old] if isinstance(old, list) else old * factor


def speed(spot: Spot, factor: float, *, only: int) -> Spot:
    """Scale the throughput of one run, in all its figures."""
    keys = ("throughput_samples_per_second", "throughput_mean_samples_per_second", "io_mean_MB_per_second")
    for key in keys:
        spot.put(f"{RUNS}/summary.json", f"metric.train_{key}", scale(factor), only=only)
    return spot


def second_generation(spot: Spot) -> None:
    spot.root.joinpath(f"{TRAINING}/datagen/20260302_235959").mkdir()
    first = spot.find(f"{TRAINING}/datagen/*")[0]
    import shutil

    shutil.copytree(first, spot.root / f"{TRAINING}/datagen/20260302_235959", dirs_exist_ok=True)
    spot.put(f"{TRAINING}/datagen/20260302_235959/*_metadata.json", "run_datetime", "20260302_235959")


def same_start(spot: Spot) -> None:
    import json

    start = json.loads(spot.find(f"{RUNS}/summary.json")[2].read_text())["start"]
    spot.put(f"{RUNS}/summary.json", "start", start, only=3)


def renamed_model(spot: Spot) -> None:
    spot.move(CHECKPOINT, f"{ROOT_OF_RESULTS}/checkpointing/llama2-7b")
    spot.put(f"{ROOT_OF_RESULTS}/checkpointing/*/*/*_metadata.json", "model", "llama2-7b").manifest()


# The root, divisions, submitters
broken("no_sentinel", "training", "1.1", lambda s: s.drop("mlperf-results.yaml"))
broken("sentinel_version", "training", "1.1", lambda s: s.put("mlperf-results.yaml", "mlperf_results_version", 7))
broken("other_org", "training", "2.1.1", lambda s: s.put("mlperf-results.yaml", "orgname", "Another One"))
broken("whatif_beside", "training", "2.1.2", lambda s: s.folder("whatif"))
broken("loose_file_at_top", "training", "2.1.2", lambda s: s.write("notes.txt"))
broken("stray_in_open", "open_training", "2.1.3", lambda s: s.folder(f"{OPEN_TRAINING}/run/first_try"))
broken("empty_division", "training", "2.1.4", lambda s: s.folder("open"))
broken("loose_file_in_division", "training", "2.1.4", lambda s: s.write("closed/log.txt"))
broken("no_systems_closed", "training", "2.1.5.a", lambda s: s.drop("closed/example/systems"))
broken("extra_folder_closed", "training", "2.1.5.a", lambda s: s.folder("closed/example/documents"))
broken("no_systems_open", "open_training", "2.1.5.b", lambda s: s.drop("open/example/systems"))
broken("extra_file_open", "open_training", "2.1.5.b", lambda s: s.write("open/example/script.sh"))
broken("short_digest", "training", "2.1.6", lambda s: s.put(f"{IMAGE}/.code-hash.json", "hash", "0123"))
broken("digest_file_gone", "training", "2.1.6", lambda s: s.drop(f"{IMAGE}/.code-hash.json"))
broken(
    "described_without_results",
    "training",
    "2.1.8",
    lambda s: s.write("closed/example/systems/sysB.yaml", s.find(SYSTEM)[0].read_bytes()).write(
        "closed/example/systems/sysB.pdf"
    ),
)
broken(
    "another_machine",
    "training",
    "2.1.9",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "system_info.hosts.0.cpu.num_logical_cores", 128, only=2),
)
broken("unknown_workload", "training", "2.1.10", lambda s: s.folder(f"{ROOT_OF_RESULTS}/inference"))
broken("model_of_another_edition", "old_model", "2.1.11", lambda s: s)
broken("stray_in_closed", "training", "2.1.27", lambda s: s.folder(f"{TRAINING}/run/old"))
broken(
    "run_without_phase",
    "training",
    "2.1.27 2.1.17 PROV-02",
    lambda s: s.move(f"{s.find(RUNS)[5].relative_to(s.root)}", f"{TRAINING}/20260303_101010"),
)

# Systems
broken("no_picture", "training", "2.1.7", lambda s: s.drop("closed/example/systems/sysA.pdf"))
broken("stray_in_systems", "training", "2.1.7", lambda s: s.write("closed/example/systems/sysA.docx"))
broken("unknown_key", "training", "2.1.7", lambda s: s.put(SYSTEM, f"{SOLUTION}.colour", "blue"))
broken("missing_key", "training", "2.1.7", lambda s: s.put(SYSTEM, f"{SOLUTION}.usable_capacity_tib", GONE))
broken("small_capacity", "training", "2.1.7", lambda s: s.put(SYSTEM, f"{SOLUTION}.usable_capacity_tib", 0.5))
broken("unknown_availability", "training", "2.1.7", lambda s: s.put(SYSTEM, f"{SOLUTION}.availability", "soon"))
broken("rack_units", "training", "2.1.7", lambda s: s.put(SYSTEM, "system_under_test.total_rack_units", 6))
broken("in_a_cloud_with_racks", "training", "2.1.7", lambda s: s.put(SYSTEM, "system_under_test.deployment", "cloud"))
broken(
    "footprint_without_installation",
    "training",
    "2.1.7",
    lambda s: s.put(SYSTEM, f"{SOLUTION}.architecture.client_footprint", "n/a"),
)
broken(
    "too_many_active_supplies",
    "training",
    "2.1.7",
    lambda s: s.put(SYSTEM, "system_under_test.product_nodes.0.chassis.power.min_psus_active", 3),
)
broken(
    "port_without_speed",
    "training",
    "2.1.7",
    lambda s: s.put(SYSTEM, "system_under_test.product_nodes.0.networking.0.speed", GONE),
)
broken(
    "local_with_switch",
    "training",
    "2.1.7",
    lambda s: s.put(SYSTEM, f"{SOLUTION}.architecture.storage_location", "local"),
)

# Files of training leaves
broken("no_datasize", "training", "2.1.12", lambda s: s.drop(f"{TRAINING}/datasize"))
broken("unknown_phase", "training", "2.1.12", lambda s: s.folder(f"{TRAINING}/warmup"))
broken("generated_twice", "training", "2.1.13", second_generation)
broken("no_generation_log", "training", "2.1.14", lambda s: s.drop(f"{TRAINING}/datagen/*/*.stdout.log"))
broken("generation_config", "training", "2.1.15", lambda s: s.drop(f"{TRAINING}/datagen/*/dlio_config/hydra.yaml"))
broken("no_rollup", "training", "2.1.16", lambda s: s.drop(f"{TRAINING}/results.json"))
broken("five_runs", "training", "2.1.17", lambda s: s.drop(RUNS, only=5).manifest())
broken("seven_runs", "seven_runs", "2.1.17", lambda s: s)
broken("two_starts", "training", "2.1.17", same_start)
broken("gap", "training", "2.1.18", lambda s: s.shift(f"{RUNS}/summary.json", 3600, only=5))
broken("overlap", "training", "2.1.18", lambda s: s.shift(f"{RUNS}/summary.json", -100, only=3))
broken(
    "broken_series",
    "seven_runs",
    "2.1.17 2.1.18a",
    lambda s: [s.shift(f"{RUNS}/summary.json", 7200, only=number) for number in (3, 4, 5, 6)],
)
broken("no_summary", "training", "2.1.19", lambda s: s.drop(f"{RUNS}/summary.json", only=2))
broken("no_epoch_stats", "training", "2.1.19", lambda s: s.drop(f"{RUNS}/0_per_epoch_stats.json", only=4))
broken("no_metadata", "training", "2.1.19", lambda s: s.drop(f"{RUNS}/*_metadata.json", only=4))
broken("run_config", "training", "2.1.20", lambda s: s.drop(f"{RUNS}/dlio_config/hydra.yaml", only=0))
broken("extra_config", "training", "2.1.20", lambda s: s.write(f"{_first(s, RUNS)}/dlio_config/more.yaml"))
broken("no_engine_log", "training", "2.29", lambda s: s.drop(f"{RUNS}/dlio.log", only=1))

# Training
broken("datasize_without_metadata", "training", "3.1.1", lambda s: s.drop(f"{TRAINING}/datasize/*/*_metadata.json"))
broken(
    "sized_too_small",
    "training",
    "3.1.2",
    lambda s: s.put(
        f"{TRAINING}/datasize/*/*_metadata.json", "parameters.dataset.num_files_train", lambda old: old - 1
    ),
)
broken(
    "sized_bytes",
    "training",
    "3.1.2",
    lambda s: s.put(f"{TRAINING}/datasize/*/*_metadata.json", "parameters.dataset.total_disk_bytes", 1),
)
broken(
    "generated_too_few",
    "training",
    "3.2.1 3.3.1",
    lambda s: s.put(f"{TRAINING}/datagen/*/*_metadata.json", "parameters.dataset.num_files_train", 27_000),
)
broken("read_more", "training", "3.3.1", lambda s: s.put(f"{RUNS}/summary.json", "num_files_train", 30_000, only=3))
broken("read_fewer", "training", "3.3.1", lambda s: s.put(f"{RUNS}/summary.json", "num_files_train", 168, only=3))
broken(
    "more_memory_than_declared",
    "training",
    "3.3.1",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "system_info.total_memory_bytes", 1 << 41, only=3),
)
broken(
    "other_subfolders",
    "training",
    "3.3.1",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "parameters.dataset.num_subfolders_train", 16, only=3),
)
broken(
    "low_utilisation",
    "training",
    "3.3.2",
    lambda s: s.put(f"{RUNS}/summary.json", "metric.train_au_mean_percentage", 89.99, only=3).put(
        f"{RUNS}/summary.json", "metric.train_au_percentage", [89.99] * 5, only=3
    ),
)
broken(
    "two_clients_of_a_single_host_system",
    "two_clients",
    "3.3.4",
    lambda s: s.put(SYSTEM, f"{SOLUTION}.capabilities.multi_host", False),
)
broken(
    "unequal_slots",
    "two_clients",
    "3.3.6",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "args.hosts", ["client01:10", "client02:6"], only=1),
)
broken(
    "unlike_clients",
    "two_clients",
    "3.3.7",
    lambda s: s.put(f"{TRAINING}/*/*/*_metadata.json", "system_info.hosts.1.memory.total", 1 << 40),
)
broken("rollup_too_high", "training", "3.3.8", lambda s: s.put(f"{TRAINING}/results.json", "0|Read B/W (GiB/s)", 60.0))
broken("no_data_path", "training", "3.4.1", lambda s: s.put(f"{RUNS}/*_metadata.json", "args.data_dir", GONE, only=0))
broken(
    "results_in_data",
    "training",
    "3.4.1",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "args.results_dir", "/mnt/data/./results", only=0),
)
broken(
    "one_file_system",
    "training",
    "3.4.2",
    lambda s: s.put(f"{RUNS}/fs_separation.json", "same_filesystem", True, only=0),
)
broken("no_probe", "training", "3.4.2", lambda s: s.drop(f"{RUNS}/fs_separation.json", only=0))
broken("other_code", "training", "3.6.1", lambda s: s, OTHER_DIGEST)
broken(
    "prefetch_of_8",
    "training",
    "3.6.2",
    lambda s: s.put(f"{RUNS}/*_metadata.json", f"{OVERRIDES}reader.prefetch_size", "8", only=0),
)
broken(
    "misspelt_key",
    "training",
    "3.6.2",
    lambda s: s.put(f"{RUNS}/*_metadata.json", f"{OVERRIDES}reader.read_treads", "8", only=0),
)
broken(
    "open_key_in_closed",
    "training",
    "3.6.2",
    lambda s: s.put(f"{RUNS}/*_metadata.json", f"{OVERRIDES}framework", "tensorflow", only=0),
)
broken(
    "override_seen_by_the_engine_alone",
    "training",
    "3.6.2",
    lambda s: s.write(
        f"{_first(s, RUNS)}/dlio_config/overrides.yaml", "- workload=x\n- ++workload.reader.batch_size=1\n"
    ),
)
broken(
    "edited_template",
    "training",
    "3.6.2",
    lambda s: s.put(f"{RUNS}/dlio_config/config.yaml", "workload.train.computation_time", 0.3),
)
broken(
    "open_batch_size",
    "open_training",
    "3.6.3",
    lambda s: s.put(f"{OPEN_TRAINING}/run/*/*_metadata.json", f"{OVERRIDES}reader.batch_size", 1, only=0),
)
broken(
    "one_run_shuffled_otherwise",
    "training",
    "COMP-01",
    lambda s: s.put(f"{RUNS}/dlio_config/config.yaml", "workload.reader.file_shuffle", "off", only=2),
)
broken("too_fast", "training", "SANE-01", lambda s: speed(s, 1.04, only=3))
broken(
    "mean_is_no_mean",
    "training",
    "SANE-01",
    lambda s: s.put(f"{RUNS}/summary.json", "metric.train_throughput_samples_per_second", scale(0.9), only=3),
)
broken(
    "restless",
    "training",
    "SANE-02",
    lambda s: speed(s, 0.9, only=3).put(f"{TRAINING}/results.json", "0|Read B/W (GiB/s)", scale(0.98)),
)

# Checkpointing
broken("unknown_checkpoint_model", "checkpointing", "2.1.21", renamed_model)
broken("no_checkpoint_rollup", "checkpointing", "2.1.22", lambda s: s.drop(f"{CHECKPOINT}/results.json"))
broken(
    "five_reads",
    "checkpointing",
    "2.1.23",
    lambda s: s.put(f"{CHECKPOINT}/*/dlio_config/config.yaml", "workload.checkpoint.num_checkpoints_read", 5),
)
broken(
    "three_leaves",
    "split",
    "2.1.23",
    lambda s: _copy_leaf(s, SPLIT, "20260302_120000"),
)
broken("late_reads", "split", "2.1.24", lambda s: s.shift(f"{SPLIT}/*/summary.json", 7200, only=1))
broken("no_checkpoint_log", "checkpointing", "2.1.25", lambda s: s.drop(f"{CHECKPOINT}/*/checkpointing_run.stderr.log"))
broken("checkpoint_config", "checkpointing", "2.1.26", lambda s: s.drop(f"{CHECKPOINT}/*/dlio_config/hydra.yaml"))
broken("fits_in_memory", "large_memory", "4.3.1", lambda s: s)
broken(
    "no_fsync",
    "checkpointing",
    "4.3.2",
    lambda s: s.put(f"{CHECKPOINT}/*/dlio_config/config.yaml", "workload.checkpoint.fsync", False),
)
broken(
    "fewer_layers",
    "checkpointing",
    "4.3.3",
    lambda s: s.put(f"{CHECKPOINT}/*/dlio_config/config.yaml", "workload.model.num_layers", 31),
)
broken(
    "too_little_accelerator_memory",
    "open_checkpointing",
    "4.3.4",
    lambda s: s.put(f"{OPEN_CHECKPOINT}/*/summary.json", "num_accelerators", 8).put(
        f"{OPEN_CHECKPOINT}/*/*_metadata.json", "accelerator", "h100"
    ),
)
broken(
    "subset_of_a_large_model",
    "split",
    "4.3.5",
    lambda s: s.put(f"{SPLIT}/*/*_metadata.json", "args.checkpoint_subset", True),
)
broken(
    "undeclared_subset",
    "checkpointing",
    "4.3.5",
    lambda s: s.put(f"{CHECKPOINT}/*/dlio_config/config.yaml", "workload.checkpoint.mode", "subset"),
)
broken(
    "checkpoint_rollup_too_high",
    "checkpointing",
    "4.3.6",
    lambda s: s.put(f"{CHECKPOINT}/results.json", "0|Write B/W (GiB/s)", 99.0),
)
broken(
    "no_checkpoint_path",
    "checkpointing",
    "4.4.1",
    lambda s: s.put(f"{CHECKPOINT}/*/*_metadata.json", "args.checkpoint_folder", ""),
)
broken(
    "checkpoints_beside_results",
    "checkpointing",
    "4.4.2",
    lambda s: s.put(f"{CHECKPOINT}/*/fs_separation.json", "results_realpath", "/mnt/checkpoints"),
)
broken(
    "sixteen_processes",
    "checkpointing",
    "4.6.1",
    lambda s: s.put(f"{CHECKPOINT}/*/summary.json", "num_accelerators", 16),
)
broken("two_a_host", "checkpointing", "4.6.2", lambda s: s.put(f"{CHECKPOINT}/*/summary.json", "num_hosts", 4))
broken("four_a_host", "checkpointing", "4.6.2", lambda s: s.put(f"{CHECKPOINT}/*/summary.json", "num_hosts", 2))
broken(
    "pause_changed",
    "checkpointing",
    "4.6.3",
    lambda s: s.put(f"{CHECKPOINT}/*/*_metadata.json", f"{OVERRIDES}checkpoint.time_between_checkpoints", 0),
)
broken(
    "odd_scaling",
    "open_checkpointing",
    "4.6.4",
    lambda s: s.put(f"{OPEN_CHECKPOINT}/*/summary.json", "num_accelerators", 60),
)
broken(
    "slow_handover",
    "split",
    "4.7.1",
    lambda s: s.put(f"{SPLIT}/*/*_metadata.json", "invocation_start_time", "2026-03-02T10:07:59", only=1),
)
broken(
    "clocks_disagree",
    "split",
    "4.7.1",
    lambda s: s.put(f"{SPLIT}/*/*_metadata.json", "invocation_start_time", "2026-03-02T10:07:00", only=1),
)
broken(
    "remap_time_with_simultaneous_access",
    "checkpointing",
    "4.7.3",
    lambda s: s.put(SYSTEM, f"{SOLUTION}.capabilities.remap_time_in_seconds", 5),
)
broken(
    "one_invocation_without_simultaneous_access",
    "checkpointing",
    "4.7.4",
    lambda s: s.put(SYSTEM, f"{SOLUTION}.capabilities.remap_time_in_seconds", 5).put(
        SYSTEM, f"{SOLUTION}.capabilities.simultaneous_read", False
    ),
)


def _first(spot: Spot, pattern: str) -> str:
    return spot.find(pattern)[0].relative_to(spot.root).as_posix()


def _copy_leaf(spot: Spot, folder: str, stamp: str) -> None:
    import shutil

    shutil.copytree(spot.find(f"{folder}/2*")[1], spot.root / folder / stamp)
    spot.put(f"{folder}/{stamp}/*_metadata.json", "run_datetime", stamp).manifest()


def odd_entry(spot: Spot) -> None:
    os.mkfifo(spot.root / _first(spot, RUNS) / "pipe")
