"""How long a volume of masters gives no answer when something is killed: three etcd servers, two masters, one client.

    python -m benchmarks.fsfailover [--kills 60] [--clients 4] [--folder DIR] [--election-ms 300] [--json FILE]

Clients create files without a pause. Every round kills, in turn, the master that leads, the etcd server that leads, or
both, with SIGKILL, waits until files are created again, and starts anew what was killed. The gap is the longest time
around the kill in which no create was acknowledged. In the end every acknowledged file must be there, once.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker.core.errors import StokerError
from stoker.fs.journal.client import GrpcEtcd, addresses_in
from stoker.fs.journal.servers import ELECTION_MS, HEARTBEAT_MS, EtcdServers, free_ports
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import Create, ReadDir
from stoker.fs.meta.keys import ROOT

KINDS = ("master", "etcd", "both")
_SETTLE_SECONDS = 1.5


class MasterProcess:
    """A master as a process of its own."""

    def __init__(self, etcd: str, volume: str, folder: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._command = [
            str(Path(sys.executable).with_name("stoker")), "fs", "master", "--etcd", etcd, "--volume", volume,
            "--state", str(folder / f"state-{port}"), "--snapshots", f"file://{folder}/snapshots",
            "--listen", self.address, "--json",
        ]  # fmt: skip
        self._log = folder / f"master-{port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Three etcd servers and two masters over a new volume."""

    def __init__(
        self, folder: Path, *, masters: int = 2, heartbeat_ms: int = HEARTBEAT_MS, election_ms: int = ELECTION_MS
    ) -> None:
        self.folder = folder
        self.masters: list[MasterProcess] = []
        self.etcd = EtcdServers(folder / "etcd", heartbeat_ms=heartbeat_ms, election_ms=election_ms)
        try:
            self.etcd.wait()
            Volume.format(f"etcd://{self.etcd.addresses}/volume").close()
            self.masters = [MasterProcess(self.etcd.addresses, "volume", folder, port) for port in free_ports(masters)]
            for master in self.masters:
                master.start()
            self.client = GrpcEtcd(addresses_in(self.etcd.addresses))
            self.wait()
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[str]:
        """Return the masters' addresses."""
        return [master.address for master in self.masters]

    def leader(self) -> int | None:
        """Return which master leads."""
        for place, master in enumerate(self.masters):
            try:
                if ask_status(master.address, token=None, within_seconds=1.0).role == "leads":
                    return place
            except StokerError:
                continue
        return None

    def etcd_leader(self) -> int | None:
        """Return which etcd server leads."""
        return next((place for place, member in enumerate(self.client.members()) if member.leads), None)

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until one master leads, all follow, and all etcd servers answer."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                told = [ask_status(address, token=None, within_seconds=2.0) for address in self.addresses]
            except StokerError:
                time.sleep(0.1)
                continue
            members = self.client.members()
            if (
                sorted(one.role for one in told) == ["follows"] * (len(told) - 1) + ["leads"]
                and all(one.behind_entries < 50 and one.entry for one in told)
                and all(member.answers for member in members)
            ):
                return
            time.sleep(0.1)
        raise TimeoutError("the cluster does not become whole")

    def kill(self, kind: str) -> tuple[int | None, int | None]:
        """Kill who leads; return which master and which etcd server were killed."""
        master = self.leader() if kind in ("master", "both") else None
        member = self.etcd_leader() if kind in ("etcd", "both") else None
        if master is not None:
            process = self.masters[master].process
            assert process is not None
            process.kill()
        if member is not None:
            os.kill(self.etcd.process(member), signal.SIGKILL)
        if master is not None:
            self.masters[master].kill()
        if member is not None:
            self.etcd.kill(member)
        return master, member

    def restart(self, master: int | None, member: int | None) -> None:
        """Start again what was killed, and wait until all is whole."""
        if member is not None:
            self.etcd.start(member)
        if master is not None:
            self.masters[master].start()
        self.wait()

    def close(self) -> None:
        """End all of it."""
        for master in self.masters:
            master.kill()
        if hasattr(self, "client"):
            self.client.close()
        self.etcd.close()


@dataclass
class Creators:
    """Clients that create files without a pause, each over a connection of its own."""

    addresses: Sequence[str]
    clients: int
    acknowledged: list[tuple[float, bytes]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    pause_seconds: float = 0.0
    inodes: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._create, args=(n,), daemon=True) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()

    def _create(self, client: int) -> None:
        with RemoteMetadata(self.addresses) as metadata:
            number = 0
            while not self._stop.is_set():
                name = b"c%d-%07d" % (client, number)
                try:
                    made = metadata.run(Create(ROOT, name, 0o644, exclusive=True))
                except StokerError as error:  # exclusive: one that was made twice would be refused
                    self.failures.append(f"{name.decode()}: {error}")
                    return
                self.inodes[name] = made.ino
                self.acknowledged.append((time.monotonic(), name))
                number += 1
                if self.pause_seconds:
                    time.sleep(self.pause_seconds)

    def gap(self, since: float) -> float:
        """Return the longest time without an acknowledgement that reaches behind `since`."""
        times = [since, *(moment for moment, _ in self.acknowledged[-200_000:] if moment > since)]
        before = max((moment for moment, _ in self.acknowledged[-200_000:] if moment <= since), default=since)
        times[0] = before
        return max((later - sooner for sooner, later in itertools.pairwise(times)), default=float("inf"))

    def close(self) -> None:
        """End them; what is under way is finished."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


def names_in(metadata: RemoteMetadata) -> dict[bytes, int]:
    """Return all names of the root with their inodes."""
    found: dict[bytes, int] = {}
    after = b""
    while entries := metadata.run(ReadDir(ROOT, after, 5000)).entries:
        found |= {entry.name: entry.ino for entry in entries}
        after = entries[-1].name
    return found


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which a part of all lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def run_kills(cluster: Cluster, kills: int, clients: int) -> dict[str, Any]:
    """Kill so many times; return the gaps by what was killed. Raises AssertionError when something was lost."""
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    creators = Creators(cluster.addresses, clients)
    creators.pause_seconds = 0.002
    try:
        for number in range(kills):
            kind = KINDS[number % len(KINDS)]
            time.sleep(_SETTLE_SECONDS)
            killed_at = time.monotonic()
            killed = cluster.kill(kind)
            deadline = time.monotonic() + 30
            while not (creators.acknowledged and creators.acknowledged[-1][0] > time.monotonic() - 0.05):
                if time.monotonic() > deadline or creators.failures:
                    raise AssertionError(f"no answer after {kind} was killed: {creators.failures}")
                time.sleep(0.02)
            time.sleep(_SETTLE_SECONDS)
            gaps[kind].append(creators.gap(killed_at))
            print(f"{number + 1:3d} {kind:6s} {gaps[kind][-1]:.3f} s", flush=True)
            cluster.restart(*killed)
    finally:
        creators.close()
    assert not creators.failures, creators.failures
    with RemoteMetadata(cluster.addresses) as metadata:
        there = names_in(metadata)
    lost = [name for _, name in creators.acknowledged if there.get(name) != creators.inodes[name]]
    assert not lost, f"{len(lost)} acknowledged files are lost, such as {lost[:3]}"
    assert len(there) == len(creators.acknowledged), "nothing is there that nobody was told of"
    return {"gaps": gaps, "acknowledged": len(creators.acknowledged), "lost": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--heartbeat-ms", type=int, default=HEARTBEAT_MS)
    parser.add_argument("--election-ms", type=int, default=ELECTION_MS)
    parser.add_argument("--json", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="stoker-failover-") as folder:
        cluster = Cluster(Path(folder), heartbeat_ms=chosen.heartbeat_ms, election_ms=chosen.election_ms)
        try:
            result = run_kills(cluster, chosen.kills, chosen.clients)
        finally:
            cluster.close()
    gaps = result["gaps"]
    rows = {**gaps, "all": [gap for kind in KINDS for gap in gaps[kind]]}
    for kind, values in rows.items():
        if values:
            middle, high = quantile(values, 0.5), quantile(values, 0.99)
            print(f"{kind:6s} kills {len(values):3d}  p50 {middle:.3f} s  p99 {high:.3f} s  max {max(values):.3f} s")
    print(f"acknowledged creates {result['acknowledged']}, lost 0, doubled 0")
    if chosen.json:
        chosen.json.write_text(json.dumps({**result, "timing_ms": [chosen.heartbeat_ms, chosen.election_ms]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
