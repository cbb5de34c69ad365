"""The vector database in the pipeline: its place, its collection's name, and the words of our engine."""

import os
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from stoker.bench.rules.mlperf.layout import read_tree
from stoker.bench.rules.mlperf.reading import words
from stoker.bench.run.hosts.start import Launch
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.results_dir import ResultsDir
from stoker.bench.run.mlperf.storing import DataPlace
from stoker.bench.run.vectors.places import Placed, check_name, placed
from stoker.core.errors import PreflightError, UsageError
from stoker.vectors.engine import engine_kind

DATABASE_VARIABLE: Final = "STOKER_VECTOR_DATABASE"
SWEEP_RECALL: Final = 0.95
NO_ROOT: Final = "the database keeps its data elsewhere, and no storage root was told"
_BUILD: Final = ("max_degree", "search_list_size", "m", "ef_construction", "inline_pq")
_RUN: Final = {
    "batch_size": "batch_size",
    "report_count": "report_count",
    "search_limit": "k",
    "search_ef": "search_ef",
    "num_query_vectors": "query_vectors",
    "recall_k": "recall_k",
    "queries": "queries",
}


class Decided(Protocol):
    """A command as decided."""

    @property
    def invocation(self) -> Invocation: ...

    @property
    def results(self) -> ResultsDir | None: ...

    @property
    def data(self) -> DataPlace | None: ...


def placed_of(invocation: Invocation) -> Placed:
    """Return the database of a command. Raises UnknownNameError, MissingExtraError, or UsageError without its place."""
    engine = str(invocation.value("vdb_engine"))
    port = invocation.value("port") if invocation.given("port") or engine == "milvus" else None
    database = os.environ.get(DATABASE_VARIABLE, "")
    folder = str(invocation.value("storage_root") or "")
    if not engine_kind(engine).default_port and not folder:
        raise UsageError(f"{engine} keeps its data in a folder", remedy="name it with --storage-root")
    return placed(engine, str(invocation.value("host")), port, database=database, folder=folder)


def check_vector_options(invocation: Invocation) -> None:
    """Raise UsageError for what parsers cannot express."""
    if invocation.value("vector_dtype") not in (None, "FLOAT_VECTOR"):
        got = str(invocation.value("vector_dtype"))
        raise UsageError("--vector-dtype: only one type is made and searched", expected="FLOAT_VECTOR", got=got)
    if invocation.value("runtime") and invocation.value("queries"):
        raise UsageError("--runtime and --queries", remedy="give one of them")
    mode = invocation.value("benchmark_mode")
    if mode == "query_count" and not invocation.value("queries"):
        raise UsageError("--benchmark-mode query_count without a count", remedy="give --queries")
    if mode == "timed" and invocation.value("queries") and invocation.given("benchmark_mode"):
        raise UsageError("--queries in the mode timed", remedy="leave out --benchmark-mode, or give --runtime")
    alone = [name for name in ("hosts", "npernode", "mpi_bin", "mpi_impl", "coordination") if invocation.given(name)]
    if alone and not invocation.value("distributed"):
        raise UsageError(f"--{alone[0].replace('_', '-')} is for several clients", remedy="add --distributed")
    if invocation.value("collection"):
        check_name(str(invocation.value("collection")))


def vector_notes(invocation: Invocation) -> list[str]:
    """Return a sentence for each option that is taken for scripts' sake alone."""
    if invocation.value("distributed") and invocation.value("coordination") == "filesystem":
        return ["--coordination filesystem: the clients meet over MPI all the same, which needs no shared folder"]
    return []


def storage_place(invocation: Invocation) -> DataPlace | None:
    """Return where the database keeps its data, for the gates; None where that is no folder that we were told of."""
    root = invocation.value("storage_root")
    if not root or "://" in str(root) or invocation.value("storage_type") in ("object", "block"):
        return None
    folder = os.path.abspath(str(root))  # noqa: PTH100 - Path.absolute keeps `..`
    return DataPlace(folder, folder)


def collection_of(invocation: Invocation, results: ResultsDir | None) -> str:
    """Return the collection's name: as told, by what is generated, or as the last datagen of this index named it.

    Raises UsageError for a run that nothing tells the name.
    """
    told = invocation.value("collection")
    if told:
        return str(told)
    if invocation.value("num_vectors"):
        value = invocation.value
        shards, distribution = value("num_shards"), value("distribution") or "uniform"
        index = invocation.place.model.lower()
        return f"mlps_{value('num_vectors')}_{shards}shards_{value('dimension')}dim_{distribution}_{index}"
    found = _generated(invocation, results) if results is not None else ""
    if not found and not invocation.value("dry_run"):
        raise UsageError("which collection is searched is not told", remedy="give --collection, or run datagen first")
    return found or "COLLECTION"


def _generated(invocation: Invocation, results: ResultsDir) -> str:
    """Return the collection of the newest datagen of this system, engine and index."""
    place = invocation.place
    series = results.leaf(
        place.division,
        str(invocation.value("systemname")),
        place.family,
        place.model,
        "datagen",
        "20000101_000000",
        str(invocation.value("vdb_engine")),
    ).parent
    for leaf in sorted(series.glob("*"), reverse=True) if series.is_dir() else ():
        tree = read_tree(leaf, edition="3.0", division=place.division)
        names = [words(each.metadata, "args.collection") for each in tree.leaves if each.metadata is not None]
        if names and names[0]:
            return names[0]
    return ""


def require_database(prepared: Decided) -> None:
    """Raise unless the database answers; one that is embedded is started by the run itself."""
    invocation = prepared.invocation
    found = placed_of(invocation)
    kind = engine_kind(found.engine)
    if not kind.default_port:
        return
    with closing(kind.open(found.address)):
        pass


def require_root(prepared: Decided, *, make: bool) -> None:
    """Have the storage root; only an embedded database's is made."""
    data = prepared.data
    if data is None or Path(data.folder).is_dir():
        return
    embedded = not engine_kind(str(prepared.invocation.value("vdb_engine"))).default_port
    if embedded and prepared.invocation.place.command == "datagen":
        if make:
            Path(data.folder).mkdir(parents=True, exist_ok=True)
        return
    remedy = "leave it out where the database runs on another host"
    raise PreflightError("the storage root is no folder of this host", where=data.folder, remedy=remedy)


def require_library(launch: Launch | None, invocation: Invocation) -> None:
    """Raise PreflightError when the launcher that was found is not of the MPI that was asked for."""
    told = invocation.value("mpi_impl")
    if launch is not None and invocation.given("mpi_impl") and launch.launcher.kind != told:
        raise PreflightError("another MPI than was asked for", expected=str(told), got=launch.launcher.told)


def vector_arguments(prepared: Decided, evidence: Path) -> list[str]:
    """Return the words of our engine behind `stoker`."""
    invocation = prepared.invocation
    generating = invocation.place.command == "datagen"
    given = {
        "index": invocation.place.model,
        "collection": collection_of(invocation, prepared.results),
        "seed": invocation.value("seed"),
        "processes": invocation.ranks,
        "rank_output": invocation.value("rank_output_dir"),
        "ready_timeout": f"{invocation.value('ready_timeout'):g}s",
        "run_folder": str(evidence),
        "storage_root": prepared.data.folder if prepared.data is not None else None,
        "load": "only" if generating else "never",
        **(_load_words(invocation) if generating else _run_words(invocation, prepared)),
    }
    told = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value not in (None, "", False)]
    flags = [f"--{name}" for name in ("force", "compact") if invocation.value(name)]
    return ["run", "vectordb", target_of(placed_of(invocation)), *told, *flags]


def target_of(found: Placed) -> str:
    """Return a database as the target of `run vectordb`."""
    address = found.address
    if address.uri:
        return f"milvus-lite://{quote(address.uri, safe='/')}"
    scheme = {"milvus": "milvus", "pgvector": "postgresql"}[found.engine]
    return f"{scheme}://{quote(address.host, safe=':[]')}:{address.port}/{quote(address.database, safe='')}"


def _load_words(invocation: Invocation) -> dict[str, object]:
    value = invocation.value
    return {
        "vectors": value("num_vectors"),
        "dimension": value("dimension"),
        "shards": value("num_shards"),
        "distribution": value("distribution"),
        "insert_batch": value("batch_size"),
        "chunk_size": value("chunk_size"),
        "metric": value("metric_type"),
        "monitor_interval": f"{value('monitor_interval'):g}s",
        "k": 1,
        "query_vectors": 1,
        **{name: value(name) for name in _BUILD},
    }


def _run_words(invocation: Invocation, prepared: Decided) -> dict[str, object]:
    value = invocation.value
    collection = collection_of(invocation, prepared.results)
    seconds = value("runtime")
    return {
        "dimension": value("vector_dim"),
        "distribution": "uniform",
        "gt_collection": value("gt_collection") or f"{collection}_flat_gt",
        "duration": f"{seconds:g}s" if seconds else None,
        "sweep": f"{SWEEP_RECALL:g}" if value("benchmark_mode") == "sweep" else None,
        **{ours: value(theirs) for theirs, ours in _RUN.items()},
    }
