"""The page of rules is what the catalogue, the checks and the corpus give."""

from mlperf_page import breakers, generated, written

from stoker.bench.rules.mlperf import RULES
from stoker.bench.rules.mlperf.judging import CHECKS


def test_the_table_of_the_page_is_up_to_date() -> None:
    assert written() == generated(), "run: python tests/unit/rules/mlperf_page.py"


def test_the_table_names_every_rule_and_a_breach_of_every_decided_one() -> None:
    lines = [line for line in generated().splitlines() if line.startswith("| ") and "`" in line]
    for rule in RULES.values():
        (line,) = [each for each in lines if each.startswith(f"| {rule.id} `{rule.name}` ")]
        assert (rule.why_not in line) if not rule.decidable else (f"`{CHECKS[rule.id].name}`" in line)
    assert set(breakers()) == set(CHECKS)
