"""Turns: everybody is served once, one leads at a time, and who is interrupted keeps nobody waiting."""

import threading
import time

import pytest

from stoker.core.turns import Turns, Waiter


class Wish(Waiter):
    def __init__(self, weight: int = 1) -> None:
        super().__init__()
        self.weight = weight
        self.served = 0


class Desk:
    """Serves wishes in turns, and notes the groups."""

    def __init__(self, most: int = 1000) -> None:
        self.turns: Turns[Wish] = Turns()
        self.most = most
        self.groups: list[list[Wish]] = []
        self.leading = 0
        self.gate = threading.Event()
        self.gate.set()

    def ask(self, wish: Wish) -> None:
        if not self.turns.come(wish):
            return
        taken = self.turns.take(self.most, lambda one: one.weight)
        self.leading += 1
        assert self.leading == 1
        assert self.gate.wait(30)
        self.groups.append(taken)
        for one in taken:
            one.served += 1
        self.leading -= 1
        self.turns.pass_on()
        self.turns.serve(taken)


def started(desk: Desk, wish: Wish) -> threading.Thread:
    before = desk.turns.waiting + desk.leading
    thread = threading.Thread(target=desk.ask, args=(wish,), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while desk.turns.waiting + desk.leading == before and time.monotonic() < deadline:
        time.sleep(0.0005)
    return thread


def test_of_many_threads_each_is_served_once_and_one_leads_at_a_time() -> None:
    desk = Desk(most=7)
    wishes = [[Wish(1 + (thread + turn) % 3) for turn in range(200)] for thread in range(8)]
    threads = [threading.Thread(target=lambda own=own: [desk.ask(wish) for wish in own]) for own in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(wish.served == 1 and wish.done for own in wishes for wish in own)
    assert all(sum(wish.weight for wish in group) <= 7 for group in desk.groups)
    assert desk.turns.waiting == 0


def test_who_waits_is_taken_in_order_and_the_first_however_heavy_it_is() -> None:
    desk = Desk(most=5)
    desk.gate.clear()
    wishes = [Wish(1), Wish(2), Wish(3), Wish(9), Wish(1)]
    threads = [started(desk, wish) for wish in wishes]
    desk.gate.set()
    for thread in threads:
        thread.join(30)
    assert desk.groups == [wishes[:1], wishes[1:3], wishes[3:4], wishes[4:]]


class Interrupted(Wish):
    """Its thread is interrupted as it waits: before it is woken, or just as it is."""

    def __init__(self, *, woken: bool) -> None:
        super().__init__()
        plain = self._wake

        class Lock:
            def acquire(self) -> None:
                if woken:
                    plain.acquire()
                raise KeyboardInterrupt

            def release(self) -> None:
                plain.release()

        self._wake = Lock()  # type: ignore[assignment]


@pytest.mark.parametrize("woken", [True, False])
def test_who_is_interrupted_passes_the_lead_on(woken: bool) -> None:
    desk = Desk()
    desk.most = 1
    desk.gate.clear()
    first, last = Wish(), Wish()
    threads = [started(desk, first)]
    gone = Interrupted(woken=woken)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            desk.ask(gone)
        except KeyboardInterrupt as error:
            raised.append(error)

    interrupted = threading.Thread(target=wait, daemon=True)
    interrupted.start()
    while not (raised or (woken and desk.turns.waiting)):
        time.sleep(0.0005)
    threads.append(started(desk, last))
    desk.gate.set()
    for thread in [*threads, interrupted]:
        thread.join(30)
    assert raised
    assert (first.served, gone.served, last.served) == (1, 0, 1)


def test_a_leader_that_leaves_before_it_takes_lets_another_lead() -> None:
    desk = Desk()
    leader, other = Wish(), Wish()
    assert desk.turns.come(leader)
    thread = threading.Thread(target=desk.ask, args=(other,), daemon=True)
    thread.start()
    while desk.turns.waiting < 2:
        time.sleep(0.0005)
    desk.turns.leave(leader)
    thread.join(30)
    assert (leader.served, other.served) == (0, 1)
    assert desk.turns.come(Wish())  # nobody is at it any more
