"""Masters over an etcd in memory, driven by a seed in virtual time: delays, lost and doubled messages, crashes,
partitions, stopped masters that wake up, wall clocks apart.

Requests of members reach the etcd late, twice or never, and so do its replies; a member that crashes loses all but its
copy, or that too. Clients repeat what they were not told of, at any master, under the same number.
"""

import hashlib
import heapq
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.journal.entries import Keys, Transaction, pack_transaction
from stoker.fs.journal.etcd import Outcome, Put, Request, Txn, UnknownOutcomeError
from stoker.fs.journal.member import Member
from stoker.fs.journal.memory import EtcdState
from stoker.fs.journal.roles import Role, Timing
from stoker.fs.journal.state import Following, Position
from stoker.fs.master.core import MasterCore, Ticket
from stoker.fs.meta import fsck
from stoker.fs.meta.answers import Entry, Number, Refusal, pack_answer
from stoker.fs.meta.calls import BeginSession, Call, Create, ReadDir, TakeSlices, Unlink
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.keys import NEXT_SLICE, ROOT, attr_key
from stoker.fs.meta.kv import Pair
from stoker.fs.meta.machine import new_volume
from stoker.fs.meta.records import unpack_count

MS = 1_000_000
TRY_NS = 300 * MS
START_NS = 1_800_000_000_000_000_000
TTL_NS = 10**15
SUSPECT_NS = 300 * MS


class Checked(Following):
    """A copy that is held against what all others have applied."""

    def __init__(self, copy: MemoryEngine, applied: dict[int, bytes]) -> None:
        super().__init__(copy)
        self._applied = applied

    def apply(self, transactions: Any, position: Position) -> None:
        for done in transactions:
            before = self._applied.setdefault(done.revision, done.record)
            assert before == done.record, f"two members hold different transactions for revision {done.revision}"
        super().apply(transactions, position)


@dataclass
class Node:
    """A process with a master."""

    name: str
    core: MasterCore
    wall_ns: int
    life: int = 0
    alive: bool = True
    stopped_until_ns: int = 0
    cut: bool = False


@dataclass
class Client:
    """Asks one thing at a time, and again until it is told."""

    number: int
    session: int = 0
    seq: int = 1
    secret: bytes = b""
    waiting: Call | None = None
    master: int = 0
    tries: int = 0
    names: set[bytes] = field(default_factory=set)
    taken: int = 0


class World:
    """All of it."""

    def __init__(self, seed: int, *, masters: int = 3, clients: int = 4, faults: bool = True) -> None:
        self.chance = random.Random(seed)
        self.faults = faults
        self.now_ns = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.order = 0
        self.etcd = EtcdState()
        self.keys = Keys("sim")
        self.applied: dict[int, bytes] = {}
        self.acked_revision = 0
        self.slices: dict[int, tuple[int, int]] = {}
        self.snapshots: list[tuple[Position, int, list[Pair]]] = []
        self.counts: dict[str, int] = {}
        self.made: set[int] = set()
        self.digest = hashlib.sha256()
        self.written: dict[bytes, bytes] = {}
        empty = new_volume("sim", uuid.UUID(int=seed), START_NS, uid=0, gid=0, mode=0o777)
        record = msgspec.msgpack.encode(list(empty.items()))
        first = pack_transaction(0, Transaction(1, START_NS, record, True))
        self.etcd.apply(Txn(then=(Put(self.keys.entry(1), first[0]),)))
        self.nodes = [self.node(f"m{n}") for n in range(masters)]
        self.clients = [Client(n, secret=bytes([n]) * 16) for n in range(clients)]
        for node in self.nodes:
            self.at(self.chance.randint(0, 50 * MS), partial(self.tick, node, node.life))
        for client in self.clients:
            self.at(self.chance.randint(0, 300 * MS), partial(self.ask, client))
        if faults:
            self.at(400 * MS, self.trouble)

    # -- the machinery

    def node(self, name: str, state: MemoryState | None = None) -> Node:
        copy = MemoryEngine(state or MemoryState(), f"memory://{name}")
        timing = Timing(window=self.chance.choice([1, 2, 4, 8]), page=self.chance.choice([1, 2, 5, 32]))
        node: Node
        member = Member(
            name, self.keys, Checked(copy, self.applied), lambda: f"{self.chance.random()}", address=name, timing=timing
        )
        node = Node(name, MasterCore(member, lambda: START_NS + self.now_ns + node.wall_ns), 0)
        node.wall_ns = self.chance.randint(-5000, 5000) * MS if self.faults else 0
        return node

    def at(self, delay_ns: int, action: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.queue, (self.now_ns + delay_ns, self.order, action))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def run(self, until_ns: int) -> None:
        while self.queue and self.queue[0][0] <= until_ns:
            self.now_ns, _, action = heapq.heappop(self.queue)
            action()
            valid = [node.name for node in self.nodes if node.alive and node.core.member.valid(self.now_ns)]
            assert len(valid) <= 1, f"{valid} count their reads as fresh at once"
        self.now_ns = until_ns

    def play(self, seconds: float) -> str:
        """Let trouble come for a while, then heal; return a digest of what there is in the end."""
        self.run(int(seconds * 1e9))
        self.faults = False
        for node in self.nodes:
            node.cut = False
            node.stopped_until_ns = 0
            if not node.alive:
                self.restart(node)
        self.run(self.now_ns + 6_000 * MS)
        for client in self.clients:
            assert client.waiting is None or client.tries < 30, "the healed world answers"
            client.tries = -1  # asks no more
        self.run(self.now_ns + 4_000 * MS)
        self.final()
        return self.digest.hexdigest()

    # -- masters and the etcd

    def awake(self, node: Node, life: int, action: Callable[[], None]) -> bool:
        """Tell whether a node may go on now; one that is stopped does so when it wakes up."""
        if not node.alive or node.life != life:
            return False
        if node.stopped_until_ns > self.now_ns:
            self.at(node.stopped_until_ns - self.now_ns, action)
            return False
        return True

    def tick(self, node: Node, life: int) -> None:
        if not self.awake(node, life, partial(self.tick, node, life)):
            return
        member = node.core.member
        if node.core.fell_behind:
            self.seed(node)
        member.tick(self.now_ns)
        self.watch(node)
        self.maintain(node)
        self.pump(node)
        self.at(self.chance.randint(5 * MS, 25 * MS), partial(self.tick, node, life))

    def watch(self, node: Node) -> None:
        """Hear of the leader, or come to power in his place."""
        member = node.core.member
        if member.role is not Role.FOLLOWING:
            return
        leader = next((n for n in self.nodes if member.leader and n.name == member.leader.name), None)
        heard = leader is not None and leader is not node and leader.alive and not leader.cut and not node.cut
        if heard and leader is not None and leader.stopped_until_ns <= self.now_ns:
            member.leader_seen_ns = self.now_ns
        eager = self.faults and self.chance.random() < 0.002
        silent = self.now_ns - member.leader_seen_ns > SUSPECT_NS + self.chance.randint(0, 100 * MS)
        if (eager or silent) and member.claim(self.now_ns):
            self.count("claims")

    def maintain(self, node: Node) -> None:
        """Snapshots and trims, now and then."""
        roll = self.chance.random()
        if roll < 0.01 and node.core.member.number:
            position = node.core.member.state.position
            with node.core.copy.snapshot() as snapshot:
                self.snapshots.append((position, snapshot.revision, snapshot.scan(b"")))
        elif roll < 0.03 and self.snapshots and node.core.member.role is Role.LEADING:
            node.core.member.trim(max(s[0].number for s in self.snapshots) + 1, self.now_ns)
            self.count("trims")

    def seed(self, node: Node) -> None:
        position, revision, pairs = max(self.snapshots, key=lambda s: s[0].number)
        state = Checked(MemoryEngine(MemoryState(), f"memory://{node.name}"), self.applied)
        state.fill(pairs, revision, position)
        node.core.member.reseed(state)
        node.core.fell_behind = False
        self.count("seeds")

    def pump(self, node: Node) -> None:
        """Do what a member's step has brought: answers to clients, requests to the etcd."""
        node.core.member.tick(self.now_ns)
        node.core.step(self.now_ns)
        member = node.core.member
        if member.role is Role.FOLLOWING:
            node.core.refuse_all()
        while member.outbox:
            token, request = member.outbox.popleft()
            life = node.life
            self.at(TRY_NS, partial(self.reply, node, life, token, UnknownOutcomeError("no answer came in time")))
            times = 1
            if self.faults:
                roll = self.chance.random()
                times = 0 if roll < 0.04 or node.cut else 2 if roll < 0.07 else 1
            for _ in range(times):
                delay_ns = self.chance.randint(MS // 2, 4 * MS)
                if self.faults and self.chance.random() < 0.03:
                    delay_ns = self.chance.randint(50 * MS, 2000 * MS)
                self.at(delay_ns, partial(self.arrive, node, life, token, request))

    def arrive(self, node: Node, life: int, token: int, request: Request) -> None:
        """A request reaches the etcd."""
        before = self.etcd.revision
        outcome: Outcome | StokerError
        try:
            outcome = self.etcd.apply(request)
        except StokerError as error:
            outcome = error
        self.check_log(before)
        if self.faults and (node.cut or self.chance.random() < 0.03):
            self.count("lost replies")
        else:
            self.at(self.chance.randint(MS // 2, 3 * MS), partial(self.reply, node, life, token, outcome))
        if self.etcd.revision != before:
            for other in self.nodes:
                if self.chance.random() < 0.7 and not other.cut:
                    seen = self.etcd.seen(self.keys.prefix, self.keys.prefix + b"\xff", before)
                    if seen is not None:
                        self.at(self.chance.randint(MS, 5 * MS), partial(self.hint, other, other.life, seen))

    def check_log(self, before: int) -> None:
        """What stands in the log is never replaced."""
        for revision, pair, key in reversed(self.etcd.events):
            if revision <= before:
                return
            if pair is not None and key.startswith(self.keys.log):
                # A late copy of an append may come behind its entry's trim: it is the same, and nobody reads it.
                assert self.written.setdefault(key, pair.value) == pair.value, f"{key!r} has two values"

    def reply(self, node: Node, life: int, token: int, outcome: Outcome | StokerError) -> None:
        if self.awake(node, life, partial(self.reply, node, life, token, outcome)):
            node.core.member.replied(token, outcome, self.now_ns)
            self.pump(node)

    def hint(self, node: Node, life: int, seen: Any) -> None:
        if self.awake(node, life, partial(self.hint, node, life, seen)):
            node.core.member.hinted(seen, self.now_ns)
            self.pump(node)

    # -- trouble

    def trouble(self) -> None:
        if not self.faults:
            return
        node = self.chance.choice(self.nodes)
        leaders = [n for n in self.nodes if n.core.member.role is not Role.FOLLOWING]
        if leaders and self.chance.random() < 0.7:
            node = self.chance.choice(leaders)
        kind = self.chance.choice(["crash", "crash", "stop", "cut"])
        self.count(kind)
        if kind == "crash" and node.alive:
            if node.core.member.role is Role.LEADING:
                self.count("crashed leaders")
            node.alive = False
            self.at(self.chance.randint(20, 1500) * MS, partial(self.restart, node))
        elif kind == "stop":
            node.stopped_until_ns = self.now_ns + self.chance.randint(50, 1500) * MS
        elif kind == "cut":
            node.cut = True
            self.at(self.chance.randint(100, 1500) * MS, partial(self.heal, node))
        self.at(self.chance.randint(100, 900) * MS, self.trouble)

    def heal(self, node: Node) -> None:
        node.cut = False

    def restart(self, node: Node) -> None:
        if node.alive:
            return
        keeps = self.chance.random() < 0.7
        copy = node.core.copy
        assert isinstance(copy, MemoryEngine)
        fresh = self.node(node.name, copy._state if keeps else None)
        node.core, node.alive, node.life = fresh.core, True, node.life + 1
        self.at(0, partial(self.tick, node, node.life))

    # -- clients

    def ask(self, client: Client) -> None:
        """Ask for something new, or again for what was not told."""
        if client.tries < 0 and client.waiting is None:
            return
        if client.waiting is None:
            client.waiting = self.request(client)
            client.tries = max(client.tries, 0)
        client.tries += client.tries >= 0
        node = self.nodes[client.master % len(self.nodes)]
        call = client.waiting
        if not self.faults or self.chance.random() < 0.95:
            arrives = partial(self.asked, client, node, node.life, call, self.acked_revision)
            self.at(self.chance.randint(MS // 2, 3 * MS), arrives)
        self.at(TRY_NS, partial(self.again, client, call, client.tries))

    def again(self, client: Client, call: Call, tries: int) -> None:
        if client.waiting is call and client.tries == tries:
            client.master += 1
            self.count("repeated")
            self.ask(client)

    def request(self, client: Client) -> Call:
        if not client.session:
            return Call(BeginSession(TTL_NS))
        name = b"c%d-%d" % (client.number, client.seq)
        roll = self.chance.random()
        request: Any = Create(ROOT, name, 0o644, exclusive=True)
        if roll < 0.3:
            request = TakeSlices(1 + client.seq % 3)
        elif roll < 0.5 and client.names:
            request = Unlink(ROOT, self.chance.choice(sorted(client.names)))
        elif roll < 0.6:
            return Call(ReadDir(ROOT), session=client.session)
        elif roll < 0.7:
            shared = self.chance.choice([b"shared-1", b"shared-2"])
            one = Create(ROOT, shared, 0o644, exclusive=True) if self.chance.random() < 0.6 else Unlink(ROOT, shared)
            return Call(one, session=client.session)  # without a number: mostly refused, and a refusal is a read
        call = Call(request, session=client.session, seq=client.seq, received=client.seq)
        client.seq += 1
        return call

    def asked(self, client: Client, node: Node, life: int, call: Call, asked_revision: int) -> None:
        if not self.awake(node, life, partial(self.asked, client, node, life, call, asked_revision)):
            return
        if node.core.member.role is not Role.LEADING:
            if node.core.member.leader is not None:
                names = [n.name for n in self.nodes]
                client.master = names.index(node.core.member.leader.name)
                client.master -= 1
            self.at(self.chance.randint(10, 40) * MS, partial(self.again, client, call, client.tries))
            return
        ticket = Ticket([call], client.secret, lambda done: self.answered(client, node, call, done, asked_revision))
        if isinstance(call.request, ReadDir):
            if node.core.member.valid(self.now_ns):
                ticket.settle(node.core.read([call], client.secret))
            else:
                node.core.ask(ticket, self.now_ns)
        else:
            node.core.submit(ticket, self.now_ns)
        self.pump(node)

    def answered(self, client: Client, node: Node, call: Call, ticket: Ticket, asked_revision: int) -> None:
        if ticket.answers is None:
            return
        revision = node.core.copy.revision()
        # What is answered under a number may have been done by another master long ago: the answer is kept.
        assert call.seq or revision >= asked_revision, "a fresh answer knows what was acknowledged before"
        self.acked_revision = max(self.acked_revision, revision)
        answer = ticket.answers[0]
        self.digest.update(pack_answer(answer))
        if not self.faults or self.chance.random() < 0.95:
            self.at(self.chance.randint(MS // 2, 3 * MS), partial(self.told, client, call, answer))

    def told(self, client: Client, call: Call, answer: Any) -> None:
        if client.waiting is not call:
            return
        client.waiting = None
        request = call.request
        if not call.seq and isinstance(request, Create | Unlink):
            self.shared(answer)
            self.next(client)
            return
        assert not isinstance(answer, Refusal), (call, answer)
        if isinstance(request, BeginSession):
            assert isinstance(answer, Number)
            client.session = answer.value
        elif isinstance(request, Create):
            assert isinstance(answer, Entry)
            client.names.add(request.name)
            self.count("creates")
        elif isinstance(request, Unlink):
            client.names.remove(request.name)
        elif isinstance(request, TakeSlices):
            for number in range(answer.value, answer.value + request.count):
                assert number not in self.slices, "a slice's number is given once"
                self.slices[number] = (client.number, call.seq)
            client.taken += request.count
        elif isinstance(request, ReadDir):
            seen = {entry.name for entry in answer.entries}
            mine = {name for name in seen if name.startswith(b"c%d-" % client.number)}
            assert mine == client.names, "a client reads what it has done"
            self.count("reads")
        self.next(client)

    def next(self, client: Client) -> None:
        if client.tries >= 0:
            client.tries = 0
            self.at(self.chance.randint(1, 30) * MS, partial(self.ask, client))

    def shared(self, answer: Any) -> None:
        """Somebody hears of a name that all make and remove."""
        self.count("refused" if isinstance(answer, Refusal) else "shared")
        if isinstance(answer, Entry):
            assert answer.ino not in self.made, "an inode is made once"
            self.made.add(answer.ino)

    # -- the end

    def final(self) -> None:
        """All copies are the same, and hold what was acknowledged, once."""
        contents = []
        for node in self.nodes:
            member = node.core.member
            assert not node.core.fell_behind
            with node.core.copy.snapshot() as snapshot:
                contents.append((member.number, snapshot.revision, snapshot.scan(b"")))
        assert all(content == contents[0] for content in contents), [content[:2] for content in contents]
        pairs = dict(contents[0][2])
        names = {key[10:] for key in pairs if key[:1] == b"i" and key[9:10] == b"D" and key[10:16] != b"shared"}
        written = {key for record in self.applied.values() for key, _ in msgspec.msgpack.decode(record)}
        assert {attr_key(ino) for ino in self.made} <= written, "what was acknowledged is in the log"
        assert names == {name for client in self.clients for name in client.names}
        assert unpack_count(pairs[NEXT_SLICE]) - 1 == sum(client.taken for client in self.clients)
        assert fsck(self.nodes[0].core.copy) == []
        for key, value in sorted(pairs.items()):
            self.digest.update(key + value)
