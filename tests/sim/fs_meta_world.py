"""A small world of clients, servers and one store of metadata, driven by a seed: virtual time, lost messages, crashes.

Servers are processes over the same engine. What a server does to commit is two events: it looks (a snapshot, the calls
run over it), and it writes (the engine's transaction). Between the two anything may happen: other servers commit, the
server crashes, time passes. Replies get lost, requests arrive twice, clients repeat what they were not told about, or
sleep until their sessions are over.
"""

import hashlib
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stoker.fs.meta import fsck
from stoker.fs.meta.answers import Answer, Done, Number, Refusal, pack_answer
from stoker.fs.meta.calls import (
    NOW,
    READ,
    WRITE,
    BeginSession,
    Call,
    Caller,
    Close,
    CopyRange,
    Create,
    EndSession,
    ExpireSessions,
    Fallocate,
    Link,
    Lookup,
    Mkdir,
    Open,
    Question,
    ReadDir,
    Reclaim,
    RemoveXattr,
    Rename,
    RenewSession,
    Request,
    Rmdir,
    SetAttr,
    SetLock,
    SetXattr,
    Symlink,
    TakeSlices,
    Unlink,
    Write,
)
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.kv import Conflict
from stoker.fs.meta.machine import new_volume, run, run_all
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.view import View

NAMES = [b"a", b"b", b"c", b"d"]
TTL_NS = 1_000_000_000
_ERRNO_STALE = 116


@dataclass
class Client:
    """A client: a few requests at a time, each repeated until it is answered."""

    number: int
    caller: Caller
    session: int = 0
    seq: int = 1
    waiting: list[Call] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    inodes: list[int] = field(default_factory=lambda: [ROOT])
    writable: list[int] = field(default_factory=list)
    told: dict[tuple[int, int], bytes] = field(default_factory=dict)
    asleep_until_ns: int = 0


@dataclass
class Server:
    """A process that commits for clients: what has arrived, and what it is about to write."""

    engine: MemoryEngine
    inbox: list[tuple[int, Call]] = field(default_factory=list)
    prepared: tuple[View, list[tuple[int, Call]], list[Answer], int] | None = None


class World:
    """All of it, and what must hold after each event."""

    def __init__(self, seed: int, *, clients: int = 5, servers: int = 2) -> None:
        self.chance = random.Random(seed)
        self.now_ns = 1_800_000_000_000_000_000
        self.state = MemoryState()
        self.engine = MemoryEngine(self.state, "memory://world")
        empty = new_volume("world", uuid.UUID(int=seed), self.now_ns, uid=0, gid=0, mode=0o777)
        self.engine.bulk_load(empty.items())
        self.alone = MemoryEngine(MemoryState(), "memory://alone")
        self.alone.bulk_load(empty.items())
        self.clients = [Client(n, Caller(n % 2 * 1000, n % 2 * 1000)) for n in range(clients)]
        self.servers = [Server(MemoryEngine(self.state, f"memory://{n}")) for n in range(servers)]
        self.digest = hashlib.sha256()
        self.counts: dict[str, int] = {}
        self.last_token = 0
        self.granted_offsets: dict[int, int] = {}

    # -- events

    def run(self, events: int) -> str:
        """Let `events` things happen, then heal: all is answered, sessions end, all holds. Return a digest."""
        kinds = [self.ask] * 12 + [self.look] * 8 + [self.write] * 8 + [self.repeat] * 2
        kinds += [self.tidy, self.pass_time] * 2 + [self.crash]
        for _ in range(events):
            event = self.chance.choice(kinds)
            event()
            self.digest.update(event.__name__.encode())
        self.heal()
        with self.engine.snapshot() as ours, self.alone.snapshot() as theirs:
            pairs = ours.scan(b"")
            assert pairs == theirs.scan(b""), "one by one, the same calls give the same volume"
        for key, value in pairs:
            self.digest.update(key + value)
        return self.digest.hexdigest()

    def count(self, what: str) -> None:
        """Note that something happened, so that a test can tell whether the world is as rough as it should be."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def ask(self) -> None:
        """A client that waits for nothing asks for something."""
        client = self.chance.choice(self.clients)
        if client.asleep_until_ns > self.now_ns:
            return
        if len(client.waiting) >= (4 if client.session else 1):
            self.repeat()
            return
        if not client.session:
            call = Call(BeginSession(TTL_NS), client.caller)
        else:
            received = min((call.seq for call in client.waiting if call.seq), default=client.seq)
            call = Call(self.request(client), client.caller, client.session, client.seq, received)
            client.seq += 1
        client.waiting.append(call)
        self.send(client, call)

    def send(self, client: Client, call: Call) -> None:
        """Bring a call to a server, perhaps to two, perhaps to none."""
        roll = self.chance.random()
        for server in self.chance.sample(self.servers, 2 if roll < 0.1 else 0 if roll < 0.2 else 1):
            server.inbox.append((client.number, call))
            self.count("sent")

    def repeat(self) -> None:
        """A client that was not told repeats what it asked."""
        client = self.chance.choice(self.clients)
        if client.waiting and client.asleep_until_ns <= self.now_ns:
            self.send(client, self.chance.choice(client.waiting))
            self.count("repeated")

    def look(self) -> None:
        """A server takes some of what has arrived, in any order, and runs it over a snapshot."""
        server = self.chance.choice(self.servers)
        if server.prepared is not None or not server.inbox:
            return
        self.chance.shuffle(server.inbox)
        size = self.chance.randint(1, len(server.inbox))
        group, server.inbox = server.inbox[:size], server.inbox[size:]
        with server.engine.snapshot() as snapshot:
            view = View(snapshot)
            answers = run_all(view, [call for _, call in group], self.now_ns)
        server.prepared = (view, group, answers, self.now_ns)

    def write(self) -> None:
        """A server commits what it has run; then it answers, unless it crashes first or the replies are lost."""
        server = self.chance.choice(self.servers)
        if server.prepared is None:
            return
        view, group, answers, looked_ns = server.prepared
        server.prepared = None
        if isinstance(server.engine.txn(view.read_set(), view.writes), Conflict):
            server.inbox += group
            self.count("conflicts")
            return
        self.committed([call for _, call in group], answers, looked_ns)
        self.count("commits")
        if self.chance.random() < 0.1:
            server.inbox.clear()
            self.count("crashed behind a commit")
            return
        for (number, call), answer in zip(group, answers, strict=True):
            if self.chance.random() < 0.9:
                self.told(self.clients[number], call, answer)

    def crash(self) -> None:
        """A server ends with all that it has not committed."""
        server = self.chance.choice(self.servers)
        if server.prepared is not None:
            self.count("crashed before a commit")
        server.inbox.clear()
        server.prepared = None

    def sleep(self) -> None:
        """A client stops for a while, perhaps longer than its session lives."""
        client = self.chance.choice(self.clients)
        client.asleep_until_ns = self.now_ns + self.chance.randint(0, TTL_NS * 3 // 2)

    def pass_time(self) -> None:
        """Time passes; sometimes a client does not notice."""
        self.now_ns += self.chance.randint(1, TTL_NS // 25)
        if self.chance.random() < 0.15:
            self.sleep()

    def tidy(self) -> None:
        """Somebody ends sessions that are over, and frees what is gone, a few rows at a time."""
        server = self.chance.choice(self.servers)
        request = self.chance.choice([ExpireSessions(limit=2), Reclaim(limit=2)])
        server.inbox.append((-1, Call(request)))

    def heal(self) -> None:
        """No more faults: every client hears its answer, and every session is ended."""
        for server in self.servers:
            self.commit_now(server, server.inbox)
            server.inbox, server.prepared = [], None
        for client in self.clients:
            while client.waiting:
                self.commit_now(self.servers[0], [(client.number, client.waiting[0])])
            if client.session:
                self.commit_now(self.servers[0], [(-1, Call(EndSession(client.session, 1000)))])
        self.now_ns += 10 * TTL_NS
        for request in (ExpireSessions(1000), Reclaim(1000)):
            while self.commit_now(self.servers[0], [(-1, Call(request))]) != [Done()]:
                pass
        assert not self.engine.scan(b"s"), "no session outlives its client"
        assert not self.engine.scan(b"o"), "no inode without a name outlives who had it open"

    def commit_now(self, server: Server, group: Sequence[tuple[int, Call]]) -> list[Answer]:
        """Run and commit a group with nothing in between."""
        with server.engine.snapshot() as snapshot:
            view = View(snapshot)
            answers = run_all(view, [call for _, call in group], self.now_ns)
        assert isinstance(server.engine.txn(view.read_set(), view.writes), int)
        self.committed([call for _, call in group], answers, self.now_ns)
        for (number, call), answer in zip(group, answers, strict=True):
            self.told(self.clients[number], call, answer)
        return answers

    # -- what must hold

    def committed(self, batch: Sequence[Call], answers: Sequence[Answer], looked_ns: int) -> None:
        """Hold a commit against the same calls, each alone in a transaction, and the volume against its invariants."""
        for call, answer in zip(batch, answers, strict=True):
            with self.alone.snapshot() as snapshot:
                view = View(snapshot)
                expected = run(view, call, looked_ns)
            self.alone.txn(view.read_set(), view.writes)
            assert answer == expected, (call, answer, expected)
            self.digest.update(pack_answer(answer))
        assert fsck(self.engine) == []

    def told(self, client: Client, call: Call, answer: Answer) -> None:
        """A client hears an answer: to the same request always the same one."""
        if call.seq and not isinstance(call.request, Question):
            # Once its session is over, a repeated request is told so: nothing else may differ.
            packed = pack_answer(answer)
            before = client.told.setdefault((call.session, call.seq), packed)
            over = isinstance(answer, Refusal) and call.session != client.session
            late = isinstance(answer, Refusal) and answer.errno in (_ERRNO_STALE, 22)
            assert packed == before or over or late, (call, answer)
        if call not in client.waiting:
            return
        client.waiting.remove(call)
        self.learn(client, call.request, answer)

    def learn(self, client: Client, request: Request[Any], answer: Answer) -> None:
        """Take from an answer what later requests need."""
        self.count(type(answer).__name__)
        if isinstance(answer, Refusal):
            if answer.errno == _ERRNO_STALE:
                client.session, client.seq = 0, 1
                client.waiting.clear()
                client.slices.clear()
                client.writable.clear()
                self.count("sessions lost")
            return
        if isinstance(request, BeginSession):
            assert isinstance(answer, Number)
            client.session, client.seq = answer.value, 1
        elif isinstance(request, TakeSlices):
            assert isinstance(answer, Number)
            client.slices += range(answer.value, answer.value + request.count)
        elif isinstance(request, Create | Mkdir | Lookup | Open):
            if isinstance(request, Create | Open) and request.access & WRITE:
                client.writable.append(answer.ino)  # type: ignore[union-attr]
            client.inodes = [*client.inodes[-8:], answer.ino]  # type: ignore[union-attr]
        elif isinstance(request, Write):
            self.count("writes")
            for data in request.slices:
                assert data.id not in self.granted_offsets, "a slice is shown once"
                self.granted_offsets[data.id] = answer.value  # type: ignore[union-attr]

    # -- what clients ask for

    def request(self, client: Client) -> Request[Any]:
        """Return what a client asks for next."""
        chance = self.chance
        name, other = chance.choice(NAMES), chance.choice(NAMES)
        parent, ino = chance.choice([ROOT, *client.inodes]), chance.choice(client.inodes)
        access = chance.choice([READ, WRITE, READ | WRITE])
        choices: list[Request[Any]] = [
            Create(parent, name, 0o666, exclusive=chance.random() < 0.5, access=chance.choice([0, access])),
            Create(ROOT, name, 0o666, access=READ | WRITE),
            Mkdir(parent, name, 0o777),
            Symlink(parent, name, b"a/b"),
            Link(ino, parent, name),
            Unlink(parent, name),
            Rmdir(parent, name),
            Rename(parent, name, chance.choice([ROOT, *client.inodes]), other, chance.choice([0, 0, 1, 2])),
            Rename(parent, name, chance.choice([ROOT, *client.inodes]), other, chance.choice([0, 0, 1, 2])),
            Lookup(parent, name),
            ReadDir(parent, plus=True),
            SetAttr(ino, size_bytes=chance.choice([0, 1000, 100_000_000])),
            SetAttr(ino, mode=chance.choice([0o777, 0o700, 0o1777]), mtime_ns=NOW),
            SetXattr(ino, b"user." + name, b"v" * chance.randint(0, 50)),
            RemoveXattr(ino, b"user." + name),
            Open(ino, access, truncate=chance.random() < 0.2),
            Close(ino, access, owner=chance.choice([0, 1])),
            Fallocate(ino, chance.choice([0, 3, 16]), chance.randint(0, 10**8), chance.randint(1, 10**8)),
            CopyRange(ino, chance.randint(0, 5000), chance.choice(client.inodes), 10**7, chance.randint(1, 10**8)),
            SetLock(ino, 1, chance.choice([True, False, None]), *sorted(chance.sample(range(100), 2))),
            SetLock(ino, 1, chance.choice([True, False, None]), whole=True),
            RenewSession(),
            RenewSession(),
            TakeSlices(3),
        ]
        if client.writable and chance.random() < 0.3:
            return self.writing(client, chance.choice(client.writable))
        return chance.choice(choices)

    def writing(self, client: Client, ino: int) -> Request[Any]:
        """Return a change of a file that the client has open, or what it needs for one."""
        chance = self.chance
        if not client.slices:
            return TakeSlices(3)
        data = (Slice(client.slices.pop(), 0, chance.choice([1, 1000, 64 << 20])),)
        return Write(ino, data, chance.randint(0, 1 << 27), append=chance.random() < 0.6)
