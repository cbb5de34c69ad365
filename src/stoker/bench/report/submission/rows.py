"""The rows of the rollups: what each result of a tree publishes, computed from its leaves.

Only leaves of the command `run` count. Of six training runs the earliest is the warm-up and left out. A result without
any of its main figures has no row; a figure that some run does not tell is blank. What a reader should know stands in
`notes`, one sentence each.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from stoker.bench.report.submission.described import system_columns
from stoker.bench.rules.mlperf.layout import Series, System, Tree
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.means import (
    Means,
    checkpointing_means,
    kv_figures,
    training_means,
    vector_figures,
    vector_means,
)
from stoker.bench.rules.mlperf.provenance_checks import POINTER
from stoker.bench.rules.mlperf.reading import dig, number, whole, words
from stoker.bench.rules.mlperf.rollups import FAMILY_COLUMNS, KV_METRICS, LEADING
from stoker.bench.rules.mlperf.series_checks import in_order, measured, warm_up
from stoker.bench.rules.mlperf.tables import editions, models

BENCHMARK_TYPES: Final = {
    "training": "Training",
    "checkpointing": "Checkpointing",
    "vector_database": "VDB",
    "kv_cache": "KVCache",
}
MODEL_NAMES: Final = {
    "unet3d": "Unet3D",
    "retinanet": "RetinaNet",
    "llama3-8b": "8B",
    "llama3-70b": "70B",
    "llama3-405b": "405B",
    "llama3-1t": "1250B",
}

Figures = tuple[dict[str, Any], list[str]]
"""The family's columns, and notes."""


class Row(msgspec.Struct):
    """A result: what names it for good (`key`), its folder below the root, its columns, and notes."""

    key: str
    family: str
    division: str
    org: str
    system: str
    folder: str
    columns: dict[str, Any]
    notes: list[str] = []

    def document(self) -> dict[str, Any]:
        """Return the row as results.json holds it: columns in their order, unrounded, and the notes."""
        ordered = {name: self.columns.get(name) for name in (*LEADING, *FAMILY_COLUMNS[self.family])}
        return {**ordered, **({"notes": self.notes} if self.notes else {})}


def rows_of(tree: Tree) -> list[Row]:
    """Return the rows of a tree, in the order of its folders."""
    found = []
    for system in tree.systems:
        described = system_columns(tree, system)
        for series in system.series:
            row = _row(tree, system, series, described)
            if row is not None:
                found.append(row)
    return found


def _row(tree: Tree, system: System, series: Series, described: dict[str, Any]) -> Row | None:
    makers: dict[str, Callable[[Tree, Series], Figures | None]] = {
        "training": _training,
        "checkpointing": _checkpointing,
        "vector_database": _vectors,
        "kv_cache": _kv,
    }
    made = makers[series.family](tree, series) if series.runs and series.family in makers else None
    if made is None:
        return None
    figures, notes = made
    leading = {
        **described,
        "Organization": series.submitter,
        "Division": series.division,
        "Benchmark Type": BENCHMARK_TYPES[series.family],
        "Model": MODEL_NAMES.get(series.model, series.model),
    }
    common = {"# Client Nodes": _hosts(series.runs), "Code": _code(series.runs), "Logs": series.path}
    columns = {**leading, **common, **figures}
    place = (series.division, series.submitter, system.name, series.family, series.engine, series.model)
    named = "/".join(part for part in (*place, _profile(series)) if part)
    key = series.path if tree.edition == "1.0" else named  # its submitters named and nested their folders as they liked
    key = key.encode("utf-8", "backslashreplace").decode()  # names may be any bytes
    return Row(key, series.family, series.division, series.submitter, system.name, series.path, columns, notes)


def _profile(series: Series) -> str:
    """Return what further tells results of a KV cache apart: the profile that was asked for."""
    if series.family != "kv_cache":
        return ""
    told = (words(leaf.metadata, "args.performance_profile") for leaf in series.runs)
    return next((name for name in told if name), "")


def _hosts(runs: Sequence[Leaf]) -> int | None:
    return next((leaf.hosts for leaf in runs if leaf.hosts), None)


def _code(runs: Sequence[Leaf]) -> str | None:
    """Return the place of the code that the runs were made with, of several those of all."""
    named = (leaf.files.text(leaf.folder.below(POINTER)) for leaf in runs if leaf.has(POINTER))
    found = sorted({f"code-images/{name.strip()}" for name in named if name and name.strip()})
    return ", ".join(found) or None


def _count_note(series: Series, wanted: int) -> list[str]:
    count = len(series.runs)
    return [] if count == wanted else [f"{count} runs, where a result has {wanted}"]


def _training(tree: Tree, series: Series) -> Figures | None:
    rule = editions()[tree.edition]
    runs = measured(series.runs, tree.edition)
    means = training_means(runs)
    if not _any(runs, "metric.train_io_mean_MB_per_second", "metric.train_throughput_mean_samples_per_second"):
        return None
    first = warm_up(series.runs, tree.edition)
    notes = _count_note(series, rule.training_runs)
    if len(series.runs) > rule.training_runs and runs:
        notes.append(f"the measured runs are {runs[0].time} to {runs[-1].time}")
    notes += [f"{first.time} is the warm-up"] if first is not None else []
    io = means["io"]
    figures = {
        "Accelerator Type": next((leaf.accelerator for leaf in runs if leaf.accelerator), series.accelerator),
        "# Simulated Accelerators": next((leaf.accelerators for leaf in runs if leaf.accelerators), None),
        "Read B/W (GiB/s)": io / 1024 if io is not None else None,
    }
    return figures, notes


def _any(runs: Sequence[Leaf], *keys: str) -> bool:
    return any(number(leaf.summary, key) is not None for leaf in runs for key in keys)


def _checkpointing(_: Tree, series: Series) -> Figures | None:
    means = checkpointing_means(series.runs)
    if means["save_bandwidth"] is None and means["load_bandwidth"] is None:
        return None
    model = models().checkpointing.get(series.model)
    processes = next((leaf.accelerators for leaf in series.runs if leaf.accelerators), None)
    mode = next((told for leaf in series.runs if (told := words(leaf.config, "checkpoint.mode"))), None)
    subset = any(leaf.argument("checkpoint_subset") is True for leaf in series.runs)
    instances = processes / (model.tensor * model.pipeline) if processes and model is not None else None
    figures = {
        "Checkpoint Mode": "subset" if subset else mode,
        "DP Instances": int(instances) if instances is not None and instances.is_integer() else instances,
        "Write B/W (GiB/s)": means["save_bandwidth"],
        "Write Duration (secs)": means["save_duration"],
        "Read B/W (GiB/s)": means["load_bandwidth"],
        "Read Duration (secs)": means["load_duration"],
    }
    return figures, [] if len(series.runs) in (1, 2) else [f"{len(series.runs)} runs, where a result has 1 or 2"]


def _vectors(_: Tree, series: Series) -> Figures | None:
    means = vector_means(series.runs)
    every = [vector_figures(leaf)[0] for leaf in series.runs]
    if all(number(each, "throughput_qps") is None for each in every):
        return None
    recall = means["recall"]
    figures = {
        "Vector Count": next((count for each in every if (count := whole(each, "num_vectors"))), None),
        "Vector Dimension": next((count for each in every if (count := whole(each, "dimension"))), None),
        "Index Type": next((name for each in every if (name := words(each, "index_type"))), series.model),
        "Queries per Sec": means["queries"],
        "Query Latency (ms)": means["p99"],
        "Recall Percentage": 100 * recall if recall is not None else None,
        "Storage IOPs": means["operations"],
        "Read B/W (GiB/s)": means["read"],
    }
    return figures, _count_note(series, models().vector_database.runs)


def _kv(_: Tree, series: Series) -> Figures | None:
    """Return the newest run without an error; there may be several, for nothing asks for more than one."""
    told = [leaf for leaf in in_order(series.runs) if _kv_tokens(kv_figures(leaf))]
    sound = [leaf for leaf in told if _is_sound(leaf)]
    if not told:
        return None
    chosen = max(sound or told, key=lambda leaf: leaf.time)
    notes = [] if len(series.runs) == 1 else [f"{chosen.time} is published, the newest of {len(series.runs)} runs"]
    notes += [] if sound else ["no run ended without an error"]
    figures: dict[str, Any] = {"# Client Nodes": whole(chosen.summary, "host_count") or chosen.hosts}
    for option, means in kv_figures(chosen).items():
        figures |= {f"Option {option} {KV_METRICS[name]}": value for name, value in means.items()}
    return figures, notes


def _kv_tokens(options: dict[str, Means]) -> bool:
    return any(means["tokens"] is not None for means in options.values())


def _is_sound(leaf: Leaf) -> bool:
    ended = dig(leaf.metadata, ["exit_status"])
    return ended in (0, None) and not dig(leaf.summary, ["partial_failure"])
