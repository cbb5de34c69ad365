"""`run checkpointing`: from settings to the plan of a run that saves and loads the checkpoints of a model."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.tables import CheckpointModel, models
from stoker.bench.run.doctor import require_target
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.plan import Settings
from stoker.bench.run.target import LOCAL_SCHEMES, UNKNOWN_SPACE_BYTES, free_space_bytes, opened, synced_url
from stoker.checkpoint.layout import check_shape, checkpoint_id, totals
from stoker.checkpoint.manifest import folder_of, list_checkpoints, load_manifest, remove, require_same
from stoker.checkpoint.write import Staging
from stoker.core import clock, seed
from stoker.core.checkpoints import CheckpointPlan, ModelShape
from stoker.core.errors import NotFoundError, PreflightError, UnknownNameError, UsageError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.core.registry import nearest
from stoker.core.units import format_bytes, format_seconds
from stoker.storage.url import parse_url

COUNT: Final = 10
INTERVAL_SECONDS: Final = 5.0
NO_DATASET: Final = DatasetSpec("none", files=0)
_SYNCED: Final = "full"


def model_of(settings: Settings) -> tuple[str, CheckpointModel]:
    """Return the model that `--model` names. Raises UsageError without one, UnknownNameError for an unknown one."""
    known, name = models().checkpointing, settings["model"].value
    if not name:
        raise UsageError("--model is missing", remedy="known: " + ", ".join(known))
    if name not in known:
        close = nearest(name, list(known))
        hint = f"did you mean {close!r}? " if close else ""
        raise UnknownNameError("no checkpointing model", where=name, remedy=hint + "known: " + ", ".join(known))
    return name, known[name]


def ranks_of(settings: Settings) -> int:
    """Return the ranks asked for: by `--ranks`, by the slots of `--hosts`, else the model's own number."""
    if settings["ranks"].value is not None:
        return int(settings["ranks"].value)
    hosts = settings.get("hosts")
    if hosts is not None and hosts.value:
        return max(1, sum(host.slots for host in parse_hosts(hosts.value)))
    return model_of(settings)[1].processes


def shape_of(model: CheckpointModel) -> ModelShape:
    """Return the shape of a model of the rules."""
    return ModelShape(
        layers=model.layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        attention_heads=model.attention_heads,
        kv_heads=model.kv_heads,
        vocab_size=model.vocab_size,
        tensor=model.tensor,
        pipeline=model.pipeline,
        zero_stage=model.zero_stage,
    )


def store_place(url: str, what: CheckpointPlan) -> str:
    """Return the URL that ranks open for the checkpoints of a plan that tells what is durable."""
    return synced_url(url, what.fsync) if parse_url(url).scheme in LOCAL_SCHEMES else url


def checkpoints_alone(plan: TrainingPlan, notes: Sequence[str]) -> TrainingPlan:
    """Return the plan of the checkpoints of `plan` without its training, and with these notes alone."""
    assert plan.checkpoint is not None
    plan = msgspec.structs.replace(
        plan,
        notes=tuple(notes),
        dataset=NO_DATASET,
        evaluation=None,
        batch_size=0,
        epochs=0,
        target_url=plan.checkpoint.target_url,
        computation=Spread(),
    )
    return predicted(plan)


def _fsync_of(target: str | None, asked: str | None) -> str:
    if asked is not None or target is None:
        return asked or _SYNCED
    return parse_url(target).query.get("fsync", _SYNCED)


def plan_checkpointing(settings: Settings, target: str | None) -> TrainingPlan:
    """Return the plan of a run of checkpoints at `target`, which is only looked at.

    Raises UsageError for what cannot be done, PreflightError when there is nothing whole to read.
    """
    name, model = model_of(settings)
    ranks = ranks_of(settings)
    what = _checkpoints(settings, target, name, model)
    check_shape(what.shape, ranks)
    plan = TrainingPlan(
        model=name,
        accelerator=settings["accelerator"].value or "",
        dataset=NO_DATASET,
        ranks=ranks,
        batch_size=0,
        computation=Spread(),
        target_url=redact_url(target or ""),
        epochs=0,
        evict=settings["evict"].value,
        launcher=settings["launcher"].value,
        host_interval_seconds=settings["host_interval"].value,
        rank_deadline_seconds=settings["rank_deadline"].value,
        sample_hosts=_others(settings),
        checkpoint=what,
        deviations=tuple(_deviations(what, ranks, model)),
    )
    if target is not None:
        plan = seen_to_read(plan, target)
    return predicted(plan)


def _others(settings: Settings) -> tuple[str, ...]:
    told = settings["sample_hosts"].value
    return tuple(host.name for host in parse_hosts(told)) if told else ()


def _checkpoints(settings: Settings, target: str | None, name: str, model: CheckpointModel) -> CheckpointPlan:
    shape = msgspec.structs.replace(
        shape_of(model),
        layers=settings["layers"].value or model.layers,
        scale_ratio=settings["scale"].value,
        data=model.data if settings["subset"].value else 0,
    )
    given_seed = settings["seed"].value
    return CheckpointPlan(
        shape=shape,
        writes=settings["num_checkpoints_write"].value,
        reads=settings["num_checkpoints_read"].value,
        interval_seconds=settings["interval"].value,
        folder=name,
        fsync=_fsync_of(target, settings["fsync"].value),
        buffers=settings["write_buffers"].value,
        buffer_bytes=settings["buffer_bytes"].value,
        writers=settings["writers"].value,
        depth=settings["read_depth"].value,
        verify_ratio=settings["verify"].value,
        keep=settings["keep"].value,
        clean=settings["clean"].value,
        rank_sync=settings["rank_sync"].value,
        subset=settings["subset"].value,
        content_seed=seed.fresh() if given_seed is None else given_seed,
    )


def _deviations(what: CheckpointPlan, ranks: int, model: CheckpointModel) -> Iterator[str]:
    """Yield where the plan departs from the model it is named after: no reader may take the one for the other."""
    own = shape_of(model)
    if what.shape.scale_ratio != 1 or what.shape.layers != model.layers:
        size, whole = totals(what.shape, ranks).size_bytes, totals(own, model.processes).size_bytes
        ratio, layers = what.shape.scale_ratio, what.shape.layers
        how = [f"every tensor is cut to {ratio:.4g} of its length"] if ratio != 1 else []
        how += [f"it has {layers} layers of {model.layers}"] if layers != model.layers else []
        told = f"{format_bytes(size)}; the model's is {format_bytes(whole)}"
        yield f"The model is scaled down ({', '.join(how)}): a checkpoint is {told}."
    if what.subset:
        allowed = model.subset_ranks == ranks
        rule = "" if allowed else "; the rules allow a subset of llama3-8b with 8 ranks alone"
        yield f"Only a subset of {ranks} of {model.processes} ranks is written{rule}."
    elif ranks != model.processes:
        yield f"The model is spread over {ranks} ranks; the rules have {model.processes}."
    counts = {what.writes, what.reads} - ({0} if 0 in (what.writes, what.reads) else set())
    if counts != {COUNT}:
        yield f"{what.writes} checkpoints are written and {what.reads} read; the rules have {COUNT} each."
    if what.interval_seconds != INTERVAL_SECONDS:
        pause = format_seconds(what.interval_seconds)
        yield f"The pause before each is {pause}; the rules have {INTERVAL_SECONDS:g} s."
    if what.fsync == "none":
        yield "Nothing is synced (fsync none); the rules ask for an fsync of each file."
    if what.keep and what.keep < what.writes and what.reads:
        yield f"Only the last {what.keep} checkpoints are kept, so the same ones are read again."


def seen_to_read(plan: TrainingPlan, target: str) -> TrainingPlan:
    """Return the plan of a run that only reads with what lies there: how many, and since when; any other as it is.

    Raises PreflightError when there is nothing whole to read.
    """
    what = plan.checkpoint
    if what is None or what.writes or not what.reads:
        return plan
    try:
        with opened(target) as store:
            if store.url.startswith("null://"):
                return plan
            place = f"{store.url} {what.folder}"
            whole = [name for name, is_whole in list_checkpoints(store, what.folder) if is_whole]
            manifests = [load_manifest(store, what.folder, name) for name in whole]
    except NotFoundError as error:
        raise PreflightError("no checkpoint to read", where=redact_url(target), got=error.what) from error
    if not whole:
        raise PreflightError(
            "no checkpoint to read",
            where=place,
            expected="whole ones",
            remedy="write them first, in a run with 0 reads",
        )
    for manifest in manifests[: what.reads]:
        require_same(manifest, what.shape, plan.ranks, where=f"{place} {manifest.id}")
    told = list(plan.deviations)
    if len(whole) < what.reads:
        told.append(f"Only {len(whole)} checkpoints lie there for {what.reads} reads, so some are read again.")
    gap = clock.wall_seconds() - max(datetime.fromisoformat(each.committed_utc).timestamp() for each in manifests)
    what = msgspec.structs.replace(what, hand_over_seconds=gap)
    return msgspec.structs.replace(plan, checkpoint=what, deviations=tuple(told))


def predicted(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan with what it will take: bytes, files, memory of each rank, and the least seconds."""
    what = plan.checkpoint
    assert what is not None
    sums = totals(what.shape, plan.ranks)
    staging = Staging(what.buffers, what.buffer_bytes, what.writers)
    kept = min(what.writes, what.keep + 1 if what.keep else what.writes)
    figures = {
        "checkpoint_bytes": sums.size_bytes,
        "model_bytes": sums.model_bytes,
        "optimizer_bytes": sums.optimizer_bytes,
        "files": sums.files,
        "rank_bytes_max": sums.rank_bytes_max,
        "rank_memory_bytes": _memory(what, staging),
        "written_bytes": sums.size_bytes * what.writes,
        "read_bytes": sums.size_bytes * what.reads,
        "room_bytes": sums.size_bytes * kept,
        "pause_seconds": what.interval_seconds * (what.writes + what.reads),
    }
    return msgspec.structs.replace(plan, predicted={name: float(value) for name, value in figures.items()})


def _memory(what: CheckpointPlan, staging: Staging) -> int:
    """Return the most memory of a rank's buffers: those of writing, and those of reading beside them."""
    reading = what.depth * (2 if what.verify_ratio > 0 else 1) * what.buffer_bytes if what.reads else 0
    return (staging.memory_bytes if what.writes else 0) + reading


def require_checkpoint_target(target: str, *, write: bool) -> None:
    """Try what a run will do at its target; `null://` keeps nothing and is the ceiling that results are held against.

    Raises as `require_target` does.
    """
    if parse_url(target).scheme != "null":
        require_target(target, write=write, create=write)


def require_room(plan: TrainingPlan, target: str) -> None:
    """Raise PreflightError unless what will be kept at a time fits (CAP-01); object stores tell no free space."""
    what = plan.checkpoint
    assert what is not None
    needed = plan.predicted["room_bytes"]
    if not needed or parse_url(target).scheme == "null":
        return
    free = free_space_bytes(target)
    if free >= UNKNOWN_SPACE_BYTES:
        return
    free += _replaced_bytes(what, target)
    if free < needed:
        one = plan.predicted["checkpoint_bytes"]
        raise PreflightError(
            "too little space for the checkpoints",
            where=redact_url(target),
            expected=f"{format_bytes(needed)} ({needed / max(one, 1):.0f} checkpoints of {format_bytes(one)})",
            got=f"{format_bytes(free)}, {format_bytes(needed - free)} too little",
            remedy="free space, or keep fewer of them (--keep)",
        )


def _replaced_bytes(what: CheckpointPlan, target: str) -> int:
    """Return the bytes of the checkpoints there that this run writes anew."""
    names = [checkpoint_id(number) for number in range(1, what.writes + 1)]
    with opened(target) as store:
        ours = {name for name, _ in list_checkpoints(store, what.folder)}
        places = [folder_of(what.folder, name) for name in names if name in ours]
        return sum(info.size_bytes for place in places for info in store.list(f"{place}/"))


def remove_all(target: str, folder: str) -> tuple[int, int]:
    """Remove all checkpoints of ours below the folder; return how many that were, and their files."""
    with opened(target) as store:
        names = [name for name, _ in list_checkpoints(store, folder)]
        return len(names), sum(remove(store, folder, name) for name in names)
