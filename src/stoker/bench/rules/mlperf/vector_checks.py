"""Vector database: dimensions, population, recall, figures, engine and index."""

from collections.abc import Iterable
from typing import Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, missing
from stoker.bench.rules.mlperf.layout import Series, System
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.means import recall_of, vector_figures
from stoker.bench.rules.mlperf.reading import dig, number, whole, words
from stoker.bench.rules.mlperf.tables import models
from stoker.bench.rules.mlperf.training_checks import description_of

VERDICT: Final = "result_verdict.json"
_LATENCIES: Final = ("mean_latency_ms", "p95_latency_ms", "p99_latency_ms", "p999_latency_ms")
_OBJECTS: Final = ("s3", "object", "minio")


def _generated(series: Series) -> Leaf | None:
    found = series.phase("datagen")
    return found[-1] if found else None


def dimensions(series: Series, _: Context) -> Iterable[Said]:
    """Vectors are searched in the dimension they were made in."""
    made = _generated(series)
    wanted = whole(made.metadata, "args.dimension") if made is not None else None
    if wanted is None:
        yield missing("the dimension that was generated", series.path)
        return
    for leaf in series.runs:
        told = whole(leaf.summary, "dimension") or whole(leaf.metadata, "args.vector_dim")
        if told is None:
            yield missing("the dimension that was searched", leaf.path)
        elif told != wanted:
            yield Fault(f"dimension {told}", f"{wanted}, as generated", leaf.folder.below("summary.json"), "dimension")


def populated(series: Series, _: Context) -> Iterable[Said]:
    """The collection holds what was asked for."""
    made = _generated(series)
    wanted = whole(made.metadata, "args.num_vectors") if made is not None else None
    for leaf in series.runs:
        told = whole(leaf.summary, "num_vectors")
        if wanted is None or told is None:
            yield missing("the vectors asked for or held", leaf.path)
        elif told < wanted:
            path = leaf.folder.below("summary.json")
            yield Fault(f"{told:,} vectors", f"at least {wanted:,}", path, "num_vectors")


def index_built(series: Series, _: Context) -> Iterable[Said]:
    """The load program came to its end, which is after the index."""
    made = _generated(series)
    status = whole(made.metadata, "exit_status") if made is not None else None
    if made is None or status is None:
        yield missing("how the generation ended", series.path)
    elif status != 0:
        yield Fault(f"exit status {status}", "0", made.folder.below(made.metadata_name), "exit_status")


def recall(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Recall is told and is not zero."""
    found, path = vector_figures(leaf)
    told = recall_of(found)
    if found is None:
        yield missing("the figures of the run", path)
    elif told is None or not 0 < told <= 1:
        yield Fault(f"mean recall {told}", "above 0, at most 1", path, "recall.mean")


def figures(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Rate and latencies are there, and percentiles rise."""
    found, path = vector_figures(leaf)
    if found is None:
        yield Fault("statistics.json and summary.json are missing", "the figures of the run", path)
        return
    for key in ("throughput_qps", *_LATENCIES):
        told = number(found, key)
        if told is None or told <= 0:
            yield Fault(f"{key} {told}", "a number above 0", path, key)
    ranks = [number(found, key) or 0.0 for key in _LATENCIES[1:]]
    if all(ranks) and ranks != sorted(ranks):
        yield Fault("percentiles that fall", "P95 <= P99 <= P99.9", path, ", ".join(_LATENCIES[1:]))


def ground_truth(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The exact copy covers the whole collection."""
    path = leaf.folder.below(VERDICT)
    found = leaf.document(VERDICT)
    if not leaf.has(VERDICT):
        yield Fault(f"{VERDICT} is missing", "the verdict of the tool", path)
    elif found is None:
        yield missing("whether the exact copy is whole", path)
    elif dig(found, ["flat_setup", "ok"]) is not True or number(found, "flat_setup.coverage") != 1:
        told = f"ok {dig(found, ['flat_setup', 'ok'])}, coverage {dig(found, ['flat_setup', 'coverage'])}"
        yield Fault(told, "ok true, coverage 1", path, "flat_setup")


def object_declared(system: System, context: Context) -> Iterable[Said]:
    """An object store under the database is part of the description."""
    runs = [leaf for series in system.series if series.family == "vector_database" for leaf in series.runs]
    declared = description_of(system, context, "architecture.product_API")
    for leaf in runs:
        kind = words(leaf.metadata, "args.storage_type")
        if kind is None or declared is None:
            yield missing("the storage type of the run or of the system", leaf.path)
        elif kind in _OBJECTS and declared != "object":
            path = leaf.folder.below(leaf.metadata_name)
            yield Fault(f"storage type {kind}, product_API {declared}", "object in both", path, "args.storage_type")


def backend(series: Series, _: Context) -> Iterable[Said]:
    """The engine is milvus."""
    legal = models().vector_database.closed_engines
    for leaf in series.runs:
        told = (words(leaf.summary, "database"), words(leaf.metadata, "args.vdb_engine"), series.engine or None)
        known = [name for name in told if name is not None]
        if not known:
            yield missing("the engine", leaf.path)
        for name in sorted({name for name in known if name.lower() not in legal}):
            yield Fault(f"engine {name}", ", ".join(legal), leaf.path, "summary.json database")


def index_type(series: Series, _: Context) -> Iterable[Said]:
    """The index is one of the three."""
    legal = models().vector_database.closed_indexes
    names = {series.model} | {words(leaf.summary, "index_type") or series.model for leaf in series.runs}
    for name in sorted(names):
        if name.upper() not in legal:
            yield Fault(f"index {name}", ", ".join(legal), series.path, "index_type")


CHECKS = {
    "5.1.2": Check("series", dimensions),
    "5.2.1": Check("series", populated),
    "5.2.2": Check("series", index_built),
    "5.3.2": Check("run", recall),
    "5.3.4": Check("run", figures),
    "5.3.5": Check("run", ground_truth),
    "5.5.1": Check("system", object_declared),
    "5.6.2": Check("series", backend),
    "5.6.3": Check("series", index_type),
}
