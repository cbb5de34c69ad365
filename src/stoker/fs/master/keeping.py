"""What keeps the journal short: reports of how far each follows, snapshots, and trims below both.

A snapshot is made by a standby where there is one, else by the leader. The leader forgets entries that are in the
newest snapshot and that everybody has who was heard of lately; who comes later is seeded from the snapshot.
"""

import threading
from typing import Final

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import StokerError
from stoker.fs.journal.entries import (
    Following as Report,
)
from stoker.fs.journal.entries import (
    SnapshotNote,
    packed,
    unpack_floor,
    unpack_following,
    unpack_snapshot,
)
from stoker.fs.journal.etcd import Compare, Etcd, Get, KeyValue, Put, Txn, ask, first, under
from stoker.fs.journal.folder import CopyFolder
from stoker.fs.journal.roles import Role
from stoker.fs.journal.runner import Runner
from stoker.fs.journal.snapshots import forget_snapshots, newest_snapshot, read_pairs, write_snapshot
from stoker.fs.journal.state import Following
from stoker.fs.master.core import MasterCore
from stoker.fs.meta.kv import Copy, prefix_end
from stoker.storage.api import Store

_ROUND_SECONDS: Final = 1.0


class KeeperOptions(msgspec.Struct, frozen=True):
    """How often: a snapshot after so many entries or seconds, how many are kept, how much slack a trim leaves."""

    snapshot_entries: int = 20_000
    snapshot_seconds: float = 600.0
    snapshots_kept: int = 3
    slack_entries: int = 1_000
    follower_seconds: float = 600.0
    """Who reported nothing new for so long no longer keeps entries from being forgotten."""


class Followers:
    """How far others follow, as it was reported; who falls silent is forgotten after a while."""

    def __init__(self, silent_ns: int) -> None:
        self._silent_ns = silent_ns
        self._reports: dict[bytes, tuple[Report, int]] = {}

    def take(self, pairs: tuple[KeyValue, ...], now_ns: int) -> None:
        """Take the reports there are."""
        for pair in pairs:
            report = unpack_following(pair.value)
            before = self._reports.get(pair.key)
            if before is None or before[0].beat != report.beat:
                self._reports[pair.key] = (report, now_ns)

    def slowest(self, now_ns: int) -> int | None:
        """Return the least entry that somebody is at, None when nobody reports."""
        numbers = [report.number for report, seen_ns in self._reports.values() if now_ns - seen_ns < self._silent_ns]
        return min(numbers, default=None)

    def count(self, now_ns: int, within_ns: int) -> int:
        """Return how many reported within a time."""
        return sum(now_ns - seen_ns < within_ns for _, seen_ns in self._reports.values())


def floor_for(snapshot: int, slowest: int | None, slack: int, floor: int) -> int | None:
    """Return where the log may begin, None where it is not worth a trim yet."""
    keep_from = (snapshot if slowest is None else min(snapshot, slowest)) + 1 - slack
    return keep_from if keep_from >= floor + max(slack, 1) else None


class Keeper:
    """Runs on a thread of its own until closed."""

    def __init__(
        self,
        core: MasterCore,
        etcd: Etcd,
        store: Store,
        folder: CopyFolder,
        volume: str,
        runner: Runner,
        options: KeeperOptions,
    ) -> None:
        self.failure: StokerError | None = None
        self.snapshot_number = 0
        self.floor = 1
        self._core = core
        self._etcd = etcd
        self._store = store
        self._folder = folder
        self._volume = volume
        self._runner = runner
        self._options = options
        self._followers = Followers(int(options.follower_seconds * 1e9))
        self._beat = 0
        self._snapshot_due_ns = monotonic_ns() + int(options.snapshot_seconds * 1e9)
        self._newest = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-master-keep", daemon=True)
        self._thread.start()

    def newest_entry(self) -> int:
        """Return the newest entry that anybody reported, or that this master knows."""
        return max(self._newest, self._core.member.number)

    def close(self) -> None:
        """End the thread; a snapshot that is being written is finished first."""
        self._closing.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._closing.wait(0.1 if self._core.fell_behind else _ROUND_SECONDS):
            try:
                self._round()
                self.failure = None
            except StokerError as error:
                self.failure = error

    def _round(self) -> None:
        if self._core.fell_behind:
            self._seed()
        self._report()
        self._look()
        member, now_ns = self._core.member, monotonic_ns()
        if self._wants_snapshot(now_ns):
            self._snapshot(now_ns)
        if member.role is Role.LEADING:
            slowest = self._followers.slowest(now_ns)
            floor = floor_for(self.snapshot_number, slowest, self._options.slack_entries, self.floor)
            if floor is not None:
                self._trim(floor)

    def _trim(self, floor: int) -> None:
        def begin(now_ns: int) -> None:
            if self._core.member.role is Role.LEADING:
                self._core.member.trim(floor, now_ns)

        self._runner.send(begin)

    def _report(self) -> None:
        member = self._core.member
        self._beat += 1
        report = Report(member.number, self._beat, member.address)
        key = member.keys.followers + member.name.encode()
        self._etcd.begin(Txn(then=(Put(key, packed(report)),))).result()

    def _look(self) -> None:
        """Read how far others are, where the log begins and ends, and what snapshot there is."""
        keys = self._core.member.keys
        last = Get(keys.entry(self._core.member.number), prefix_end(keys.log), 1000)
        reads = (under(keys.followers), Get(keys.floor), Get(keys.snapshot), last)
        followers, floors, notes, entries = self._etcd.begin(Txn(then=reads)).result().found
        self._followers.take(followers, monotonic_ns())
        self.floor = unpack_floor(floors[0].value if floors else None)
        note = first(notes)
        self.snapshot_number = 0 if note is None else unpack_snapshot(note.value).number
        self._newest = max((keys.number(pair.key) for pair in entries), default=self._newest)

    def _wants_snapshot(self, now_ns: int) -> bool:
        """Tell whether a snapshot is due; the leader leaves it to a standby for twice as long."""
        member, options = self._core.member, self._options
        ahead = member.number - self.snapshot_number
        patience = 2 if member.role is Role.LEADING and self._followers.count(now_ns, 10_000_000_000) > 1 else 1
        late_ns = (patience - 1) * int(options.snapshot_seconds * 1e9)
        return ahead >= patience * options.snapshot_entries or (ahead > 0 and now_ns > self._snapshot_due_ns + late_ns)

    def _snapshot(self, now_ns: int) -> None:
        self._snapshot_due_ns = now_ns + int(self._options.snapshot_seconds * 1e9)
        note = write_snapshot(self._core.copy, self._store, self._volume)
        self._tell(note)
        forget_snapshots(self._store, self._options.snapshots_kept)

    def _tell(self, note: SnapshotNote) -> None:
        """Put the note where all see it, unless there is a newer one."""
        key = self._core.member.keys.snapshot
        there = first(ask(self._etcd, Get(key)).found[0])
        if there is not None and unpack_snapshot(there.value).number >= note.number:
            return
        condition = Compare(key, modified=0 if there is None else there.modified)
        ask(self._etcd, Txn((condition,), (Put(key, packed(note)),)))
        self.snapshot_number = note.number

    def _seed(self) -> None:
        """Make the copy anew from a snapshot, for the log begins behind it."""
        floors = ask(self._etcd, Get(self._core.member.keys.floor)).found[0]
        floor = unpack_floor(floors[0].value if floors else None)
        name, manifest = newest_snapshot(self._store, self._volume, floor)

        def fill(copy: Copy) -> Following:
            state = Following(copy)
            state.fill(read_pairs(self._store, name, manifest), manifest.revision, manifest.position)
            return state

        state = self._folder.renewed(fill)
        seeded = threading.Event()

        def go_on(_: int) -> None:
            self._core.fell_behind = False
            self._core.member.reseed(state)
            seeded.set()

        self._runner.send(go_on)
        seeded.wait(10)
