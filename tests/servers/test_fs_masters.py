"""Masters as processes over three etcd servers: kills, stopped masters, handing over, falling behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.fsfailover import Cluster, Creators, MasterProcess, names_in, run_kills

from stoker.core.errors import StokerError, UnavailableError
from stoker.fs.client import Client, ClientOptions
from stoker.fs.client.garbage import collect_garbage
from stoker.fs.client.repacking import Repacked, repack
from stoker.fs.journal.servers import EtcdServers, etcd_program, free_ports
from stoker.fs.master.daemon import Master, MasterOptions
from stoker.fs.master.keeping import KeeperOptions
from stoker.fs.master.opening import open_metadata
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.master.within import OwnMetadata
from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import (
    READ,
    WRITE,
    BeginSession,
    Call,
    Close,
    Create,
    EndSession,
    GetAttr,
    Lookup,
    Mkdir,
    Open,
    Peek,
    Put,
    ReadDir,
    TakeSlices,
    Unlink,
)
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SliceRange
from stoker.fs.store.memory import MemorySliceStore

pytestmark = pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three etcd servers and two masters, all processes."""
    started = Cluster(tmp_path_factory.mktemp("masters"))
    yield started
    started.close()


def eventually(holds: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.02)


def test_a_killed_leader_loses_nothing(cluster: Cluster) -> None:
    creators = Creators(cluster.addresses, 2)
    try:
        eventually(lambda: len(creators.acknowledged) > 20)
        killed = cluster.kill("master")
        count = len(creators.acknowledged)
        eventually(lambda: len(creators.acknowledged) > count + 20)
    finally:
        creators.close()
    assert creators.failures == []
    with RemoteMetadata(cluster.addresses) as metadata:
        assert names_in(metadata) == creators.inodes
        for name in creators.inodes:
            metadata.run(Lookup(ROOT, name))
    cluster.restart(*killed)


def test_a_stopped_leader_that_wakes_up_commits_nothing_and_reads_nothing_old(cluster: Cluster) -> None:
    place = cluster.leader()
    assert place is not None
    old, other = cluster.masters[place], cluster.masters[1 - place]
    with RemoteMetadata([old.address], patience_seconds=0.5) as at_old, RemoteMetadata([other.address]) as at_other:
        at_old.run(Mkdir(ROOT, b"before-the-stop", 0o755))
        old.send(signal.SIGSTOP)
        try:
            with pytest.raises(StokerError):
                at_old.run(Mkdir(ROOT, b"sent-to-the-stopped", 0o755))
            made = at_other.run(Mkdir(ROOT, b"made-meanwhile", 0o755))
        finally:
            old.send(signal.SIGCONT)
    with RemoteMetadata([old.address]) as metadata:  # it answers, or sends on to who leads: never from what it had
        assert metadata.run(Lookup(ROOT, b"made-meanwhile")).ino == made.ino
    eventually(lambda: ask_status(old.address, token=None).role == "follows")
    cluster.wait()
    with RemoteMetadata(cluster.addresses) as metadata:
        names = names_in(metadata)
        assert b"before-the-stop" in names
        assert list(names.values()).count(made.ino) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_of_all_kinds_lose_and_double_nothing(tmp_path: Path) -> None:
    other = Cluster(tmp_path)
    try:
        told = run_kills(other, 9, 3)
        assert told["acknowledged"] > 100
    finally:
        other.close()


# -- in this process: what needs no kills


@pytest.fixture
def master(etcd_servers: EtcdServers, tmp_path: Path) -> Iterator[Callable[..., Master]]:
    """Start masters of one new volume."""
    name = f"v{os.urandom(6).hex()}"
    Volume.format(f"etcd://{etcd_servers.addresses}/{name}").close()
    started: list[Master] = []

    def start(**changes: object) -> Master:
        options = MasterOptions(
            etcd=etcd_servers.addresses,
            volume=name,
            state=tmp_path / f"state{len(started)}",
            snapshots=f"file://{tmp_path}/snapshots",
        )
        made = Master(msgspec.structs.replace(options, **changes))
        started.append(made)
        return made

    yield start
    for one in started:
        one.close()


@pytest.mark.slow
def test_a_leader_that_is_ended_hands_over_at_once(master: Callable[..., Master]) -> None:
    one, two = master(), master()
    with RemoteMetadata([one.address, two.address]) as metadata:
        metadata.run(Mkdir(ROOT, b"a", 0o755))
        leads = one if ask_status(one.address, token=None).role == "leads" else two
        leads.close()
        metadata.run(Mkdir(ROOT, b"b", 0o755))
        left = two if leads is one else one
        status = ask_status(left.address, token=None)
        assert status.role == "leads"
        assert set(names_in(metadata)) == {b"a", b"b"}


def test_a_session_is_its_owners_alone(master: Callable[..., Master]) -> None:
    one = master()
    with RemoteMetadata([one.address]) as mine, RemoteMetadata([one.address]) as theirs:
        session = mine.run(BeginSession(60_000_000_000)).value
        made = mine.run(Create(ROOT, b"f", 0o600, access=READ | WRITE), session=session)
        for request in (Open(made.ino, READ), TakeSlices(1)):
            with pytest.raises(MetaError, match="EACCES"):
                theirs.run(request, session=session)
        with pytest.raises(MetaError, match="EACCES"):
            theirs.run(EndSession(session))
        mine.run(Open(made.ino, READ), session=session)
        mine.end_session(session)
        with pytest.raises(MetaError, match="ESTALE"):
            mine.run(Open(made.ino, READ), session=session)


@pytest.mark.slow
def test_the_same_number_is_answered_the_same_and_done_once(master: Callable[..., Master]) -> None:
    one, two = master(), master()
    with RemoteMetadata([one.address, two.address]) as metadata:
        session = metadata.run(BeginSession(60_000_000_000)).value
        call = Call(TakeSlices(5), session=session, seq=1)
        first = metadata.submit([call])
        (one if ask_status(one.address, token=None).role == "leads" else two).close()
        assert metadata.submit([call]) == first
        following = metadata.submit([Call(TakeSlices(1), session=session, seq=2)])
        assert following[0].value == first[0].value + 5  # type: ignore[union-attr]


@pytest.mark.slow
def test_many_threads_share_requests_and_each_gets_its_own_answer(master: Callable[..., Master]) -> None:
    one = master()
    inodes: dict[bytes, int] = {}
    with RemoteMetadata([one.address]) as metadata:

        def create(client: int) -> None:
            for number in range(20):
                name = b"t%d-%d" % (client, number)
                inodes[name] = metadata.run(Create(ROOT, name, 0o644, exclusive=True)).ino
                assert metadata.run(Lookup(ROOT, name)).ino == inodes[name]

        threads = [threading.Thread(target=create, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert names_in(metadata) == inodes
        entries = one.core.member.number
    assert entries < 12 * 20, "many creates share an entry of the journal"


@pytest.mark.slow
def test_a_standby_answers_from_its_copy_and_says_how_old_it_is(master: Callable[..., Master]) -> None:
    one, two = master(), master()
    eventually(lambda: {one.core.member.role.value, two.core.member.role.value} == {"leads", "follows"})
    standby = one if one.core.member.role.value == "follows" else two
    with RemoteMetadata([one.address, two.address]) as metadata:
        metadata.run(Mkdir(ROOT, b"a", 0o755))
        revision = metadata.seen_revision
        eventually(lambda: standby.core.copy.revision() >= revision)
        with RemoteMetadata([standby.address], stale_seconds=60) as stale:
            stale.run(GetAttr(ROOT))
            assert stale.seen_revision >= revision
            assert 0 < stale.seen_age_seconds < 60
            assert stale._masters.current == standby.address
        with RemoteMetadata([standby.address]) as fresh:
            fresh.run(GetAttr(ROOT))
            assert fresh._masters.current != standby.address, "it was sent on to the leader"


@pytest.mark.slow
def test_a_journal_that_was_trimmed_seeds_a_new_master_from_the_snapshot(master: Callable[..., Master]) -> None:
    keeping = KeeperOptions(snapshot_entries=20, slack_entries=0)
    one = master(keeping=keeping)
    with RemoteMetadata([one.address]) as metadata:
        for number in range(60):
            metadata.run(Mkdir(ROOT, b"d%02d" % number, 0o755))
        eventually(lambda: ask_status(one.address, token=None).floor > 10)
        two = master(keeping=keeping)
        eventually(lambda: two.core.copy.revision() >= metadata.seen_revision)
        one.close()
        metadata._masters.addresses.append(two.address)
        assert len(names_in(metadata)) == 60
    assert fsck(two.core.copy) == []


@pytest.mark.slow
def test_a_process_that_opens_what_a_master_serves_is_sent_there(
    master: Callable[..., Master], etcd_servers: EtcdServers
) -> None:
    one = master()
    eventually(lambda: one.core.member.role.value == "leads")
    with pytest.raises(StokerError, match=f"master://{one.address}"):
        Volume.open(f"etcd://{etcd_servers.addresses}/{one.volume}")


def test_a_url_opens_the_metadata_wherever_it_is(master: Callable[..., Master], tmp_path: Path) -> None:
    one = master()
    Volume.format(f"sqlite://{tmp_path}/x.db").close()
    for url in (f"master://{one.address}/{one.volume}", f"sqlite://{tmp_path}/x.db"):
        metadata = open_metadata(url)
        try:
            assert metadata.run(Mkdir(ROOT, b"d", 0o755)).made
            assert metadata.settings.uuid
        finally:
            metadata.close()


@pytest.mark.slow
def test_the_commands_promote_log_and_restore(etcd_servers: EtcdServers, tmp_path: Path) -> None:
    stoker, name = str(Path(sys.executable).with_name("stoker")), f"v{os.urandom(6).hex()}"
    with Volume.format(f"sqlite://{tmp_path}/x.db") as volume:
        volume.run(Mkdir(ROOT, b"kept", 0o755))

    def run(*words: str) -> str:
        done = subprocess.run([stoker, "fs", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("promote", f"sqlite://{tmp_path}/x.db", "--to", f"etcd://{etcd_servers.addresses}/{name}")
    log = [stoker, "fs", "metalogger", "--etcd", etcd_servers.addresses, "--volume", name]
    log += ["--state", str(tmp_path / "log"), "--archive", f"file://{tmp_path}/archive"]
    logger = subprocess.Popen(log, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: list(tmp_path.glob("archive/*/manifest.json")))
    finally:
        logger.send_signal(signal.SIGTERM)
        assert logger.wait(30) in (0, 143)
    run("restore", f"sqlite://{tmp_path}/again.db", "--archive", f"file://{tmp_path}/archive")
    assert "kept" in run("ls", f"sqlite://{tmp_path}/again.db")


@pytest.mark.slow
def test_beyond_loopback_a_token_is_needed(master: Callable[..., Master]) -> None:
    with pytest.raises(StokerError, match="token"):
        master(host="0.0.0.0")
    one = master(token="a token that nobody guesses")
    with pytest.raises(StokerError, match=r"token|refus"):
        RemoteMetadata([one.address], patience_seconds=1)
    with RemoteMetadata([one.address], token="a token that nobody guesses") as metadata:
        assert metadata.run(ReadDir(ROOT)).entries == ()


@pytest.mark.slow
def test_the_commands_serve_and_tell(cluster: Cluster, tmp_path: Path) -> None:
    stoker = str(Path(sys.executable).with_name("stoker"))
    told = subprocess.run(
        [stoker, "fs", "status", "--masters", ",".join(cluster.addresses)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert "leads" in told.stdout
    assert "follows" in told.stdout
    (port,) = free_ports(1)
    absent = subprocess.run(
        [stoker, "fs", "status", "--json", "--masters", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=60
    )
    assert absent.returncode == 3
    spare = MasterProcess(cluster.etcd.addresses, "volume", tmp_path, port)
    spare.start()
    try:
        eventually(lambda: answers(spare.address))
        spare.send(signal.SIGTERM)
        assert spare.process is not None
        assert spare.process.wait(timeout=30) in (0, 143)
    finally:
        spare.kill()


def answers(address: str) -> bool:
    try:
        return bool(ask_status(address, token=None).revision)
    except StokerError:
        return False


@pytest.mark.parametrize("done", [True, False])
def test_a_close_that_was_put_off_is_done_once_when_its_answer_is_lost(
    master: Callable[..., Master], monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """Two handles have the file open: done twice, the close of one would be that of the other as well."""
    running = master()
    with RemoteMetadata([running.address]) as metadata:
        client = Client(metadata, MemorySliceStore(), ClientOptions(), threads=True)
        ino = metadata.run(Create(ROOT, b"f", 0o600)).ino
        call = Close(ino, READ)
        for _ in range(2):
            metadata.run(Open(ino, READ), session=client.session.number)
        plain, lost = metadata._combiner.ask, []

        def ask(calls: list[Call]) -> list[Answer]:
            if len(lost) < 3 and any(one.request == call for one in calls):
                lost.append(calls[0].seq)
                if done:
                    plain(calls)
                raise UnavailableError("the answer got lost")
            return plain(calls)

        monkeypatch.setattr(metadata._combiner, "ask", ask)
        group = client.works.commits
        group.later(Call(call, session=client.session.number))
        # The client's own thread goes on with it; while it is being asked for it is not put off.
        eventually(lambda: len(lost) == 3 and group.put_off == 0 and metadata.run(GetAttr(ino)).attr.opens == 1)
        assert len(set(lost)) == 1, "always under one number"
        metadata.run(Close(ino, READ), session=client.session.number)  # the other's: it is still there
        assert metadata.run(GetAttr(ino)).attr.opens == 0
        client.close()


def test_a_leading_master_packs_anew_what_is_left_of_packs(master: Callable[..., Master]) -> None:
    running, store = master(), MemorySliceStore()
    with RemoteMetadata([running.address]) as metadata:
        session = metadata.run(BeginSession(60 * 10**9)).value
        data = Slice(metadata.run(TakeSlices(1), session=session).value, 0, 4000)
        store.write(data, [b"%d" % number * 1000 for number in range(4)], durable=True)
        for number in range(4):
            put = Put(ROOT, b"%d" % number, 0o600, (data,), parts=((number * 1000, 1000),))
            metadata.run(put, session=session)
        for number in range(3):
            metadata.run(Unlink(ROOT, b"%d" % number))
        own = OwnMetadata(running)
        assert repack(own, store) == Repacked(packs=1, moved_bytes=1000, freed_bytes=4000)
        assert collect_garbage(own, store, 0, now_ns=time.time_ns()).freed == 1
        [shown] = metadata.run(Peek(ROOT, b"3", limit_bytes=1000)).shown
        [read] = store.read([SliceRange(shown.extent.slice, shown.extent.offset, shown.extent.length)])
        assert bytes(read) == b"3" * 1000
        assert sum(one.size_bytes for one in store.inventory()) == 1000
