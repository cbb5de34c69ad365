"""The main job against object stores: a real S3 server and a real Azure emulator."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from azurite_blobs import make_container
from buckets import client_of

pytestmark = pytest.mark.server
STOKER = str(Path(sys.executable).with_name("stoker"))


def feed(url: str, folder: Path, variables: dict[str, str], *more: str) -> Any:
    words = [STOKER, "feed", url, "--model", "resnet50", "--accelerator", "a100", "--budget", "12s"]
    words += ["--size-max", "200MiB", "--batch-size", "20", "--computation-time", "100ms", "--json", *more]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=110, env={**os.environ, **variables}
    )
    assert done.returncode in (0, 3), f"{done.stdout}\n{done.stderr}"
    for secret in (value for name, value in variables.items() if "SECRET" in name or name.endswith("_KEY")):
        assert secret not in done.stdout + done.stderr
        assert not any(secret in path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    return json.loads(done.stdout)


def test_feed_from_s3_counts_the_bytes_on_the_wire_and_removes_what_it_made(
    seaweedfs_endpoint: Any, tmp_path: Path
) -> None:
    client = client_of(seaweedfs_endpoint, "stoker-tests")
    told = feed("s3://stoker-tests/feed", tmp_path, seaweedfs_endpoint.variables)
    assert told["status"] == "complete"
    counters, ledger = told["evidence"]["counters"], told["evidence"]["ledger"]
    assert counters["http_body_bytes"] >= ledger["delivered_bytes"] > 0
    assert counters["http_get_range_requests"] > 0
    assert counters["http_head_requests"] == 0, "reading needs no look before"
    assert told["evidence"]["io_mode"] == "network"
    left = [item["path"] for chunk in obstore.list(client, prefix="feed/") for item in chunk]
    assert left == []


@pytest.mark.slow
def test_feed_from_azure(azurite_endpoint: Any, tmp_path: Path) -> None:
    make_container(azurite_endpoint.url, "feed")
    told = feed("az://feed/run", tmp_path, azurite_endpoint.variables)
    assert told["status"] == "complete"
    assert told["evidence"]["counters"]["http_body_bytes"] >= told["evidence"]["ledger"]["delivered_bytes"] > 0
