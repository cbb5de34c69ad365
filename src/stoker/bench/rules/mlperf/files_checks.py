"""Which files a leaf holds, and whether a leaf is what its place says."""

from collections.abc import Iterable
from typing import Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.layout import LEAF, RESULTS, Series
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import dig, whole, words

CONFIG_FILES: Final = ("config.yaml", "hydra.yaml", "overrides.yaml")
_BENCHMARKS: Final = {
    "training": ("training",),
    "checkpointing": ("checkpointing",),
    "vector_database": ("vectordb", "vector_database"),
    "kv_cache": ("kvcache", "kv_cache"),
}


def _lacking(leaf: Leaf, names: Iterable[str], endings: Iterable[str]) -> Iterable[Said]:
    for name in names:
        if not leaf.has(name):
            yield Fault(f"{name} is missing", "the file as the tool wrote it", leaf.folder.below(name))
    for ending in endings:
        if not leaf.ending(ending):
            yield Fault(f"no file *{ending}", "the file as the tool wrote it", leaf.path)


def run_files(leaf: Leaf, context: Context) -> Iterable[Said]:
    """Logs, outputs, statistics, summary, metadata; 1.0 keeps a folder a host without the tool's own logs."""
    if context.tree.edition == "1.0":
        yield from _lacking(leaf, ("summary.json",), ("per_epoch_stats.json",))
        return
    logs = [f"{leaf.family}_run.{stream}.log" for stream in ("stdout", "stderr")]
    yield from _lacking(leaf, ["summary.json", *logs], ("_output.json", "_per_epoch_stats.json", "_metadata.json"))


def datagen_files(series: Series, _: Context) -> Iterable[Said]:
    """The generation's logs, metadata and configuration; its engine writes no statistics."""
    for leaf in series.phase("datagen"):
        logs = [f"training_datagen.{stream}.log" for stream in ("stdout", "stderr")]
        yield from _lacking(leaf, logs, ("_metadata.json",))
        if leaf.config_folder is None:
            yield Fault("dlio_config is missing", "the folder as the engine wrote it", leaf.path)


def _config_faults(leaf: Leaf) -> Iterable[Said]:
    folder = leaf.config_folder
    found = sorted(name for name in folder.files if not name.startswith(".")) if folder is not None else []
    if folder is None or found != sorted(CONFIG_FILES) or folder.visible():
        path = folder.path if folder is not None else leaf.folder.below("dlio_config")
        yield Fault(f"holds {', '.join(found) or 'nothing'}", f"exactly {', '.join(CONFIG_FILES)}", path)


def run_config(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The engine's configuration folder is whole."""
    yield from _config_faults(leaf)


def datagen_config(series: Series, _: Context) -> Iterable[Said]:
    """The generation's configuration folder is whole, where there is one."""
    for leaf in series.phase("datagen"):
        if leaf.config_folder is not None:
            yield from _config_faults(leaf)


def engine_log(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The engine's log lies in the leaf."""
    if leaf.family in ("training", "checkpointing") and not leaf.has("dlio.log"):
        yield Fault("dlio.log is missing", "the engine's log", leaf.folder.below("dlio.log"))


def rollup(series: Series, context: Context) -> Iterable[Said]:
    """The report generator's results.json lies beside the runs."""
    if context.tree.kind in (LEAF, RESULTS):
        yield excused("a rollup is made for a package; this is none", series.path)
    elif "results.json" not in series.folder.files:
        path = series.folder.below("results.json")
        yield Fault("results.json is missing", "the rollup of the report generator", path)


def agrees_with_place(leaf: Leaf, context: Context) -> Iterable[Said]:
    """The metadata name the benchmark, model, command, time and division of the folder."""
    told = leaf.metadata
    if told is None and not leaf.metadata_name and leaf.family in ("vector_database", "kv_cache"):
        yield Fault("no file *_metadata.json", "the metadata of the tool", leaf.path)  # no list of files asks for it
        return
    if told is None:
        yield missing("what the leaf is (its metadata)", leaf.path)
        return
    path = leaf.folder.below(leaf.metadata_name)
    benchmark = words(told, "benchmark_type")
    if benchmark not in _BENCHMARKS.get(leaf.family, ()):
        yield Fault(f"benchmark {benchmark}", leaf.family or "a known benchmark", path, "benchmark_type")
    if context.tree.kind == LEAF:
        return
    wanted = [("command", leaf.command, "command"), ("run_datetime", leaf.time, "time")]
    if leaf.family != "vector_database":
        wanted.insert(0, ("model", leaf.model, "model"))
    if leaf.division:
        wanted.append(("args.mode", leaf.division, "division"))
    for key, here, what in wanted:
        found = words(told, key)
        if found is not None and found != here:
            yield Fault(f"{what} {found}", f"{here}, as the folder says", path, key)


def succeeded(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The invocation ended with status 0."""
    if leaf.metadata is None:
        yield missing("the exit status", leaf.path)
    elif "exit_status" not in leaf.metadata:
        yield excused("this version of the tool keeps no exit status", leaf.path)
    elif whole(leaf.metadata, "exit_status") != 0:
        found = dig(leaf.metadata, ["exit_status"])
        yield Fault(f"exit status {found}", "0", leaf.folder.below(leaf.metadata_name), "exit_status")


CHECKS = {
    "2.1.14": Check("series", datagen_files),
    "2.1.15": Check("series", datagen_config),
    "2.1.16": Check("series", rollup),
    "2.1.19": Check("run", run_files),
    "2.1.20": Check("run", run_config),
    "2.1.22": Check("series", rollup),
    "2.1.25": Check("run", run_files),
    "2.1.26": Check("run", run_config),
    "2.29": Check("run", engine_log),
    "META-01": Check("leaf", agrees_with_place),
    "META-02": Check("leaf", succeeded),
}
