"""What processes do to an arena when they are killed: every operation a store has.

`python kill_scenarios.py STRIDE NAME…` kills at every STRIDE-th step and prints kills and what was wrong, as JSON.
"""

import json
import sys

import numpy as np
from kill_harness import Kills, Operation, Scenario

from stoker.pages import Location, PageState, Store
from stoker.pages.frames import Residency


def some_pages(store: Store) -> None:
    for index, size in enumerate((60, 200, 3000, 70_000)):
        page = store.allocate(size, name=f"page {index}")
        page.write_at(0, np.arange(min(size, 4000)).astype(np.uint8))
    for made in store.allocate_many([64, 64, 64]):
        store.write(int(made), filled(64, 77))
    store.free_id(store.allocate_id(64))
    store.page("page 1").set_meta(colour="blue")


def page(store: Store, number: int) -> int:
    return store.page(f"page {number}").id


def filled(size: int, value: int) -> np.ndarray:
    return np.full(size, value, np.uint8)


def everything(store: Store) -> None:
    """One commit of every kind of frame."""
    with store.batch(source="batch") as batch:
        made = batch.allocate(dtype="<f4", shape=(10, 10), name="new")
        batch.write(made, np.ones(100, np.float32))
        batch.write(page(store, 0), filled(60, 7))
        batch.write_at(page(store, 2), 100, b"in the middle")
        batch.resize(page(store, 1), 500)
        batch.set_meta(page(store, 1), colour="red", size=3)
        batch.clone(page(store, 2), name="copy")
        batch.set_state(page(store, 2), PageState.STALE)
        batch.move(page(store, 0), Location.DEVICE, Residency.DEVICE)
        batch.free(page(store, 3))
        batch.mark("all of it")


def rows(store: Store, value: int) -> None:
    pages = np.array([one.id for one in store.pages() if one.size_bytes == 64], np.uint64)
    store.update_many(pages, np.full((len(pages), 64), value, np.uint8))


def lap(index: int) -> Operation:
    return lambda store: store.write(page(store, 2), np.roll(np.arange(3000).astype(np.uint8), index + 1))


def snapshots(store: Store) -> None:
    with store.snapshot():
        store.write(page(store, 0), filled(60, 1))


def nearly_full(store: Store) -> None:
    some_pages(store)
    for _ in range(100):
        if store.stats().free_bytes < 24 << 10:
            break
        store.allocate(16 << 10)


def damage(store: Store) -> None:
    """Change bytes of two pages past all commits, and have that found."""
    for number in (1, 2):
        facts = store.arena.facts(page(store, number))
        store.arena.mapping.data[facts.offset + 50] ^= 8
    store.verify(quarantine=True)


def under_snapshot() -> list:
    return [
        lambda store: store.write(page(store, 0), filled(60, 1)),
        lambda store: store.set_meta(page(store, 0), other="metadata"),
        lambda store: store.write(page(store, 0), filled(60, 2)),
        lambda store: store.set_meta(page(store, 2), other="metadata"),
        lambda store: store.write_at(page(store, 2), 5, b"after metadata"),
        lambda store: store.resize(page(store, 1), 900),
        lambda store: store.resize(page(store, 1), 90),
        lambda store: store.free(page(store, 3)),
        lambda store: rows(store, 3),
    ]


SCENARIOS = {
    one.name: one
    for one in (
        Scenario(
            "writes",
            some_pages,
            [
                lambda store: store.write(page(store, 2), filled(3000, 9)),
                lambda store: store.write_at(page(store, 2), 10, b"some bytes"),
                lambda store: store.write(page(store, 0), filled(60, 1), source="somebody"),
                lambda store: rows(store, 5),
                lambda store: rows(store, 5),
            ],
        ),
        Scenario(
            "short",
            some_pages,
            [
                lambda store: store.allocate_id(64),
                lambda store: store.allocate_id(3000),
                lambda store: store.free_id(max(one.id for one in store.pages())),
                lambda store: store.free_id(5),
                lambda store: store.allocate_id(40),
            ],
        ),
        Scenario("batch", some_pages, [everything, lambda store: store.write(page(store, 0), filled(60, 8))]),
        Scenario("batch under a snapshot", some_pages, [everything], pinned=True),
        Scenario(
            "lives",
            some_pages,
            [
                lambda store: store.free(page(store, 2)),
                lambda store: store.allocate(3000, name="again"),
                lambda store: store.resize(page(store, 0), 61),
                lambda store: store.resize(page(store, 1), 100),
                lambda store: store.set_meta(page(store, 1), colour="green" * 20),
                lambda store: store.clone(page(store, 1), name="twin"),
                lambda store: store.free(page(store, 1)),
                lambda store: store.allocate_many([64, 5000, 64]),
            ],
        ),
        Scenario("copies on write", some_pages, under_snapshot(), pinned=True),
        Scenario("snapshots", some_pages, [snapshots]),
        Scenario("quarantine", some_pages, [damage, lambda store: store.heal()], heals=True),
        Scenario("laps", some_pages, [lap(index) for index in range(14)], sizes={"log_bytes": 16 << 10}),
        Scenario("nearly full", nearly_full, under_snapshot(), pinned=True),
    )
}


def main(stride: int, names: list[str]) -> None:
    found = {}
    for name in names or SCENARIOS:
        for way in ("short", "long"):
            kills = Kills(SCENARIOS[name])
            if way == "short" and kills.store._fast is None:
                continue
            kills.run(native=way == "short", stride=stride)
            found[f"{name}, {way} way"] = {"kills": kills.kills, "wrong": kills.wrong}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
