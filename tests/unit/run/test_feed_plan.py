"""How a budget becomes files and seconds, which dataset counts as ready, and what a plan says of itself."""

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.bench.run.feed import FeedPlan, plan_feed
from stoker.bench.run.options import FEED, TRAINING
from stoker.bench.run.plan import (
    STEPS_WANTED,
    check_room,
    feed_draft,
    feed_files,
    least_files,
    training_plan,
    workload_entry,
)
from stoker.bench.run.signals import SignalStop, SignalWatch
from stoker.bench.run.target import child_url, dataset_of_ours, unsynced_url
from stoker.core.errors import CorruptError, InterruptedRunError, NotFoundError, UsageError
from stoker.core.options import Setting, resolve
from stoker.core.units import GiB, MiB
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store


def asked(**given: Any) -> dict[str, Setting]:
    """The settings of a feed for cosmoflow, changed by what is given."""
    flags = {"model": "cosmoflow", "accelerator": "a100", "size_max": "64MiB", **given}
    return resolve(FEED, flags=flags, environment={})


def test_the_smallest_dataset_is_a_few_steps_of_all_ranks() -> None:
    draft = feed_draft(asked(accelerator="a100:5", batch_size="3"), target_url="")
    assert least_files(draft) == STEPS_WANTED * 5 * 3
    images = feed_draft(asked(model="resnet50"), target_url="")
    assert least_files(images) == -(-STEPS_WANTED * images.batch_size // 1251)


def test_any_number_of_accelerators_can_be_asked_for() -> None:
    draft = feed_draft(asked(model="unet3d", accelerator="h100:64"), target_url="")
    assert draft.dataset.files >= STEPS_WANTED * 64 * 7


@pytest.mark.parametrize(
    ("budget_seconds", "rate", "space_bytes", "expected_bytes"),
    [
        (60, 100e6, 1000 * GiB, 100e6 * 60 * 0.35),  # what can be written
        (60, 1e12, 1000 * GiB, 2_828_486 / 0.00551 * 60 * 0.5),  # what can be read meanwhile
        (60, 1e12, 100 * MiB, 100 * MiB),  # what fits
    ],
)
def test_the_budget_bounds_what_is_generated(
    budget_seconds: float, rate: float, space_bytes: float, expected_bytes: float
) -> None:
    draft = feed_draft(asked(), target_url="")
    files = feed_files(
        draft, budget_seconds=budget_seconds, write_bytes_per_second=rate, space_bytes=float(space_bytes)
    )
    assert files == int(expected_bytes // draft.dataset.record_length_bytes)


def test_a_budget_too_short_for_the_least_is_refused_with_what_it_takes() -> None:
    draft = feed_draft(asked(model="unet3d", accelerator="h100"), target_url="")
    with pytest.raises(UsageError, match=r"budget is too short.*9m 47s.*10\.00 MiB/s.*got 5\.00 s.*--budget"):
        feed_files(draft, budget_seconds=5, write_bytes_per_second=10 * MiB, space_bytes=1e15)


def test_too_little_room_is_refused_with_what_it_takes() -> None:
    draft = feed_draft(asked(), target_url="")
    check_room(draft, space_bytes=17 * MiB, got="free")
    with pytest.raises(UsageError, match=r"expected 16\.18 MiB \(6 steps\), got 16\.00 MiB free"):
        check_room(draft, space_bytes=16 * MiB, got="free")


def test_a_plan_says_where_it_departs_from_its_model() -> None:
    model = {"model": "cosmoflow", "accelerator": "a100"}
    changes = {"batch_size": "2", "computation_time": "5ms", "threshold": 0.5}
    settings = resolve(TRAINING, flags=model | changes, environment={})
    entry, _ = workload_entry(settings)
    own = entry.dataset(files=10)
    other = msgspec.structs.replace(own, format="npz", record_length_bytes=1024.0)
    assert training_plan(settings, other, target_url="").deviations == (
        "The dataset is not cosmoflow's: npz samples of 1.00 KiB; the model has tfrecord samples of 2.70 MiB.",
        "The batch size is 2; the model's is 1.",
        "A step computes for 5 ms; the model's for 5.51 ms.",
        "The threshold is AU 50%; the model's is 70%.",
    )
    plain = resolve(TRAINING, flags=model, environment={})
    assert training_plan(plain, own, target_url="").deviations == ()


def make(folder: Path, files: int, **changes: Any) -> None:
    """Make cosmoflow's dataset with so many files in the folder."""
    draft = feed_draft(asked(), target_url="")
    store = open_store(str(folder), create=True)
    generate(store, msgspec.structs.replace(draft.dataset, files=files, **changes))
    store.close()


def planned(folder: Path, **given: Any) -> FeedPlan:
    return plan_feed(asked(**given), str(folder), touch=False)


def test_a_ready_dataset_is_read_where_it_lies(tmp_path: Path) -> None:
    make(tmp_path, 6)
    plan = planned(tmp_path)
    assert (plan.generate, plan.name, plan.training.dataset.files) == (False, "", 6)
    assert plan.run_seconds > planned_without_data(tmp_path).run_seconds


def planned_without_data(folder: Path) -> FeedPlan:
    (folder / "empty").mkdir()
    return planned(folder / "empty")


@pytest.mark.parametrize(
    ("changes", "files", "reason"),
    [
        ({"record_length_bytes": 1000.0, "record_length_stdev_bytes": 0.0}, 6, "it is not that of cosmoflow"),
        ({}, 5, "it is too small, 5 files where 6 are needed"),
    ],
)
def test_a_dataset_that_does_not_serve_is_left_alone_and_told_of(
    changes: dict[str, Any], files: int, reason: str, tmp_path: Path
) -> None:
    make(tmp_path, files, **changes)
    plan = planned(tmp_path)
    assert plan.generate
    assert plan.name.startswith("stoker-feed-cosmoflow-")
    assert any(reason in note for note in plan.training.notes)


def test_an_unfinished_or_damaged_dataset_is_told_of(tmp_path: Path) -> None:
    make(tmp_path, 6)
    manifest = tmp_path / ".stoker" / "train.manifest"
    manifest.write_bytes(b"garbage")
    with pytest.raises(CorruptError):
        dataset_of_ours(str(tmp_path))
    assert any("manifest is damaged" in note for note in planned(tmp_path).training.notes)
    manifest.unlink()
    with pytest.raises(NotFoundError):
        dataset_of_ours(str(tmp_path))
    assert any("was not completed" in note for note in planned(tmp_path).training.notes)
    assert dataset_of_ours(str(tmp_path / "nowhere")) is None


def test_kept_data_that_does_not_serve_is_never_replaced_unasked(tmp_path: Path) -> None:
    make(tmp_path / "stoker-feed-cosmoflow", 5)
    assert planned(tmp_path).generate
    with pytest.raises(UsageError, match=r"too small.*stoker gen .*stoker-feed-cosmoflow --remove"):
        planned(tmp_path, keep=True)


def test_two_feeds_never_share_what_they_generate(tmp_path: Path) -> None:
    assert planned(tmp_path).name != planned(tmp_path).name
    assert planned(tmp_path, keep=True).name == "stoker-feed-cosmoflow"


@pytest.mark.parametrize(
    ("target", "child", "unsynced"),
    [
        ("s3://b/p", "s3://b/p/n", "s3://b/p"),
        ("s3://b", "s3://b/n", "s3://b"),
        ("file:///d/", "file:///d/n", "file:///d/?fsync=none"),
        (
            "direct:///d?fallback=buffered",
            "direct:///d/n?fallback=buffered",
            "direct:///d?fallback=buffered&fsync=none",
        ),
        ("file:///d?fsync=data", "file:///d/n?fsync=data", "file:///d?fsync=data"),
        ("/odd?name", "/odd?name/n", "file:///odd%3Fname?fsync=none"),
    ],
)
def test_urls_below_and_beside_a_target(target: str, child: str, unsynced: str) -> None:
    assert child_url(target, "n") == child
    assert child_url(target, "") == target
    assert unsynced_url(target) == unsynced


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_stop_raises_passes_over_and_raises_again() -> None:
    with SignalStop() as stop:
        with pytest.raises(InterruptedRunError, match="stopped by SIGTERM") as raised:
            send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.received == signal.SIGTERM
        with pytest.raises(InterruptedRunError):
            send(signal.SIGINT)
    assert raised.value.exit_code == 128 + signal.SIGTERM


def test_a_stop_learns_what_a_watch_inside_it_has_noted() -> None:
    with SignalStop() as stop:
        with SignalWatch() as watch:
            send(signal.SIGHUP)
        assert (watch.received, stop.received) == (signal.SIGHUP, signal.SIGHUP)
