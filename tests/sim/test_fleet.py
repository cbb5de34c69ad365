"""Ten thousand ranks on 1,250 hosts, with time that is only counted: results are checked, never how long it took."""

from pathlib import Path

import pytest
from benchmarks.fleet import STEPS, Faults, Fleet, Outcome, planned

from stoker.bench.run.hosts.roll import Roll, first_names
from stoker.bench.run.record import RunRecord
from stoker.bench.run.telling import ProgressEvent, Teller
from stoker.bench.workloads.progress import Progress
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan

HOSTS, RANKS = 1250, 10_000


@pytest.fixture(scope="module")
def whole() -> Outcome:
    return Fleet(HOSTS, RANKS).run()


def test_every_rank_ends_and_nobody_is_taken_for_lost(whole: Outcome) -> None:
    assert (whole.lost, whole.waited_for) == ([], [])
    assert whole.barriers == STEPS
    assert len(whole.done) == HOSTS and sum(done.ranks for done in whole.done) == RANKS
    assert all(done.first_ns <= done.last_ns <= whole.end_ns for done in whole.done)


def test_every_host_is_launched_with_its_ranks(whole: Outcome) -> None:
    assert {host.slots for host in whole.hosts} == {8}
    assert whole.words[:3] == ["mpirun", "-n", str(RANKS)]
    listed = whole.words[whole.words.index("--host") + 1].split(",")
    assert len(listed) == HOSTS and listed[-1] == "node-1249:8"


def test_the_killed_the_stopped_and_the_cut_off_are_named_and_nobody_else() -> None:
    faults = Faults(frozenset({17}), frozenset({5000}), frozenset({"node-1249"}))
    out = Fleet(HOSTS, RANKS, faults=faults).run()
    named = {int(sentence.split()[1]) for sentence in out.lost if "was not heard of" in sentence or "ended" in sentence}
    assert {17, 5000, *range(9992, 10_000)} <= named
    killed = [sentence for sentence in out.lost if sentence.startswith("rank 17 ")]
    assert killed == ["rank 17 on node-0002 (pid 1017) ended: its connection was closed"]
    before_the_end = [sentence for sentence in out.lost if sentence.startswith("rank 9999 ")]
    assert "on node-1249 (pid 10999) was not heard of for 3" in before_the_end[0]
    assert out.barriers == STEPS // 2
    assert len(out.waited_for) == 10  # those nobody hears of, and no other
    assert first_names(out.lost).endswith("more")


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (Fleet(50, 403, seed=7).run() for _ in range(2))
    assert (first.events, first.end_ns, first.done) == (second.events, second.end_ns, second.done)
    assert sorted({host.slots for host in first.hosts}) == [8, 9]
    assert Fleet(50, 403, seed=8).run().end_ns != first.end_ns


def test_progress_of_all_ranks_comes_to_one_event(tmp_path: Path) -> None:
    plan = TrainingPlan("test", DatasetSpec("npz", 1), RANKS, 1, Spread(), epochs=2)
    told: list[ProgressEvent] = []
    roll = Roll(RANKS, deadline_ns=1)
    for rank in range(RANKS):
        roll.hello(rank, f"node-{rank // 8:04d}", rank, 0)
        roll.heard(rank, 1, Progress(0, 1, 40 + rank % 7, 100, 0.5, 1000.0))
    roll.heard(4321, 2, Progress(0, 1, 11, 100, 0.5, 1000.0))
    for rank in range(16):
        roll.ended(rank, 3)
    record = RunRecord(Job("test"), plan, "s3://bucket", tmp_path / "run", launcher="none")
    try:
        Teller(plan, record, told.append, roll=roll).tell(roll.told())
    finally:
        record.close()
    (event,) = told
    assert (event.step, event.steps, event.slowest_host) == (11, 100, "node-0540")
    assert event.au_ratio == pytest.approx(0.5) and event.bytes_per_second == pytest.approx(1000.0 * RANKS)
    assert (event.hosts, event.hosts_done) == (HOSTS, 2)
    assert event.done_ratio is not None and event.done_ratio == pytest.approx(0.055)
    assert event.left_seconds is not None and event.left_seconds > 0


def test_all_families_are_foreseen_and_the_one_blind_host_is_named() -> None:
    told = planned(HOSTS, RANKS)
    assert told["foreseen"] == 4
    assert told["rules"] > 150
    assert told["looks"] == RANKS
    assert (told["gate"], told["blind"]) == ("failed", ["node-1249"])
    five_times_the_memory = 5 * HOSTS * 2**40 / 322_957
    assert told["files"] == pytest.approx(five_times_the_memory + 2_072, abs=2)
