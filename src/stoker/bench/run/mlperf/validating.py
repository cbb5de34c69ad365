"""1/4 validate: everything that may keep a run from being worth its hours, before anything is started."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker.bench.rules.mlperf.verifier import INVALID
from stoker.bench.run.gates import GateReport, GateRequest, run_gates
from stoker.bench.run.hosts.require import require_hosts
from stoker.bench.run.launch_mpi import is_one_of_several
from stoker.bench.run.lockfile import require_locked
from stoker.bench.run.mlperf.dataset import require_dataset, require_files
from stoker.bench.run.mlperf.engine import Engine, engine_of
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.rows import CHECKPOINTING, CLOSED, TRAINING
from stoker.bench.run.mlperf.sizing_leaf import needed_bytes
from stoker.bench.run.mlperf.system import require_described
from stoker.core.errors import UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Validated:
    """A run that may start: how its engine is started, and what the gates found."""

    engine: Engine
    gates: GateReport


def validate(prepared: Prepared, say: Say) -> Validated:
    """Return how to start. `say` gets the warnings.

    Raises UsageError for a run that would be invalid and was not allowed to be, PreflightError and its kind for
    packages that are not as locked, hosts that are not fit, a dataset that is not there, and gates that are shut.
    """
    invocation = prepared.invocation
    if is_one_of_several():
        raise UsageError(
            "started once for every rank", remedy="start it once, without mpirun or srun: --hosts starts them"
        )
    for note in prepared.notes:
        say(note)
    if invocation.value("verify_lockfile"):
        require_locked(invocation.value("verify_lockfile"))
    refuse_invalid(prepared, say)
    engine = engine_of(invocation, os.environ)
    _require_data(prepared)
    if invocation.place.command == "run":
        require_described(prepared, say)
    if engine.launch is not None and not invocation.value("skip_validation"):
        require_hosts(engine.launch, prepared.target.url, on_warning=say)
    return Validated(engine, _gates(prepared, engine, say))


def _gates(prepared: Prepared, engine: Engine, say: Say) -> GateReport:
    """Return what the gates found. Raises PreflightError when one is shut."""
    report = run_gates(
        GateRequest(
            target=prepared.target.url,
            results=str(prepared.home.root),
            needed_bytes=needed_bytes(prepared),
            launch=engine.launch,
            skip_separation=bool(prepared.invocation.value("skip_fs_separation_gate")),
        )
    )
    for gate in report.gates:
        if gate.suppressed:
            say(gate.line)
    report.require()
    return report


def refuse_invalid(prepared: Prepared, say: Say) -> None:
    """Raise UsageError for a command whose result the rules would refuse, unless it was allowed to be run all the same:
    then every reason is a warning."""
    verdict, division = prepared.foretold, prepared.invocation.place.division
    allowed = bool(prepared.invocation.value("allow_invalid_params"))
    refusal = verdict.refusal(allow_invalid=allowed)
    if refusal:
        remedy = (
            "mend it, or run it in open or whatif" if division == CLOSED else "mend it, or add --allow-invalid-params"
        )
        raise UsageError(f"the result would be INVALID for {division}: {refusal}", remedy=remedy)
    for issue in verdict.issues:
        say(issue.sentence + (f"; INVALID for {division}, and run all the same" if issue.validation == INVALID else ""))


def _require_data(prepared: Prepared) -> None:
    """Have a dataset to read, or a folder to write into."""
    place, data = prepared.invocation.place, prepared.target
    if place.family == TRAINING:
        require_files(prepared.extent, prepared.invocation)
        if place.command == "run":
            require_dataset(prepared.extent, data)
    writes = place.command == "datagen" or (
        place.family == CHECKPOINTING and prepared.invocation.value("num_checkpoints_write")
    )
    if writes and data.folder:
        Path(data.folder).mkdir(parents=True, exist_ok=True)
