"""Which finding decides the answer, and what it does to the exit code."""

import itertools

import pytest
from good_results import BREACHES, REQUESTED_BYTES, SLOW, UNSURE, good_result
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.bench.rules import RULES, exit_code, judge
from stoker.core.result import Verdict

ORDER = ("partial", "invalid", "blinds", "client", "negative", "flatters", "statistics", "tells")
ANSWERS = ("partial", "invalid", "not_proven", "client_limited", "no", "not_proven", "not_proven", "yes")
REPRESENTATIVES = {
    "partial": BREACHES["run.complete"],
    "invalid": BREACHES["coverage.exact"],
    "blinds": BREACHES["evidence.target"],
    "client": {**SLOW, "metrics__client_cpu_ratio": 0.95},
    "negative": SLOW,
    "flatters": BREACHES["evidence.counters"],
    "statistics": UNSURE,
    "tells": BREACHES["run.clock"],
}
EXIT_CODES = {"yes": 0, "no": 3, "not_proven": 3, "client_limited": 3, "invalid": 4, "partial": 6}


@pytest.mark.parametrize(("graver", "lighter"), list(itertools.combinations(ORDER, 2)))
def test_graver_effect_decides(graver: str, lighter: str) -> None:
    result = good_result(**{**REPRESENTATIVES[lighter], **REPRESENTATIVES[graver]})
    verdict = judge(result)
    assert verdict.answer == ANSWERS[ORDER.index(graver)]
    assert RULES[verdict.findings[0].rule].effect == graver


@pytest.mark.parametrize("rule_id", BREACHES)
def test_only_tellings_leave_a_yes(rule_id: str) -> None:
    verdict = judge(good_result(**BREACHES[rule_id]))
    assert (verdict.answer == "yes") == (RULES[rule_id].severity != "blocks")


@pytest.mark.parametrize("rule_id", ["evidence.cache", "evidence.counters", "evidence.ledger", "evidence.payload"])
def test_no_stands_although_the_storage_was_flattered(rule_id: str) -> None:
    verdict = judge(good_result(**{**BREACHES[rule_id], **SLOW}))
    assert verdict.answer == "no"
    assert "may be flattered" in verdict.headline


def test_excess_reading_could_explain_a_no_and_withholds_it() -> None:
    assert judge(good_result(**{**BREACHES["evidence.excess"], **SLOW})).answer == "not_proven"


@pytest.mark.parametrize(("answer", "code"), list(EXIT_CODES.items()))
def test_exit_code(answer: str, code: int) -> None:
    assert exit_code(Verdict(answer, "")) == code


def test_a_failed_run_has_the_exit_code_of_a_failure_and_an_invalid_one_its_own() -> None:
    assert exit_code(judge(good_result(status="failed", reason="rank 0 was killed"))) == 1
    assert exit_code(judge(good_result(**BREACHES["coverage.exact"]))) == 4


def test_unknown_answer_has_no_exit_code() -> None:
    with pytest.raises(KeyError):
        exit_code(Verdict("perhaps", ""))


@pytest.mark.parametrize("rule_id", BREACHES)
def test_headline_is_one_sentence(rule_id: str) -> None:
    headline = judge(good_result(**BREACHES[rule_id])).headline
    assert headline.endswith(".") and not headline.endswith("..")
    assert "\n" not in headline


byte_counts = st.integers(0, REQUESTED_BYTES * 2)


@settings(max_examples=200, deadline=None)
@given(
    requested=st.integers(1, REQUESTED_BYTES),
    cached=byte_counts,
    store=byte_counts,
    counted=st.one_of(st.none(), byte_counts),
    mode=st.sampled_from(["direct", "buffered", "network"]),
)
def test_never_yes_with_cached_or_disputed_bytes(
    requested: int, cached: int, store: int, counted: int | None, mode: str
) -> None:
    result = good_result(
        ledger__requested_bytes=requested,
        ledger__wanted_bytes=requested,
        ledger__delivered_bytes=requested,
        ledger__from_cache_bytes=cached,
        ledger__from_store_bytes=store,
        ledger__files_opened=0,
        counters__process_read_bytes=counted,
        counters__http_body_bytes=counted,
        evidence__io_mode=mode,
    )
    disputed = counted is None or abs(store - counted) > 0.01 * requested
    unknown = abs(store + cached - requested) > 0.01 * requested
    if cached > 0.01 * requested or disputed or unknown:
        assert judge(result).answer == "not_proven"
    else:
        assert judge(result).answer == "yes"


@settings(max_examples=100, deadline=None)
@given(cached_ratio=st.floats(0, 1), apart_ratio=st.floats(-0.02, 0.02), files=st.integers(0, 10**6))
def test_yes_needs_99_percent_of_the_bytes_seen_leaving_the_store(
    cached_ratio: float, apart_ratio: float, files: int
) -> None:
    cached = int(REQUESTED_BYTES * cached_ratio)
    store = REQUESTED_BYTES - cached
    counted = max(0, store - int(REQUESTED_BYTES * apart_ratio))
    result = good_result(
        ledger__from_cache_bytes=cached,
        ledger__from_store_bytes=store,
        ledger__files_opened=files,
        counters__process_read_bytes=counted,
        evidence__io_mode="buffered",
    )
    if judge(result).answer == "yes":
        assert cached <= 0.01 * REQUESTED_BYTES
        assert counted >= store - 0.01 * REQUESTED_BYTES - 1
