"""Each rule about KV caches accepts the good run and names its own breach; the answer follows."""

import msgspec
import pytest
from good_caches import CACHE_BREACHES, SIZE, good_cache

from stoker.bench.report.html import render
from stoker.bench.report.page import Saved
from stoker.bench.report.terminal import summary_dict
from stoker.bench.rules import judge
from stoker.bench.rules.verdict import CHECKS, applying
from stoker.core.result import Result

ANSWERS = {
    "kvcache.target": "not_proven",
    "kvcache.done": "invalid",
    "kvcache.storage": "not_proven",
    "kvcache.client": "client_limited",
    "kvcache.break_even": "no",
    "kvcache.memory": "not_proven",
    "kvcache.durable": "not_proven",
    "kvcache.few": "not_proven",
    "kvcache.written": "not_proven",
}


def broken(rule_id: str) -> Result:
    result = good_cache()
    CACHE_BREACHES[rule_id](result)
    if rule_id == "kvcache.break_even":
        assert result.kvcache is not None
        result.kvcache.break_even_bytes_per_second = 3.0 * SIZE
    return result


def test_the_good_run_has_no_findings() -> None:
    verdict = judge(good_cache())
    assert (verdict.answer, verdict.findings) == ("yes", ())
    assert verdict.headline == (
        "This storage serves the KV cache of llama3.1-8b for 2 clients of 100 users: it reads 2.00 GiB/s and writes "
        "1.00 GiB/s in entries of 102.40 MiB, 100 tokens/s."
    )


@pytest.mark.parametrize("rule_id", CACHE_BREACHES)
def test_breach_is_found_by_its_own_rule(rule_id: str) -> None:
    result = broken(rule_id)
    before = msgspec.json.encode(result)
    findings = CHECKS[rule_id](result)
    assert [finding.rule for finding in findings] == [rule_id]
    assert findings[0].observed and findings[0].remedy
    assert CHECKS[rule_id](good_cache()) == []
    verdict = judge(result)
    assert rule_id in {finding.rule for finding in verdict.findings}
    assert verdict.answer == ANSWERS.get(rule_id, "yes")
    assert verdict.headline.endswith(".") and ".." not in verdict.headline
    assert msgspec.json.encode(result) == before


def test_data_from_the_page_cache_withholds_the_yes() -> None:
    result = good_cache()
    result.evidence.ledger.from_cache_bytes = result.evidence.ledger.from_store_bytes = SIZE
    result.evidence.counters.process_read_bytes = SIZE
    assert judge(result).answer == "not_proven"


def test_rules_of_training_and_checkpoints_are_not_asked() -> None:
    asked = {rule.id for rule in applying(good_cache())}
    assert not {"au.threshold", "run.steps", "checkpoint.done", "coverage.exact"} & asked
    assert {"run.complete", "rank.missing", "evidence.cache", "evidence.counters", *CACHE_BREACHES} <= asked


def test_the_page_shows_rates_latencies_and_the_bytes_beside_them() -> None:
    result = good_cache()
    page = render(Saved(result, judge(result)))
    for told in ("2.00 GiB/s", "Latencies by tier", "102.40 MiB", "storage read, device", "4.00 ×", "KV cache"):
        assert told in page
    for absent in ("accelerator utilisation<br>", 'id="epochs"'):
        assert absent not in page
    figures = summary_dict(result, judge(result))["kvcache"]
    assert figures["read_bytes_per_second"] == 2.0 * SIZE
