"""`stoker check` as it is typed: answers, exit codes, the three outputs, wrong use, trees from strangers."""

import csv
import io
import re
from pathlib import Path

import pytest
from cli_place import Place

from stoker.testing.mlperf_trees import TreeMaker

SCRIPTS_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "scripts.md").read_text()
MODEL = "tree/closed/example/results/sysA/training/unet3d"


@pytest.fixture
def tree(place: Place) -> Path:
    """A valid submission in the folder `tree`."""
    maker = TreeMaker(place / "tree")
    maker.training("closed", "sysA")
    maker.finish()
    return place / "tree"


def keys_of(command: str) -> set[str]:
    """Return the keys that the page for scripts lists beside a command."""
    (line,) = [line for line in SCRIPTS_PAGE.splitlines() if line.startswith(f"| `{command}` |")]
    return set(re.findall(r"`([a-z_]+)`", line.split("|")[2]))


def test_valid_tree(tree: Path, place: Place) -> None:
    before = place.tree()
    done = place.stoker("check", "tree")
    assert (done.code, done.errors) == (0, "")
    assert done.out.splitlines()[-1].startswith("VALID  package of edition 3.0, 1 result, 8 leaves: ")
    assert "ERROR" not in done.out
    assert "[INFO] [1.2 storageBackendEnvVarDeclaration]: not decided: " in done.out
    assert re.search(r"\[INFO\] \[CAP-01 freeSpace\] closed/\S+: not decided: no record of the gates", done.out)
    assert place.tree() == before


def test_json_has_the_documented_keys(tree: Path, place: Place) -> None:
    document = place.stoker("check", "tree", "--json").document
    assert set(document) == keys_of("check") - {"report", "verdict"}
    assert (document["answer"], document["exit_code"], document["findings"]) == ("valid", 0, [])
    assert document["counts"]["failed"] == 0
    listed = place.stoker("check", "--rules", "--json").document
    assert set(listed) == keys_of("check --rules")
    assert len(document["rules"]) <= listed["counts"]["rules"]


def test_every_breach_is_listed_in_one_pass_and_in_all_outputs(tree: Path, place: Place) -> None:
    (place / MODEL / "results.json").unlink()
    (place / "tree/mlperf-results.yaml").write_text("- {")
    for log in (place / MODEL / "run").glob("*/dlio.log"):
        log.unlink()
    done = place.stoker("check", "tree", "--json", "--csv", "summary.csv")
    assert (done.code, done.errors, done.document["answer"]) == (4, "", "invalid")
    assert {finding["rule"] for finding in done.document["findings"]} == {"2.1.16", "FILE-02", "2.29"}
    assert len(done.document["findings"]) == 8
    for finding in done.document["findings"]:
        assert all(finding[key] for key in ("name", "title", "observed", "expected", "path", "remedy"))
    rows = list(csv.DictReader(io.StringIO((place / "summary.csv").read_text())))
    assert [row["rule"] for row in rows if row["level"] == "ERROR"] == [f["rule"] for f in done.document["findings"]]
    assert any(row["message"].startswith("not decided: ") for row in rows if row["level"] == "INFO")
    text = place.stoker("check", "tree")
    lines = [line for line in text.out.splitlines() if line.startswith("[ERROR]")]
    assert len(lines) == 8
    assert all(re.match(r"\[ERROR\] \[[\w.-]+ \w+\] \S+: .*; required: ", line) for line in lines)
    assert text.code == 4


def test_what_is_missing_makes_it_not_proven(tree: Path, place: Place) -> None:
    leaf = sorted((place / MODEL / "run").iterdir())[2]
    leaf.rename(place / "leaf")
    done = place.stoker("check", "leaf", "--json")
    assert (done.code, done.document["answer"], done.document["kind"]) == (3, "not_proven", "leaf")
    assert done.document["counts"]["undecided"] > 0


def test_a_division_leaves_the_other_out(tree: Path, place: Place) -> None:
    assert place.stoker("check", "tree", "--division", "closed").code == 0
    done = place.stoker("check", "tree", "--division", "open", "--json")
    assert (done.code, [finding["rule"] for finding in done.document["findings"]]) == (4, ["TREE-01"])


def test_a_reference_checksum_decides_the_rule_of_the_code(tree: Path, place: Place) -> None:
    right, wrong = "0123456789abcdef" * 2, "f" * 32
    assert place.stoker("check", "tree", "--reference-checksum", right.upper()).code == 0
    done = place.stoker("check", "tree", "--reference-checksum", wrong, "--json")
    assert {finding["rule"] for finding in done.document["findings"]} == {"3.6.1"}
    place.stoker("check", "tree", "--reference-checksum", "abc").refused(2, "not an MD5 digest", "32 hex digits")


def test_rules_are_listed_by_edition_and_division(place: Place) -> None:
    every = place.stoker("check", "--rules")
    assert (every.code, every.errors) == (0, "")
    closed = place.stoker("check", "--rules", "--edition", "2.0", "--division", "closed")
    assert 0 < len(closed.out.splitlines()) < len(every.out.splitlines())
    assert "3.6.3 " not in closed.out
    assert "3.6.3 " in every.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to check"),
        (("gone",), "nothing there"),
        (("tree", "--rules"), "judges nothing"),
        (("--rules", "--csv", "x.csv"), "judges nothing"),
        (("tree", "--edition", "4.0"), "4.0"),
    ],
)
def test_wrong_use(words: tuple[str, ...], told: str, tree: Path, place: Place) -> None:
    place.stoker("check", *words).refused(2, told)


def test_summary_that_cannot_be_written_is_told(tree: Path, place: Place) -> None:
    place.stoker("check", "tree", "--csv", "no/such/folder/summary.csv").refused(1, "summary cannot be written")


def test_names_from_strangers_cannot_steer_the_terminal(tree: Path, place: Place) -> None:
    (place / MODEL / "run" / "\x1b[31mred\nline").mkdir()
    (place / MODEL / "\udcff\udcfe").write_text("")
    (place / MODEL / "=1+1").symlink_to("/etc/passwd")
    done = place.stoker("check", "tree", "--csv", "summary.csv")
    assert (done.code, done.errors) == (4, "")
    assert "\x1b" not in done.out
    assert done.out.isprintable() or set(done.out) - {"\n"} == {c for c in done.out if c.isprintable()}
    document = place.stoker("check", "tree", "--json").document
    assert {finding["rule"] for finding in document["findings"]} == {"FILE-01", "FILE-04", "2.1.27"}
    assert "root:" not in done.out + (place / "summary.csv").read_text()


def test_own_result_without_and_with_a_division(saved: Path, place: Place) -> None:
    before = place.tree()
    alone = place.stoker("check", "saved", "--json")
    report = place.stoker("report", "saved", "--dry-run", "--json")
    assert (alone.code, alone.document["answer"]) == (report.code, report.document["answer"])
    held = place.stoker("check", "saved/result.json", "--division", "closed", "--json")
    assert set(held.document) == keys_of("check") - {"report"}
    assert (held.code, held.document["exit_code"], held.document["kind"]) == (4, 4, "stoker result")
    assert {"2.1.11", "3.6.2"} & {finding["rule"] for finding in held.document["findings"]}
    assert held.document["verdict"]["answer"] == report.document["answer"]
    text = place.stoker("check", "saved", "--division", "open")
    assert text.code == 4
    assert "INVALID  stoker result of edition 3.0" in text.out
    assert place.tree() == before
    place.stoker("check", "saved", "--csv", "x.csv").refused(2, "held against a division")
    place.stoker("check", "saved", "--reference-checksum", "f" * 32).refused(2, "no code image")


def test_a_killed_run_is_recovered_and_nothing_is_saved(saved: Path, place: Place) -> None:
    (saved / "result.json").unlink()
    before = place.tree()
    done = place.stoker("check", "saved", "--json")
    assert (done.code, done.document["answer"]) == (6, "partial")
    held = place.stoker("check", "saved", "--division", "closed", "--json")
    assert held.code == 6
    assert "META-02" in {finding["rule"] for finding in held.document["findings"]}
    assert place.tree() == before


def test_a_file_that_is_no_result_is_told(place: Place) -> None:
    (place / "other.json").write_text("{}")
    place.stoker("check", "other.json").refused(1, "not a result")
