"""Every valid tree is accepted; every tree with one thing wrong is told of by exactly the rules concerned."""

import shutil
from pathlib import Path

import mlperf_corpus_more
import pytest
from mlperf_corpus import CORPUS, Broken
from mlperf_places import BASES, Spot

from stoker.bench.rules.mlperf import RULES, judge_tree, read_tree
from stoker.bench.rules.mlperf.findings import FINDING_SEVERITIES

assert mlperf_corpus_more  # it fills the corpus
VALID = dict.fromkeys(BASES, "valid") | {"old_model": "", "large_memory": "", "seven_runs": "", "nothing": ""}
VALID |= {"closed_wrong_index": "", "results_folder": "not_proven", "leaf": "not_proven"}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def made(bases: Path, name: str) -> Path:
    """Return the valid tree, made once."""
    root = bases / name
    if not root.exists():
        root.mkdir()
        BASES[name](root)
    return root


@pytest.mark.parametrize("name", [name for name, answer in VALID.items() if answer])
def test_valid_tree_has_no_findings(name: str, bases: Path) -> None:
    judgement = judge_tree(read_tree(made(bases, name)))
    assert [finding.line for finding in judgement.findings] == []
    assert judgement.answer == VALID[name]
    assert judgement.leaves > 0


@pytest.mark.parametrize("broken", CORPUS, ids=lambda broken: broken.name)
def test_breach_is_told_by_exactly_its_rules(broken: Broken, bases: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(made(bases, broken.base), root)
    broken.spoil(Spot(root))
    judgement = judge_tree(read_tree(root), reference_checksum=broken.checksum)
    assert {finding.rule for finding in judgement.findings} == broken.rules, [f.line for f in judgement.findings]
    for finding in judgement.findings:
        rule = RULES[finding.rule]
        assert finding.observed and finding.expected and finding.path and finding.remedy == rule.remedy
        assert finding.severity in (FINDING_SEVERITIES[rule.severity], "warns")
    failed = {outcome.rule for outcome in judgement.rules if outcome.state == "failed"}
    assert failed == broken.rules


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CORPUS) >= 60
    assert len({broken.name for broken in CORPUS}) == len(CORPUS)
