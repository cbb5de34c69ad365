"""Health from signs of life: silence, coming back, flapping, stopping on purpose, a watcher that was cut off."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.fs.place.watching import SECOND_NS, Changed, Limits, Watched, may_give_up, step, taken_over, tick_all

LIMITS = Limits()


class Server:
    """One server, with a clock in seconds."""

    def __init__(self) -> None:
        self.seen = Watched()
        self.changes: list[Changed] = []

    def __call__(self, seconds: float, event: Any = "tick", **named: Any) -> str:
        self.seen, changes = step(self.seen, int(seconds * SECOND_NS), event, LIMITS, **named)
        self.changes += changes
        return self.seen.health


def test_silence_makes_suspect_then_down_then_out() -> None:
    server = Server()
    told = [server(second) for second in (2.9, 3, 9.9, 10, 609.9, 610)]
    assert told == ["up", "suspect", "suspect", "down", "down", "out"]
    assert server.changes == [
        Changed("up", "suspect"), Changed("suspect", "down"), Changed("down", "out", rebuild=True)
    ]  # fmt: skip


def test_one_late_tick_concludes_all() -> None:
    server = Server()
    assert server(1000) == "out"
    assert server.changes == [Changed("up", "out", rebuild=True)]


def test_a_sign_of_life_ends_suspicion_at_once() -> None:
    server = Server()
    server(5)
    assert server(6, "heard") == "up" and server(8.9) == "up"


def test_who_was_down_must_answer_for_a_while() -> None:
    server = Server()
    server(20)
    assert server(21, "heard") == "down" and server(21.5, "heard") == "down" and server(22, "heard") == "up"


def test_a_flapping_server_is_held_down_twice_as_long_each_time() -> None:
    server, now, holds = Server(), 0.0, []
    for _ in range(12):
        now += 20
        assert server(now) == "down"
        start = now
        while server(now, "heard") != "up":
            now += 0.5
        holds.append(now - start)
    assert holds[:4] == [1, 2, 4, 8] and max(holds) == 300
    for _ in range(700):
        now += 1
        server(now, "heard")
    assert server.seen.failures == 0


def test_answers_with_pauses_do_not_count_as_steady() -> None:
    server = Server()
    server(20)
    server(40)
    for second in range(50, 100, 5):
        assert server(second, "heard") == "down"
        server(second + 4)


def test_whoever_stops_on_purpose_has_half_an_hour() -> None:
    server = Server()
    assert server(1, "stopping") == "maintenance"
    assert server(1800) == "maintenance" and server(1802) == "down" and server(2402) == "out"
    server = Server()
    server(1, "stopping")
    assert server(600, "heard") == "up"


def test_a_dead_disk_is_given_up_at_once() -> None:
    server = Server()
    assert server(1, "dead") == "out" and server.changes[0].rebuild
    assert server(2, "heard") == "out" and server(3, "heard") == "up"


def test_nobody_is_given_up_while_most_are_silent() -> None:
    now = 700 * SECOND_NS
    many = {number: Watched(heard_ns=0) for number in range(7)} | {9: Watched(heard_ns=now), 8: Watched(heard_ns=now)}
    after, changes = tick_all(many, now, LIMITS)
    assert {after[number].health for number in range(7)} == {"down"} and not any(c[0].rebuild for c in changes.values())
    few = {number: many[number] for number in (0, 1, 8, 9)}
    after, changes = tick_all(few, now, LIMITS)
    assert after[0].health == "out" and changes[0] == (Changed("up", "out", rebuild=True),) and 8 not in changes
    assert may_give_up([], now, LIMITS)


def test_a_new_watcher_begins_to_count_anew() -> None:
    server = Server()
    server(500)
    assert server.seen.health == "down"
    server.seen = taken_over(server.seen, 5000 * SECOND_NS)
    assert server(5599) == "down" and server(5600) == "out"
    fresh = taken_over(Watched(), 5000 * SECOND_NS)
    assert step(fresh, 5002 * SECOND_NS, "tick", LIMITS)[0].health == "up"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 400), st.sampled_from(["heard", "tick", "stopping", "dead"])), max_size=40))
def test_whatever_happens_health_follows_from_silence(events: list[tuple[int, Any]]) -> None:
    seen, now = Watched(), 0
    for seconds, event in events:
        now += seconds * SECOND_NS
        before = seen
        seen, changes = step(seen, now, event, LIMITS)
        assert bool(changes) == (before.health != seen.health)
        assert all(change.rebuild == (seen.health == "out") for change in changes)
        assert seen.heard_ns >= before.heard_ns and seen.since_ns >= before.since_ns
        if seen.health == "up" and event == "tick":
            assert max(now, seen.heard_ns) - seen.heard_ns < LIMITS.suspect_ns
