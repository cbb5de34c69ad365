"""Checkpointing: size against memory, durability, the model's shape, processes, aggregation, simultaneous access."""

from collections.abc import Iterable
from typing import Final

from stoker.bench.rules.mlperf.description import remap_fault
from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.formulas import CHECKPOINT_MEMORY_MULTIPLE, checkpoint_bytes
from stoker.bench.rules.mlperf.layout import Series, System
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.means import checkpointing_means
from stoker.bench.rules.mlperf.reading import dig, number, whole
from stoker.bench.rules.mlperf.rollups import published
from stoker.bench.rules.mlperf.series_checks import HANDOVER_SECONDS_MAX, handover_seconds, in_order, planned_counts
from stoker.bench.rules.mlperf.tables import CheckpointModel, models
from stoker.bench.rules.mlperf.training_checks import AGREEMENT_RATIO, description_of, no_figure
from stoker.core.units import GiB, format_bytes

ACCELERATORS_PER_HOST_MIN: Final = 4
SUBSET_RANKS_V2: Final = 8
DECIMAL_GIGA: Final = 10**9


def model_of(series: Series) -> CheckpointModel | None:
    """Return the table's entry of the model."""
    return models().checkpointing.get(series.model)


def written_enough(series: Series, _: Context) -> Iterable[Said]:
    """Reads cannot come from memory: three times as much was written, or the caches were cleared in a handover."""
    if not series.runs:
        return
    writing = in_order(series.runs)[0]
    size, hosts, memory = _size_bytes(series, writing), writing.hosts, writing.memory_bytes
    writes = planned_counts(writing)[0]
    if size is None or hosts is None or memory is None or writes is None:
        yield missing("the checkpoint's size, the number of writes or the clients' memory", writing.path)
        return
    gap = handover_seconds(series)
    handed_over = gap is not None and 0 <= gap <= HANDOVER_SECONDS_MAX
    if size * writes < CHECKPOINT_MEMORY_MULTIPLE * memory and not handed_over:
        told = f"{format_bytes(size * writes / hosts)} a client, where it has {format_bytes(memory / hosts)}"
        wanted = f"at least {CHECKPOINT_MEMORY_MULTIPLE} times the memory, "
        wanted += f"or a handover of at most {HANDOVER_SECONDS_MAX:g} s"
        yield Fault(told, wanted, writing.folder.below("summary.json"), "metric.checkpoint_size_GB")


def _size_bytes(series: Series, leaf: Leaf) -> float | None:
    """Return the bytes of a checkpoint: as the engine counted, else by the formula."""
    told = number(leaf.summary, "metric.checkpoint_size_GB")
    model = model_of(series)
    return told * GiB if told is not None else (checkpoint_bytes(model) if model is not None else None)


def durable(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Checkpoints are written with fsync."""
    told = dig(leaf.config, ["checkpoint", "fsync"])
    if leaf.config is None:
        yield missing("the resolved configuration", leaf.path)
    elif told is not True:
        yield Fault(f"fsync {told}", "true", leaf.config_path, "checkpoint.fsync")


def model_shape(series: Series, _: Context) -> Iterable[Said]:
    """The model block is the template's."""
    model = model_of(series)
    for leaf in series.runs:
        if model is None or leaf.config is None:
            yield missing("the model or the resolved configuration", leaf.path)
            continue
        for key, wanted in _shape(model):
            told = whole(leaf.config, f"model.{key}")
            if told != wanted:
                yield Fault(f"{told}", f"{wanted}", leaf.config_path, f"model.{key}")


def _shape(model: CheckpointModel) -> Iterable[tuple[str, int]]:
    yield "num_layers", model.layers
    yield "transformer.hidden_size", model.hidden_size
    yield "transformer.ffn_hidden_size", model.ffn_hidden_size
    yield "transformer.num_attention_heads", model.attention_heads
    yield "transformer.num_kv_heads", model.kv_heads
    yield "transformer.vocab_size", model.vocab_size
    yield "parallelism.tensor", model.tensor
    yield "parallelism.pipeline", model.pipeline
    yield "parallelism.zero_stage", model.zero_stage


def fits_accelerators(leaf: Leaf, _: Context) -> Iterable[Said]:
    """All accelerators together hold the checkpoint."""
    model, each = models().checkpointing.get(leaf.model), models().accelerator_memory_gb.get(leaf.accelerator)
    count = leaf.accelerators
    if (
        not leaf.accelerator
        and leaf.metadata is not None
        and "accelerator_type" not in (dig(leaf.metadata, ["args"]) or {})
    ):
        yield excused("this version of the tool does not ask for the accelerator", leaf.path)
        return
    if model is None or each is None or count is None:
        yield missing("the model, its processes or the accelerator's memory", leaf.path)
        return
    need, have = checkpoint_bytes(model), count * each * DECIMAL_GIGA
    if have < need:
        path = leaf.folder.below(leaf.metadata_name)
        told = f"{count} x {leaf.accelerator} hold {format_bytes(have)}"
        yield Fault(told, f"at least {format_bytes(need)}", path, "accelerator")


def is_subset(leaf: Leaf) -> bool:
    """Tell whether a run says that it is a subset: by its argument, or by the engine's mode."""
    return bool(leaf.argument("checkpoint_subset")) or dig(leaf.config, ["checkpoint", "mode"]) == "subset"


def subset(leaf: Leaf, context: Context) -> Iterable[Said]:
    """A subset run is declared, of the 8B model, and of exactly its ranks; in 2.0 of any model, with 8 ranks."""
    model, count = models().checkpointing.get(leaf.model), leaf.accelerators
    declared = leaf.argument("checkpoint_subset")
    if leaf.metadata is None and leaf.config is None:
        yield missing("whether this is a subset run", leaf.path)
        return
    if not is_subset(leaf) or model is None:
        return
    path = leaf.folder.below(leaf.metadata_name)
    if context.tree.edition == "2.0":
        if count != SUBSET_RANKS_V2:
            yield Fault(f"a subset with {count} ranks", f"{SUBSET_RANKS_V2}", leaf.config_path, "checkpoint.mode")
        return
    if not model.subset_ranks or count != model.subset_ranks:
        wanted = "llama3-8b with exactly 8 ranks"
        yield Fault(f"a subset of {leaf.model} with {count} ranks", wanted, path, "args.checkpoint_subset")
    if not declared:
        yield Fault("the subset is not declared", "checkpoint_subset", path, "args.checkpoint_subset")


def aggregated(series: Series, context: Context) -> Iterable[Said]:
    """The published figures are the means of the leaves' means."""
    found = published(series, "checkpointing")
    means = checkpointing_means(series.runs)
    if not found or all(mean is None for mean in means.values()):
        yield no_figure(series, context)
        return
    for figure in found:
        mean = means[figure.of]
        if mean is not None and abs(figure.value - mean) > AGREEMENT_RATIO * abs(mean) + 0.005:
            yield Fault(f"{figure.value:.2f}", f"{mean:.2f}, the mean of the leaves", figure.path, figure.key)


def closed_processes(leaf: Leaf, context: Context) -> Iterable[Said]:
    """The process count is the model's; in 2.0 a subset has 8."""
    model, count = models().checkpointing.get(leaf.model), leaf.accelerators
    if model is None or count is None:
        yield missing("the model or its processes", leaf.path)
    elif count != model.processes and not (context.tree.edition == "2.0" and is_subset(leaf)):
        path = leaf.folder.below("summary.json")
        yield Fault(f"{count} processes", f"{model.processes}", path, "num_accelerators")


def per_host(leaf: Leaf, _: Context) -> Iterable[Said]:
    """At least 4 accelerators a host; 4 are warned of."""
    count, hosts = leaf.accelerators, leaf.hosts
    if count is None or hosts is None:
        yield missing("processes or hosts", leaf.path)
        return
    path = leaf.folder.below("summary.json")
    each = count / hosts
    wanted = f"at least {ACCELERATORS_PER_HOST_MIN}; one text of the rules says more than that"
    if each < ACCELERATORS_PER_HOST_MIN:
        yield Fault(f"{each:g} a host", wanted, path, "num_hosts")
    elif each == ACCELERATORS_PER_HOST_MIN:
        yield Fault(f"{each:g} a host", wanted, path, "num_hosts", severity="warning")


def remap_time(system: System, context: Context) -> Iterable[Said]:
    """The remap time is 0 exactly when access is simultaneous."""
    if not any(series.family == "checkpointing" for series in system.series):
        return
    submitter = next((each for each in context.tree.submitters if system in each.systems), None)
    folder = submitter.folder.find("systems") if submitter is not None else None
    name = f"{system.name}.yaml"
    document = context.tree.files.yaml(folder.below(name)) if folder is not None and name in folder.files else None
    if document is None or folder is None:
        yield missing("the remap time", system.path)
    elif wrong := remap_fault(document):
        key = "system_under_test.solution.capabilities.remap_time_in_seconds"
        yield Fault(wrong, "0 s exactly with simultaneous write and read", folder.below(name), key)


def simultaneous(system: System, context: Context) -> Iterable[Said]:
    """One invocation of writes and reads needs simultaneous access."""
    if not any(series.family == "checkpointing" for series in system.series):
        return
    flags = [description_of(system, context, f"capabilities.simultaneous_{way}") for way in ("write", "read")]
    if any(not isinstance(flag, bool) for flag in flags):
        yield missing("whether access is simultaneous", system.path)
        return
    for series in system.series:
        single = series.family == "checkpointing" and len(series.runs) == 1
        if single and not all(flags) and all(planned_counts(series.runs[0])):
            told = "one invocation, where write and read are not both simultaneous"
            yield Fault(told, "two invocations", series.path)


CHECKS = {
    "4.3.1": Check("series", written_enough),
    "4.3.2": Check("run", durable),
    "4.3.3": Check("series", model_shape),
    "4.3.4": Check("run", fits_accelerators),
    "4.3.5": Check("run", subset),
    "4.3.6": Check("series", aggregated),
    "4.6.1": Check("run", closed_processes),
    "4.6.2": Check("run", per_host),
    "4.7.3": Check("system", remap_time),
    "4.7.4": Check("system", simultaneous),
}
