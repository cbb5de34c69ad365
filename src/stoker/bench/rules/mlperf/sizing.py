"""How large what each family needs is, before the first byte: pure functions of the models, the hosts and the memory.

    training_size    files by bytes and by steps, and the bytes they take
    checkpoint_size  files and bytes of one checkpoint and of all, memory of each rank and host, the cache rule
    vector_size      vectors, index and exact copy
    kv_size          bytes a token, working set of each persona

Sizes are counted in bytes; "GB" of a client's memory are binary, "GB" of an accelerator's memory are decimal, as the
options of the benchmark mean them. Every size carries the sentence that says which bound decided.
"""

import math
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.formulas import (
    CHECKPOINT_MEMORY_MULTIPLE,
    HOST_MEMORY_MULTIPLE,
    STEPS_PER_EPOCH_MIN,
    files_needed,
    memory_that_counts,
    model_bytes,
    optimizer_bytes,
)
from stoker.bench.rules.mlperf.sizing_serving import (
    KvSize,
    PersonaSize,
    VectorSize,
    counted,
    known,
    kv_option_size,
    kv_size,
    vector_size,
)
from stoker.bench.rules.mlperf.tables import CheckpointModel, TrainingModel, models
from stoker.core.errors import UsageError
from stoker.core.units import GiB, format_bytes

__all__ = (
    "CheckpointSize",
    "KvSize",
    "PersonaSize",
    "TrainingSize",
    "VectorSize",
    "checkpoint_size",
    "kv_option_size",
    "kv_size",
    "training_size",
    "vector_size",
)

FILES_A_SUBFOLDER: Final = 10_000
FILES_ADVISORY: Final = 128 * 1024
ACCELERATOR_HOST_BYTES: Final = GiB // 2  # "about half a GB of host memory an accelerator"
CHECKPOINTS: Final = 10


class TrainingSize(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset that a run needs at least. `memory_bytes` is that of all hosts, as it counted."""

    model: str
    accelerator: str
    accelerators: int
    hosts: int
    memory_bytes: float
    file_bytes: float
    samples_per_file: int
    files_by_bytes: int
    files_by_steps: int
    files: int
    total_bytes: float
    subfolders: int
    host_memory_needed_bytes: int
    bound: str
    sentence: str
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Return the samples of an epoch before the last, incomplete step is cut off."""
        return self.files * self.samples_per_file


class CheckpointSize(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint, and all that a run writes and reads of it.

    `rank_bytes_first` and `rank_bytes_others` are the memory view of the rules: with ZeRO 1 the first rank is counted
    with the whole model. `rank_file_bytes_max` is the largest share that a rank really writes.
    """

    model: str
    processes: int
    hosts: int
    data_parallel: int
    subset: bool
    model_bytes: float
    optimizer_bytes: float
    checkpoint_bytes: float
    files: int
    rank_bytes_first: float
    rank_bytes_others: float
    rank_file_bytes_max: float
    host_bytes: tuple[float, ...]
    writes: int
    reads: int
    written_bytes: float
    read_bytes: float
    written_bytes_per_host: float
    cache_rule_held: bool | None
    sentence: str
    notes: tuple[str, ...] = ()

    @property
    def host_memory_needed_bytes(self) -> float:
        """Return the memory that the fullest host needs for its ranks' shares."""
        return max(self.host_bytes)


def training_size(
    model: str,
    accelerator: str,
    *,
    accelerators: int,
    hosts: int,
    memory_bytes_per_host: float,
    measured_memory_bytes: float | None = None,
) -> TrainingSize:
    """Return the smallest dataset that the rules let `accelerators` train from.

    `measured_memory_bytes` is the memory of all hosts together as it was collected: it counts instead of the declared
    one where it is more than 5 % larger, and a note tells of any larger difference.

    Raises UnknownNameError for a model or accelerator that has no template, UsageError for counts below 1.
    """
    counted(accelerators=accelerators, hosts=hosts)
    if not memory_bytes_per_host > 0:
        raise UsageError("the memory of a client host must be more than 0", got=format_bytes(memory_bytes_per_host))
    template = known(models().training, model, "training model")
    kind = known(template.accelerators, accelerator, f"accelerator of {model}")
    memory, note = memory_that_counts(hosts * memory_bytes_per_host, measured_memory_bytes)
    by_bytes, by_steps = files_needed(
        template, accelerators=accelerators, batch_size=kind.batch_size, memory_bytes=memory
    )
    files, each = max(by_bytes, by_steps), math.ceil(accelerators / hosts)
    return TrainingSize(
        model=model,
        accelerator=accelerator,
        accelerators=accelerators,
        hosts=hosts,
        memory_bytes=memory,
        file_bytes=template.file_bytes,
        samples_per_file=template.samples_per_file,
        files_by_bytes=by_bytes,
        files_by_steps=by_steps,
        files=files,
        total_bytes=files * template.file_bytes,
        subfolders=files // FILES_A_SUBFOLDER if files > FILES_A_SUBFOLDER else 0,
        host_memory_needed_bytes=each * ACCELERATOR_HOST_BYTES,
        bound="bytes" if by_bytes >= by_steps else "steps",
        sentence=_training_sentence(template, files, by_bytes, by_steps, memory),
        notes=tuple(_training_notes(files, note)),
    )


def _training_sentence(model: TrainingModel, files: int, by_bytes: int, by_steps: int, memory: float) -> str:
    total = f"{files:,} files, {format_bytes(files * model.file_bytes)}"
    five_times = f"{HOST_MEMORY_MULTIPLE} times the clients' memory of {format_bytes(memory)} ({by_bytes:,} files)"
    steps = f"{STEPS_PER_EPOCH_MIN} steps an epoch ({by_steps:,} files)"
    first, second = (five_times, steps) if by_bytes >= by_steps else (steps, five_times)
    return f"{total}: {first} asks for more than {second}" if by_bytes != by_steps else f"{total}: {first} and {second}"


def _training_notes(files: int, memory_note: str) -> list[str]:
    notes = [memory_note] if memory_note else []
    if files > FILES_A_SUBFOLDER:
        notes.append(f"spread the files over {files // FILES_A_SUBFOLDER} subfolders (dataset.num_subfolders_train)")
    if files > FILES_ADVISORY:
        notes.append(f"more than {FILES_ADVISORY:,} files: every rank lists them all when it starts")
    return notes


def checkpoint_size(
    model: str,
    *,
    processes: int,
    hosts: int = 1,
    subset: bool = False,
    writes: int = CHECKPOINTS,
    reads: int = CHECKPOINTS,
    memory_bytes_per_host: float | None = None,
) -> CheckpointSize:
    """Return the size of the model's checkpoint as `processes` write it, hosts filled in blocks.

    A `subset` keeps the parallelism of the whole job, and its processes write the shares of the first ranks. Whether a
    division allows it is for rule 4.3.5. `cache_rule_held` is None without `memory_bytes_per_host`, or without writes.

    Raises UnknownNameError for an unknown model, UsageError for processes that cannot hold it.
    """
    counted(processes=processes, hosts=hosts)
    entry = known(models().checkpointing, model, "checkpointing model")
    data = _data_parallel(model, entry, processes, subset=subset)
    shares = _Shares(entry, data, processes)
    whole = shares.model_bytes + shares.optimizer_bytes
    first, others = _memory_view(entry, shares, processes)
    held = None
    if memory_bytes_per_host and writes:
        held = whole * writes >= CHECKPOINT_MEMORY_MULTIPLE * memory_bytes_per_host * hosts
    return CheckpointSize(
        model=model,
        processes=processes,
        hosts=hosts,
        data_parallel=data,
        subset=subset,
        model_bytes=shares.model_bytes,
        optimizer_bytes=shares.optimizer_bytes,
        checkpoint_bytes=whole,
        files=shares.files,
        rank_bytes_first=first,
        rank_bytes_others=others,
        rank_file_bytes_max=shares.largest,
        host_bytes=tuple(_hosts_memory(processes, hosts, first, others)),
        writes=writes,
        reads=reads,
        written_bytes=writes * whole,
        read_bytes=reads * whole,
        written_bytes_per_host=writes * whole / hosts,
        cache_rule_held=held,
        sentence=_checkpoint_sentence(entry, shares, processes, writes),
        notes=tuple(_checkpoint_notes(model, held, memory_bytes_per_host)),
    )


def _data_parallel(name: str, model: CheckpointModel, processes: int, *, subset: bool) -> int:
    """Return the data parallelism. Raises UsageError when the processes cannot hold the model."""
    if subset:
        if processes > model.processes:
            expected = f"at most {model.processes}"
            raise UsageError(f"a subset of {name} has fewer processes", expected=expected, got=str(processes))
        return model.data
    if processes % model.open_multiple:
        expected = f"a multiple of {model.open_multiple}"
        remedy = f"closed takes {model.processes}" + ("" if not model.subset_ranks else "; or declare a subset")
        raise UsageError(f"{name} does not fit its processes", expected=expected, got=str(processes), remedy=remedy)
    return max(1, processes // (model.tensor * model.pipeline))


class _Shares:
    """What the first `processes` of a job write: all ranks of data parallelism `data`, or a subset of them."""

    def __init__(self, model: CheckpointModel, data: int, processes: int) -> None:
        parallel = model.tensor * model.pipeline
        job, holders = data * parallel, min(processes, parallel)
        optimizer = optimizer_bytes(model, job)
        self.optimizer_bytes = optimizer * processes / job
        if model.zero_stage == 3:
            self.model_bytes = model_bytes(model) * processes / job
            self.files = 2 * processes
            self.largest = (self.model_bytes + self.optimizer_bytes) / processes
            return
        self.model_bytes = model_bytes(model) * holders / parallel
        self.files = processes + self._layer_files(model, holders)
        self.largest = self.model_bytes / holders + self.optimizer_bytes / processes

    @staticmethod
    def _layer_files(model: CheckpointModel, holders: int) -> int:
        """Count one file a layer and tensor rank, with embedding, head and final norm; one a rank without pipeline."""
        if model.pipeline == 1:
            return holders
        stages = math.ceil(holders / model.tensor)
        each, more = divmod(model.layers, model.pipeline)
        layers = sum(each + (stage < more) for stage in range(stages)) + 1
        layers += 2 if stages == model.pipeline else 0
        return layers * min(holders, model.tensor)


def _memory_view(model: CheckpointModel, shares: _Shares, processes: int) -> tuple[float, float]:
    """Return the memory of the first rank and of every other one, as the rules count it."""
    each = shares.optimizer_bytes / processes
    if model.zero_stage == 3:
        each += shares.model_bytes / processes
        return each, each
    return shares.model_bytes + each, each


def _hosts_memory(processes: int, hosts: int, first: float, others: float) -> list[float]:
    each, more = divmod(processes, hosts)
    counts = [each + (host < more) for host in range(hosts)]
    return [count * others + (first - others if host == 0 else 0.0) for host, count in enumerate(counts)]


def _checkpoint_sentence(model: CheckpointModel, shares: _Shares, processes: int, writes: int) -> str:
    whole = shares.model_bytes + shares.optimizer_bytes
    return (
        f"{format_bytes(whole)} in {shares.files:,} files a checkpoint ({format_bytes(shares.model_bytes)} model, "
        f"{format_bytes(shares.optimizer_bytes)} optimizer; {processes} processes, ZeRO {model.zero_stage}), "
        f"{format_bytes(writes * whole)} for {writes} of them"
    )


def _checkpoint_notes(model: str, held: bool | None, memory: float | None) -> list[str]:
    notes = []
    if held is False and memory is not None:
        told = f"{CHECKPOINT_MEMORY_MULTIPLE} times its memory of {format_bytes(memory)}"
        notes.append(f"a client writes less than {told}: clear the caches between the writes and the reads")
    if model == "llama3-1t":
        notes.append("the rules' table says 18 TB for this model; by its formula it is smaller, and that is counted")
    return notes
