"""The ranks' meeting over real sockets: barrier, signs of life, who is lost and why, and who is never let in."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import msgspec
import pytest

from stoker.bench.run.hosts.lines import Place, Said, Told, own_addresses, place_of
from stoker.bench.run.hosts.meeting import Meeting
from stoker.bench.run.hosts.member import Attendance
from stoker.bench.workloads.comm import RunAborted
from stoker.bench.workloads.progress import Progress
from stoker.core.errors import StokerError


class Party:
    """A meeting with members, and what each side heard of losses."""

    def __init__(self, ranks: int, deadline_seconds: float = 30.0) -> None:
        self.lost: list[str] = []
        self.seen: list[dict[int, Progress]] = []
        self.conductor_lost: list[str] = []
        self.meeting = Meeting(
            ranks,
            deadline_seconds=deadline_seconds,
            on_lost=self.lost.append,
            on_progress=self.seen.append,
            task=b"do it",
        )
        self.place = Place(("127.0.0.1",), self.meeting.place.port, self.meeting.place.token)
        self.members: list[Attendance] = []

    def join(self, rank: int, host: str = "a") -> Attendance:
        member = Attendance(self.place, rank, host, 100 + rank, on_lost=self.conductor_lost.append, connect_seconds=5.0)
        self.members.append(member)
        return member

    def close(self) -> None:
        for member in self.members:
            member.leave()
        self.meeting.close()


@pytest.fixture
def party() -> Iterator[type[Party]]:
    with ExitStack() as stack:

        def made(*arguments: float) -> Party:
            return stack.enter_context(closing(Party(*arguments)))  # type: ignore[arg-type]

        yield made  # type: ignore[misc]


def until(condition) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def test_the_barrier_lets_all_go_with_one_answer(party) -> None:  # type: ignore[no-untyped-def]
    here = party(3)
    members = [here.join(rank) for rank in range(3)]
    assert members[0].task == b"do it"
    for stops in ((False, False, False), (False, True, False), (False, False, False)):
        answers: list[bool] = []
        threads = [
            threading.Thread(target=lambda m=m, s=s, out=answers: out.append(m.arrive(s)))
            for m, s in zip(members, stops, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert answers == [any(stops)] * 3
    for member in members:
        member.give(bytes([members.index(member)]) * 100_000)
        member.leave(7)
    assert here.meeting.wait(lambda meeting: meeting.roll.all_ended, 20)
    assert {rank: len(data) for rank, data in here.meeting.given.items()} == dict.fromkeys(range(3), 100_000)
    assert here.meeting.said[2].code == 7
    assert (here.lost, here.conductor_lost) == ([], [])


def test_a_connection_that_ends_is_a_lost_rank_at_once(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2)
    first, second = here.join(0), here.join(1, "b")
    second._wire.socket.shutdown(socket.SHUT_RDWR)
    assert until(lambda: here.lost)
    assert here.lost == ["rank 1 on b (pid 101) ended: its connection was closed"]
    here.meeting.abort("rank 1 is lost")
    with pytest.raises(RunAborted, match="rank 1 is lost"):
        first.arrive(False)


def test_a_rank_killed_before_it_read_all_is_told_as_one_whose_connection_ended(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2)
    with socket.create_connection(("127.0.0.1", here.place.port), 5) as killed:
        hello = Said("hello", token=here.place.token, rank=1, host="b", pid=101)
        killed.sendall(msgspec.json.encode(hello) + b"\n")
        assert killed.recv(1)  # the rest of the welcome stays unread: the kernel answers with a reset
    assert until(lambda: here.lost)
    assert here.lost == ["rank 1 on b (pid 101) ended: its connection was closed"]


def test_a_silent_rank_is_lost_after_the_deadline(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2, 1.0)
    here.join(0)
    silent = here.join(1, "b")
    silent._sending.acquire()  # its thread cannot send any more, as that of a stopped process cannot
    try:
        assert until(lambda: here.lost)
    finally:
        silent._sending.release()
    assert here.lost[0].startswith("rank 1 on b (pid 101) was not heard of for ")
    assert len(here.lost) == 1


def test_a_rank_that_fails_tells_why(party) -> None:  # type: ignore[no-untyped-def]
    here = party(1)
    here.join(0).fail("no such file: x")
    assert until(lambda: here.lost)
    assert here.lost == ["rank 0 on a (pid 100) failed: no such file: x"]


def test_a_conductor_that_is_gone_is_told_to_every_rank(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2)
    member = here.join(0)
    here.meeting.close()
    assert until(lambda: here.conductor_lost)
    with pytest.raises(RunAborted):
        member.arrive(False)


def test_progress_comes_with_the_signs_of_life(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2, 1.0)
    for rank in (0, 1):
        here.join(rank).tell(Progress(0, 1, 10 + rank, 20))
    assert until(lambda: here.seen and len(here.seen[-1]) == 2)
    assert here.seen[-1][1].step == 11


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        msgspec.json.encode(Said("hello", token="wrong", rank=1)) + b"\n",
        msgspec.json.encode(Said("bye", code=0)) + b"\n",
        b"x" * 100_000,
        b'{"kind":"hello","rank":"one"}\n',
    ],
    ids=["http", "wrong-token", "no-hello", "long", "types"],
)
def test_who_does_not_know_the_token_learns_nothing_and_disturbs_nobody(party, line: bytes) -> None:  # type: ignore[no-untyped-def]
    here = party(2)
    with socket.create_connection(("127.0.0.1", here.place.port), 5) as stranger:
        stranger.settimeout(20)
        try:
            stranger.sendall(line)
            assert stranger.recv(1000) == b""
        except ConnectionError:
            pass
    here.join(0)
    assert not here.lost and list(here.meeting.roll.members) == [0]


def test_a_rank_that_is_there_already_or_cannot_be_is_refused(party) -> None:  # type: ignore[no-untyped-def]
    here = party(2)
    here.join(1)
    with pytest.raises(StokerError, match="is here already"):
        here.join(1)
    with pytest.raises(StokerError, match="no rank 2 among 2"):
        here.join(2)
    assert here.lost == []


def test_nobody_listening_is_told(party) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StokerError, match="cannot be reached"):
        Attendance(Place(("127.0.0.1",), port, "t"), 0, "a", 1, on_lost=lambda _: None, connect_seconds=0.3)


def test_places_as_words() -> None:
    place = Place(("10.0.0.1", "fe80::2"), 4000, "ab12")
    assert place_of(place.text()) == place
    for bad in ("", "a/b/c", "/1/t", "a/99999/t", "a/1"):
        assert place_of(bad) is None
    assert own_addresses()[-1] in ("127.0.0.1", "::1")
    assert msgspec.json.decode(msgspec.json.encode(Told("go", stop=True)), type=Told).stop
