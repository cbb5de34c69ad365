"""Each rule accepts the good result and names its own breach, with figures and a remedy."""

import msgspec
import pytest
from good_caches import CACHE_BREACHES
from good_results import BREACHES, REQUESTED_BYTES, SLOW, good_result
from good_saves import SAVE_BREACHES
from good_searches import SEARCH_BREACHES

from stoker.bench.rules import RULES, judge
from stoker.bench.rules.catalogue import EFFECTS
from stoker.bench.rules.verdict import CHECKS
from stoker.core.plan import DatasetSpec
from stoker.core.result import Result


def rules_of(result: Result) -> set[str]:
    return {finding.rule for finding in judge(result).findings}


def test_catalogue_checks_and_breaches_name_the_same_rules() -> None:
    assert list(RULES) == list(CHECKS)
    assert set(RULES) == {*BREACHES, *SAVE_BREACHES, *SEARCH_BREACHES, *CACHE_BREACHES}


@pytest.mark.parametrize("rule", list(RULES.values()), ids=lambda rule: rule.id)
def test_catalogue_entry_is_whole(rule) -> None:
    assert rule.severity in ("blocks", "warns", "informs")
    assert rule.effect in EFFECTS
    assert (rule.severity == "blocks") == (rule.effect != "tells")
    assert rule.title and rule.tested.endswith(".") and rule.remedy


def test_good_result_has_no_findings() -> None:
    verdict = judge(good_result())
    assert verdict.answer == "yes"
    assert verdict.findings == ()


@pytest.mark.parametrize("rule_id", BREACHES)
def test_breach_is_found_by_its_own_rule(rule_id: str) -> None:
    result = good_result(**BREACHES[rule_id])
    findings = CHECKS[rule_id](result)
    assert [finding.rule for finding in findings] == [rule_id]
    assert findings[0].severity == RULES[rule_id].severity
    assert findings[0].observed and findings[0].remedy
    assert CHECKS[rule_id](good_result()) == []


@pytest.mark.parametrize("rule_id", BREACHES)
def test_judging_is_pure(rule_id: str) -> None:
    result = good_result(**BREACHES[rule_id])
    before = msgspec.json.encode(result)
    assert judge(result) == judge(result)
    assert msgspec.json.encode(result) == before


def test_unknown_status_is_invalid() -> None:
    assert judge(good_result(status="splendid")).answer == "invalid"


def test_repeated_rank_is_a_missing_one() -> None:
    assert "rank.missing" in rules_of(good_result(rank1__rank=0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
def test_impossible_utilisation_is_invalid(value: float) -> None:
    verdict = judge(good_result(metrics__au_low_ratio=value))
    assert verdict.answer == "invalid"


@pytest.mark.parametrize("steps", [1, 4])
def test_a_handful_of_steps_proves_nothing(steps: int) -> None:
    assert judge(good_result(metrics__steps=steps)).answer == "not_proven"
    assert judge(good_result(metrics__steps=steps, **SLOW)).answer == "not_proven"


def test_lower_end_on_the_threshold_is_enough() -> None:
    assert judge(good_result(metrics__au_low_ratio=0.9)).answer == "yes"


def test_memory_target_never_says_yes_and_names_the_ceiling() -> None:
    verdict = judge(good_result(evidence__io_mode="memory", evidence__target_kind="mem"))
    assert verdict.answer == "not_proven"
    assert "harness's own ceiling" in verdict.headline


def test_generator_that_reads_nothing_never_says_yes() -> None:
    verdict = judge(good_result(ledger__requested_bytes=0, ledger__from_store_bytes=0))
    assert verdict.answer == "not_proven"


def test_cached_share_stands_in_the_headline() -> None:
    assert "served from the page cache: 25.0 %" in judge(good_result(**BREACHES["evidence.cache"])).headline


def test_one_percent_from_cache_is_tolerated() -> None:
    one_percent = REQUESTED_BYTES // 100
    result = good_result(
        ledger__from_cache_bytes=one_percent,
        ledger__from_store_bytes=REQUESTED_BYTES - one_percent,
        counters__process_read_bytes=REQUESTED_BYTES - one_percent,
    )
    assert judge(result).answer == "yes"


def test_disagreeing_counters_tell_both_numbers() -> None:
    headline = judge(good_result(counters__process_read_bytes=2**32)).headline
    assert "4.00 GiB counted" in headline
    assert "9.31 GiB claimed" in headline


def test_absent_counters_withhold_a_yes() -> None:
    verdict = judge(good_result(counters__process_read_bytes=None))
    assert verdict.answer == "not_proven"
    assert "no counter" in verdict.headline


def test_object_store_is_held_against_response_bodies() -> None:
    network = {"evidence__io_mode": "network", "evidence__io_mode_requested": "network", "evidence__target_kind": "s3"}
    assert judge(good_result(**network, counters__process_read_bytes=0)).answer == "not_proven"
    bodies = {"counters__process_read_bytes": 0, "counters__http_body_bytes": REQUESTED_BYTES}
    assert judge(good_result(**network, **bodies)).answer == "yes"


def test_gaps_between_ranges_that_shared_a_request_are_no_excess() -> None:
    network = {"evidence__io_mode": "network", "evidence__io_mode_requested": "network", "evidence__target_kind": "s3"}
    bodies = {"counters__process_read_bytes": 0, "counters__http_body_bytes": REQUESTED_BYTES + REQUESTED_BYTES // 2}
    assert "evidence.excess" in rules_of(good_result(**network, **bodies))
    assert "evidence.excess" not in rules_of(
        good_result(**network, **bodies, counters__http_gap_bytes=REQUESTED_BYTES // 2)
    )


def test_whole_pages_of_small_files_are_no_excess_when_buffered() -> None:
    small_files = {"ledger__files_opened": 100_000, "counters__process_read_bytes": REQUESTED_BYTES + 200_000_000}
    buffered = {"evidence__io_mode": "buffered", "evidence__io_mode_requested": "buffered"}
    assert "evidence.excess" not in rules_of(good_result(**small_files, **buffered))
    assert "evidence.excess" in rules_of(good_result(**small_files))


@pytest.mark.parametrize(("data_format", "options"), [("jpeg", {}), ("npz", {"compression": "gzip"})])
def test_formats_that_unpack_may_deliver_more_than_was_read(data_format: str, options: dict) -> None:
    dataset = DatasetSpec(format=data_format, files=100, options=options)
    result = good_result(**BREACHES["evidence.payload"], plan__dataset=dataset)
    assert "evidence.payload" not in rules_of(result)


def test_direct_reading_does_not_mind_a_warm_cache() -> None:
    assert "evidence.epochs" not in rules_of(good_result(epoch2__cached_before_ratio=0.9))


def test_first_epoch_may_begin_warm_when_the_ledger_is_clean() -> None:
    result = good_result(evidence__io_mode="buffered")
    result.epochs[0].cached_before_ratio = 0.5
    assert "evidence.epochs" not in rules_of(result)


def test_fallback_stands_in_the_headline() -> None:
    verdict = judge(good_result(evidence__io_mode="buffered"))
    assert verdict.answer == "yes"
    assert "asked for direct reading, got buffered" in verdict.headline


@pytest.mark.parametrize("stage", ["verify", "decode", "transform", "batch"])
def test_own_stage_below_the_threshold_is_the_client(stage: str) -> None:
    limited = {"metrics__limiting_stage": stage, "metrics__stall_seconds": {stage: 9.0, "read": 1.0}}
    assert judge(good_result(**SLOW, **limited)).answer == "client_limited"
    assert judge(good_result(**limited)).answer == "yes"


def test_own_stage_does_not_excuse_a_store_that_waits_more_in_sum() -> None:
    stall = {"decode": 3.0, "open": 2.5, "read": 2.5}
    slow = good_result(**SLOW, metrics__limiting_stage="decode", metrics__stall_seconds=stall)
    assert judge(slow).answer == "no"


def test_uncovered_epoch_that_was_cut_short_is_not_invalid() -> None:
    assert judge(good_result(epoch2__coverage_exact=None)).answer == "yes"


def test_without_a_step_nothing_is_said_about_utilisation_or_the_client() -> None:
    result = good_result(**SLOW, metrics__client_cpu_ratio=0.97)
    result.metrics.steps = 0
    assert not {"au.threshold", "au.interval", "client.limit"} & rules_of(result)
