"""Rollups: figures from leaves, IDs that are kept, rows that are blank, and the judge who agrees."""

import csv
import fcntl
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker.bench.report.submission import withdraw, write_manifest, write_rollups
from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.rules.mlperf.rollups import FAMILY_COLUMNS, LEADING
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.testing.mlperf_trees import TreeMaker


def trained(root: Path, **facts: Any) -> Path:
    """A tree with one training result; returns the model's folder."""
    maker = TreeMaker(root, edition=facts.pop("edition", "3.0"))
    folder = maker.training("closed", "sysA", **facts)
    maker.finish()
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return found


def cells(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def set_summary(leaf: Path, key: str, value: float | None) -> None:
    summary = json.loads((leaf / "summary.json").read_text())
    if value is None:
        del summary["metric"][key]
    else:
        summary["metric"][key] = value
    (leaf / "summary.json").write_text(json.dumps(summary))


def test_warm_up_is_left_out_and_figures_are_means(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    leaves = sorted((folder / "run").iterdir())
    for leaf, value in zip(leaves, (9e9, 1024, 2048, 3072, 4096, 5120.1), strict=True):
        set_summary(leaf, "train_io_mean_MB_per_second", value)
    write_rollups(tmp_path)
    (row,) = rows(folder)
    assert row["Read B/W (GiB/s)"] == pytest.approx((1 + 2 + 3 + 4 + 5120.1 / 1024) / 5, rel=1e-12)
    assert row["notes"] == [f"{leaves[0].name} is the warm-up"]
    assert cells(folder)[0]["Read B/W (GiB/s)"] == "3.00"
    told = {finding.rule for finding in judge_tree(read_tree(tmp_path)).findings}
    assert "3.3.8" not in told


def test_all_columns_stand_in_their_order(made: Path) -> None:
    for pattern, family in (
        ("training/*", "training"),
        ("checkpointing/*", "checkpointing"),
        ("vector_database/*/*", "vector_database"),
        ("kv_cache/*", "kv_cache"),
    ):
        (folder,) = made.glob(f"*/*/results/*/{pattern}")
        wanted = [*LEADING, *FAMILY_COLUMNS[family]]
        assert [name for name in rows(folder)[0] if name != "notes"] == wanted
        with (folder / "results.csv").open() as file:
            assert next(csv.reader(file)) == wanted


def test_row_says_all_that_the_description_and_the_leaves_tell(made: Path) -> None:
    (row,) = rows(next(made.glob("closed/*/results/*/training/unet3d")))
    told = {name: value for name, value in row.items() if name not in ("Code", "Read B/W (GiB/s)", "notes")}
    assert told == {
        "Public ID": "v3.0-0002",
        "Organization": "example",
        "Division": "closed",
        "Benchmark Type": "Training",
        "Model": "Unet3D",
        "Name": "sysA",
        "Description": "Two-node flash filer",
        "Type": "Shared remote file",
        "Access Protocol": "POSIX",
        "Availability": "available",
        "RU's": 4.0,
        "Integrated Client Storage (TiB)": None,
        "Usable Capacity (TiB)": 180.5,
        "Provisioned Power (W)": 6400.0,
        "Accelerator Type": "b200",
        "# Client Nodes": 1,
        "Logs": "closed/example/results/sysA/training/unet3d",
        "# Simulated Accelerators": 8,
    }
    assert (made / row["Code"]).is_dir()


def test_checkpoint_of_two_phases_is_one_row(made: Path) -> None:
    (row,) = rows(next(made.glob("closed/*/results/*/checkpointing/*")))
    figures = [row[name] for name in FAMILY_COLUMNS["checkpointing"] if "B/W" in name or "Duration" in name]
    assert all(figures) and row["Checkpoint Mode"] == "default" and row["DP Instances"] == 8


def test_kv_publishes_the_newest_run_without_an_error(tree: Path) -> None:
    (leaf,) = tree.glob("open/*/results/*/kv_cache/*/run/*")
    for stamp, failed in (("20260401_000000", False), ("20260402_000000", True)):
        copy = Path(shutil.copytree(leaf, leaf.with_name(stamp)))
        summary = json.loads((copy / "summary.json").read_text())
        summary["options"]["1"]["aggregated_read_bandwidth_gbps"] = 77.0
        summary["partial_failure"] = failed
        (copy / "summary.json").write_text(json.dumps(summary))
    write_rollups(tree)
    (row,) = rows(leaf.parent.parent)
    assert row["Option 1 Read B/W (GB/s)"] == 77.0
    assert row["notes"] == ["20260401_000000 is published, the newest of 3 runs"]


def test_ids_are_kept_whatever_comes_and_goes(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path)
    maker.training("closed", "sysM")
    maker.finish()
    write_rollups(tmp_path)
    assert [row["Public ID"] for row in rows(tmp_path)] == ["v3.0-0001"]
    maker.training("closed", "sysA")
    maker.finish()
    write_rollups(tmp_path)
    assert {row["Name"]: row["Public ID"] for row in rows(tmp_path)} == {"sysA": "v3.0-0002", "sysM": "v3.0-0001"}
    shutil.rmtree(tmp_path / "closed/example/results/sysM")
    maker.training("closed", "sysB")
    write_rollups(tmp_path)
    assert {row["Public ID"] for row in rows(tmp_path)} == {"v3.0-0002", "v3.0-0003"}


def test_withdrawn_row_keeps_its_id_and_is_blank(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    write_rollups(tmp_path)
    withdraw(tmp_path, "v3.0-0001")
    write_rollups(tmp_path)
    for place in (folder, tmp_path / "closed/example", tmp_path):
        (row,) = rows(place)
        assert row.pop("Public ID") == "v3.0-0001" and row.pop("notes") == ["withdrawn"]
        assert set(row.values()) == {None}
    shutil.rmtree(tmp_path / "closed/example/results/sysA")
    write_rollups(tmp_path)
    (row,) = rows(tmp_path)
    assert row["Public ID"] == "v3.0-0001"
    with pytest.raises(NotFoundError, match=r"v3\.0-0009"):
        withdraw(tmp_path, "v3.0-0009")


@pytest.mark.parametrize("text", ["{", "[]", '{"v3.0-x": {"key": "a"}}', '{"v3.0-0001": 5}'])
def test_ids_that_cannot_be_read_are_never_given_anew(tmp_path: Path, text: str) -> None:
    folder = trained(tmp_path)
    (tmp_path / "public_ids.json").write_text(text)
    before = (folder / "results.json").read_text()
    with pytest.raises(CorruptError, match="Public IDs"):
        write_rollups(tmp_path)
    assert (folder / "results.json").read_text() == before


def test_row_without_its_main_figure_is_left_out(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    for leaf in (folder / "run").iterdir():
        for key in ("train_io_mean_MB_per_second", "train_throughput_mean_samples_per_second"):
            set_summary(leaf, key, None)
    write_rollups(tmp_path)
    assert rows(folder) == rows(tmp_path) == []


def test_figure_that_one_run_does_not_tell_is_blank(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    set_summary(sorted((folder / "run").iterdir())[3], "train_io_mean_MB_per_second", None)
    write_rollups(tmp_path)
    assert [row["Read B/W (GiB/s)"] for row in rows(folder)] == [None]


@pytest.mark.parametrize(("runs", "note"), [(3, "3 runs, where a result has 6"), (8, "8 runs, where a result has 6")])
def test_another_number_of_runs_is_noted(tmp_path: Path, runs: int, note: str) -> None:
    folder = trained(tmp_path, runs=runs)
    write_rollups(tmp_path)
    (row,) = rows(folder)
    assert row["notes"][0] == note and row["Read B/W (GiB/s)"] > 0


def test_whatif_has_rows_of_its_own_and_is_never_submitted(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path)
    folder = maker.training("whatif", "sysW", "dlrm", "b200")
    maker.training("closed", "sysA")
    maker.finish()
    write_rollups(tmp_path)
    assert [row["Public ID"] for row in rows(folder)] == [None]
    assert [row["Name"] for row in rows(tmp_path / "whatif/example")] == ["sysW"]
    assert [row["Name"] for row in rows(tmp_path)] == ["sysA"]


def test_one_system_can_be_done_alone(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path)
    folders = [maker.training("closed", system) for system in ("sysA", "sysB")]
    maker.finish()
    for folder in folders:
        (folder / "results.json").unlink()
    write_rollups(tmp_path, "sysB")
    assert [(folder / "results.json").exists() for folder in folders] == [False, True]
    assert len(rows(tmp_path)) == 2
    with pytest.raises(NotFoundError, match=r"expected sysA, sysB"):
        write_rollups(tmp_path, "sysC")


@pytest.mark.parametrize("edition", ["1.0", "2.0"])
def test_trees_of_older_editions_get_rollups_too(tmp_path: Path, edition: str) -> None:
    maker = TreeMaker(tmp_path, edition=edition)
    made = maker.v1_training if edition == "1.0" else maker.training
    folder = made("closed", "sysA", "unet3d", "h100")
    maker.finish()
    assert judge_tree(read_tree(tmp_path)).answer == "valid"
    write_rollups(tmp_path)
    (row,) = rows(folder)
    assert row["Public ID"] == f"v{edition}-0001" and row["Read B/W (GiB/s)"] > 1 and row["Name"]
    assert judge_tree(read_tree(tmp_path)).answer == "valid"


def test_results_folder_of_the_older_tool_gets_a_rollup_a_model(tmp_path: Path) -> None:
    trained(tmp_path / "tree", edition="2.0")
    shutil.copytree(tmp_path / "tree/Closed/example/results/sysA", tmp_path / "results")
    paths = write_rollups(tmp_path / "results")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "results/training/unet3d/results.json",
        "results/training/unet3d/results.csv",
    ]


def test_cell_that_a_spreadsheet_would_run_is_made_text(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    path = tmp_path / "closed/example/systems/sysA.yaml"
    document = yaml.safe_load(path.read_text())
    document["system_under_test"]["solution"]["friendly_description"] = "=HYPERLINK(1)"
    path.write_text(yaml.safe_dump(document))
    write_rollups(tmp_path)
    assert cells(folder)[0]["Description"] == "'=HYPERLINK(1)"
    assert rows(folder)[0]["Description"] == "=HYPERLINK(1)"


def test_manifest_names_what_is_there(tree: Path) -> None:
    folder = tree / "closed/example"
    shutil.rmtree(folder / "results/sysA/checkpointing")
    assert any(f.rule == "PROV-02" for f in judge_tree(read_tree(tree)).findings)
    document = yaml.safe_load(write_manifest(folder).read_text())
    assert len(document["runs"]) == 6 and document["systems"] == ["sysA"]
    assert document["code_images"] == [path.name for path in (tree / "code-images").glob("code-*")]
    assert not any(f.rule == "PROV-02" for f in judge_tree(read_tree(tree)).findings)
    with pytest.raises(NotFoundError, match="no submitter"):
        write_manifest(tree / "closed/nobody")
    (folder / "results/sysA").rename(folder / "results/sys A")
    with pytest.raises(UsageError, match=r"no manifest .* letters, digits"):
        write_manifest(folder)


def test_who_gives_ids_waits_for_the_other_who_does(tmp_path: Path) -> None:
    trained(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_rollups, tmp_path)
        with pytest.raises(TimeoutError):
            writing.result(0.5)
        assert not (tmp_path / "public_ids.json").exists()
        os.close(descriptor)
        assert writing.result(30)
    assert list(json.loads((tmp_path / "public_ids.json").read_text())) == ["v3.0-0001"]
