"""The barrier of local ranks."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from stoker.bench.run.event_comm import EventComm, EventCounters
from stoker.bench.workloads.comm import RunAborted, SoloComm


@pytest.fixture
def counters() -> Iterator[EventCounters]:
    held = EventCounters(4)
    yield held
    held.close()


def comm(counters: EventCounters, rank: int) -> EventComm:
    return EventComm(rank, 4, arrivals=counters.arrivals, releases=counters.of_rank(rank))


def run_ranks(counters: EventCounters, act) -> list:
    found: list = [None] * 4

    def one(rank: int) -> None:
        try:
            found[rank] = act(comm(counters, rank))
        except RunAborted as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


def test_nobody_passes_before_all_are_there(counters: EventCounters) -> None:
    arrived: list[int] = []
    seen: list[int] = []

    def act(rank: EventComm) -> None:
        time.sleep(0.02 * rank.rank)
        arrived.append(rank.rank)
        rank.barrier()
        seen.append(len(arrived))

    run_ranks(counters, act)
    assert seen == [4] * 4


def test_rounds_do_not_mix(counters: EventCounters) -> None:
    rounds = [0] * 4

    def act(rank: EventComm) -> bool:
        for number in range(300):
            rounds[rank.rank] = number
            rank.barrier()
            if max(rounds) - min(rounds) > 1:
                return False
        return True

    assert run_ranks(counters, act) == [True] * 4


@pytest.mark.parametrize("voter", range(4))
def test_one_wish_to_stop_is_everybody_s(counters: EventCounters, voter: int) -> None:
    def act(rank: EventComm) -> list[bool]:
        return [rank.barrier(), rank.barrier(stop=rank.rank == voter), rank.barrier()]

    assert run_ranks(counters, act) == [[False, True, False]] * 4


def test_a_run_called_off_lets_every_waiting_rank_go(counters: EventCounters) -> None:
    def act(rank: EventComm) -> None:
        if rank.rank == 2:
            time.sleep(0.05)
            counters.abort()
            return
        rank.barrier()

    found = run_ranks(counters, act)
    assert [type(found[rank]) for rank in (0, 1, 3)] == [RunAborted] * 3


def test_after_that_no_barrier_holds(counters: EventCounters) -> None:
    counters.abort()
    late = comm(counters, 1)
    for _ in range(3):
        with pytest.raises(RunAborted):
            late.barrier()
    leader = comm(counters, 0)
    for _ in range(3):
        with pytest.raises(RunAborted):
            leader.barrier()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_does_not_break_the_wait(counters: EventCounters, rank: int) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    others = [
        threading.Timer(0.1, comm(counters, other).barrier, kwargs={"stop": True})
        for other in range(4)
        if other != rank
    ]
    try:
        for other in others:
            other.start()
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert comm(counters, rank).barrier() is True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for other in others:
            other.join()
        signal.signal(signal.SIGALRM, before)
    assert heard


def test_a_rank_alone_never_waits() -> None:
    assert SoloComm().barrier() is False
    assert SoloComm().barrier(stop=True) is True
