"""What a database has to do for the benchmark, and how one is found: by the entry points `stoker.vector_engines`.

An engine is opened at an address and works on one collection at a time. It raises StokerErrors alone, each a sentence:
UnavailableError when nobody answers there, UsageError for what the database does not take.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from stoker.core.errors import StokerError, UsageError
from stoker.core.registry import Registry
from stoker.core.vectors import IndexSpec
from stoker.vectors.making import Vectors
from stoker.vectors.truth import Ids

EFFORT_NAMES: Final = {
    "HNSW": "ef",
    "DISKANN": "search_list",
    "AISAQ": "search_list",
    "IVF_FLAT": "nprobe",
    "IVF_SQ8": "nprobe",
    "FLAT": "",
}
"""What an index calls the candidates of a search; FLAT has none."""


class CollectionSpec(msgspec.Struct, frozen=True):
    """A collection to make. `note` is kept with it, and read back."""

    name: str
    dimension: int
    index: IndexSpec
    shards: int = 1
    note: str = ""


class CollectionFacts(msgspec.Struct, frozen=True):
    """A collection as the database tells of it: rows, and its index with the parameters in use."""

    name: str
    count: int
    dimension: int
    index: IndexSpec
    note: str = ""
    shards: int = 1
    told: dict[str, str] = {}


class BuildProgress(msgspec.Struct, frozen=True):
    """How far an index is: rows in it of rows in all."""

    indexed: int
    total: int
    state: str = ""

    @property
    def done(self) -> bool:
        """Tell whether nothing is left to build."""
        return self.indexed >= self.total


class Searcher(Protocol):
    """Answers queries on one connection; used by one thread."""

    def search(self, queries: Vectors) -> list[list[int]]:
        """Return the ids nearest to each query, nearest first. Raises StokerError when there is no answer."""


class VectorEngine(Protocol):
    """A connection to a database."""

    @property
    def version(self) -> str:
        """Return the server's own version."""

    @property
    def data_folder(self) -> str:
        """Return the folder of this host that the database keeps its data in, empty where it is not known."""

    def names(self) -> list[str]:
        """Return the collections that are there."""

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises UsageError for an index or a parameter that the database does not take."""

    def drop(self, name: str) -> None:
        """Remove a collection."""

    def insert(self, name: str, ids: Ids, vectors: Vectors) -> int:
        """Insert vectors under ids; return how many the database took."""

    def flush(self, name: str) -> None:
        """Have what was inserted written down."""

    def build(self, name: str, *, wait_seconds: float, on_progress: Callable[[BuildProgress], None]) -> None:
        """Have the index built, and wait for it; `on_progress` is called every `wait_seconds`."""

    def compact(self, name: str) -> bool:
        """Have the collection compacted, and wait for it; return whether the database does such a thing."""

    def describe(self, name: str) -> CollectionFacts:
        """Return what the database tells of a collection. Raises UsageError where there is none."""

    def load(self, name: str) -> None:
        """Make a collection ready to be searched."""

    def searcher(self, facts: CollectionFacts, k: int, effort: int) -> Searcher:
        """Return what answers queries for k neighbours with so many candidates."""

    def scan(self, name: str, rows: int) -> Iterator[tuple[Ids, Vectors]]:
        """Yield all of a collection, at most `rows` at a time, ids ascending."""

    def fetch(self, name: str, ids: Ids) -> Vectors:
        """Return the vectors of some ids, in their order; those that are not there are left out."""

    def close(self) -> None:
        """End the connection; closing twice is harmless."""


class Address(msgspec.Struct, frozen=True):
    """Where a database listens. `uri` stands for all else where it is told; it holds nothing secret."""

    host: str = "127.0.0.1"
    port: int = 0
    uri: str = ""
    database: str = ""
    timeout_seconds: float = 30.0


class EngineKind(Protocol):
    """How an engine is opened, and what of it differs by kind. A `single_writer` takes insertions from one process."""

    default_port: int
    indexes: tuple[str, ...]
    metrics: tuple[str, ...]
    single_writer: bool

    def open(self, address: Address) -> VectorEngine:
        """Connect. Raises UnavailableError when nobody answers, DeniedError for credentials that are refused."""

    def serve(self, address: Address) -> AbstractContextManager[Address]:
        """Return a context with the address to connect to: an embedded database is started, a server is let be."""


ENGINES: Final[Registry[EngineKind]] = Registry(
    "stoker.vector_engines",
    kind="vector engine",
    extras={"milvus": "milvus", "milvus-lite": "milvus-lite", "pgvector": "pgvector"},
)


def engine_kind(name: str) -> EngineKind:
    """Return the engine of a name. Raises UnknownNameError, MissingExtraError with the install command."""
    return ENGINES.load(name)


def check_index(kind: EngineKind, name: str, index: IndexSpec) -> None:
    """Raise UsageError for an index, or a distance, that an engine does not have."""
    if index.kind not in kind.indexes:
        known = ", ".join(kind.indexes)
        raise UsageError(f"engine {name} has no index", where=index.kind, remedy=f"known: {known}")
    if index.metric not in kind.metrics:
        raise UsageError(f"engine {name} has no distance", where=index.metric, expected=", ".join(kind.metrics))


def require_same(asked: IndexSpec, facts: CollectionFacts) -> None:
    """Raise StokerError unless the index is the one that was asked for, parameter by parameter, as the database tells.

    A parameter that was dropped on the way makes another benchmark of the same name.
    """
    found = facts.index
    pairs = {"index": (asked.kind, found.kind), "metric": (asked.metric, found.metric)}
    pairs |= {key: (str(value), str(found.parameters.get(key, "nothing"))) for key, value in asked.parameters.items()}
    differing = [f"{key} {there} instead of {wanted}" for key, (wanted, there) in pairs.items() if wanted != there]
    if differing:
        raise StokerError(
            "the index is not the one that was asked for",
            where=facts.name,
            got="; ".join(differing),
            remedy="make the collection anew (--force), or ask for what it has",
        )


def index_parameters(kind: str, settings: Mapping[str, int]) -> dict[str, int]:
    """Return the build parameters that an index of a kind takes, of all that were told."""
    wanted: dict[str, tuple[str, ...]] = {
        "DISKANN": ("max_degree", "search_list_size"),
        "AISAQ": ("max_degree", "search_list_size", "inline_pq"),
        "HNSW": ("M", "efConstruction"),
        "IVF_FLAT": ("nlist",),
        "IVF_SQ8": ("nlist",),
        "FLAT": (),
    }
    if kind not in wanted:
        raise UsageError("unknown index", where=kind, remedy=f"known: {', '.join(wanted)}")
    return {name: int(settings[name]) for name in wanted[kind] if name in settings}
