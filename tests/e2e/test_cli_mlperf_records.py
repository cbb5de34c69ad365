"""`stoker mlperf init, runs, history, lockfile, validate, rules-coverage, reports, version` as they are typed."""

import csv
import io
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest
from cli_place import STOKER, Done, Place, environment

from stoker.bench.run.mlperf.journal import begin, end
from stoker.bench.run.mlperf.results_dir import ResultsDir, open_results
from stoker.testing.mlperf_trees import TreeMaker

SCRIPTS_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "scripts.md").read_text()
LEAF = "closed/acme/results/sysA/training/unet3d/run"


class Records:
    """Commands of `stoker mlperf` in a place, with a home of their own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.variables = {"HOME": str(place / "home"), "XDG_CONFIG_HOME": "", "MLPSTORAGE_RESULTS_DIR": ""}

    def __call__(self, *words: str, **variables: str) -> Done:
        return self.place.stoker("mlperf", *words, **{**self.variables, **variables})

    def results(self) -> ResultsDir:
        assert self("init", "acme", "results").code == 0
        return open_results(str(self.place / "results"), {})

    def run_of(self, stamp: str, *, code: int | None = 0, words: tuple[str, ...] = ("mlperf", "version")) -> str:
        """Journal a run with a leaf, as the tree of commands does."""
        results = open_results(str(self.place / "results"), {})
        leaf = results.leaf("closed", "sysA", "training", "unet3d", "run", stamp)
        leaf.mkdir(parents=True)
        (leaf / "summary.json").write_text('{"metric": {"train_au_mean_percentage": 97.4}}')
        facts = {"division": "closed", "family": "training", "model": "unet3d", "command": "run", "system": "sysA"}
        run = begin(results, words, leaf=leaf, **facts)
        if code is not None:
            end(results, run, exit_code=code, seconds=12.5)
        return run


@pytest.fixture
def mlperf(place: Place) -> Records:
    """The commands, in an empty place."""
    return Records(place)


def tree_of(root: Path, *, edition: str = "3.0", orgs: tuple[str, ...] = ("example",)) -> Path:
    for org in orgs:
        maker = TreeMaker(root, edition=edition, org=org)
        maker.training("closed", "sysA", accelerator="b200" if edition == "3.0" else "h100")
        maker.finish()
    return root


# -- init ------------------------------------------------------------------------------------------------------------


def test_init_records_the_default_that_all_others_use(mlperf: Records) -> None:
    done = mlperf("init", "acme", "results")
    assert (done.code, done.errors) == (0, "")
    assert "is the results directory of acme" in done.out
    assert mlperf("runs", "list").out == "no runs\n"
    assert mlperf("runs", "list", "-rd", "results", "--json").document["runs"] == []
    assert mlperf("init", "acme", "results").code == 0


def test_init_takes_the_variable_or_the_current_folder(mlperf: Records) -> None:
    assert mlperf("init", "acme", MLPSTORAGE_RESULTS_DIR="there").code == 0
    assert (mlperf.place / "there" / "mlperf-results.yaml").is_file()
    (mlperf.place / "thesis.txt").write_text("years")
    mlperf("init", "acme").refused(5, "not empty")


def test_init_refuses_another_name_illegal_names_and_earlier_spellings_are_told(mlperf: Records) -> None:
    mlperf.results()
    mlperf("init", "Acme", "results").refused(5, "double-init", "acme")
    mlperf("init", "a b", "new").refused(2, "not a legal name")
    mlperf("init").refused(2, "ORGNAME")
    done = mlperf("init", "acme", "results", MLPERF_RESULTS_DIR="x")
    assert done.code == 0 and "MLPERF_RESULTS_DIR is an earlier spelling" in done.errors


def test_without_a_results_directory_all_say_e101(mlperf: Records) -> None:
    for words in (["runs", "list"], ["runs", "gc"], ["history", "show"], ["reports", "reportgen"]):
        mlperf(*words).refused(2, "E101", "MLPSTORAGE_RESULTS_DIR")
        mlperf(*words, "--results-dir", "missing").refused(5, "E101", "not initialised")


def test_earlier_spellings_are_told_by_all_that_look_for_the_directory(mlperf: Records) -> None:
    mlperf.results()
    done = mlperf("runs", "list", MLPERF_SYSTEMNAME="sysA")
    assert done.out == "no runs\n"
    assert (
        done.errors == "[WARNING] MLPERF_SYSTEMNAME is an earlier spelling without effect: set MLPSTORAGE_SYSTEMNAME\n"
    )


def test_how_much_is_told_besides_the_answer(mlperf: Records) -> None:
    mlperf.results()
    hint = {"MLPERF_DATA_DIR": "x"}
    for words in (["--quiet"], ["--stream-log-level", "ERROR"]):
        assert mlperf("runs", "list", *words, **hint).errors == ""
    for words, variables in ((["--debug"], {}), (["--verbose"], {}), ([], {"MLPS_DEBUG": "1"})):
        assert re.fullmatch(r"\[DEBUG\] took [0-9.]+ s\n", mlperf("runs", "list", *words, **variables).errors)
    assert "\x1b[33mWARNING" in mlperf("runs", "list", "--color", "always", **hint).errors
    told = mlperf("validate", "results", "--color", "always", "--skip-output-file").out
    assert "\x1b[31m[ERROR]" in told
    assert "\x1b" not in mlperf("validate", "results", "--color", "never", "--skip-output-file").out


def test_a_lock_may_have_to_hold_first(mlperf: Records) -> None:
    mlperf.results()
    (mlperf.place / "lock.txt").write_text("click==0.1\n")
    mlperf("runs", "list", "--verify-lockfile", "lock.txt").refused(5, "not as locked (PKG-03)")
    (mlperf.place / "lock.txt").write_text("")
    done = mlperf("runs", "list", "--verify-lockfile", "lock.txt")
    assert (done.code, done.out) == (0, "no runs\n") and "0 of 0 packages as locked" in done.errors


def test_a_dry_run_tells_and_does_nothing(mlperf: Records) -> None:
    results = mlperf.results()
    (results.root / "code-images" / "code-ffffffff").mkdir(parents=True)
    mlperf.run_of("20260302_100000")
    before = mlperf.place.tree()
    told = mlperf("runs", "rm", "1", "--dry-run").out
    assert told == f"would move 1 run into the trash\n  1  complete  {LEAF}/20260302_100000\n"
    assert mlperf("runs", "gc", "--what-if", "--json").document["items"] == ["code-images/code-ffffffff"]
    assert mlperf("reports", "reportgen", "--dry-run").out.splitlines()[1:] == [f"  {LEAF.removesuffix('/run')}"]
    assert mlperf("history", "rerun", "1", "--dry-run").out.endswith(": stoker mlperf version\n")
    assert mlperf.place.tree() == before
    assert mlperf("runs", "rm", "1", "--yes").code == 0
    assert mlperf("runs", "purge", "--dry-run").out.startswith("would remove for good what is in the trash: 1 batch")
    assert len(list((results.hidden / "trash").iterdir())) == 1


def test_errors_are_json_where_json_was_asked_for(mlperf: Records) -> None:
    done = mlperf("runs", "list", "-rd", "missing", "--json")
    assert done.code == 5
    assert done.document["error"]["exit_code"] == 5


# -- runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_shown_removed_and_purged(mlperf: Records) -> None:
    results = mlperf.results()
    for n, code in enumerate((0, 6, 0)):
        mlperf.run_of(f"20260302_10000{n}", code=code)
    lines = mlperf("runs", "list").out.splitlines()
    assert lines[0].split() == ["id", "status", "started", "mode", "benchmark", "model", "command", "system", "leaf"]
    assert [line.split()[:2] for line in lines[1:]] == [["1", "complete"], ["2", "failed"], ["3", "complete"]]
    (failed,) = mlperf("runs", "list", "--status", "failed", "--json").document["runs"]
    assert (failed["id"], failed["exit_code"], failed["leaf"]) == ("2", 6, f"{LEAF}/20260302_100001")
    shown = mlperf("runs", "show", "2").out
    assert "failed, exit code 6" in shown and "train_au_mean_percentage" in shown and "stoker mlperf version" in shown
    assert mlperf("runs", "show", "run/20260302_100001", "--json").document["run"] == failed

    done = mlperf("runs", "rm", "--status", "failed", "--yes")
    assert done.code == 0 and done.out.startswith("moved 1 run into .mlps/trash/")
    assert "reportgen" in done.errors
    assert [line.split()[0] for line in mlperf("runs", "list").out.splitlines()[1:]] == ["1", "3"]
    assert mlperf("runs", "rm", "--keep-last", "1", "--older-than", "2026-03-03", "-y").code == 0
    assert mlperf("runs", "rm", "3", "--yes").code == 0
    assert mlperf("runs", "list").out == "no runs\n"
    assert not (results.root / "closed/acme/results/sysA").exists()
    assert mlperf("runs", "purge", "--yes").out.startswith("removed 3 batches, 6 files")
    assert mlperf("runs", "purge", "--yes").out == "the trash is empty\n"


def test_removal_wants_to_know_which_and_somebody_who_answers(mlperf: Records) -> None:
    mlperf.results()
    mlperf.run_of("20260302_100000")
    mlperf("runs", "rm").refused(2, "which runs?")
    mlperf("runs", "rm", "1", "--status", "failed").refused(2, "which runs?")
    mlperf("runs", "rm", "7", "-y").refused(2, "no run of this name")
    mlperf("runs", "rm", "--older-than", "soon").refused(2, "not an age")
    done = mlperf("runs", "rm", "1")
    assert done.code == 2 and "nobody is there to ask" in done.errors and "--yes" in done.errors
    assert mlperf("runs", "rm", "--status", "failed").out == "no runs to remove\n"
    assert len(mlperf("runs", "list", "--json").document["runs"]) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 1), ("", 1, 1)])
def test_at_a_terminal_it_asks(mlperf: Records, answer: str, code: int, left: int) -> None:
    mlperf.results()
    mlperf.run_of("20260302_100000")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [STOKER, "mlperf", "runs", "rm", "1"],
        cwd=mlperf.place.folder,
        env=environment(**mlperf.variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    told = b""
    while b"[y/N]" not in told:
        assert select.select([ours], [], [], 60)[0]
        told += os.read(ours, 4096)
    os.write(ours, f"{answer}\n".encode())
    assert process.wait(60) == code
    os.close(ours)
    assert f"1  complete  {LEAF}/20260302_100000" in told.decode()
    assert len(mlperf("runs", "list", "--json").document["runs"]) == left


def test_code_images_that_no_run_names_are_collected(mlperf: Records) -> None:
    results = mlperf.results()
    (results.root / "code-images" / "code-ffffffff").mkdir(parents=True)
    done = mlperf("runs", "gc", "--yes")
    assert done.code == 0 and done.out.startswith("moved 1 code image into .mlps/trash/")
    assert mlperf("runs", "gc").out == "every code image is named by a run\n"
    mlperf.run_of("20260302_100000", code=None)  # of this process, which lives
    mlperf("runs", "gc", "--yes").refused(5, "going on")


@pytest.mark.parametrize(("edition", "count"), [("2.0", 8), ("3.0", 8)])
def test_trees_of_the_reference_tool_are_listed_and_rolled_up(mlperf: Records, edition: str, count: int) -> None:
    root = tree_of(mlperf.place / "tree", edition=edition)
    for path in root.rglob("results.*"):
        path.unlink()
    found = mlperf("runs", "list", "-rd", "tree", "--benchmark", "training", "--json").document["runs"]
    assert len(found) == count and {each["id"] for each in found} == {""}
    assert mlperf("runs", "list", "-rd", "tree", "--model", "retinanet").out == "no runs of that kind\n"
    done = mlperf("reports", "reportgen", "--results-dir", "tree")
    assert (done.code, done.errors) == (0, "")
    written = [line.removeprefix("written ") for line in done.out.splitlines()]
    assert all((root / path).is_file() for path in written)
    assert any(path.endswith("sysA/training/unet3d/results.csv") for path in written)
    assert ("closed/example/submission.yaml" in written) == (edition == "3.0")
    assert mlperf("validate", "tree", "--skip-output-file").code == 0
    assert mlperf("reports", "reportgen", "-rd", "tree", "-sn", "sysB").code == 3


def test_what_was_run_for_whatif_is_rolled_up_and_never_submitted(mlperf: Records) -> None:
    root = tree_of(mlperf.place / "tree")
    (root / "closed").rename(root / "whatif")
    (root / "whatif/example/submission.yaml").unlink()
    done = mlperf("reports", "reportgen", "-rd", "tree")
    assert (done.code, done.errors) == (0, "")
    assert "written whatif/example/results.csv" in done.out.splitlines()
    assert not (root / "whatif/example/submission.yaml").exists()


def test_a_report_needs_runs(mlperf: Records) -> None:
    mlperf.results()
    mlperf("reports", "reportgen").refused(1, "no leaf of a run")


def keys_of(command: str) -> set[str]:
    """Return the keys that the page for scripts lists beside a command, those of its lists' items, too."""
    for line in SCRIPTS_PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 and f"`mlperf {command}`" in cells[0]:
            return set(re.findall(r"`([a-z_]+)`", cells[1]))
    raise AssertionError(f"{command} is not in the table")


def test_json_has_the_documented_keys(mlperf: Records) -> None:
    results = mlperf.results()
    (results.root / "code-images" / "code-ffffffff").mkdir(parents=True)
    for n in range(2):
        mlperf.run_of(f"20260302_10000{n}")
    tree_of(mlperf.place / "tree")
    assert set(mlperf("init", "acme", "results", "--json").document) == keys_of("init")
    listed = mlperf("runs", "list", "--json").document
    assert set(listed) | set(listed["runs"][0]) == keys_of("runs list")
    assert set(mlperf("runs", "show", "1", "--json").document) == keys_of("runs show")
    told = mlperf("history", "show", "--json").document
    assert set(told) | set(told["history"][0]) == keys_of("history show")
    removed = mlperf("runs", "rm", "1", "--yes", "--json")
    assert set(removed.document) == keys_of("runs rm") and removed.document["moved"][0] == f"{LEAF}/20260302_100000"
    collected = mlperf("runs", "gc", "--yes", "--json").document
    assert set(collected) == keys_of("runs gc") and collected["moved"] == ["code-images/code-ffffffff"]
    assert mlperf("runs", "gc", "--json").document == {"moved": [], "batch": ""}
    purged = mlperf("runs", "purge", "--yes", "--json").document
    assert set(purged) == keys_of("runs purge") and purged["batches"] == 2
    assert set(mlperf("reports", "reportgen", "-rd", "tree", "--json").document) == keys_of("reports reportgen")
    assert set(mlperf("rules-coverage", "--json").document) == keys_of("rules-coverage")
    (mlperf.place / "Rules.md").write_text("2.1.1 submitterRootDirectory")
    held = mlperf("rules-coverage", "--rules-md", "Rules.md", "--json").document
    assert set(held) == keys_of("rules-coverage --rules-md")
    (mlperf.place / "requirements.txt").write_text("click==0.1\n")
    assert set(mlperf("lockfile", "verify", "--json").document) == keys_of("lockfile verify")


# -- history ---------------------------------------------------------------------------------------------------------


def test_history_is_shown_and_replayed_in_its_folder(mlperf: Records) -> None:
    mlperf.results()
    other = mlperf.place / "other"
    other.mkdir()
    before = Path.cwd()
    os.chdir(other)
    try:
        mlperf.run_of("20260302_100000", words=("mlperf", "validate", "two words"))
        mlperf.run_of("20260302_100001", words=("mlperf", "init", "acme", "made here"))
        mlperf.run_of("20260302_100002", words=("mlperf", "history", "rerun", "1"))
        mlperf.run_of("20260302_100003", words=("mlperf", "version", "secret_key=hunter2"))
    finally:
        os.chdir(before)
    lines = mlperf("history", "show").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0].endswith("stoker mlperf validate 'two words'")
    assert mlperf("history", "show", "-n", "1").out.splitlines() == lines[-1:]
    assert mlperf("history", "show", "--id", "2", "--json").document["history"][0]["words"][-1] == "made here"

    done = mlperf("history", "rerun", "1")
    assert done.code == 3  # that of the command: there is no such folder
    assert done.errors.splitlines()[0] == f"[INFO] in {other}: stoker mlperf validate 'two words'"
    for name in ("stoker", "click", "os"):
        (other / f"{name}.py").write_text("raise SystemExit(77)")  # what lies in that folder is not ours
    assert mlperf("history", "rerun", "2").code == 0
    assert (other / "made here" / "mlperf-results.yaml").is_file()
    mlperf("history", "rerun", "3", "-rd", "results").refused(2, "itself a replay")
    mlperf("history", "rerun", "4", "-rd", "results").refused(2, "held a secret", "environment")
    mlperf("history", "rerun", "9", "-rd", "results").refused(2, "no command line of this id", "1 to 4")
    mlperf("history", "show", "-i", "9", "-rd", "results").refused(2, "no command line of this id")


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate_tells_findings_writes_the_summary_and_ends_with_0_or_1(mlperf: Records) -> None:
    root = tree_of(mlperf.place / "tree")
    done = mlperf("validate", "tree")
    assert (done.code, done.errors) == (0, "")
    assert done.out.splitlines()[-1].startswith("VALID  package of edition 3.0")
    (root / "closed/example/results/sysA/training/unet3d/results.json").unlink()
    done = mlperf("validate", "tree", "--csv", "found.csv")
    assert done.code == 1
    assert "[ERROR] [2.1.16 runResultsJson] closed/example/results/sysA/training/unet3d/results.json: " in done.out
    rows = list(csv.DictReader(io.StringIO((mlperf.place / "found.csv").read_text())))
    assert ("ERROR", "2.1.16") in {(row["level"], row["rule"]) for row in rows}
    assert (mlperf.place / "summary.csv").is_file()
    (mlperf.place / "summary.csv").unlink()
    assert mlperf("validate", "tree", "--skip-output-file", "--json").document["answer"] == "invalid"
    assert not (mlperf.place / "summary.csv").exists()


def test_validate_judges_the_submitters_that_are_named(mlperf: Records) -> None:
    root = tree_of(mlperf.place / "tree", orgs=("good", "bad"))
    (root / "mlperf-results.yaml").unlink()
    (root / "closed/bad/results/sysA/training/unet3d/results.json").unlink()
    (root / "closed/bad/results/sysA/training/pipe").symlink_to("/etc")
    told = mlperf("validate", "tree")
    assert told.code == 1 and "closed/bad" in told.out and "closed/good" not in told.out
    good = mlperf("validate", "tree", "--submitters", "good")
    assert good.code == 0 and "bad" not in good.out
    assert mlperf("validate", "tree", "--submitters", "good, bad").code == 1
    mlperf("validate", "tree", "--submitters", "ugly").refused(2, "no such submitter", "bad, good")
    mlperf("validate", "tree", "--submitters", ",").refused(2, "names nobody")


def test_validate_takes_editions_checksums_and_refuses_what_is_none(mlperf: Records) -> None:
    tree_of(mlperf.place / "tree")
    assert mlperf("validate", "tree", "--mlperf-version", "v3.0.2").code == 0
    assert "edition 2.0" in mlperf("validate", "tree", "--mlperf-version", "2.0").out
    wrong = mlperf("validate", "tree", "--reference-checksum", "0" * 32)
    assert wrong.code == 1 and "3.6.1 trainingClosedSubmissionChecksum" in wrong.out
    mlperf("validate", "tree", "--mlperf-version", "9.9").refused(2, "no such edition", "3.0")
    mlperf("validate", "tree", "--reference-checksum", "abc").refused(2, "not an MD5 digest")
    mlperf("validate", "missing").refused(3, "no such folder")
    mlperf("validate", "tree", "--csv", "no/such/folder.csv").refused(1, "summary cannot be written")


# -- rules-coverage --------------------------------------------------------------------------------------------------

RULES_TEXT = """
# 2.1 Structure of a submission
2.1.1. **submitterRootDirectory** -- one root
| 2.1.17 | runTimestamps | six |
### 3.3.2 `trainingAcceleratorUtilizationCheck`
2.1.2 - topLevelFolders
99.1.1 juggleThreeBalls
PROV-01 leafProvenance; see also 2.1 Structure
"""


def test_rules_coverage_lists_what_has_a_check_and_what_has_not(mlperf: Records) -> None:
    document = mlperf("rules-coverage", "--json").document
    assert document["counts"]["rules"] == len(document["rules"])
    told = mlperf("rules-coverage").out.splitlines()
    assert sum(line.startswith("checked ") for line in told) == document["counts"]["decided"]
    assert sum(line.startswith("unchecked ") for line in told) == len(document["rules"]) - document["counts"]["decided"]


def test_a_text_of_rules_is_held_against_the_catalogue(mlperf: Records) -> None:
    (mlperf.place / "Rules.md").write_text(RULES_TEXT)
    done = mlperf("rules-coverage", "--rules-md", "Rules.md", "--json")
    assert done.code == 1
    found = done.document
    assert found["checked"] == ["2.1.1", "2.1.17", "3.3.2", "2.1.2", "PROV-01"]
    assert found["unknown"] == [["99.1.1", "juggleThreeBalls"]]
    assert found["renamed"] == [["2.1.2", "topLevelFolders", "topLevelSubdirectories"]]
    assert "2.1.3" in found["unnamed"]
    (mlperf.place / "Rules.md").write_text(RULES_TEXT.replace("99.1.1 juggleThreeBalls", ""))
    done = mlperf("rules-coverage", "--rules-md", "Rules.md")
    assert done.code == 0 and "5 rules in the text: 5 with a check, 0 without, 0 unknown" in done.out
    mlperf("rules-coverage", "--rules-md", "missing.md").refused(3, "no text of rules")
    (mlperf.place / "Rules.md").write_bytes(b"\xff")
    mlperf("rules-coverage", "--rules-md", "Rules.md").refused(1, "not a text in UTF-8")


# -- lockfile, version -----------------------------------------------------------------------------------------------


def test_what_is_installed_is_held_against_a_lock(mlperf: Records) -> None:
    from importlib.metadata import version

    lock = mlperf.place / "requirements.txt"
    lock.write_text(f"click=={version('click')}\nnumpy==0.0.1\nno-such-package==1.0\n")
    done = mlperf("lockfile", "verify")
    assert done.code == 1
    assert "1 of 3 packages as locked, 1 differ, 1 missing" in done.out
    assert mlperf("lockfile", "verify", "--skip", "numpy", "--allow-missing").code == 0
    assert mlperf("lockfile", "verify", "--skip", "numpy").code == 1
    strict = mlperf("lockfile", "verify", "--skip", "numpy", "--allow-missing", "--strict", "--json")
    assert strict.code == 1 and f"msgspec {version('msgspec')}" in strict.document["unlocked"]
    mlperf("lockfile", "verify", "-l", "missing.txt").refused(3, "no lock file")


def test_a_lock_is_made_of_a_project_that_needs_nothing(mlperf: Records) -> None:
    (mlperf.place / "pyproject.toml").write_text('[project]\nname = "bare"\nversion = "1"\n')
    done = mlperf("lockfile", "generate", "-o", "made.txt", "--python-version", "3.11")
    assert (done.code, done.out) == (0, "written made.txt\n")
    assert mlperf("lockfile", "verify", "-l", "made.txt").code == 0
    mlperf("lockfile", "generate", "--extra", "none").refused(2, "no such extra")
    mlperf("lockfile", "generate", "--pyproject", "missing.toml").refused(3, "no project")


def test_version_tells_the_edition_and_what_it_stands_on(mlperf: Records) -> None:
    found = mlperf("version", "--json").document
    assert found["rules_edition"] == "3.0" and {"stoker", "python", "numpy"} <= set(found)
    assert "rules edition" in mlperf("version").out


def test_help_names_every_command(mlperf: Records) -> None:
    from stoker.cli.mlperf_records import COMMANDS

    told = mlperf("--help").out
    assert all(f"  {name} " in told for name in COMMANDS)
    mlperf("run").refused(2, "no command of stoker mlperf")
