"""Book-keeping of ranks with time passed in: the barrier, who is overdue, who has ended where."""

import pytest

from stoker.bench.run.hosts.roll import Roll, first_names
from stoker.bench.workloads.progress import Progress

SECOND = 10**9


def roll(ranks: int = 4) -> Roll:
    made = Roll(ranks, deadline_ns=30 * SECOND)
    for rank in range(ranks):
        assert made.hello(rank, "ab"[rank * 2 // ranks], 100 + rank, 0) == ""
    return made


def test_the_last_to_arrive_gets_the_answer() -> None:
    made = roll()
    assert [made.arrive(rank, 1, stop=rank == 1) for rank in range(3)] == [None] * 3
    assert made.waited_for() == ["rank 3 on b (pid 103)"]
    assert made.arrive(3, 2, stop=False) is True
    assert made.waited_for() == []
    assert [made.arrive(rank, 3, stop=False) for rank in range(4)] == [None, None, None, False]


def test_who_asks_all_to_stop_is_heard_at_every_barrier() -> None:
    made = roll(2)
    made.arrive(0, 1, stop=False)
    made.ask_stop()
    assert made.arrive(1, 1, stop=False) is True
    assert [made.arrive(rank, 2, stop=False) for rank in range(2)] == [None, True]


def test_only_the_silent_are_overdue_and_each_once() -> None:
    made = roll()
    made.heard(0, 29 * SECOND)
    made.heard(2, 29 * SECOND)
    assert made.overdue(29 * SECOND) == []
    assert made.overdue(31 * SECOND) == [
        "rank 1 on a (pid 101) was not heard of for 31 s",
        "rank 3 on b (pid 103) was not heard of for 31 s",
    ]
    assert made.overdue(32 * SECOND) == []
    assert set(made.lost) == {1, 3}


def test_nobody_is_overdue_while_nobody_listened() -> None:
    made = roll()
    made.forgive(100 * SECOND)
    assert made.overdue(129 * SECOND) == []


def test_a_rank_that_ended_is_never_lost() -> None:
    made = roll()
    made.ended(1, 5)
    assert made.gone(1, "ended: its connection was closed") == ""
    made.heard(1, 6)
    assert len(made.overdue(31 * SECOND)) == 3
    assert made.all_ended


def test_hosts_are_done_when_all_their_ranks_are() -> None:
    made = roll()
    made.ended(3, 5)
    made.ended(0, 6)
    assert list(made.hosts_done()) == []
    made.ended(2, 9)
    (done,) = made.hosts_done()
    assert (done.host, done.ranks, done.first_ns, done.last_ns) == ("b", 2, 5, 9)
    assert made.hosts == 2


def test_a_rank_that_has_done_its_work_may_still_be_lost() -> None:
    made = roll()
    made.finished(2, 5)
    made.finished(3, 8)
    assert [done.host for done in made.hosts_done()] == ["b"]
    assert made.gone(3, "is lost") == "rank 3 on b (pid 103) is lost"
    made.ended(2, 9)
    assert next(iter(made.hosts_done())).last_ns == 8


def test_the_slowest_host_is_that_of_the_rank_that_is_least_far() -> None:
    made = roll()
    assert made.slowest_host() == ""
    made.heard(0, 1, Progress(0, 2, 5, 10))
    made.heard(3, 1, Progress(0, 1, 9, 10))
    assert made.slowest_host() == "b"
    made.heard(3, 2)  # a sign of life without progress keeps what was known
    assert made.told()[3].step == 9


def test_ranks_that_cannot_be_are_refused() -> None:
    made = Roll(2, deadline_ns=1)
    assert "no rank 2" in made.hello(2, "a", 1, 0)
    assert made.hello(0, "a", 1, 0) == ""
    assert "already" in made.hello(0, "a", 1, 0)
    assert not made.complete and made.missing() == [1]


def test_arriving_twice_is_our_own_fault() -> None:
    made = roll()
    made.arrive(0, 1, stop=False)
    with pytest.raises(AssertionError):
        made.arrive(0, 1, stop=False)


def test_many_names_are_shortened() -> None:
    assert first_names(["a", "b"]) == "a; b"
    assert first_names([str(number) for number in range(10)]).endswith("7; and 2 more")
