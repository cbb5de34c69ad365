"""`stoker plan` of every family, through the command line."""

import json
from pathlib import Path

import pytest

from stoker.cli.main import run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(["plan", *words]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "unet3d", "--accelerator", "h100:2"], ["npz files", "time of all runs"]),
        (["--model", "llama3-8b", "--accelerator", "b200"], ["8 processes, ZeRO 3", "space", "memory a host"]),
        (["--model", "DISKANN", "--vectors", "2000"], ["of DISKANN index", "exact copy"]),
        (["--model", "llama3.1-70b-instruct", "--users", "3"], ["3 users x 327,680 B a token"]),
    ],
)
def test_every_family_is_planned(capsys: pytest.CaptureFixture[str], words: list[str], told: list[str]) -> None:
    text = plan(capsys, *words)
    assert all(part in text for part in told), text
    assert "verdict" not in text
    assert list(Path.cwd().iterdir()) == []


def test_a_division_gives_the_verdict_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "llama3-70b", "--accelerator", "b200:64", "--clients", "8", "--division", "closed"]
    text = plan(capsys, *asked, "--client-memory", "64GiB")
    assert "submittable in closed" in text
    assert "told only later" in text
    document = json.loads(plan(capsys, *asked[:3], "b200:128", *asked[4:], "--json", code=4))
    verdict = document["foresight"]["verdict"]
    assert verdict["validation"] == "open"
    assert [issue["rule"] for issue in verdict["issues"] if issue["severity"] == "error"] == ["4.6.1"]
    assert {rule["state"] for rule in verdict["rules"]} <= {"holds", "warned", "broken", "later"}


def test_overrides_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "llama3.1-8b", "--division", "closed", "--override", "seed=7"]
    assert "6.3.2.1" in plan(capsys, *words, code=4)
    plan(capsys, "--model", "llama3.1-8b", "--override", "seed", code=2)
    plan(capsys, "--model", "llama3-8b", "--accelerator", "b200:none", code=2)


def test_training_without_a_division_keeps_its_document(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "unet3d", "--accelerator", "b200:8", "--json"]
    assert json.loads(plan(capsys, *asked))["model"] == "unet3d"
    document = json.loads(plan(capsys, *asked, "--division", "whatif"))
    assert document["plan"]["model"] == "unet3d"
    assert document["foresight"]["verdict"]["division"] == "whatif"
