"""A saved result of ours held against a division: the rules that concern one training run by itself."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.findings import Fault, Said, Unknown, missing, tree_finding
from stoker.bench.rules.mlperf.formulas import files_needed
from stoker.bench.rules.mlperf.judging import Judgement, RuleOutcome, answer_of
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, models, training_models
from stoker.bench.rules.mlperf.training_checks import AGREEMENT_RATIO
from stoker.core.result import RESULT_FILE, Result

KIND: Final = "stoker result"
PREFETCH_MAX: Final = 2
_TOLERANCE: Final = 1e-6


def _model(result: Result, edition: str, division: str) -> Iterable[Said]:
    legal = training_models(edition, division)
    model, kind = result.plan.model, result.plan.accelerator
    if model not in legal:
        yield Fault(f"model {model}", ", ".join(legal), RESULT_FILE, "plan.model")
    elif kind not in legal[model]:
        yield Fault(f"accelerator {kind or 'none'}", ", ".join(legal[model]), RESULT_FILE, "plan.accelerator")


def _hosts(result: Result) -> int:
    return len({rank.host for rank in result.ranks if rank.host}) or 1


def _files(result: Result, _edition: str, _division: str) -> Iterable[Said]:
    plan = result.plan
    model, memory = models().training.get(plan.model), result.machine.get("memory_bytes")
    if model is None or not isinstance(memory, int) or memory <= 0:
        yield missing("the model's template or the memory of the clients", RESULT_FILE)
        return
    all_memory = float(memory) * _hosts(result)
    by_bytes, by_steps = files_needed(
        model, accelerators=plan.ranks, batch_size=plan.batch_size, memory_bytes=all_memory
    )
    if plan.dataset.files < max(by_bytes, by_steps):
        why = "five times the clients' memory" if by_bytes >= by_steps else "500 steps an epoch"
        wanted = f"at least {max(by_bytes, by_steps):,}: {why}"
        yield Fault(f"{plan.dataset.files:,} files", wanted, RESULT_FILE, "plan.dataset.files")


def _utilisation(result: Result, _edition: str, _division: str) -> Iterable[Said]:
    model = models().training.get(result.plan.model)
    if model is None or result.metrics.steps < 1:
        yield missing("the model's target or a measured step", RESULT_FILE)
    elif not result.metrics.au_ratio >= model.au_threshold_ratio:
        told = f"{100 * result.metrics.au_ratio:.2f} %"
        yield Fault(told, f"at least {100 * model.au_threshold_ratio:g} %", RESULT_FILE, "metrics.au_ratio")


def _nodes(result: Result, _edition: str, _division: str) -> Iterable[Said]:
    counts: dict[str, int] = {}
    for rank in result.ranks:
        counts[rank.host] = counts.get(rank.host, 0) + 1
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{host or '?'}: {count}" for host, count in sorted(counts.items())[:8])
        yield Fault(told, "as many on each host", RESULT_FILE, "ranks")


def _parameters(result: Result, _edition: str, division: str) -> Iterable[Said]:
    plan, model = result.plan, models().training.get(result.plan.model)
    if model is None:
        yield missing("the model's template", RESULT_FILE)
        return
    kind = model.accelerators.get(plan.accelerator)
    wanted: list[tuple[str, object, object]] = [
        ("plan.dataset.record_length_bytes", plan.dataset.record_length_bytes, model.record_length_bytes),
        (
            "plan.dataset.record_length_stdev_bytes",
            plan.dataset.record_length_stdev_bytes,
            model.record_length_stdev_bytes,
        ),
        ("plan.epochs", plan.epochs, model.epochs),
    ]
    if division == CLOSED:
        wanted += [
            ("plan.dataset.format", plan.dataset.format, model.format),
            ("plan.dataset.samples_per_file", plan.dataset.samples_per_file, model.samples_per_file),
        ]
    if kind is not None:
        computation = plan.computation.mean_seconds() if _has_mean(result) else None
        wanted += [
            ("plan.batch_size", plan.batch_size, kind.batch_size),
            ("plan.computation", computation, kind.computation_seconds),
        ]
    for key, told, template in wanted:
        if not _equal(told, template):
            yield Fault(f"{told}", f"{template}, as in the template", RESULT_FILE, key)
    yield from _limits(result)


def _limits(result: Result) -> Iterable[Said]:
    plan = result.plan
    if not 0 <= plan.prefetch_batches <= PREFETCH_MAX:
        yield Fault(f"{plan.prefetch_batches}", f"0 to {PREFETCH_MAX}", RESULT_FILE, "plan.prefetch_batches")
    for key, value in (("steps_max", plan.steps_max), ("duration_seconds", plan.duration_seconds)):
        if value:
            yield Fault(f"{value:g}", "not given: whole epochs", RESULT_FILE, f"plan.{key}")
    if plan.order == "sequential":
        yield Fault("sequential order", "shuffled", RESULT_FILE, "plan.order")


def _has_mean(result: Result) -> bool:
    needed = {"constant": {"value"}, "normal": {"mean"}, "uniform": {"min", "max"}, "gamma": {"shape", "scale"}}
    needed |= {"exponential": {"scale"}, "poisson": {"lam"}}
    computation = result.plan.computation
    return computation.kind in needed and needed[computation.kind] <= set(computation.parameters)


def _equal(told: object, wanted: object) -> bool:
    if isinstance(told, (int, float)) and isinstance(wanted, (int, float)):
        return abs(told - wanted) <= _TOLERANCE * abs(wanted)
    return told == wanted


def _complete(result: Result, _edition: str, _division: str) -> Iterable[Said]:
    if result.status != "complete":
        yield Fault(f"status {result.status}", "complete", RESULT_FILE, "status")


def _demand(result: Result, _edition: str, _division: str) -> Iterable[Said]:
    plan, model = result.plan, models().training.get(result.plan.model)
    kind = model.accelerators.get(plan.accelerator) if model is not None else None
    if kind is None:
        yield missing("the model's demand", RESULT_FILE)
        return
    demand = plan.ranks * kind.batch_size / kind.computation_seconds
    if not result.metrics.samples_per_second <= demand * (1 + AGREEMENT_RATIO):
        told = f"{result.metrics.samples_per_second:,.2f} samples/s"
        yield Fault(told, f"at most {demand:,.2f}", RESULT_FILE, "metrics.samples_per_second")


_CHECKS: Final[dict[str, Callable[[Result, str, str], Iterable[Said]]]] = {
    "2.1.11": _model,
    "3.3.1": _files,
    "3.3.2": _utilisation,
    "3.3.6": _nodes,
    "3.6.2": _parameters,
    "3.6.3": _parameters,
    "META-02": _complete,
    "SANE-01": _demand,
}


def judge_result(result: Result, *, edition: str, division: str) -> Judgement:
    """Return the verdict of a division on one saved training run.

    What takes several runs, or a tree around them, is left undecided: it takes `judge_tree`.
    """
    assert division in (CLOSED, OPEN)
    findings, outcomes = [], []
    for rule in RULES.values():
        if edition not in rule.editions or division not in rule.divisions or rule.family not in ("training", "any"):
            continue
        check = _CHECKS.get(rule.id)
        if check is None:
            reason = rule.why_not or "takes the tree of a submission, not one result"
            outcomes.append(RuleOutcome(rule.id, rule.name, "undecided", undecided=1, reason=reason))
            continue
        said = list(check(result, edition, division))
        faults = [each for each in said if isinstance(each, Fault)]
        unknown = [each for each in said if isinstance(each, Unknown)]
        findings += [tree_finding(rule, fault) for fault in faults]
        state = "failed" if faults else "undecided" if unknown else "passed"
        reason = unknown[0].reason if unknown else ""
        counts: dict[str, Any] = {state: 1}
        outcomes.append(RuleOutcome(rule.id, rule.name, state, reason=reason, **counts))
    blind = any(each.state == "undecided" and each.rule in _CHECKS for each in outcomes)
    answer = answer_of(findings, blind=blind)
    return Judgement(answer, KIND, edition, (division,), 1, 1, tuple(findings), tuple(outcomes))
