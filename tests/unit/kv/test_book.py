"""The book of tiers against a slow model that says the same in the plainest way."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.kv.book import Book


@dataclass
class Slow:
    """An entry of the slow model."""

    key: str
    size: int
    tier: int
    used: int
    pinned: bool = False


class SlowBook:
    """Lists, sorted each time."""

    def __init__(self, capacities: list[int]) -> None:
        self.capacities = capacities
        self.entries: list[Slow] = []
        self.uses = 0

    def held(self, tier: int) -> list[Slow]:
        return sorted((each for each in self.entries if each.tier == tier), key=lambda each: each.used)

    def room(self, tier: int, size: int, pinned: set[str]) -> bool:
        last = tier == len(self.capacities) - 1
        capacity = self.capacities[tier]
        limit = capacity if last else int(capacity * 0.95)
        target = capacity if last else int(capacity * 0.8)
        excess = sum(each.size for each in self.held(tier)) + size - max(target, size)
        free = [each for each in self.held(tier) if not each.pinned and each.key not in pinned]
        if size > limit or excess > sum(each.size for each in free):
            return False
        for victim in free:
            if excess <= 0:
                break
            excess -= victim.size
            goes = next(
                (at for at in range(tier + 1, len(self.capacities)) if self.room(at, victim.size, pinned)), None
            )
            if goes is None:
                self.entries.remove(victim)
            else:
                victim.tier = goes
                pinned.add(victim.key)
        return True

    def place(self, key: str, size: int) -> int | None:
        pinned: set[str] = set()
        for tier in range(len(self.capacities)):
            if self.room(tier, size, pinned):
                self.uses += 1
                self.entries.append(Slow(key, size, tier, self.uses))
                return tier
        return None


CAPACITIES = st.lists(st.integers(10, 400), min_size=1, max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "use", "pin", "unpin"]), st.integers(0, 15), st.integers(1, 120)))


@settings(max_examples=300, deadline=None)
@given(CAPACITIES, STEPS)
def test_every_step_ends_as_the_slow_model_says(capacities: list[int], steps: list[tuple[str, int, int]]) -> None:
    book, slow = Book(capacities), SlowBook(capacities)
    for at, (word, number, size) in enumerate(steps):
        key = f"k{at}" if word == "put" else f"k{number}"
        found = book.find(key)
        mine = next((each for each in slow.entries if each.key == key), None)
        assert (found is None) == (mine is None)
        if word == "put":
            placement = book.place(key, 1, size)
            tier = slow.place(key, size)
            assert (placement.entry.tier if placement is not None else None) == tier
            if placement is not None:
                for entry in [placement.entry, *(move.entry for move in placement.moves if move.target is not None)]:
                    book.unpin(entry)
        elif found is not None and mine is not None:
            _touch(book, slow, word, key)
        _compare(book, slow, capacities)


def _touch(book: Book, slow: SlowBook, word: str, key: str) -> None:
    found = book.find(key)
    mine = next(each for each in slow.entries if each.key == key)
    assert found is not None
    if word == "use":
        book.use(found)
        book.unpin(found)
        slow.uses += 1
        mine.used = slow.uses
    elif word == "pin" and not found.pins:
        book.pin(found)
        mine.pinned = True
    elif word == "unpin" and found.pins:
        book.unpin(found)
        mine.pinned = False


def _compare(book: Book, slow: SlowBook, capacities: list[int]) -> None:
    for tier, capacity in enumerate(capacities):
        assert sorted(book.keys(tier)) == sorted(each.key for each in slow.held(tier))
        used, most = book.used_bytes(tier)
        assert used == sum(each.size for each in slow.held(tier)) <= capacity
        assert used <= most


def test_a_large_entry_falls_through_to_the_tier_that_takes_it() -> None:
    book = Book([100, 1000])
    placement = book.place("large", 1, 96)
    assert placement is not None and placement.entry.tier == 1 and not placement.moves
    assert book.place("too large", 1, 1001) is None


def test_the_longest_unused_is_demoted_and_the_last_tier_deletes() -> None:
    book = Book([100, 50])
    for key in ("a", "b"):
        placement = book.place(key, 1, 40)
        assert placement is not None
        book.unpin(placement.entry)
    first = book.find("a")
    assert first is not None
    book.use(first)
    book.unpin(first)
    placement = book.place("c", 1, 40)
    assert placement is not None
    assert [(move.entry.key, move.source, move.target) for move in placement.moves] == [("b", 0, 1)]
    for each in [placement.entry, *(move.entry for move in placement.moves)]:
        book.unpin(each)
    placement = book.place("d", 1, 40)
    assert placement is not None
    assert [(move.entry.key, move.target) for move in placement.moves] == [("b", None), ("a", 1)]


def test_an_entry_in_use_stays_and_the_newcomer_is_refused() -> None:
    book = Book([100])
    held = book.place("held", 1, 60)
    assert held is not None
    assert book.place("new", 1, 60) is None
    book.unpin(held.entry)
    assert book.place("new", 1, 60) is not None
