"""A command as the facts that the rules are held against before it runs. Pure."""

import os

import msgspec

from stoker.bench.rules.mlperf.formulas import bytes_of_gib
from stoker.bench.rules.mlperf.tables import overrides
from stoker.bench.rules.mlperf.verifier import JobFacts, JobVerdict, judge_job
from stoker.bench.run.mlperf.lookup import accelerators
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.rows import KVCACHE, VECTORDB
from stoker.bench.run.mlperf.storing import DataPlace


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out for this: the files the command takes, those sized and generated, memory of all hosts."""

    files: int | None = None
    files_sized: int | None = None
    files_made: int | None = None
    measured_memory_bytes: float | None = None
    data: DataPlace | None = None
    results_dir: str = ""


def foretell(invocation: Invocation, known: Known) -> JobVerdict:
    """Return what the rules say of a command before it runs."""
    return judge_job(job_of(invocation, known))


def job_of(invocation: Invocation, known: Known) -> JobFacts:
    """Return the command as the rules see it."""
    place = invocation.place
    memory = invocation.value("client_host_memory_in_gb")
    counts = {name: invocation.value(f"num_checkpoints_{name}") for name in ("write", "read")}
    return JobFacts(
        family=place.rules_family,
        model=place.model,
        division=place.division,
        command=place.command,
        accelerator=str(invocation.value("accelerator_type") or _any_accelerator(invocation)),
        processes=invocation.ranks or 1,
        hosts=invocation.host_count,
        slots=tuple(host.slots for host in invocation.hosts if host.slots),
        overrides=_overrides(invocation),
        memory_bytes_per_host=bytes_of_gib(memory) if memory is not None else None,
        measured_memory_bytes=known.measured_memory_bytes,
        files=known.files,
        files_sized=known.files_sized,
        files_made=known.files_made,
        subset=bool(invocation.value("checkpoint_subset")),
        writes=10 if counts["write"] is None else counts["write"],
        reads=10 if counts["read"] is None else counts["read"],
        engine=str(invocation.value("vdb_engine") or "milvus"),
        data=_real(known.data),
        results=os.path.realpath(known.results_dir) if known.results_dir else "",
    )


def _any_accelerator(invocation: Invocation) -> str:
    """Return an accelerator for a command that has no option for one: the dataset is the same for all."""
    place = invocation.place
    return next(iter(accelerators(place.division, place.family, place.model)), "")


def _real(data: DataPlace | None) -> str:
    if data is None:
        return ""
    return os.path.realpath(data.folder) if data.folder else data.url


def _overrides(invocation: Invocation) -> dict[str, object]:
    """Return what was changed: dotted keys, for the KV cache the engine's options, for vectors the index."""
    family = invocation.place.family
    if family == KVCACHE:
        loose = [each.key for each in overrides().kv_cache.open]
        return {name: invocation.value(name) for name in loose if invocation.given(name)}
    found: dict[str, object] = dict(invocation.overrides)
    if family == VECTORDB:
        found["index.index_type"] = invocation.place.model
    if invocation.value("o_direct"):
        found["reader.odirect"] = "True"
    return found
