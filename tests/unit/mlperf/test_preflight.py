"""Before a run everything is tried: all that is wrong is told at once, each with its remedy, and nothing is started."""

import json
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.bench.run import doctor_surroundings
from stoker.bench.run.gathered import Findings, SeveralError
from stoker.bench.run.mlperf.exits import exit_code_of
from stoker.bench.run.mlperf.results_dir import initialise
from stoker.bench.workloads.mounts import Mount
from stoker.cli.main import _tell, run
from stoker.core.errors import DeniedError, InterruptedRunError, NotFoundError, PreflightError, UsageError

RUN = ("open", "training", "unet3d", "run", "file", "-na", "1", "-at", "b200", "-cm", "1")
FEW = ("-p", "dataset.num_files_train=16")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initialised results directory, told as a submitter's profile tells it."""
    initialise(tmp_path / "results", "acme")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPSTORAGE_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("MLPSTORAGE_SYSTEMNAME", "sysA")
    monkeypatch.setenv("MLPSTORAGE_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "wrong.lock").write_text("msgspec==0.0.1\n")
    return tmp_path


def numbered(errors: str) -> list[str]:
    return [line.strip() for line in errors.splitlines() if line.startswith("  ")]


def test_four_things_wrong_are_told_at_once_and_nothing_is_started(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(["mlperf", *RUN, *FEW, "--verify-lockfile", "wrong.lock"])
    errors = capfd.readouterr().err
    assert code == 5, errors  # that of the first: a lock that does not hold
    assert "stoker: 4 checks failed, so nothing was started:\n" in errors
    lock, rules, data, gate = numbered(errors)
    assert lock.startswith("1. 1 of 1 packages are not as locked") and "pip install -r" in lock
    assert "[3.3.1 trainingRunDataMatchesDatasize]" in rules and "add --allow-invalid-params" in rules
    assert "dataset is not there" in data and "make it with datagen" in data
    assert "CAP-03" in gate and "lie on one file system" in gate
    assert sorted(path.name for path in (home / "results").iterdir()) == [".mlps", "mlperf-results.yaml"]
    assert not (home / "data").exists()


def test_the_launcher_and_the_hosts_are_told_beside_the_rest(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPI_RUN_BIN", "/no/such/mpirun")
    code = run(["mlperf", *RUN, *FEW, "--hosts", "no-such-host.invalid:1"])
    errors = capfd.readouterr().err
    assert code == 2, errors
    told = numbered(errors)
    assert len(told) == 5, errors
    for wanted in ("3.3.1", "/no/such/mpirun", "dataset is not there", "host no-such-host.invalid", "CAP-03"):
        assert len([line for line in told if wanted in line]) == 1, (wanted, told)


def test_a_generation_makes_no_folder_when_something_else_is_wrong(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("open", "training", "unet3d", "datagen", "file", "-np", "1", *FEW, "-aip")
    code = run(["mlperf", *words, "--verify-lockfile", "missing.lock"])
    errors = capfd.readouterr().err
    assert code == 3, errors
    assert "no lock file" in errors and "CAP-03" in errors
    assert not (home / "data").exists()


def test_a_single_finding_stays_as_it_is() -> None:
    findings = Findings()
    assert findings.tried(lambda: 3) == 3
    findings.tried(lambda: Path("/no/such/file").read_bytes())
    with pytest.raises(NotFoundError, match=r"No such file or directory '/no/such/file'$"):
        findings.require()


def test_several_keep_the_kind_of_the_first_and_travel_between_processes() -> None:
    findings = Findings()

    def raises(error: Exception) -> None:
        raise error

    findings.tried(lambda: raises(PermissionError(13, "Permission denied", "/some/place")))
    findings.tried(lambda: raises(UsageError("two", remedy="mend it")))
    with pytest.raises(SeveralError) as raised:
        findings.require()
    again = pickle.loads(pickle.dumps(raised.value))
    for error in (raised.value, again):
        assert [type(each) for each in error.errors] == [DeniedError, UsageError]
        assert (exit_code_of(error), str(error)) == (4, str(raised.value))
    assert "(1) Permission denied '/some/place'; (2) two; mend it" in str(again)


def test_a_signal_ends_the_checks() -> None:
    findings = Findings()

    def stopped() -> None:
        raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        findings.tried(stopped)


def test_findings_stand_in_the_json_of_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    error = SeveralError([PreflightError("one", remedy="do this"), UsageError("two")])
    assert _tell(error, ["--json"]) == 5
    told = json.loads(capfd.readouterr().out)["error"]
    assert [(each["kind"], each["what"], each["remedy"]) for each in told["errors"]] == [
        ("PreflightError", "one", "do this"),
        ("UsageError", "two", ""),
    ]


@pytest.fixture
def few_open_files() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limits_of_this_host_are_warned_of_before_a_run(
    home: Path, few_open_files: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["mlperf", *RUN, *FEW, "-aip"]) == 5
    assert f"[WARNING] open files: limit {few_open_files}; ulimit -n " in capfd.readouterr().err


def test_credentials_and_mount_options_are_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    names = [check.name for check in doctor_surroundings.preflight_here(str(tmp_path / "not/made"))]
    assert names == ["open files", "shared memory", "target mount"]
    told = {check.name: check for check in doctor_surroundings.preflight_here("s3://bucket/prefix")}
    assert told["credentials s3"].observed == "not in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    mount = Mount(kind="nfs4", point="/n", source="s:/", options=("rw", "soft"))
    (check,) = doctor_surroundings.mount_checks(tmp_path, mount)
    assert (check.status, "mount it hard" in check.remedy) == ("warn", True)
