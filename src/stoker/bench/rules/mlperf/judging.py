"""Runs the checks over a tree: every rule on everything it concerns, to the end, and counts what was decided."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf import (
    checkpointing_checks,
    files_checks,
    gate_checks,
    kv_checks,
    parameter_checks,
    provenance_checks,
    series_checks,
    structure_checks,
    training_checks,
    vector_checks,
)
from stoker.bench.rules.mlperf.catalogue import DIVISIONS, RULES, MlperfRule
from stoker.bench.rules.mlperf.findings import Check, Context, Fault, TreeFinding, Unknown, tree_finding
from stoker.bench.rules.mlperf.formulas import CORE_KEYS, comparability_class, core_hash
from stoker.bench.rules.mlperf.layout import Series, Tree
from stoker.bench.rules.mlperf.series_checks import measured, warm_up
from stoker.bench.rules.mlperf.tables import OPEN, WHATIF
from stoker.core.errors import EXIT_GOOD, EXIT_INVALID, EXIT_NEGATIVE

VALID: Final = "valid"
INVALID: Final = "invalid"
NOT_PROVEN: Final = "not_proven"
_EXIT_CODES: Final = {VALID: EXIT_GOOD, NOT_PROVEN: EXIT_NEGATIVE, INVALID: EXIT_INVALID}
_LAST: Final = ("FILE-02", "FILE-03")  # documents are read while the others are judged
CHECKS: Final[dict[str, Check]] = {
    **structure_checks.CHECKS,
    **provenance_checks.CHECKS,
    **files_checks.CHECKS,
    **series_checks.CHECKS,
    **training_checks.CHECKS,
    **checkpointing_checks.CHECKS,
    **parameter_checks.CHECKS,
    **vector_checks.CHECKS,
    **kv_checks.CHECKS,
    **gate_checks.CHECKS,
}


class RuleOutcome(msgspec.Struct, frozen=True):
    """What became of a rule: how many parts of the tree it held for, was broken by, could not be decided for.

    `state` is passed, failed, undecided (some part or the rule itself cannot be decided, none failed) or idle
    (nothing in the tree concerns it). `reason` is that of the first part that could not be decided, `where` its path;
    `blind` tells that what is missing could have been there.
    """

    rule: str
    name: str
    state: str
    passed: int = 0
    failed: int = 0
    undecided: int = 0
    reason: str = ""
    where: str = ""
    blind: bool = False


class ResultFacts(msgspec.Struct, frozen=True):
    """A result of the tree as it was judged: which leaves count, and what it may be compared with.

    `comparable` is its class, empty where the workload has no core configuration or none could be read.
    """

    path: str
    division: str
    submitter: str
    system: str
    family: str
    model: str
    accelerator: str
    comparable: str
    warm_up: str
    measured: tuple[str, ...]


class Judgement(msgspec.Struct, frozen=True):
    """The verdict on a tree.

    `answer` is invalid when a rule of severity error is broken (a warning does not count), not_proven when none is but
    a rule could not be decided for want of something that should be there, else valid.
    """

    answer: str
    kind: str
    edition: str
    divisions: tuple[str, ...]
    results: int
    leaves: int
    findings: tuple[TreeFinding, ...]
    rules: tuple[RuleOutcome, ...]
    facts: tuple[ResultFacts, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return the exit code: 0 valid, 3 not proven, 4 invalid."""
        return _EXIT_CODES[self.answer]


def answer_of(findings: Iterable[TreeFinding], *, blind: bool) -> str:
    """Return the answer that the findings give; `blind` tells that something could not be decided and should be."""
    if any(each.severity == "blocks" for each in findings):
        return INVALID
    return NOT_PROVEN if blind else VALID


def judge_tree(tree: Tree, *, reference_checksum: str = "") -> Judgement:
    """Return the verdict on the tree. Nothing stops it early: one pass tells of every breach."""
    context = Context(tree, reference_checksum)
    findings: list[TreeFinding] = []
    outcomes: dict[str, RuleOutcome] = {}
    for rule in sorted(RULES.values(), key=lambda each: each.id in _LAST):
        if tree.edition not in rule.editions:
            continue
        told, outcomes[rule.id] = _judge_rule(rule, context)
        findings += told
    grave = {"blocks": 0, "warns": 1, "informs": 2}
    findings.sort(key=lambda each: grave[each.severity])
    answer = answer_of(findings, blind=any(each.blind for each in outcomes.values()))
    return Judgement(
        answer,
        tree.kind,
        tree.edition,
        tuple(sorted({series.division for series in tree.series} - {""})),
        len(tree.series),
        len(tree.leaves),
        tuple(findings),
        tuple(outcomes[rule] for rule in RULES if rule in outcomes),
        tuple(_facts(series, tree.edition) for series in tree.series),
    )


def _facts(series: Series, edition: str) -> ResultFacts:
    training = series.family == "training"
    first = warm_up(series.runs, edition) if training else None
    counted = measured(series.runs, edition) if training else series.runs
    accelerator = next((leaf.accelerator for leaf in counted if leaf.accelerator), series.accelerator)
    configs = (leaf.config for leaf in counted if leaf.config and series.family in CORE_KEYS)
    config = next(configs, None)
    core = core_hash(series.family, config) if config is not None else ""
    return ResultFacts(
        series.path,
        series.division,
        series.submitter,
        series.system,
        series.family,
        series.model,
        accelerator,
        comparability_class(
            edition=edition,
            division=series.division,
            family=series.family,
            model=series.model,
            accelerator=accelerator,
            core=core,
        )
        if core
        else "",
        first.path if first is not None else "",
        tuple(leaf.path for leaf in counted),
    )


def _judge_rule(rule: MlperfRule, context: Context) -> tuple[list[TreeFinding], RuleOutcome]:
    check = CHECKS.get(rule.id)
    if check is None:
        if not _concerned(rule, context.tree):
            return [], RuleOutcome(rule.id, rule.name, "idle")
        return [], RuleOutcome(rule.id, rule.name, "undecided", undecided=1, reason=rule.why_not)
    findings: list[TreeFinding] = []
    unknown: list[Unknown] = []
    counts = {"passed": 0, "failed": 0, "undecided": 0}
    for subject in _subjects(check, rule, context.tree):
        said = list(_said(check, rule, subject, context))
        faults = [each for each in said if isinstance(each, Fault)]
        unknown += [each for each in said if isinstance(each, Unknown)]
        findings += [tree_finding(rule, fault) for fault in faults]
        counts["failed" if faults else "undecided" if said else "passed"] += 1
    return findings, _outcome(rule, counts, unknown)


def _concerned(rule: MlperfRule, tree: Tree) -> bool:
    """Tell whether the tree holds anything that a rule without a check is about."""
    return any(
        rule.family in ("any", series.family) and _ruled(series.division, tree) in (*rule.divisions, "")
        for series in tree.series
    )


def _ruled(division: str, tree: Tree) -> str:
    """Return whose rules hold: a what-if has none, and is held to those of open where its verdict is asked for."""
    return OPEN if division == tree.division == WHATIF else division


def _outcome(rule: MlperfRule, counts: dict[str, int], unknown: list[Unknown]) -> RuleOutcome:
    state = next((name for name in ("failed", "undecided", "passed") if counts[name]), "idle")
    first = min(unknown, key=lambda each: each.excused, default=Unknown("", ""))
    blind = bool(unknown) and not first.excused
    return RuleOutcome(rule.id, rule.name, state, **counts, reason=first.reason, where=first.path, blind=blind)


def _said(check: Check, rule: MlperfRule, subject: Any, context: Context) -> Iterable[Fault | Unknown]:
    """Return what the check says; a rule of one division says nothing sure where the division is not known."""
    division = getattr(subject, "division", None)
    if division == "" and rule.divisions != DIVISIONS and check.scope != "tree":
        return [Unknown("the division is not known; name it with --division", subject.path)]
    return check.test(subject, context)


def _subjects(check: Check, rule: MlperfRule, tree: Tree) -> Iterator[Any]:
    """Give the parts of the tree that the rule concerns."""
    if check.scope == "tree":
        yield tree
        return
    every: dict[str, list[Any]] = {
        "submitter": tree.submitters,
        "system": tree.systems,
        "series": tree.series,
        "leaf": tree.leaves,
        "run": [leaf for series in tree.series for leaf in series.runs],
    }
    for subject in every[check.scope]:
        if _ruled(subject.division, tree) in (*rule.divisions, "") and rule.family in (
            "any",
            getattr(subject, "family", rule.family),
        ):
            yield subject
