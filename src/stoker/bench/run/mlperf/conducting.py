"""A run from its gates to its verdict: 1/4 validate, 2/4 collect, 3/4 run, 4/4 finish.

However it ends, its leaf says how: complete, partial after a signal, or failed. What was journalled as begun is
journalled as ended, but for a kill.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.report.dlio_files import write_dlio_files
from stoker.bench.report.submission import write_leaf
from stoker.bench.report.vector_files import write_vector_files
from stoker.bench.rules.mlperf import Judgement, judge_tree, read_tree
from stoker.bench.run.hosts.events import OnProgress
from stoker.bench.run.hosts.roll import SILENT
from stoker.bench.run.hosts.start import Ended
from stoker.bench.run.mlperf import journal
from stoker.bench.run.mlperf.caching import CacheRun
from stoker.bench.run.mlperf.engine import COMPLETED, Engine, start_engine, start_ranks_of
from stoker.bench.run.mlperf.exits import (
    CONFIGURATION,
    FAILURE,
    INTERRUPTED,
    SUCCESS,
    TIMEOUT,
    ConfigurationError,
    exit_code_of,
)
from stoker.bench.run.mlperf.facts import leaf_facts
from stoker.bench.run.mlperf.generating import generation_program
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.rows import CHECKPOINTING, KVCACHE, VECTORDB
from stoker.bench.run.mlperf.system import describe_after
from stoker.bench.run.mlperf.tee import OnOutput
from stoker.bench.run.mlperf.validating import Validated, validate
from stoker.bench.run.mlperf.vectors import vector_arguments
from stoker.bench.run.recover import load_or_recover
from stoker.bench.run.signals import SignalWatch
from stoker.bench.workloads.cache import LIMIT_VARIABLE
from stoker.core import clock, seed
from stoker.core.errors import EXIT_PARTIAL, StokerError, UsageError
from stoker.core.result import load_result

STAGES: Final = ("validate", "collect", "run", "finish")
_SIGNALLED: Final = 128
_SAYS: Final = "stoker: "
_TAIL_BYTES: Final = 1 << 14


class Watch(msgspec.Struct):
    """Who is told: a stage as it begins, a warning, how far the run is, and that the engine will say something now."""

    on_stage: Callable[[int, str], None] = lambda _number, _name: None
    on_warning: Callable[[str], None] = lambda _: None
    on_progress: OnProgress = lambda _: None
    on_output: OnOutput = lambda: None


class RunOutcome(msgspec.Struct):
    """How a run ended. `exit_code` is the reference tool's; `judgement` is of its leaf alone, None without one."""

    leaf: Path
    evidence: Path
    exit_code: int
    seconds: float
    reason: str = ""
    judgement: Judgement | None = None


def conduct_run(prepared: Prepared, words: Sequence[str], watch: Watch) -> RunOutcome:
    """Run the command once and return how it ended. `words` are those of the command line behind the program's name.

    Raises, before anything is started, PreflightError and its kind for what is not fit, UsageError for a run that
    would be invalid and was not allowed to be.
    """
    watch.on_stage(1, STAGES[0])
    validated = validate(prepared, watch.on_warning)
    watch.on_stage(2, STAGES[1])
    code_image = _collected(prepared)
    return _Run(prepared, validated, words, watch, code_image).conduct()


def _collected(prepared: Prepared) -> str:
    from stoker.bench.report.submission import capture_image

    try:
        return capture_image(prepared.home.root)
    except OSError as error:
        raise UsageError("code image cannot be captured", where=str(prepared.home.root), got=str(error)) from error


def begin_run(prepared: Prepared, words: Sequence[str], leaf: Path) -> str:
    """Note in the journal that a command begins to fill its leaf; return the run's id."""
    place = prepared.invocation.place
    return journal.begin(
        prepared.home,
        words,
        division=place.division,
        family=place.family,
        model=place.model or leaf.parent.parent.name,
        command=place.command,
        system=prepared.system,
        leaf=leaf,
    )


class _Run:
    """One run and its leaf."""

    def __init__(
        self, prepared: Prepared, validated: Validated, words: Sequence[str], watch: Watch, code_image: str
    ) -> None:
        self._prepared, self._engine, self._words, self._watch = prepared, validated.engine, list(words), watch
        self._gates = validated.gates
        self._code_image = code_image
        place = prepared.invocation.place
        self._started_text = clock.local_text("%Y-%m-%dT%H:%M:%S")
        self._began_ns = clock.monotonic_ns()
        self._stamp, self._leaf = prepared.home.new_leaf(
            place.division,
            prepared.system,
            place.family,
            prepared.model,
            place.command,
            str(prepared.invocation.value("vdb_engine") or ""),
        )
        self._evidence = prepared.home.evidence(self._stamp, place.family, prepared.model, seed.run_id()[:6])
        self._variables = dict(prepared.data.variables) if prepared.data else {}
        self._cache: CacheRun | None = None
        told = prepared.invocation.value("drop_caches_timeout_seconds")
        if told:
            self._variables[LIMIT_VARIABLE] = str(told)

    def conduct(self) -> RunOutcome:
        """Run the engine between the journal's two lines."""
        prepared = self._prepared
        number = begin_run(prepared, self._words, self._leaf)
        outcome = RunOutcome(self._leaf, self._evidence, FAILURE, 0.0, "the run was broken off")
        try:
            self._evidence.parent.mkdir(parents=True, exist_ok=True)
            self._gates.record(self._leaf)
            self._watch.on_stage(3, STAGES[2])
            ended, command = self._start()
            self._watch.on_stage(4, STAGES[3])
            with SignalWatch():  # what was run is written down, however impatient anybody is
                outcome = self._finished(ended, command)
        except Exception as error:
            outcome.exit_code = exit_code_of(error)
            with suppress(Exception):  # the error that led here is the one to tell
                self._label(outcome.exit_code, "")
            raise
        finally:
            journal.end(prepared.home, number, exit_code=outcome.exit_code, seconds=self._seconds)
        return outcome

    def _start(self) -> tuple[Ended, str]:
        """Start the engine and wait for its end; return how it ended, and its command line."""
        prepared, place = self._prepared, self._prepared.invocation.place
        if place.family == KVCACHE:
            return self._start_trials()
        name = f"{place.rules_family}_{place.command}"
        vectors = place.family == VECTORDB
        if place.command == "datagen" and self._engine.launch is not None and not vectors:
            program = generation_program(prepared, self._leaf)
            ended = start_ranks_of(self._engine.launch, program, self._leaf, name, **self._how)
            return ended, shlex.join(self._engine.launch.words(program, os.environ))
        if vectors:
            arguments = vector_arguments(prepared, self._evidence)
        else:
            arguments = engine_arguments(prepared, self._engine, self._leaf, self._evidence)
        ended = start_engine(
            self._engine,
            arguments,
            self._leaf,
            name,
            **self._how,
        )
        return ended, self._engine.command(arguments, os.environ)

    def _start_trials(self) -> tuple[Ended, str]:
        """Run the trials of a KV cache; return how the last one ended, and its command line."""
        watch = self._watch
        self._evidence.mkdir()
        self._cache = CacheRun(
            self._prepared,
            self._engine,
            (self._leaf, self._evidence),
            self._stamp,
            (watch.on_progress, watch.on_output, watch.on_warning),
        )
        ended = self._cache.run(self._variables)
        self._cache.settle()
        return ended, self._cache.commands[-1]["command"]

    @property
    def _how(self) -> dict[str, Any]:
        watch = self._watch
        return {"on_progress": watch.on_progress, "on_output": watch.on_output, "variables": self._variables}

    def _finished(self, ended: Ended, command: str) -> RunOutcome:
        code, reason = outcome_of(ended)
        self._recover(ended)
        if code == FAILURE:
            reason = self._last_words() or self._saved_reason() or reason
            code = TIMEOUT if SILENT in reason else code
        self._own_files()
        self._label(code, command)
        outcome = RunOutcome(self._leaf, self._evidence, code, self._seconds, reason)
        if self._prepared.invocation.place.command == "run":
            self._describe(outcome)
            outcome.judgement = judged(self._leaf, self._prepared.invocation.place.division)
        return outcome

    @property
    def _seconds(self) -> float:
        return (clock.monotonic_ns() - self._began_ns) / 1e9

    def _label(self, code: int, command: str) -> None:
        """Write the tool's own files into the leaf."""
        facts = leaf_facts(
            self._prepared,
            self._stamp,
            code_image=self._code_image,
            executed_command=command,
            exit_status=code,
            runtime_seconds=self._seconds,
            started_text=self._started_text,
            extra=self._extra(),
        )
        write_leaf(self._leaf, facts, run_folder=self._evidence if self._evidence.is_dir() else None)

    def _own_files(self) -> None:
        """Write, of a run on a collection of vectors, the files that the reference's programs write themselves."""
        place = self._prepared.invocation.place
        if place.family == VECTORDB and self._evidence.is_dir():
            with suppress(StokerError, OSError):  # killed before it had begun: there is nothing to tell
                write_vector_files(self._evidence, self._leaf)

    def _last_words(self) -> str:
        """Return the last sentence that the engine said of what went wrong, empty where it said none."""
        if self._cache is not None:
            return self._cache.reason
        place = self._prepared.invocation.place
        log = self._leaf / f"{place.rules_family}_{place.command}.stderr.log"
        with suppress(OSError):
            lines = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines()
            return next((line.removeprefix(_SAYS) for line in reversed(lines) if line.startswith(_SAYS)), "")
        return ""

    def _saved_reason(self) -> str:
        """Return why the run failed as its result has it, empty where none was saved."""
        with suppress(StokerError, OSError):
            return load_result(self._evidence).reason
        return ""

    def _describe(self, outcome: RunOutcome) -> None:
        """Draft the system's description, or find that the hosts are not the described ones: the leaf stays."""
        if not self._evidence.is_dir():
            return
        try:
            describe_after(self._prepared, self._evidence, self._watch.on_warning)
        except ConfigurationError as error:
            outcome.exit_code, outcome.reason = CONFIGURATION, str(error)

    def _extra(self) -> dict[str, Any]:
        """Return what our metadata have besides: where our own files of the run lie."""
        if not self._evidence.is_dir():
            return {}
        found: dict[str, Any] = {"stoker_run_folder": str(self._evidence.relative_to(self._prepared.home.root))}
        if self._cache is not None:
            found["command_output_files"] = self._cache.commands
        return found

    def _recover(self, ended: Ended) -> None:
        """Where the engine did not come to say how it ended, make a result of its logs, and the files it owes."""
        if ended.told or self._cache is not None or not self._evidence.is_dir():
            return
        with suppress(StokerError, OSError):  # killed before it had begun: there is nothing to tell
            load_or_recover(self._evidence)
            if self._prepared.invocation.place.family == VECTORDB:
                return
            write_dlio_files(self._evidence, self._leaf, metrics="correct", log_file="dlio.log")


def engine_arguments(prepared: Prepared, engine: Engine, leaf: Path, evidence: Path) -> list[str]:
    """Return the words of our engine behind `stoker`: DLIO's, and where our own files go."""
    invocation = prepared.invocation
    generating = invocation.place.command == "datagen"
    own = [] if generating else [f"--run-folder={evidence}"]
    if invocation.place.family != CHECKPOINTING and not generating:
        own.append(f"--access-seed={seed.fresh()}")
    if engine.launch is None:
        own.append(f"--ranks={invocation.ranks}")
    interval = invocation.value("timeseries_interval")
    if interval is not None:
        own.append(f"--host-interval={0 if invocation.value('skip_timeseries') else interval:g}")
    most = invocation.value("max_timeseries_samples")
    if most is not None:
        own.append(f"--host-samples={most}")
    return ["dlio", *prepared.dlio_words(str(leaf)), *own]


def outcome_of(ended: Ended) -> tuple[int, str]:
    """Return the reference tool's exit code for the end of the engine, and why where it is not good."""
    if ended.told and ended.exit_code in COMPLETED:
        return SUCCESS, ""
    if ended.exit_code > _SIGNALLED or ended.exit_code == EXIT_PARTIAL:
        return INTERRUPTED, ended.reason or "the run was interrupted"
    return FAILURE, ended.reason or f"the engine ended with exit code {ended.exit_code}"


def judged(leaf: Path, division: str) -> Judgement | None:
    """Return the verdict on a leaf alone, None where the judge cannot read it. A what-if is held to open's rules, but
    for the models and accelerators: it has more of them."""
    try:
        return judge_tree(read_tree(leaf, edition="3.0", division=division))
    except StokerError:
        return None
