"""Checkpoints with everything real: MPI ranks, ranks that meet over TCP, an S3 server, and the command itself."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import obstore
import pytest
from benchmarks.loopback import free_ports
from buckets import client_of
from obstore.store import S3Store
from test_mpi_cli import MPIEXEC, STOKER, end

from stoker.core.result import load_result

pytestmark = pytest.mark.server
needs_mpi = pytest.mark.skipif(
    not MPIEXEC.exists() or importlib.util.find_spec("mpi4py") is None,
    reason="no mpiexec and mpi4py beside the interpreter; run: pip install 'stoker[mpi]'",
)
SMALL = ["--model", "llama3-8b", "--scale", "0.0002", "--num-checkpoints-write", "2", "--num-checkpoints-read", "2"]
QUICK = ["--interval", "0.1s", "--verify", "1", "--write-buffers", "2", "--buffer-bytes", "4MiB"]


def started(words: list[str], folder: Path, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def result_of(folder: Path) -> Any:
    (run,) = (folder / "results").iterdir()
    return load_result(run)


@needs_mpi
def test_four_mpi_ranks_write_one_checkpoint_each_its_files(tmp_path: Path) -> None:
    words = ["run", "checkpointing", "t", *SMALL, *QUICK, "--ranks", "4", "--results", "results", "--json"]
    code, out, errors = end(started([str(MPIEXEC), "-n", "4", str(STOKER), *words], tmp_path))
    assert code in (0, 3), errors
    told = json.loads(out)
    assert told["status"] == "complete"
    result = result_of(tmp_path)
    assert [rank.rank for rank in result.ranks] == [0, 1, 2, 3]
    assert [(each.operation, each.ranks, each.complete) for each in result.checkpoints] == [
        ("save", 4, True),
        ("save", 4, True),
        ("load", 4, True),
        ("load", 4, True),
    ]
    assert all(each.verified_bytes == each.bytes for each in result.checkpoints if each.operation == "load")
    assert any(note.startswith("launcher: mpi, 4 ranks") for note in result.notes)
    files = sorted(path.name for path in (tmp_path / "t/llama3-8b/global_epoch1_step2").iterdir())
    assert len(files) == 8 + 2


@needs_mpi
def test_dlios_words_under_mpi_give_dlios_files(tmp_path: Path) -> None:
    keys = {
        "model.num_layers": 1,
        "model.transformer.hidden_size": 128,
        "model.transformer.vocab_size": 1000,
        "checkpoint.checkpoint_folder": "checkpoints",
        "checkpoint.num_checkpoints_write": 2,
        "checkpoint.num_checkpoints_read": 1,
        "checkpoint.time_between_checkpoints": 0.1,
    }
    words = ["dlio", "workload=llama3_8b", *(f"++workload.{key}={value}" for key, value in keys.items())]
    words += ["++hydra.run.dir=out", "++hydra.output_subdir=dlio_config"]
    code, _, errors = end(started([str(MPIEXEC), "-n", "4", str(STOKER), *words], tmp_path))
    assert code in (0, 3), errors
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    ranks = [f"{rank}_{kind}.json" for rank in range(4) for kind in ("output", "per_epoch_stats")]
    assert names == sorted(["stoker", "summary.json", "dlio.log", "dlio_config", *ranks])
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["num_accelerators"] == 4
    assert summary["metric"]["save_checkpoint_io_mean_GB_per_second"] > 0
    assert summary["metric"]["load_checkpoint_duration_mean_seconds"] > 0
    stats = json.loads((tmp_path / "out/3_per_epoch_stats.json").read_text())["1"]
    assert {"save_ckpt1", "save_ckpt2", "load_ckpt1"} <= set(stats)


def test_ranks_that_meet_over_tcp_save_and_load(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = [str(STOKER), "run", "checkpointing", "t", *SMALL, *QUICK, "--ranks", "3", "--results", "results"]
    base = {"STOKER_CONDUCTOR": f"127.0.0.1:{port}", "STOKER_MEMBERS": "2", "STOKER_RANKS": "3"}
    base["STOKER_MEETING_TOKEN"] = "a-secret-of-this-test"
    both = [started(words, tmp_path, **base, JOB_COMPLETION_INDEX=str(index)) for index in (1, 0)]
    codes = [end(process) for process in both]
    assert [code for code, _, _ in codes][1] in (0, 3), codes
    result = result_of(tmp_path)
    assert (result.status, [rank.rank for rank in result.ranks]) == ("complete", [0, 1, 2])
    assert [each.complete for each in result.checkpoints] == [True] * 4
    assert any(note.startswith("launcher: tcp, 3 ranks of 2 processes") for note in result.notes)


@pytest.fixture
def bucket(seaweedfs_endpoint: Any) -> S3Store:
    return client_of(seaweedfs_endpoint, "stoker-checkpoints")


def test_s3_takes_files_in_parts_and_gives_every_byte_back(
    bucket: S3Store, seaweedfs_endpoint: Any, tmp_path: Path
) -> None:
    words = [str(STOKER), "run", "checkpointing", "s3://stoker-checkpoints/c?part_bytes=5MiB", "--model", "llama3-8b"]
    words += [
        "--scale",
        "0.0005",
        "--ranks",
        "2",
        "--interval",
        "0.1s",
        "--verify",
        "1",
        "--json",
        "--results",
        "results",
    ]
    words += ["--num-checkpoints-write", "2", "--buffer-bytes", "1MiB", "--write-buffers", "24"]
    write = [*words, "--num-checkpoints-read", "2"]
    code, out, errors = end(started(write, tmp_path, **seaweedfs_endpoint.variables))
    assert code in (0, 3), errors
    told = json.loads(out)
    assert (told["status"], told["evidence"]["io_mode"]) == ("complete", "network")
    size = told["checkpointing"]["size_bytes"]
    assert size > 50 << 20
    assert [each["verified_bytes"] for each in told["checkpoints"]] == [0, 0, size, size]
    counters = told["evidence"]["counters"]
    assert counters["http_body_bytes"] >= 2 * size
    assert counters["http_multipart_part_requests"] > 4
    for secret in (value for name, value in seaweedfs_endpoint.variables.items() if "SECRET" in name):
        assert secret not in out + errors
    remove = [str(STOKER), "run", "checkpointing", "s3://stoker-checkpoints/c", "--model", "llama3-8b", "--remove"]
    code, out, errors = end(started(remove, tmp_path, **seaweedfs_endpoint.variables))
    assert (code, out) == (0, "removed 2 checkpoints, 8 files\n"), errors
    assert [item["path"] for chunk in obstore.list(bucket, prefix="c/") for item in chunk] == []


def test_one_run_writes_and_another_reads(tmp_path: Path) -> None:
    base = [
        str(STOKER),
        "run",
        "checkpointing",
        "t",
        "--model",
        "llama3-8b",
        "--scale",
        "0.0002",
        "--ranks",
        "2",
        *QUICK,
    ]
    counts = ("--num-checkpoints-write", "--num-checkpoints-read")
    code, _, errors = end(started([*base, counts[0], "2", counts[1], "0", "--results", "w"], tmp_path))
    assert code in (0, 3), errors
    read = [*base, counts[0], "0", counts[1], "2", "--results", "results"]
    code, out, errors = end(started([*read, "--json"], tmp_path))
    assert code in (0, 3), errors
    result = result_of(tmp_path)
    assert result.plan.checkpoint.hand_over_seconds == pytest.approx(5, abs=30)
    assert json.loads(out)["checkpointing"]["save"] is None
    torn = tmp_path / "t/llama3-8b/global_epoch1_step1/stoker-checkpoint.json"
    torn.unlink()
    code, out, errors = end(started([*read, "--dry-run"], tmp_path))
    assert code == 0 and "Only 1 checkpoints lie there for 2 reads" in out, errors
    code, _, errors = end(started([*base, counts[0], "0", counts[1], "1", "--layers", "3"], tmp_path))
    assert code == 2 and "another model" in errors


@pytest.mark.slow
def test_mistakes_get_one_sentence(tmp_path: Path) -> None:
    base = [str(STOKER), "run", "checkpointing"]
    for words, code, told in (
        (["t", "--model", "llama3-9b"], 2, "did you mean 'llama3-8b'?"),
        (["t"], 2, "--model is missing"),
        (["t", "--model", "llama3-70b", "--ranks", "3"], 2, "a multiple of 8"),
        (["t", "--model", "llama3-8b", "--ranks", "1"], 5, "too little space"),
        (["s3://b/c", "--model", "llama3-8b", "--fsync", "none"], 2, "--fsync has no effect"),
        (["t", "--model", "llama3-8b", "--num-checkpoints-write", "0"], 5, "no checkpoint to read"),
        (["t", "--model", "llama3-8b", "--buffer-bytes", "5000"], 2, "multiple of 4096"),
    ):
        (tmp_path / "t").mkdir(exist_ok=True)
        got, out, errors = end(started([*base, *words], tmp_path))
        assert (got, out) == (code, ""), (words, errors)
        assert told in errors and errors.startswith("stoker: ") and errors.count("\n") == 1, (words, errors)
        assert not (tmp_path / "stoker-results").exists()
