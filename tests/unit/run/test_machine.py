"""Facts about the machine: there, JSON-ready, and nothing secret among them."""

from pathlib import Path

import msgspec
import pytest

from stoker.bench.run.machine import machine_facts, safe_environment
from stoker.core.seed import run_id


def test_the_facts_are_there_and_fit_json(tmp_path: Path) -> None:
    facts = msgspec.json.decode(msgspec.json.encode(machine_facts(str(tmp_path))))
    assert facts["cpu_count"] >= len(facts["cpu_affinity"]) >= facts["cpu_usable"] > 0
    assert facts["memory_bytes"] > 0
    assert facts["packages"]["numpy"]
    assert facts["target"]["mount"]["kind"]
    for name in ("host", "kernel", "python", "architecture"):
        assert facts[name]


def test_a_remote_target_has_no_mount() -> None:
    assert machine_facts("s3://bucket/prefix")["target"] == {"url": "s3://bucket/prefix", "scheme": "s3"}
    assert "target" not in machine_facts()


def test_no_secret_of_the_environment_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = run_id()
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "STOKER_TOKEN",
        "HOME_MADE",
        "AZURE_STORAGE_ACCOUNT_KEY",
    ):
        monkeypatch.setenv(name, canary)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://user:{canary}@example.com/?sig={canary}&region=x")
    text = msgspec.json.encode(machine_facts()).decode()
    assert canary not in text
    assert "example.com" in text


def test_only_listed_variables_are_kept() -> None:
    given = {"OMP_NUM_THREADS": "2", "STOKER_SEED": "5", "PATH": "/bin", "STOKER_API_KEY": "x"}
    assert safe_environment(given) == {"OMP_NUM_THREADS": "2", "STOKER_SEED": "5"}
