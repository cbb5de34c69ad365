"""Eight processes over one store, killed at random: nothing torn, nothing lost, nothing left."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def soak(seconds: float, *options: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.pages.soak", "--seconds", str(seconds), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + 60)
    assert not done.returncode, done.stdout + done.stderr
    return {word: int(count) for word, count in re.findall(r"(\w+) (\d+)", done.stdout)}


def check(found: dict[str, int], kills: int) -> None:
    assert (found["torn"], found["lost"], found["faults"]) == (0, 0, 0)
    assert found["kills"] >= kills
    assert found["commits"] > found["kills"]
    assert found["reads"] > found["kills"]


def test_three_seconds_of_kills_over_shared_memory() -> None:
    check(soak(3), 16)


def test_three_seconds_of_kills_over_a_folder(tmp_path: Path) -> None:
    check(soak(3, "--folder", str(tmp_path / "s"), "--seed", "2"), 16)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_kills_over_shared_memory() -> None:
    check(soak(60, "--seed", "3"), 300)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_kills_over_a_folder(tmp_path: Path) -> None:
    check(soak(60, "--folder", str(tmp_path / "s"), "--seed", "4"), 300)
