"""Masters and their journal under seeds of lost messages, crashes, partitions and stopped processes."""

from typing import Any

import pytest
from fs_ha_world import World

from stoker.fs.journal.entries import LogReader
from stoker.fs.journal.etcd import Txn
from stoker.fs.journal.member import Member
from stoker.fs.journal.roles import Role
from stoker.fs.master.core import MasterCore

QUICK_SEEDS = (0, 0, 1)  # one of them twice: it has one end
SLOW_SEEDS = range(1000, 2100)
SECONDS = 5.0


def played(seed: int, seconds: float = SECONDS) -> World:
    world = World(seed)
    try:
        world.play(seconds)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return world


def test_what_was_acknowledged_is_there_once_and_everywhere() -> None:
    totals: dict[str, int] = {}
    ends: dict[int, str] = {}
    for seed in QUICK_SEEDS:
        world = played(seed)
        assert ends.setdefault(seed, world.digest.hexdigest()) == world.digest.hexdigest(), f"seed {seed} has two ends"
        for what, count in world.counts.items():
            totals[what] = totals.get(what, 0) + count
    rough = (
        "claims",
        "crashed leaders",
        "lost replies",
        "repeated",
        "seeds",
        "stop",
        "cut",
        "trims",
        "creates",
        "reads",
        "refused",
    )
    assert all(totals.get(what, 0) > 0 for what in rough), sorted(totals.items())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_seeds_hold() -> None:
    for seed in SLOW_SEEDS:
        digest = played(seed).digest.hexdigest()
        if seed % 20 == 0:
            assert played(seed).digest.hexdigest() == digest, f"seed {seed} has two ends"


def noticed(seeds: int) -> None:
    """Expect that one of some worlds does not hold."""
    with pytest.raises(AssertionError):
        for seed in range(seeds):
            played(seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestWhatIsLeftOutIsNoticed:
    """Each safeguard, taken away, is missed by the same worlds."""

    def test_the_fence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send = Member._ask

        def unfenced(self: Member, request: Any, *rest: Any) -> int:
            if isinstance(request, Txn) and len(request.compares) == 2:
                request = Txn(request.compares[1:], request.then, request.otherwise)
            return send(self, request, *rest)

        monkeypatch.setattr(Member, "_ask", unfenced)
        noticed(40)

    def test_the_wait_of_a_new_leader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        claimed = Member._claimed

        def hasty(self: Member, *rest: Any) -> None:
            claimed(self, *rest)
            self._ready_ns = 0

        monkeypatch.setattr(Member, "_claimed", hasty)
        noticed(40)

    def test_reads_without_a_sign_of_power(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Member, "valid", lambda self, now_ns: self.role is Role.LEADING)
        noticed(40)

    def test_a_refusal_without_a_sign_of_power(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MasterCore, "_answer_unchanged", lambda self, group, now_ns: group.settle())
        noticed(60)

    def test_answers_before_all_lower_entries_are_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send = MasterCore._send

        def early(self: MasterCore, now_ns: int) -> None:
            send(self, now_ns)
            if self._flying:
                self._flying[-1].settle()
                self._flying[-1].tickets = []

        monkeypatch.setattr(MasterCore, "_send", early)
        noticed(40)

    def test_the_rule_of_the_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed = LogReader.feed

        def blind(self: LogReader, number: int, value: bytes) -> Any:
            self.epoch = 0
            return feed(self, number, value)

        monkeypatch.setattr(LogReader, "feed", blind)
        with pytest.raises(Exception):  # noqa: B017 - what does not fit is told in one way or another
            for seed in range(60):
                played(seed)
