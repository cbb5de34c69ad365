"""Masters of the simulated cluster: the real state machines, handlers and care, over an etcd that fails at times."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from fs_cluster_fibers import MS, SECOND, FiberLanes, Loop, Process
from fs_cluster_parts import Network

from stoker.core.errors import StokerError, TransientError, UnavailableError, UsageError
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.care.membership import Rules, check_beat
from stoker.fs.care.repairs import RepairOptions
from stoker.fs.care.tending import CareOptions, Tending
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.cluster import ClusterStore
from stoker.fs.disk.interface import ShardHolder
from stoker.fs.journal.entries import Keys, Transaction, unpack_writes
from stoker.fs.journal.etcd import Outcome, Request, UnknownOutcomeError
from stoker.fs.journal.member import Member, Role, Timing
from stoker.fs.journal.memory import EtcdState
from stoker.fs.journal.state import Following, Position
from stoker.fs.master.core import MasterCore, Ticket, only_questions
from stoker.fs.master.daemon import Master
from stoker.fs.master.messages import DESCRIBE, SUBMIT, Describe, Submit, Submitted
from stoker.fs.master.remote import Masters
from stoker.fs.master.standby import Heard
from stoker.fs.master.within import OwnMetadata
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.kv import Pair
from stoker.fs.place import ClusterMap
from stoker.fs.place.watching import Limits
from stoker.fs.wire.operations import Asker

START_NS = 1_800_000_000_000_000_000
TRY_NS = 300 * MS
BEAT_NS = 100 * MS
IN_TOUCH_SECONDS = 4.0
RULES = Rules(
    limits=Limits(
        suspect_ns=1500 * MS, down_ns=3 * SECOND, out_ns=5 * SECOND, maintenance_ns=10 * SECOND, hold_ns=500 * MS,
        hold_max_ns=4 * SECOND, calm_ns=20 * SECOND,
    ),
    full_bytes=1 << 20,
    adopt_ns=500 * MS,
)  # fmt: skip
CARE = CareOptions(
    RULES, RepairOptions(pass_seconds=6.0, calm_seconds=1.5, at_once=3), map_seconds=0.5, tidy_seconds=2.0
)


class Journal:
    """The etcd as its clients meet it: answers late, twice or never, and nobody leads it at times."""

    def __init__(self, loop: Loop, network: Network, chance: random.Random, keys: Keys) -> None:
        self.loop = loop
        self.network = network
        self.chance = chance
        self.keys = keys
        self.state = EtcdState()
        self.down_until_ns = 0
        self.written: dict[bytes, bytes] = {}
        self.masters: list[SimMaster] = []

    def ask(self, master: "SimMaster", token: int, request: Request) -> None:
        """Take a request of a master's, and bring it what comes of it."""
        life = master.process.life
        silent = UnknownOutcomeError("no answer came in time")
        self.loop.at(TRY_NS, partial(master.replied, life, token, silent))
        self.network.send(master.name, "etcd", partial(self._arrive, master, life, token, request))

    def _arrive(self, master: "SimMaster", life: int, token: int, request: Request) -> None:
        headless = self.loop.now_ns < self.down_until_ns
        if headless and self.chance.random() < 0.7:
            return  # forgotten with the leader that had it; else the next leader finds it in its log
        before = self.state.revision
        outcome: Outcome | StokerError
        try:
            outcome = self.state.apply(request)
        except StokerError as error:
            outcome = error
        self._check_log(before)
        if not headless:
            self.network.send("etcd", master.name, partial(master.replied, life, token, outcome))
        if self.state.revision != before:
            self._hint(before)

    def _check_log(self, before: int) -> None:
        """What stands in the log is never replaced: one leader's entry wins each number."""
        for revision, pair, key in reversed(self.state.events):
            if revision <= before:
                return
            if pair is not None and key.startswith(self.keys.log):
                assert self.written.setdefault(key, pair.value) == pair.value, f"{key!r} has two values"

    def _hint(self, before: int) -> None:
        seen = self.state.seen(self.keys.prefix, self.keys.prefix + b"\xff", before)
        if seen is None:
            return
        for other in self.masters:
            if self.chance.random() < 0.8:
                self.network.send("etcd", other.name, partial(other.hinted, other.process.life, seen))


class Checked(Following):
    """A copy that is held against what all others have applied; who applies something first tells of it."""

    def __init__(self, copy: MemoryEngine, told: Callable[[Transaction, dict[bytes, bytes | None]], None]) -> None:
        super().__init__(copy)
        self._told = told

    def apply(self, transactions: Any, position: Position) -> None:
        """See Following."""
        super().apply(transactions, position)
        for done in transactions:
            self._told(done, unpack_writes(done))


class SimMaster(Master):
    """A master whose journal's thread is a chain of events, and whose callers are fibers."""

    def __init__(self, world: Any, process: Process, state: MemoryState | None) -> None:
        self.world = world
        self.loop: Loop = world.loop
        self.process = process
        self.name = self.address = process.name
        self.volume = "sim"
        self.skew_ns = world.chance.randint(-2000, 2000) * MS if world.faults else 0
        self.inbox: deque[Heartbeat] = deque()
        self.tending: Tending | None = None
        self.maps: MapSource | None = None
        self.beats: dict[str, int] = {}
        self._further = {}
        self._due = 0
        self._heard = Heard(None, self.loop.now_ns, lost=False)
        self._undo = []
        self.data = state or MemoryState()
        copy = MemoryEngine(self.data, f"memory://{self.name}")
        chance = world.chance
        timing = Timing(window=chance.choice([1, 2, 4, 8]), page=chance.choice([2, 5, 32]))
        member = Member(
            self.name, world.journal.keys, Checked(copy, world.applied), lambda: f"{chance.random()}",
            address=self.name, timing=timing,
        )  # fmt: skip
        self._core = MasterCore(member, self.wall_ns)
        self.begin()

    def wall_ns(self) -> int:
        """Return what this machine's clock shows."""
        return START_NS + self.loop.now_ns + self.skew_ns

    def begin(self) -> None:
        """Begin to run."""
        life = self.process.life
        self.loop.at(0, partial(self._go_on, life, 0))
        self.loop.at(0, partial(self._listen, life))
        self.loop.spawn(self.process, self._care, self.world.chance.randint(0, 200 * MS))

    # -- the journal's thread

    def _here(self, life: int, action: Callable[[], object]) -> bool:
        if not self.process.alive or self.process.life != life:
            return False
        asleep_ns = self.process.stopped_until_ns - self.loop.now_ns
        if asleep_ns > 0:
            self.loop.at(asleep_ns, action)
            return False
        return True

    def act(self, life: int, action: Callable[[int], object]) -> None:
        """Do something on the journal's thread, then what is due."""
        if not self._here(life, partial(self.act, life, action)):
            return
        now_ns = self.loop.now_ns
        member = self.core.member
        with suppress(StokerError):
            action(now_ns)
        if self.core.fell_behind:
            self.world.seed_copy(self)
        try:
            member.tick(now_ns)
            self._step(now_ns)
        except StokerError as error:
            member.step_down(error)
            member.poll_later(now_ns)
        while member.outbox:
            self.world.journal.ask(self, *member.outbox.popleft())
        self._due += 1
        wait_ns = max(member.due_ns(now_ns) - now_ns, MS // 2) + self.world.chance.randint(0, 5 * MS)
        self.loop.at(wait_ns, partial(self._go_on, life, self._due))

    def _go_on(self, life: int, due: int) -> None:
        if due == self._due:
            self.act(life, lambda _: None)

    def replied(self, life: int, token: int, outcome: Outcome | StokerError) -> None:
        """Take etcd's answer."""
        if token in self.core.member._asked or not isinstance(outcome, UnknownOutcomeError):
            self.act(life, lambda now_ns: self.core.member.replied(token, outcome, now_ns))

    def hinted(self, life: int, seen: Any) -> None:
        """Take what a watch saw."""
        self.act(life, lambda now_ns: self.core.member.hinted(seen, now_ns))

    def _listen(self, life: int) -> None:
        """Ask the leader for a sign of life, as the listener's thread does."""
        if not self._here(life, partial(self._listen, life)):
            return
        member = self.core.member
        leader = member.leader
        if member.role is Role.FOLLOWING and leader is not None and leader.name and leader.name != self.name:
            other = self.world.master_at(leader.address)
            sent_ns = self.loop.now_ns
            self.world.network.send(self.name, other.name, partial(self._beaten, life, other, leader, sent_ns))
        self.loop.at(BEAT_NS, partial(self._listen, life))

    def _beaten(self, life: int, other: "SimMaster", leader: Any, sent_ns: int) -> None:
        if other.process.stopped_until_ns > self.loop.now_ns:
            return
        heard = Heard(leader, self.loop.now_ns, lost=not other.process.alive)
        if not other.process.alive:
            heard = msgspec.structs.replace(heard, seen_ns=0)

        def take(_: int) -> None:
            seen_ns = max(self._heard.seen_ns, heard.seen_ns)
            self._heard = msgspec.structs.replace(heard, seen_ns=seen_ns)

        self.world.network.send(other.name, self.name, lambda: self.act(life, take))

    # -- fibers

    def commit(self, calls: Sequence[Call], secret: bytes, within_seconds: float) -> list[Answer]:
        """See Master; waits as a fiber does."""
        mark = self.loop.mark()
        ticket = Ticket(calls, secret, lambda _: self.loop.at(0, partial(self.loop.resume, *mark)))

        def begin(now_ns: int) -> None:
            if self.core.member.role is Role.FOLLOWING:
                ticket.settle(None, self.core.not_leading())
            elif only_questions(calls):
                self.core.ask(ticket, now_ns)
            else:
                self.core.submit(ticket, now_ns)

        self.loop.at(0, partial(self.act, self.process.life, begin))
        self.loop.at(int(within_seconds * 1e9), partial(self.loop.resume, *mark))
        self.loop.park()
        if ticket.error is not None:
            raise ticket.error
        if ticket.answers is None:
            raise TransientError("not committed in time", where=self.name)
        return list(ticket.answers)

    def serve(self, operation: Any, request: Any, within_seconds: float) -> Any:
        """Answer a request that came over the network; nothing of the answer is shared with this process."""
        asker = Asker("", "client", "", "", within_seconds, "")
        if operation is SUBMIT:
            assert isinstance(request, Submit)
            answered = self._submit(request, memoryview(b""), asker)[0]
            return msgspec.msgpack.decode(msgspec.msgpack.encode(answered), type=Submitted)
        assert operation is DESCRIBE
        return self._describe(Describe(), memoryview(b""), asker)[0]

    def heartbeat(self, beat: Heartbeat) -> None:
        """Take a disk's sign of life, as care does: told only where this master knows what the others do."""
        if not self.in_touch(IN_TOUCH_SECONDS):
            raise UnavailableError("this master does not know what the others do")
        check_beat(beat, self.world.uuid)
        self.inbox.append(beat)

    def _care(self) -> None:
        """Tend the cluster, as care's thread does."""
        while True:
            self.loop.sleep(self.world.chance.randint(150 * MS, 300 * MS))
            with suppress(StokerError):
                if self.tending is None:
                    self.tending = self._made_tending()
                while self.inbox:
                    with suppress(UsageError):
                        self.tending.heard(self.inbox.popleft())
                self.tending.step()

    def _made_tending(self) -> Tending:
        metadata = OwnMetadata(self)
        metadata.settings  # noqa: B018 - raises while there is no copy yet
        self.maps = MapSource(metadata)
        lanes = FiberLanes(self.loop, self.process)
        store = self.world.store_for(self.process, self.maps, ClassesByNumber(metadata), lanes)
        return Tending(metadata, store, self.maps, lanes, lambda: self.leads, CARE, wall_ns=self.wall_ns)


class SimConnection:
    """A connection of a process to a master."""

    usable = True

    def __init__(self, world: Any, source: Process, address: str) -> None:
        self._world = world
        self._source = source
        self.address = address

    def call(self, operation: Any, request: Any, *, within_seconds: float) -> tuple[Any, memoryview]:
        """Ask the master."""
        process = self._world.master_at(self.address).process

        def work() -> Any:
            return self._world.master_at(self.address).serve(operation, request, within_seconds)

        found = self._world.network.call(self._source, process, work, int(within_seconds * 1e9), blocks=True)
        return found, memoryview(b"")

    def close(self) -> None:
        """Do nothing."""


class SimMasters(Masters):
    """Which master is asked, as a client process knows it."""

    world: Any = None

    def connection(self, address: str) -> Any:
        """See Masters."""
        fiber = self.world.loop.current
        return SimConnection(self.world, fiber.process, address)


def new_store(
    world: Any, process: Process, maps: Callable[[], ClusterMap], classes: Any, lanes: FiberLanes
) -> ClusterStore:
    """Return the real store of slices over the simulated disks, as a process opens it."""

    def holder(number: int) -> ShardHolder:
        disk = maps().by_id.get(number)
        server = world.servers.get(disk.address) if disk is not None else None
        if server is None or disk is None or server.disk.uuid != disk.uuid:
            raise UnavailableError("disk has no address", where=f"disk {number}")
        found: ShardHolder = world.target(process, server)
        return found

    return ClusterStore(world.uuid, maps, holder, classes, lanes)


Snapshots = list[tuple[Position, int, list[Pair]]]
