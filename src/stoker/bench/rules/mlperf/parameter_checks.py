"""What was changed on the command line, where data and results lay, and whether they were kept apart."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.formulas import flattened
from stoker.bench.rules.mlperf.layout import Series
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import dig, number, whole, words
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, TrainingModel, models, override_breach
from stoker.bench.rules.mlperf.training_checks import accelerator_of, model_of

SEPARATION: Final = "fs_separation.json"
METHOD: Final = "link_exdev"
_PRELOAD: Final = re.compile(r"LD_PRELOAD=\S*")
_NUMBER_TOLERANCE: Final = 1e-6
_OPEN_KEYS: Final = ("framework", "dataset.format", "dataset.num_samples_per_file", "reader.data_loader")


def _override_faults(leaf: Leaf, division: str) -> Iterable[Said]:
    expected = f"only what {division} allows"
    for key, (value, path, place) in sorted(leaf.overrides.items()):
        breach = override_breach(leaf.family, division, leaf.model, key, value)
        if breach and not _as_in_template(leaf, key, value):
            yield Fault(f"{key}={value}: {breach}", expected, path, place)
    if leaf.metadata is None and leaf.config_folder is None:
        yield missing("what was overridden", leaf.path)


def _as_in_template(leaf: Leaf, key: str, value: object) -> bool:
    """Tell whether the tool only repeats what a run of the workload does anyway: what is switched on and off."""
    switches = {"workflow.generate_data": "false", "workflow.train": str(leaf.family == "training").lower()}
    if leaf.family == "checkpointing":
        switches["workflow.checkpoint"] = "true"
    return switches.get(key) == str(value).strip().lower()


def training_closed(series: Series, _: Context) -> Iterable[Said]:
    """Only allowed keys, and for the rest the template."""
    for leaf in series.runs:
        yield from _override_faults(leaf, CLOSED)
        yield from _template_faults(series, leaf)


def training_open(series: Series, _: Context) -> Iterable[Said]:
    """Only the keys that open allows."""
    for leaf in series.runs:
        yield from _override_faults(leaf, OPEN)
        yield from _template_faults(series, leaf, left_out=_OPEN_KEYS)


def _template_faults(series: Series, leaf: Leaf, left_out: tuple[str, ...] = ()) -> Iterable[Said]:
    """Hold the resolved configuration against the model's template: an edited template shows here, not as override."""
    model, config = model_of(series), leaf.config
    if model is None or config is None:
        yield missing("the template or the resolved configuration", leaf.path)
        return
    flat = flattened(config)
    for key, wanted in _template(model, series, leaf):
        found = flat.get(key)
        if found is None or key in left_out or key in leaf.overrides or _same(found, wanted):
            continue
        yield Fault(f"{key} is {found}", f"{wanted}, as in the template", leaf.config_path, key)


def _template(model: TrainingModel, series: Series, leaf: Leaf) -> Iterator[tuple[str, Any]]:
    yield "framework", model.framework
    yield "dataset.format", model.format
    yield "dataset.num_samples_per_file", model.samples_per_file
    yield "dataset.record_length_bytes", model.record_length_bytes
    yield "dataset.record_length_bytes_stdev", model.record_length_stdev_bytes
    yield "reader.data_loader", model.data_loader
    yield "train.epochs", model.epochs
    kind = accelerator_of(series, leaf)
    if kind is not None:
        yield "reader.batch_size", kind.batch_size
        yield "train.computation_time", kind.computation_seconds


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return str(found).lower() == wanted
    told = number({"value": found}, "value")
    return told is not None and abs(told - wanted) <= _NUMBER_TOLERANCE * abs(wanted)


def checkpoint_closed(series: Series, _: Context) -> Iterable[Said]:
    """Only the checkpoint folder may change."""
    for leaf in series.runs:
        yield from _override_faults(leaf, CLOSED)


def checkpoint_open(series: Series, _: Context) -> Iterable[Said]:
    """A multiple of the model's parallelism, and only allowed keys."""
    model = models().checkpointing.get(series.model)
    for leaf in series.runs:
        yield from _override_faults(leaf, OPEN)
        count = leaf.accelerators
        if model is None or count is None:
            yield missing("the model or its processes", leaf.path)
        elif count < 1 or count % model.open_multiple:
            path = leaf.folder.below("summary.json")
            wanted = f"a multiple of {model.open_multiple}"
            yield Fault(f"{count} processes", wanted, path, "num_accelerators")


def vector_closed(series: Series, _: Context) -> Iterable[Said]:
    """Only allowed keys."""
    for leaf in series.runs:
        yield from _override_faults(leaf, CLOSED)


def vector_open(series: Series, _: Context) -> Iterable[Said]:
    """Only the keys that open allows."""
    for leaf in series.runs:
        yield from _override_faults(leaf, OPEN)


def paths_apart(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Data and results are two places, and neither lies in the other."""
    names = {
        "training": ("data_dir",),
        "checkpointing": ("checkpoint_folder",),
        "vector_database": ("storage_root",),
    }[leaf.family]
    path = leaf.folder.below(leaf.metadata_name)
    results = words(leaf.metadata, "args.results_dir")
    target = next((told for name in names if (told := words(leaf.metadata, f"args.{name}"))), None)
    if leaf.metadata is None:
        yield missing("the paths of data and results", leaf.path)
        return
    if leaf.family == "vector_database" and not target:
        yield excused("the database keeps its storage elsewhere, and no root was given", leaf.path)
        return
    for name, told in ((names[0], target), ("results_dir", results)):
        if not told:
            yield Fault(f"no {name}", "a path for data and one for results", path, f"args.{name}")
    if target and results and "://" not in target and "://" not in results:
        one, other = posixpath.normpath(target), posixpath.normpath(results)
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            yield Fault(f"{target} and {results}", "neither in the other", path, f"args.{names[0]}, args.results_dir")


def is_object(leaf: Leaf) -> bool:
    """Tell whether a run went to an object store, which has no file system to keep apart."""
    kinds = (words(leaf.metadata, "args.storage_type"), words(leaf.config, "storage.storage_type"))
    targets = (words(leaf.metadata, f"args.{name}") or "" for name in ("data_dir", "checkpoint_folder", "storage_root"))
    object_kinds = ("s3", "object", "minio", "azure", "gcs")
    return any(kind in object_kinds for kind in kinds) or any("://" in told for told in targets)


def separated(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The probe of the hard link shows two file systems."""
    path = leaf.folder.below(SEPARATION)
    if is_object(leaf) and not leaf.has(SEPARATION):
        yield excused("an object store has no file system to keep apart", leaf.path)
        return
    if leaf.family == "vector_database" and not leaf.has(SEPARATION) and not leaf.argument("storage_root"):
        yield excused("the database keeps its storage elsewhere, and no root was given", leaf.path)
        return
    if not leaf.has(SEPARATION):
        yield Fault(f"{SEPARATION} is missing", "the record of the probe", path)
        return
    found = leaf.document(SEPARATION)
    if found is None:
        yield missing("what the probe found", path)
        return
    if dig(found, ["same_filesystem"]) is not False:
        told = dig(found, ["same_filesystem"])
        yield Fault(f"same_filesystem {told}", "false", path, "same_filesystem")
    if whole(found, "version") != 1 or words(found, "method") != METHOD:
        told = f"version {dig(found, ['version'])}, method {dig(found, ['method'])}"
        yield Fault(told, f"version 1, method {METHOD}", path, "method")
    real = [words(found, f"{name}_realpath") for name in ("data_or_chkpt", "results")]
    if all(real) and real[0] == real[1]:
        yield Fault(f"both are {real[0]}", "two places", path, "results_realpath")


def no_preload(leaf: Leaf, _: Context) -> Iterable[Said]:
    """No library is preloaded into the engine."""
    if leaf.metadata is None:
        yield missing("the command line", leaf.path)
        return
    path = leaf.folder.below(leaf.metadata_name)
    given = dig(leaf.metadata, ["args", "mpi_params"])
    texts = [("args.mpi_params", str(word)) for word in (given if isinstance(given, list) else [given])]
    texts.append(("executed_command", words(leaf.metadata, "executed_command") or ""))
    for key, text in texts:
        found = _PRELOAD.search(text)
        if found:
            yield Fault(found[0], "no preloaded library", path, key)
            return


CHECKS = {
    "3.4.1": Check("run", paths_apart),
    "3.4.2": Check("run", separated),
    "3.6.2": Check("series", training_closed),
    "3.6.3": Check("series", training_open),
    "4.4.1": Check("run", paths_apart),
    "4.4.2": Check("run", separated),
    "4.6.3": Check("series", checkpoint_closed),
    "4.6.4": Check("series", checkpoint_open),
    "SANE-03": Check("run", no_preload),
    "5.4.1": Check("run", paths_apart),
    "5.4.2": Check("run", separated),
    "5.6.4": Check("series", vector_closed),
    "5.6.5": Check("series", vector_open),
}
