"""From findings to one answer, one sentence and one exit code.

The answer is decided by the gravest effect among the findings, in this order:

    partial     The run was cut short. Its figures are shown and labelled; nothing is concluded from them.
    invalid     The run failed or broke its own terms; its figures mean nothing.
    not_proven  It measured something, but not the storage: the null or memory target, next to no steps, more or
                other bytes than the ledger tells of. Such a flaw can explain a good figure and a bad one alike, so it
                withholds a yes, a no and a verdict on the client.
    client_limited  The threshold was missed, and the client is why. With data from a cache this still holds:
                infinitely fast storage would not have helped this client.
    no          The whole interval lies below the threshold. Reading from the page cache, unconfirmed bytes or missing
                counters can only have flattered the storage: what misses the threshold with that help misses it
                without. So these weaknesses stop a yes but not a no.
    not_proven  The threshold was not missed, but the figure may be flattered: the bytes came from the page cache, or
                nobody confirms that they did not.
    not_proven  The interval straddles the threshold.
    yes         The whole interval lies at or above the threshold, and every byte is accounted for.

A run without training has no threshold: yes says that its figures stand, the others as above that they do not. A recall
that was asked for and missed is a no, and a KV cache that is slower than computing anew, where that was told.
"""

from collections.abc import Callable, Mapping
from typing import Final

from stoker.bench.rules import (
    answer_checks,
    checkpoint_checks,
    checkpoint_words,
    evidence_checks,
    kvcache_checks,
    kvcache_words,
    run_checks,
    vector_checks,
    vector_words,
)
from stoker.bench.rules.answer_checks import au_told
from stoker.bench.rules.catalogue import EFFECTS, RULES
from stoker.bench.rules.facts import percent, saves_alone, searches, serves_cache, workload_of
from stoker.bench.rules.rule import Rule
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, EXIT_INVALID, EXIT_NEGATIVE, EXIT_PARTIAL
from stoker.core.result import Finding, Result, Verdict
from stoker.core.units import format_rate

Check = Callable[[Result], list[Finding]]

# One check a rule, in the order of the catalogue, which is the order of the findings.
CHECKS: Final[Mapping[str, Check]] = {
    "run.complete": run_checks.check_complete,
    "run.failed": run_checks.check_failed,
    "rank.errors": run_checks.check_rank_errors,
    "rank.missing": run_checks.check_ranks,
    "run.figures": run_checks.check_figures,
    "coverage.exact": run_checks.check_coverage,
    "run.steps": run_checks.check_steps,
    "evidence.target": evidence_checks.check_target,
    "evidence.wanted": evidence_checks.check_wanted,
    "evidence.excess": evidence_checks.check_excess,
    "client.limit": answer_checks.check_client,
    "au.threshold": answer_checks.check_threshold,
    "au.sustained": answer_checks.check_sustained,
    "evidence.ledger": evidence_checks.check_ledger,
    "evidence.payload": evidence_checks.check_payload,
    "evidence.cache": evidence_checks.check_cache,
    "evidence.counters": evidence_checks.check_counters,
    "evidence.epochs": evidence_checks.check_epochs,
    "au.interval": answer_checks.check_interval,
    "evidence.io_mode": evidence_checks.check_io_mode,
    "run.errors": run_checks.check_errors,
    "run.retries": run_checks.check_retries,
    "evidence.device": evidence_checks.check_device,
    "client.busy": answer_checks.check_client_busy,
    "coverage.dropped": run_checks.check_dropped,
    "run.clock": run_checks.check_clock,
    "scope.changed": run_checks.check_changed,
    "scope.quick": run_checks.check_quick,
    "checkpoint.target": checkpoint_checks.check_target,
    "checkpoint.done": checkpoint_checks.check_done,
    "checkpoint.client": checkpoint_checks.check_client,
    "checkpoint.durable": checkpoint_checks.check_durable,
    "checkpoint.written": checkpoint_checks.check_written,
    "checkpoint.memory": checkpoint_checks.check_memory,
    "checkpoint.handover": checkpoint_checks.check_handover,
    "checkpoint.clock": checkpoint_checks.check_clock,
    "checkpoint.verified": checkpoint_checks.check_verified,
    "vector.loaded": vector_checks.check_loaded,
    "vector.answered": vector_checks.check_answered,
    "vector.truth": vector_checks.check_truth,
    "vector.recall": vector_checks.check_recall,
    "vector.unread": vector_checks.check_unread,
    "vector.client": vector_checks.check_client,
    "vector.target": vector_checks.check_target,
    "vector.uncounted": vector_checks.check_uncounted,
    "vector.data": vector_checks.check_data,
    "vector.few": vector_checks.check_few,
    "kvcache.target": kvcache_checks.check_target,
    "kvcache.done": kvcache_checks.check_done,
    "kvcache.storage": kvcache_checks.check_storage,
    "kvcache.client": kvcache_checks.check_client,
    "kvcache.break_even": kvcache_checks.check_break_even,
    "kvcache.memory": kvcache_checks.check_memory,
    "kvcache.durable": kvcache_checks.check_durable,
    "kvcache.written": kvcache_checks.check_written,
    "kvcache.tiers": kvcache_checks.check_tiers,
    "kvcache.few": kvcache_checks.check_few,
    "kvcache.variation": kvcache_checks.check_variation,
    "kvcache.full": kvcache_checks.check_full,
    "kvcache.goals": kvcache_checks.check_goals,
}
_ANSWERS: Final = {
    "partial": "partial",
    "invalid": "invalid",
    "blinds": "not_proven",
    "client": "client_limited",
    "negative": "no",
    "flatters": "not_proven",
    "statistics": "not_proven",
}
_EXIT_CODES: Final = {
    "yes": EXIT_GOOD,
    "no": EXIT_NEGATIVE,
    "not_proven": EXIT_NEGATIVE,
    "client_limited": EXIT_NEGATIVE,
    "invalid": EXIT_INVALID,
    "partial": EXIT_PARTIAL,
}


def judge(result: Result) -> Verdict:
    """Return the verdict on a saved result: the answer, a sentence, and the findings, gravest first.

    A pure function of the result; the order of precedence stands in this module's docstring.
    """
    findings = [finding for rule in applying(result) for finding in CHECKS[rule.id](result)]
    findings.sort(key=lambda finding: EFFECTS.index(RULES[finding.rule].effect))
    decisive = next((f for f in findings if RULES[f.rule].effect in _ANSWERS), None)
    answer = _ANSWERS[RULES[decisive.rule].effect] if decisive else "yes"
    return Verdict(answer, _headline(result, answer, decisive, findings), tuple(findings))


def applying(result: Result) -> list[Rule]:
    """Return the rules that a result of its kind is held to."""
    workload = workload_of(result)
    return [rule for rule in RULES.values() if workload in rule.workloads]


def exit_code(verdict: Verdict) -> int:
    """Return the process exit code: 0 yes, 3 no, not_proven and client_limited, 6 partial, 4 invalid, of which 1 when
    the run failed.

    Raises KeyError for an answer that is none of these.
    """
    failed = verdict.answer == "invalid" and any(finding.rule == "run.failed" for finding in verdict.findings)
    return EXIT_FAILED if failed else _EXIT_CODES[verdict.answer]


def _headline(result: Result, answer: str, decisive: Finding | None, findings: list[Finding]) -> str:
    sentences = {
        "yes": _yes,
        "no": _no,
        "client_limited": _client_limited,
        "not_proven": _not_proven,
        "invalid": _invalid,
        "partial": _partial,
    }
    if searches(result):
        return vector_words.headline(result, answer, decisive) + "."
    if serves_cache(result):
        return kvcache_words.headline(result, answer, decisive) + _fallback(findings) + "."
    if saves_alone(result):
        return checkpoint_words.headline(result, answer, decisive) + _fallback(findings) + "."
    sentence = sentences[answer](result, decisive) if decisive else _yes(result, None)
    return sentence + _fallback(findings) + _flattered(answer, findings) + "."


def _subject(result: Result) -> str:
    plan = result.plan
    plural = "" if plan.ranks == 1 else "s"
    kind = f"{plan.accelerator} " if plan.accelerator else ""
    changed = "a changed " if plan.deviations else ""
    return f"{plan.ranks} emulated {kind}accelerator{plural} with {changed}{plan.model}"


def _measured(result: Result) -> str:
    return f"AU {au_told(result)} where {percent(result.plan.au_threshold_ratio, 2)} is needed"


def _yes(result: Result, _: Finding | None) -> str:
    return f"This storage feeds {_subject(result)}: {_measured(result)}"


def _no(result: Result, _: Finding | None) -> str:
    stage = result.metrics.limiting_stage
    waited = f"; the accelerators waited most for {stage}" if stage else ""
    return f"This storage does not feed {_subject(result)}: {_measured(result)}{waited}"


def _client_limited(result: Result, decisive: Finding | None) -> str:
    reason = decisive.observed if decisive else ""
    return f"This client, not the storage, holds back {_subject(result)}: {reason}; {_measured(result)}"


def _not_proven(result: Result, decisive: Finding | None) -> str:
    assert decisive is not None
    unproven = f"Whether this storage feeds {_subject(result)} is not proven"
    if decisive.rule == "evidence.target":
        rate = format_rate(result.metrics.delivered_bytes_per_second)
        return f"{unproven}: no storage was read; AU {au_told(result)} at {rate} is the harness's own ceiling"
    if decisive.rule == "au.interval":
        return f"{unproven}: {_measured(result)}, which lies inside the interval; more steps would tell"
    expected = f", {decisive.expected}" if decisive.rule in ("evidence.counters", "evidence.excess") else ""
    return f"{unproven}: {_lower_first(decisive.title)}: {decisive.observed}{expected}"


def _invalid(_: Result, decisive: Finding | None) -> str:
    assert decisive is not None
    return f"The run is invalid: {_lower_first(decisive.title)}: {decisive.observed}"


def _partial(result: Result, decisive: Finding | None) -> str:
    assert decisive is not None
    return f"The run is partial: it was cut short ({decisive.observed}) after {result.metrics.steps} kept steps"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _fallback(findings: list[Finding]) -> str:
    told = [f for f in findings if f.rule == "evidence.io_mode"]
    return f"; asked for {told[0].expected} reading, got {told[0].observed}" if told else ""


def _flattered(answer: str, findings: list[Finding]) -> str:
    weak = [f for f in findings if RULES[f.rule].effect == "flatters"]
    if answer not in ("no", "client_limited") or not weak:
        return ""
    return f"; even so, the figure may be flattered ({weak[0].observed})"
