"""Processes that are killed at every step of what they do to an arena, and what must hold afterwards.

A step is a named failpoint of the code, a store to a 64-bit word of shared memory, or a call that changes the disk. A
forked child counts down to one of them and dies there by SIGKILL; its parent has the arena attached and looks.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stoker.pages import PageNotFound, Store
from stoker.pages.arena import steps
from stoker.pages.arena.audit import audit
from stoker.pages.arena.layout import Word, class_bytes
from stoker.pages.arena.mapping import Mapping
from stoker.pages.disk import OsDisk

SMALL = {"size_bytes": 256 << 10, "pages_max": 64, "log_bytes": 192 << 10}
Pages = dict[int, tuple[object, ...]]
Operation = Callable[[Store], None]
DISK_EVENTS = frozenset({"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "open"})
DISK_CALLS = ("write", "reserve", "truncate", "sync", "sync_folder")
SURVIVED = 0


class KillingWords:
    """The words of an arena; each store to one is a step."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        steps.step("word")
        self._words[index] = value


def make_everything_a_step() -> None:
    """From now on each store to words of arenas, and each change of the disk, is a step of this process."""
    begin = Mapping.__init__

    def wrapped(self: Mapping, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        self.words = KillingWords(self.words)  # type: ignore[assignment]

    Mapping.__init__ = wrapped  # type: ignore[method-assign, assignment]
    for name in DISK_CALLS:
        setattr(OsDisk, name, _stepped(getattr(OsDisk, name)))
    sys.addaudithook(lambda event, _: steps.step(event) if event in DISK_EVENTS else None)


def _stepped(call: Callable[..., object]) -> Callable[..., object]:
    def stepping(*arguments: object, **options: object) -> object:
        steps.step(call.__name__)
        return call(*arguments, **options)

    return stepping


def in_child(work: Callable[[Callable[[], None]], None]) -> tuple[int, int]:
    """Run `work` in a forked child; return its wait status and how often it called what it was given."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.close(read)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work(lambda: os.write(write, b"."))  # type: ignore[arg-type, return-value]
            code = SURVIVED
        except BaseException as error:
            os.write(write, f"!{error!r}".encode())
        finally:
            os._exit(code)
    os.close(write)
    told = b""
    while part := os.read(read, 65536):
        told += part
    os.close(read)
    _, status = os.waitpid(child, 0)
    if b"!" in told:
        raise AssertionError(f"child failed: {told.decode()}")
    return status, len(told)


def was_killed(status: int) -> bool:
    """Tell whether the wait status is that of a SIGKILL."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def capture(store: Store) -> Pages:
    """Return all pages with all about them, and their bytes."""
    with store.snapshot() as snapshot:
        return {image.page: described(image) for image in snapshot.images()}


def described(image: object) -> tuple[object, ...]:
    """Return what must be the same of a page after a recovery."""
    names = ("epoch", "state", "location", "residency", "elem_width", "flags", "meta")
    return (*(getattr(image, name) for name in names), bytes(image.data))  # type: ignore[attr-defined]


def lost_extents(store: Store) -> list[str]:
    """Return what lies between extents and belongs to nobody: more than alignment needs."""
    arena = store.arena
    with arena.lock.held():
        live = arena.table.live()
        used = [(int(row["offset"]), int(row["extent"])) for row in live]
        used += [(int(row["meta_offset"]), int(row["meta_extent"]) - 1) for row in live if row["meta_extent"]]
        used += [*arena.redo.retired(), *arena.extents.free()]
        end, wrong = arena.geometry.data_offset, []
        for offset, kind in [*sorted(used), (int(arena.words[Word.BREAK]), 0)]:
            if offset - end >= 64:
                wrong.append(f"{offset - end} bytes at {end} are lost")
            end = offset + class_bytes(kind)
    return wrong


def goes_on(store: Store) -> None:
    """Write to all pages and make and free some: raises where the store does not take it."""
    made = [store.allocate_id(size) for size in (64, 900)] + [store.allocate(5000, name="after").id]
    for page in store.pages():
        head = page.read()[:2000]
        page.write_at(0, head + np.uint8(1))
    for page in made:
        store.free(page)
    store.mark("after")


@dataclass
class Scenario:
    """What a process does that is killed over it.

    setup       makes the pages that are there before
    operations  of which each is one commit at most, acknowledged when it returns
    pinned      whether another process holds a snapshot meanwhile
    heals       whether it damages pages past all commits: then `verify` and `heal` must bring back what was committed
    """

    name: str
    setup: Callable[[Store], object]
    operations: list[Operation]
    pinned: bool = False
    heals: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Kills:
    """One scenario in one arena: kills, looks, and puts everything back."""

    scenario: Scenario
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store.open(**{**SMALL, **self.scenario.sizes})
        self.scenario.setup(self.store)
        self.snapshot = self.store.snapshot() if self.scenario.pinned else None
        self.before = bytes(self.store.arena.mapping.data)
        self.states = [capture(self.store)]
        for operation in self.scenario.operations:
            operation(self.store)
            self.states.append(capture(self.store))
        self._restore()

    def _restore(self) -> None:
        self.store.arena.mapping.data[:] = self.before
        self.store._names_structure = -1

    def run(self, *, native: bool, stride: int) -> "Kills":
        """Kill at every `stride`-th step until the child comes to its end."""
        count = 1
        while True:
            status, acknowledged = in_child(lambda tell, count=count: self._work(tell, count, native))  # type: ignore[misc]
            if not was_killed(status):
                break
            self.kills += 1
            for fault in self._look(acknowledged):
                self.wrong.append(f"{self.scenario.name}, step {count}: {fault}")
            self._restore()
            if len(self.wrong) > 20:
                break
            count += stride
        self._restore()
        return self

    def _work(self, tell: Callable[[], None], count: int, native: bool) -> None:
        make_everything_a_step()
        store = Store.attach(self.store.descriptor)
        if not native:
            store.take_long_ways()
        steps.kill_at(0 if native else count, native=count if native else 0)
        for operation in self.scenario.operations:
            operation(store)
            tell()
        steps.kill_at(0)

    def _look(self, acknowledged: int) -> Iterator[str]:
        if self.scenario.heals:
            yield from self._heal()
        else:
            possible = self.states[acknowledged : acknowledged + 2]
            yield from self._read_without_lock(possible)
            if capture(self.store) not in possible:
                yield f"pages are none of what they may be, {acknowledged} acknowledged"
        yield from audit(self.store.arena)
        yield from lost_extents(self.store)
        yield from self.store.verify()
        yield from self._snapshot_is_whole()
        try:
            goes_on(self.store)
        except Exception as error:
            yield f"does not go on: {error!r}"
        yield from audit(self.store.arena)
        yield from self.store.verify()

    def _heal(self) -> Iterator[str]:
        yield from audit(self.store.arena)
        self.store.verify(quarantine=True)
        self.store.heal()
        healed = {page: told[-1] for page, told in capture(self.store).items()}
        if healed != {page: told[-1] for page, told in self.states[0].items()}:
            yield "healed pages are not what was committed"

    def _read_without_lock(self, possible: list[Pages]) -> Iterator[str]:
        for page in {page for state in possible for page in state}:
            allowed = [state[page][-1] if page in state else None for state in possible]
            try:
                found: object = bytes(self.store.read(page))
            except PageNotFound:
                found = None
            if found not in allowed:
                yield f"page {page} reads as what it never was"

    def _snapshot_is_whole(self) -> Iterator[str]:
        if self.snapshot is None:
            return
        if {image.page: described(image) for image in self.snapshot.images()} != self.states[0]:
            yield "snapshot of a living process changed"
        self.store.arena.unpin(self.snapshot._line)
        if self.store.arena.redo.retired():
            yield "extents stay retired though no snapshot is held"
        yield from lost_extents(self.store)
