"""The catalogue of rules as data: what is tested, how grave a breach is, what it does to the answer, what helps.

A rule's `effect` says what a finding does to the answer:

    partial     the run was cut short: nothing is concluded from it
    invalid     the run broke its own terms
    blinds      the measurement cannot tell anything about the storage, for better or worse
    client      the client was the limit, not the storage
    negative    the storage was measured and is too slow
    flatters    may have made the storage look better than it is, never worse: stops a yes, not a no
    statistics  the measurement is sound but too short or too noisy to decide
    tells       a fact the reader should know; the answer stays
"""

from typing import Final

from stoker.bench.rules.kvcache_rules import KVCACHE_RULES
from stoker.bench.rules.rule import CHECKPOINTING, KVCACHE, REPEAT, TRAINING, VECTORS, Rule
from stoker.bench.rules.vector_rules import VECTOR_RULES
from stoker.core.result import Finding

EFFECTS: Final = ("partial", "invalid", "blinds", "client", "negative", "flatters", "statistics", "tells")
_STORES: Final = (TRAINING, CHECKPOINTING, KVCACHE)
_EVERY: Final = (*_STORES, VECTORS)
_SAVING: Final = (CHECKPOINTING,)
_ROWS: Final = (
    Rule(
        "run.complete",
        "blocks",
        "partial",
        "The run was cut short",
        "The run came to its planned end.",
        "repeat the run to its end; what was measured is kept and labelled",
        workloads=_EVERY,
    ),
    Rule("run.failed", "blocks", "invalid", "The run failed", "The run did not fail.", REPEAT, workloads=_EVERY),
    Rule(
        "rank.errors",
        "blocks",
        "invalid",
        "A rank ended in an error",
        "No rank ended in an error.",
        REPEAT,
        workloads=_EVERY,
    ),
    Rule(
        "rank.missing",
        "blocks",
        "invalid",
        "Ranks are missing from the result",
        "Every planned rank reported exactly once.",
        "look in the ranks' logs for the one that went silent, and repeat the run",
        workloads=_EVERY,
    ),
    Rule(
        "run.figures",
        "blocks",
        "invalid",
        "The figures are impossible",
        "Ratios lie in 0..1, the interval's ends are in order, no count is negative.",
        "the file was altered or comes from a faulty version; repeat the run",
    ),
    Rule(
        "coverage.exact",
        "blocks",
        "invalid",
        "Samples were left out or visited twice",
        "Every finished epoch visited each usable sample exactly once.",
        "report it with the result: the order of access is broken",
    ),
    Rule(
        "run.steps",
        "blocks",
        "blinds",
        "Too few steps were kept",
        "At least 5 steps remain after the excluded ones.",
        "run for longer, or use a larger dataset",
    ),
    Rule(
        "evidence.target",
        "blocks",
        "blinds",
        "No storage was read",
        "The bytes came from a store, not from memory or a generator.",
        "this is the ceiling of the harness; name a real target to judge a storage",
    ),
    Rule(
        "evidence.wanted",
        "blocks",
        "blinds",
        "Delivered is not what was wanted",
        "The payload delivered equals the payload wanted, within 1 %.",
        "check the dataset against its manifest",
    ),
    Rule(
        "evidence.excess",
        "blocks",
        "blinds",
        "More was read than the ledger claims",
        "The counters show at most 1 % (and the rounding to pages) more than the ledger claims.",
        "look for read-ahead beyond the samples or for other reading by the ranks; direct I/O avoids both",
        workloads=_STORES,
    ),
    Rule(
        "client.limit",
        "blocks",
        "client",
        "The client is the limit",
        "Below the threshold, neither the client's CPU nor its own stages hold the accelerators up.",
        "use more or larger clients, more decode threads, or fewer accelerators a client",
    ),
    Rule(
        "au.threshold",
        "blocks",
        "negative",
        "Utilisation is below the threshold",
        "The upper end of the 95 % interval of AU reaches the threshold.",
        "see which stage the accelerators waited for; use fewer accelerators or faster storage",
    ),
    Rule(
        "au.sustained",
        "blocks",
        "flatters",
        "Batches read ahead of the measured steps flatter the utilisation",
        "Utilisation reaches the threshold even without the batches that were ready when the measured steps began.",
        "run longer or over a larger dataset, so that an epoch has more steps",
    ),
    Rule(
        "evidence.ledger",
        "blocks",
        "flatters",
        "The origin of bytes is unknown",
        "Bytes from the store and from the cache add up to the bytes requested, within 1 %.",
        "let the ranks own the files, or read with direct I/O, so that residency can be asked for",
        workloads=_STORES,
    ),
    Rule(
        "evidence.payload",
        "blocks",
        "flatters",
        "More was delivered than was read",
        "Without compression, at least the delivered bytes were requested.",
        "look for a cache in the loader",
    ),
    Rule(
        "evidence.cache",
        "blocks",
        "flatters",
        "Data came from the page cache",
        "At most 1 % of the requested bytes came from this host's page cache.",
        "let Stoker evict the dataset (--evict), read with direct I/O, or use a dataset larger than memory",
        workloads=_STORES,
    ),
    Rule(
        "evidence.counters",
        "blocks",
        "flatters",
        "The counters do not confirm the ledger",
        "Kernel or client counters confirm the bytes claimed from the store, to within 1 % of those requested.",
        "use direct I/O or a file system whose reads the kernel accounts to the process",
        workloads=_STORES,
    ),
    Rule(
        "evidence.epochs",
        "blocks",
        "flatters",
        "A later epoch began with cached data",
        "No epoch after the first began with more than 1 % of the dataset in the page cache.",
        "let Stoker evict the dataset before each epoch (--evict), or read with direct I/O",
    ),
    Rule(
        "au.interval",
        "blocks",
        "statistics",
        "The interval straddles the threshold",
        "The 95 % interval of AU lies wholly on one side of the threshold.",
        "run for longer: more steps make the interval narrower",
    ),
    Rule(
        "evidence.io_mode",
        "warns",
        "tells",
        "Reading was done otherwise than asked",
        "The data was read the way that was asked for.",
        "see the notes for the reason; name a target that supports the mode",
        workloads=_STORES,
    ),
    Rule(
        "run.errors",
        "warns",
        "tells",
        "Operations failed",
        "No operation on the store failed.",
        "look in the ranks' logs",
        workloads=_STORES,
    ),
    Rule(
        "run.retries",
        "informs",
        "tells",
        "Operations were repeated",
        "No operation had to be repeated.",
        "repeated operations cost time; look for throttling",
        workloads=_STORES,
    ),
    Rule(
        "evidence.device",
        "informs",
        "tells",
        "The device counted otherwise",
        "The block device moved between half and twice the bytes claimed from the store.",
        "the device counter covers the whole host: look for other load, or for a cache or array underneath",
    ),
    Rule(
        "client.busy",
        "informs",
        "tells",
        "The client is nearly used up",
        "The ranks used at most 90 % of the usable CPUs.",
        "expect the client to limit a larger run",
        workloads=(TRAINING, CHECKPOINTING),
    ),
    Rule(
        "coverage.dropped",
        "informs",
        "tells",
        "Samples were dropped",
        "The samples divide evenly into batches and ranks.",
        "choose a number of samples that is a multiple of batch size times ranks",
    ),
    Rule(
        "run.clock",
        "informs",
        "tells",
        "The wall clock was stepped",
        "The wall clock moved by at most 1 s against the monotonic one.",
        "durations come from the monotonic clock and are not affected; the dates may be",
        workloads=_EVERY,
    ),
    Rule(
        "scope.changed",
        "warns",
        "tells",
        "The workload is not the model's own",
        "Samples, batch size, computation and threshold are those of the model.",
        "leave out the options that change the model, and generate its own dataset",
        workloads=_EVERY,
    ),
    Rule(
        "scope.quick",
        "informs",
        "tells",
        "A quick look, not a submission",
        "The run is a full one.",
        "for a compliant run, generate the full dataset (stoker gen) and use stoker run training",
    ),
    Rule(
        "checkpoint.target",
        "blocks",
        "blinds",
        "No storage was written to",
        "The checkpoints went to a store, not into memory or nowhere.",
        "this is the ceiling of the harness; name a real target to judge a storage",
        _SAVING,
    ),
    Rule(
        "checkpoint.done",
        "blocks",
        "invalid",
        "Checkpoints are missing",
        "Every planned save and load came to its end on all ranks, with all bytes.",
        REPEAT,
        _SAVING,
    ),
    Rule(
        "checkpoint.client",
        "blocks",
        "client",
        "The client is the limit",
        "Making the content took at most half of the saves' time.",
        "use more or larger clients, or fewer ranks a client",
        _SAVING,
    ),
    Rule(
        "checkpoint.durable",
        "blocks",
        "flatters",
        "Saves were not durable when their clock stopped",
        "Every save was synced, and nothing of it lay in the page cache alone.",
        "leave --fsync at full, and use storage that keeps what it has acknowledged",
        _SAVING,
    ),
    Rule(
        "checkpoint.written",
        "blocks",
        "flatters",
        "The counters do not confirm the writes",
        "The device under the target, or the kernel, counted at least 99 % of what was written.",
        "look for writes that stayed in the page cache, or a cache or a layer that packs data underneath",
        _SAVING,
    ),
    Rule(
        "checkpoint.memory",
        "warns",
        "tells",
        "Reads may have come from the client's memory",
        "Each client wrote three times its memory, or its page cache was emptied before the reads.",
        "let Stoker evict the files (--evict), write more of them, or read in a run of its own",
        _SAVING,
    ),
    Rule(
        "checkpoint.handover",
        "warns",
        "tells",
        "The handover between writing and reading does not fit the rules",
        "A run that only reads began 0 to 30 s after the last write had ended.",
        "start the reading run sooner, and keep the hosts' clocks together",
        _SAVING,
    ),
    Rule(
        "checkpoint.clock",
        "informs",
        "tells",
        "Rank 0's clock tells more than the slowest rank allows",
        "The figure by rank 0's clock is at most 5 % above the one by the slowest rank.",
        "use the figure of the slowest rank; --rank-sync makes them one",
        _SAVING,
    ),
    Rule(
        "checkpoint.verified",
        "informs",
        "tells",
        "Nothing that was read was verified",
        "Some of what was read was held against what had been written.",
        "add --verify 1 to hold all of it against what was written",
        _SAVING,
    ),
    *VECTOR_RULES,
    *KVCACHE_RULES,
)
RULES: Final[dict[str, Rule]] = {rule.id: rule for rule in _ROWS}


def found(rule_id: str, *, expected: str = "", observed: str = "", where: str = "") -> Finding:
    """Return a finding of the rule with its severity, title and remedy filled in from the catalogue."""
    rule = RULES[rule_id]
    return Finding(rule.id, rule.severity, rule.title, expected, observed, where, rule.remedy)
