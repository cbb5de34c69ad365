"""The options of `run vectordb`, a row each."""

from typing import Final

from stoker.bench.run.options import TRAINING
from stoker.core.options import Option
from stoker.core.vectors import DISTRIBUTIONS, METRICS

_SHARED: Final = (
    "results",
    "launcher",
    "hosts",
    "mpi_bin",
    "mpi_btl",
    "oversubscribe",
    "allow_run_as_root",
    "mpi_params",
    "rank_deadline",
    "host_interval",
    "sample_hosts",
    "label",
)
_RUN: Final = tuple(row for row in TRAINING if row.name in _SHARED)
_INDEXES: Final = ("DISKANN", "HNSW", "AISAQ", "IVF_FLAT", "IVF_SQ8", "FLAT")

VECTORDB: Final = (
    Option("index", "text", "Index of the collection.", default="HNSW", choices=_INDEXES),
    Option("collection", "text", "Name of the collection; by what it holds when not given.", metavar="NAME"),
    Option(
        "load",
        "text",
        "auto: load the vectors unless they are there; only: that, and search nothing; never: search what is there.",
        default="auto",
        choices=("auto", "only", "never"),
    ),
    Option("force", "flag", "Load the vectors anew, whatever the collection holds.", default=False),
    Option("vectors", "int", "Vectors to load.", default=100_000, low=1, high=1 << 40),
    Option("dimension", "int", "Numbers of a vector.", default=768, low=1, high=1 << 16),
    Option(
        "distribution",
        "text",
        "clustered: with neighbours, as embeddings have; uniform, normal, zipfian: the reference's.",
        default="clustered",
        choices=DISTRIBUTIONS,
    ),
    Option("seed", "int", "Seed of the vectors; the queries' follows from it.", default=42, low=0, high=1 << 40),
    Option("metric", "text", "Distance.", default="COSINE", choices=METRICS),
    Option("shards", "int", "Shards of the collection.", default=1, low=1, high=1 << 16),
    Option("insert_batch", "int", "Vectors of an insertion.", default=1000, low=1, high=1 << 24),
    Option("chunk_size", "int", "Vectors made at a time.", default=10_000, low=1, high=1 << 32),
    Option("m", "int", "HNSW: neighbours of a vector in the graph.", default=16, low=2, high=4096),
    Option("ef_construction", "int", "HNSW: candidates while building.", default=200, low=1, high=1 << 20),
    Option("max_degree", "int", "DISKANN, AISAQ: neighbours of a vector in the graph.", default=64, low=1, high=4096),
    Option("search_list_size", "int", "DISKANN, AISAQ: candidates while building.", default=200, low=1, high=1 << 20),
    Option("inline_pq", "int", "AISAQ: compressed neighbours kept inline.", default=16, low=0, high=4096),
    Option("nlist", "int", "IVF: lists.", default=128, low=1, high=1 << 20),
    Option("compact", "flag", "Compact the collection after loading.", default=False),
    Option(
        "monitor_interval",
        "seconds",
        "How often the building of the index is looked at.",
        default=1.0,
        low=0.1,
        high=3600,
    ),
    Option("processes", "int", "Processes that query; those of --hosts, else 1, when not given.", low=1, high=1 << 16),
    Option("k", "int", "Neighbours asked for.", default=10, low=1, high=16_384),
    Option("search_ef", "int", "Candidates of a search: ef, search list or probes.", default=200, low=1, high=1 << 20),
    Option("batch_size", "int", "Queries of a request.", default=1, low=1, high=1 << 20),
    Option("query_vectors", "int", "Different queries.", default=1000, low=1, high=1 << 24),
    Option(
        "duration", "seconds", "Time to query; 60s when neither this nor --queries is given.", low=0.1, high=1 << 30
    ),
    Option("queries", "int", "Queries of all processes together, instead of a time.", low=1, high=1 << 40),
    Option(
        "report_count", "int", "Requests after which a process notes how far it is.", default=100, low=1, high=1 << 30
    ),
    Option("recall_k", "int", "Neighbours that recall looks at; --k when not given.", low=1, high=16_384),
    Option("recall_target", "float", "Mean recall that a yes needs.", default=0.0, low=0, high=1),
    Option(
        "sweep",
        "float",
        "Recall to reach: the least --search-ef that does is looked for, then run; may be repeated.",
        low=0.01,
        high=1,
        many=True,
        metavar="RECALL",
    ),
    Option("truth", "path", "File of the exact answers: used where it is there, else written.", metavar="FILE"),
    Option("gt_collection", "text", "Exact copy in the database to answer from, made when missing.", metavar="NAME"),
    Option(
        "storage_root", "path", "Where the database keeps its data on this host, to count its reads.", metavar="DIR"
    ),
    Option(
        "ready_timeout", "seconds", "Within which all processes must be ready.", default=7200.0, low=1, high=1 << 20
    ),
    Option("rank_output", "path", "Folder on each host for a copy of its processes' outputs.", metavar="DIR"),
    Option("run_folder", "path", "Folder for the run itself, instead of a new one below --results.", metavar="DIR"),
    *_RUN,
)
