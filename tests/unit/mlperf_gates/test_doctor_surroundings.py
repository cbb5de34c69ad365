"""What the doctor tells of SSH, schedulers, credentials, mounts and the gates."""

import os
from pathlib import Path

import pytest

from stoker.bench.run.doctor import examine
from stoker.bench.run.doctor_surroundings import credentials, gate_checks, mount_checks, scheduler, ssh_client
from stoker.bench.workloads.mounts import Mount


def test_every_part_of_the_surroundings_is_looked_at(tmp_path: Path) -> None:
    names = [check.name for check in examine(str(tmp_path))]
    wanted = {"mpi launcher", "ssh client", "scheduler", "extra ssh", "target mount", "target space", "locked versions"}
    assert wanted <= set(names)
    assert len(names) == len(set(names))
    assert "credentials" in [check.name for check in examine()]


def test_a_missing_tool_is_told_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = ssh_client()
    assert check.status == "note"
    assert "openssh" in check.remedy


@pytest.mark.parametrize(
    ("environment", "status", "told"),
    [
        ({}, "ok", "none"),
        ({"SLURM_JOB_ID": "17"}, "warn", "without srun"),
        ({"PALS_RANKID": "0"}, "ok", "PALS"),
    ],
)
def test_schedulers(environment: dict[str, str], status: str, told: str) -> None:
    check = scheduler({"PATH": "/nowhere", **environment})
    assert check.status == status
    assert told in check.observed


def test_slurm_with_srun(tmp_path: Path) -> None:
    (tmp_path / "srun").touch(mode=0o755)
    assert "job 17: srun" in scheduler({"PATH": str(tmp_path), "SLURM_JOB_ID": "17"}).observed


def test_credentials_are_told_by_name_alone() -> None:
    secret = {"AWS_ACCESS_KEY_ID": "AKIATELL", "AWS_SECRET_ACCESS_KEY": "hush"}
    (check,) = credentials("s3://bucket/x", secret)
    assert (check.name, check.status) == ("credentials s3", "ok")
    assert "AKIATELL" not in str(check) and "hush" not in str(check)
    (check,) = credentials("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "x"})
    assert check.status == "note" and "AWS_SECRET_ACCESS_KEY" in check.observed
    (check,) = credentials(None, secret)
    assert check.observed == "in the environment: s3 set, az not set, gs not set"
    assert list(credentials("/data", secret)) == []
    assert list(credentials("file:///data", secret)) == []


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("xfs", ("rw", "noatime"), []),
        ("xfs", ("ro",), ["read-only"]),
        ("ext4", ("rw", "sync"), ["sync: every write"]),
        ("nfs4", ("rw", "hard", "rsize=1048576", "wsize=1048576"), []),
        ("nfs4", ("rw", "soft", "rsize=32768", "noac"), ["soft:", "rsize=32768: small", "noac:"]),
        ("xfs", ("rw", "soft"), []),
    ],
)
def test_mount_options(kind: str, options: tuple[str, ...], words: list[str], tmp_path: Path) -> None:
    (check,) = mount_checks(tmp_path, Mount("/mnt", kind, "server:/x", options))
    assert check.status == ("warn" if words else "ok")
    assert all(word in check.remedy for word in words)


def test_the_gates_are_checks_of_the_doctor(tmp_path: Path) -> None:
    checks = {check.name: check for check in gate_checks(str(tmp_path), str(tmp_path))}
    assert list(checks) == ["gate CAP-01", "gate CAP-02", "gate CAP-03"]
    assert checks["gate CAP-03"].status == "fail"
    assert checks["gate CAP-03"].remedy
    assert os.listdir(tmp_path) == []
