"""What every command has: help, JSON, a dry run that touches nothing, clean streams, and the exit codes of the docs."""

import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest
from cli_place import COSMOFLOW, QUICK, STOKER, Place, environment, obey_modes

from stoker.core.errors import StokerError

REPO = Path(__file__).resolve().parents[2]
SCRIPTS_PAGE = (REPO / "docs" / "guide" / "scripts.md").read_text()
COMMANDS = [
    "",
    "feed",
    "run",
    "run training",
    "run checkpointing",
    "gen",
    "plan",
    "dlio",
    "mlperf",
    "mlperf closed training unet3d run",
    "mlperf open checkpointing run",
    "check",
    "bundle",
    "bundle make",
    "bundle sign",
    "bundle verify",
    "report",
    "doctor",
    "config",
    "config explain",
    "completion",
    "version",
]
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7])[0-9;]*m")
DLIO_WORKLOAD = """
model: {name: small}
framework: pytorch
workflow: {generate_data: True, train: True}
dataset: {data_folder: dlio-data, format: npz, num_files_train: 16, record_length_bytes: 4096}
reader: {data_loader: pytorch, batch_size: 4, read_threads: 2}
train: {epochs: 1, computation_time: 0.01}
"""


def documented_keys(command: str) -> set[str]:
    """The keys that the page for scripts lists beside a command."""
    for line in SCRIPTS_PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 and f"`{command}`" in cells[0]:
            return set(re.findall(r"`([a-z_]+)`", cells[1]))
    raise AssertionError(f"{command} is not in the table")


@pytest.mark.parametrize("words", COMMANDS)
def test_help_is_told_on_stdout(words: str, place: Place) -> None:
    done = place.stoker(*words.split(), "--help")
    assert (done.code, done.errors) == (0, "")
    assert done.out.startswith(f"Usage: stoker {words}".rstrip())


def test_without_a_command_the_help_is_told_and_the_use_is_wrong(place: Place) -> None:
    done = place.stoker()
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.errors


def test_version(place: Place) -> None:
    assert place.stoker("--version").out.startswith("stoker, version ")
    assert {"stoker", "python", "kernel"} <= set(place.stoker("version", "--json").document)
    done = place.stoker("version")
    assert (done.code, done.errors) == (0, "")


def test_doctor_tells_every_check_as_json(place: Place) -> None:
    (place / "data").mkdir()
    done = place.stoker("doctor", "data", "--json")
    assert (done.code, done.errors) == (0, "")
    assert {"checks"} < documented_keys("doctor")
    for check in done.document["checks"]:
        assert set(check) == documented_keys("doctor") - {"checks"}
        assert check["status"] in ("ok", "note", "warn", "fail")
    assert "target write" in [check["name"] for check in done.document["checks"]]
    assert place.tree("data") == {}


def test_doctor_fails_with_the_preflight_code(place: Place) -> None:
    done = place.stoker("doctor", "missing")
    assert (done.code, done.errors) == (5, "")
    assert "FAIL" in done.out
    assert "no such folder" in done.out


def test_plan_as_json(made: Path, place: Place) -> None:
    bare = place.stoker("plan", *COSMOFLOW, "--json")
    there = place.stoker("plan", str(made), *COSMOFLOW, "--json")
    for done in (bare, there):
        assert (done.code, done.errors) == (0, "")
        assert documented_keys("plan") <= set(done.document)
    assert there.document["dataset"]["files"] == 16
    assert any("not cosmoflow's" in told for told in there.document["deviations"])
    assert place.tree() == {}


def test_gen_as_json_from_the_dry_run_to_the_removal(place: Place) -> None:
    words = ("gen", "new", "--format", "npz", "--files", "3", "--record-length", "4KiB", "--json")
    dry = place.stoker(*words, "--dry-run")
    assert (dry.code, dry.errors, set(dry.document)) == (0, "", documented_keys("gen --dry-run"))
    assert place.tree() == {}
    done = place.stoker(*words)
    assert (done.code, done.errors, set(done.document)) == (0, "", documented_keys("gen"))
    assert done.document["report"]["files_made"] == 3
    before = place.tree()
    assert place.stoker("gen", "new", "--remove", "--dry-run").code == 0
    assert place.tree() == before
    removed = place.stoker("gen", "new", "--remove", "--json")
    assert (removed.code, set(removed.document)) == (0, documented_keys("gen --remove"))
    assert removed.document["files_removed"] == 3
    assert [path for path in place.tree() if path.endswith(".npz")] == []


def test_gen_says_what_is_durable(place: Place) -> None:
    words = ("gen", "new", "--format", "npz", "--files", "1", "--record-length", "4KiB", "--json")
    done = place.stoker(*words, "--fsync", "data")
    assert done.code == 0, done.errors
    assert done.document["target"].endswith("/new?fsync=data")
    assert [path for path in place.tree() if path.endswith(".npz")]
    refused = place.stoker("gen", "s3://bucket/x", *words[2:], "--fsync", "none")
    assert (refused.code, "--fsync has no effect" in refused.errors) == (2, True)


def test_checkpointing_as_json_from_the_dry_run_to_the_removal(place: Place) -> None:
    words = ["run", "checkpointing", "new", "--model", "llama3-8b", "--scale", "0.0002", "--ranks", "1"]
    words += ["--interval", "0.1s", "--num-checkpoints-write", "1", "--num-checkpoints-read", "1", "--json"]
    dry = place.stoker(*words, "--dry-run")
    assert (dry.code, dry.document["predicted"]["files"]) == (0, 2)
    assert place.tree() == {}
    done = place.stoker(*words)
    assert done.code in (0, 3), done.errors
    assert set(done.document) == documented_keys("run training") | {"checkpointing", "checkpoints"}
    removed = place.stoker("run", "checkpointing", "new", "--model", "llama3-8b", "--remove", "--json")
    assert removed.document == {"checkpoints_removed": 1, "files_removed": 2}


def test_feed_dry_run_touches_nothing(data: Path, place: Place) -> None:
    before = place.tree()
    done = place.stoker("feed", "data", *COSMOFLOW, "--dry-run", "--json")
    assert (done.code, done.errors, set(done.document)) == (0, "", documented_keys("feed --dry-run"))
    assert done.document["generate"]
    assert place.stoker("feed", "data", *COSMOFLOW, "--dry-run").out.startswith("model ")
    assert place.tree() == before


def test_run_dry_run_touches_nothing(data: Path, place: Place) -> None:
    before = place.tree()
    done = place.stoker("run", "training", "data", *COSMOFLOW, "--dry-run", "--json")
    assert (done.code, done.errors) == (0, "")
    assert documented_keys("run training --dry-run") <= set(done.document)
    assert place.tree() == before


def test_doctor_and_report_dry_runs_touch_nothing(saved: Path, data: Path, place: Place) -> None:
    (saved / "report.html").unlink()
    for name in ("result.json", "series.npz"):  # whole at first, then as after a kill
        before = place.tree()
        judged = place.stoker("report", "saved", "--dry-run", "--json")
        assert (judged.code in (0, 3, 6), judged.document["report"], judged.errors) == (True, "", "")
        assert place.tree() == before
        (saved / name).unlink()
    data.chmod(0o555)
    checked = place.stoker("doctor", "data", "--dry-run", prepare=obey_modes)
    assert (checked.code, checked.errors) == (0, "")
    assert place.stoker("doctor", "data", prepare=obey_modes).code == 5
    data.chmod(0o755)


def test_dlio_dry_run_touches_nothing(place: Place) -> None:
    (place / "conf" / "workload").mkdir(parents=True)
    (place / "conf" / "workload" / "small.yaml").write_text(DLIO_WORKLOAD)
    before = place.tree()
    done = place.stoker("dlio", "workload=small", "--config-dir", "conf", "--dry-run", "--json")
    assert (done.code, done.errors) == (0, "")
    assert done.document["model"] == "small"
    assert place.tree() == before


def test_a_run_and_its_report_tell_the_same(made: Path, place: Place) -> None:
    done = place.stoker("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "2", "--json")
    told = done.document
    assert set(told) == documented_keys("run training")
    assert (done.code, done.errors) == (told["exit_code"], "")
    assert (told["status"], told["verb"], told["metrics"]["steps"]) == ("complete", "run training", 14)
    again = place.stoker("report", told["folder"], "--json")
    assert again.code == done.code
    assert again.document == told
    text = place.stoker("report", f"{told['folder']}/result.json", "--out", "page.html")
    assert (text.code, text.errors) == (done.code, "")
    assert "\x1b" not in text.out
    assert text.out.splitlines()[-1] == "report: page.html"
    page = (place / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert len(page) < 2 << 20


@pytest.mark.parametrize(
    ("found", "put", "answer", "code"),
    [
        ('"status": "complete"', '"status": "failed"', "invalid", 1),
        ('"status": "complete"', '"status": "partial"', "partial", 6),
        ('"coverage_exact": true', '"coverage_exact": false', "invalid", 4),
        ('"io_mode": "buffered"', '"io_mode": "memory"', "not_proven", 3),
    ],
)
def test_the_exit_code_is_the_verdict_s(
    found: str, put: str, answer: str, code: int, saved: Path, place: Place
) -> None:
    file = saved / "result.json"
    text = file.read_text()
    assert found in text
    file.write_text(text.replace(found, put))
    done = place.stoker("report", "saved", "--json")
    assert (done.code, done.document["answer"], done.document["exit_code"]) == (code, answer, code)


def test_errors_are_json_too_when_it_is_asked_for(place: Place) -> None:
    for words in (("feed", "missing", *COSMOFLOW), ("feed", "--no-such-option"), ("report", "missing")):
        done = place.stoker(*words, "--json")
        error = done.document["error"]
        assert set(error) == set(re.findall(r"`(\w+)`", SCRIPTS_PAGE.split("`error` with")[1].split(".")[0]))
        assert error["exit_code"] == done.code != 0
        assert done.sentence.startswith(error["what"])


def test_the_documented_exit_codes_are_those_of_the_error_tree() -> None:
    table = SCRIPTS_PAGE.split("## Exit codes")[1].split("##")[0]
    documented = {
        int(code) for line in table.splitlines() for code in re.findall(r"\b(\d+)\b", line.split("|")[1:2].__str__())
    }
    kinds = [StokerError, *StokerError.__subclasses__()]
    assert {kind.exit_code for kind in kinds} <= documented


@pytest.mark.parametrize(
    "words", ["plan --model unet3d --accelerator h100", "doctor", "version", "completion bash", "--help"]
)
def test_a_reader_that_goes_away_changes_nothing(words: str, place: Place) -> None:
    done = place.shell(f"stoker {words} | head -c 1")
    assert (done.code, done.errors) == (0, "")
    assert len(done.out) == 1


def test_a_reader_that_goes_away_does_not_turn_a_partial_run_into_a_good_one(saved: Path, place: Place) -> None:
    (saved / "result.json").unlink()
    done = place.shell("stoker report saved | true")
    assert (done.code, done.errors) == (6, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this kernel has no /dev/full")
@pytest.mark.parametrize(
    "words", ["version", "doctor --json", "plan --model unet3d --accelerator h100", "completion zsh"]
)
def test_a_full_output_is_told(words: str, place: Place) -> None:
    done = place.shell(f"stoker {words} > /dev/full")
    done.refused(1, "output cannot be written", "No space left")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, place: Place) -> None:
    done = place.stoker("completion", shell)
    assert (done.code, done.errors) == (0, "")
    assert "_STOKER_COMPLETE" in done.out
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=done.out, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_completion_completes(place: Place) -> None:
    variables = {"_STOKER_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert "plain,feed" in place.stoker(**variables, COMP_WORDS="stoker fe").out.splitlines()
    variables["COMP_CWORD"] = "2"
    assert "plain,--budget" in place.stoker(**variables, COMP_WORDS="stoker feed --bud").out.splitlines()
    assert "plain,training" in place.stoker(**variables, COMP_WORDS="stoker run tr").out.splitlines()


def on_terminal(place: Place, *words: str, **variables: str) -> tuple[int, str]:
    """Run the command on a terminal; return its exit code and all that it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [STOKER, *words],
        cwd=place.folder,
        env=environment(TERM="xterm-256color", **variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # the other end was closed
                break
            written += piece
        return process.wait(60), written.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_colour_and_progress_are_for_terminals_and_can_be_declined(made: Path, place: Place) -> None:
    words = ("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "0", "--duration", "1.2s")
    _, coloured = on_terminal(place, *words)
    assert COLOUR.search(coloured)
    assert "epoch" in coloured
    _, plain = on_terminal(place, *words, NO_COLOR="1")
    assert not COLOUR.search(plain)
    _, quiet = on_terminal(place, *words, "--quiet")
    assert "epoch 1 step" not in quiet


def test_values_come_from_flag_environment_file_and_default_in_this_order(place: Place) -> None:
    (place / "run.toml").write_text('model = "cosmoflow"\naccelerator = "a100:3"\nread-threads = 7\nepochs = 2\n')
    words = ("plan", "--config", "run.toml", "--epochs", "4", "--json")
    plan = place.stoker(*words, STOKER_READ_THREADS="5", STOKER_EPOCHS="9").document
    assert (plan["model"], plan["ranks"], plan["read_threads"], plan["epochs"]) == ("cosmoflow", 3, 5, 4)


def test_every_setting_and_its_origin_stand_in_the_result(made: Path, place: Place) -> None:
    words = ("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "1", "--label", "site=here", "--json")
    folder = Path(place.stoker(*words, STOKER_READ_THREADS="3").document["folder"])
    settings = json.loads((place.folder / folder / "result.json").read_text())["job"]["settings"]
    assert settings["label"] == {"value": ["site=here"], "origin": "flag"}
    assert settings["read_threads"] == {"value": 3, "origin": "env"}
    assert settings["collate"]["origin"] == "default"
