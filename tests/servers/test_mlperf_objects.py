"""`stoker mlperf … object`: a dataset made in, and read from, a real S3 server, named by the reference's variables."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import obstore
import pytest
from buckets import client_of

from stoker.bench.run.mlperf.results_dir import initialise

pytestmark = pytest.mark.server
STOKER = str(Path(sys.executable).with_name("stoker"))
SERIES = ("mlperf", "whatif", "training", "cosmoflow")
FILES = ("-p", "dataset.num_files_train=8", "-aip")


def stoker(folder: Path, variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [STOKER, *words], cwd=folder, capture_output=True, text=True, timeout=110, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done


def variables_of(endpoint: Any, folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a submitter, without AWS_ENDPOINT_URL."""
    initialise(folder / "results", "acme")
    keys = {name: value for name, value in endpoint.variables.items() if name != "AWS_ENDPOINT_URL"}
    own = {"MLPSTORAGE_RESULTS_DIR": str(folder / "results"), "MLPSTORAGE_SYSTEMNAME": "sysA"}
    return {**keys, **own, **more}


def metadata(leaf: Path, family: str = "training") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((leaf / f"{family}_{leaf.name}_metadata.json").read_text())
    return found


def no_secret(endpoint: Any, folder: Path) -> bool:
    secret = endpoint.variables["AWS_SECRET_ACCESS_KEY"]
    return not any(secret in path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_dataset_and_a_run_in_a_bucket(seaweedfs_endpoint: Any, tmp_path: Path) -> None:
    client_of(seaweedfs_endpoint, "stoker-tests")
    told = {"BUCKET": "stoker-tests", "S3_ENDPOINT_URIS": seaweedfs_endpoint.url, "MLPSTORAGE_DATA_DIR": "mlperf"}
    variables = variables_of(seaweedfs_endpoint, tmp_path, **told)
    made = stoker(tmp_path, variables, *SERIES, "datagen", "object", "-np", "2", *FILES)
    assert "generated 8 files at s3://stoker-tests/mlperf/cosmoflow" in made.stdout
    stoker(tmp_path, variables, *SERIES, "run", "object", "-na", "1", "-at", "a100", "-cm", "1", *FILES)
    (leaf,) = (tmp_path / "results/whatif/acme/results/sysA/training/cosmoflow/run").iterdir()
    assert metadata(leaf)["args"]["data_dir"] == "s3://stoker-tests/mlperf/cosmoflow"
    assert json.loads((leaf / "summary.json").read_text())["num_files_train"] == 8
    assert no_secret(seaweedfs_endpoint, tmp_path)


@pytest.mark.slow
def test_requests_go_to_two_servers_in_turn(
    seaweedfs_endpoint: Any, start_gateway: Callable[[], AbstractContextManager[Any]], tmp_path: Path
) -> None:
    client_of(seaweedfs_endpoint, "stoker-tests")
    (tmp_path / "run").mkdir()
    with start_gateway() as gateway:
        addresses = tmp_path / "addresses"
        addresses.write_text(f"# two servers of one bucket\n{seaweedfs_endpoint.url}\n{gateway.url}\n")
        told = {"S3_ENDPOINT_FILE": str(addresses), "S3_LOAD_BALANCE_STRATEGY": "round_robin"}
        variables = variables_of(
            seaweedfs_endpoint, tmp_path / "run", MLPSTORAGE_DATA_DIR="s3://stoker-tests/two", **told
        )
        stoker(tmp_path / "run", variables, *SERIES, "datagen", "object", "-np", "2", *FILES)
        after_datagen = sum(gateway.counted("SeaweedFS_s3_request_total").values())
        stoker(tmp_path / "run", variables, *SERIES, "run", "object", "-na", "1", "-at", "a100", "-cm", "1", *FILES)
        after_run = sum(gateway.counted("SeaweedFS_s3_request_total").values())
    assert 4 <= after_datagen < after_run  # half of 8 files, and what a run asks for
    (leaf,) = (tmp_path / "run/results/whatif/acme/results/sysA/training/cosmoflow/run").iterdir()
    result = json.loads((tmp_path / "run/results" / metadata(leaf)["stoker_run_folder"] / "result.json").read_text())
    told_of = result["machine"]["environment"]["STOKER_S3_ENDPOINTS"]
    assert told_of == f"{seaweedfs_endpoint.url},{gateway.url}"
    assert no_secret(seaweedfs_endpoint, tmp_path)


@pytest.mark.slow
def test_checkpoints_in_a_bucket(seaweedfs_endpoint: Any, tmp_path: Path) -> None:
    client = client_of(seaweedfs_endpoint, "stoker-tests")
    small = ("model.num_layers=2", "model.transformer.hidden_size=64", "model.transformer.ffn_hidden_size=128")
    small += ("model.transformer.vocab_size=1000", "checkpoint.time_between_checkpoints=1")
    words = ("mlperf", "open", "checkpointing", "llama3-8b", "run", "object", "-np", "8", "-at", "b200", "-cm", "1")
    more = ("-ncw", "1", "-ncr", "1", "-cf", "s3://stoker-tests/saved", "-aip", "-p", *small)
    variables = variables_of(seaweedfs_endpoint, tmp_path, S3_ENDPOINT_URIS=seaweedfs_endpoint.url)
    stoker(tmp_path, variables, *words, *more)
    (leaf,) = (tmp_path / "results/open/acme/results/sysA/checkpointing/llama3-8b").iterdir()
    metric = json.loads((leaf / "summary.json").read_text())["metric"]
    assert {"save_checkpoint_duration_mean_seconds", "load_checkpoint_io_mean_GB_per_second"} <= set(metric)
    told = metadata(leaf, "checkpointing")
    assert (told["exit_status"], told["num_processes"], told["args"]["num_checkpoints_write"]) == (0, 8, 1)
    assert told["args"]["checkpoint_folder"] == "s3://stoker-tests/saved/llama3-8b"
    gates = {gate["id"]: gate["state"] for gate in json.loads((leaf / "gates.json").read_text())["gates"]}
    assert gates == {"CAP-01": "exempt", "CAP-02": "exempt", "CAP-03": "exempt"}
    keys = [str(item["path"]) for chunk in obstore.list(client, prefix="saved/llama3-8b/") for item in chunk]
    assert len([key for key in keys if key.endswith(".pt")]) >= 8, keys
    assert no_secret(seaweedfs_endpoint, tmp_path)


def test_a_server_that_is_not_there_is_told_before_the_run_with_the_rest(
    seaweedfs_endpoint: Any, tmp_path: Path
) -> None:
    variables = variables_of(seaweedfs_endpoint, tmp_path, S3_ENDPOINT_URIS="http://127.0.0.1:9")
    (tmp_path / "wrong.lock").write_text("msgspec==0.0.1\n")
    words = [*SERIES, "run", "object", "-dd", "b/p", "-na", "1", "-at", "a100", "-cm", "1", *FILES]
    done = subprocess.run(
        [STOKER, *words, "--verify-lockfile", "wrong.lock"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, **variables},
    )
    assert done.returncode == 5, done.stderr
    lock, store = (line for line in done.stderr.splitlines() if line.startswith("  "))
    assert "packages are not as locked" in lock
    assert "s3://b/p/cosmoflow" in store and "Connection refused" in store
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [".mlps", "mlperf-results.yaml"]
