"""The main job from a folder to an answer, on whatever this machine's disk is."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cli_place import COSMOFLOW, Place

from stoker.bench.rules import judge
from stoker.bench.run.conduct import ProgressEvent, conduct
from stoker.bench.run.options import TRAINING
from stoker.bench.run.train import plan_training
from stoker.cli.rows import settings_from
from stoker.core import clock
from stoker.core.plan import Job

ANSWERS = ("yes", "no", "not_proven", "client_limited")
SMALL = ("--budget", "5s", "--size-max", "20MiB")
SECONDS_OVER_BUDGET = 15
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def target(place: Place) -> Path:
    """An empty folder to feed from."""
    (place / "target").mkdir()
    return place / "target"


def test_feed_answers_within_its_budget_and_removes_what_it_made(target: Path, place: Place) -> None:
    (target / "beside.txt").write_text("precious")
    before = place.tree("target")
    start = time.monotonic()
    done = place.stoker("feed", "target", *COSMOFLOW, "--budget", "10s", "--size-max", "30MiB", "--json")
    seconds = time.monotonic() - start
    told = done.document
    assert (told["status"], told["verb"], done.errors) == ("complete", "feed", "")
    assert told["answer"] in ANSWERS
    assert done.code == (0 if told["answer"] == "yes" else 3)
    assert seconds < 10 + SECONDS_OVER_BUDGET
    assert told["metrics"]["au_low_ratio"] <= told["metrics"]["au_ratio"] <= told["metrics"]["au_high_ratio"]
    assert told["metrics"]["steps"] > 10
    assert told["metrics"]["limiting_stage"]
    assert told["evidence"]["io_mode"] == "buffered"
    assert told["evidence"]["ledger"]["delivered_bytes"] > 0
    assert any("quick look" in note for note in told["notes"])
    page = place.folder / told["report"]
    assert 0 < page.stat().st_size < 2 << 20
    assert place.tree("target") == before


@pytest.mark.slow
def test_a_kept_dataset_is_used_again_and_replaced_only_by_its_owner(target: Path, place: Place) -> None:
    first = place.stoker("feed", "target", *COSMOFLOW, *SMALL, "--keep", "--json")
    assert first.code in (0, 3), first.errors
    kept = target / "stoker-feed-cosmoflow"
    files = {path: path.stat().st_ino for path in kept.rglob("*.tfrecord")}
    assert 6 <= len(files) <= 7  # seven fit, six are the least
    plan = place.stoker("feed", "target", *COSMOFLOW, *SMALL, "--dry-run", "--json").document
    assert (plan["generate"], plan["name"], plan["generate_bytes"]) == (False, kept.name, 0)
    second = place.stoker("feed", "target", *COSMOFLOW, *SMALL, "--json")
    assert second.document["status"] == "complete"
    assert {path: path.stat().st_ino for path in kept.rglob("*.tfrecord")} == files
    larger = ("--model", "cosmoflow", "--accelerator", "a100:2")
    place.stoker("feed", "target", *larger, *SMALL, "--keep", "--dry-run").refused(2, "too small", "--remove")
    plan = place.stoker("feed", "target", *larger, "--dry-run", "--json").document
    assert plan["generate"]
    assert any(f"too small, {len(files)} files where 12" in note for note in plan["training"]["notes"])
    assert place.stoker("gen", str(kept), "--remove").code == 0


def test_a_dataset_of_another_model_is_not_taken_for_the_asked_one(data: Path, place: Place) -> None:
    plan = place.stoker("feed", "data", *COSMOFLOW, "--dry-run", "--json").document
    assert plan["generate"]
    assert plan["training"]["dataset"]["format"] == "tfrecord"
    assert any("was not used: it is not that of cosmoflow" in note for note in plan["training"]["notes"])


def test_feed_past_the_page_cache(target: Path, place: Place) -> None:
    done = place.stoker("feed", f"direct://{target}", *COSMOFLOW, *SMALL, "--json")
    if done.code == 5 and "O_DIRECT is refused" in done.errors:
        pytest.skip(f"no direct I/O here: {done.sentence}")
    evidence = done.document["evidence"]
    assert (evidence["io_mode_requested"], evidence["io_mode"]) == ("direct", "direct")
    assert evidence["ledger"]["from_cache_bytes"] == 0
    assert done.document["answer"] in ANSWERS
    assert place.tree("target") == {}


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in a file system that lies in memory."""
    if not SHARED_MEMORY.is_dir() or not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("no /dev/shm to write to")
    with TemporaryDirectory(dir=SHARED_MEMORY, prefix="e2e-") as name:
        yield Path(name)


def test_memory_is_never_proven_to_be_storage(memory_folder: Path, place: Place) -> None:
    done = place.stoker("feed", str(memory_folder), *COSMOFLOW, *SMALL, "--json")
    assert (done.code, done.document["answer"] in ("not_proven", "no")) == (3, True)
    done = place.stoker("feed", f"direct://{memory_folder}", *COSMOFLOW, *SMALL)
    done.refused(5, "O_DIRECT is refused", "?fallback=buffered")
    assert list(memory_folder.iterdir()) == []


def test_the_harness_alone_keeps_an_accelerator_fed_and_proves_nothing(made: Path, place: Place) -> None:
    template = made / "train" / "img_00_of_16.npz"
    words = ("run", "training", f"null://?template={template}", *COSMOFLOW, "--format", "npz", "--epochs", "1")
    done = place.stoker(*words, "--steps", "100", "--computation-time", "20ms", "--json")
    told = done.document
    assert (done.code, told["answer"], told["status"]) == (3, "not_proven", "complete")
    assert told["metrics"]["steps"] > 90
    assert "no storage was read" in told["headline"]


def test_a_stepped_wall_clock_is_told_and_changes_no_duration(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"model": "cosmoflow", "accelerator": "a100", "epochs": "24"}
    plan = plan_training(settings_from(TRAINING, given, None), str(made))
    true_seconds = clock.wall_seconds
    told: list[ProgressEvent] = []
    monkeypatch.setattr(clock, "wall_seconds", lambda: true_seconds() + (3600 if told else 0))
    result = conduct(Job("run training"), plan, str(made), tmp_path / "run", progress=told.append)
    assert told
    assert result.clock_step_seconds == pytest.approx(3600, abs=5)
    assert 0 < result.wall_seconds < 100
    assert "run.clock" in [finding.rule for finding in judge(result).findings]
