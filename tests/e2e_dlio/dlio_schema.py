"""What DLIO's output files hold: keys and types, and the sums that must agree with our own result."""

from datetime import datetime
from typing import Any

import numpy as np
import yaml
from dlio_commands import OUT, Place

SUMMARY = {
    "start": str,
    "end": str,
    "num_accelerators": int,
    "num_hosts": int,
    "hostname": str,
    "num_files_train": int,
    "num_files_eval": int,
    "num_samples_per_file": int,
    "host_cpu_count": [int],
    "host_processor_name": str,
    "potential_caching": [int],
    "host_cpuinfo": dict,
    "host_meminfo": dict,
    "host_memory_GB": [float],
    "data_size_per_host_GB": float,
    "epochs": int,
    "metric": dict,
}
METRIC = {
    "au_percentage": [float],
    "au_mean_percentage": float,
    "au_stdev_percentage": float,
    "au_meet_expectation": str,
    "throughput_samples_per_second": [float],
    "throughput_mean_samples_per_second": float,
    "throughput_stdev_samples_per_second": float,
    "io_mean_MB_per_second": float,
    "io_stdev_MB_per_second": float,
}
OUTPUT = {
    "host_memory_GB": float,
    "host_cpu_count": int,
    "host_processor_name": str,
    "potential_caching": int,
    "host_cpuinfo": dict,
    "host_meminfo": dict,
    "hostname": str,
}
OUTPUT_EPOCH = {"load": [float], "proc": [float], "compute": [float], "throughput": float, "au": float}
SPAN = {"start": str, "end": str, "duration": str}


def assert_schema(found: dict[str, Any], schema: dict[str, Any]) -> None:
    """Assert that every key of `schema` is there with its type; `[type]` is a list that is not empty."""
    for key, kind in schema.items():
        assert key in found, f"{key} is missing"
        items, one = (found[key], kind[0]) if isinstance(kind, list) else ([found[key]], kind)
        assert isinstance(items, list) and items, f"{key}: {found[key]!r}"
        assert all(isinstance(item, one) and not isinstance(item, bool) for item in items), f"{key}: {found[key]!r}"


def seconds(stamp: str) -> float:
    """Return a time of DLIO's files as seconds; its form is checked."""
    return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%f").timestamp()


def check_output_files(place: Place, *, steps: int, eval_steps: int = 0, out: str = OUT) -> None:
    """Assert that all of DLIO's files are there, of DLIO's form, and agree with our result of the same run."""
    result = place.result(out)
    plan = result.plan
    assert result.status == "complete", result.reason
    trained = [epoch for epoch in result.epochs if epoch.phase == "train"]
    assert [epoch.steps for epoch in trained] == [steps] * plan.epochs
    assert all(epoch.samples == steps * plan.batch_size * plan.ranks for epoch in trained)
    assert all(epoch.coverage_exact for epoch in trained)
    check_summary(place, result, evaluated=bool(eval_steps), out=out)
    for rank in range(plan.ranks):
        check_rank(place, rank, epochs=plan.epochs, steps=steps, eval_steps=eval_steps, out=out)
    log = (place.folder / out / "dlio.log").read_text()
    assert "[METRIC] Training Accelerator Utilization [AU] (%): " in log
    assert log.count("[OUTPUT] ") >= 2 * plan.epochs


def check_summary(place: Place, result: Any, *, evaluated: bool, out: str) -> None:
    """Assert summary.json's form, and that its figures are those of our result."""
    summary = place.json("summary.json", out)
    plan = result.plan
    assert_schema(summary, SUMMARY)
    assert seconds(summary["start"]) < seconds(summary["end"])
    assert summary["num_accelerators"] == plan.ranks
    assert (summary["num_files_train"], summary["num_samples_per_file"]) == (
        plan.dataset.files,
        plan.dataset.samples_per_file,
    )
    assert summary["epochs"] == plan.epochs
    for prefix, phase in (("train", "train"), *((("eval", "evaluation"),) if evaluated else ())):
        metric = summary["metric"]
        assert_schema(metric, {f"{prefix}_{name}": kind for name, kind in METRIC.items()})
        epochs = [epoch for epoch in result.epochs if epoch.phase == phase]
        np.testing.assert_allclose(metric[f"{prefix}_au_percentage"], [100 * epoch.au_ratio for epoch in epochs])
        rates = [epoch.samples_per_second for epoch in epochs]
        np.testing.assert_allclose(metric[f"{prefix}_throughput_samples_per_second"], rates)
        np.testing.assert_allclose(metric[f"{prefix}_throughput_stdev_samples_per_second"], np.std(rates))
        assert metric[f"{prefix}_au_meet_expectation"] in ("success", "fail")


def check_rank(place: Place, rank: int, *, epochs: int, steps: int, eval_steps: int, out: str) -> None:
    """Assert the form of a rank's two files, and that every epoch has its steps."""
    stats, output = place.json(f"{rank}_per_epoch_stats.json", out), place.json(f"{rank}_output.json", out)
    assert_schema(output, OUTPUT)
    assert list(stats) == [str(epoch) for epoch in range(1, epochs + 1)]
    for epoch, timeline in stats.items():
        counts = {"block1": steps} | ({"eval": eval_steps} if "eval" in timeline else {})
        for span in (timeline, *(timeline[name] for name in counts)):
            assert_schema(span, SPAN)
            lasted = seconds(span["end"]) - seconds(span["start"])
            assert lasted >= 0 and abs(lasted - float(span["duration"])) < 0.011
        for key, kind in OUTPUT_EPOCH.items():
            assert_schema(output[epoch][key], dict.fromkeys(counts, kind))
        for name, count in counts.items():
            lengths = {len(output[epoch][key][name]) for key in ("load", "proc", "compute")}
            assert lengths == {count}
            parts = [np.array(output[epoch][key][name]) for key in ("load", "compute", "proc")]
            assert np.all(parts[0] + parts[1] <= parts[2] + 1e-9)
    if eval_steps:
        assert any("eval" in timeline for timeline in stats.values())


def compatible_figures(place: Place, rank: int, epoch: int, batch: int, out: str = OUT) -> tuple[float, float]:
    """Return AU in per cent and samples/s of the only block of a rank's epoch, by DLIO's formulas from DLIO's files."""
    block = place.json(f"{rank}_per_epoch_stats.json", out)[str(epoch)]["block1"]
    output = place.json(f"{rank}_output.json", out)[str(epoch)]
    compute, process = output["compute"]["block1"], output["proc"]["block1"]
    measured = seconds(block["end"]) - seconds(block["start"]) - process[0]
    return 100 * sum(compute[1:]) / measured, (len(compute) - 2) * batch / measured


def hydra_file(place: Place, name: str, out: str = OUT) -> Any:
    """Return one of the three files Hydra leaves."""
    return yaml.safe_load((place.folder / out / "dlio_config" / name).read_text())
