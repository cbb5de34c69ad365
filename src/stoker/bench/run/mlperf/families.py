"""The options of the vector database and of the KV cache, as rows."""

from typing import Final

from stoker.bench.run.mlperf.rows import (
    CHECKPOINTING,
    CHECKPOINTING_ROWS,
    EXEC_TYPE,
    HOSTS,
    KVCACHE,
    LOOSE,
    MPI,
    SERIES,
    TRAINING,
    TRAINING_ROWS,
    UNIVERSAL,
    VECTORDB,
    Row,
    flag,
    number,
    text,
    whole,
)
from stoker.core.options import Option

_MANY: Final = 1 << 40
_DATA: Final = ("datasize", "datagen")
_BOTH: Final = ("datagen", "run")
VECTORDB_ROWS: Final = (
    Row(text("vdb_engine", "Database.", default="milvus"), limit="engine"),
    Row(text("host", "Host of the database.", default="127.0.0.1")),
    Row(whole("port", "Port of the database.", default=19530, low=1, high=65_535)),
    Row(text("config", "Name of a shipped configuration.")),
    Row(text("collection", "Name of the collection.")),
    Row(text("storage_root", "Where the database keeps its data, for the gates.", metavar="PATH")),
    Row(text("storage_type", "What the database keeps its data on.", choices=("file", "object", "block"))),
    Row(whole("dimension", "Numbers in a vector.", default=1536, low=1, high=1 << 20), _DATA),
    Row(whole("num_vectors", "Vectors.", default=1_000_000, low=1, high=_MANY), _DATA),
    Row(whole("num_shards", "Shards of the collection.", default=1, low=1, high=1 << 16), _DATA),
    Row(text("vector_dtype", "Type of the vectors.", default="FLOAT_VECTOR"), _DATA),
    Row(
        text(
            "distribution", "Distribution of the numbers.", default="uniform", choices=("uniform", "normal", "zipfian")
        ),
        ("datagen",),
    ),
    Row(whole("batch_size", "Vectors of an insertion.", default=1000, low=1, high=1 << 24), ("datagen",)),
    Row(whole("chunk_size", "Vectors made at a time.", default=10_000, low=1, high=1 << 32), ("datagen",)),
    Row(flag("force", "Replace a collection that is there."), ("datagen",)),
    Row(text("metric_type", "Distance.", default="COSINE", choices=("COSINE", "L2", "IP")), ("datagen",)),
    Row(whole("max_degree", "Degree of the graph.", default=64, low=1, high=4096), ("datagen",)),
    Row(whole("search_list_size", "Candidates while building.", default=200, low=1, high=1 << 20), ("datagen",)),
    Row(whole("m", "Degree of HNSW.", "--M", default=64, low=1, high=4096), ("datagen",)),
    Row(whole("ef_construction", "Candidates of HNSW while building.", default=200, low=1, high=1 << 20), ("datagen",)),
    Row(whole("inline_pq", "Compressed neighbours kept inline.", default=16, low=0, high=4096), ("datagen",)),
    Row(
        number("monitor_interval", "Seconds between looks at the building.", default=5, low=0.1, high=3600),
        ("datagen",),
    ),
    Row(flag("compact", "Compact the collection after loading."), ("datagen",)),
    Row(whole("num_query_processes", "Processes that query.", default=1, low=1, high=4096), ("run",)),
    Row(whole("batch_size", "Queries of a request.", default=1, low=1, high=1 << 20), ("run",)),
    Row(whole("report_count", "Requests between reports.", default=100, low=1, high=1 << 30), ("run",)),
    Row(
        text("benchmark_mode", "What ends the run.", default="timed", choices=("timed", "query_count", "sweep")),
        ("run",),
    ),
    Row(whole("vector_dim", "Numbers in a vector.", default=1536, low=1, high=1 << 20), ("run",)),
    Row(whole("search_limit", "Neighbours asked for.", default=10, low=1, high=16_384), ("run",)),
    Row(whole("search_ef", "Candidates of a search.", default=200, low=1, high=1 << 20), ("run",)),
    Row(text("gt_collection", "Collection of the exact answers; <collection>_flat_gt when not given."), ("run",)),
    Row(whole("num_query_vectors", "Vectors that are asked for.", default=1000, low=1, high=1 << 24), ("run",)),
    Row(whole("recall_k", "Neighbours of the recall; --search-limit when not given.", low=1, high=16_384), ("run",)),
    Row(number("runtime", "Seconds; 60 when neither this nor --queries is given.", low=1, high=1 << 30), ("run",)),
    Row(whole("queries", "Queries.", low=1, high=_MANY), ("run",)),
    Row(flag("distributed", "Work on several client hosts."), _BOTH),
    Row(text("hosts", "Client hosts, not those of the database.", many=True, metavar="HOST..."), _BOTH),
    Row(whole("npernode", "Processes a client host.", default=1, low=1, high=4096), _BOTH),
    Row(text("mpi_impl", "MPI of the clients.", default="mpich", choices=("mpich", "openmpi")), _BOTH),
    Row(
        text("coordination", "How clients meet.", default="filesystem", choices=("filesystem", "mpi")),
        _BOTH,
    ),
    Row(text("rank_output_dir", "Scratch of each client for its outputs.", metavar="PATH"), _BOTH),
    Row(whole("seed", "Seed; each rank adds its number.", default=42, low=0, high=_MANY), _BOTH),
    Row(number("ready_timeout", "Seconds until all clients are ready.", default=7200, low=1, high=1 << 20), _BOTH),
    Row(text("mpi_bin", "Launcher of the clients.", default="mpiexec", choices=("mpirun", "mpiexec")), _BOTH),
)
_OF_KV: Final = ("datasize", "run", "configview")


def _loose(option: Option) -> Row:
    return Row(option, _OF_KV, LOOSE)


KVCACHE_ROWS: Final = (
    Row(text("cache_dir", "Where the cache keeps its blocks.", metavar="PATH"), needed=("run",)),
    HOSTS,
    Row(whole("npernode", "Processes a host.", low=1, high=4096)),
    Row(whole("num_processes", "Processes together.", "-np", low=1, high=1 << 20)),
    EXEC_TYPE,
    Row(text("kvcache_bin_path", "Taken for scripts' sake: the workload here is our own.", metavar="DIR")),
    Row(text("model", "Model whose cache is kept.", "-m", default="tiny-1b"), _OF_KV, LOOSE, limit="kv_model"),
    _loose(whole("num_users", "Users of each client.", default=100, low=1, high=100_000)),
    _loose(whole("duration", "Seconds of a trial.", default=60, low=1, high=86_400)),
    _loose(number("gpu_mem_gb", "Memory of the first tier, in GB.", default=16, low=0, high=65_536)),
    _loose(number("cpu_mem_gb", "Memory of the second tier, in GB.", default=32, low=0, high=131_072)),
    _loose(
        text(
            "generation_mode",
            "How long the model takes for a token.",
            default="realistic",
            choices=("none", "fast", "realistic"),
        )
    ),
    _loose(
        text("performance_profile", "What the goals are for.", default="latency", choices=("latency", "throughput"))
    ),
    _loose(flag("disable_multi_turn", "No conversations of several turns.")),
    _loose(flag("disable_prefix_caching", "No common prefixes.")),
    _loose(flag("enable_rag", "Documents beside the conversations.")),
    _loose(whole("rag_num_docs", "Documents.", default=10, low=1, high=1 << 20)),
    _loose(flag("enable_autoscaling", "Change the number of users.")),
    _loose(text("autoscaler_mode", "By what.", default="qos", choices=("qos", "capacity"))),
    _loose(flag("use_burst_trace", "Play a recorded trace.")),
    _loose(text("burst_trace_path", "The trace.", metavar="PATH")),
    _loose(text("dataset_path", "Recorded conversations.", metavar="PATH")),
    _loose(text("io_trace_log", "Keep a trace of all reads and writes.", metavar="PATH")),
    _loose(text("config", "Configuration of the engine.", metavar="PATH")),
    _loose(whole("max_concurrent_allocs", "Most allocations at once; 0 has no limit.", default=0, low=0, high=1 << 20)),
    _loose(flag("enable_latency_tracing", "Keep every latency.")),
    _loose(whole("seed", "Seed; each rank adds its number.", default=42, low=0, high=_MANY)),
    _loose(whole("trials", "Trials of an option.", default=3, low=1, high=1000)),
    _loose(number("inter_option_delay", "Seconds between options.", default=90, low=0, high=86_400)),
    *SERIES,
)
ROWS: Final[dict[str, tuple[Row, ...]]] = {
    TRAINING: (*UNIVERSAL, *MPI, *TRAINING_ROWS),
    CHECKPOINTING: (*UNIVERSAL, *MPI, *CHECKPOINTING_ROWS),
    VECTORDB: (*UNIVERSAL, *VECTORDB_ROWS),
    KVCACHE: (*UNIVERSAL, *MPI, *KVCACHE_ROWS),
}
"""Every option of every family."""
