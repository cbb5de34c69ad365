"""Processes that share a store, are killed at random and come again: what is lost, torn or left?

python -m benchmarks.pages.soak --seconds 60             # a store in memory
python -m benchmarks.pages.soak --seconds 60 --folder f  # one with a log and checkpoints

Eight processes write, read, make batches, hold snapshots, make and free pages. One of them is killed every few
hundredths of a second, in a third of the cases after it was stopped for a moment, and comes again. What a process
acknowledged it notes in memory that outlives it. Prints commits, reads, kills, torn, lost and faults; the exit status
is 1 unless the last three are 0.
"""

import argparse
import ctypes
import mmap
import os
import random
import secrets
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np

from stoker.core.clock import monotonic_ns, sleep
from stoker.pages import OutOfSpace, PageNotFound, Store
from stoker.pages.arena.mapping import FOLDER, PREFIX

WORKERS = 8
WORDS = 8
GROUP_PAGES = 6
SIZES = {"size_bytes": 8 << 20, "pages_max": 512, "log_bytes": 256 << 10}
KILLS_APART_SECONDS = 0.02
PARENT_DIES = 1
"""PR_SET_PDEATHSIG: no worker outlives whoever started it."""


class Note(IntEnum):
    """Index of a word that a worker keeps outside of itself."""

    ACKNOWLEDGED = 0
    COMMITS = 1
    READS = 2
    TORN = 3
    FAULTS = 4


class Notes:
    """The words of one worker, in memory that all processes share."""

    def __init__(self, words: memoryview, worker: int) -> None:
        self._words, self._first = words, worker * WORDS

    def __getitem__(self, note: Note) -> int:
        return int(self._words[self._first + note])

    def __setitem__(self, note: Note, value: int) -> None:
        self._words[self._first + note] = value


def pattern(size_bytes: int, value: int) -> np.ndarray:
    """Return bytes that are all of one 64-bit value: any mixture of two of them shows."""
    return np.full(size_bytes // 8, value, np.uint64).view(np.uint8)


def whole(data: np.ndarray) -> bool:
    """Tell whether bytes are a pattern."""
    words = data.view(np.uint64)
    return bool((words == words[0]).all())


@dataclass
class Worker:
    """One process at work in the store; each `work` is done again and again."""

    number: int
    store: Store
    notes: Notes
    chance: random.Random = field(default_factory=lambda: random.Random(secrets.randbits(64)))

    def own_page(self) -> int:
        """Return the page that only this worker writes to: it holds the number of its last commit."""
        return self.store.page(f"own {self.number}").id

    def group(self) -> list[int]:
        """Return the pages that are always written together."""
        return [self.store.page(f"group {index}").id for index in range(GROUP_PAGES)]

    def write(self) -> None:
        """Write the next number to the own page, and note it once that is acknowledged."""
        page = self.own_page()
        size = self.store.arena.facts(page).size_bytes
        value = int(self.store.read(page).view(np.uint64)[0]) + 1
        self.store.write(page, pattern(size, value))
        self.notes[Note.ACKNOWLEDGED] = value
        self.notes[Note.COMMITS] += 1

    def update_group(self) -> None:
        """Write one value to all pages of the group, the short way or as a batch."""
        value, pages = self.chance.getrandbits(60), self.group()
        if self.chance.random() < 0.5:
            self.store.update_many(np.array(pages, np.uint64), np.tile(pattern(2048, value), (len(pages), 1)))
        else:
            with self.store.batch() as batch:
                for page in pages:
                    batch.write(page, pattern(2048, value))
        self.notes[Note.COMMITS] += 1

    def read(self) -> None:
        """Read pages without a lock: each is a pattern, or was freed meanwhile."""
        for page in [*self.group(), *(one.id for one in self.store.pages())]:
            with suppress(PageNotFound):
                self.notes[Note.TORN] += not whole(self.store.read(page))
                self.notes[Note.READS] += 1

    def look(self) -> None:
        """Hold a snapshot: the group is of one value and stays so."""
        with self.store.snapshot() as snapshot:
            for _ in range(5):
                seen = {int(snapshot.view(page).view(np.uint64)[0]) for page in self.group()}
                parts = all(whole(snapshot.view(page)) for page in snapshot.pages())
                self.notes[Note.TORN] += len(seen) != 1 or not parts
                self.notes[Note.READS] += len(snapshot)
                sleep(self.chance.random() / 200)

    def come_and_go(self) -> None:
        """Make pages of patterns, change what they are, and free them: all that this worker ever left, too."""
        with suppress(PageNotFound):
            for page in self.store.pages():
                if page.name == f"guest {self.number}":
                    page.free()
        size = 8 * self.chance.randint(1, 1000)
        made = self.store.allocate(size, name=f"guest {self.number}")
        made.write(pattern(size, self.chance.getrandbits(60)))
        made.set_meta(colour="blue" * self.chance.randint(1, 20))
        made.resize(8)
        made.clone(name=f"guest {self.number}")
        for page in [self.store.allocate_id(64) for _ in range(3)]:
            self.store.write(page, pattern(64, self.chance.getrandbits(60)))
            self.store.free_id(page)
        self.notes[Note.COMMITS] += 14

    def checkpoint(self) -> None:
        """Write a checkpoint, or, without a folder, a snapshot's worth of reading."""
        if self.store.folder:
            self.store.checkpoint(incremental=self.chance.random() < 0.7)
            sleep(0.05)
        else:
            self.look()


WORKS: tuple[tuple[Callable[[Worker], None], ...], ...] = (
    (Worker.write,),
    (Worker.write,),
    (Worker.update_group, Worker.write),
    (Worker.update_group,),
    (Worker.read,),
    (Worker.look, Worker.write),
    (Worker.come_and_go, Worker.write),
    (Worker.come_and_go, Worker.checkpoint),
)


class Soak:
    """The store, its workers, and who kills them."""

    def __init__(self, folder: Path | None, seed: int) -> None:
        self.where = folder or f"soak-{os.getpid()}-{secrets.token_hex(4)}"
        self.store = (
            Store.open(folder, durability="os", segment_bytes=1 << 20, **SIZES)
            if folder
            else Store.open(name=str(self.where), **SIZES)
        )
        self.chance = random.Random(seed)
        self._map = mmap.mmap(-1, (WORKERS + 1) * WORDS * 8)
        words = memoryview(self._map).cast("Q")
        self.notes = [Notes(words, worker) for worker in range(WORKERS + 1)]
        self.children: dict[int, int] = {}
        self.kills = self.lost = 0
        for index in range(GROUP_PAGES):
            self.store.allocate(2048, name=f"group {index}")
        for worker in range(WORKERS):
            self.store.allocate(8 * (1 + 40 * worker), name=f"own {worker}")

    def run(self, seconds: float) -> list[str]:
        """Kill and start again for so long; return what is wrong at the end."""
        end_ns = monotonic_ns() + round(seconds * 1e9)
        for worker in range(WORKERS):
            self.start(worker)
        while monotonic_ns() < end_ns:
            sleep(self.chance.random() * 2 * KILLS_APART_SECONDS)
            self.kill(self.chance.randrange(WORKERS))
        for worker in range(WORKERS):
            self.kill(worker, again=False)
        wrong = self.store.verify()
        self.store.close()
        left = FOLDER / f"{PREFIX}{self.store.name}"
        return [*wrong, *([f"{left} is left"] if left.exists() else [])]

    def start(self, worker: int) -> None:
        """Fork a worker."""
        child = os.fork()
        if not child:
            code = 1
            try:
                ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
                self.work(worker)
                code = 0
            except BaseException:
                self.notes[worker][Note.FAULTS] += 1
                traceback.print_exc()
            finally:
                os._exit(code)
        self.children[worker] = child

    def work(self, worker: int) -> None:
        """Do a worker's work until it is killed."""
        where = self.where
        store = Store.open(where, durability="os") if isinstance(where, Path) else Store.attach(where)
        one = Worker(worker, store, self.notes[worker])
        while True:
            for work in WORKS[worker]:
                with suppress(OutOfSpace):  # snapshots hold what would be needed
                    work(one)

    def kill(self, worker: int, *, again: bool = True) -> None:
        """Kill a worker, see that nothing it acknowledged is lost, and start it again."""
        child = self.children.pop(worker)
        if self.chance.random() < 1 / 3:
            os.kill(child, signal.SIGSTOP)
            sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.kills += 1
        data = self.store.read(self.store.page(f"own {worker}").id)
        found, acknowledged = int(data.view(np.uint64)[0]), self.notes[worker][Note.ACKNOWLEDGED]
        self.lost += not acknowledged <= found <= acknowledged + 1
        self.notes[worker][Note.ACKNOWLEDGED] = found  # what was in doubt is not from now on
        self.notes[WORKERS][Note.TORN] += not whole(data)
        if again:
            self.start(worker)

    def total(self, note: Note) -> int:
        """Return the sum of what all have noted."""
        return sum(notes[note] for notes in self.notes)


def main() -> int:
    """Run; see the module."""
    parser = argparse.ArgumentParser(description="Kill processes that share a store of pages, and look.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="of who is killed when")
    arguments = parser.parse_args()
    soak = Soak(arguments.folder, arguments.seed)
    wrong = soak.run(arguments.seconds)
    torn, faults = soak.total(Note.TORN), soak.total(Note.FAULTS) + len(wrong)
    print(
        f"commits {soak.total(Note.COMMITS)} reads {soak.total(Note.READS)} kills {soak.kills} "
        f"torn {torn} lost {soak.lost} faults {faults}"
    )
    for one in wrong:
        print(one, file=sys.stderr)
    return int(bool(torn or soak.lost or faults))


if __name__ == "__main__":
    sys.exit(main())
