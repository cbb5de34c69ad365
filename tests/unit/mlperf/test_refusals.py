"""What is wrong is told in one sentence, with the reference tool's exit code, and nothing is left behind."""

from pathlib import Path

import pytest

from stoker.bench.run.mlperf.results_dir import initialise
from stoker.cli.main import run

FILES = "dataset.num_files_train=16"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initialised results directory, told as a submitter's profile tells it."""
    initialise(tmp_path / "results", "acme")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPSTORAGE_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("MLPSTORAGE_SYSTEMNAME", "sysA")
    monkeypatch.setenv("MLPSTORAGE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("closed", "training", "unet3d", "run", "file", "--loops", "6"), 2, "--loops"),
        (("closed", "training", "unet3d", "run", "file", "-aip"), 2, "'-aip'; it is an option of open datasize"),
        (("closed", "training", "cosmoflow", "run", "file"), 2, "cosmoflow is offered in whatif, not in closed"),
        (("open", "training", "resnet50", "run", "file"), 2, "resnet50 is offered in whatif, not in open"),
        (("closed", "vectordb", "IVF_FLAT", "run", "file"), 2, "IVF_FLAT is offered in open and whatif, not in closed"),
        (
            ("closed", "training", "unet3d", "datasize", "-ma", "1", "-at", "a100", "-cm", "1"),
            2,
            "a100 is offered in whatif, not in closed; known: b200",
        ),
        (("open", "training", "unet3d", "run", "-na", "1", "-at", "b200", "-cm", "1"), 2, "file|object"),
        (
            ("open", "training", "unet3d", "run", "file", "-na", "1", "-at", "h100", "-cm", "1"),
            2,
            "h100 is offered in whatif",
        ),
        (
            ("open", "training", "unet3d", "run", "object", "-na", "1", "-at", "b200", "-cm", "1", "--o-direct"),
            2,
            "object",
        ),
        (("whatif", "vectordb", "DISKANN", "run", "file"), 2, "which collection is searched is not told"),
        (("open", "kvcache", "run", "--cache-dir", "s3://b/c", "-np", "1"), 2, "--cache-dir is no folder"),
        (("open", "kvcache", "run", "--cache-dir", "c", "--config", "x.yaml"), 2, "every value has an option"),
        (("open", "kvcache", "run", "--cache-dir", "c", "-np", "3", "--hosts", "a", "b"), 2, "a multiple of 2 hosts"),
        (
            ("open", "kvcache", "run", "--cache-dir", "c", "-np", "3", "--npernode", "2"),
            2,
            "--num-processes and --npernode disagree",
        ),
        (
            ("open", "training", "unet3d", "run", "file", "-na", "1", "-at", "b200", "-cm", "1", "-aip", "-p", FILES),
            5,
            "data",
        ),
        (
            ("open", "training", "unet3d", "run", "file", "-na", "1", "-at", "b200", "-cm", "1", "-p", "reader.x=1"),
            2,
            "x",
        ),
        (("wrong",), 2, "known: init"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence_with_the_reference_code(
    words: tuple[str, ...], code: int, told: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run(["mlperf", *words])
    errors = capfd.readouterr().err
    assert found == code, errors
    assert told in errors
    assert len([line for line in errors.splitlines() if line.startswith("stoker: ")]) == 1
    assert sorted(path.name for path in (home / "results").iterdir()) == [".mlps", "mlperf-results.yaml"]
