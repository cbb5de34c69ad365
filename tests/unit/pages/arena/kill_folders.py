"""Processes that are killed over a store with a folder: making, opening, committing, checkpoints, curing, closing.

`python kill_folders.py STRIDE NAME…` kills at every STRIDE-th step and prints kills and what was wrong, as JSON. After
each kill the store is opened twice: with the shared memory that was left, and without it, as after a loss of power
that kept all that was written.
"""

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kill_harness import Operation, Pages, capture, goes_on, in_child, lost_extents, make_everything_a_step, was_killed

from stoker.pages import OutOfSpace, Store
from stoker.pages.arena import steps
from stoker.pages.arena.mapping import FOLDER
from stoker.pages.disk import OsDisk

SIZES = {"size_bytes": 64 << 10, "pages_max": 32, "log_bytes": 32 << 10, "segment_bytes": 8 << 10}


def some_pages(store: Store) -> None:
    for index, size in enumerate((60, 1500, 3000)):
        store.allocate(size, name=f"page {index}").write(np.arange(size).astype(np.uint8))


def written(number: int, value: int) -> Operation:
    def write(store: Store) -> None:
        page = store.page(f"page {number}")
        page.write(((np.arange(page.size_bytes) * (value + 3)) % 251).astype(np.uint8))

    return write


def nothing(store: Store) -> None:
    """Open and close."""


def poisoned(store: Store) -> None:
    """Have the log fail under a commit."""
    assert store.flusher is not None

    class Failing(OsDisk):
        def write(self, *arguments: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.flusher._journal._disk = Failing()
    with suppress(OutOfSpace):
        written(0, 99)(store)


@dataclass
class FolderScenario:
    """What a process does to a folder's store that is killed over it.

    setup  what was done before by a process that closed; None for a folder that is not there yet
    doubt  what that process did last, of which nobody was told that it is durable
    """

    name: str
    operations: list[Operation]
    setup: Operation | None = some_pages
    durability: str = "data"
    doubt: Operation = nothing


MANY = [written(index % 3, index) for index in range(12)]
SCENARIOS = {
    one.name: one
    for one in (
        FolderScenario("creation", [some_pages], None),
        FolderScenario("opening", [nothing]),
        FolderScenario("none", MANY, durability="none"),
        FolderScenario("os", MANY[:6], durability="os"),
        FolderScenario("data", MANY[:6]),
        FolderScenario("full", MANY[:6], durability="full"),
        FolderScenario(
            "checkpoints",
            [
                written(1, 1),
                lambda store: store.checkpoint(),
                written(2, 2),
                lambda store: store.checkpoint(incremental=True),
                written(1, 3),
                lambda store: store.checkpoint(keep=1),
            ],
        ),
        FolderScenario("cure", [written(1, 1)], doubt=poisoned),
    )
}


class FolderKills:
    """One scenario: kills, looks, and puts everything back."""

    def __init__(self, scenario: FolderScenario, place: Path) -> None:
        self.scenario, self.place = scenario, place
        self.path, self.kills, self.wrong = place / "store", 0, list[str]()
        self.arena = ""
        self.doubted: Pages = {}
        if scenario.setup is not None:
            with Store.open(self.path, **SIZES) as store:
                scenario.setup(store)
                self.doubted = capture(store)
                scenario.doubt(store)
                self.arena = f"stoker-pages-{store.name}"
        self._keep("before")
        self.states = self._dry_run()
        self._put_back("before")

    def _dry_run(self) -> list[Pages]:
        if self.scenario.setup is None:
            with Store.open(self.path, **SIZES) as store:
                states = [{}]
                for operation in self.scenario.operations:
                    operation(store)
                    states.append(capture(store))
            return states
        with Store.open(self.path, durability=self.scenario.durability) as store:
            states = [capture(store)]
            for operation in self.scenario.operations:
                operation(store)
                states.append(capture(store))
        return states

    def _keep(self, name: str) -> None:
        shutil.rmtree(self.place / name, ignore_errors=True)
        (self.place / name).mkdir()
        if self.path.exists():
            shutil.copytree(self.path, self.place / name / "store")
        if self.arena and (FOLDER / self.arena).exists():
            shutil.copy(FOLDER / self.arena, self.place / name / "arena")

    def _put_back(self, name: str) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if (self.place / name / "store").exists():
            shutil.copytree(self.place / name / "store", self.path)
        for left in self._shared():
            left.unlink()
        if (self.place / name / "arena").exists():
            shutil.copy(self.place / name / "arena", FOLDER / self.arena)

    def _shared(self) -> list[Path]:
        """Return the files of shared memory that belong to the store."""
        with suppress(FileNotFoundError):
            told = json.loads((self.path / "identity.json").read_bytes())
            self.arena = f"stoker-pages-store-{told['uuid']}"
        return [path for path in FOLDER.glob("*stoker-pages-store-*") if self.arena and self.arena in path.name]

    def run(self, stride: int) -> "FolderKills":
        """Kill at every `stride`-th step until the child comes to its end."""
        count = 1
        while len(self.wrong) < 10:
            status, acknowledged = in_child(lambda tell, count=count: self._work(tell, count))  # type: ignore[misc]
            if not was_killed(status):
                break
            self.kills += 1
            self._shared()
            self._keep("killed")
            for with_memory in (True, False):
                self._put_back("killed")
                try:
                    faults = list(self._look(acknowledged, with_memory=with_memory))
                except Exception as error:
                    faults = [repr(error)]
                memory = "with" if with_memory else "without"
                self.wrong += [f"{self.scenario.name}, step {count}, {memory} memory: {fault}" for fault in faults]
            self._put_back("before")
            count += stride
        self._put_back("before")
        return self

    def _work(self, tell: Callable[[], None], count: int) -> None:
        make_everything_a_step()
        steps.kill_at(count, native=0)
        with Store.open(self.path, durability=self.scenario.durability, **SIZES) as store:
            for operation in self.scenario.operations:
                operation(store)
                tell()
        steps.kill_at(0)

    def _look(self, acknowledged: int, *, with_memory: bool) -> Iterator[str]:
        first = acknowledged if with_memory or self.scenario.durability != "none" else 0
        possible = self.states[first : acknowledged + 2]
        if not with_memory:
            possible = [*possible, self.doubted] if not acknowledged else possible
            for left in self._shared():
                left.unlink()
        with Store.open(self.path, **SIZES) as store:
            if self.scenario.setup is None:
                yield from self._made(store, acknowledged)
            elif capture(store) not in possible:
                yield f"pages are none of what they may be, {acknowledged} acknowledged"
            yield from store.verify()
            yield from lost_extents(store)
            goes_on(store)
            yield from store.verify()
            last = capture(store)
        yield from (f"{left} is left" for left in self._shared())
        yield from (f"{left} is left" for left in self.path.rglob("*.new"))
        with Store.open(self.path) as store:
            if capture(store) != last:
                yield "the next opening finds other pages"

    def _made(self, store: Store, acknowledged: int) -> Iterator[str]:
        """Tell what is wrong with a new store, whose pages were made by several commits."""
        now = capture(store)
        whole = self.states[-1]
        if acknowledged and now != whole:
            yield "new store lacks pages that were acknowledged"
        if any(page not in whole for page in now):
            yield "new store has pages that were never made"


def main(stride: int, names: list[str]) -> None:
    found = {}
    for name in names or SCENARIOS:
        with tempfile.TemporaryDirectory(dir=FOLDER) as place:
            kills = FolderKills(SCENARIOS[name], Path(place)).run(stride)
            for left in kills._shared():
                left.unlink()
            found[name] = {"kills": kills.kills, "wrong": kills.wrong}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
