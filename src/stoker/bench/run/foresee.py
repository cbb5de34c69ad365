"""What a run of any family will take, and what the rules will say of it, before the first byte.

`foresee` looks at the target and this host only as far as a question to the kernel goes: nothing is written, nothing is
started, and nothing is asked of other hosts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.sizing import (
    CheckpointSize,
    KvSize,
    TrainingSize,
    VectorSize,
    checkpoint_size,
    kv_option_size,
    kv_size,
    training_size,
    vector_size,
)
from stoker.bench.rules.mlperf.tables import models
from stoker.bench.rules.mlperf.verifier import JobFacts, JobVerdict, judge_job
from stoker.bench.run.needs import Need, checkpoint_needs, kv_needs, training_needs, vector_needs
from stoker.bench.run.surroundings import Surroundings, look_around
from stoker.core.errors import UsageError

FAMILIES: Final = ("training", "checkpointing", "vector_database", "kv_cache")
_TIER_GB_MAX: Final = 131_072
Size = TrainingSize | CheckpointSize | VectorSize | KvSize


class ForeseeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job, and what the rules do not ask about. What `job` knows already is not looked for.

    `users` is those of a client of the KV cache, 0 for the fixed options of closed. Rates are in bytes a second and
    host; what is not given is looked for (the network) or left out (writing).
    """

    job: JobFacts
    vectors: int = 1_000_000
    dimension: int = 1536
    users: int = 0
    line_rate_bytes_per_second: float | None = None
    write_bytes_per_second: float | None = None


class Foresight(msgspec.Struct, frozen=True, kw_only=True):
    """What was foreseen: sizes, what is needed against what is there, and the verdict on the job."""

    family: str
    model: str
    division: str
    edition: str
    sizes: tuple[Size, ...]
    needs: tuple[Need, ...]
    verdict: JobVerdict
    surroundings: Surroundings
    notes: tuple[str, ...] = ()

    @property
    def lacking(self) -> list[Need]:
        """Return what is known not to suffice."""
        return [need for need in self.needs if need.fits is False]


def family_of(model: str) -> str:
    """Return the family that a model's, an index's or a cached model's name belongs to, training for every other."""
    from stoker.bench.rules.mlperf.sizing_serving import index_kinds, kv_models

    tables: dict[str, set[str]] = {
        "checkpointing": set(models().checkpointing),
        "vector_database": set(index_kinds()),
        "kv_cache": set(kv_models()),
    }
    return next((family for family, names in tables.items() if model in names), "training")


def foresee(request: ForeseeRequest) -> Foresight:
    """Return what the job will take and what the rules will say.

    Raises UnknownNameError for a model or accelerator that is none, UsageError for counts that no job has.
    """
    job = request.job
    around = look_around(job.data, Path(job.results) if job.results else None)
    if request.line_rate_bytes_per_second is not None:
        rate = request.line_rate_bytes_per_second
        around = msgspec.structs.replace(around, line_rate_bytes_per_second=rate, line_told_by="as was told")
    sizes, needs = _sized(request, around)
    job = _completed(job, sizes, needs, around)
    notes = [note for size in sizes for note in getattr(size, "notes", ())]
    return Foresight(
        family=job.family,
        model=job.model,
        division=job.division,
        edition=job.edition,
        sizes=sizes,
        needs=needs,
        verdict=judge_job(job),
        surroundings=around,
        notes=tuple(dict.fromkeys(notes)),
    )


def _sized(request: ForeseeRequest, around: Surroundings) -> tuple[tuple[Size, ...], tuple[Need, ...]]:
    job = request.job
    memory = job.memory_bytes_per_host or around.memory_bytes
    if job.family == "training":
        size = training_size(
            job.model,
            job.accelerator,
            accelerators=job.processes,
            hosts=job.hosts,
            memory_bytes_per_host=memory,
            measured_memory_bytes=job.measured_memory_bytes,
        )
        return (size,), tuple(training_needs(size, around, job, request.write_bytes_per_second))
    if job.family == "checkpointing":
        checkpoint = checkpoint_size(
            job.model,
            processes=job.processes,
            hosts=job.hosts,
            subset=job.subset,
            writes=job.writes,
            reads=job.reads,
            memory_bytes_per_host=memory,
        )
        return (checkpoint,), tuple(checkpoint_needs(checkpoint, around, memory))
    if job.family == "vector_database":
        index = vector_size(job.model, vectors=request.vectors, dimension=request.dimension)
        return (index,), tuple(vector_needs(index, around))
    if job.family == "kv_cache":
        caches = _caches(request)
        return caches, tuple(kv_needs(caches, around, memory, fixed=not request.users))
    raise UsageError("no such family", where=job.family, expected=", ".join(FAMILIES))


def _caches(request: ForeseeRequest) -> tuple[KvSize, ...]:
    clients = request.job.processes
    if not request.users:
        return tuple(kv_option_size(option, clients=clients) for option in models().kv_cache.options)
    told = request.job.overrides
    return (
        kv_size(
            request.job.model,
            users=request.users,
            clients=clients,
            gpu_memory_gb=_gigabytes(told, "gpu_mem_gb"),
            cpu_memory_gb=_gigabytes(told, "cpu_mem_gb"),
        ),
    )


def _gigabytes(told: Mapping[str, Any], name: str) -> float:
    try:
        value = float(told.get(name, 0))
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= _TIER_GB_MAX:
        raise UsageError(f"{name} is no memory", expected=f"0 to {_TIER_GB_MAX} GB", got=str(told[name]))
    return value


def _completed(job: JobFacts, sizes: tuple[Size, ...], needs: tuple[Need, ...], around: Surroundings) -> JobFacts:
    """Return the job with what was found out; what the asker knew stands."""
    space = next((need for need in needs if need.name == "space"), None)
    inodes = next((need for need in needs if need.name == "inodes"), None)
    found: dict[str, Any] = {
        "needed_bytes": space.needed if space is not None else None,
        "needed_files": round(inodes.needed) if inodes is not None else None,
        "free_bytes": around.free_bytes,
        "free_files": around.free_files,
        "apart": around.apart,
        "memory_bytes_per_host": around.memory_bytes,
    }
    size = sizes[0]
    if isinstance(size, TrainingSize):
        found["files"] = size.files
    unknown = {name: value for name, value in found.items() if getattr(job, name) is None}
    return msgspec.structs.replace(job, **unknown)
