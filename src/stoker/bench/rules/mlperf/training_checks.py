"""Training: sizes of the dataset, utilisation, clients, aggregation, figures that cannot be."""

import re
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.formulas import files_needed, memory_that_counts
from stoker.bench.rules.mlperf.layout import PACKAGE, REPORT_V1, Series, System
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.means import training_means
from stoker.bench.rules.mlperf.reading import dig, number, numbers, whole
from stoker.bench.rules.mlperf.rollups import ROLLUP, published
from stoker.bench.rules.mlperf.series_checks import measured, warm_up
from stoker.bench.rules.mlperf.tables import TrainingAccelerator, TrainingModel, models
from stoker.core.units import MiB

AGREEMENT_RATIO: Final = 0.01
NODE_RATIO_MAX: Final = 1.5
SPREAD_RATIO_MAX: Final = 0.03
_SLOTS: Final = re.compile(r"(?:[^:\[\]]+|\[[^\]]+\]):(\d{1,9})")  # a bare IPv6 address has no slots
_AU_SLACK_PERCENT: Final = 1e-6


def model_of(series: Series) -> TrainingModel | None:
    """Return the table's entry of the model."""
    return models().training.get(series.model)


def accelerator_of(series: Series, leaf: Leaf) -> TrainingAccelerator | None:
    """Return the table's entry of the leaf's accelerator."""
    model = model_of(series)
    return model.accelerators.get(leaf.accelerator or series.accelerator) if model is not None else None


def datasize_leaf(series: Series, _: Context) -> Iterable[Said]:
    """The model was sized, and the leaf says how."""
    found = series.phase("datasize")
    if series.folder.find("datasize") is not None and not found:
        yield Fault("no leaf", "at least one leaf of datasize", series.folder.below("datasize"))
    for leaf in found:
        if not leaf.metadata_name:
            yield Fault("no file *_metadata.json", "the metadata of the tool", leaf.path)


def _sized(series: Series) -> Leaf | None:
    """Return the datasize leaf that counts: the last one."""
    found = series.phase("datasize")
    return found[-1] if found else None


def recalculated(series: Series, context: Context) -> Iterable[Said]:
    """The sized numbers follow from the leaf's arguments."""
    leaf, model = _sized(series), model_of(series)
    if leaf is None or model is None:
        yield missing("the datasize leaf, or the model's template", series.path)
        return
    needed, why = _minimum(series, leaf, "max_accelerators")
    told = leaf.files_count
    path = leaf.folder.below(leaf.metadata_name)
    if needed is None or told is None:
        yield missing(why or "parameters.dataset.num_files_train", leaf.path)
        return
    legal = (needed,) if context.tree.edition == "3.0" else (needed - 1, needed)  # 2.0 rounded down
    if told not in legal:
        yield Fault(f"{told:,} files", f"{needed:,} files: {why}", path, "parameters.dataset.num_files_train")
    total = number(leaf.metadata, "parameters.dataset.total_disk_bytes")
    expected = told * model.file_bytes
    if total is not None and abs(total - expected) > model.file_bytes:
        wanted = f"{expected:,.0f} bytes: files times bytes a file"
        yield Fault(f"{total:,.0f} bytes", wanted, path, "parameters.dataset.total_disk_bytes")


def _minimum(series: Series, leaf: Leaf, accelerators_argument: str) -> tuple[int | None, str]:
    """Return the least files for the leaf's declared arguments and which bound rules, or None and what is missing."""
    model, kind = model_of(series), accelerator_of(series, leaf)
    accelerators = whole(leaf.metadata, f"args.{accelerators_argument}")
    memory = _memory_bytes(leaf)
    if model is None or kind is None:
        return None, "the model's accelerator"
    if accelerators is None or memory is None:
        return None, f"args.{accelerators_argument} or the clients' memory"
    by_bytes, by_steps = files_needed(model, accelerators=accelerators, batch_size=kind.batch_size, memory_bytes=memory)
    why = "five times the clients' memory" if by_bytes >= by_steps else "500 steps an epoch"
    return max(by_bytes, by_steps), why


def _memory_bytes(leaf: Leaf) -> float | None:
    """Return the clients' memory: as declared, or as measured where that is more than 5 % larger."""
    declared = leaf.declared_memory_bytes
    return None if declared is None else memory_that_counts(declared, leaf.measured_memory_bytes)[0]


def generated_enough(series: Series, _: Context) -> Iterable[Said]:
    """At least as many files were generated as were asked for."""
    sized, made = _sized(series), series.phase("datagen")
    needed = sized.files_count if sized is not None else None
    if needed is None or not made:
        yield missing("the number of files sized or generated", series.path)
        return
    for leaf in made:
        if leaf.files_count is None:
            yield missing("the number of files generated", leaf.path)
        elif leaf.files_count < needed:
            path = leaf.folder.below(leaf.metadata_name)
            yield Fault(
                f"{leaf.files_count:,} files",
                f"at least {needed:,}, as datasize says",
                path,
                "parameters.dataset.num_files_train",
            )


def run_matches_sizing(series: Series, context: Context) -> Iterable[Said]:
    """The files of a run lie between those sized and those generated, and are enough for the run itself."""
    sized, made = _sized(series), series.phase("datagen")
    least = sized.files_count if sized is not None else None
    most = made[-1].files_count if made else None
    for leaf in series.runs:
        yield from _run_files(series, leaf, least, most, context)
        if made:
            yield from _subfolders(leaf, made[-1])


def _run_files(series: Series, leaf: Leaf, least: int | None, most: int | None, context: Context) -> Iterable[Said]:
    told = leaf.files_count
    path = leaf.folder.below("summary.json")
    if told is None:
        yield missing("num_files_train", leaf.path)
        return
    if least is not None and told < least:
        yield Fault(f"{told:,} files", f"at least {least:,}, as datasize says", path, "num_files_train")
    if most is not None and told > most:
        yield Fault(f"{told:,} files", f"at most {most:,}, as were generated", path, "num_files_train")
    needed, why = _minimum(series, leaf, "num_accelerators")
    if needed is None:
        yield missing(why, leaf.path)
    elif told < needed - (context.tree.edition != "3.0") and (least is None or needed > least):
        yield Fault(f"{told:,} files", f"at least {needed:,}: {why}", path, "num_files_train")


def _subfolders(leaf: Leaf, made: Leaf) -> Iterable[Said]:
    key = "parameters.dataset.num_subfolders_train"
    real, told = whole(made.metadata, key), whole(leaf.metadata, key)
    if real is not None and told is not None and (real or 1) != (told or 1):
        path = leaf.folder.below(leaf.metadata_name)
        yield Fault(f"{told} subfolders", f"{real}, as were generated", path, key)


def utilisation(series: Series, context: Context) -> Iterable[Said]:
    """Every measured run reaches the model's target by itself."""
    model = model_of(series)
    if model is None:
        yield missing("the model's target", series.path)
        return
    target = 100 * model.au_threshold_ratio
    for leaf in measured(series.runs, context.tree.edition):
        mean = leaf.au_mean_percent
        path = leaf.folder.below("summary.json")
        key = "metric.train_au_mean_percentage"
        if mean is None:
            yield missing(key, leaf.path)
        elif mean < target - _AU_SLACK_PERCENT:
            yield Fault(f"{mean:.2f} %", f"at least {target:g} %", path, key)


def single_client(system: System, context: Context) -> Iterable[Said]:
    """A system that is not for several hosts was driven by one client."""
    if not any(series.family == "training" for series in system.series):
        return
    multi = description_of(system, context, "capabilities.multi_host")
    if multi is None:
        yield missing("whether the system is for several hosts", system.path)
    elif multi is False:
        for series in system.series:
            for leaf in series.runs if series.family == "training" else []:
                if (leaf.hosts or 1) > 1:
                    path = leaf.folder.below("summary.json")
                    yield Fault(f"{leaf.hosts} clients", "exactly one", path, "num_hosts")


def description_of(system: System, context: Context, key: str) -> Any:
    """Return a value of the solution in the system's description, None when there is none."""
    submitter = next((each for each in context.tree.submitters if system in each.systems), None)
    folder = submitter.folder.find("systems") if submitter is not None else None
    if folder is None or f"{system.name}.yaml" not in folder.files:
        return None
    document = context.tree.files.yaml(folder.below(f"{system.name}.yaml"))
    return dig(document, ["system_under_test", "solution", *key.split(".")])


def identical_nodes(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Every client runs as many accelerators as any other."""
    count, hosts = leaf.accelerators, leaf.hosts
    if count is None or hosts is None:
        yield missing("the number of accelerators or clients", leaf.path)
    elif count % hosts:
        path = leaf.folder.below("summary.json")
        yield Fault(f"{count} accelerators on {hosts} clients", "a multiple of the clients", path, "num_accelerators")
    listed = leaf.argument("hosts")
    named = [_SLOTS.fullmatch(host) for host in listed if isinstance(host, str)] if isinstance(listed, list) else []
    slots = [found[1] for found in named if found is not None]
    if len(set(slots)) > 1:
        path = leaf.folder.below(leaf.metadata_name)
        yield Fault(f"slots {', '.join(slots)}", "equal slots", path, "args.hosts")


def similar_nodes(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Clients are of one size."""
    if not leaf.nodes:
        yield missing("the clients' cores and memory", leaf.path)
    for key, what in (("cpu.num_logical_cores", "cores"), ("memory.total", "bytes of memory")):
        sizes = [size for node in leaf.nodes if (size := number(node, key))]
        if sizes and min(sizes) > 0 and max(sizes) > NODE_RATIO_MAX * min(sizes):
            path = leaf.folder.below(leaf.metadata_name)
            told = f"{min(sizes):,.0f} to {max(sizes):,.0f} {what}"
            yield Fault(told, f"at most {NODE_RATIO_MAX} times the smallest", path, f"system_info.hosts {key}")


def aggregated(series: Series, context: Context) -> Iterable[Said]:
    """The published figures are the means of the measured runs."""
    runs = measured(series.runs, context.tree.edition)
    means = training_means(runs)
    found = published(series, "training")
    if not found or all(mean is None for mean in means.values()):
        yield no_figure(series, context)
        return
    first = warm_up(series.runs, context.tree.edition)
    for figure in found:
        mean = means[figure.of]
        if mean is not None and abs(figure.value - mean * figure.scale) > AGREEMENT_RATIO * mean * figure.scale + 0.005:
            left_out = f", {first.time} left out as the warm-up" if first is not None else ""
            wanted = f"{mean * figure.scale:.2f}, the mean over {len(runs)} runs{left_out}"
            yield Fault(f"{figure.value:.2f}", wanted, figure.path, figure.key)


def no_figure(series: Series, context: Context) -> Said:
    """Return the unknown for a rollup without figures; one that this kind of tree does not have is excused."""
    without = not series.folder.files.keys() & {ROLLUP, REPORT_V1}
    if without and (context.tree.edition == "2.0" or context.tree.kind != PACKAGE):
        return excused("no rollup lies beside the runs, and none has to", series.path)
    return missing("a published figure, or the runs'", series.path)


def within_demand(series: Series, _: Context) -> Iterable[Said]:
    """No run delivers more than its accelerators take, and its figures agree with each other."""
    model = model_of(series)
    for leaf in series.runs:
        kind, count, rate = accelerator_of(series, leaf), leaf.accelerators, leaf.samples_per_second
        path = leaf.folder.below("summary.json")
        if model is None or kind is None or count is None or rate is None:
            yield missing("throughput, accelerators or the model's demand", leaf.path)
            continue
        demand = count * kind.batch_size / kind.computation_seconds
        if rate > demand * (1 + AGREEMENT_RATIO):
            told = f"{rate:,.2f} samples/s"
            wanted = f"at most {demand:,.2f}, what {count} accelerators take"
            yield Fault(told, wanted, path, "metric.train_throughput_mean_samples_per_second")
        yield from _agreement(leaf.summary or {}, model, rate, path)


def _agreement(summary: Mapping[str, Any], model: TrainingModel, rate: float, path: str) -> Iterable[Said]:
    """A mean is the mean of its epochs, and MB/s are samples/s of the nominal length, as the engine writes them."""
    listed = numbers(summary, "metric.train_throughput_samples_per_second")
    if listed and abs(statistics.fmean(listed) - rate) > AGREEMENT_RATIO * abs(rate):
        key = "metric.train_throughput_mean_samples_per_second"
        yield Fault(f"{rate:,.2f}", f"{statistics.fmean(listed):,.2f}, the mean of the epochs", path, key)
    told = number(summary, "metric.train_io_mean_MB_per_second")
    nominal = rate * model.record_length_bytes / MiB
    if told is not None and told > nominal * (1 + AGREEMENT_RATIO):
        key = "metric.train_io_mean_MB_per_second"
        yield Fault(f"{told:,.2f}", f"at most {nominal:,.2f}, samples times their length", path, key)
    aus, mean = numbers(summary, "metric.train_au_percentage"), number(summary, "metric.train_au_mean_percentage")
    if mean is not None and not 0 <= mean <= 100 + _AU_SLACK_PERCENT:
        yield Fault(f"{mean:.2f} %", "0 to 100 %", path, "metric.train_au_mean_percentage")
    if aus and mean is not None and abs(statistics.fmean(aus) - mean) > 100 * AGREEMENT_RATIO:
        wanted = f"{statistics.fmean(aus):.2f} %, the mean of the epochs"
        yield Fault(f"{mean:.2f} %", wanted, path, "metric.train_au_mean_percentage")


def spread(series: Series, context: Context) -> Iterable[Said]:
    """The measured runs agree with each other."""
    rates = [rate for leaf in measured(series.runs, context.tree.edition) if (rate := leaf.samples_per_second)]
    if len(rates) < 2:
        yield missing("the throughput of two measured runs", series.path)
        return
    ratio = statistics.stdev(rates) / abs(statistics.fmean(rates)) if statistics.fmean(rates) else 0.0
    if ratio > SPREAD_RATIO_MAX:
        told = f"{100 * ratio:.1f} % over {len(rates)} runs"
        yield Fault(
            told, f"at most {100 * SPREAD_RATIO_MAX:g} %", series.path, "train_throughput_mean_samples_per_second"
        )


CHECKS = {
    "3.1.1": Check("series", datasize_leaf),
    "3.1.2": Check("series", recalculated),
    "3.2.1": Check("series", generated_enough),
    "3.3.1": Check("series", run_matches_sizing),
    "3.3.2": Check("series", utilisation),
    "3.3.4": Check("system", single_client),
    "3.3.6": Check("run", identical_nodes),
    "3.3.7": Check("run", similar_nodes),
    "3.3.8": Check("series", aggregated),
    "SANE-01": Check("series", within_demand),
    "SANE-02": Check("series", spread),
}
