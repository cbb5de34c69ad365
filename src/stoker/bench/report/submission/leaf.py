"""The files of one invocation's folder that are the tool's own: the engine has written its files there already."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.report.host_files import CLUSTER_FILE, system_info, write_cluster_info, write_timeseries
from stoker.bench.report.submission.provenance import provenance, resolved
from stoker.bench.rules.mlperf.formulas import CORE_KEYS, comparability_class, core_hash
from stoker.bench.rules.mlperf.provenance_checks import POINTER, PROVENANCE
from stoker.core.errors import CorruptError, StokerError
from stoker.core.files import REDACTED, is_secret_name, redact_arguments, redact_url, write_atomic
from stoker.core.host_series import load_hosts
from stoker.core.result import RESULT_BYTES_MAX, RESULT_FILE

EDITION: Final = "3.0"
BENCHMARKS: Final = {
    "training": "training",
    "checkpointing": "checkpointing",
    "vector_database": "vectordb",
    "kv_cache": "kvcache",
}
"""Family -> what the metadata call it."""
STAGING: Final = "collector-staging"
_DEPTH_MAX: Final = 16


class LeafFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An invocation as who ran it knows it. Secrets are hidden here; nobody has to do so before.

    family              training, checkpointing, vector_database or kv_cache
    command             datasize, datagen or run
    division            closed, open or whatif; `org`, `system`, `model`: as the folders are named
    stamp               YYYYMMDD_HHMMSS, as the leaf's folder is named
    args                effective arguments of the command line by name: hosts, num_accelerators …
    overrides           dotted key below `workload` -> value as text, as the user gave them
    config              the resolved workload: sections such as dataset and reader; empty: as dlio_config has it
    parameters          the nested keys that were computed: dataset.num_files_train …
    started_text        when the tool was started: ISO 8601, local time of the launching host, without a zone
    ranks               processes of the engine
    code_image          what `capture_image` returned, empty where none was captured
    extra               further keys of the metadata; they win over what is found out here
    """

    family: str
    command: str
    division: str
    org: str
    system: str
    model: str
    stamp: str
    accelerator: str = ""
    args: dict[str, Any] = {}
    overrides: dict[str, str] = {}
    config: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    executed_command: str = ""
    exit_status: int = 0
    runtime_seconds: float = 0.0
    started_text: str = ""
    ranks: int = 0
    code_image: str = ""
    extra: dict[str, Any] = {}


def write_leaf(leaf: Path, facts: LeafFacts, *, run_folder: Path | None) -> list[Path]:
    """Write the tool's own files into `leaf`, made when missing, and return their paths.

    `run_folder` is our own folder of the run: it gives the hosts, their time series, and whether the run was whole.
    None where nothing was run. Raises CorruptError for a run folder that holds no sound result.
    """
    _check(facts)
    leaf.mkdir(parents=True, exist_ok=True)
    result = _result_of(run_folder)
    config = resolved(leaf, facts.config)
    stamp = provenance(
        facts.family, config, code_image=facts.code_image, target_kind=result.evidence.target_kind if result else ""
    )
    paths = [
        _json(leaf / PROVENANCE, msgspec.to_builtins(stamp)),
        _json(leaf / f"{facts.family}_{facts.stamp}_metadata.json", metadata(leaf, facts, run_folder, config)),
    ]
    if facts.code_image:
        paths.append(_bytes(leaf / POINTER, f"{facts.code_image}\n".encode()))
    if run_folder is not None and load_hosts(run_folder) is not None:
        paths.append(write_timeseries(run_folder, leaf, facts.family, facts.stamp))
        paths.append(_cluster_info(leaf, facts.family, run_folder))
    return paths


def _cluster_info(leaf: Path, family: str, run_folder: Path) -> Path:
    if family == "kv_cache":
        return write_cluster_info(run_folder, leaf, f"{family}_{CLUSTER_FILE}")
    (leaf / STAGING).mkdir(exist_ok=True)
    return write_cluster_info(run_folder, leaf / STAGING)


def _check(facts: LeafFacts) -> None:
    if facts.family not in BENCHMARKS:
        raise StokerError("unknown family of a leaf", where=facts.family, expected=", ".join(BENCHMARKS))


class _Rank(msgspec.Struct):
    host: str = ""


class _Evidence(msgspec.Struct):
    target_kind: str = ""


class _Ended(msgspec.Struct):
    """What is needed of a run's result, of whatever workload it is."""

    id: str = ""
    status: str = "partial"
    reason: str = ""
    started_utc: str = ""
    machine: dict[str, Any] = {}
    ranks: list[_Rank] = []
    evidence: _Evidence = msgspec.field(default_factory=_Evidence)


def _result_of(run_folder: Path | None) -> _Ended | None:
    if run_folder is None or not (run_folder / RESULT_FILE).is_file():
        return None
    with (run_folder / RESULT_FILE).open("rb") as file:
        data = file.read(RESULT_BYTES_MAX + 1)
    try:
        if len(data) > RESULT_BYTES_MAX:
            raise CorruptError("result is too large", where=str(run_folder), expected="at most 1 GiB")
        return msgspec.json.decode(data, type=_Ended)
    except msgspec.DecodeError as error:
        raise CorruptError("not a result", where=str(run_folder / RESULT_FILE), got=str(error)) from error


def metadata(leaf: Path, facts: LeafFacts, run_folder: Path | None, config: dict[str, Any]) -> dict[str, Any]:
    """Return the document `<family>_<stamp>_metadata.json`. A run that was not whole is labelled `status` partial."""
    result = _result_of(run_folder)
    told = {
        "benchmark_type": BENCHMARKS[facts.family],
        "model": facts.model,
        "command": facts.command,
        "run_datetime": facts.stamp,
        "num_processes": facts.ranks,
        "accelerator": facts.accelerator,
        "result_dir": _place(leaf, facts),
        "parameters": facts.parameters,
        "override_parameters": facts.overrides,
        "args": {"mode": facts.division, **facts.args},
        "executed_command": _safe_command(facts.executed_command),
        "exit_status": facts.exit_status,
        "runtime": facts.runtime_seconds,
        "invocation_start_time": facts.started_text,
        "provenance_file": PROVENANCE,
        "system_info": _system_info(run_folder, result),
        "comparability_class": _class(facts, config),
        **_status(facts, run_folder, result),
        **facts.extra,
    }
    safe: dict[str, Any] = _without_secrets(told)
    return safe


def _place(leaf: Path, facts: LeafFacts) -> str:
    """Return the leaf's path below the results directory, its own name where it lies in none."""
    parts = leaf.resolve().parts
    for at in range(len(parts) - 3, -1, -1):
        if parts[at : at + 3] == (facts.division, facts.org, "results"):
            return "/".join(parts[at:])
    return leaf.name


def _class(facts: LeafFacts, config: dict[str, Any]) -> str:
    """Return the class of what may be compared with this, `unknown` where nothing tells it."""
    if facts.family not in CORE_KEYS or not config:
        return "unknown"
    return comparability_class(
        edition=EDITION,
        division=facts.division,
        family=facts.family,
        model=facts.model,
        accelerator=facts.accelerator,
        core=core_hash(facts.family, config),
    )


def _status(facts: LeafFacts, run_folder: Path | None, result: _Ended | None) -> dict[str, Any]:
    """Return how the run ended in words: an exit status does not say why."""
    if result is not None:
        return {"status": result.status, "status_reason": result.reason, "run_id": result.id}
    if run_folder is not None:
        return {"status": "partial", "status_reason": "the run left no result"}
    return {"status": "complete" if facts.exit_status == 0 else "failed", "status_reason": ""}


def _system_info(run_folder: Path | None, result: _Ended | None) -> dict[str, Any]:
    """Return the hosts as they were sampled; without samples the conductor's machine, and the names of the others."""
    loaded = load_hosts(run_folder) if run_folder is not None else None
    if loaded is not None:
        return system_info(loaded[0], loaded[1])
    if result is None or not result.machine:
        return {}
    names = list(dict.fromkeys(rank.host for rank in result.ranks if rank.host)) or [
        str(result.machine.get("host", ""))
    ]
    here = str(result.machine.get("host", ""))
    memory, cpus = int(result.machine.get("memory_bytes", 0)), int(result.machine.get("cpu_count", 0))
    known = {
        "memory": {"total": memory},
        "cpu": {"num_logical_cores": cpus, "model": result.machine.get("cpu_model", "")},
    }
    whole = set(names) <= {here}
    return {
        "num_hosts": len(names),
        "total_cores": cpus if whole else 0,
        "total_memory_bytes": memory if whole else 0,
        "collection_method": "local",
        "collection_timestamp": _second(result.started_utc),
        "hosts": [{"hostname": name, **(known if name == here else {})} for name in names],
    }


def _second(utc: str) -> str:
    return datetime.fromisoformat(utc).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if utc else ""


def _safe_command(text: str) -> str:
    """Return a command line without secrets; one that no shell could read is hidden whole."""
    try:
        return shlex.join(redact_arguments(shlex.split(text)))
    except ValueError:
        return REDACTED


def _without_secrets(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return the document with every value under a secret-looking name, and secrets in addresses, hidden."""
    if depth > _DEPTH_MAX:
        raise StokerError("metadata of a leaf are nested too deeply", expected=f"at most {_DEPTH_MAX} levels")
    if value in (None, "") or isinstance(value, bool):
        return value
    if name and is_secret_name(name) and not _is_count(name, value):
        return REDACTED
    if isinstance(value, dict):
        return {str(key): _without_secrets(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item, "", depth + 1) for item in value]
    return redact_url(value) if isinstance(value, str) else value


def _is_count(name: str, value: Any) -> bool:
    """Tell whether this counts tokens of text: `total_tokens` is no secret."""
    return name.lower().endswith(("tokens", "tokens_per_sec")) and isinstance(value, (int, float))


def _json(path: Path, document: Any) -> Path:
    return _bytes(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def _bytes(path: Path, data: bytes) -> Path:
    write_atomic(path, data)
    return path
