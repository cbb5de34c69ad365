"""An etcd of our own: some members on loopback in one folder, for tests, benchmarks and demonstrations.

The servers are etcd's own program (Debian: etcd-server). Its timing is the one measured to be right for a local
network (docs/design/fs_ha.md): a heartbeat of 50 ms and an election after 300 ms, which etcd draws from 300 to 600.

A server ends with the process that started it, however that ends. The kernel's own signal for that (PR_SET_PDEATHSIG)
is no help: it comes when the thread ends that started the server. So each begins as a small program that leaves a
guard behind before it becomes etcd: the guard holds the reading end of a pipe whose end is the end of who started it.
"""

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import PreflightError

HEARTBEAT_MS: Final = 50
ELECTION_MS: Final = 300
_PROGRAM: Final = "etcd"
_START_SECONDS: Final = 30.0
_GUARDED: Final = """
import os, select, signal, sys
mine = os.pidfd_open(os.getpid())
if os.fork() == 0:
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    ends = select.poll()
    ends.register(0, select.POLLIN)
    ends.register(mine, select.POLLIN)
    while mine not in dict(ends.poll()):
        if not os.read(0, 4096):
            ends.unregister(0)
            signal.pidfd_send_signal(mine, signal.SIGKILL)
    os._exit(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class ServerFiles(msgspec.Struct, frozen=True):
    """Paths of what etcd's clients are shown, and of the authority that must have signed what they show.

    Without `clients_authority` clients need no certificate.
    """

    certificate: str
    key: str
    clients_authority: str = ""


def etcd_program() -> str | None:
    """Return the path of etcd's program, None where it is not installed."""
    return shutil.which(_PROGRAM)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports


class EtcdServers:
    """A cluster. `close` ends every server it started."""

    def __init__(
        self, folder: Path, *, members: int = 3, heartbeat_ms: int = HEARTBEAT_MS, election_ms: int = ELECTION_MS,
        tls: ServerFiles | None = None,
    ) -> None:  # fmt: skip
        program = etcd_program()
        if program is None:
            raise PreflightError("etcd is not installed", remedy="install it: apt install etcd-server")
        self._program = program
        self._folder = folder
        ports = free_ports(2 * members)
        self.clients, self._peers = ports[:members], ports[members:]
        self._tls = tls
        self._timing = (heartbeat_ms, election_ms)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members
        try:
            for place in range(members):
                self.start(place)
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> str:
        """Return the clients' addresses, with commas."""
        return ",".join(f"127.0.0.1:{port}" for port in self.clients)

    def start(self, place: int) -> None:
        """Start a member, or start it again over what it has."""
        folder = self._folder / f"m{place}"
        folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"m{place}.log").open("ab") as log:
            self._processes[place] = subprocess.Popen(  # noqa: S603 - a program found on the path, and our own words
                [sys.executable, "-I", "-S", "-c", _GUARDED, *self._command(place, folder)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(),
            )  # fmt: skip

    def _command(self, place: int, folder: Path) -> Sequence[str]:
        peers = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(self._peers))
        scheme = "http" if self._tls is None else "https"
        client, peer = f"{scheme}://127.0.0.1:{self.clients[place]}", f"http://127.0.0.1:{self._peers[place]}"
        heartbeat_ms, election_ms = self._timing
        return [
            self._program, "--name", f"m{place}", "--data-dir", str(folder), "--initial-cluster", peers,
            "--initial-cluster-state", "new", "--initial-cluster-token", f"stoker-{self._peers[0]}",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--heartbeat-interval", str(heartbeat_ms), "--election-timeout", str(election_ms), "--pre-vote=true",
            "--quota-backend-bytes", str(2 << 30), *_tls_words(self._tls),
        ]  # fmt: skip

    def process(self, place: int) -> int:
        """Return the process id of a member that runs."""
        process = self._processes[place]
        assert process is not None
        return process.pid

    def kill(self, place: int) -> None:
        """End a member at once, as a power failure would."""
        process = self._processes[place]
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
            self._processes[place] = None

    def wait(self) -> None:
        """Wait until every member serves. Raises PreflightError with the end of the log of one that ended."""
        deadline_ns = monotonic_ns() + int(_START_SECONDS * 1e9)
        for place, port in enumerate(self.clients):
            while not _healthy(port, self._tls):
                process = self._processes[place]
                if (process is not None and process.poll() is not None) or monotonic_ns() > deadline_ns:
                    log = (self._folder / f"m{place}.log").read_text(errors="replace")[-300:]
                    raise PreflightError("etcd did not start", where=f"member {place}", got=log.replace("\n", " "))
                time.sleep(0.02)

    def close(self) -> None:
        """End all; ending twice is harmless."""
        for place in range(len(self._processes)):
            self.kill(place)

    def __enter__(self) -> "EtcdServers":
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Return the environment without what would be taken for etcd's own options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def _tls_words(tls: ServerFiles | None) -> list[str]:
    if tls is None:
        return []
    words = ["--cert-file", tls.certificate, "--key-file", tls.key]
    return words + (["--client-cert-auth", "--trusted-ca-file", tls.clients_authority] if tls.clients_authority else [])


def _connection(port: int, tls: ServerFiles | None) -> http.client.HTTPConnection:
    """Return a connection to a server of our own: that it is ours need not be proved."""
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tls.certificate, tls.key)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)


def _healthy(port: int, tls: ServerFiles | None) -> bool:
    connection = _connection(port, tls)
    try:
        connection.request("GET", "/health")
        return b'"true"' in connection.getresponse().read(200)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
