"""The text of DLIO's log: `[OUTPUT]` lines of what happened when, and the `[METRIC]` block at the end."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from stoker.bench.report.dlio_checkpoints import checkpoint_lines, checkpoint_metric_lines
from stoker.bench.report.dlio_ranks import Stretch, WallMap, rates
from stoker.bench.report.dlio_summary import EVALUATION, TRAIN
from stoker.core.result import Result

_LINE: Final = "=" * 58


def log_text(
    result: Result, epochs: dict[int, list[Stretch]], wall: WallMap, summary: dict[str, Any], *, mode: str, folder: str
) -> str:
    """Return the whole log; `epochs` are those of rank 0, `folder` is where the files lie."""
    lines = [*_run_lines(result, summary), *_epoch_lines(result, epochs, wall, mode), *checkpoint_lines(result)]
    lines.append(f"{summary['end']} Saved outputs in {folder}")
    lines.append("Averaged metric over all steps/epochs")
    return "".join(f"[OUTPUT] {line}\n" for line in lines) + "".join(f"{line}\n" for line in metric_lines(summary))


def _run_lines(result: Result, summary: dict[str, Any]) -> Iterator[str]:
    work = "Training & Evaluation" if result.plan.evaluation is not None else "Training"
    start = summary["start"]
    work = work if result.plan.trains else "Checkpointing"
    yield f"{start} Running DLIO [{work}] with {result.plan.ranks} process(es)"
    if not result.plan.trains:
        return
    steps = max((epoch.steps for epoch in result.epochs if epoch.phase == TRAIN), default=0)
    samples, batch, ranks = result.plan.dataset.samples, result.plan.batch_size, result.plan.ranks
    yield f"{start} Max steps per epoch: {steps} ({samples} samples / batch {batch} / {ranks} ranks)"


def _epoch_lines(result: Result, epochs: dict[int, list[Stretch]], wall: WallMap, mode: str) -> Iterator[str]:
    known = {(epoch.epoch, epoch.phase): epoch for epoch in result.epochs}
    for number, parts in epochs.items():
        yield f"{wall.text(parts[0].start_ns)} Starting epoch {number}"
        for part in parts:
            is_eval = part.name == "eval"
            name = "eval" if is_eval else f"block {part.name.removeprefix('block')}"
            yield f"{wall.text(part.start_ns)} Starting {name}"
            end = wall.text(part.end_ns)
            seconds = (part.end_ns - part.start_ns) / 1e9
            yield f"{end} Ending {name} - {len(part.compute)} steps completed in {seconds:.2f} s"
            figures = known.get((number, EVALUATION if is_eval else TRAIN))
            if figures is not None:
                au, rate = rates(figures, mode)
                head = f"{end} Epoch {number}" + ("" if is_eval else f" - Block {part.name.removeprefix('block')}")
                label = "[Eval]" if is_eval else "[Training]"
                yield f"{head} {label} Accelerator Utilization [AU] (%): {au:.4f}"
                yield f"{head} {label} Throughput (samples/second): {rate:.4f}"
                yield (
                    f"{head} {label} Computation time per step (second): "
                    f"{np.mean(part.compute):.4f}+/-{np.std(part.compute):.4f}"
                )
        end_ns = max(part.end_ns for part in parts)
        seconds = (end_ns - parts[0].start_ns) / 1e9
        steps = sum(len(part.compute) for part in parts if part.name != "eval")
        yield f"{wall.text(end_ns)} Ending epoch {number} - {steps} steps completed in {seconds:.2f} s"


def metric_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the block of lines that begin with `[METRIC] `, in DLIO's words and digits."""
    metric = summary["metric"]
    yield f"[METRIC] {_LINE}"
    yield f"[METRIC] Number of Simulated Accelerators: {summary['num_accelerators']} "
    if "train_au_mean_percentage" in metric:
        au = _pair(metric, "train_au", "percentage", 4)
        rate = _pair(metric, "train_throughput", "samples_per_second", 4)
        yield f"[METRIC] Training Accelerator Utilization [AU] (%): {au}"
        yield f"[METRIC] Training Throughput (samples/second): {rate}"
        yield f"[METRIC] Training I/O Throughput (MB/second): {_pair(metric, 'train_io', 'MB_per_second', 4)}"
        yield f"[METRIC] train_au_meet_expectation: {metric['train_au_meet_expectation']}"
    if "eval_au_mean_percentage" in metric:
        rate = _pair(metric, "eval_throughput", "samples_per_second", 6)
        yield f"[METRIC] Eval Accelerator Utilization [AU] (%): {_pair(metric, 'eval_au', 'percentage', 4)}"
        yield f"[METRIC] Eval Throughput (samples/second): {rate}"
        yield f"[METRIC] Eval Throughput (MB/second): {_pair(metric, 'eval_io', 'MB_per_second', 6)}"
        yield f"[METRIC] eval_au_meet_expectation: {metric['eval_au_meet_expectation']}"
    yield from checkpoint_metric_lines(metric)
    yield f"[METRIC] {_LINE}"


def _pair(metric: dict[str, Any], name: str, unit: str, digits: int) -> str:
    return f"{metric[f'{name}_mean_{unit}']:.{digits}f} ({metric[f'{name}_stdev_{unit}']:.{digits}f})"
