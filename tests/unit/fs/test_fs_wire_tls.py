"""The wire under TLS: who is believed, and that bytes arrive the same."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from wire_peers import ECHO, FILE, QUICK, TOKEN, Number, Raw, Room, address_of

from stoker.core.errors import UnavailableError, UsageError
from stoker.fs.wire import Connection, RpcServer
from stoker.fs.wire.faults import UntrustedError
from stoker.fs.wire.keys import client_tls, server_tls
from wire_certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def test_bytes_arrive_the_same_under_tls(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 << 20))
    descriptor = os.open(path, os.O_RDONLY)
    tls = server_tls(*authority.issue("server"))
    with (
        RpcServer(Room(descriptor).handlers(), token=TOKEN, tls=tls) as server,
        Connection(address_of(server), token=TOKEN, tls=client_tls(authority.path)) as connection,
    ):
        data = os.urandom(3_000_001)
        assert connection.call(ECHO, Number(1), [data[:10], data[10:]])[1] == data
        whole = connection.call(FILE, Number(2 << 20), answer_bytes_max=2 << 20)[1]
        assert whole == path.read_bytes()
        asked = [connection.begin(ECHO, Number(number), [data]) for number in range(6)]
        assert all(future.result(20)[1] == data for future in asked)
        assert connection.call(QUICK, Number(1))[0] == Number(1)
    os.close(descriptor)


def test_only_who_the_authority_knows_is_believed(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    tls = server_tls(*authority.issue("server"), authority.path)
    seen: list[str] = []
    handlers = {QUICK: lambda asked, payload, asker: (seen.append(asker.certificate), (asked, ()))[1]}
    with RpcServer(handlers, host="0.0.0.0", tls=tls) as server:  # certificates are asked for: it may listen anywhere
        with Connection(address_of(server), tls=client_tls(authority.path, *authority.issue("alice"))) as connection:
            assert connection.call(QUICK, Number(1))[0] == Number(1)
        assert seen == ["alice"]
        with pytest.raises(UnavailableError, match="TLS was not agreed on"):
            Connection(address_of(server), tls=client_tls(stranger.path, *authority.issue("bob")))
        for unknown in (client_tls(authority.path, *stranger.issue("mallory")), client_tls(authority.path)):
            with pytest.raises(UnavailableError), Connection(address_of(server), tls=unknown) as connection:
                connection.call(QUICK, Number(2))
        with pytest.raises(UnavailableError):
            Connection(address_of(server))  # no TLS at all
    assert seen == ["alice"]


def test_each_refusal_says_why(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    good = client_tls(authority.path, *authority.issue("alice"))
    refusals = [
        (None, "the server speaks TLS.*--tls-ca"),
        (client_tls(authority.path), "asks for a certificate.*--tls-cert"),
        (client_tls(authority.path, *stranger.issue("mallory")), "does not believe the certificate.*unknown ca"),
        (client_tls(authority.path, *authority.issue("old", hours=-1)), "does not believe.*certificate expired"),
        (client_tls(stranger.path, *authority.issue("bob")), "certificate of the server: self-signed"),
    ]
    with RpcServer(Room().handlers(), tls=server_tls(*authority.issue("server"), authority.path)) as server:
        for tls, why in refusals * 5:
            with pytest.raises(UntrustedError, match=why):
                Connection(address_of(server), tls=tls)
    ended = server_tls(*authority.issue("ended", hours=-1))
    with (
        RpcServer(Room().handlers(), tls=ended) as server,
        pytest.raises(UntrustedError, match="certificate of the server: certificate has expired"),
    ):
        Connection(address_of(server), tls=good)
    with (
        RpcServer(Room().handlers()) as server,
        pytest.raises(UntrustedError, match="whether the other end speaks TLS"),
    ):
        Connection(address_of(server), tls=good)


def test_tls_alone_does_not_open_a_server_to_the_world(authority: Authority) -> None:
    with pytest.raises(UsageError, match="must know its clients"):
        RpcServer({}, host="0.0.0.0", tls=server_tls(*authority.issue("server")))


def test_files_that_are_no_certificates_are_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.write_text("")
    with pytest.raises(UsageError, match=r"TLS files cannot be used .*empty\.pem"):
        server_tls(path, path)
    with pytest.raises(UsageError, match="TLS files cannot be used"):
        client_tls(tmp_path / "missing.pem")


def test_a_handshake_must_be_over_in_time(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.fs.wire.serving.HELLO_SECONDS", 0.3)
    tls = server_tls(*authority.issue("server"))
    with RpcServer(Room().handlers(), tls=tls) as server, Raw(server, greeted=False) as silent:
        assert silent.ended()
        with Connection(address_of(server), tls=client_tls(authority.path)) as connection:
            assert connection.call(QUICK, Number(1))[0] == Number(1)


def test_a_server_that_is_none_is_unavailable_in_time(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        rude = threading.Thread(target=hang_up, args=(deaf,))
        rude.start()
        with pytest.raises(UnavailableError):
            Connection(f"127.0.0.1:{deaf.getsockname()[1]}", tls=client_tls(authority.path))
        rude.join()


def hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()


def moved_over(pair: tuple[Path, Path], goal: tuple[Path, Path]) -> None:
    """Put a certificate and its key in the place of others, as those do who renew them: by renaming."""
    for source, target in zip(pair, goal, strict=True):
        source.replace(target)


def test_renewed_certificates_are_used_by_the_next_connection(authority: Authority) -> None:
    """The server's ends while it runs, then a client's; each is renewed in its place, and nobody starts anew."""
    served, mine = authority.issue("server", hours=1.5 / 3600), authority.issue("alice", hours=-1)
    server_files, client_files = server_tls(*served, authority.path), client_tls(authority.path, *mine)
    with RpcServer(Room().handlers(), tls=server_files) as server:
        with pytest.raises(UntrustedError, match=r"does not believe.*certificate expired"):
            Connection(address_of(server), tls=client_files)
        moved_over(authority.issue("alice-anew"), mine)
        with Connection(address_of(server), tls=client_files) as first:
            assert first.call(QUICK, Number(1))[0] == Number(1)
            time.sleep(2.5)
            with pytest.raises(UntrustedError, match="certificate of the server: certificate has expired"):
                Connection(address_of(server), tls=client_files)
            moved_over(authority.issue("server-anew"), served)
            with Connection(address_of(server), tls=client_files) as second:
                assert second.call(QUICK, Number(2))[0] == Number(2)
            assert first.call(QUICK, Number(3))[0] == Number(3)  # what was agreed on goes on


def test_files_that_cannot_be_used_leave_the_old_ones_in_use_and_are_told_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    served = authority.issue("server")
    tls = client_tls(authority.path)

    def connects(server: RpcServer) -> None:
        for number in range(2):
            with Connection(address_of(server), tls=tls) as connection:
                assert connection.call(QUICK, Number(number))[0] == Number(number)

    with RpcServer(Room().handlers(), tls=server_tls(*served)) as server:
        connects(server)
        good = served[0].read_bytes()
        fresh = authority.issue("fresh")
        fresh[0].replace(served[0])  # its key is not there yet
        connects(server)
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        assert "stay in use" in caplog.text and "server.crt" in caplog.text
        served[0].write_bytes(good[:100])
        connects(server)
        served[0].unlink()
        connects(server)
        assert len(caplog.records) == 3
        moved_over(authority.issue("other"), served)
        connects(server)
        assert len(caplog.records) == 3  # good ones are nothing to warn of


def test_another_authority_replaces_the_one_before(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    old, new = (client_tls(one.path, *one.issue(one.path.stem + "-client")) for one in (authority, stranger))
    served, believed = authority.issue("server"), tmp_path / "believed.pem"
    believed.write_bytes(authority.path.read_bytes())
    with RpcServer(Room().handlers(), tls=server_tls(*served, believed)) as server:
        Connection(address_of(server), tls=old).close()
        moved_over(stranger.issue("server-anew"), served)
        believed.write_bytes(stranger.path.read_bytes())
        Connection(address_of(server), tls=new).close()
        with pytest.raises(UntrustedError):
            Connection(address_of(server), tls=old)
