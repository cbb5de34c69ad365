"""The KV cache as data: the model, what a run does, what one rank did of a trial, and what came out for all ranks.

An inference server keeps the keys and values of the tokens it has seen, so that a conversation that goes on need not be
computed anew. What does not fit into memory goes to storage: large objects, written once and read again.
"""

from typing import Final

import msgspec

from stoker.core.ledger import Counters, Ledger

GPU: Final = "gpu"
CPU: Final = "cpu"
STORAGE: Final = "storage"
TIERS: Final = (GPU, CPU, STORAGE)
DTYPE_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
READ: Final = "read"
WRITE: Final = "write"
DEMOTE_READ: Final = "demote_read"
DEMOTE_WRITE: Final = "demote_write"
MLPERF_LAYOUT: Final = "mlperf"
BLOCK_LAYOUT: Final = "block"
SAMPLES_MAX: Final = 4096
"""Single latencies that a rank keeps of each kind; beyond that the histograms tell alone."""
POINTS_MAX: Final = 600
"""Points of a rank's series over time."""


class KvModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a language model decides the bytes of its KV cache.

    head_dim 0 is hidden / heads; mla_rank above 0 is multi-head latent attention: one latent and one position vector a
    layer instead of keys and values. `active_parameters` work on each token, 0 where that is unknown.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int = 0
    mla_rank: int = 0
    mla_rope: int = 0
    active_parameters: float = 0.0

    @property
    def head_size(self) -> int:
        """Return the numbers of a head's key, or value."""
        return self.head_dim or self.hidden // self.heads

    def bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """Return the bytes that one token of context adds: keys and values of every layer, or MLA's latent."""
        if self.mla_rank:
            return self.layers * (self.mla_rank + self.mla_rope) * dtype_bytes
        return self.layers * self.kv_heads * self.head_size * 2 * dtype_bytes

    def array_shape(self, tokens: int) -> tuple[int, ...]:
        """Return the shape of the array that holds the cache of so many tokens."""
        if self.mla_rank:
            return (self.layers, tokens, self.mla_rank + self.mla_rope)
        return (self.layers, 2, tokens, self.kv_heads, self.head_size)


class KvPersona(msgspec.Struct, frozen=True):
    """A kind of user: least and most tokens of context and answer, and seconds between two requests."""

    context: tuple[int, int]
    generated: tuple[int, int]
    think_seconds: tuple[float, float]


class KvPlan(msgspec.Struct, frozen=True):
    """What a run does to a KV cache.

    layout          mlperf: one array file a request, read whole; block: pages of `page_tokens` tokens, prefixes shared
    trials          how often the whole is done, `pause_seconds` apart, each time from an empty cache
    gpu_bytes, cpu_bytes    capacity of the tiers above storage; `storage_bytes` 0: 95 % of the free space at the start
    tensor_parallel a rank holds one of so many shares of each entry
    token_seconds   the time of a generated token; `generation` is its name
    profile         latency or throughput: whose goals are told
    mode            mixed, prefill (only writes) or decode (only reads of what was written before)
    rag_documents   documents beside the conversations, 0 none
    allocations_max entries written at once, 0 no limit
    requests_max    requests of a trial, 0 no limit;    request_rate  requests a second of replayed conversations
    autoscaler      empty, qos or capacity
    source          personas, sharegpt, burst or mooncake; the others are read from `source_path`
    precondition_bytes  written before the first trial, and left to be evicted
    trace_path      a file that gets a line for each read and write, empty: none
    verify_ratio    share of the reads that are compared whole; every 4 KiB of all others shows its owner
    prefill_tokens_per_second   of the accelerator that would compute what is not read; `required` when the storage must
                    be faster than that for a yes
    """

    model: KvModel
    personas: dict[str, KvPersona]
    users: int = 100
    duration_seconds: float = 60.0
    trials: int = 1
    pause_seconds: float = 0.0
    layout: str = MLPERF_LAYOUT
    page_tokens: int = 256
    dtype: str = "float16"
    gpu_bytes: int = 0
    cpu_bytes: int = 0
    storage_bytes: int = 0
    tensor_parallel: int = 1
    generation: str = "none"
    token_seconds: float = 0.0
    profile: str = "latency"
    mode: str = "mixed"
    multi_turn: bool = True
    prefix_caching: bool = True
    rag_documents: int = 0
    allocations_max: int = 0
    requests_max: int = 0
    request_rate: float = 0.0
    autoscaler: str = ""
    target_saturation: float = 0.8
    source: str = "personas"
    source_path: str = ""
    conversations_max: int = 500
    trace_speedup: float = 1.0
    replay_cycles: int = 0
    precondition_bytes: int = 0
    precondition_threads: int = 4
    trace_path: str = ""
    seed: int = 42
    verify_ratio: float = 0.0
    piece_bytes: int = 4 << 20
    fsync: str = "full"
    samples_max: int = SAMPLES_MAX
    prefill_tokens_per_second: float = 0.0
    prefill_required: bool = False

    @property
    def token_bytes(self) -> int:
        """Return the bytes of a token in one rank's share."""
        return self.model.bytes_per_token(DTYPE_BYTES[self.dtype]) // self.tensor_parallel

    @property
    def break_even_bytes_per_second(self) -> float:
        """Return how fast reading must be so that it beats computing anew."""
        return self.token_bytes * self.tensor_parallel * self.prefill_tokens_per_second


class TierCounts(msgspec.Struct):
    """What one tier did. Demotions are counted apart from what requests read and wrote; `rejected` did not fit."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0
    demote_reads: int = 0
    demote_read_bytes: int = 0
    demote_writes: int = 0
    demote_write_bytes: int = 0
    demotions: int = 0
    deletes: int = 0
    rejected: int = 0
    entries: int = 0
    bytes: int = 0
    bytes_max: int = 0
    entry_bytes_max: int = 0

    def add(self, other: "TierCounts") -> None:
        """Add the counts of another rank's tier; the largest entry is that of all."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name == "entry_bytes_max" else mine + theirs)


class KvCounts(msgspec.Struct):
    """What the requests of a trial did. `tokens` are generated ones; `io_seconds` is summed over all requests.

    A `hit` is a read that found its entry in some tier, a `miss` one that found none. `lost` bytes were evicted without
    ever having been read. `cut` requests were under way when the time was over. Of the tokens in full pages that were
    `wanted`, those `matched` lay in the longest known prefix.
    """

    requests: int = 0
    cut: int = 0
    tokens: int = 0
    context_tokens: int = 0
    arrivals: int = 0
    waiting: int = 0
    io_seconds: float = 0.0
    storage_io_seconds: float = 0.0
    content_seconds: float = 0.0
    hits: int = 0
    misses: int = 0
    prefill_writes: int = 0
    prefill_tokens: int = 0
    decode_reads: int = 0
    turn_hits: int = 0
    turn_misses: int = 0
    prefix_hits: int = 0
    prefix_misses: int = 0
    rag_reads: int = 0
    wanted_tokens: int = 0
    matched_tokens: int = 0
    rejected: int = 0
    lost_entries: int = 0
    lost_bytes: int = 0
    stamped_bytes: int = 0
    verified_bytes: int = 0
    device_seconds_read: float = 0.0
    device_seconds_write: float = 0.0

    def add(self, other: "KvCounts") -> None:
        """Add the counts of another rank."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class KvPoint(msgspec.Struct, frozen=True, array_like=True):
    """How far a rank was: seconds since the trial began, bytes that storage read and wrote, requests done and waiting,
    and users."""

    seconds: float
    read_bytes: int
    write_bytes: int
    requests: int
    waiting: int
    users: int


class KvNote(msgspec.Struct):
    """One trial of one rank. `histograms` are of `<tier>_<operation>`, of storage also `…_device` and `…_host`, and of
    `request`, `queue`, `generation`; `qos` of each class are the requests' spans. `samples` are single latencies in
    milliseconds, the first ones."""

    number: int
    started_utc: str = ""
    started_ns: int = 0
    seconds: float = 0.0
    users: int = 0
    tiers: dict[str, TierCounts] = {}
    counts: KvCounts = msgspec.field(default_factory=KvCounts)
    histograms: dict[str, str] = {}
    samples: dict[str, list[float]] = {}
    points: list[KvPoint] = []
    scaling: list[dict[str, float]] = []
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    counters: Counters = msgspec.field(default_factory=Counters)
    complete: bool = False


class KvTrial(msgspec.Struct):
    """One trial of the whole run: sums over ranks; rates are sums of the ranks' own; latencies are pooled over all.

    `latency_seconds` maps an operation to quantiles, `p95_max_seconds` to the largest P95 of any rank. Ranks in
    `memory_ranks` have never had an entry in storage.
    """

    number: int
    started_utc: str = ""
    ranks: int = 0
    seconds: float = 0.0
    tiers: dict[str, TierCounts] = {}
    counts: KvCounts = msgspec.field(default_factory=KvCounts)
    read_bytes_per_second: float = 0.0
    write_bytes_per_second: float = 0.0
    tokens_per_second: float = 0.0
    storage_tokens_per_second: float = 0.0
    requests_per_second: float = 0.0
    hit_ratio: float = 0.0
    latency_seconds: dict[str, dict[str, float]] = {}
    p95_max_seconds: dict[str, float] = {}
    memory_ranks: list[int] = []
    complete: bool = False


class KvFigures(msgspec.Struct):
    """The figures of a run: means over the trials that were seen through, and how far these lie apart.

    `tokens_per_second` are generated ones over the time that passed; `storage_tokens_per_second` is the reference's
    figure, over the seconds that all requests together spent on reading and writing. `fed_accelerators` is how many
    accelerators computing `prefill_tokens_per_second` each the reads would spare, None where that was not told.
    """

    trials: int = 0
    read_bytes_per_second: float = 0.0
    write_bytes_per_second: float = 0.0
    read_variation_ratio: float = 0.0
    write_variation_ratio: float = 0.0
    tokens_per_second: float = 0.0
    storage_tokens_per_second: float = 0.0
    requests_per_second: float = 0.0
    hit_ratio: float = 0.0
    hits_by_tier: dict[str, int] = {}
    deletes: int = 0
    entry_bytes_mean: float = 0.0
    entry_bytes_max: int = 0
    latency_seconds: dict[str, dict[str, float]] = {}
    p95_max_seconds: dict[str, float] = {}
    break_even_bytes_per_second: float = 0.0
    fed_accelerators: float | None = None
    cpu_seconds_per_gib: float | None = None
