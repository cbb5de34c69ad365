"""What is left of a run that was stopped, twice stopped, or killed."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conducted import Conductor, all_gone, plan

from stoker.bench.run.recover import KILLED, load_or_recover, recover
from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.result import RESULT_FILE, load_result

ENDLESS = plan(epochs=1_000_000, seconds=0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_a_partial_result_in_time(number: int, dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(ENDLESS, dataset, tmp_path)
    pids = conductor.wait_for_steps()
    before = time.monotonic()
    conductor.signal(number)
    code, out, errors = conductor.end(10)
    assert time.monotonic() - before < 5
    assert (code, out) == (0, f"partial|stopped by {signal.Signals(number).name}"), errors
    assert all_gone(pids, 0)
    result = load_result(tmp_path)
    assert result.status == "partial"
    assert result.metrics.steps > 0
    assert len({rank.epochs[-1].steps for rank in result.ranks}) == 1
    assert result.ranks[0].histograms
    assert result.evidence.ledger.wanted_bytes == result.evidence.ledger.delivered_bytes


def test_a_signal_while_the_store_hangs_still_leaves_a_result_in_time(dataset: str, tmp_path: Path) -> None:
    hanging = plan(epochs=1, read_threads=1, batch_size=24)
    conductor = Conductor(hanging, f"file://{dataset}?read_bytes_per_second=2KB", tmp_path)
    log = tmp_path / "ranks" / "rank-0001.jsonl"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (log.exists() and b"phase_started" in log.read_bytes()):
        time.sleep(0.05)
    before = time.monotonic()
    conductor.signal(signal.SIGTERM)
    _, out, errors = conductor.end(10)
    assert time.monotonic() - before < 5
    assert out.startswith("partial|stopped by SIGTERM; rank 0, rank 1 did not come to an end"), errors
    assert load_result(tmp_path).metrics.steps == 0


def test_a_second_signal_ends_at_once_and_keeps_the_logs(dataset: str, tmp_path: Path) -> None:
    hanging = plan(epochs=1_000_000, seconds=1.5)
    conductor = Conductor(hanging, dataset, tmp_path)
    pids = conductor.wait_for_steps()
    conductor.signal(signal.SIGTERM)
    time.sleep(0.3)
    before = time.monotonic()
    conductor.signal(signal.SIGTERM)
    code, _, errors = conductor.end(10)
    assert time.monotonic() - before < 2
    assert code != 0
    assert "InterruptedRunError" in errors
    assert all_gone(pids, 1)
    assert load_or_recover(tmp_path).status == "partial"


@pytest.mark.parametrize("delay_ms", np.random.default_rng(20).integers(0, 1500, 6).tolist())
def test_a_run_killed_at_any_moment_is_readable(delay_ms: int, dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(ENDLESS, dataset, tmp_path)
    pids = conductor.wait_for_steps()
    time.sleep(delay_ms / 1000)
    conductor.kill_group()
    conductor.end(10)
    assert all_gone(pids), "the ranks outlived their conductor"
    assert not (tmp_path / RESULT_FILE).exists()
    result = load_or_recover(tmp_path)
    assert (result.status, result.reason) == ("partial", KILLED)
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert all(rank.epochs and rank.ledger.delivered_bytes > 0 for rank in result.ranks)
    assert 0 < result.metrics.au_ratio <= 1
    assert result.ended_utc > result.started_utc
    assert result.wall_seconds > 0
    assert load_result(tmp_path).id == result.id
    assert (tmp_path / "series.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("delay_ms", range(0, 1000, 50))
def test_a_run_killed_while_it_starts_is_readable_or_never_began(delay_ms: int, dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(ENDLESS, dataset, tmp_path)
    time.sleep(0.2 + delay_ms / 1000)
    conductor.kill_group()
    conductor.end(10)
    try:
        result = load_or_recover(tmp_path)
    except (NotFoundError, CorruptError) as error:
        assert "no run" in str(error) or "before it began" in str(error)
        return
    assert result.status == "partial"
    assert all_gone([rank.pid for rank in result.ranks])


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        recover(tmp_path)
    with pytest.raises(NotFoundError):
        load_or_recover(tmp_path / "missing")
    (tmp_path / "events.jsonl").write_bytes(b'{"event":"run_st')
    with pytest.raises(CorruptError, match="before it began"):
        recover(tmp_path)
    (tmp_path / "events.jsonl").write_bytes(b'{"event":"run_started","at_ns":1,"utc":"x","run":{}}\n')
    with pytest.raises(CorruptError, match="not the log of a run"):
        recover(tmp_path)
