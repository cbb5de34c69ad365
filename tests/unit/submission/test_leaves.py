"""The tool's own files of a leaf: what they say, what they hide, and how a run that was not whole is labelled."""

import json
from pathlib import Path
from typing import Any

import msgspec
import ours
import pytest

from stoker.bench.report.submission import LeafFacts, write_leaf
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.formulas import core_hash
from stoker.bench.rules.mlperf.validator import faults
from stoker.core.errors import CorruptError, StokerError

STAMP = "20260302_101500"
CONFIG = {"framework": "pytorch", "train": {"epochs": 5}, "reader": {"batch_size": 7}}
FACTS = LeafFacts(
    family="training",
    command="run",
    division="closed",
    org="acme",
    system="sysA",
    model="unet3d",
    accelerator="b200",
    stamp=STAMP,
    args={"hosts": ["client01"], "num_accelerators": 8},
    overrides={"dataset.num_files_train": "28000"},
    config=CONFIG,
    parameters={"dataset": {"num_files_train": 28000}},
    executed_command="stoker dlio workload=unet3d_b200",
    runtime_seconds=446.2,
    started_text="2026-03-02T10:14:51",
    ranks=8,
    code_image="code-01234567",
)


def place(root: Path) -> Path:
    return root / "closed/acme/results/sysA/training/unet3d/run" / STAMP


def written(leaf: Path, facts: LeafFacts = FACTS, run_folder: Path | None = None) -> dict[str, Any]:
    write_leaf(leaf, facts, run_folder=run_folder)
    found: dict[str, Any] = json.loads((leaf / f"{facts.family}_{STAMP}_metadata.json").read_text())
    return found


def test_all_files_of_a_run_are_written(tmp_path: Path) -> None:
    leaf, ran = place(tmp_path), ours.run_folder(tmp_path / "ran")
    paths = write_leaf(leaf, FACTS, run_folder=ran)
    assert sorted(path.relative_to(leaf).as_posix() for path in paths) == [
        ".mlps-code-image",
        "collector-staging/cluster_info.json",
        "provenance.json",
        f"training_{STAMP}_metadata.json",
        f"training_{STAMP}_timeseries.json",
    ]
    assert (leaf / ".mlps-code-image").read_text() == "code-01234567\n"
    assert sorted(path for path in leaf.rglob("*") if path.is_file()) == sorted(paths)


def test_metadata_say_what_was_run_where(tmp_path: Path) -> None:
    told = written(place(tmp_path), run_folder=ours.run_folder(tmp_path / "ran"))
    assert faults(told, shipped_schema("metadata")) == []
    assert told["result_dir"] == f"closed/acme/results/sysA/training/unet3d/run/{STAMP}"
    assert told["args"] == {"mode": "closed", "hosts": ["client01"], "num_accelerators": 8}
    assert told["system_info"]["total_memory_bytes"] == (256 << 20) * 1024
    assert told["comparability_class"] == f"3.0/closed/training/unet3d/b200/{core_hash('training', CONFIG)}"
    assert told["status"] == "complete"


@pytest.mark.parametrize("command", ["datasize", "datagen"])
def test_leaf_without_a_run_has_no_series(tmp_path: Path, command: str) -> None:
    facts = msgspec.structs.replace(FACTS, command=command, code_image="", config={})
    told = written(tmp_path / "leaf", facts)
    assert faults(told, shipped_schema("metadata")) == []
    assert sorted(path.name for path in (tmp_path / "leaf").iterdir()) == [
        "provenance.json",
        f"training_{STAMP}_metadata.json",
    ]
    assert told["comparability_class"] == "unknown"
    assert told["system_info"] == {}


def test_partial_run_is_labelled(tmp_path: Path) -> None:
    ran = ours.run_folder(tmp_path / "ran", status="partial", reason="stopped by signal 2")
    told = written(place(tmp_path), msgspec.structs.replace(FACTS, exit_status=130), ran)
    assert (told["status"], told["status_reason"], told["exit_status"]) == ("partial", "stopped by signal 2", 130)


def test_run_that_left_no_result_is_labelled(tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()
    told = written(place(tmp_path), run_folder=tmp_path / "ran")
    assert (told["status"], told["status_reason"]) == ("partial", "the run left no result")


def test_failed_command_without_a_run_is_labelled(tmp_path: Path) -> None:
    told = written(place(tmp_path), msgspec.structs.replace(FACTS, command="datagen", exit_status=1))
    assert told["status"] == "failed"


def test_no_secret_reaches_the_leaf(tmp_path: Path) -> None:
    facts = msgspec.structs.replace(
        FACTS,
        args={
            "secret_key": "hunter2",
            "total_tokens": 5,
            "data": "s3://u:hunter2@b/c",
            "nested": [{"token": "hunter2"}],
        },
        overrides={"storage.storage_options.secret_access_key": "hunter2", "a": "s3://b/?sig=hunter2"},
        executed_command="stoker dlio ++workload.storage.secret_key=hunter2 's3://u:hunter2@host/x'",
        extra={"environment": {"AWS_SECRET_ACCESS_KEY": "hunter2"}},
    )
    told = written(place(tmp_path), facts)
    for path in place(tmp_path).rglob("*"):
        assert not path.is_file() or "hunter2" not in path.read_text()
    assert told["args"]["total_tokens"] == 5


def test_command_line_that_no_shell_reads_is_hidden_whole(tmp_path: Path) -> None:
    told = written(place(tmp_path), msgspec.structs.replace(FACTS, executed_command="stoker 'secret=hunter2"))
    assert told["executed_command"] == "[redacted]"


def test_unknown_facts_are_the_word_and_every_stamp_says_how_it_was_known(tmp_path: Path) -> None:
    facts = msgspec.structs.replace(FACTS, config={}, code_image="")
    write_leaf(tmp_path / "leaf", facts, run_folder=None)
    stamp = json.loads((tmp_path / "leaf/provenance.json").read_text())
    assert faults(stamp, shipped_schema("provenance")) == []
    assert stamp["core_config"] == {
        "algorithm": "core-config-v1",
        "allowlist": "unknown",
        "hash": "unknown",
        "keys": "unknown",
    }
    assert stamp["tool"]["code_image"] == stamp["storage_library"]["name"] == "unknown"
    leaves = {f"{part}.{name}" for part in ("tool", "dlio", "storage_library", "core_config") for name in stamp[part]}
    assert leaves | {"rules_edition", "layout_version", "stamped_at", "stamped_by"} == set(stamp["provenance"])


@pytest.mark.parametrize(("kind", "name"), [("ext4", "n/a"), ("s3", "obstore"), ("", "unknown")])
def test_storage_library_is_that_of_the_target(tmp_path: Path, kind: str, name: str) -> None:
    ran = ours.run_folder(tmp_path / "ran")
    result = json.loads((ran / "result.json").read_text())
    result["evidence"]["target_kind"] = kind
    (ran / "result.json").write_text(json.dumps(result))
    write_leaf(tmp_path / "leaf", FACTS, run_folder=ran)
    assert json.loads((tmp_path / "leaf/provenance.json").read_text())["storage_library"]["name"] == name


def test_configuration_of_the_engine_is_hashed_when_none_is_given(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    (leaf / "dlio_config").mkdir(parents=True)
    (leaf / "dlio_config/config.yaml").write_text(json.dumps({"workload": CONFIG}))
    write_leaf(leaf, msgspec.structs.replace(FACTS, config={}), run_folder=None)
    stamp = json.loads((leaf / "provenance.json").read_text())
    assert stamp["core_config"]["hash"] == core_hash("training", CONFIG)


def test_hosts_without_samples_are_those_of_the_result(tmp_path: Path) -> None:
    machine = {"host": "client01", "memory_bytes": 1 << 34, "cpu_count": 4, "cpu_model": "Example"}
    for ranks, total in (([{"host": "client01"}], 1 << 34), ([{"host": "client01"}, {"host": "client02"}], 0)):
        ran = tmp_path / f"ran{len(ranks)}"
        ran.mkdir()
        result = {"machine": machine, "status": "complete", "ranks": ranks, "started_utc": "2026-03-02T10:15:00Z"}
        (ran / "result.json").write_text(json.dumps(result))
        told = written(tmp_path / f"leaf{len(ranks)}", run_folder=ran)
        assert faults(told, shipped_schema("metadata")) == []
        assert (told["system_info"]["num_hosts"], told["system_info"]["total_memory_bytes"]) == (len(ranks), total)


def test_unsound_result_is_refused(tmp_path: Path) -> None:
    ran = ours.run_folder(tmp_path / "ran")
    (ran / "result.json").write_text("{")
    with pytest.raises(CorruptError, match="not a result"):
        write_leaf(tmp_path / "leaf", FACTS, run_folder=ran)


def test_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StokerError, match="tape"):
        write_leaf(tmp_path / "leaf", msgspec.structs.replace(FACTS, family="tape"), run_folder=None)
    assert not (tmp_path / "leaf").exists()
