"""Which value won and over which others, for options that are rows, keys of DLIO's workloads, and the MLPerf tree."""

import json
from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run.mlperf.results_dir import initialise
from stoker.cli.main import run
from stoker.cli.rows import toml_places


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLPSTORAGE_RESULTS_DIR", "MLPSTORAGE_SYSTEMNAME", "MLPSTORAGE_DATA_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def explained(capfd: pytest.CaptureFixture[str], key: str, *words: str) -> dict[str, Any]:
    assert run(["config", "explain", "--json", key, "--", *words]) == 0
    told: dict[str, Any] = json.loads(capfd.readouterr().out)
    return told


def chain(told: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [(each["origin"], each["where"], each["value"]) for each in told["candidates"]]


def test_an_option_tells_flag_environment_file_line_and_default(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "run.toml").write_text("order = 'dlio'\nqueue-depth = 4\n")
    monkeypatch.setenv("STOKER_QUEUE_DEPTH", "8")
    told = explained(capfd, "queue-depth", "feed", "/d", "--queue-depth", "16", "--config", "run.toml")
    assert told["value"] == 16
    assert chain(told) == [
        ("flag", "--queue-depth", "16"),
        ("env", "STOKER_QUEUE_DEPTH", "8"),
        ("file", "run.toml:2", 4),
        ("default", "", 0),
    ]
    assert {"--queue-depth", "STOKER_QUEUE_DEPTH", "--config"} == set(told["ways"])


@pytest.mark.parametrize("words", [("run", "training", "/d"), ("feed", "/d"), ("gen", "/d"), ("plan",)])
def test_every_command_of_rows_is_known(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert chain(explained(capfd, "--model", *words, "--model", "unet3d"))[0] == ("flag", "--model", "unet3d")


def test_a_dlio_key_remembers_all_it_was_put_over(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = here / "conf/workload"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [unet3d_h100]\nreader: {batch_size: 5}\n")
    words = (
        "dlio",
        "workload=mine",
        "--config-dir=conf",
        "++workload.reader.batch_size=6",
        "workload.reader.batch_size=8",
    )
    told = explained(capfd, "workload.reader.batch_size", *words)
    assert told["value"] == 8
    assert [(origin, value) for origin, _, value in chain(told)] == [
        ("flag", 8),
        ("flag", 6),
        ("file", 5),
        ("preset", 7),
        ("default", 1),
    ]
    assert chain(told)[2][1].endswith("mine.yaml:2")


def test_the_mlperf_tree_tells_options_by_any_spelling(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "args.yaml").write_text("\naccelerator_type: mi355\n")
    words = ("mlperf", "open", "training", "retinanet", "run", "file", "-at", "b200", "-c", "args.yaml")
    for key in ("-at", "accelerator-type", "--accelerator-type", "accelerator_type"):
        assert chain(explained(capfd, key, *words))[:2] == [
            ("flag", "--accelerator-type", "b200"),
            ("file", "args.yaml:2", "mi355"),
        ]


def test_the_mlperf_tree_tells_workload_keys_to_the_template(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    initialise(here / "results", "acme")
    words = ("mlperf", "open", "training", "retinanet", "run", "file", "-at", "mi355", "-rd", "results")
    told = explained(capfd, "reader.batch_size", *words)
    assert (told["value"], chain(told)[0]) == (32, ("preset", "catalogue retinanet/mi355", 32))
    told = explained(capfd, "workflow.train", *words)
    assert chain(told)[0] == ("tool", "", "True")
    told = explained(capfd, "dataset.num_files_train", *words, "-p", "dataset.num_files_train=9")
    assert chain(told)[:2] == [("flag", "--params", "9"), ("preset", "catalogue retinanet/mi355", 1170301)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("read-treads",), "did you mean 'read_threads'?"),
        (("lops", "--", "mlperf", "open", "training", "unet3d", "run", "file"), "did you mean 'loops'?"),
        (("loops", "--", "mlperf", "closed", "training", "unet3d", "run", "file"), "no such setting 'loops'"),
        (("reader.bach_size", "--", "dlio", "workload=unet3d_h100"), "no such setting"),
        (("x", "--", "doctor"), "no options of that command are known here"),
        (("x", "--", "mlperf", "init"), "no command of a division"),
        (("--read-threads", "--", "feed", "/d", "--read-threads", "many"), "a whole number is needed"),
    ],
)
def test_what_cannot_be_explained_is_told(words: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "explain", *words]) == 2
    assert told in capfd.readouterr().err


def test_secrets_are_not_shown(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("dlio", "workload=unet3d_h100", "++workload.storage.storage_options.secret_access_key=hush")
    assert run(["config", "explain", "storage.storage_options.secret_access_key", "--", *words]) == 0
    assert "hush" not in capfd.readouterr().out


def test_lines_of_a_toml_file_are_found_but_not_inside_of_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('label = ["""\nbudget = 1\n"""]\n\n"budget" = "60s"\nread-threads = 3 # budget = 4\n')
    places = toml_places(file)
    assert places == {"label": f"{file}:1", "budget": f"{file}:5", "read_threads": f"{file}:6"}
