"""A master: the journal's member, the copy on this host, a server for clients, and what keeps the journal short."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import StokerError, TransientError
from stoker.fs.journal.client import GrpcEtcd, addresses_in
from stoker.fs.journal.engine import find_journal
from stoker.fs.journal.entries import Keys, Leader
from stoker.fs.journal.etcd import Etcd
from stoker.fs.journal.folder import CopyFolder
from stoker.fs.journal.member import Member
from stoker.fs.journal.roles import Role, Timing
from stoker.fs.journal.runner import Runner
from stoker.fs.journal.state import Following
from stoker.fs.master.core import MasterCore, Ticket, only_questions
from stoker.fs.master.keeping import Keeper, KeeperOptions
from stoker.fs.master.messages import (
    BEAT,
    DESCRIBE,
    STATUS,
    SUBMIT,
    Alive,
    Beat,
    Describe,
    Described,
    MasterStatus,
    NotLeadingError,
    StaleError,
    Status,
    Submit,
    Submitted,
    unpack_calls,
)
from stoker.fs.master.standby import Heard, Listener, should_claim
from stoker.fs.master.surveying import SURVEY, Survey, Surveys
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import Call
from stoker.fs.meta.keys import VOLUME, number_in, session_rows
from stoker.fs.wire import RpcServer, ServerOptions
from stoker.fs.wire.keys import TlsFiles
from stoker.fs.wire.operations import Asker, Handlers
from stoker.storage.api import Store
from stoker.storage.opening import open_store

_WORKERS: Final = 48
_GRACE_SECONDS: Final = 1.0
Answered = tuple[Any, tuple[()]]


class MasterOptions(msgspec.Struct, frozen=True):
    """Where a master works: addresses of etcd, the volume's name, the folder of its copy, where it listens.

    `snapshots` is the URL of a store that all masters of the volume share. `advertise` is the address by which others
    reach it, if that is not the one it listens on. With `tls` it serves encrypted, and shows the same certificate to
    the other masters and to chunk servers.
    """

    etcd: str
    volume: str
    state: Path
    snapshots: str
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    token: str | None = None
    tls: TlsFiles | None = None
    timing: Timing = Timing()
    keeping: KeeperOptions = KeeperOptions()


class Master:
    """A running master. `close` gives power back and ends it. `further` operations are served beside its own."""

    def __init__(
        self, options: MasterOptions, *, clock: Callable[[], int] = wall_ns, further: Handlers | None = None
    ) -> None:  # fmt: skip
        self._further = further or {}
        self._undo: list[Callable[[], None]] = []
        self._heard = Heard(None, monotonic_ns(), lost=False)
        self._core: MasterCore | None = None
        self._surveys = Surveys()
        try:
            self._start(options, clock)
        except BaseException:
            self.close()
            raise

    def _start(self, options: MasterOptions, clock: Callable[[], int]) -> None:
        etcd: Etcd = GrpcEtcd(addresses_in(options.etcd))
        self._undo.append(etcd.close)
        self._etcd = etcd
        keys = Keys(options.volume)
        url = f"etcd://{options.etcd}/{options.volume}"
        self.number = find_journal(etcd, keys, url)
        self._store: Store = open_store(options.snapshots, create=True)
        self._undo.append(self._store.close)
        folder = CopyFolder(options.state, self.number)
        self._undo.append(folder.close)
        self._undo.append(self._surveys.close)
        self._serve(options)
        self.name = self.address
        member = Member(self.name, keys, Following(folder.copy), _nonce, address=self.address, timing=options.timing)
        self._core = MasterCore(member, clock)
        self.volume = options.volume
        self._runner = Runner(etcd, member, self._step)
        self._undo.append(self._runner.close)
        self._undo.append(self._resign)
        self._keeper = Keeper(self._core, etcd, self._store, folder, self.number, self._runner, options.keeping)
        self._undo.append(self._keeper.close)
        tls = options.tls.for_client() if options.tls is not None else None
        listener = Listener(self.name, self.address, self._leader, self._told, options.token, tls)
        self._undo.append(listener.close)

    def _serve(self, options: MasterOptions) -> None:
        """Listen before anything else: the port decides the name by which others know this master."""
        handlers: Handlers = {
            SUBMIT: self._submit, BEAT: self._beat, DESCRIBE: self._describe, STATUS: self._status,
            SURVEY: self._survey, **self._further,
        }  # fmt: skip
        server = RpcServer(
            handlers,
            host=options.host,
            port=options.port,
            token=options.token,
            tls=options.tls.for_server() if options.tls is not None else None,
            options=ServerOptions(workers=_WORKERS),
        )
        self._undo.append(lambda: server.close(_GRACE_SECONDS))
        host, port = server.address
        self.address = options.advertise or f"{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def core(self) -> MasterCore:
        """Return the state machine. Raises NotLeadingError while the master starts."""
        if self._core is None:
            raise NotLeadingError("this master starts", remedy="ask another")
        return self._core

    @property
    def leads(self) -> bool:
        """Tell whether this master leads, as far as it knows: what it commits shows whether it is so."""
        return self._core is not None and self._core.member.role is Role.LEADING

    def in_touch(self, within_seconds: float) -> bool:
        """Tell whether this master knew of the journal's end within a time: it is not cut off from the others."""
        core = self._core
        if core is None:
            return False
        now_ns = monotonic_ns()
        return core.member.valid(now_ns) or now_ns - core.member.fresh_ns <= within_seconds * 1e9

    # -- the journal's thread

    def _step(self, now_ns: int) -> None:
        core = self.core
        core.step(now_ns)
        member = core.member
        if member.role is not Role.FOLLOWING:
            return
        core.refuse_all()
        caught_up = member.fresh_ns > 0
        heard = msgspec.structs.replace(
            self._heard, leader=member.leader, seen_ns=max(self._heard.seen_ns, member.leader_seen_ns)
        )
        if self._heard.leader != member.leader:
            heard = msgspec.structs.replace(heard, lost=False)  # what was heard is of another leader
        if caught_up and not member.behind and should_claim(heard, self.address, now_ns) and member.claim(now_ns):
            self._heard = Heard(member.leader, now_ns, lost=False)

    # -- other threads

    def _leader(self) -> tuple[Leader | None, int]:
        member = self.core.member
        return (None if member.role is not Role.FOLLOWING else member.leader), member.leader_seen_ns

    def _told(self, heard: Heard) -> None:
        def take(_: int) -> None:
            self._heard = heard

        self._runner.send(take)

    def _submit(self, request: Submit, _payload: memoryview, asker: Asker) -> Answered:
        calls = unpack_calls(request.calls)
        core, now_ns = self.core, monotonic_ns()
        questions = only_questions(calls)
        if questions and core.member.valid(now_ns):
            return Submitted(tuple(core.read(calls, request.secret)), core.copy.revision()), ()
        if questions and request.age_ns:
            return self._submit_stale(calls, request, now_ns), ()
        if core.member.role is Role.FOLLOWING:
            raise core.not_leading()
        answers = self.commit(calls, request.secret, asker.within_seconds)
        return Submitted(tuple(answers), core.copy.revision()), ()

    def _submit_stale(self, calls: list[Call], request: Submit, now_ns: int) -> Submitted:
        """Answer questions from a copy that may lag behind, if it does so by no more than is allowed."""
        core = self.core
        age_ns = max(now_ns - core.member.fresh_ns, 1)
        revision = core.copy.revision()
        if age_ns > request.age_ns:
            raise StaleError(
                "copy of this master is too old",
                where=self.name,
                expected=f"{request.age_ns / 1e9:.3f} s",
                got=f"{age_ns / 1e9:.3f} s",
                remedy="ask another master, or allow more",
            )
        return Submitted(tuple(core.read(calls, request.secret)), revision, age_ns)

    def commit(self, calls: Sequence[Call], secret: bytes, within_seconds: float) -> list[Answer]:
        """Answer calls once what they change is in the log, and questions once it is shown that this master leads.

        Raises NotLeadingError, TransientError when it took too long: whether it is done is not known then.
        """
        core = self.core
        questions = only_questions(calls)
        settled = threading.Event()
        ticket = Ticket(calls, secret, lambda _: settled.set())

        def begin(now_ns: int) -> None:
            if core.member.role is Role.FOLLOWING:
                ticket.settle(None, core.not_leading())
            elif questions:
                core.ask(ticket, now_ns)
            else:
                core.submit(ticket, now_ns)

        self._runner.send(begin)
        if not settled.wait(within_seconds):
            raise TransientError("not committed in time", where=self.name, remedy="ask again, under the same number")
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        return list(ticket.answers)

    def _beat(self, _request: Beat, _payload: memoryview, _asker: Asker) -> Answered:
        member = self.core.member
        return Alive(member.role.value, member.epoch), ()

    def _describe(self, _request: Describe, _payload: memoryview, _asker: Asker) -> Answered:
        core = self.core
        settings = core.copy.get(VOLUME)
        if settings is None:
            raise core.not_leading()
        return Described(settings), ()

    def _status(self, _request: Status, _payload: memoryview, _asker: Asker) -> Answered:
        core = self.core
        member = core.member
        leader = member.leader
        failure = core.failure or self._runner.failure or self._keeper.failure
        return MasterStatus(
            name=self.name,
            address=self.address,
            volume=self.volume,
            role=member.role.value,
            leader="" if leader is None else leader.address,
            epoch=member.epoch,
            entry=member.number,
            revision=core.copy.revision(),
            behind_entries=max(self._keeper.newest_entry() - member.number, 0),
            age_seconds=max(monotonic_ns() - member.fresh_ns, 0) / 1e9 if member.fresh_ns > 0 else -1.0,
            sessions=_count_sessions(core),
            snapshot_entry=self._keeper.snapshot_number,
            floor=self._keeper.floor,
            etcd=tuple(msgspec.to_builtins(status) for status in self._etcd.members()),
            failure="" if failure is None else str(failure),
        ), ()

    def _survey(self, request: Survey, _payload: memoryview, _asker: Asker) -> Answered:
        return self._surveys.page(self.core.copy, request), ()

    # -- the end

    def _resign(self) -> None:
        done = threading.Event()
        self._runner.send(lambda now_ns: self.core.member.resign(now_ns, lambda _: done.set()))
        done.wait(_GRACE_SECONDS)

    def close(self) -> None:
        """Give power back, answer what is under way, and end; closing twice is harmless."""
        while self._undo:
            try:
                self._undo.pop()()
            except StokerError:
                continue  # whatever else there is must still be closed

    def __enter__(self) -> "Master":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nonce() -> str:
    import secrets

    return secrets.token_hex(8)


def _count_sessions(core: MasterCore) -> int:
    count, after = 0, b""
    with core.copy.snapshot() as snapshot:
        while rows := snapshot.scan(b"s", after, 1):
            count += 1
            after = session_rows(number_in(rows[0][0])) + b"\xff" * 9
    return count
