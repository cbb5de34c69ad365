"""`stoker plan`, and the table that every `--dry-run` prints."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import click

from stoker.bench.rules.mlperf.verifier import BROKEN, HOLDS, LATER, WARNED, RuleForetold
from stoker.bench.run.doctor import require_target
from stoker.bench.run.foresee import Foresight, family_of
from stoker.bench.run.foresee_settings import foresee_settings
from stoker.bench.run.options import PLAN
from stoker.bench.run.train import plan_training
from stoker.cli.rows import settings_from, with_rows
from stoker.cli.screen import emit_json, emit_pairs
from stoker.core.checkpoints import CheckpointPlan
from stoker.core.errors import EXIT_GOOD, EXIT_INVALID
from stoker.core.kvcache import KvPlan
from stoker.core.plan import TrainingPlan
from stoker.core.units import GiB, format_bytes, format_rate, format_seconds
from stoker.core.vectors import QUERY_COUNT, VectorPlan

T = TypeVar("T")


def plan_lines(plan: TrainingPlan) -> dict[str, str]:
    """Return what the plan decided, as lines for people."""
    if plan.kvcache is not None:
        return cache_lines(plan, plan.kvcache)
    if plan.checkpoint is not None and not plan.trains:
        return checkpoint_lines(plan, plan.checkpoint)
    if plan.vectors is not None:
        return vector_lines(plan, plan.vectors)
    data, figures = plan.dataset, plan.predicted
    lines = {
        "model": f"{plan.model} on {plan.ranks} x {plan.accelerator or 'accelerator'}",
        "dataset": f"{data.files} {data.format} files, {data.samples} samples, "
        + format_bytes(figures["dataset_bytes"]),
        "steps": f"{figures['steps_per_epoch']:.0f} an epoch, batch {plan.batch_size} a rank"
        + (f", {figures['dropped_samples']:.0f} samples dropped" if figures["dropped_samples"] else ""),
        "epochs": str(plan.epochs) if plan.epochs else f"until {format_seconds(plan.duration_seconds)} have passed",
        "compute": f"{format_seconds(plan.computation.mean_seconds())} a step",
        "threshold": f"AU {100 * plan.au_threshold_ratio:.0f} %",
        "order": f"{plan.order}, seed {plan.seed}",
        "loader": f"{_readers(plan)}, {plan.decode_threads} decoders, {plan.prefetch_batches} batches ahead",
        "requests": _requests(plan),
    }
    if "demand_bytes_per_second" in figures:
        lines["demand"] = f"{format_rate(figures['demand_bytes_per_second'])} at full speed"
    return lines


def checkpoint_lines(plan: TrainingPlan, what: CheckpointPlan) -> dict[str, str]:
    """Return what the plan of a run of checkpoints decided, as lines for people."""
    figures, shape = plan.predicted, what.shape
    moved = figures["written_bytes"] + figures["read_bytes"]
    parts = f"model {format_bytes(figures['model_bytes'])}, optimizer {format_bytes(figures['optimizer_bytes'])}"
    size = f"{format_bytes(figures['checkpoint_bytes'])} in {figures['files']:.0f} files"
    kept = f"the last {what.keep}" if what.keep else "all"
    room = f", room for {format_bytes(figures['room_bytes'])}" if what.writes else ""
    memory = figures["rank_memory_bytes"]
    return {
        "model": f"{plan.model} on {plan.ranks} ranks: tensor {shape.tensor} x pipeline {shape.pipeline} x data "
        f"{shape.replicas(plan.ranks)}, ZeRO {shape.zero_stage}",
        "checkpoint": f"{size}: {parts}; at most {format_bytes(figures['rank_bytes_max'])} a rank",
        "writes": f"{what.writes}, {format_bytes(figures['written_bytes'])}, fsync {what.fsync}",
        "reads": f"{what.reads}, {format_bytes(figures['read_bytes'])}, {100 * what.verify_ratio:.3g} % verified",
        "kept": f"{kept}{'; removed at the end' if what.clean else ''}{room}",
        "memory": f"{format_bytes(memory)} a rank for buffers, {format_bytes(memory * plan.ranks)} for all",
        "time": f"{format_seconds(figures['pause_seconds'])} of pauses, and {format_seconds(moved / GiB)} at 1 GiB/s",
    }


def vector_lines(plan: TrainingPlan, what: VectorPlan) -> dict[str, str]:
    """Return what the plan of a run on a collection of vectors decided, as lines for people."""
    recipe, index = what.recipe, what.index
    parameters = "".join(f", {name} {value}" for name, value in index.parameters.items())
    ends = f"{what.queries} queries" if what.mode == QUERY_COUNT else format_seconds(what.seconds)
    needed = f", {100 * what.recall_target:.4g} % needed" if what.recall_target else ""
    return {
        "database": plan.target_url,
        "collection": what.collection,
        "vectors": f"{recipe.vectors} of {recipe.dimension} numbers, {format_bytes(plan.predicted['vector_bytes'])}, "
        f"{recipe.distribution}, seed {recipe.seed}",
        "index": f"{index.kind}, {index.metric}{parameters}",
        "processes": f"{plan.ranks}, {what.batch} {'query' if what.batch == 1 else 'queries'} a request",
        "queries": f"{what.queries_made} different ones, the {what.k} nearest, {what.effort} candidates",
        "until": ends,
        "recall": f"of the {what.recall_k} nearest{needed}",
    }


def cache_lines(plan: TrainingPlan, what: KvPlan) -> dict[str, str]:
    """Return what the plan of a run of a KV cache decided, as lines for people."""
    figures = plan.predicted
    entry = (
        f"{format_bytes(figures['entry_bytes_mean'])} on average, at most {format_bytes(figures['entry_bytes_max'])}"
    )
    room = format_bytes(what.storage_bytes) if what.storage_bytes else "95 % of what is free, shared by the clients"
    need = figures["break_even_bytes_per_second"]
    lines = {
        "model": f"{plan.model}, {what.token_bytes:,} bytes a token",
        "clients": f"{plan.ranks}, each with {what.users:,} users",
        "entries": f"{entry} ({what.layout})",
        "tiers": f"memory {format_bytes(what.cpu_bytes)} a client, storage {room}",
        "traffic": f"{what.source}, {what.mode}, seed {what.seed} and the client's number",
        "time": f"{what.trials} x {format_seconds(what.duration_seconds)}, {format_seconds(figures['seconds'])} in all",
    }
    if need:
        told = f"{what.prefill_tokens_per_second:,.0f} tokens/s computed anew are worth {format_rate(need)}"
        lines["break-even"] = told + ("" if what.prefill_required else " (taken, not told)")
    return lines


def _readers(plan: TrainingPlan) -> str:
    return f"{plan.read_threads} readers" if plan.read_threads else "readers chosen while it runs"


def _requests(plan: TrainingPlan) -> str:
    """Return what is pinned of the requests to the store, and what will be chosen."""
    pinned = [f"depth {plan.queue_depth}"] if plan.queue_depth else []
    pinned += [f"size {format_bytes(plan.request_bytes)}"] if plan.request_bytes else []
    chosen = [name for name, value in (("depth", plan.queue_depth), ("size", plan.request_bytes)) if not value]
    told = [" and ".join(chosen) + " chosen while it runs"] if chosen else []
    return ", ".join((*pinned, *told))


def show_plan(plan: TrainingPlan, more: dict[str, str], *, document: Any, as_json: bool) -> int:
    """Print a plan as a table, or `document` as JSON."""
    if as_json:
        emit_json(document)
        return EXIT_GOOD
    told = enumerate((*plan.deviations, *plan.notes), 1)
    notes = {f"note{'' if number == 1 else f' {number}'}": note for number, note in told}
    emit_pairs({**plan_lines(plan), **more, **notes})
    return EXIT_GOOD


def foresight_lines(foresight: Foresight) -> dict[str, str]:
    """Return what was foreseen, as lines for people: sizes, needs, and the verdict where a division was named."""
    sizes = _numbered(foresight.sizes)
    lines = {"size" + (f" {number}" if number > 1 else ""): size.sentence for number, size in sizes}
    lines |= {need.name: need.line for need in foresight.needs}
    lines |= {f"advice {number}": note for number, note in _numbered(foresight.notes)}
    verdict = foresight.verdict
    if foresight.division:
        lines["verdict"] = f"{verdict.label} (edition {foresight.edition})"
        for number, issue in _numbered(verdict.issues):
            lines[f"{issue.severity} {number}"] = f"{issue.sentence} -> {issue.validation}"
        lines["rules that hold"] = _ids([*verdict.of(HOLDS), *verdict.of(WARNED)])
        lines["rules broken"] = _ids(verdict.of(BROKEN))
        lines["told only later"] = _ids(verdict.of(LATER))
    return lines


def _numbered(items: Sequence[T]) -> Iterator[tuple[int, T]]:
    return enumerate(items, 1)


def _ids(rules: Sequence[RuleForetold]) -> str:
    return f"{len(rules)}" + (f": {', '.join(rule.rule for rule in rules)}" if rules else "")


@click.command("plan")
@click.argument("target", required=False)
@with_rows(PLAN)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(target: str | None, config: str | None, as_json: bool, **given: Any) -> int:
    """Show what a run would do and take, without writing anything, and with --division what the rules will say of it.

    --model names a training model, a checkpointing model (llama3-8b), an index (DISKANN) or a cached model
    (llama3.1-8b). With TARGET a training run over the dataset that lies there is planned, without it the one that a
    rules-compliant run needs; of the others TARGET is where they will write. Exit code 4 when the division would
    refuse the run.
    """
    settings = settings_from(PLAN, given, config)
    training = family_of(str(settings["model"].value)) == "training"
    plan = None
    if training:
        if target is not None:
            require_target(target, write=False)
        plan = plan_training(settings, target)
    foresight = foresee_settings(settings, target, plan)
    document = plan if plan is not None and not foresight.division else {"plan": plan, "foresight": foresight}
    refused = foresight.division in ("closed", "open") and foresight.verdict.refusal()
    if plan is not None:
        show_plan(plan, foresight_lines(foresight), document=document, as_json=as_json)
    elif as_json:
        emit_json(document)
    else:
        emit_pairs({"model": f"{foresight.model} ({foresight.family})", **foresight_lines(foresight)})
    return EXIT_INVALID if refused else EXIT_GOOD
