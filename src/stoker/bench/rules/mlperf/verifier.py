"""A job held against the rules before it runs: what breaks one, which hold, and which only the run can tell.

Each issue says how far it lets a result be submitted: in closed, in open, or not at all (invalid); the worst of them is
the verdict. A closed job with a verdict of open is not started, nor is an invalid one unless that was allowed.
"""

from typing import Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import RULES, MlperfRule
from stoker.bench.rules.mlperf.findings import Unknown
from stoker.bench.rules.mlperf.job_checks import CHECKS
from stoker.bench.rules.mlperf.job_facts import INVALID, Issue, JobFacts
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, WHATIF

__all__ = ("INVALID", "Issue", "JobFacts", "JobVerdict", "RuleForetold", "judge_job")
HOLDS: Final = "holds"
WARNED: Final = "warned"
BROKEN: Final = "broken"
LATER: Final = "later"
_AFTER: Final = "takes what the run leaves behind"
_ORDER: Final = (CLOSED, OPEN, INVALID)


class RuleForetold(msgspec.Struct, frozen=True):
    """A rule before the run: it holds, holds with a warning, is broken, or can be told only later, with the reason."""

    rule: str
    name: str
    state: str
    reason: str = ""


class JobVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a job may be submitted as, with all that speaks against it and every rule that concerns it."""

    validation: str
    division: str
    issues: tuple[Issue, ...]
    rules: tuple[RuleForetold, ...]

    @property
    def label(self) -> str:
        """Return the verdict in words."""
        if self.validation == INVALID:
            return "INVALID: not submittable"
        if self.division in (WHATIF, ""):
            return f"not submittable: {'a what-if' if self.division else 'no division was named'}"
        return f"submittable in {OPEN if OPEN in (self.validation, self.division) else CLOSED}, as far as can be told"

    def refusal(self, *, allow_invalid: bool = False) -> str:
        """Return why the job is not to be started, nothing when it may be.

        Invalid jobs start only where that is allowed, closed jobs that are open never.
        """
        wrong = {OPEN} if self.division == CLOSED else set()
        wrong |= set() if allow_invalid else {INVALID}
        return "; ".join(issue.sentence for issue in self.issues if issue.validation in wrong)

    def of(self, state: str) -> list[RuleForetold]:
        """Return the rules in a state: holds, warned, broken or later."""
        return [each for each in self.rules if each.state == state]


def judge_job(job: JobFacts) -> JobVerdict:
    """Return the verdict on a job, with every rule of its family, division and edition.

    A job of no division, and a what-if, are held to what open allows.
    """
    issues: list[Issue] = []
    told: list[RuleForetold] = []
    for rule in RULES.values():
        concerned = job.rules_division in rule.divisions and rule.family in ("any", job.family)
        if job.edition in rule.editions and concerned:
            found, foretold = _foretell(rule, job)
            issues += found
            told.append(foretold)
    worst = max((issue.validation for issue in issues), key=_ORDER.index, default=CLOSED)
    return JobVerdict(validation=worst, division=job.division, issues=tuple(issues), rules=tuple(told))


def _foretell(rule: MlperfRule, job: JobFacts) -> tuple[list[Issue], RuleForetold]:
    check = CHECKS.get(rule.id)
    if check is None:
        return [], RuleForetold(rule.id, rule.name, LATER, rule.why_not or _AFTER)
    said = list(check(job))
    found = [each for each in said if isinstance(each, Issue)]
    unknown = next((each.reason for each in said if isinstance(each, Unknown)), "")
    if any(issue.severity == "error" for issue in found):
        return found, RuleForetold(rule.id, rule.name, BROKEN, found[0].sentence)
    if found:
        return found, RuleForetold(rule.id, rule.name, WARNED, found[0].sentence)
    return [], RuleForetold(rule.id, rule.name, LATER if unknown else HOLDS, unknown or rule.tested)
