"""DLIO's output files from a saved result: keys, types, numbers, times."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dlio_runs import run_of

from stoker.bench.report.dlio_files import write_dlio_files, write_hydra_files
from stoker.core.errors import CorruptError, UsageError
from stoker.core.plan import DatasetSpec, EvaluationPlan, Job, Spread, TrainingPlan
from stoker.core.result import STEP_COLUMNS, Epoch, Metrics, RankResult, Result, save_result
from stoker.core.units import GiB, MiB

STEPS = 4
START_NS = 5_000_000_000
STARTED_UTC = "2026-01-31T12:00:00.000000Z"
ENDED_UTC = "2026-01-31T12:01:00.500000Z"
TRAIN_NINE = {
    "train_au_percentage": list,
    "train_au_mean_percentage": float,
    "train_au_stdev_percentage": float,
    "train_au_meet_expectation": str,
    "train_throughput_samples_per_second": list,
    "train_throughput_mean_samples_per_second": float,
    "train_throughput_stdev_samples_per_second": float,
    "train_io_mean_MB_per_second": float,
    "train_io_stdev_MB_per_second": float,
}
SUMMARY_KEYS = {
    "start": str,
    "end": str,
    "num_accelerators": int,
    "num_hosts": int,
    "hostname": str,
    "num_files_train": int,
    "num_files_eval": int,
    "num_samples_per_file": int,
    "host_cpu_count": list,
    "host_processor_name": str,
    "potential_caching": list,
    "host_cpuinfo": dict,
    "host_meminfo": dict,
    "host_memory_GB": list,
    "data_size_per_host_GB": float,
    "epochs": int,
    "metric": dict,
    "x_stoker": dict,
}


def epoch(number: int, phase: str = "train", *, share: float = 1.0, complete: bool = True) -> Epoch:
    """An epoch whose correct and compatible figures differ."""
    return Epoch(
        epoch=number,
        phase=phase,
        steps=STEPS,
        au_ratio=0.9 + number / 100,
        au_compatible_ratio=0.8 + number / 100,
        samples_per_second=share * (100.0 + number),
        samples_per_second_compatible=share * (50.0 + number),
        delivered_bytes_per_second=share * (number + 1) * MiB,
        complete=complete,
    )


def column_values(epochs: int, *, evaluation: bool) -> dict[str, np.ndarray]:
    """Steps of 1 s: 0.25 s wait, 0.5 s compute, 0.25 s barrier."""
    rows: list[list[int]] = []
    at = START_NS
    for number in range(1, epochs + 1):
        for phase in (0, 1) if evaluation else (0,):
            for step in range(STEPS):
                times = [at, at + 250_000_000, at + 250_000_000, at + 750_000_000, at + 1_000_000_000]
                rows.append([number, phase, 0, step, *times, 4, 4096, 4096])
                at += 1_000_000_000
    table = np.array(rows, np.int64)
    return {name: table[:, index] for index, name in enumerate(STEP_COLUMNS)}


def run_folder(
    tmp_path: Path,
    *,
    ranks: int = 2,
    evaluation: bool = True,
    epochs: int = 2,
    status: str = "complete",
    found: list[Epoch] | None = None,
) -> Path:
    """A saved run of `ranks` ranks on two hosts; `found` replaces the run's epochs."""
    folder = tmp_path / "run"
    folder.mkdir()
    dataset = DatasetSpec(format="npz", files=64, samples_per_file=2, record_length_bytes=2 * MiB)
    plan = TrainingPlan(
        model="default",
        dataset=dataset,
        ranks=ranks,
        batch_size=4,
        computation=Spread(parameters={"value": 0.5}),
        epochs=epochs,
        evaluation=EvaluationPlan(DatasetSpec("npz", 8, split="valid"), 1, Spread()) if evaluation else None,
        au_threshold_ratio=0.90,
    )
    phases = ["train", "evaluation"] if evaluation else ["train"]
    numbers = range(1, epochs + 1)
    result = Result(
        id="abc",
        job=Job("dlio"),
        plan=plan,
        status=status,
        started_utc=STARTED_UTC,
        ended_utc=ENDED_UTC,
        machine={"cpu_count": 8, "memory_bytes": GiB // 4, "cpu_model": "some processor"},
        epochs=found or [epoch(number, phase) for number in numbers for phase in phases],
        ranks=[
            RankResult(
                rank=rank,
                host=f"host{rank % 2}",
                epochs=[epoch(number, phase, share=1 / ranks) for number in numbers for phase in phases],
            )
            for rank in range(ranks)
        ],
        metrics=Metrics(au_ratio=0.915, limiting_stage="read"),
    )
    save_result(folder, result)
    columns = column_values(epochs, evaluation=evaluation)
    arrays = {f"rank{rank:04d}/{name}": values for rank in range(ranks) for name, values in columns.items()}
    np.savez(folder / "series.npz", **arrays)
    return folder


def load(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def local(utc: str) -> str:
    return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%dT%H:%M:%S.%f")


def test_all_files_are_written(tmp_path: Path) -> None:
    paths = write_dlio_files(run_folder(tmp_path), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "summary.json",
        "dlio.log",
        "0_output.json",
        "1_output.json",
        "0_per_epoch_stats.json",
        "1_per_epoch_stats.json",
    }
    assert {path.name for path in paths} == names


def test_summary_has_dlios_keys_and_types(tmp_path: Path) -> None:
    write_dlio_files(run_folder(tmp_path), tmp_path / "out")
    summary = load(tmp_path / "out" / "summary.json")
    assert {name: type(value) for name, value in summary.items()} == SUMMARY_KEYS
    eval_nine = {name.replace("train_", "eval_"): kind for name, kind in TRAIN_NINE.items()}
    assert {name: type(value) for name, value in summary["metric"].items()} == TRAIN_NINE | eval_nine
    assert (summary["num_accelerators"], summary["num_hosts"], summary["hostname"]) == (2, 2, "host0")
    assert (summary["num_files_train"], summary["num_files_eval"], summary["num_samples_per_file"]) == (64, 8, 2)
    assert (summary["host_cpu_count"], summary["host_memory_GB"]) == ([8, 8], [0.25, 0.25])
    assert summary["host_meminfo"] == {"MemTotal": "262144 kB"}
    assert summary["host_cpuinfo"] == {"model name": "some processor"}
    assert summary["data_size_per_host_GB"] == 0.125
    assert summary["potential_caching"] == [1, 1]
    assert (summary["start"], summary["end"]) == (local(STARTED_UTC), local(ENDED_UTC))
    assert summary["epochs"] == 2


def test_correct_figures_fill_the_standard_keys_by_default(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    write_dlio_files(folder, tmp_path / "out")
    metric = load(tmp_path / "out" / "summary.json")["metric"]
    assert metric["train_au_percentage"] == pytest.approx([91.0, 92.0])
    assert metric["train_au_mean_percentage"] == pytest.approx(91.5)
    assert metric["train_au_stdev_percentage"] == pytest.approx(0.5)
    assert metric["train_au_meet_expectation"] == "success"
    assert metric["train_throughput_samples_per_second"] == pytest.approx([101.0, 102.0])
    assert metric["train_io_mean_MB_per_second"] == pytest.approx(2.5)


def test_compatible_figures_follow_dlios_formulas(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    write_dlio_files(folder, tmp_path / "out", metrics="compatible")
    summary = load(tmp_path / "out" / "summary.json")
    metric, own = summary["metric"], summary["x_stoker"]
    assert metric["train_au_mean_percentage"] == pytest.approx(81.5)
    assert metric["train_au_meet_expectation"] == "fail"
    assert metric["train_throughput_mean_samples_per_second"] == pytest.approx(51.5)
    assert metric["train_io_mean_MB_per_second"] == pytest.approx(51.5 * 2)
    assert metric["train_io_stdev_MB_per_second"] == pytest.approx(0.5 * 2)
    assert own["metrics"] == "compatible"
    assert own["compatible"] == metric
    assert own["correct"]["train_au_mean_percentage"] == pytest.approx(91.5)
    assert (own["au_ratio"], own["limiting_stage"], own["result_id"]) == (0.915, "read", "abc")


def test_without_evaluation_there_are_no_evaluation_figures(tmp_path: Path) -> None:
    write_dlio_files(run_folder(tmp_path, evaluation=False, ranks=1), tmp_path / "out")
    summary = load(tmp_path / "out" / "summary.json")
    assert set(summary["metric"]) == set(TRAIN_NINE)
    assert summary["num_files_eval"] == 0
    assert "Eval" not in (tmp_path / "out" / "dlio.log").read_text()


def test_epochs_cut_short_do_not_count_beside_whole_ones(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, evaluation=False, found=[epoch(1), epoch(2, complete=False)])
    write_dlio_files(folder, tmp_path / "out")
    summary = load(tmp_path / "out" / "summary.json")
    assert (summary["epochs"], summary["metric"]["train_au_percentage"]) == (1, pytest.approx([91.0]))
    assert summary["x_stoker"]["incomplete_epochs"] == 1


def test_timeline_of_epochs_and_blocks(tmp_path: Path) -> None:
    write_dlio_files(run_folder(tmp_path), tmp_path / "out")
    stats = load(tmp_path / "out" / "0_per_epoch_stats.json")
    assert list(stats) == ["1", "2"]
    assert list(stats["1"]) == ["start", "block1", "eval", "end", "duration"]
    assert stats["1"]["block1"] == {
        "start": local("2026-01-31T12:00:00Z"),
        "end": local("2026-01-31T12:00:04Z"),
        "duration": "4.00",
    }
    assert stats["1"]["duration"] == "8.00"
    assert stats["2"]["start"] == local("2026-01-31T12:00:08Z")


def test_times_come_from_the_ranks_own_log_when_there_is_one(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "ranks").mkdir()
    event = {"event": "start", "at_ns": START_NS - 2_000_000_000, "utc": "2026-01-31T13:00:00.000000Z"}
    (folder / "ranks" / "rank-0001.jsonl").write_text(json.dumps(event) + "\n")
    write_dlio_files(folder, tmp_path / "out")
    starts = [load(tmp_path / "out" / f"{rank}_per_epoch_stats.json")["1"]["start"] for rank in (0, 1)]
    assert starts == [local("2026-01-31T12:00:00Z"), local("2026-01-31T13:00:02Z")]


def test_raw_seconds_of_every_step(tmp_path: Path) -> None:
    write_dlio_files(run_folder(tmp_path), tmp_path / "out")
    output = load(tmp_path / "out" / "1_output.json")
    host_keys = {"host_memory_GB", "host_cpu_count", "host_processor_name", "potential_caching", "host_cpuinfo"}
    assert host_keys | {"host_meminfo", "hostname", "1", "2"} == set(output)
    first = output["1"]
    assert set(first) == {"start", "load", "proc", "compute", "throughput", "au", "host_meminfo", "end"}
    for part in ("block1", "eval"):
        assert first["load"][part] == [0.25] * STEPS
        assert first["proc"][part] == [0.75] * STEPS
        assert first["compute"][part] == [0.5] * STEPS
    assert first["au"] == {"block1": pytest.approx(91.0), "eval": pytest.approx(91.0)}
    assert first["throughput"] == {"block1": pytest.approx(50.5), "eval": pytest.approx(50.5)}
    assert output["hostname"] == "host1"


def test_blocks_of_a_cut_epoch_have_seconds_and_no_figures(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, ranks=1, evaluation=False, epochs=1)
    columns = column_values(1, evaluation=False)
    columns["block"] = np.array([1, 1, 2, 2])
    np.savez(folder / "series.npz", **{f"rank0000/{name}": values for name, values in columns.items()})
    write_dlio_files(folder, tmp_path / "out")
    first = load(tmp_path / "out" / "0_output.json")["1"]
    assert {name: len(values) for name, values in first["compute"].items()} == {"block1": 2, "block2": 2}
    assert first["au"] == first["throughput"] == {}
    assert {"block1", "block2"} <= set(load(tmp_path / "out" / "0_per_epoch_stats.json")["1"])


def test_log_reads_like_dlios(tmp_path: Path) -> None:
    write_dlio_files(run_folder(tmp_path), tmp_path / "out", log_file="mine.log")
    lines = (tmp_path / "out" / "mine.log").read_text().splitlines()
    assert all(line.startswith(("[OUTPUT] ", "[METRIC] ")) for line in lines)
    text = "\n".join(lines)
    assert f"[OUTPUT] {local(STARTED_UTC)} Running DLIO [Training & Evaluation] with 2 process(es)" in text
    for expected in (
        "Starting epoch 1",
        "Starting block 1",
        "Ending block 1 - 4 steps completed in 4.00 s",
        "Epoch 2 - Block 1 [Training] Accelerator Utilization [AU] (%): 92.0000",
        "[METRIC] Number of Simulated Accelerators: 2 ",
        "[METRIC] Training Accelerator Utilization [AU] (%): 91.5000 (0.5000)",
        "[METRIC] Training Throughput (samples/second): 101.5000 (0.5000)",
        "[METRIC] Training I/O Throughput (MB/second): 2.5000 (0.5000)",
        "[METRIC] train_au_meet_expectation: success",
        "[METRIC] Eval Throughput (samples/second): 101.500000 (0.500000)",
        "[METRIC] eval_au_meet_expectation: success",
    ):
        assert expected in text
    assert lines[-1] == "[METRIC] " + "=" * 58


def test_a_run_without_steps_still_gets_a_summary(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, epochs=1, evaluation=False, status="failed")
    (folder / "series.npz").unlink()
    paths = write_dlio_files(folder, tmp_path / "out")
    assert {path.name for path in paths} == {"summary.json", "dlio.log"}


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with pytest.raises(UsageError, match="correct or compatible"):
        write_dlio_files(folder, tmp_path / "out", metrics="legacy")
    with pytest.raises(UsageError, match="leaves its root"):
        write_dlio_files(folder, tmp_path / "out", log_file="../dlio.log")
    (folder / "series.npz").write_bytes(b"PK not a zip")
    with pytest.raises(CorruptError, match="series"):
        write_dlio_files(folder, tmp_path / "out")


def test_hydras_files_are_yaml_that_reads_back(tmp_path: Path) -> None:
    run = run_of("workload=unet3d_h100", "++workload.train.epochs=2", "++hydra.run.dir=x")
    write_hydra_files(tmp_path / ".hydra", run.documents)
    back = {path.name: yaml.safe_load(path.read_text()) for path in (tmp_path / ".hydra").iterdir()}
    assert back == run.documents
    assert back["overrides.yaml"] == ["workload=unet3d_h100", "++workload.train.epochs=2"]
