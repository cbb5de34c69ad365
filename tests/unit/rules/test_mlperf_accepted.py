"""What the rules allow is accepted: variants of trees that look odd and are fine; and which runs count."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlperf_corpus import OPEN_TRAINING, OVERRIDES, ROOT_OF_RESULTS, RUNS, SYSTEM, TRAINING, VECTORS, speed
from mlperf_places import BASES, GONE, Spot

from stoker.bench.rules.mlperf import Judgement, judge_tree, read_tree
from stoker.testing.mlperf_trees import TreeMaker

META = f"{RUNS}/*_metadata.json"
OLD = "Closed/example/results/sysA/training/unet3d"


def slow_warm_up(spot: Spot) -> None:
    speed(spot, 0.5, only=0)
    for key in ("train_au_percentage", "train_au_mean_percentage"):
        spot.put(f"{RUNS}/summary.json", f"metric.{key}", [50.0] * 5 if "mean" not in key else 50.0, only=0)


def two_organisations(spot: Spot) -> None:
    maker = TreeMaker(spot.root / "other", org="second")
    maker.training("closed", "sysB")
    maker.finish()
    spot.move("other/closed/second", "closed/second").drop("other")


def inner_link(spot: Spot) -> None:
    os.symlink("main.py", spot.root / "code-images/code-01234567/alias.py")


def without_engine_level(spot: Spot) -> None:
    spot.move(VECTORS, f"{ROOT_OF_RESULTS}/vector_database/DISKANN")
    spot.drop(f"{ROOT_OF_RESULTS}/vector_database/milvus").manifest()


def rounded_down(spot: Spot) -> None:
    for pattern in (f"{OLD}/*/*/*_metadata.json",):
        spot.put(pattern, "parameters.dataset.num_files_train", lambda old: old - 1)
        spot.put(pattern, "parameters.dataset.total_disk_bytes", lambda old: old - 146_600_628)
    spot.put(f"{OLD}/run/*/summary.json", "num_files_train", lambda old: old - 1)


def pool_of_an_organisation(spot: Spot) -> None:
    """As trees of the first 3.0 tools have it: a pool a submitter at the root, pointers by digest, no provenance."""
    spot.move("code-images", "example").drop(f"{TRAINING}/*/*/provenance.json").drop("closed/example/submission.yaml")
    for path in spot.find(f"{TRAINING}/*/*/.mlps-code-image"):
        path.write_text("md5-tree-v2:0123456789abcdef0123456789abcdef")
    spot.put("example/*/.code-hash.json", "algorithm", "md5-tree-v2").put("example/*/.code-hash.json", "git_sha", None)
    spot.put(META, "exit_status", GONE)


def first_edition_nested(spot: Spot) -> None:
    """As submitters of 1.0 had it: runs below a folder of their own, without hosts, under names of their own."""
    old = "Closed/example/results/sysA/unet3d-h100"
    for number in range(1, 6):
        spot.move(f"{old}/run{number}/client01", f"{old}/runs/unet3d_h100_run_{number}").drop(f"{old}/run{number}")
        spot.write(f"{old}/runs/unet3d_h100_run_{number}/configs/._config.yaml")
    spot.move(f"{old}/mlperf_storage_report.json", f"{old}/runs/mlperf_storage_report.json")
    spot.move("Closed/example/systems/sysA.json", "Closed/example/systems/Array-17.JSON")
    spot.move("Closed/example/systems/sysA.pdf", "Closed/example/systems/Array-17.pdf")


def deep_code(spot: Spot) -> None:
    spot.folder("code-images/code-01234567/" + "/".join(["build", "lib"] * 20))


def subset_of_2_0(spot: Spot, ranks: int) -> None:
    spot.put("Closed/*/results/*/checkpointing/*/*/dlio_config/config.yaml", "workload.checkpoint.mode", "subset")
    spot.put("Closed/*/results/*/checkpointing/*/*/summary.json", "num_accelerators", ranks)


ACCEPTED: list[tuple[str, str, Callable[[Spot], Any]]] = [
    ("slow_warm_up", "training", slow_warm_up),
    ("two_organisations", "training", two_organisations),
    ("link_within_an_image", "training", inner_link),
    ("hidden_entries", "training", lambda s: s.write(".mlps/history").write("closed/.x").write(f"{TRAINING}/.y/z")),
    ("notes_beside_descriptions", "training", lambda s: s.write("closed/example/systems/README.md")),
    (
        "measured_a_little_more_memory",
        "training",
        lambda s: s.put(META, "system_info.total_memory_bytes", lambda old: int(1.04 * old)),
    ),
    ("equal_slots", "two_clients", lambda s: s.put(META, "args.hosts", ["client01:8", "client02:8"])),
    ("addresses_are_no_slots", "two_clients", lambda s: s.put(META, "args.hosts", ["fd00::1", "fd00::2"])),
    (
        "allowed_overrides",
        "training",
        lambda s: s.put(META, f"{OVERRIDES}reader.prefetch_size", "2").put(META, f"{OVERRIDES}reader.odirect", True),
    ),
    (
        "bytes_from_an_object_store",
        "training",
        lambda s: s.put(META, "args.data_dir", "s3://bucket/data").drop(f"{RUNS}/fs_separation.json"),
    ),
    (
        "open_format",
        "open_training",
        lambda s: s.put(f"{OPEN_TRAINING}/run/*/*_metadata.json", f"{OVERRIDES}dataset.format", "tfrecord").put(
            f"{OPEN_TRAINING}/run/*/dlio_config/config.yaml", "workload.dataset.format", "tfrecord"
        ),
    ),
    (
        "in_a_cloud",
        "training",
        lambda s: (
            s.put(SYSTEM, "system_under_test.deployment", "cloud")
            .put(SYSTEM, "system_under_test.product_nodes", [])
            .put(SYSTEM, "system_under_test.product_switches", [])
            .put(SYSTEM, "system_under_test.total_rack_units", GONE)
        ),
    ),
    ("pool_of_an_organisation", "training", pool_of_an_organisation),
    ("first_edition_nested", "first_edition", first_edition_nested),
    ("deep_code", "training", deep_code),
    (
        "earlier_latency_of_the_kv_cache",
        "kv",
        lambda s: s.put(
            "closed/*/results/*/kv_cache/*/run/*/summary.json", "options.1.aggregated_p95_latency_ms", 3.0
        ).put("closed/*/results/*/kv_cache/*/run/*/summary.json", "options.1.aggregated_device_read_p95_ms", GONE),
    ),
    (
        "checkpointing_without_accelerator",
        "checkpointing",
        lambda s: (
            s.put("closed/*/results/*/checkpointing/*/*/*_metadata.json", "accelerator", None)
            .put("closed/*/results/*/checkpointing/*/*/*_metadata.json", "args.accelerator_type", GONE)
            .put("closed/*/results/*/checkpointing/*/*/*_metadata.json", "args.checkpoint_subset", GONE)
            .put("closed/*/results/*/checkpointing/*/*/dlio_config/config.yaml", "workload.checkpoint.mode", GONE)
        ),
    ),
    ("subset_of_a_large_model_in_2.0", "second_edition_large", lambda s: subset_of_2_0(s, 8)),
    ("rounded_down_in_2.0", "second_edition", rounded_down),
    (
        "storage_of_the_database_elsewhere",
        "vectors",
        lambda s: s.put(f"{VECTORS}/run/*/*_metadata.json", "args.storage_root", None).drop(
            f"{VECTORS}/run/*/fs_separation.json"
        ),
    ),
    ("engine_level_left_out", "vectors", without_engine_level),
]


def judged(tmp_path: Path, base: str, spoil: Callable[[Spot], Any]) -> Judgement:
    BASES[base](tmp_path)
    spoil(Spot(tmp_path))
    return judge_tree(read_tree(tmp_path))


@pytest.mark.parametrize(("base", "spoil"), [each[1:] for each in ACCEPTED], ids=[each[0] for each in ACCEPTED])
def test_accepted(base: str, spoil: Callable[[Spot], Any], tmp_path: Path) -> None:
    judgement = judged(tmp_path, base, spoil)
    assert [finding.line for finding in judgement.findings] == []
    assert judgement.answer == "valid", [each for each in judgement.rules if each.blind]


def test_the_earliest_of_six_is_the_warm_up_whatever_its_folder_is_called(tmp_path: Path) -> None:
    def first_is_last(spot: Spot) -> None:
        runs = spot.find(RUNS)
        spot.shift(f"{RUNS}/summary.json", -6 * 466, only=5)
        assert len(runs) == 6

    (facts,) = judged(tmp_path, "training", first_is_last).facts
    last = sorted(tmp_path.glob(RUNS))[5]
    assert facts.warm_up == last.relative_to(tmp_path).as_posix()
    assert len(facts.measured) == 5 and facts.warm_up not in facts.measured


def test_the_fastest_six_neighbours_of_a_longer_series_count_and_are_named(tmp_path: Path) -> None:
    judgement = judged(tmp_path, "seven_runs", lambda spot: speed(spot, 1.01, only=6))
    times = [path.name for path in sorted(tmp_path.glob(RUNS))]
    (finding,) = judgement.findings
    assert finding.observed == f"7 runs; keep {times[1]} to {times[6]}"
    assert [path.rpartition("/")[2] for path in judgement.facts[0].measured] == times[2:]


def test_the_tools_own_folder_may_hold_a_longer_series(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path / "whole", edition="2.0")
    maker.training("closed", "sysA", "unet3d", "h100", runs=8)
    root = tmp_path / "whole/Closed/example/results/sysA"
    judgement = judge_tree(read_tree(root, division="closed"))
    assert (judgement.kind, judgement.findings) == ("results folder", ())
    assert len(judgement.facts[0].measured) == 5


def test_comparable_results_share_a_class_and_others_do_not(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path)
    maker.training("closed", "sysA")
    maker.training("closed", "sysB", accelerators=16, hosts=2)
    maker.training("open", "sysA")
    maker.vector_database("closed", "sysA")
    maker.finish()
    found = {
        (facts.division, facts.system, facts.family): facts.comparable
        for facts in judge_tree(read_tree(tmp_path)).facts
    }
    one = found["closed", "sysA", "training"]
    assert one == found["closed", "sysB", "training"]
    assert one.startswith("3.0/closed/training/unet3d/b200/")
    assert found["open", "sysA", "training"] not in ("", one)
    assert found["closed", "sysA", "vector_database"] == ""


def test_a_tree_without_its_edition_is_told_by_its_layout(tmp_path: Path) -> None:
    for base, edition in (("training", "3.0"), ("second_edition", "2.0"), ("first_edition", "1.0"), ("leaf", "3.0")):
        root = tmp_path / base
        root.mkdir()
        BASES[base](root)
        assert read_tree(root).edition == edition
