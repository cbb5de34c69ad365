"""Each rule about collections accepts the good search and names its own breach; the answer follows."""

import msgspec
import pytest
from good_results import good_result
from good_searches import SEARCH_BREACHES, good_search

from stoker.bench.report.terminal import summary_dict
from stoker.bench.rules import exit_code, judge
from stoker.bench.rules.verdict import CHECKS, applying

ANSWERS = {
    "vector.loaded": "invalid",
    "vector.answered": "invalid",
    "vector.truth": "invalid",
    "vector.recall": "invalid",
    "vector.unread": "not_proven",
    "vector.client": "client_limited",
    "vector.target": "no",
}


def test_the_good_search_has_no_findings_and_tells_rate_recall_and_tail() -> None:
    verdict = judge(good_search())
    assert (verdict.answer, verdict.findings, exit_code(verdict)) == ("yes", (), 0)
    assert verdict.headline == (
        "This database answers 200 queries/s at recall 95.00 %, 99 % of requests within 30 ms: 5000 vectors of 64 "
        "numbers under HNSW from 1 process."
    )


@pytest.mark.parametrize("rule_id", SEARCH_BREACHES)
def test_breach_is_found_by_its_own_rule(rule_id: str) -> None:
    result = good_search(**SEARCH_BREACHES[rule_id])
    before = msgspec.json.encode(result)
    findings = CHECKS[rule_id](result)
    assert [finding.rule for finding in findings] == [rule_id]
    assert findings[0].observed and findings[0].remedy
    assert CHECKS[rule_id](good_search()) == []
    verdict = judge(result)
    assert {finding.rule for finding in verdict.findings} == {rule_id}
    assert verdict.answer == ANSWERS.get(rule_id, "yes")
    assert verdict.headline.endswith(".") and ".." not in verdict.headline
    assert msgspec.json.encode(result) == before


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"figures__recall": None}, "invalid"),
        ({"figures__truth": None}, "invalid"),
        ({"recall__mean": float("nan")}, "invalid"),
        ({"figures__queries": 0, "figures__requests": 0}, "invalid"),
        ({"plan__engine": "milvus-lite"}, "not_proven"),
        ({"status": "partial", "reason": "stopped by SIGINT"}, "partial"),
        ({"status": "failed", "reason": "rank 1 was killed"}, "invalid"),
        ({"ranks": []}, "invalid"),
    ],
)
def test_what_else_decides(changes: dict[str, object], answer: str) -> None:
    assert judge(good_search(**changes)).answer == answer


def test_no_rule_of_accelerators_is_asked_of_vectors() -> None:
    rules = {rule.id for rule in applying(good_search())}
    assert set(SEARCH_BREACHES) <= rules and {"run.complete", "rank.missing"} <= rules
    assert not {"au.threshold", "checkpoint.done", "evidence.ledger"} & rules
    assert not set(SEARCH_BREACHES) & {rule.id for rule in applying(good_result())}


def test_the_summary_holds_the_figures() -> None:
    result = good_search()
    told = summary_dict(result, judge(result))
    assert told["vectors"]["queries_per_second"] == 200.0 and told["vectors"]["recall"]["mean"] == 0.95
