"""An injected delay is named as the limiting stage, in the result and on the page, for each stage."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STOKER = str(Path(sys.executable).with_name("stoker"))
RECORD_BYTES = 16384


def stoker(*words: str, folder: Path, codes: tuple[int, ...] = (0, 3)) -> Any:
    """Run the command line and return its JSON."""
    done = subprocess.run(
        [STOKER, *words, "--json"], cwd=folder, capture_output=True, text=True, timeout=100, env={**os.environ}
    )
    assert done.returncode in codes, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def run(folder: Path, url: str, *more: str) -> Any:
    words = ["run", "training", url, "--model", "unet3d", "--accelerator", "a100", "--batch-size", "4", "--epochs", "1"]
    return stoker(*words, "--read-threads", "2", "--computation-time", "5ms", *more, folder=folder)


@pytest.mark.parametrize(("query", "stage"), [("open_delay=20ms", "open"), ("read_delay=20ms", "read")])
def test_a_slow_store_is_named_by_its_stage(tmp_path: Path, query: str, stage: str) -> None:
    stoker("gen", "data", "--format", "npz", "--files", "64", "--record-length", str(RECORD_BYTES), folder=tmp_path)
    told = run(tmp_path, f"file://{tmp_path}/data?{query}")
    assert told["metrics"]["limiting_stage"] == stage
    assert told["metrics"]["limiting_share_ratio"] > 0.5
    assert told["answer"] == "no"
    page = Path(tmp_path / told["report"]).read_text()
    assert f"of it for {stage}" in page


def test_slow_decoding_is_named_and_is_the_clients_fault(tmp_path: Path) -> None:
    words = ["gen", "data", "--format", "csv", "--files", "40", "--record-length", "400000"]
    stoker(*words, folder=tmp_path)
    told = run(tmp_path, "data", "--decode-threads", "1")
    assert told["metrics"]["limiting_stage"] == "decode"
    assert told["answer"] == "client_limited"


def test_slow_preprocessing_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config" / "workload"
    config.mkdir(parents=True)
    (config / "slow.yaml").write_text(
        "model: {name: slow}\nframework: pytorch\nworkflow: {generate_data: True, train: True}\n"
        "dataset: {data_folder: data, format: npz, num_files_train: 32, record_length_bytes: 16384}\n"
        "reader: {data_loader: pytorch, batch_size: 4, read_threads: 2, preprocess_time: 0.02}\n"
        "train: {epochs: 1, computation_time: 0.005}\n"
    )
    told = stoker("dlio", "workload=slow", "--config-dir", "config", folder=tmp_path)
    assert told["metrics"]["limiting_stage"] == "transform"
