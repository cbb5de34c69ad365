"""A process killed at any step of any operation loses nothing that it acknowledged and leaves the store sound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kill_folders import SCENARIOS as FOLDERS
from kill_scenarios import SCENARIOS

HERE = Path(__file__).parent
STRIDE = 7
"""A prime number: it falls on other steps in each operation, so that over all of them each kind of step is met."""


def killed(script: str, kernels: str, stride: int, *names: str) -> dict[str, dict[str, object]]:
    environment = {**os.environ, "STOKER_KERNELS": kernels, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), str(stride), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    assert all(not one["wrong"] for one in found.values()), [one["wrong"][:3] for one in found.values() if one["wrong"]]
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_kills_all_over_leave_the_store_sound(kernels: str) -> None:
    found = killed("kill_scenarios.py", kernels, STRIDE)
    assert sum(one["kills"] for one in found.values()) > 200
    assert sum(one["kills"] for way, one in found.items() if "short way" in way) > (40 if kernels == "auto" else -1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_every_single_step_leaves_the_store_sound(name: str, kernels: str) -> None:
    assert sum(one["kills"] for one in killed("kill_scenarios.py", kernels, 1, name).values()) > 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_over_a_folder_lose_nothing_with_and_without_the_shared_memory() -> None:
    found = killed("kill_folders.py", "auto", 13)
    assert sum(one["kills"] for one in found.values()) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_kill_at_every_single_step_over_a_folder_loses_nothing(name: str, kernels: str) -> None:
    assert sum(one["kills"] for one in killed("kill_folders.py", kernels, 1, name).values()) > 60
