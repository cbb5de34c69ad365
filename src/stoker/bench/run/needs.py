"""What a run needs against what is there: space, inodes, memory, network and time of every family. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.job_facts import JobFacts
from stoker.bench.rules.mlperf.sizing import CheckpointSize, KvSize, TrainingSize, VectorSize
from stoker.bench.rules.mlperf.tables import editions, models
from stoker.bench.run.surroundings import Surroundings
from stoker.core.units import format_bytes, format_rate, format_seconds

BETWEEN_CHECKPOINTS_SECONDS: Final = 5.0
VECTOR_RUN_SECONDS: Final = 60.0


def _count(count: float) -> str:
    return f"{count:,.0f}"


_FORMATS: Final[dict[str, Callable[[float], str]]] = {
    "bytes": format_bytes,
    "bytes/s": format_rate,
    "seconds": format_seconds,
    "files": _count,
}


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is needed: how much, how much is there (None: not known), and what else is to be said."""

    name: str
    needed: float
    unit: str
    have: float | None = None
    told: str = ""

    @property
    def fits(self) -> bool | None:
        """Tell whether it suffices, None where what is there is not known."""
        return None if self.have is None else self.needed <= self.have

    @property
    def line(self) -> str:
        """Return it as a person reads it."""
        show = _FORMATS[self.unit]
        text = show(self.needed)
        if self.have is not None:
            enough = "" if self.fits else f", {show(self.needed - self.have)} too little"
            text += f" of {show(self.have)}{enough}"
        return text + (f"; {self.told}" if self.told else "")


def training_needs(
    size: TrainingSize, around: Surroundings, job: JobFacts, write_rate: float | None = None
) -> Iterator[Need]:
    """Yield the needs of a training result: the dataset, the loader's memory, the accelerators' demand, the time."""
    model = models().training[size.model]
    kind = model.accelerators[size.accelerator]
    files = max(job.files or 0, size.files)
    total = files * size.file_bytes
    yield _space(total, around, "the dataset")
    yield Need(name="inodes", needed=files + size.subfolders, unit="files", have=around.free_files)
    each = math.ceil(size.accelerators / size.hosts)
    memory = job.memory_bytes_per_host or around.memory_bytes
    told = f"{each} accelerators a host, half a GiB each, and their batches"
    batches = each * kind.batch_size * model.record_length_bytes * 3
    needed = size.host_memory_needed_bytes + batches
    yield Need(name="memory a host", needed=needed, unit="bytes", have=memory, told=told)
    one = kind.batch_size * model.record_length_bytes / kind.computation_seconds
    yield _network(each, one, model.au_threshold_ratio, around)
    steps = files * size.samples_per_file // (kind.batch_size * size.accelerators)
    run = steps * kind.computation_seconds * model.epochs
    runs = editions()[job.edition].training_runs
    slow = format_seconds(run / model.au_threshold_ratio)
    told = f"{model.epochs} epochs of {steps:,} steps at full speed, {slow} at AU {model.au_threshold_ratio:.0%}"
    yield Need(name="time of a run", needed=run, unit="seconds", told=told)
    yield Need(name="time of all runs", needed=runs * run, unit="seconds", told=f"{runs} runs at full speed")
    yield Need(name="bytes read", needed=runs * model.epochs * total, unit="bytes", told=f"in {runs} runs")
    if write_rate:
        seconds = total / (write_rate * size.hosts)
        yield Need(name="time to generate", needed=seconds, unit="seconds", told=f"at {format_rate(write_rate)} a host")


def _space(needed: float, around: Surroundings, what: str) -> Need:
    kind = f" on {around.mount}" if around.mount else ""
    have = None if around.free_bytes is None else float(around.free_bytes)
    return Need(name="space", needed=needed, unit="bytes", have=have, told=f"{what}{kind}")


def _network(each: int, one: float, au: float, around: Surroundings) -> Need:
    """What a host's accelerators ask for to reach the AU's target, against the port that must carry it."""
    rate = around.line_rate_bytes_per_second if around.networked is not False else None
    told = f"{each} accelerators at AU {au:.0%}, {format_rate(each * one)} at full speed"
    if around.networked is False:
        told += "; the target is no network file system"
    elif rate is not None:
        most = math.floor(rate / (one * au))
        told += f"; the port ({around.line_told_by}) holds AU {au:.0%} for at most {most} accelerators a host"
    else:
        told += "; the line rate of the ports is not known"
    return Need(name="network a host", needed=each * one * au, unit="bytes/s", have=rate, told=told)


def checkpoint_needs(size: CheckpointSize, around: Surroundings, memory: float) -> Iterator[Need]:
    """Yield the needs of a checkpointing result: all checkpoints, the shares in memory, the time of the pauses."""
    yield _space(size.written_bytes, around, f"{size.writes} checkpoints of {format_bytes(size.checkpoint_bytes)}")
    files = size.files * size.writes
    yield Need(name="inodes", needed=files + size.writes, unit="files", have=around.free_files)
    needed = size.host_memory_needed_bytes
    told = "the first host, as the rules count the ranks' shares"
    yield Need(name="memory a host", needed=needed, unit="bytes", have=memory, told=told)
    moved = max(size.written_bytes, size.read_bytes) / size.hosts
    rate = around.line_rate_bytes_per_second if around.networked is not False else None
    pauses = (size.writes + size.reads) * BETWEEN_CHECKPOINTS_SECONDS
    told, seconds = "the pauses alone; what the storage takes comes on top", pauses
    if rate:
        both = (size.written_bytes + size.read_bytes) / size.hosts
        seconds += both / rate
        told = f"the pauses, and {format_bytes(both)} a host through its port ({around.line_told_by})"
    yield Need(name="time of a run", needed=seconds, unit="seconds", told=told)
    yield Need(name="bytes a host", needed=moved, unit="bytes", told="written, and read again")


def vector_needs(size: VectorSize, around: Surroundings) -> Iterator[Need]:
    """Yield the needs of a vector-database result: the collection where the engine keeps it, and its memory."""
    yield _space(size.total_bytes, around, "where the engine keeps its data")
    if size.served_from_memory:
        told = "of the engine: this index is searched in memory, and storage is hardly asked"
        yield Need(name="memory of the engine", needed=size.raw_bytes + size.index_bytes, unit="bytes", told=told)
    runs = models().vector_database.runs
    told = f"{runs} runs of a minute, once the collection is loaded"
    yield Need(name="time of all runs", needed=runs * VECTOR_RUN_SECONDS, unit="seconds", told=told)


def kv_needs(sizes: Sequence[KvSize], around: Surroundings, memory: float, *, fixed: bool) -> Iterator[Need]:
    """Yield the needs of a KV-cache result: the working set beyond memory, the tiers, and the time of all trials."""
    largest = max(sizes, key=lambda size: size.storage_bytes_max)
    told = f"beyond memory, with {largest.model}; less space means more entries pushed out"
    have = None if around.free_bytes is None else 0.95 * around.free_bytes
    yield Need(name="working set", needed=largest.storage_bytes_max, unit="bytes", have=have, told=told)
    tiers = max(size.tier_bytes / size.clients for size in sizes) + 3 * max(size.largest_entry_bytes for size in sizes)
    told = "a client: its tier, and a few entries of the largest size in flight"
    yield Need(name="memory a client", needed=tiers, unit="bytes", have=memory, told=told)
    if fixed:
        table = models().kv_cache
        seconds = float(sum(option.duration_seconds for option in table.options.values()) * table.trials)
        seconds += table.delay_seconds * (len(table.options) - 1)
        told = f"{len(table.options)} options, {table.trials} trials each, and the pauses between options"
        yield Need(name="time of a run", needed=seconds, unit="seconds", told=told)
