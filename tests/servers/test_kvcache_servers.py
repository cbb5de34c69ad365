"""KV caches with everything real: MPI ranks, ranks that meet over TCP, an S3 server, and the whole closed series."""

import json
from pathlib import Path
from typing import Any

import obstore
import pytest
from benchmarks.loopback import free_ports
from buckets import client_of
from test_checkpoints import end, needs_mpi, result_of, started
from test_mpi_cli import MPIEXEC, STOKER

from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.run.mlperf.results_dir import initialise

pytestmark = pytest.mark.server
SMALL = ["--model", "tiny-1b", "--tensor-parallel", "1024", "--num-users", "3", "--duration", "1"]
OPEN = [
    "mlperf",
    "open",
    "kvcache",
    "run",
    "--cache-dir",
    "cache",
    "--num-users",
    "1",
    "--duration",
    "1",
    "--trials",
    "1",
]
TIERS = ["--gpu-mem-gb", "0", "--cpu-mem-gb", "0", "--generation-mode", "none", "--skip-fs-separation-gate"]


@needs_mpi
@pytest.mark.slow
def test_every_mpi_rank_is_a_client_with_a_folder_of_its_own(tmp_path: Path) -> None:
    words = ["run", "kvcache", "cache", *SMALL, "--trials", "2", "--results", "results", "--json"]
    code, out, errors = end(started([str(MPIEXEC), "-n", "3", str(STOKER), *words], tmp_path))
    assert code in (0, 3), errors
    told = json.loads(out)
    assert (told["ranks"], [trial["ranks"] for trial in told["trials"]]) == (3, [3, 3])
    result = result_of(tmp_path)
    assert all(len(rank.trials) == 2 and rank.trials[0].counts.requests for rank in result.ranks)
    assert any(note.startswith("launcher: mpi, 3 ranks") for note in result.notes)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_clients_that_meet_over_tcp(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = [str(STOKER), "run", "kvcache", "cache", *SMALL, "--results", "results"]
    base = {"STOKER_CONDUCTOR": f"127.0.0.1:{port}", "STOKER_MEMBERS": "2", "STOKER_RANKS": "3"}
    base["STOKER_MEETING_TOKEN"] = "a-secret-of-this-test"
    both = [started(words, tmp_path, **base, JOB_COMPLETION_INDEX=str(index)) for index in (1, 0)]
    codes = [end(process) for process in both]
    assert [code for code, _, _ in codes][1] in (0, 3), codes
    result = result_of(tmp_path)
    assert (result.status, [rank.rank for rank in result.ranks]) == ("complete", [0, 1, 2])
    assert result.trials[0].complete and result.trials[0].ranks == 3


def test_entries_are_objects_of_a_bucket(seaweedfs_endpoint: Any, tmp_path: Path) -> None:
    bucket = client_of(seaweedfs_endpoint, "stoker-kv")
    obstore.put(bucket, "c/rank_0/theirs.npy", b"theirs")
    words = [
        str(STOKER),
        "run",
        "kvcache",
        "s3://stoker-kv/c",
        *SMALL,
        "--verify",
        "1",
        "--results",
        "results",
        "--json",
    ]
    code, out, errors = end(started(words, tmp_path, **seaweedfs_endpoint.variables))
    assert code in (0, 3), errors
    told = json.loads(out)
    storage = told["trials"][0]["tiers"]["storage"]
    assert (told["status"], told["evidence"]["io_mode"]) == ("complete", "network")
    assert storage["reads"] > 0 and told["trials"][0]["counts"]["verified_bytes"] == storage["read_bytes"]
    assert told["evidence"]["counters"]["http_body_bytes"] >= storage["read_bytes"]
    left = [item["path"] for page in obstore.list(bucket, prefix="c") for item in page]
    assert left == ["c/rank_0/theirs.npy"]


@needs_mpi
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_tree_starts_its_clients_by_a_launcher(tmp_path: Path) -> None:
    initialise(tmp_path / "results", "acme")
    own = {"MLPSTORAGE_RESULTS_DIR": str(tmp_path / "results"), "MLPSTORAGE_SYSTEMNAME": "sysA"}
    words = [str(STOKER), *OPEN, *TIERS, "-np", "2", "--mpi-bin", "mpiexec"]
    code, _, errors = end(started(words, tmp_path, **own))
    assert code == 0, errors
    (leaf,) = (tmp_path / "results/open/acme/results/sysA/kv_cache/tiny-1b/run").iterdir()
    assert [path.parent.name for path in sorted(leaf.glob("option_1/trial_1/*/*.json"))] == ["rank_0", "rank_1"]
    metadata = json.loads((leaf / f"kv_cache_{leaf.name}_metadata.json").read_text())
    assert "mpiexec" in metadata["command_output_files"][0]["command"]
    judgement = judge_tree(read_tree(leaf, edition="3.0", division="open"))
    assert {each.rule for each in judgement.findings if each.severity == "blocks"} == {"CAP-03"}
