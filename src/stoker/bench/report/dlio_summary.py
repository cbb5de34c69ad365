"""DLIO's `summary.json` from a saved result: its keys, its units, and which of our two sets of figures fills them.

`correct` fills the standard keys with our figures, `compatible` with those of DLIO's formulas (its throughput counts
two steps too few, its MB/s multiply by the nominal record length). Both always stand under `x_stoker`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from stoker.bench.report.dlio_checkpoints import checkpoint_figures, own_figures
from stoker.bench.report.dlio_host import HostFacts, data_gib_per_host, may_be_cached
from stoker.core.result import Epoch, Result

CORRECT: Final = "correct"
COMPATIBLE: Final = "compatible"
MODES: Final = (CORRECT, COMPATIBLE)
TRAIN: Final = "train"
EVALUATION: Final = "evaluation"
MIB: Final = 1 << 20
_PREFIXES: Final = {TRAIN: "train", EVALUATION: "eval"}


def summary(result: Result, facts: HostFacts, *, mode: str, start: str, end: str) -> dict[str, Any]:
    """Return the content of summary.json; `mode` is correct or compatible, the times are local time texts."""
    assert mode in MODES
    plan = result.plan
    evaluation = plan.evaluation
    phases = [phase for phase in (TRAIN, EVALUATION) if counted_epochs(result.epochs, phase)]
    phases = phases or ([TRAIN] if plan.trains else [])
    both = {each: _figures(result, phases, each) for each in MODES}
    return {
        "start": start,
        "num_accelerators": plan.ranks,
        "num_hosts": len(facts.hosts),
        "hostname": facts.hosts[0],
        "metric": both[mode],
        "num_files_train": plan.dataset.files,
        "num_files_eval": evaluation.dataset.files if evaluation is not None else 0,
        "num_samples_per_file": plan.dataset.samples_per_file,
        "host_cpu_count": [facts.cpu_count for _ in facts.hosts],
        "host_processor_name": facts.processor,
        "potential_caching": [may_be_cached(result, facts) for _ in facts.hosts],
        "host_cpuinfo": facts.cpuinfo,
        "host_meminfo": facts.meminfo,
        "host_memory_GB": [facts.memory_gib for _ in facts.hosts],
        "data_size_per_host_GB": data_gib_per_host(result, facts),
        "epochs": len(counted_epochs(result.epochs, TRAIN)),
        "end": end,
        "x_stoker": _own(result, both, mode),
    }


def counted_epochs(epochs: Sequence[Epoch], phase: str) -> list[Epoch]:
    """Return the epochs of a phase that were seen through, or those cut short when there is no other."""
    found = [epoch for epoch in epochs if epoch.phase == phase]
    return [epoch for epoch in found if epoch.complete] or found


def _figures(result: Result, phases: Sequence[str], mode: str) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for phase in phases:
        figures |= phase_figures(result, phase, mode)
    return figures | checkpoint_figures(result, mode)


def phase_figures(result: Result, phase: str, mode: str) -> dict[str, Any]:
    """Return the nine figures of a phase under DLIO's names; deviations are of the population (ddof 0)."""
    epochs = counted_epochs(result.epochs, phase)
    nominal_mib = result.plan.dataset.record_length_bytes / MIB
    if mode == CORRECT:
        aus = [100 * epoch.au_ratio for epoch in epochs]
        rates = [epoch.samples_per_second for epoch in epochs]
        mibs = [epoch.delivered_bytes_per_second / MIB for epoch in epochs]
    else:
        aus = [100 * epoch.au_compatible_ratio for epoch in epochs]
        rates = [epoch.samples_per_second_compatible for epoch in epochs]
        mibs = [rate * nominal_mib for rate in rates]
    prefix = _PREFIXES[phase]
    passed = bool(aus) and mean(aus) >= 100 * result.plan.au_threshold_ratio
    return {
        f"{prefix}_au_percentage": aus,
        f"{prefix}_au_mean_percentage": mean(aus),
        f"{prefix}_au_meet_expectation": "success" if passed else "fail",
        f"{prefix}_au_stdev_percentage": deviation(aus),
        f"{prefix}_throughput_samples_per_second": rates,
        f"{prefix}_throughput_mean_samples_per_second": mean(rates),
        f"{prefix}_throughput_stdev_samples_per_second": deviation(rates),
        f"{prefix}_io_mean_MB_per_second": mean(mibs),
        f"{prefix}_io_stdev_MB_per_second": deviation(mibs),
    }


def _own(result: Result, both: dict[str, Any], mode: str) -> dict[str, Any]:
    """Return what DLIO has no key for; other tools ignore it."""
    metrics, evidence = result.metrics, result.evidence
    return {
        "metrics": mode,
        **both,
        "result_id": result.id,
        "stoker_version": result.stoker_version,
        "status": result.status,
        "reason": result.reason,
        "au_ratio": metrics.au_ratio,
        "au_low_ratio": metrics.au_low_ratio,
        "au_high_ratio": metrics.au_high_ratio,
        "samples_per_second": metrics.samples_per_second,
        "delivered_bytes_per_second": metrics.delivered_bytes_per_second,
        "store_bytes_per_second": metrics.store_bytes_per_second,
        "limiting_stage": metrics.limiting_stage,
        "client_cpu_ratio": metrics.client_cpu_ratio,
        "io_mode_requested": evidence.io_mode_requested,
        "io_mode": evidence.io_mode,
        **own_figures(result),
        "incomplete_epochs": sum(not epoch.complete for epoch in result.epochs),
        "notes": [*result.plan.notes, *result.notes],
    }


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0.0 of nothing."""
    return float(np.mean(values)) if values else 0.0


def deviation(values: Sequence[float]) -> float:
    """Return the population's standard deviation, 0.0 of nothing."""
    return float(np.std(values)) if values else 0.0
