"""Which process one is, by the environment alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.bench.run.hosts.discover import Found, discover
from stoker.bench.run.hosts.lines import Place
from stoker.core.errors import UsageError

GOOD = {
    "STOKER_CONDUCTOR": "job-0.job:29420",
    "STOKER_MEMBERS": "3",
    "STOKER_RANKS": "8",
    "STOKER_MEETING_TOKEN": "0123456789abcdef",
    "JOB_COMPLETION_INDEX": "2",
}


def test_a_pod_of_an_indexed_job() -> None:
    found = discover(GOOD)
    place = Place(("job-0.job",), 29420, "0123456789abcdef")
    assert found == Found(2, 3, 8, place, "JOB_COMPLETION_INDEX=2", 600.0)
    assert list(found.mine()) == [6, 7]


def test_a_task_of_slurm_and_one_that_is_told() -> None:
    bare = {name: value for name, value in GOOD.items() if name != "JOB_COMPLETION_INDEX"}
    slurm = discover({**bare, "SLURM_PROCID": "0"})
    assert slurm is not None and (slurm.index, slurm.found_by) == (0, "SLURM_PROCID=0")
    told = discover({**bare, "STOKER_INDEX": "1", "STOKER_JOIN_SECONDS": "7.5"})
    assert told is not None and (told.index, told.join_seconds) == (1, 7.5)


def test_nothing_is_found_without_a_conductor() -> None:
    assert discover({"JOB_COMPLETION_INDEX": "2", "SLURM_PROCID": "1"}) is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"STOKER_MEMBERS": ""}, "STOKER_MEMBERS"),
        ({"STOKER_RANKS": "-1"}, "STOKER_RANKS"),
        ({"STOKER_RANKS": "2"}, "do not fit"),
        ({"JOB_COMPLETION_INDEX": "3"}, "do not fit"),
        ({"JOB_COMPLETION_INDEX": ""}, "no index"),
        ({"STOKER_CONDUCTOR": "job-0"}, "host:port"),
        ({"STOKER_CONDUCTOR": "job-0:99999"}, "host:port"),
        ({"STOKER_MEETING_TOKEN": "short"}, "STOKER_MEETING_TOKEN"),
    ],
)
def test_a_half_set_environment_is_refused(changes: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match) as refused:
        discover({**GOOD, **changes})
    assert "0123456789abcdef" not in str(refused.value)


@given(st.integers(1, 50), st.integers(0, 500))
def test_every_rank_is_taken_once_and_in_order(members: int, more: int) -> None:
    ranks = members + more
    shares = [list(Found(index, members, ranks, Place((), 1, ""), "").mine()) for index in range(members)]
    assert [rank for share in shares for rank in share] == list(range(ranks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
