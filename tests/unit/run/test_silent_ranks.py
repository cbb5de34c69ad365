"""A local rank that is stopped is named within the deadline, and what was measured is kept."""

import os
import signal
from pathlib import Path

from conducted import Conductor, all_gone, plan

from stoker.bench.run.hosts.sources import local_name
from stoker.core.result import load_result


def test_a_stopped_rank_is_named_and_the_others_end(dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(plan(epochs=1_000_000, rank_deadline_seconds=2.0), dataset, tmp_path)
    pids = conductor.wait_for_steps()
    signal.sigtimedwait([], 0.5)  # steps may stand in a log before its rank has said its first word
    os.kill(pids[1], signal.SIGSTOP)
    _, out, errors = conductor.end(60)
    assert out.startswith(f"failed|rank 1 (pid {pids[1]}) on {local_name()} was not heard of for "), errors
    assert all_gone(pids)
    result = load_result(tmp_path)
    assert result.status == "failed" and result.metrics.steps > 0 and len(result.ranks) == 2


def test_a_conductor_that_was_stopped_takes_no_rank_for_lost(dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(plan(epochs=1_000_000, rank_deadline_seconds=1.0), dataset, tmp_path)
    pids = conductor.wait_for_steps()
    conductor.signal(signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    signal.sigtimedwait([], 2.5)
    conductor.signal(signal.SIGCONT)
    signal.sigtimedwait([], 0.3)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    signal.sigtimedwait([], 1.5)
    conductor.signal(signal.SIGINT)
    _, out, _ = conductor.end(60)
    assert out == "partial|stopped by SIGINT"
