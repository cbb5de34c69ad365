"""The etcd in memory and the client of a real one do the same."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.core.errors import UsageError
from stoker.fs.journal.client import GrpcEtcd, access_of, addresses_in
from stoker.fs.journal.etcd import (
    Compact,
    CompactedError,
    Compare,
    Delete,
    Etcd,
    Get,
    KeyValue,
    Outcome,
    Put,
    Request,
    Seen,
    Txn,
    UnknownOutcomeError,
    ask,
    under,
)
from stoker.fs.journal.memory import MemoryEtcd
from stoker.fs.journal.servers import EtcdServers, ServerFiles, etcd_program, free_ports


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    if etcd_program() is None:
        pytest.skip("etcd is not installed (apt install etcd-server)")
    with EtcdServers(tmp_path_factory.mktemp("etcd"), members=1) as started:
        yield started


@pytest.fixture(params=["memory", "real"])
def etcd(request: pytest.FixtureRequest) -> Iterator[Etcd]:
    if request.param == "memory":
        yield MemoryEtcd()
        return
    client = GrpcEtcd(addresses_in(request.getfixturevalue("servers").addresses), try_seconds=5)
    ask(client, Txn(then=(Delete(b"\0", b"\xff"),)))
    yield client
    client.close()


def done(etcd: Etcd, request: Request) -> Outcome:
    return etcd.begin(request).result(timeout=10)


def test_a_key_knows_what_made_and_what_changed_it(etcd: Etcd) -> None:
    made = done(etcd, Txn(then=(Put(b"a", b"1"),))).revision
    changed = done(etcd, Txn(then=(Put(b"a", b"\x00" * 5000),))).revision
    assert changed == made + 1
    assert done(etcd, Get(b"a")).found == ((KeyValue(b"a", b"\x00" * 5000, made, changed),),)
    assert done(etcd, Get(b"absent")).found == ((),)
    done(etcd, Txn(then=(Delete(b"a"),)))
    again = done(etcd, Txn(then=(Put(b"a", b""),))).revision
    assert done(etcd, Get(b"a")).found == ((KeyValue(b"a", b"", again, again),),)


def test_a_range_comes_in_order_and_says_whether_there_is_more(etcd: Etcd) -> None:
    done(etcd, Txn(then=tuple(Put(b"p/%d" % n, b"v%d" % n) for n in (3, 1, 2))))
    done(etcd, Txn(then=(Put(b"q", b""),)))
    outcome = done(etcd, under(b"p/", 2))
    assert [pair.key for pair in outcome.found[0]] == [b"p/1", b"p/2"]
    assert outcome.more
    outcome = done(etcd, under(b"p/"))
    assert [pair.value for pair in outcome.found[0]] == [b"v1", b"v2", b"v3"]
    assert not outcome.more
    assert len({pair.modified for pair in outcome.found[0]}) == 1, "one transaction, one revision"


def test_a_transaction_is_done_where_all_compares_hold(etcd: Etcd) -> None:
    absent = Compare(b"k", created=0)
    first = done(etcd, Txn((absent,), (Put(b"k", b"1"),), (Get(b"k"),)))
    assert first.succeeded
    second = done(etcd, Txn((absent,), (Put(b"k", b"2"),), (Get(b"k"), Get(b"none"))))
    assert not second.succeeded
    assert second.found == ((KeyValue(b"k", b"1", first.revision, first.revision),), ())
    assert second.revision == first.revision, "what writes nothing makes no revision"
    fenced = Txn((Compare(b"k", modified=first.revision), Compare(b"n", created=0)), (Put(b"n", b"1"),))
    assert done(etcd, fenced).succeeded
    assert not done(etcd, fenced).succeeded
    done(etcd, Txn(then=(Put(b"k", b"3"),)))
    assert not done(etcd, Txn((Compare(b"k", modified=first.revision),))).succeeded
    assert done(etcd, Txn((Compare(b"gone", modified=0),))).succeeded


def test_a_transaction_reads_what_it_wrote_and_deletes_ranges(etcd: Etcd) -> None:
    done(etcd, Txn(then=tuple(Put(b"r%d" % n, b"") for n in range(5))))
    outcome = done(etcd, Txn(then=(Delete(b"r0", b"r3"), Put(b"r9", b"x"), Get(b"r", b"s"))))
    assert [pair.key for pair in outcome.found[0]] == [b"r3", b"r4", b"r9"]


def test_a_watch_tells_all_that_changed_behind_a_revision(etcd: Etcd) -> None:
    before = done(etcd, Txn(then=(Put(b"w/0", b""),))).revision
    done(etcd, Txn(then=(Put(b"w/1", b"one"), Put(b"x", b"elsewhere"))))
    watch = etcd.watch(b"w/", b"w0", before)
    try:
        done(etcd, Txn(then=(Delete(b"w/0"), Put(b"w/2", b"two"))))
        puts: dict[bytes, bytes] = {}
        deleted: list[bytes] = []
        deadline = time.monotonic() + 20
        while (len(puts) < 2 or not deleted) and time.monotonic() < deadline:
            seen = watch.next(5) or Seen(0)
            puts |= {pair.key: pair.value for pair in seen.puts}
            deleted += seen.deleted
        assert puts == {b"w/1": b"one", b"w/2": b"two"}
        assert deleted == [b"w/0"]
        assert watch.next(0.01) is None
    finally:
        watch.close()


def test_what_is_compacted_is_told_to_who_watches_from_there(etcd: Etcd) -> None:
    first = done(etcd, Txn(then=(Put(b"c", b"1"),))).revision
    for number in range(5):
        last = done(etcd, Txn(then=(Put(b"c", b"%d" % number),))).revision
    done(etcd, Compact(last))
    with pytest.raises(CompactedError):
        done(etcd, Compact(last))
    with pytest.raises(UsageError):
        done(etcd, Compact(last + 1000))
    watch = etcd.watch(b"c", b"d", first - 1)
    try:
        told = [seen for seen in (watch.next(5), watch.next(0.5)) if seen is not None and seen.compacted]
        assert [seen.compacted for seen in told] == [last]
    except UnknownOutcomeError:
        pytest.fail("the watch ended without a word")
    finally:
        watch.close()
    assert done(etcd, Get(b"c")).found[0][0].value == b"4"


def test_too_much_at_once_is_refused(etcd: Etcd) -> None:
    with pytest.raises(UsageError):
        done(etcd, Txn(then=tuple(Put(b"m%d" % n, b"") for n in range(200))))
    with pytest.raises(UsageError):
        done(etcd, Txn(then=(Put(b"large", bytes(3 << 20)),)))
    assert done(etcd, Get(b"m1")).found == ((),)


def test_its_members_say_what_they_are(etcd: Etcd) -> None:
    (member,) = etcd.members()
    assert member.answers
    assert member.leads


def test_an_address_where_nobody_listens_gives_no_answer_and_the_next_is_asked(servers: EtcdServers) -> None:
    (port,) = free_ports(1)
    client = GrpcEtcd([f"127.0.0.1:{port}", *addresses_in(servers.addresses)], try_seconds=5)
    try:
        with pytest.raises(UnknownOutcomeError, match="no answer"):
            done(client, Get(b"a"))
        assert done(client, Get(b"nothing")).found == ((),)
        assert [member.answers for member in client.members()] == [False, True]
    finally:
        client.close()


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:x", "a:1,,b:2"])
def test_what_is_no_list_of_addresses_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="address"):
        addresses_in(text)


def test_a_folder_of_certificates_that_is_not_there_is_told(tmp_path: Path) -> None:
    access = access_of({"STOKER_ETCD_CA_FILE": str(tmp_path / "absent.pem")})
    with pytest.raises(UsageError, match="cannot be read"):
        GrpcEtcd(["127.0.0.1:2379"], access=access)


STARTER = """
import sys, threading, time
from pathlib import Path
from stoker.fs.journal.servers import EtcdServers
made = []
thread = threading.Thread(target=lambda: made.append(EtcdServers(Path(sys.argv[1]))))
thread.start()
thread.join()
made[0].wait()
print(*[made[0].process(place) for place in range(3)], flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)")
def test_servers_end_with_the_process_that_started_them_and_not_with_its_thread(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert starter.stdout is not None
        servers = [os.pidfd_open(int(word)) for word in starter.stdout.readline().split()]
        assert len(servers) == 3
        assert not select.select(servers, [], [], 1.0)[0]
    finally:
        starter.kill()
        starter.communicate()
    for server in servers:
        assert select.select([server], [], [], 20.0)[0]
        os.close(server)


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pytest.importorskip("wire_certificates").Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def encrypted(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    if etcd_program() is None:
        pytest.skip("etcd is not installed (apt install etcd-server)")
    certificate, key = authority.issue("etcd")
    files = ServerFiles(str(certificate), str(key), str(authority.path))
    with EtcdServers(tmp_path_factory.mktemp("etcd-tls"), members=1, tls=files) as started:
        yield started


def asked_with(servers: EtcdServers, **variables: Path) -> Outcome:
    """What one is told who has these in the environment."""
    access = access_of({f"STOKER_ETCD_{name}": str(path) for name, path in variables.items()})
    client = GrpcEtcd(addresses_in(servers.addresses), access=access, try_seconds=5)
    try:
        return done(client, Get(b"nothing"))
    finally:
        client.close()


def test_an_etcd_that_asks_for_certificates_answers_who_has_one(encrypted: EtcdServers, authority: Any) -> None:
    certificate, key = authority.issue("client")
    told = asked_with(encrypted, CA_FILE=authority.path, CERT_FILE=certificate, KEY_FILE=key)
    assert told.found == ((),)


def test_who_is_not_believed_by_etcd_or_does_not_believe_it_is_told(
    encrypted: EtcdServers, authority: Any, tmp_path: Path
) -> None:
    from wire_certificates import Authority

    stranger = Authority(tmp_path, "stranger")
    own = dict(zip(("CERT_FILE", "KEY_FILE"), authority.issue("client"), strict=True))
    ended = dict(zip(("CERT_FILE", "KEY_FILE"), authority.issue("ended", hours=-1), strict=True))
    for variables in ({}, {"CA_FILE": authority.path}, {"CA_FILE": authority.path, **ended}):
        with pytest.raises(UnknownOutcomeError, match="no answer"):
            asked_with(encrypted, **variables)
    with pytest.raises(UnknownOutcomeError, match=r"(?i)certificate.*verify"):
        asked_with(encrypted, CA_FILE=stranger.path, **own)


def test_an_etcd_whose_certificate_ended_is_not_believed(authority: Any, tmp_path: Path) -> None:
    if etcd_program() is None:
        pytest.skip("etcd is not installed (apt install etcd-server)")
    certificate, key = authority.issue("etcd-ended", hours=-1)
    with (
        EtcdServers(tmp_path, members=1, tls=ServerFiles(str(certificate), str(key))) as servers,
        pytest.raises(UnknownOutcomeError, match=r"(?i)certificate.*verify|expired"),
    ):
        asked_with(servers, CA_FILE=authority.path)


def test_files_that_are_no_certificates_for_etcd_are_told(authority: Any, tmp_path: Path) -> None:
    certificate, key = authority.issue("half")
    (tmp_path / "text.pem").write_text("no certificate")
    for variables, why in (
        ({"CERT_FILE": certificate}, "certificate and its key"),
        ({"KEY_FILE": key}, "certificate and its key"),
        ({"CA_FILE": tmp_path / "text.pem"}, "cannot be used"),
        ({"CERT_FILE": tmp_path / "text.pem", "KEY_FILE": key}, "cannot be used"),
    ):
        access = access_of({f"STOKER_ETCD_{name}": str(path) for name, path in variables.items()})
        with pytest.raises(UsageError, match=why):
            GrpcEtcd(["127.0.0.1:2379"], access=access)
