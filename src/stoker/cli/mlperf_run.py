"""What the commands of `stoker mlperf` print: sizes, plans, configurations, stages and verdicts."""

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.findings import TreeFinding
from stoker.bench.rules.mlperf.sizing import TrainingSize
from stoker.bench.rules.mlperf.verifier import HOLDS, LATER
from stoker.bench.run.dlio.tree import DEFAULT
from stoker.bench.run.hosts.events import ProgressEvent
from stoker.bench.run.mlperf import journal
from stoker.bench.run.mlperf.caching import trials_of
from stoker.bench.run.mlperf.conducting import STAGES, RunOutcome, Watch, begin_run, conduct_run
from stoker.bench.run.mlperf.engine import Engine, engine_of
from stoker.bench.run.mlperf.exits import INTERRUPTED, SUCCESS, TIMEOUT
from stoker.bench.run.mlperf.generating import program_words
from stoker.bench.run.mlperf.prepare import Prepared, prepare
from stoker.bench.run.mlperf.resolving import Invocation, Place, resolve_invocation
from stoker.bench.run.mlperf.results_dir import earlier_spellings
from stoker.bench.run.mlperf.rows import CHECKPOINTING, CLOSED, KVCACHE, VECTORDB, WHATIF
from stoker.bench.run.mlperf.sizing_leaf import Size, keep_size, next_command, notes_of, onward_words, sizes_of
from stoker.bench.run.mlperf.vectors import vector_arguments
from stoker.bench.run.stages import Stages
from stoker.cli.live import StatusLine, hosts_text, work_text
from stoker.cli.mlperf_common import LEVELS, Voice
from stoker.cli.screen import emit_pairs, emit_text, harmless
from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.files import redact_arguments, redact_url
from stoker.core.units import format_bytes, format_seconds


class Log(Voice):
    """What is told on stderr; warnings and errors are told again at the end: what stands a screen above is not read."""

    def __init__(self, invocation: Invocation) -> None:
        debug = bool(invocation.value("debug") or invocation.value("verbose"))
        color = {"auto": None, "always": True, "never": False}[invocation.value("color")]
        super().__init__("DEBUG" if debug else str(invocation.value("stream_log_level")), color)
        self._kept: list[tuple[str, str]] = []
        self.line = StatusLine()

    def say(self, level: str, text: str) -> None:
        """Tell a note now and, when it is a warning or worse, again at the end."""
        self.line.clear()
        if LEVELS.index(level) >= LEVELS.index("WARNING"):
            self._kept.append((level, text))
        super().say(level, text)

    def repeat(self) -> None:
        """Tell all warnings and errors again, each once."""
        kept, self._kept = list(dict.fromkeys(self._kept)), []
        if kept:
            super().say("INFO", f"{len(kept)} warning{'' if len(kept) == 1 else 's'} and errors of this run again:")
        for level, text in kept:
            super().say(level, text)


def perform(place: Place, given: dict[str, Any]) -> int:
    """Resolve a command and do it, as often as --loops asks; return the exit code."""
    invocation = resolve_invocation(place, given, os.environ)
    log = Log(invocation)
    for line in _option_lines(invocation):
        log.say("DEBUG", line.strip())
    for hint in earlier_spellings(os.environ):
        log.say("WARNING", hint)
    actions = {"datasize": _datasize, "datagen": _run, "run": _run, "configview": _configview}
    try:
        for _ in range(invocation.value("loops") or 1):
            code = actions[place.command](invocation, log)
            if code != SUCCESS:
                return code
        return SUCCESS
    finally:
        log.repeat()


# -- datasize --------------------------------------------------------------------------------------------------------


def _datasize(invocation: Invocation, log: Log) -> int:
    sizes = sizes_of(invocation)
    lines: list[str] = []
    for size in sizes:
        lines.append(size.sentence)
        lines += [f"{name}: {text}" for name, text in _figures(size)]
        for note in notes_of(size):
            log.say("WARNING", note)
    emit_text("\n".join(lines))
    _keep(invocation, sizes, log)
    for size in sizes:
        if isinstance(size, TrainingSize):
            emit_text(f"next: {next_command(invocation, size, onward_words(invocation))}")
    return SUCCESS


def _keep(invocation: Invocation, sizes: Sequence[Size], log: Log) -> None:
    """Write the leaf of a datasize; checkpointing has none, and none has a place without a system and results."""
    if invocation.place.family == CHECKPOINTING:
        return
    prepared = prepare(invocation)
    if prepared.results is None or not prepared.system or invocation.value("dry_run"):
        log.say("INFO", "no leaf was written: that takes a results directory and --systemname, and no --dry-run")
        return
    from stoker.bench.report.submission import capture_image

    began_ns = clock.monotonic_ns()
    leaf = keep_size(prepared, sizes, sys.argv[1:], capture_image(prepared.home.root))
    number = begin_run(prepared, sys.argv[1:], leaf)
    journal.end(prepared.home, number, exit_code=SUCCESS, seconds=(clock.monotonic_ns() - began_ns) / 1e9)
    log.say("INFO", f"leaf: {leaf.relative_to(prepared.home.root)}")


def _figures(size: Any) -> list[tuple[str, str]]:
    """Return every number of a size with a name for people; bytes are told in the unit that suits them."""
    told = []
    for name, value in msgspec.to_builtins(size).items():
        if name in ("sentence", "notes", "personas") or value in (None, ""):
            continue
        label = name.replace("_", " ")
        if "bytes" in name and not name.startswith("files_by") and isinstance(value, (int, float)):
            told.append(
                (label.replace(" bytes", "").strip() or label, f"{format_bytes(value)} ({round(value):,} bytes)")
            )
        elif isinstance(value, int) and not isinstance(value, bool):
            told.append((label, f"{value:,}"))
        elif not isinstance(value, (list, tuple)):
            told.append((label, str(value)))
    return told


# -- configview and dry runs -----------------------------------------------------------------------------------------


def _configview(invocation: Invocation, log: Log) -> int:
    prepared = prepare(invocation)
    for note in prepared.notes:
        log.say("WARNING", note)
    emit_text("\n".join([*_option_lines(invocation), *_workload_lines(prepared)]))
    return SUCCESS


def _option_lines(invocation: Invocation) -> list[str]:
    lines = ["options"]
    for name, setting in invocation.settings.items():
        if setting.value is None or (name == "params"):
            continue
        lines.append(f"  {name}: {_shown(setting.value)}  [{_origin(setting.origin, invocation.found[name][0].where)}]")
    return lines


def _workload_lines(prepared: Prepared) -> list[str]:
    if prepared.config is None:
        return []
    ours = {word.key: _origin(word.origin, word.where) for word in prepared.words}
    lines = [f"workload {prepared.config.name}"]
    for path, found in prepared.config.values.items():
        if found.origin.kind == DEFAULT and path not in ours:
            continue
        origin = ours.get(path) or _origin(_KINDS.get(found.origin.kind, found.origin.kind), found.origin.where)
        lines.append(f"  {path}: {_shown(found.value)}  [{origin}]")
    return lines


_KINDS: Final = {"shipped": "template", "override": "tool"}


def _origin(origin: str, where: str) -> str:
    return f"{origin}, {where}" if where and where != origin else origin


def _shown(value: Any) -> str:
    told = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return harmless(redact_arguments([redact_url(told)])[0])


def _show_plan(prepared: Prepared) -> None:
    """Print what a run would do, and what the rules say of it now."""
    invocation = prepared.invocation
    emit_text("\n".join([*_option_lines(invocation), *_workload_lines(prepared)]))
    emit_pairs({**_plan_pairs(prepared), **_engine_pairs(prepared)})
    verdict = prepared.foretold
    lines = [f"issue: {issue.sentence}" for issue in verdict.issues]
    lines += [f"{HOLDS}: {each.rule} {each.name}: {each.reason}" for each in verdict.of(HOLDS)]
    reasons: dict[str, list[str]] = {}
    for each in verdict.of(LATER):
        reasons.setdefault(each.reason, []).append(each.rule)
    lines += [f"{LATER}: {', '.join(rules)}: {reason}" for reason, rules in reasons.items()]
    emit_text("\n".join(map(harmless, [*lines, f"verdict before the run: {verdict.label}"])))


def _plan_pairs(prepared: Prepared) -> dict[str, str]:
    place = prepared.invocation.place
    pairs = {"division": place.division + _not_submittable(place.division)}
    if prepared.data is not None:
        pairs["data"] = redact_url(prepared.data.url)
    if prepared.extent.files is not None:
        word = prepared.extent.words["dataset.num_files_train"]
        pairs["files"] = f"{prepared.extent.files:,} [{_origin(word.origin, word.where)}]"
    pairs["leaf"] = _leaf_told(prepared)
    return pairs


def _engine_pairs(prepared: Prepared) -> dict[str, str]:
    """Return how the engine would be started. Raises PreflightError without a launcher."""
    invocation = prepared.invocation
    engine = engine_of(invocation, os.environ)
    if invocation.place.family == KVCACHE:
        return {"ranks": f"{invocation.ranks}: {engine.told}", **_trial_pairs(prepared)}
    return {"ranks": f"{invocation.ranks}: {engine.told}", "command": _command(prepared, engine)}


def _trial_pairs(prepared: Prepared) -> dict[str, str]:
    """Return what the trials of a KV cache will be, option by option."""
    what = trials_of(prepared.invocation)
    told = {f"option {option.number}": shlex.join(option.words) for option in what.options}
    pause = f", {format_seconds(what.pause_seconds)} between options" if len(what.options) > 1 else ""
    return {**told, "trials": f"{what.trials} of each{pause}"}


def _command(prepared: Prepared, engine: Engine) -> str:
    """Return the command line of the engine; ranks of many hosts that make a dataset have a program of their own."""
    if prepared.invocation.place.family == VECTORDB:
        return engine.command(redact_arguments(vector_arguments(prepared, Path("EVIDENCE"))), os.environ)
    if prepared.invocation.place.command == "datagen" and engine.launch is not None:
        return shlex.join([*engine.launch.words(program_words("SHARE"), os.environ)])
    return engine.command(redact_arguments(["dlio", *prepared.dlio_words("LEAF")]), os.environ)


def _leaf_told(prepared: Prepared) -> str:
    place = prepared.invocation.place
    if prepared.results is None:
        return "no results directory was told"
    engine = prepared.invocation.value("vdb_engine") or ""
    model = prepared.model or str(prepared.invocation.value("model") or "MODEL")
    leaf = prepared.results.leaf(
        place.division, prepared.system, place.family, model, place.command, "YYYYMMDD_HHMMSS", engine
    )
    return str(leaf.relative_to(prepared.results.root))


def _not_submittable(division: str) -> str:
    return " (a what-if: not submittable)" if division == WHATIF else ""


# -- datagen and run -------------------------------------------------------------------------------------------------


def _run(invocation: Invocation, log: Log) -> int:
    prepared = prepare(invocation)
    if invocation.value("dry_run"):
        for note in prepared.notes:
            log.say("WARNING", note)
        _show_plan(prepared)
        return SUCCESS
    quiet = bool(invocation.value("quiet"))
    if not quiet:
        pairs = _plan_pairs(prepared)
        with suppress(StokerError):  # the checks of the run tell it, with all else that is wrong
            pairs.update(_engine_pairs(prepared))
        for name, text in pairs.items():
            log.say("INFO", f"{name}: {text}")
    shown = Shown(log, quiet=quiet)
    try:
        watch = Watch(shown.stage, lambda text: log.say("WARNING", text), shown.progress, log.line.clear)
        outcome = conduct_run(prepared, sys.argv[1:], watch)
    finally:
        log.line.clear()
    return _told(outcome, prepared, log)


class Shown:
    """How far a command is: a line a stage and, in it, a line that is written over on a terminal, or one now and then
    where there is none."""

    def __init__(self, log: Log, *, quiet: bool) -> None:
        self._log, self._quiet = log, quiet
        self._stages = Stages(STAGES, lambda line: log.say("INFO", line), lambda line: log.say("WARNING", line))
        self._last: ProgressEvent | None = None

    def stage(self, number: int, _: str) -> None:
        """Tell a stage as it begins, and how long the one before it took, host by host the first and the last."""
        if number > 1:
            self._stages.done()
        if self._last is not None:
            for text in hosts_text(self._last):
                self._log.say("INFO", text)
            self._last = None
        self._stages.begin(number)

    def progress(self, event: ProgressEvent) -> None:
        """Tell how far the stage is."""
        self._last = event
        if self._log.line.live:
            if not self._quiet:
                self._log.line.show(self._stages.told(event.done_ratio, work_text(event)).line)
        else:
            self._stages.progress(event.done_ratio, work_text(event))


def _told(outcome: RunOutcome, prepared: Prepared, log: Log) -> int:
    """Tell how a run ended and what the rules say of its leaf; return the exit code."""
    leaf = outcome.leaf.relative_to(prepared.home.root)
    division = prepared.invocation.place.division
    if outcome.exit_code != SUCCESS:
        what = {INTERRUPTED: "was interrupted", TIMEOUT: "timed out"}.get(outcome.exit_code, "failed")
        log.say("ERROR", f"the {prepared.invocation.place.command} {what}: {outcome.reason}; its leaf is labelled so")
    if prepared.invocation.place.command == "run" and outcome.judgement is not None:
        for finding in outcome.judgement.findings:
            log.say("WARNING" if finding.severity == "blocks" else "INFO", _finding(finding))
        blocks = any(each.severity == "blocks" for each in outcome.judgement.findings)
        answer = "INVALID" if blocks or outcome.exit_code else "no rule that one leaf can break is broken"
        rules = division if division == CLOSED else "open"
        log.say("INFO", f"verdict on the leaf by the rules of {rules}: {answer}{_not_submittable(division)}")
    log.say("INFO", f"leaf: {leaf} ({format_seconds(outcome.seconds)})")
    return outcome.exit_code


def _finding(finding: TreeFinding) -> str:
    return f"[{finding.rule} {finding.name}] {finding.path}: {finding.observed}; required: {finding.expected}"
