"""How a rank's loader reads gets into its log, whatever becomes of the rank, and into the result."""

from pathlib import Path
from typing import Any

import pytest
from rank_runs import make_dataset, plan, run

from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.reading import reading_of
from stoker.core.errors import StokerError
from stoker.core.result import Reading
from stoker.core.units import MiB
from stoker.loader.loader import Loader
from stoker.loader.tuning import PINNED, tuner_for
from stoker.loader.tuning_bounds import Settings
from stoker.storage.api import Capabilities

SETTINGS = Settings(3, 8, MiB)
TUNER = tuner_for(Capabilities("direct", in_flight=32), cpus=2, sample_bytes=0, pinned=SETTINGS)
TOLD = TUNER.told({"engine": "io_uring", "queue_depth": 7, "request_bytes": MiB})
READING = Reading(
    engine="io_uring",
    readers=3,
    queue_depth=7,
    request_bytes=MiB,
    start={"readers": 3, "queue_depth": 8, "request_bytes": MiB},
    pinned=("readers", "queue_depth", "request_bytes"),
    why=PINNED,
    settled=True,
)


class Telling:
    """What a loader has that tells."""

    tuning = TOLD


def logged(folder: Path) -> Reading | None:
    found = read_rank_log(folder / "ranks" / "rank-0000.jsonl")
    assert found is not None
    return found[0].reading


def test_what_the_reader_really_uses_wins_over_what_was_asked_of_it() -> None:
    assert reading_of(Telling()) == READING


@pytest.mark.parametrize("tuning", [None, {}])
def test_a_loader_that_tells_nothing_has_no_reading(tuning: Any) -> None:
    telling = Telling()
    telling.tuning = tuning
    assert reading_of(telling) is None
    assert reading_of(object()) is None


@pytest.fixture
def telling_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "tuning", TOLD, raising=False)


@pytest.mark.usefixtures("telling_loader")
def test_a_rank_tells_it_in_its_report_and_its_log(tmp_path: Path) -> None:
    report, _ = run(plan(), make_dataset(tmp_path), tmp_path)
    assert report.reading == READING
    assert logged(tmp_path) == READING


@pytest.mark.usefixtures("telling_loader")
def test_a_rank_killed_after_an_epoch_has_told_it(tmp_path: Path) -> None:
    run(plan(), make_dataset(tmp_path), tmp_path)
    log = tmp_path / "ranks" / "rank-0000.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert b"rank_ended" in lines[-1]
    log.write_bytes(b"".join(lines[:-1]))
    assert logged(tmp_path) == READING


@pytest.mark.usefixtures("telling_loader")
def test_a_rank_that_fails_tells_it_all_the_same(tmp_path: Path) -> None:
    url = make_dataset(tmp_path)
    victim = next((tmp_path / "data" / "train").rglob("*.npz"))
    victim.write_bytes(b"short")
    with pytest.raises(StokerError):
        run(plan(), url, tmp_path)
    assert logged(tmp_path) == READING
