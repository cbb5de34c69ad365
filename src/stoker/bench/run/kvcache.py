"""`run kvcache`: from settings to the plan of a run that serves a KV cache."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.sizing_serving import kv_models, personas
from stoker.bench.run.checkpoint import NO_DATASET
from stoker.bench.run.doctor import require_target
from stoker.bench.run.hosts.discover import discover
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.plan import Settings
from stoker.bench.run.target import LOCAL_SCHEMES, synced_url
from stoker.bench.workloads.kvcache import require_memory
from stoker.core.errors import PreflightError, UnknownNameError, UsageError
from stoker.core.files import redact_url
from stoker.core.kvcache import BLOCK_LAYOUT, DTYPE_BYTES, SAMPLES_MAX, KvModel, KvPlan
from stoker.core.plan import Spread, TrainingPlan
from stoker.core.registry import nearest
from stoker.core.units import GiB
from stoker.kv.traffic.traces import open_trace
from stoker.storage.url import parse_url

TOKEN_SECONDS: Final = {"none": 0.0, "fast": 0.002, "realistic": 0.03}
EFFECTIVE_FLOPS: Final = 400e12
"""Operations a second that an accelerator is taken to reach, where nobody told how many tokens it computes."""
ALL_SAMPLES_MAX: Final = 100_000
NO_GPU: Final = "The tier in GPU memory is left out ({gb:g} GB asked for): entries go to the tiers below it at once."
_SYSTEM: Final = (
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)
_PREFERRED_PERSONAS: Final = ("chatbot", "coding", "document")


def kv_model_of(settings: Settings) -> tuple[str, KvModel]:
    """Return the model that `--model` names. Raises UsageError without one, UnknownNameError for an unknown one."""
    known, name = kv_models(), settings["model"].value
    if not name:
        raise UsageError("--model is missing", remedy="known: " + ", ".join(known))
    if name not in known:
        close = nearest(name, list(known))
        hint = f"did you mean {close!r}? " if close else ""
        raise UnknownNameError("no model of the KV cache", where=name, remedy=hint + "known: " + ", ".join(known))
    return name, known[name]


def kv_ranks_of(settings: Settings) -> int:
    """Return the clients asked for: by `--ranks`, by the slots of `--hosts`, by who started us as ranks, else one."""
    if settings["ranks"].value is not None:
        return int(settings["ranks"].value)
    hosts = settings["hosts"].value
    if hosts:
        return max(1, sum(host.slots or 1 for host in parse_hosts(hosts)))
    asked = settings["launcher"].value
    placed = discover() if asked in ("auto", "tcp") else None
    if placed is not None:
        return placed.ranks
    launcher, found = choose_launcher(asked)
    return found.size if launcher == "mpi" and found is not None and found.size else 1


def plan_kvcache(settings: Settings, target: str) -> TrainingPlan:
    """Return the plan of a run that serves a KV cache at `target`, which is not touched.

    Raises UsageError for what cannot be done or would have no effect, and what a trace's file is refused for.
    """
    name, model = kv_model_of(settings)
    refuse_system_folder(target)
    what = _asked(settings, model)
    _check(settings, what)
    if what.source != "personas":
        open_trace(what)
    told = settings["sample_hosts"].value
    plan = TrainingPlan(
        model=name,
        accelerator="",
        dataset=NO_DATASET,
        ranks=kv_ranks_of(settings),
        batch_size=0,
        computation=Spread(),
        target_url=redact_url(target),
        epochs=0,
        launcher=settings["launcher"].value,
        host_interval_seconds=settings["host_interval"].value,
        host_samples_max=settings["host_samples"].value,
        rank_deadline_seconds=settings["rank_deadline"].value,
        sample_hosts=tuple(host.name for host in parse_hosts(told)) if told else (),
        kvcache=what,
        deviations=tuple(_deviations(settings, what)),
    )
    return msgspec.structs.replace(plan, predicted=_predicted(plan, what))


def _asked(settings: Settings, model: KvModel) -> KvPlan:
    value = {name: setting.value for name, setting in settings.items()}
    drawn = personas()
    given_rate = value["prefill_rate"]
    flops = EFFECTIVE_FLOPS * value["num_gpus"]
    derived = flops / (2 * model.active_parameters) if model.active_parameters else 0.0
    source, path = _source(value)
    return KvPlan(
        model=model,
        personas={name: drawn[name] for name in _PREFERRED_PERSONAS if name in drawn},
        users=value["num_users"],
        duration_seconds=value["duration"],
        trials=value["trials"],
        pause_seconds=value["pause"],
        layout=value["layout"],
        page_tokens=value["page_tokens"],
        dtype=value["dtype"],
        cpu_bytes=round(value["cpu_mem_gb"] * GiB),
        storage_bytes=round(value["storage_capacity_gb"] * GiB),
        tensor_parallel=value["tensor_parallel"],
        generation=value["generation_mode"],
        token_seconds=TOKEN_SECONDS[value["generation_mode"]],
        profile=value["performance_profile"],
        mode="prefill" if value["prefill_only"] else "decode" if value["decode_only"] else "mixed",
        multi_turn=not value["disable_multi_turn"],
        prefix_caching=not value["disable_prefix_caching"],
        rag_documents=value["rag_num_docs"] if value["enable_rag"] else 0,
        allocations_max=value["max_concurrent_allocs"],
        requests_max=value["max_requests"],
        request_rate=value["request_rate"],
        autoscaler=value["autoscaler_mode"] if value["enable_autoscaling"] else "",
        target_saturation=value["target_saturation"],
        source=source,
        source_path=path,
        conversations_max=value["max_conversations"],
        trace_speedup=value["trace_speedup"],
        replay_cycles=value["replay_cycles"],
        precondition_bytes=_precondition_bytes(value),
        precondition_threads=value["precondition_threads"] or 4,
        trace_path=str(Path(value["io_trace_log"]).absolute()) if value["io_trace_log"] else "",
        seed=value["seed"],
        verify_ratio=value["verify"],
        piece_bytes=value["piece_bytes"],
        fsync=value["fsync"],
        samples_max=ALL_SAMPLES_MAX if value["enable_latency_tracing"] else SAMPLES_MAX,
        prefill_tokens_per_second=given_rate or derived,
        prefill_required=bool(given_rate),
    )


def _source(value: dict[str, Any]) -> tuple[str, str]:
    """Return the kind of traffic and its file. Raises UsageError for several, or a path without its switch."""
    told = {
        "burst": value["burst_trace_path"] if value["use_burst_trace"] else None,
        "sharegpt": value["dataset_path"],
        "mooncake": value["mooncake_trace"],
    }
    if value["use_burst_trace"] and not value["burst_trace_path"]:
        raise UsageError("--use-burst-trace without a trace", remedy="name it with --burst-trace-path")
    if value["burst_trace_path"] and not value["use_burst_trace"]:
        raise UsageError("--burst-trace-path has no effect by itself", remedy="add --use-burst-trace")
    chosen = [(kind, str(Path(path).absolute())) for kind, path in told.items() if path]
    if len(chosen) > 1:
        raise UsageError("several sources of traffic", got=", ".join(kind for kind, _ in chosen), remedy="name one")
    return chosen[0] if chosen else ("personas", "")


def _precondition_bytes(value: dict[str, Any]) -> int:
    if not value["precondition"]:
        return 0
    if value["precondition_size_gb"]:
        return int(value["precondition_size_gb"] * GiB)
    if not value["storage_capacity_gb"]:
        remedy = "add --precondition-size-gb, or a --storage-capacity-gb of which twice is written"
        raise UsageError("--precondition without a size", remedy=remedy)
    return int(2 * value["storage_capacity_gb"] * GiB)


def _check(settings: Settings, what: KvPlan) -> None:
    """Raise UsageError for settings that contradict each other, or have no effect."""
    given = {name for name, setting in settings.items() if setting.origin not in ("default", "preset")}
    value = {name: setting.value for name, setting in settings.items()}
    if value["prefill_only"] and value["decode_only"]:
        raise UsageError("--prefill-only and --decode-only", remedy="give one: the first only writes, the second reads")
    needs = {
        "rag_num_docs": (value["enable_rag"], "--enable-rag"),
        "autoscaler_mode": (value["enable_autoscaling"], "--enable-autoscaling"),
        "target_saturation": (value["enable_autoscaling"] and what.autoscaler == "qos", "--autoscaler-mode qos"),
        "max_conversations": (what.source == "sharegpt", "--dataset-path"),
        "request_rate": (what.source == "sharegpt", "--dataset-path"),
        "trace_speedup": (what.source in ("burst", "mooncake"), "a trace with times"),
        "replay_cycles": (what.source != "personas", "a trace"),
        "precondition_size_gb": (value["precondition"], "--precondition"),
        "page_tokens": (what.layout == BLOCK_LAYOUT, "--layout block"),
        "pause": (what.trials > 1, "--trials of 2 or more"),
    }
    for name, (has_effect, needed) in needs.items():
        if name in given and not has_effect:
            raise UsageError(f"--{name.replace('_', '-')} has no effect by itself", remedy=f"it needs {needed}")
    if (what.source == "mooncake") != (what.layout == BLOCK_LAYOUT) and what.source != "personas":
        raise UsageError("this trace does not go with this layout", expected="mooncake with --layout block, others not")
    if what.autoscaler and what.source != "personas":
        raise UsageError("--enable-autoscaling with recorded traffic", remedy="a trace says by itself who comes when")
    if what.layout == BLOCK_LAYOUT and what.mode == "decode":
        raise UsageError("--decode-only with --layout block", remedy="pages are read once, for the prefill")
    _check_sizes(what)


def _check_sizes(what: KvPlan) -> None:
    if what.piece_bytes % 4096:
        raise UsageError("--piece-bytes", expected="a multiple of 4 KiB", got=str(what.piece_bytes))
    whole = what.model.bytes_per_token(DTYPE_BYTES[what.dtype])
    if whole % what.tensor_parallel:
        expected = f"a divisor of the {whole:,} bytes of a token"
        raise UsageError("--tensor-parallel", expected=expected, got=str(what.tensor_parallel))


def _deviations(settings: Settings, what: KvPlan) -> Iterator[str]:
    asked = settings["gpu_mem_gb"].value * settings["num_gpus"].value
    if asked:
        yield NO_GPU.format(gb=asked)
    if what.fsync == "none":
        yield "Nothing is synced (fsync none); the rules sync each entry."


def _predicted(plan: TrainingPlan, what: KvPlan) -> dict[str, float]:
    entry = what.token_bytes * _mean_context(what)
    seconds = what.trials * what.duration_seconds + (what.trials - 1) * what.pause_seconds
    figures = {
        "token_bytes": what.token_bytes,
        "entry_bytes_mean": entry,
        "entry_bytes_max": what.token_bytes * max(each.context[1] for each in what.personas.values()),
        "users": what.users * plan.ranks,
        "memory_bytes": what.cpu_bytes * plan.ranks,
        "seconds": seconds,
        "break_even_bytes_per_second": what.break_even_bytes_per_second,
    }
    return {name: float(value) for name, value in figures.items()}


def _mean_context(what: KvPlan) -> float:
    """Return the expected tokens of a request's context: a user's most, of which a request takes a quarter to all."""
    means = [sum(each.context) / 2 * 0.625 for each in what.personas.values()]
    return sum(means) / len(means)


def refuse_system_folder(target: str) -> None:
    """Raise UsageError for a folder of the system itself."""
    parsed = parse_url(target)
    if parsed.scheme in LOCAL_SCHEMES and str(Path(parsed.path).resolve()) in _SYSTEM:
        raise UsageError("a folder of the system takes no cache", where=parsed.path, remedy="name one of your own")


def kv_url(target: str) -> str:
    """Return the URL that ranks open: where entries can be synced after they were put, puts do not sync by themselves.

    Raises UsageError for fsync told twice.
    """
    parsed = parse_url(target)
    if parsed.scheme not in LOCAL_SCHEMES:
        return target
    if "fsync" in parsed.query:
        raise UsageError("fsync is told by --fsync here", where=parsed.redacted, remedy="leave ?fsync= out")
    return synced_url(target, "none")


def require_kv_target(target: str) -> None:
    """Try what a run will do at its target; `null://` keeps nothing and is the ceiling that results are held against.

    Raises as `require_target` does.
    """
    if parse_url(target).scheme not in ("null", "mem"):
        require_target(target, write=True, create=True)


def require_kv_memory(plan: TrainingPlan) -> None:
    """Raise PreflightError where the memory tiers of local ranks do not fit; ranks elsewhere look for themselves."""
    assert plan.kvcache is not None
    if discover() is not None or choose_launcher(plan.launcher)[0] != "local":
        return
    require_memory(plan.kvcache, plan.ranks)


def check_kv(plan: TrainingPlan) -> None:
    """Raise UsageError for a plan that no run can follow."""
    what = plan.kvcache
    assert what is not None
    checks = {
        "ranks": plan.ranks >= 1,
        "users": what.users >= 1,
        "duration_seconds": what.duration_seconds > 0,
        "trials": what.trials >= 1,
        "piece_bytes": what.piece_bytes >= 4096 and what.piece_bytes % 4096 == 0,
    }
    for name, good in checks.items():
        if not good:
            raise UsageError(
                "plan cannot be run", where=name, expected="more", got=str(getattr(what, name, plan.ranks))
            )


def require_trace_place(what: KvPlan) -> None:
    """Raise PreflightError where the log of reads and writes cannot be made."""
    folder = Path(what.trace_path).parent
    if what.trace_path and not folder.is_dir():
        raise PreflightError("no folder for the log of reads and writes", where=str(folder), remedy="make it first")
