"""A run of checkpoints that every rule accepts, and what breaks each rule that is about them."""

from typing import Any

import msgspec

from stoker.core.checkpoints import (
    COMMIT,
    LOAD,
    SAVE,
    STAGE,
    WRITE,
    Checkpoint,
    CheckpointFigures,
    CheckpointPlan,
    ModelShape,
    OperationFigures,
)
from stoker.core.ledger import Counters, Ledger
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.core.result import Evidence, Metrics, RankResult, Result

SIZE = 1 << 30
MEMORY = 64 << 30


def operation(kind: str, number: int, **changes: Any) -> Checkpoint:
    """Return one save or load that came to its end."""
    saving = kind == SAVE
    values: dict[str, Any] = {
        "id": f"global_epoch1_step{number}",
        "started_utc": f"2026-01-01T00:0{number}:00.000000Z",
        "ranks": 2,
        "bytes": SIZE,
        "files": 4,
        "seconds": 1.0,
        "seconds_compatible": 0.98,
        "all_seconds": 1.01,
        "bytes_per_second": float(SIZE),
        "bytes_per_second_compatible": SIZE / 0.98,
        "verified_bytes": 0 if saving else SIZE,
        "dirty_bytes": 0 if saving else None,
        "resident_bytes": None if saving else 0,
        "device_written_bytes": SIZE if saving else 0,
        "stage_seconds": {STAGE: 0.1, WRITE: 1.7, COMMIT: 0.2} if saving else {"read": 2.0},
        "complete": True,
    }
    return Checkpoint(kind, number, **{**values, **changes})


def figures(**changes: Any) -> OperationFigures:
    """Return the figures of two such."""
    values: dict[str, Any] = {"bytes_per_second": float(SIZE), "bytes_per_second_compatible": SIZE / 0.98}
    return OperationFigures(2, seconds=1.0, seconds_compatible=0.98, **{**values, **changes})


def good_saves(**changes: Any) -> Result:
    """Return two saves and two loads on a file system; `changes` as of `good_result`, and `save2__…`, `load1__…`."""
    ledger = Ledger(
        wanted_bytes=2 * SIZE,
        requested_bytes=2 * SIZE,
        from_store_bytes=2 * SIZE,
        delivered_bytes=2 * SIZE,
        written_bytes=2 * SIZE,
        files_opened=8,
    )
    what = CheckpointPlan(ModelShape(zero_stage=3), writes=2, reads=2)
    result = Result(
        id="run-1",
        job=Job("run checkpointing"),
        plan=TrainingPlan("llama3-8b", DatasetSpec("none", 0), 2, 0, Spread(), checkpoint=what),
        status="complete",
        machine={"memory_bytes": MEMORY},
        ranks=[RankResult(rank=0, host="a"), RankResult(rank=1, host="a")],
        metrics=Metrics(client_cpu_ratio=0.3),
        evidence=Evidence(
            io_mode_requested="buffered",
            io_mode="buffered",
            ledger=ledger,
            counters=Counters(process_read_bytes=2 * SIZE, process_write_bytes=2 * SIZE),
            target_kind="xfs",
            device="nvme0n1",
            durable=True,
        ),
        checkpoints=[operation(kind, number) for kind in (SAVE, LOAD) for number in (1, 2)],
        checkpointing=CheckpointFigures(SIZE, 4, figures(), figures()),
    )
    places = {"save1": 0, "save2": 1, "load1": 2, "load2": 3}
    for path in list(changes):
        part, _, name = path.partition("__")
        if part in places:
            setattr(result.checkpoints[places[part]], name, changes.pop(path))
        elif part == "what":
            values = {key: getattr(what, key) for key in what.__struct_fields__} | {name: changes.pop(path)}
            what = CheckpointPlan(**values)
            result.plan = msgspec.structs.replace(result.plan, checkpoint=what)
    return _spoilt(result, changes)


def _spoilt(result: Result, changes: dict[str, Any]) -> Result:
    """Change what has no epochs, which `spoil` looks for."""
    parts = {"evidence": result.evidence, "ledger": result.evidence.ledger, "counters": result.evidence.counters}
    for path, value in changes.items():
        part, _, name = path.rpartition("__")
        setattr(parts[part] if part else result, name, value)
    return result


SAVE_BREACHES: dict[str, dict[str, Any]] = {
    "checkpoint.target": {"evidence__io_mode": "null", "evidence__target_kind": "null"},
    "checkpoint.done": {"save2__complete": False},
    "checkpoint.client": {"save1__stage_seconds": {STAGE: 9.0, WRITE: 1.0}},
    "checkpoint.durable": {"what__fsync": "none"},
    "checkpoint.written": {"save1__device_written_bytes": SIZE // 2},
    "checkpoint.memory": {"load1__resident_bytes": SIZE // 2},
    "checkpoint.handover": {"what__hand_over_seconds": 31.0},
    "checkpoint.clock": {"checkpointing": CheckpointFigures(SIZE, 4, figures(bytes_per_second_compatible=2.0 * SIZE))},
    "checkpoint.verified": {"load1__verified_bytes": 0, "load2__verified_bytes": 0},
}
