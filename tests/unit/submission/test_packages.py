"""A package of our own making is judged as any other: valid when it is whole, and every breach is told."""

import json
from pathlib import Path

import pytest

from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.validator import faults
from stoker.core.plain_yaml import load_plain

ARTEFACTS = {"1.1", "2.1.6", "2.1.7", "2.1.8", "2.1.16", "2.1.22", "PROV-01", "PROV-02", "META-01", "META-02"}
ARTEFACTS |= {"CHECK-01", "CHECK-02", "CHECK-03", "CHECK-04", "COMP-01", "3.3.8", "4.3.6"}


def judged(root: Path) -> tuple[str, list[str]]:
    judgement = judge_tree(read_tree(root))
    return judgement.answer, [finding.line for finding in judgement.findings]


def test_whole_package_is_valid(made: Path) -> None:
    judgement = judge_tree(read_tree(made))
    assert [finding.line for finding in judgement.findings] == []
    assert judgement.answer == "valid"
    states = {outcome.rule: outcome.state for outcome in judgement.rules}
    assert {rule: states[rule] for rule in ARTEFACTS} == dict.fromkeys(ARTEFACTS, "passed")


KINDS = {
    "provenance.json": "provenance",
    "*_metadata.json": "metadata",
    "submission.yaml": "submission",
    "systems/*.yaml": "system_description",
    "results.json": "results",
    "training/*/run/*/summary.json": "summary_training",
    "checkpointing/*/*/summary.json": "summary_checkpointing",
    "kv_cache/*/run/*/summary.json": "summary_kv_cache",
}


@pytest.mark.parametrize("pattern", KINDS)
def test_every_document_keeps_its_published_schema(made: Path, pattern: str) -> None:
    found = [path for path in sorted(made.rglob(pattern)) if "code-images" not in path.parts]
    assert found
    for path in found:
        text = path.read_text()
        document = load_plain(text) if path.suffix == ".yaml" else json.loads(text)
        assert faults(document, shipped_schema(KINDS[pattern])) == [], path


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda root: next(root.glob("closed/*/results/*/training/*/results.json")).unlink(), "2.1.16"),
        (lambda root: (root / "closed/example/systems/sysA.pdf").unlink(), "2.1.7"),
        (lambda root: (root / "closed/example/submission.yaml").unlink(), "PROV-02"),
        (lambda root: next(root.rglob("provenance.json")).unlink(), "PROV-01"),
        (lambda root: next(root.rglob(".mlps-code-image")).unlink(), "CHECK-01"),
    ],
)
def test_what_is_taken_away_is_missed(tree: Path, spoil: object, rule: str) -> None:
    assert callable(spoil)
    spoil(tree)
    answer, lines = judged(tree)
    assert answer == "invalid"
    assert [line for line in lines if f"[{rule} " not in line] == []
    assert lines


def test_figure_that_was_edited_is_found_and_a_new_rollup_mends_it(tree: Path) -> None:
    from stoker.bench.report.submission import write_rollups

    path = next(tree.glob("closed/*/results/*/training/*/results.json"))
    rows = json.loads(path.read_text())
    rows[0]["Read B/W (GiB/s)"] *= 1.1
    path.write_text(json.dumps(rows))
    answer, lines = judged(tree)
    assert answer == "invalid" and all("[3.3.8 " in line for line in lines)
    write_rollups(tree)
    assert judged(tree) == ("valid", [])


def test_code_that_was_edited_after_it_ran_is_found(tree: Path) -> None:
    (image,) = tree.glob("code-images/code-*")
    (image / "cli/main.py").write_text("print('another tool')\n")
    answer, lines = judged(tree)
    assert answer == "invalid"
    assert len(lines) == 1 and "[CHECK-02 " in lines[0] and "the code counts to" in lines[0]


def test_code_that_cannot_be_counted_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.bench.rules.mlperf.code_images.FILES_MAX", 3)
    answer, lines = judged(tree)
    assert answer == "invalid" and ["too many files" in line for line in lines] == [True]


def test_closed_code_is_held_against_a_checksum_that_is_given(made: Path) -> None:
    (image,) = made.glob("code-images/code-*")
    digest = json.loads((image / ".code-hash.json").read_text())["hash"]
    assert judge_tree(read_tree(made), reference_checksum=digest).answer == "valid"
    judgement = judge_tree(read_tree(made), reference_checksum="0" * 32)
    assert {finding.rule for finding in judgement.findings} == {"3.6.1"}
