"""The engine `etcd-journal`: keys and values in a copy on this host, durable in a log on which an etcd agrees.

    etcd://host:port,host:port/VOLUME?state=FOLDER

One process at a time writes. Who opens the volume comes to power in the journal, and whoever had it is fenced off: his
next commit fails, whatever he believes. Where a master serves, or a process of this host has it open, it is refused.
Without `state` the copy is kept in memory, and made anew each time it is opened.
"""

import os
import secrets
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import StokerError, StoreError, TransientError, UnavailableError, UsageError
from stoker.fs.journal.client import GrpcEtcd, addresses_in
from stoker.fs.journal.entries import Keys, Leader
from stoker.fs.journal.etcd import Compare, Etcd, Get, Outcome, Put, Request, Txn, UnknownOutcomeError, ask, first
from stoker.fs.journal.folder import CopyFolder
from stoker.fs.journal.member import Member
from stoker.fs.journal.roles import Committed, Deposed, FellBehind, Led, Role
from stoker.fs.journal.runner import Runner
from stoker.fs.journal.state import Following
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.engines.urls import EngineURL, check_version
from stoker.fs.meta.kv import Copy, Engine, Snapshot, Writer, Writes

FORMAT_VERSION: Final = 1
_COME_TO_POWER_SECONDS: Final = 30.0
_COMMIT_SECONDS: Final = 30.0
_RESIGN_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05


def format_key(keys: Keys) -> bytes:
    """Return the key that says that a journal is here: its form and a number nobody else has."""
    return keys.prefix + b"format"


def make_journal(etcd: Etcd, keys: Keys, url: str) -> str:
    """Make a journal where none is and return its number. Raises UsageError for a place that is taken."""
    number = str(uuid.uuid4())
    key = format_key(keys)
    value = f"{FORMAT_VERSION} {number}".encode()
    outcome = _asked(etcd, Txn((Compare(key, created=0),), (Put(key, value),), (Get(key),)), url)
    there = None if outcome.succeeded else first(outcome.found[0])
    if there is not None and there.value != value:
        raise UsageError("place is taken", where=url, expected="a volume's name that nobody has in this etcd")
    return number


def _asked(etcd: Etcd, request: Request, url: str) -> Outcome:
    try:
        return ask(etcd, request)
    except UnknownOutcomeError as error:
        raise UnavailableError("etcd does not answer", where=url, got=error.got) from error


def find_journal(etcd: Etcd, keys: Keys, url: str) -> str:
    """Return the number of the journal that is there. Raises UsageError for none, or one of a newer release."""
    pair = first(_asked(etcd, Get(format_key(keys)), url).found[0])
    if pair is None:
        raise UsageError("no volume is here", where=url, remedy="make one with `stoker fs format`")
    version, _, number = pair.value.decode(errors="replace").partition(" ")
    check_version("journal", url, int(version) if version.isdigit() else 1 << 30, FORMAT_VERSION)
    return number


def own_name() -> str:
    """Return what tells this process from all others: host, process id, and when it began."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def refuse_led(leader: Leader, url: str) -> None:
    """Raise UsageError where who leads is a master that serves, or another process of this host that is alive."""
    if leader.address:
        host, _, port = leader.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=0.5).close()
        except (OSError, ValueError):
            return
        volume = url.partition("?")[0].rpartition("/")[2]
        remedy = f"open it through the master: master://{leader.address}/{volume}"
        raise UsageError("a master serves this volume", where=url, got=leader.address, remedy=remedy)
    host, _, rest = leader.name.partition("/")
    pid, _, began = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit() or int(pid) == os.getpid():
        return
    try:
        alive = f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except psutil.Error:
        return
    if alive:
        remedy = "end it, or let masters serve the volume: `stoker fs master`"
        raise UsageError("another process has this volume open", where=url, got=f"process {pid}", remedy=remedy)


class _Journal:
    """What engines of one URL share in a process: the member that leads, its thread, the copy."""

    def __init__(self, etcd: Etcd, keys: Keys, url: str, folder: CopyFolder | None) -> None:
        self.users = 0
        self.url = url
        self.lock = threading.RLock()
        self._etcd = etcd
        self._folder = folder
        copy: Copy = folder.copy if folder is not None else MemoryEngine(MemoryState(), url)
        name = own_name()
        self.member = Member(name, keys, Following(copy), lambda: secrets.token_hex(8))
        self._news = threading.Condition()
        self._failure: StokerError | None = None
        self._terms = 0
        self._behind = False
        self._waiting: list[tuple[int, Future[None]]] = []
        self._checks: list[tuple[int, Future[None]]] = []
        self._runner = Runner(etcd, self.member, self._step)

    @property
    def copy(self) -> Copy:
        """Return the copy."""
        return self.member.state.copy

    # on the runner's thread

    def _step(self, now_ns: int) -> None:
        while self.member.events:
            event = self.member.events.popleft()
            if isinstance(event, Committed):
                done = [future for number, future in self._waiting if number <= event.number]
                self._waiting = [(n, future) for n, future in self._waiting if n > event.number]
                for future in done:
                    future.set_result(None)
            elif isinstance(event, Deposed):
                self._failure = event.error or self._superseded()
                self._fail(self._failure)
            elif isinstance(event, Led):
                self._terms += 1
                self._failure = None
            elif isinstance(event, FellBehind):
                self._behind = True
        while self._checks and self.member.shown_ns >= self._checks[0][0]:
            self._checks.pop(0)[1].set_result(None)
        if self._checks and self.member.role is Role.LEADING:
            self.member.check(now_ns)
        with self._news:
            self._news.notify_all()

    def _fail(self, error: StokerError) -> None:
        for _, future in [*self._waiting, *self._checks]:
            future.set_exception(error)
        self._waiting.clear()
        self._checks.clear()

    def _superseded(self) -> StokerError:
        leader = self.member.leader
        return TransientError(
            "another process has taken this volume over",
            where=self.url,
            got="" if leader is None else leader.address or leader.name,
            remedy="what was written last may not be done: open it anew",
        )

    # on callers' threads

    def come_to_power(self) -> None:
        """Return when this process leads. Raises UnavailableError, or what keeps it from leading."""
        deadline_ns = monotonic_ns() + int(_COME_TO_POWER_SECONDS * 1e9)
        while self.member.role is not Role.LEADING:
            if self._behind:
                remedy = "open it with the masters' snapshots: `stoker fs master`"
                raise StoreError("log begins behind what the copy has", where=self.url, remedy=remedy)
            if self._runner.failure is not None:
                raise self._runner.failure
            if monotonic_ns() > deadline_ns:
                raise self._failure or UnavailableError("etcd does not answer", where=self.url)
            if self.member.role is Role.FOLLOWING and self.member.polled:
                if self.member.leader is not None:
                    refuse_led(self.member.leader, self.url)
                self._runner.send(self.member.claim)
            with self._news:
                self._news.wait(_POLL_SECONDS)

    def fresh(self) -> Copy:
        """Return the copy once it is shown that nobody else has written since."""
        if self.member.valid(monotonic_ns()):
            return self.copy
        self._lead_again()
        shown: Future[None] = Future()
        self._runner.send(lambda now_ns: self._checks.append((now_ns, shown)))
        self._wait(shown, "etcd does not answer")
        return self.copy

    def _lead_again(self) -> None:
        """Come to power again where it was lost to nobody; a process that was superseded stays so."""
        with self.lock:
            if self.member.role is Role.LEADING:
                return
            leader = self.member.leader
            if self._terms and leader is not None and leader.name not in ("", self.member.name):
                raise self._superseded()
            self.come_to_power()

    def commit(self, record: bytes, revision: int, *, forgets: bool) -> None:
        """Return when a transaction is in the log and in the copy."""
        done: Future[None] = Future()

        def begin(now_ns: int) -> None:
            if self.member.role is not Role.LEADING:
                done.set_exception(self._failure or self._superseded())
                return
            moment_ns = max(wall_ns(), self.member.state.position.time_ns)
            number = self.member.append(record, moment_ns, now_ns, forgets=forgets, revision=revision)
            self._waiting.append((number, done))

        self._runner.send(begin)
        self._wait(done, "etcd does not answer: whether the transaction is done is not known")

    def _wait(self, future: "Future[None]", what: str) -> None:
        try:
            future.result(timeout=_COMMIT_SECONDS)
        except TimeoutError:
            raise UnavailableError(what, where=self.url) from None

    def resign(self) -> None:
        """Let whoever comes next come at once; where etcd does not answer, he waits a little."""
        resigned: Future[None] = Future()
        self._runner.send(lambda now_ns: self.member.resign(now_ns, resigned.set_result))
        with suppress(TimeoutError):
            resigned.result(timeout=_RESIGN_SECONDS)

    def close(self) -> None:
        """Give power back, end the thread, and close the copy and the connections."""
        self.resign()
        self._runner.close()
        self._fail(StoreError("engine is closed", where=self.url))
        if self._folder is not None:
            self._folder.close()
        self._etcd.close()


class _JournalWriter:
    """Reads of the copy, and what is to be written."""

    def __init__(self, below: Writer) -> None:
        self._below = below
        self.revision = below.revision
        self.written: tuple[Writes, bytes | None] | None = None

    def modified(self, key: bytes) -> int:
        return self._below.modified(key)

    def modified_in(self, start: bytes, end: bytes) -> Iterable[tuple[bytes, int]]:
        return self._below.modified_in(start, end)

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        self.written = (writes, record)


_journals: Final[dict[tuple[str, str], _Journal]] = {}
_opening: Final = threading.Lock()


class JournalEngine(Engine):
    """An engine over a journal."""

    name = "etcd-journal"

    def __init__(self, shared: _Journal, key: tuple[str, str], url: str) -> None:
        super().__init__()
        self.url = url
        self._key = key
        self._shared = shared
        self._closed = False

    def _live(self) -> _Journal:
        if self._closed:
            raise StoreError("engine is closed", where=self.url)
        return self._shared

    def snapshot(self) -> Snapshot:
        """Return the state as of the newest commit of anybody."""
        return self._live().fresh().snapshot()

    def revision(self) -> int:
        """Return the newest revision."""
        return self._live().fresh().revision()

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        shared = self._live()
        with shared.lock:
            copy = shared.fresh()
            with copy.reading() as below:
                writer = _JournalWriter(below)
                yield writer
            if writer.written is not None:
                writes, record = writer.written
                packed = msgspec.msgpack.encode(list(writes.items())) if record is None else record
                shared.commit(packed, writer.revision + 1, forgets=record is None)

    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        return self._live().fresh()._history(after, limit)

    def close(self) -> None:
        """Give power away when no other engine of this process uses the journal."""
        if self._closed:
            return
        self._closed = True
        with _opening:
            self._shared.users -= 1
            if not self._shared.users:
                del _journals[self._key]
                self._shared.close()


def _state_folder(text: str) -> Path:
    if not text or "\0" in text:
        raise UsageError("option state has a bad value", expected="a folder", got=repr(text))
    return Path(text)


def journal_place(url: EngineURL) -> tuple[str, str]:
    """Return the addresses and the volume's name of a URL. Raises UsageError."""
    addresses, slash, volume = url.place.partition("/")
    if not slash or not volume or "/" in volume or not volume.isprintable() or len(volume) > 100:
        raise UsageError("URL names no volume", where=url.text, expected="etcd://host:port,host:port/VOLUME")
    return addresses, volume


def open_etcd(url: EngineURL) -> JournalEngine:
    """Open `etcd://host:port,…/VOLUME`; option: `state`, the folder of the copy.

    Raises UsageError for a volume that is missing, taken, led by somebody or of a newer release, UnavailableError when
    etcd does not answer, MissingExtraError without grpcio.
    """
    options = url.options({"state": _state_folder})
    addresses, volume = journal_place(url)
    state: Path | None = options.get("state")
    key = (f"{addresses}/{volume}", str(state.resolve()) if state is not None else "")
    with _opening:
        shared = _journals.get(key)
        if shared is not None and url.create:
            raise UsageError("place is taken", where=url.text)
        if shared is None:
            shared = _journals[key] = _opened(url, addresses, Keys(volume), state)
        shared.users += 1
    return JournalEngine(shared, key, url.text)


def _opened(url: EngineURL, addresses: str, keys: Keys, state: Path | None) -> _Journal:
    etcd = GrpcEtcd(addresses_in(addresses))
    folder: CopyFolder | None = None
    try:
        if url.create:
            if state is not None and state.is_dir() and any(state.iterdir()):
                raise UsageError("place is taken", where=str(state), expected="a folder for the copy that is empty")
            number = make_journal(etcd, keys, url.text)
        else:
            number = find_journal(etcd, keys, url.text)
        folder = None if state is None else CopyFolder(state, number)
        journal = _Journal(etcd, keys, url.text, folder)
    except BaseException:
        if folder is not None:
            folder.close()
        etcd.close()
        raise
    try:
        journal.come_to_power()
    except BaseException:
        journal.close()
        raise
    return journal
