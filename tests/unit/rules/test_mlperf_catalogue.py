"""The catalogue is whole: every decidable rule has a check, a tree that passes it and one that breaks it."""

from pathlib import Path

import mlperf_corpus_more
import pytest
from mlperf_corpus import CORPUS
from mlperf_places import BASES

from stoker.bench.rules.mlperf import RULES, judge_tree, read_tree
from stoker.bench.rules.mlperf.catalogue import FAMILIES
from stoker.bench.rules.mlperf.judging import CHECKS
from stoker.bench.rules.mlperf.matrix import counts, rows

assert mlperf_corpus_more  # it fills the corpus
# The ids of the v3.0 rules, as its own list has them.
KNOWN_IDS = """
1.1 1.2 2.1.1 2.1.2 2.1.3 2.1.4 2.1.5.a 2.1.5.b 2.1.6 2.1.7 2.1.8 2.1.9 2.1.10 2.1.11 2.1.12 2.1.13 2.1.14 2.1.15
2.1.16 2.1.17 2.1.18 2.1.18a 2.1.19 2.1.20 2.1.21 2.1.22 2.1.23 2.1.24 2.1.24a 2.1.25 2.1.26 2.1.27 2.29
3.1.1 3.1.2 3.2.1 3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.3.6 3.3.7 3.3.8 3.4.1 3.4.2 3.6.1 3.6.2 3.6.3
4.3.1 4.3.2 4.3.3 4.3.4 4.3.5 4.3.6 4.4.1 4.4.2 4.6.1 4.6.2 4.6.3 4.6.4 4.7.1 4.7.2 4.7.3 4.7.4
5.1.1 5.1.2 5.2.1 5.2.2 5.3.1 5.3.2 5.3.3 5.3.4 5.3.5 5.4.1 5.4.2 5.5.1 5.6.1 5.6.2 5.6.3 5.6.4 5.6.5
6.3.1.1 6.3.2.1 6.3.2.2 6.3.3.1 6.3.3.2 6.3.3.3 6.3.3.4 6.3.4.1 6.3.4.2 6.3.4.3 6.3.4.4 6.3.4.5 6.4.1 6.4.2
6.5.1 6.5.2 6.6.1 6.6.2 6.6.3 PROV-01 PROV-02 EDN-03 CHECK-01 CHECK-02 CHECK-03 CHECK-04 CAP-01 CAP-02 CAP-03
"""


def test_every_known_rule_is_in_the_catalogue() -> None:
    assert set(KNOWN_IDS.split()) <= set(RULES)
    assert all("3.0" in RULES[rule].editions for rule in KNOWN_IDS.split())


@pytest.mark.parametrize("rule", list(RULES.values()), ids=lambda rule: rule.id)
def test_rule_is_decided_or_says_why_not(rule) -> None:
    assert (rule.id in CHECKS) == rule.decidable
    assert rule.family in (*FAMILIES, "any")
    assert rule.editions and rule.divisions and rule.title and rule.name
    assert not (rule.undecidable and rule.covered_by)
    assert set(rule.covered_by) <= set(CHECKS)
    if rule.decidable:
        assert rule.tested.endswith(".") and rule.remedy
    else:
        assert rule.why_not


def test_names_differ() -> None:
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


def test_every_check_belongs_to_a_rule() -> None:
    assert set(CHECKS) <= set(RULES)


def test_every_decidable_rule_is_broken_by_a_tree_of_the_corpus() -> None:
    broken = {rule for each in CORPUS for rule in each.rules}
    assert broken == set(CHECKS)


def test_every_decidable_rule_is_passed_by_a_valid_tree(tmp_path: Path) -> None:
    passed: set[str] = set()
    for name in ("everything", "open_kv", "second_edition", "open_checkpointing", "gated"):
        root = tmp_path / name
        root.mkdir()
        BASES[name](root)
        passed |= {each.rule for each in judge_tree(read_tree(root)).rules if each.state == "passed"}
    with_checksum = judge_tree(read_tree(tmp_path / "everything"), reference_checksum="0123456789abcdef" * 2)
    passed |= {each.rule for each in with_checksum.rules if each.state == "passed"}
    assert set(CHECKS) - passed == set()


def test_a_rule_that_cannot_be_decided_never_counts_as_passed(tmp_path: Path) -> None:
    BASES["everything"](tmp_path)
    for outcome in judge_tree(read_tree(tmp_path)).rules:
        if not RULES[outcome.rule].decidable:
            assert (outcome.state, outcome.passed) == ("undecided", 0)
            assert outcome.reason


def test_matrix_counts_add_up() -> None:
    numbers = counts(rows())
    assert numbers["rules"] == len(RULES) == numbers["decided"] + numbers["covered"] + numbers["undecidable"]
    assert numbers["decided"] == len(CHECKS)
    assert len(rows("1.0")) < len(rows("2.0")) < len(rows("3.0"))
    assert {row["id"] for row in rows("3.0", "open")} & {"3.6.2", "3.6.3"} == {"3.6.3"}
