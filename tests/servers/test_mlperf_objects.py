"""`stoker mlperf … object`: a dataset made in, and read from, a real S3 server, named by the reference's variables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

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


def test_a_dataset_and_a_run_in_a_bucket(seaweedfs_endpoint: Any, tmp_path: Path) -> None:
    initialise(tmp_path / "results", "acme")
    client = S3Store(
        "stoker-tests",
        endpoint=seaweedfs_endpoint.url,
        access_key_id=seaweedfs_endpoint.variables["AWS_ACCESS_KEY_ID"],
        secret_access_key=seaweedfs_endpoint.variables["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    obstore.put(client, "beside", b"the bucket is there")
    named = dict(seaweedfs_endpoint.variables)
    variables = {
        **named,
        "BUCKET": "stoker-tests",
        "S3_ENDPOINT_URIS": named.pop("AWS_ENDPOINT_URL"),
        "MLPSTORAGE_RESULTS_DIR": str(tmp_path / "results"),
        "MLPSTORAGE_SYSTEMNAME": "sysA",
        "MLPSTORAGE_DATA_DIR": "mlperf",
    }
    variables.pop("AWS_ENDPOINT_URL")
    made = stoker(tmp_path, variables, *SERIES, "datagen", "object", "-np", "2", *FILES)
    assert "generated 8 files at s3://stoker-tests/mlperf/cosmoflow" in made.stdout
    stoker(tmp_path, variables, *SERIES, "run", "object", "-na", "1", "-at", "a100", "-cm", "1", *FILES)
    (leaf,) = (tmp_path / "results/whatif/acme/results/sysA/training/cosmoflow/run").iterdir()
    told = json.loads((leaf / f"training_{leaf.name}_metadata.json").read_text())
    assert told["args"]["data_dir"] == "s3://stoker-tests/mlperf/cosmoflow"
    assert json.loads((leaf / "summary.json").read_text())["num_files_train"] == 8
    secret = named["AWS_SECRET_ACCESS_KEY"]
    assert not any(secret in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
