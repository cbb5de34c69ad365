"""1/4 validate: everything that may keep a run from being worth its hours, before anything is started."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker.bench.rules.mlperf.verifier import INVALID
from stoker.bench.run.doctor import require_target
from stoker.bench.run.doctor_surroundings import preflight_here
from stoker.bench.run.gates import GateReport, GateRequest, run_gates
from stoker.bench.run.gathered import Findings, require_results
from stoker.bench.run.hosts.require import require_hosts
from stoker.bench.run.hosts.start import Launch
from stoker.bench.run.launch_mpi import is_one_of_several
from stoker.bench.run.lockfile import require_locked
from stoker.bench.run.mlperf.dataset import require_dataset, require_files
from stoker.bench.run.mlperf.engine import Engine, engine_of
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.rows import CHECKPOINTING, CLOSED, KVCACHE, TRAINING, VECTORDB
from stoker.bench.run.mlperf.sizing_leaf import needed_bytes
from stoker.bench.run.mlperf.storing import DataPlace
from stoker.bench.run.mlperf.system import require_described
from stoker.bench.run.mlperf.vectors import NO_ROOT, require_database, require_library, require_root
from stoker.bench.run.vectordb import NO_TARGET
from stoker.core.errors import UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Validated:
    """A run that may start: how its engine is started, and what the gates found."""

    engine: Engine
    gates: GateReport


def validate(prepared: Prepared, say: Say) -> Validated:
    """Return how to start. `say` gets the warnings.

    All is tried before anything is raised, so that everything is mended at once; what failed alone is raised as it is:
    UsageError for a run that would be invalid and was not allowed to be, PreflightError and its kind for packages that
    are not as locked, hosts that are not fit, a dataset that is not there, and gates that are shut. Several are a
    SeveralError.
    """
    invocation = prepared.invocation
    if is_one_of_several():
        raise UsageError(
            "started once for every rank", remedy="start it once, without mpirun or srun: --hosts starts them"
        )
    for note in prepared.notes:
        say(note)
    findings = Findings()
    if invocation.value("verify_lockfile"):
        findings.tried(lambda: require_locked(invocation.value("verify_lockfile")))
    findings.tried(lambda: refuse_invalid(prepared, say))
    findings.tried(lambda: require_results(prepared.home.root))
    engine = findings.tried(lambda: engine_of(invocation, os.environ))
    if invocation.place.family == VECTORDB:
        findings.tried(lambda: require_root(prepared, make=not findings.errors))
        findings.tried(lambda: require_library(engine.launch if engine is not None else None, invocation))
        findings.tried(lambda: require_database(prepared))
    else:
        findings.tried(lambda: _require_data(prepared, begin=not findings.errors))
    if invocation.place.command == "run":
        findings.tried(lambda: require_described(prepared, say))
    fit = _hosts_fit(prepared, engine, findings, say)
    # ranks that look at the target are started only where they can be: this host looks alone else
    launch = engine.launch if engine is not None and fit else None
    gates = findings.tried(lambda: _gates(prepared, launch, say))
    findings.require()
    assert engine is not None
    assert gates is not None
    return Validated(engine, gates)


def _hosts_fit(prepared: Prepared, engine: Engine | None, findings: Findings, say: Say) -> bool:
    """Try the hosts, also where no launcher was found, and tell what is doubtful; return whether ranks can start."""
    invocation, target = prepared.invocation, prepared.data
    if target is None or invocation.place.family == VECTORDB:  # the clients of a database open no storage
        target = DataPlace(NO_TARGET)
    url = "" if target.url == NO_TARGET else target.url
    url = url if not target.folder or Path(target.folder).is_dir() else ""  # its lack is told, or it is made
    if not invocation.over_mpi:
        for check in preflight_here(target.url):
            if check.status != "ok":
                say(f"{check.name}: {check.observed}" + (f"; {check.remedy}" if check.remedy else ""))
        return True
    if invocation.value("skip_validation"):
        return True
    launch = engine.launch if engine is not None else None
    hosts = launch.hosts if launch is not None else invocation.hosts
    tried = findings.tried(lambda: require_hosts(hosts, url, on_warning=say, launch=launch))
    return tried is not None


def _gates(prepared: Prepared, launch: Launch | None, say: Say) -> GateReport:
    """Return what the gates found. Raises PreflightError when one is shut."""
    report = run_gates(
        GateRequest(
            target=prepared.data.url if prepared.data is not None else NO_TARGET,
            exempt="" if prepared.data is not None else NO_ROOT,
            results=str(prepared.home.root),
            needed_bytes=needed_bytes(prepared),
            launch=launch if prepared.invocation.place.family != VECTORDB else None,
            shared_target=prepared.invocation.place.family != KVCACHE,
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


def _require_data(prepared: Prepared, *, begin: bool) -> None:
    """Have a dataset to read, or a place to write to; a folder is made where the run may `begin`.

    A place is tried as the run will use it: an object store is listed, what is written to takes a small object.
    """
    place, data = prepared.invocation.place, prepared.target
    if place.family == TRAINING:
        require_files(prepared.extent, prepared.invocation)
        if place.command == "run":
            require_dataset(prepared.extent, data)
    saves = place.family == CHECKPOINTING and prepared.invocation.value("num_checkpoints_write")
    writes = place.command == "datagen" or place.family == KVCACHE or saves
    if writes and data.folder and begin:
        Path(data.folder).mkdir(parents=True, exist_ok=True)
    if data.is_object or (writes and Path(data.folder).is_dir()):
        require_target(data.url, write=bool(writes))
