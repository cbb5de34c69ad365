"""Each rule about checkpoints accepts the good run and names its own breach; the answer follows."""

from typing import Any

import msgspec
import pytest
from good_caches import good_cache
from good_results import good_result
from good_saves import MEMORY, SAVE_BREACHES, SIZE, good_saves
from good_searches import good_search

from stoker.bench.rules import RULES, judge
from stoker.bench.rules.verdict import CHECKS, applying

ANSWERS = {
    "checkpoint.target": "not_proven",
    "checkpoint.done": "invalid",
    "checkpoint.client": "client_limited",
    "checkpoint.durable": "not_proven",
    "checkpoint.written": "not_proven",
}


def rules_of(**changes: Any) -> set[str]:
    return {finding.rule for finding in judge(good_saves(**changes)).findings}


def test_the_good_run_has_no_findings_and_tells_both_rates() -> None:
    verdict = judge(good_saves())
    assert (verdict.answer, verdict.findings) == ("yes", ())
    assert verdict.headline == (
        "This storage saves one in 1.00 s (1.00 GiB/s) and loads one in 1.00 s (1.00 GiB/s): checkpoints of llama3-8b "
        "(1.00 GiB) from 2 ranks."
    )


@pytest.mark.parametrize("rule_id", SAVE_BREACHES)
def test_breach_is_found_by_its_own_rule(rule_id: str) -> None:
    result = good_saves(**SAVE_BREACHES[rule_id])
    before = msgspec.json.encode(result)
    findings = CHECKS[rule_id](result)
    assert [finding.rule for finding in findings] == [rule_id]
    assert findings[0].observed and findings[0].remedy
    assert CHECKS[rule_id](good_saves()) == []
    verdict = judge(result)
    assert rule_id in {finding.rule for finding in verdict.findings}
    assert verdict.answer == ANSWERS.get(rule_id, "yes")
    assert verdict.headline.endswith(".") and ".." not in verdict.headline
    assert msgspec.json.encode(result) == before


def test_each_kind_of_run_has_its_own_rules() -> None:
    training = {rule.id for rule in applying(good_result())}
    saving = {rule.id for rule in applying(good_saves())}
    serving = {rule.id for rule in applying(good_cache())}
    searching = {rule.id for rule in applying(good_search())}
    assert training | saving | serving | searching == set(RULES)
    assert "au.threshold" in training - saving
    assert "checkpoint.done" in saving - training
    assert {"run.complete", "evidence.cache"} <= training & saving


def test_data_from_the_page_cache_flatters_loads_as_it_does_reading() -> None:
    cached = {"ledger__from_cache_bytes": SIZE, "ledger__from_store_bytes": SIZE, "counters__process_read_bytes": SIZE}
    verdict = judge(good_saves(**cached))
    assert verdict.answer == "not_proven"
    assert "page cache" in verdict.headline


def test_a_write_that_stayed_in_the_page_cache_is_flagged() -> None:
    dirty = judge(good_saves(save2__dirty_bytes=SIZE // 4))
    assert dirty.answer == "not_proven"
    assert "256.00 MiB lay in the page cache alone" in dirty.headline
    assert "checkpoint.durable" in rules_of(evidence__durable=False)
    assert "checkpoint.durable" not in rules_of(evidence__durable=False, what__fsync="data")


def test_without_a_device_the_kernels_count_is_the_witness() -> None:
    no_device = {"evidence__device": "", "save1__device_written_bytes": None}
    assert "checkpoint.written" not in rules_of(**no_device)
    assert "checkpoint.written" in rules_of(**no_device, counters__process_write_bytes=SIZE)
    assert "checkpoint.written" in rules_of(**no_device, counters__process_write_bytes=None)


def test_an_object_store_acknowledges_and_has_no_page_cache() -> None:
    network = {
        "evidence__io_mode": "network",
        "evidence__io_mode_requested": "network",
        "evidence__target_kind": "s3",
        "evidence__device": "",
        "counters__process_write_bytes": 0,
        "counters__process_read_bytes": 0,
        "counters__http_body_bytes": 2 * SIZE,
        "load1__resident_bytes": None,
        "load2__resident_bytes": None,
    }
    assert judge(good_saves(**network)).answer == "yes"
    assert rules_of(**network) == set()


def test_three_times_the_memory_excuses_a_cache_that_was_not_emptied() -> None:
    resident = {"load1__resident_bytes": SIZE}
    assert "checkpoint.memory" in rules_of(**resident)
    assert "checkpoint.memory" not in rules_of(**resident, machine={"memory_bytes": 2 * SIZE // 3})
    assert "checkpoint.memory" in rules_of(**resident, machine={"memory_bytes": MEMORY})


@pytest.mark.parametrize(("gap", "broken"), [(0.0, False), (30.0, False), (30.1, True), (-0.1, True)])
def test_a_handover_lasts_0_to_30_seconds(gap: float, *, broken: bool) -> None:
    assert ("checkpoint.handover" in rules_of(what__hand_over_seconds=gap)) == broken


def test_missing_loads_and_short_ones_are_invalid() -> None:
    result = good_saves()
    result.checkpoints.pop()
    assert judge(result).answer == "invalid"
    assert judge(good_saves(load2__bytes=SIZE - 1)).answer == "invalid"


def test_a_partial_run_is_labelled_with_how_far_it_came() -> None:
    verdict = judge(good_saves(status="partial", reason="stopped by SIGTERM", load2__complete=False))
    assert verdict.answer == "partial"
    assert "after 3 saves and loads" in verdict.headline
