"""The catalogue against a text of the rules; trees of several submitters of whom some are asked for; editions."""

from pathlib import Path

import pytest

from stoker.bench.rules.mlperf import RULES, judge_tree, read_tree
from stoker.bench.rules.mlperf.coverage import coverage, mentions, read_text
from stoker.bench.rules.mlperf.judging import CHECKS
from stoker.bench.rules.mlperf.tables import edition_of
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.testing.mlperf_trees import TreeMaker

FORMS = ("{0}. **{1}** -- text", "### {0} {1}", "| {0} | {1} | text |", "* `{0}` `{1}`", "- [{0}]: {1}", "**{0} {1}**")


@pytest.mark.parametrize("form", FORMS)
def test_every_rule_is_found_however_it_is_set_off(form: str) -> None:
    text = "\n".join(form.format(rule.id, rule.name) for rule in RULES.values())
    found = coverage(text)
    assert set(found.checked) == set(CHECKS) and set(found.unchecked) == set(RULES) - set(CHECKS)
    assert found.unknown == found.renamed == found.unnamed == ()


def test_sections_numbers_and_words_are_no_rules() -> None:
    lines = ("2.1 Structure", "3.3.2 training", "version 1.2.3 of aTool, 10.5 GiB", "v2.1.1 someName x2.1.1 someName")
    assert mentions("\n".join((*lines, "2026-03-02 runTimestamps"))) == {}


def test_the_first_mention_counts_and_order_is_kept() -> None:
    assert mentions("3.1.1 secondRule, 2.1.1 firstRule; 3.1.1 anotherName") == {
        "3.1.1": "secondRule",
        "2.1.1": "firstRule",
    }


def test_an_edition_has_fewer_rules() -> None:
    text = "\n".join(f"{rule.id} {rule.name}" for rule in RULES.values())
    found = coverage(text, "1.0")
    assert {each for each, _ in found.unknown} == {rule.id for rule in RULES.values() if "1.0" not in rule.editions}


def test_a_text_made_to_cost_time_costs_little() -> None:
    assert mentions("1.1.1" + " ." * 500_000 + "x" * 1_000_000 + "1." * 1_000_000) == {}


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_text(tmp_path)
    (tmp_path / "huge").write_bytes(b"x" * ((8 << 20) + 1))
    with pytest.raises(CorruptError, match="too long"):
        read_text(tmp_path / "huge")


@pytest.mark.parametrize(("text", "edition"), [("3.0", "3.0"), ("v3.0", "3.0"), ("3.0.12", "3.0"), ("1.0", "1.0")])
def test_a_version_is_of_an_edition(text: str, edition: str) -> None:
    assert edition_of(text) == edition


@pytest.mark.parametrize("text", ["", "3", "4.0", "3.0b1", "3.0\n", "٣.0"])
def test_other_versions_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no such edition"):
        edition_of(text)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees of two submitters, merged by hand; `bad` lacks a rollup and uses an image that nobody else does."""
    root = tmp_path_factory.mktemp("merged") / "tree"
    for org in ("good", "bad"):
        maker = TreeMaker(root, org=org)
        maker.training("closed", "sysA")
        maker.finish()
    (root / "mlperf-results.yaml").unlink()
    (root / "closed/bad/results/sysA/training/unet3d/results.json").unlink()
    image = root / "code-images" / "code-ffffffff"
    image.mkdir()
    (image / ".code-hash.json").write_text('{"hash": "ffffffff000000000000000000000000"}')
    for pointer in (root / "closed/bad").rglob(".mlps-code-image"):
        pointer.write_text("code-ffffffff\n")
    return root


def test_the_others_are_left_out_and_leave_no_trace_in_the_verdict(merged: Path) -> None:
    judgement = judge_tree(read_tree(merged, submitters=["good"]))
    assert judgement.answer == "valid", judgement.findings
    assert {facts.submitter for facts in judgement.facts} == {"good"}
    both = judge_tree(read_tree(merged))
    assert both.answer == "invalid" and both.leaves == 2 * judgement.leaves
    assert judge_tree(read_tree(merged, submitters=["good", "bad"])).answer == "invalid"


def test_a_submitter_that_is_not_there_is_refused(merged: Path) -> None:
    with pytest.raises(UsageError, match=r"no such submitter.*bad, good"):
        read_tree(merged, submitters=["good", "evil"])
