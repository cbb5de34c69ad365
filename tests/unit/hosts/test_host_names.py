"""Hosts as people write them, and the ranks each gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.bench.run.hosts.names import Host, parse_hosts, spread
from stoker.core.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a:2,b:3", [Host("a", 2), Host("b", 3)]),
        ("a b\tc", [Host("a"), Host("b"), Host("c")]),
        (["a:1", "b:2"], [Host("a", 1), Host("b", 2)]),
        ("10.0.0.1:4,node-1.example.org", [Host("10.0.0.1", 4), Host("node-1.example.org")]),
        ("[fe80::1%eth0]:4,::1", [Host("fe80::1%eth0", 4), Host("::1")]),
    ],
)
def test_lists(words: str | list[str], expected: list[Host]) -> None:
    assert list(parse_hosts(words)) == expected


@pytest.mark.parametrize("words", ["", " , ", "a:0", "a:x", "-a", "a:99999999", "a,a:2", "a;b", "$(x)", "a:1:2x"])
def test_lists_that_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="--hosts"):
        parse_hosts(words)


@given(st.text(max_size=30))
def test_no_text_is_taken_for_words_of_a_command(text: str) -> None:
    try:
        hosts = parse_hosts(text)
    except UsageError:
        return
    assert all(
        host.name and not host.name.startswith("-") and not set(host.name) & set(" ;$`'\"\n\\") for host in hosts
    )


def test_ranks_without_slots_are_spread_evenly_the_first_hosts_first() -> None:
    hosts = parse_hosts("a,b,c")
    assert [host.slots for host in spread(hosts, 8)] == [3, 3, 2]
    assert [host.name for host in spread(hosts, 2)] == ["a", "b"]


def test_slots_are_filled_in_their_order() -> None:
    hosts = parse_hosts("a:4,b:1,c:2")
    assert [host.slots for host in spread(hosts, 7)] == [4, 1, 2]
    assert spread(hosts, 5) == (Host("a", 4), Host("b", 1))
    with pytest.raises(UsageError, match="at least 8"):
        spread(hosts, 8)
    with pytest.raises(UsageError, match="for some hosts only"):
        spread(parse_hosts("a:4,b"), 5)
