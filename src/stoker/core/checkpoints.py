"""Checkpoints as data: what a run writes and reads, what one rank did of it, and what came out for all ranks.

A checkpoint is what a distributed training run leaves behind to go on from: each rank writes its share of the model's
layers and of the optimizer's state into files of its own, and reads the same files to begin anew.
"""

from typing import Final

import msgspec

from stoker.core.ledger import Counters, Ledger

SAVE: Final = "save"
LOAD: Final = "load"
ELEMENT_BYTES: Final = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8, "int8": 1, "uint8": 1}
STAGE: Final = "checkpoint_stage"
WRITE: Final = "checkpoint_write"
COMMIT: Final = "checkpoint_commit"


class ModelShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model as its checkpoints show it: sizes of a transformer, how it is spread over ranks, and element types.

    tensor, pipeline, data  the parallel degrees; `data` 0: as many as the ranks allow, any other number is pinned and
                            fewer ranks then write a part of the model alone
    zero_stage      0 to 3: who keeps which part of layers and optimizer (ZeRO, arXiv:1910.02054)
    scale_ratio     below 1 every tensor has only that share of its elements
    blob_bytes      a model that is no transformer (`layers` 0) is one blob of so many bytes on each rank
    layer_lengths   elements of each tensor of a layer, where they are told instead of the transformer's sizes
    group_lengths   elements of the optimizer's groups, where they are told
    """

    layers: int = 0
    hidden_size: int = 0
    ffn_hidden_size: int = 0
    attention_heads: int = 1
    kv_heads: int = 1
    vocab_size: int = 0
    tensor: int = 1
    pipeline: int = 1
    data: int = 0
    zero_stage: int = 0
    model_type: str = "fp16"
    optimizer_type: str = "fp32"
    scale_ratio: float = 1.0
    blob_bytes: int = 0
    layer_lengths: tuple[int, ...] = ()
    group_lengths: tuple[int, ...] = ()

    def replicas(self, ranks: int) -> int:
        """Return the data-parallel degree with so many ranks."""
        return self.data or max(1, ranks // (self.tensor * self.pipeline))


class CheckpointPlan(msgspec.Struct, frozen=True):
    """What a run writes and reads of checkpoints.

    writes, reads       how many are written, then read
    interval_seconds    slept before each
    folder              below the target, which holds a folder a checkpoint
    target_url          where they lie when that is not the run's target; nothing secret
    fsync               what a finished write has made durable: none, data or full
    buffers, buffer_bytes   what a rank stages content in; the most memory that writing takes
    writers             files that a rank writes at once
    depth               pieces of `buffer_bytes` that a rank reads at once
    verify_ratio        share of what is read that is held against what was written, 0..1
    keep                the last checkpoints that are kept while writing goes on; 0 keeps all
    clean               remove at the end what this run wrote
    rank_sync           the clock stops only when all ranks are done, on every rank
    content_seed        decides the content together with checkpoint, rank and file
    hand_over_seconds   of a run that only reads: from the last write's end to this run's start; None where unknown
    after_epoch, epochs_between, steps_between      when a training run writes one; steps_between 0: after epochs
    """

    shape: ModelShape
    writes: int = 10
    reads: int = 10
    interval_seconds: float = 5.0
    folder: str = ""
    target_url: str = ""
    fsync: str = "full"
    buffers: int = 8
    buffer_bytes: int = 16 << 20
    writers: int = 1
    depth: int = 4
    verify_ratio: float = 0.0
    keep: int = 0
    clean: bool = False
    rank_sync: bool = False
    subset: bool = False
    content_seed: int = 1
    hand_over_seconds: float | None = None
    after_epoch: int = 1
    epochs_between: int = 1
    steps_between: int = 0


class CheckpointNote(msgspec.Struct):
    """One save or load of one rank.

    `seconds` is the rank's own clock, from the barrier before until its own files were written (and synced) or read.
    `all_seconds` runs on until every rank was done and, for a save, the checkpoint was committed; rank 0's tells.
    `stage_seconds` splits the rank's time; `dirty_bytes` of the written ones still lay in the page cache alone when the
    save was over, None where the kernel does not tell. `resident_bytes` of what a load reads were cached before it.
    """

    operation: str
    number: int
    id: str
    started_utc: str = ""
    started_ns: int = 0
    seconds: float = 0.0
    all_seconds: float = 0.0
    bytes: int = 0
    files: int = 0
    verified_bytes: int = 0
    dirty_bytes: int | None = None
    resident_bytes: int | None = None
    stage_seconds: dict[str, float] = {}
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    counters: Counters = msgspec.field(default_factory=Counters)
    complete: bool = False


class Checkpoint(msgspec.Struct):
    """One save or load of the whole run.

    `seconds` is the longest of all ranks' own clocks, `seconds_compatible` that of rank 0, whom the reference asks;
    `all_seconds` is rank 0's time until all were done and the checkpoint was committed. Rates are the bytes of all
    ranks over these. `slowest_rank` held the others up. Who did not finish is missing from `ranks`.
    """

    operation: str
    number: int
    id: str
    started_utc: str = ""
    ranks: int = 0
    bytes: int = 0
    files: int = 0
    seconds: float = 0.0
    seconds_compatible: float = 0.0
    seconds_mean: float = 0.0
    all_seconds: float = 0.0
    bytes_per_second: float = 0.0
    bytes_per_second_compatible: float = 0.0
    slowest_rank: int = 0
    slowest_host: str = ""
    verified_bytes: int = 0
    dirty_bytes: int | None = None
    resident_bytes: int | None = None
    device_written_bytes: int | None = None
    stage_seconds: dict[str, float] = {}
    complete: bool = False


class OperationFigures(msgspec.Struct):
    """All saves, or all loads, of a run that were seen through: `count` of them; means over them, deviations of the
    population. The compatible ones go by rank 0's clock, the others by the slowest rank's."""

    count: int = 0
    bytes_per_second: float = 0.0
    bytes_per_second_min: float = 0.0
    bytes_per_second_stdev: float = 0.0
    seconds: float = 0.0
    seconds_max: float = 0.0
    seconds_stdev: float = 0.0
    bytes_per_second_compatible: float = 0.0
    bytes_per_second_compatible_stdev: float = 0.0
    seconds_compatible: float = 0.0
    seconds_compatible_stdev: float = 0.0
    all_seconds: float = 0.0


class CheckpointFigures(msgspec.Struct):
    """The figures of a run's checkpoints.

    `whole_seconds` runs from the first save's start to the last load's end (or to what there was of them);
    `first_utc` and `last_utc` are those two moments, and `last_save_utc` the last save's end: what a handover between
    two runs is measured by.
    """

    size_bytes: int = 0
    files: int = 0
    save: OperationFigures | None = None
    load: OperationFigures | None = None
    whole_seconds: float = 0.0
    first_utc: str = ""
    last_utc: str = ""
    last_save_utc: str = ""
