"""Several hosts on this machine: network namespaces with addresses, names and an SSH server of their own.

It takes root, `ip` (iproute2), `unshare` and `sshd` (openssh-server); `missing()` tells what is not there.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)
_SSHD_FOLDER = Path("/run/sshd")


def missing() -> str:
    """Return why no hosts can be made here, an empty text when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    tools = {"ip": "iproute2", "unshare": "util-linux", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
    lacking = [package for tool, package in tools.items() if shutil.which(tool) is None]
    lacking += [] if SSHD else ["openssh-server"]
    if lacking:
        return f"not installed: {', '.join(dict.fromkeys(lacking))}"
    name = f"stkprobe{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    run("ip", "netns", "del", name)
    return ""


def run(*words: str, check: bool = True) -> str:
    """Run a command to its end and return what it said."""
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=30).stdout


class Lab:
    """So many hosts, called `NAME-0` and on; this process reaches them by `address`, and they reach it by `own`."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.folder = folder
        number = os.getpid() % 32768
        self._tag = f"stk{number}"
        self._prefix = f"10.{64 + number // 256}.{number % 256}"
        self.own = f"{self._prefix}.1"
        self.names = [f"stk{number}-{place}" for place in range(hosts)]
        self.address = {name: f"{self._prefix}.{10 + place}" for place, name in enumerate(self.names)}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self._make_keys()

    def start(self) -> None:
        """Make the hosts and wait until each answers."""
        _SSHD_FOLDER.mkdir(exist_ok=True)  # and it stays: another test process may have hosts that need it
        run("ip", "link", "add", self._tag, "type", "bridge")
        run("ip", "addr", "add", f"{self.own}/24", "dev", self._tag)
        run("ip", "link", "set", self._tag, "up")
        for place, name in enumerate(self.names):
            self._make_host(place, name)
        for name in self.names:
            self._wait(name)

    def _make_keys(self) -> None:
        for name in ("host_key", "user_key", "other_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        (self.folder / "authorized_keys").write_text((self.folder / "user_key.pub").read_text())
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\n"
            "PidFile none\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            "PrintMotd no\nUseDNS no\nMaxStartups 200\nAcceptEnv *\n"
        )
        aliases = "".join(f"Host {name}\n  HostName {self.address[name]}\n" for name in self.names)
        (self.folder / "ssh_config").write_text(
            f"{aliases}Host *\n  IdentityFile {self.folder}/user_key\n  IdentitiesOnly yes\n  User root\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n  LogLevel ERROR\n"
        )

    def _make_host(self, place: int, name: str) -> None:
        outer, inner = f"{self._tag}v{place}", f"{self._tag}p{place}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        run("ip", "link", "set", inner, "netns", name)
        run("ip", "link", "set", outer, "master", self._tag, "up")
        run("ip", "-n", name, "link", "set", inner, "name", "eth0")
        run("ip", "-n", name, "addr", "add", f"{self.address[name]}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        serve = f"hostname {name} && exec {SSHD} -D -e -f {self.folder}/sshd_config"
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            self.servers[name] = subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", serve], stdout=log, stderr=log
            )

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self.address[name], 22), 1):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.folder / f"{name}.log").read_text())

    def cut(self, name: str) -> None:
        """Cut a host off, as a pulled cable does."""
        run("ip", "link", "set", f"{self._tag}v{self.names.index(name)}", "down")

    def mend(self, name: str) -> None:
        """Put the cable back."""
        run("ip", "link", "set", f"{self._tag}v{self.names.index(name)}", "up")

    def pids(self, name: str) -> list[int]:
        """Return the processes on a host, its SSH server left out."""
        found = [int(pid) for pid in run("ip", "netns", "pids", name, check=False).split()]
        return [pid for pid in found if _command(pid) not in ("sshd", "")]

    def environment(self) -> dict[str, str]:
        """Return the environment in which SSH finds the hosts by name, with keys and known hosts of the lab's own."""
        return {
            **os.environ,
            "STOKER_SSH_CONFIG": str(self.folder / "ssh_config"),
            "STOKER_SSH_KNOWN_HOSTS": str(self.folder / "known_hosts"),
            "NO_COLOR": "1",
        }

    def stop(self) -> None:
        """Remove all hosts with everything that runs there."""
        for name in self.names:
            for pid in run("ip", "netns", "pids", name, check=False).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for server in self.servers.values():
            server.kill()
            server.wait(10)
        for place, name in enumerate(self.names):
            run("ip", "link", "del", f"{self._tag}v{place}", check=False)
            run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", self._tag, check=False)


def _command(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return "" if state.rpartition(")")[2].split()[0] == "Z" else state.partition("(")[2].rpartition(")")[0]
