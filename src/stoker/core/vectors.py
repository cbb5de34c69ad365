"""Vector collections as data: what is loaded and searched, what one rank did of it, and what came out for all ranks.

A collection holds vectors under the ids 0 to n - 1 and one index over them; a search gives the ids of the k nearest.
"""

from typing import Final

import msgspec

COSINE: Final = "COSINE"
METRICS: Final = (COSINE, "L2", "IP")
DISTRIBUTIONS: Final = ("uniform", "normal", "zipfian", "clustered")
LOADING: Final = "load"
SEARCHING: Final = "search"
TIMED: Final = "timed"
QUERY_COUNT: Final = "query_count"
SEARCH: Final = "search"
"""The stage of a request of queries, in histograms."""
QUERY: Final = "query"
INSERT: Final = "insert"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides every number of a set of vectors: the same recipe makes the same bytes on any machine."""

    vectors: int
    dimension: int
    distribution: str = "clustered"
    seed: int = 42


class IndexSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An index as it is asked for: its kind, its distance, and the parameters that it is built with."""

    kind: str
    metric: str = COSINE
    parameters: dict[str, int] = {}


class VectorPlan(msgspec.Struct, frozen=True):
    """What the ranks do to a collection.

    work                load or search
    engine, address     the database and where it listens (host:port, or a URL without secrets); `database` in it
    collection          its name; `shards` it is spread over when it is made
    recipe, index       what is loaded; what is searched is held against it where `ours`
    insert_batch, chunk vectors of an insertion, and made at a time
    query_seed, queries_made    the set of queries, drawn from the same distribution as the vectors
    k, effort           neighbours asked for; candidates of a search (ef, search list, probes: the index's own name)
    batch               queries of a request
    mode                timed: for `seconds`; query_count: `queries` in all
    recall_k, recall_target     neighbours that recall looks at, and what a yes needs of it, 0..1
    storage_root        where the database keeps its data, as a path of this host; empty: not told, or elsewhere
    compact, monitor_seconds    of a load: compact at its end; how often the building is looked at
    ready_seconds       within which all ranks have to be ready to search
    report_count        requests after which a rank notes in its log how far it is
    rank_folder         where each rank keeps a copy of its outputs, on its own host; empty: nowhere
    """

    work: str
    engine: str
    address: str
    collection: str
    recipe: Recipe
    index: IndexSpec
    database: str = ""
    ours: bool = True
    shards: int = 1
    insert_batch: int = 1000
    chunk: int = 10_000
    query_seed: int = 1042
    queries_made: int = 1000
    k: int = 10
    effort: int = 200
    batch: int = 1
    mode: str = TIMED
    seconds: float = 60.0
    queries: int = 0
    recall_k: int = 10
    recall_target: float = 0.0
    storage_root: str = ""
    compact: bool = False
    monitor_seconds: float = 5.0
    ready_seconds: float = 7200.0
    rank_folder: str = ""
    report_count: int = 100


class Answer(msgspec.Struct, frozen=True):
    """The first answer that a rank got to a query: the query's number and the ids, nearest first."""

    query: int
    ids: list[int]


class VectorNote(msgspec.Struct):
    """What one rank did.

    `seconds` runs from the barrier before the first request to the end of its last. `requests` that `failed` gave no
    answer; `error` is the first of their reasons. `reads` are what the device under the collection completed meanwhile,
    and is told by one rank of each host. `built_seconds` is rank 0's wait for the index, `indexed` how many vectors
    that holds so far.
    """

    requests: int = 0
    failed: int = 0
    queries: int = 0
    vectors: int = 0
    seconds: float = 0.0
    built_seconds: float = 0.0
    indexed: int = 0
    building: bool = False
    error: str = ""
    device: str = ""
    device_reads: int | None = None
    device_writes: int | None = None
    device_read_bytes: int | None = None
    device_write_bytes: int | None = None
    disk_reason: str = ""
    complete: bool = False


class RecallFigures(msgspec.Struct, frozen=True):
    """Recall over all queries that were answered at least once: the share of the exact k nearest that were found.

    `tolerant_mean` counts an id as found, too, when it lies as near as the last of the exact ones. `missing` queries
    were never answered.
    """

    k: int
    queries: int
    mean: float
    median: float
    low: float
    high: float
    p5: float
    p95: float
    p99: float
    tolerant_mean: float
    missing: int = 0
    per_query: list[float] = []


class TruthFacts(msgspec.Struct, frozen=True):
    """Where the exact answers came from.

    `copied` vectors of the collection's `total` were looked at; `ok` when that is all of them. `flat` names the exact
    copy that the database itself answered from, empty where the answers were worked out here; `agreement` is how much
    of the one is in the other. The three hashes are of what was compared.
    """

    ok: bool
    total: int
    copied: int
    metric: str
    k: int
    data_hash: str = ""
    queries_hash: str = ""
    flat: str = ""
    reused: bool = False
    agreement: float | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def coverage(self) -> float:
        """Return the share of the collection that was looked at."""
        return self.copied / self.total if self.total else 0.0


class VectorFigures(msgspec.Struct):
    """The figures of a run on a collection.

    Latencies are of requests, in seconds, `mean`, `min` and quantiles such as `p99.9`; `query_latencies` a request's
    time over its queries. Both stand in the result's histograms in full, `search` and `query`. `engine_version` is the
    server's own; `index_found` what it said of its index. `seconds` is the longest of all ranks.
    `reads_per_query` counts the device under the collection, None where that is not on a client.
    """

    queries: int = 0
    requests: int = 0
    failed_requests: int = 0
    seconds: float = 0.0
    queries_per_second: float = 0.0
    latencies: dict[str, float] = {}
    query_latencies: dict[str, float] = {}
    vectors: int = 0
    vectors_per_second: float = 0.0
    built_seconds: float = 0.0
    reads_per_query: float | None = None
    device_reads: int | None = None
    device_writes: int | None = None
    device_read_bytes: int | None = None
    device_write_bytes: int | None = None
    devices: dict[str, int] = {}
    disk_reason: str = ""
    engine_version: str = ""
    index_found: dict[str, str] = {}
    truth: TruthFacts | None = None
    recall: RecallFigures | None = None
