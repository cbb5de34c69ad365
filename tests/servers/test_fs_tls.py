"""A cluster of processes that speaks TLS throughout: etcd, masters, chunk servers, commands; and who is refused."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.fsfailover import MasterProcess
from chunk_servers import chunk_server

from stoker.core.errors import StokerError
from stoker.fs.journal.servers import EtcdServers, ServerFiles, etcd_program, free_ports
from stoker.fs.master.daemon import Master, MasterOptions
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import Mkdir, ReadDir
from stoker.fs.meta.keys import ROOT
from stoker.fs.wire.faults import UntrustedError
from stoker.fs.wire.keys import TlsFiles, client_tls

pytestmark = pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)")
certificates = pytest.importorskip("wire_certificates")


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    return certificates.Authority(tmp_path, "authority")


@contextmanager
def volume_in_etcd(folder: Path, authority: Any, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """An etcd that asks for certificates, the environment that has one, and a new volume: addresses and uuid."""
    certificate, key = authority.issue("etcd")
    own = authority.issue("journal")
    for name, path in zip(("CA", "CERT", "KEY"), (authority.path, *own), strict=True):
        patch.setenv(f"STOKER_ETCD_{name}_FILE", str(path))
    files = ServerFiles(str(certificate), str(key), str(authority.path))
    with EtcdServers(folder / "etcd", members=1, tls=files) as etcd:
        with Volume.format(f"etcd://{etcd.addresses}/volume") as volume:
            uuid = volume.settings.uuid
        yield etcd.addresses, uuid


def words(authority: Any, pair: tuple[Path, Path]) -> list[str]:
    return ["--tls-ca", str(authority.path), "--tls-cert", str(pair[0]), "--tls-key", str(pair[1])]


def stoker(*arguments: str, code: int = 0) -> str:
    command = [str(Path(sys.executable).with_name("stoker")), "fs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while True:
        try:
            if found := holds():
                return found
        except StokerError as error:
            assert time.monotonic() < until, error
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_cluster_speaks_tls_throughout(tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go in and come out, a killed leader is followed by the other, which hears of it encrypted."""
    server, mine = words(authority, authority.issue("server")), words(authority, authority.issue("client"))
    tls = client_tls(authority.path, *authority.issue("asker"))
    with ExitStack() as held:
        etcd, uuid = held.enter_context(volume_in_etcd(tmp_path, authority, monkeypatch))
        masters = [MasterProcess(etcd, "volume", tmp_path, port) for port in free_ports(2)]
        for master in masters:
            master._command += server
            master.start()
            held.callback(master.kill)
        addresses = ",".join(master.address for master in masters)
        held.enter_context(
            chunk_server([tmp_path / "disk"], "--volume", uuid, "--masters", addresses, "--host-name", "h", *server)
        )
        status = lambda: json.loads(stoker("disks", "--masters", addresses, "--json", *mine))  # noqa: E731
        eventually(lambda: [one for one in status()["disks"] if one["disk"]["health"] == "up"])
        (tmp_path / "a").write_bytes(b"sealed" * 50_000)
        url = f"master://{addresses}/volume"
        stoker("put", url, str(tmp_path / "a"), "/a", *mine)
        told = stoker("what-if", "--masters", addresses, "--lose-host", "h", *mine, code=3)
        assert "would be lost" in told
        leads = eventually(
            lambda: [m for m in masters if ask_status(m.address, token=None, tls=tls).role == "leads"]
        )[0]  # fmt: skip
        other = next(master for master in masters if master is not leads)
        eventually(lambda: ask_status(other.address, token=None, tls=tls).role == "follows")
        leads.kill()
        stoker("get", url, "/a", str(tmp_path / "b"), *mine)
        assert (tmp_path / "b").read_bytes() == b"sealed" * 50_000
        assert ask_status(other.address, token=None, tls=tls).role == "leads"
        for refused, why in (([], "speaks TLS"), (mine[:2], "asks for a certificate")):
            assert why in stoker("ls", url.replace(leads.address + ",", "").replace("," + leads.address, ""), *refused,
                                 code=1)  # fmt: skip


@pytest.mark.slow
def test_a_cluster_whose_certificates_end_and_are_renewed_goes_on(
    tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Master and chunk server are never started anew; in between nobody new believes them."""
    served = authority.issue("server", hours=30 / 3600)
    ends = time.monotonic() + 31
    server, mine = words(authority, served), words(authority, authority.issue("client"))
    with ExitStack() as held:
        etcd, uuid = held.enter_context(volume_in_etcd(tmp_path, authority, monkeypatch))
        master = MasterProcess(etcd, "volume", tmp_path, free_ports(1)[0])
        master._command += server
        master.start()
        held.callback(master.kill)
        held.enter_context(
            chunk_server(
                [tmp_path / "disk"], "--volume", uuid, "--masters", master.address, "--host-name", "h", *server
            )
        )
        status = lambda: json.loads(stoker("disks", "--masters", master.address, "--json", *mine))  # noqa: E731
        eventually(lambda: [one for one in status()["disks"] if one["disk"]["health"] == "up"])
        (tmp_path / "a").write_bytes(b"sealed" * 50_000)
        url = f"master://{master.address}/volume"
        stoker("put", url, str(tmp_path / "a"), "/a", *mine)
        assert time.monotonic() < ends, "this machine is too slow to see a certificate end"
        time.sleep(ends - time.monotonic())
        assert "certificate has expired" in stoker("ls", url, *mine, code=1)
        for fresh, old in zip(authority.issue("renewed"), served, strict=True):
            fresh.replace(old)
        stoker("get", url, "/a", str(tmp_path / "b"), *mine)
        assert (tmp_path / "b").read_bytes() == b"sealed" * 50_000
        stoker("put", url, str(tmp_path / "b"), "/b", *mine)
        eventually(lambda: [one for one in status()["disks"] if one["disk"]["health"] == "up"])


@pytest.fixture
def master(
    tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[tuple[Path, Path]], Master]]:
    """Start a master with a certificate."""
    with ExitStack() as held:
        etcd, _ = held.enter_context(volume_in_etcd(tmp_path, authority, monkeypatch))

        def start(pair: tuple[Path, Path], host: str = "127.0.0.1") -> Master:
            files = TlsFiles(str(pair[0]), str(pair[1]), str(authority.path))
            options = MasterOptions(etcd, "volume", tmp_path / "state", f"file://{tmp_path}/snapshots", host, tls=files)
            return held.enter_context(Master(options))

        yield start


def test_who_is_not_believed_by_a_master_hears_so_at_once(
    master: Callable[..., Master], authority: Any, tmp_path: Path
) -> None:
    running = master(authority.issue("server"))
    stranger = certificates.Authority(tmp_path, "stranger")
    with RemoteMetadata([running.address], tls=client_tls(authority.path, *authority.issue("me"))) as metadata:
        metadata.run(Mkdir(ROOT, b"d", 0o755))
        assert [entry.name for entry in metadata.run(ReadDir(ROOT)).entries] == [b"d"]
    refused = [
        (None, "speaks TLS"),
        (client_tls(authority.path), "asks for a certificate"),
        (client_tls(authority.path, *stranger.issue("other")), "does not believe the certificate"),
        (client_tls(authority.path, *authority.issue("old", hours=-1)), "certificate expired"),
        (client_tls(stranger.path, *authority.issue("lost")), "certificate of the server"),
    ]
    for tls, why in refused:
        began = time.monotonic()
        with pytest.raises(UntrustedError, match=why):
            RemoteMetadata([running.address], tls=tls)
        assert time.monotonic() - began < 5, "time makes no certificate good"


def test_a_master_whose_certificate_ended_is_not_believed(master: Callable[..., Master], authority: Any) -> None:
    running = master(authority.issue("server", hours=-1))
    with pytest.raises(UntrustedError, match="certificate has expired"):
        RemoteMetadata([running.address], tls=client_tls(authority.path, *authority.issue("me")))


def test_certificates_let_a_master_listen_beyond_loopback_without_a_token(
    master: Callable[..., Master], authority: Any
) -> None:
    running = master(authority.issue("server"), "0.0.0.0")
    here = f"127.0.0.1:{running.address.rpartition(':')[2]}"
    with RemoteMetadata([here], tls=client_tls(authority.path, *authority.issue("me"))) as metadata:
        assert metadata.settings.name == ""


def test_a_master_with_half_of_tls_is_refused(tmp_path: Path, authority: Any) -> None:
    certificate, key = map(str, authority.issue("server"))
    base = ["master", "--etcd", "127.0.0.1:1", "--volume", "v", "--state", str(tmp_path / "s"), "--snapshots", "mem://"]
    assert "certificate and its key" in stoker(*base, "--tls-cert", certificate, code=2)
    assert "--tls-ca" in stoker(*base, "--tls-cert", certificate, "--tls-key", key, code=2)
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for path in (str(text), str(tmp_path / "absent")):
        assert "TLS files cannot be used" in stoker(
            *base, "--tls-cert", path, "--tls-key", key, "--tls-ca", str(authority.path), code=2
        )
