"""A cluster of processes: etcd, masters that care, chunk servers; what is killed is read around and rebuilt."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from benchmarks.fsfailover import MasterProcess
from chunk_servers import Running, chunk_server

from stoker.core.errors import StokerError
from stoker.fs.care import open_cluster
from stoker.fs.care.messages import CARE_OF, CareOf, CareStatus
from stoker.fs.journal.servers import EtcdServers, etcd_program, free_ports
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta import Tree, Volume
from stoker.fs.meta.calls import READ, WRITE, BeginSession, Create, MakeClass, TakeSlices, Write
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.store.interface import SliceRange

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)"),
]
CARE = ("--down-after", "4", "--out-after", "3", "--repair-rate", "100MiB")


class Cluster:
    """Three etcd servers, two masters, three chunk servers on hosts of their own, and a client."""

    def __init__(self, folder: Path) -> None:
        with ExitStack() as held:
            self.etcd = held.enter_context(EtcdServers(folder / "etcd"))
            self.etcd.wait()
            with Volume.format(f"etcd://{self.etcd.addresses}/volume") as volume:
                self.uuid = volume.settings.uuid
                self.storage_class = volume.run(MakeClass(StorageClass(0, "pair", 1, 1))).value
            self.masters = [MasterProcess(self.etcd.addresses, "volume", folder, port) for port in free_ports(2)]
            for master in self.masters:
                master._command += CARE
                master.start()
                held.callback(master.kill)
            self.addresses = ",".join(master.address for master in self.masters)
            self.servers = [held.enter_context(self._server(folder, number)) for number in range(3)]
            self.metadata = held.enter_context(RemoteMetadata(self.addresses.split(",")))
            self.store = open_cluster(self.metadata)
            held.callback(self.store.close)
            self._held = held.pop_all()

    def _server(self, folder: Path, number: int) -> Any:
        return chunk_server(
            [folder / f"disk-{number}"], "--volume", self.uuid, "--masters", self.addresses, "--host-name", f"h{number}"
        )  # fmt: skip

    def status(self) -> CareStatus:
        return self.metadata.converse(CARE_OF, CareOf())

    def leader(self) -> MasterProcess:
        for master in self.masters:
            try:
                if ask_status(master.address, token=None).role == "leads":
                    return master
            except StokerError:
                continue
        raise AssertionError("nobody leads")

    def eventually(self, holds: Callable[[CareStatus], Any], seconds: float = 90.0) -> CareStatus:
        until = time.monotonic() + seconds
        while not holds(status := self.status()):
            assert time.monotonic() < until, status
            time.sleep(0.2)
        return status

    def written(self, count: int, size_bytes: int) -> list[Slice]:
        first = self.metadata.run(TakeSlices(count)).value
        slices = [Slice(first + n, 1, size_bytes, self.storage_class) for n in range(count)]
        for data in slices:
            self.store.write(data, [content(data)], durable=True)
        return slices

    def readable(self, slices: list[Slice]) -> None:
        found = self.store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
        assert [bytes(part) for part in found] == [content(data) for data in slices]

    def command(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("stoker")), "fs", *words, "--masters", self.addresses, "--json"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def kill_server(self, number: int) -> None:
        server: Running = self.servers[number]
        for pid in (server.process.pid, *server.pids):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._held.close()


def content(data: Slice) -> bytes:
    return bytes([data.id % 251]) * data.size_bytes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def settled(status: CareStatus) -> bool:
    repair = status.repair
    return not (repair.waiting or repair.active or repair.unsettled_groups) and repair.pass_epoch > 0


def test_a_killed_chunk_server_is_read_around_and_rebuilt(cluster: Cluster) -> None:
    cluster.eventually(lambda status: len(status.disks) == 3)
    slices = cluster.written(20, 300_000)
    session = cluster.metadata.run(BeginSession(600 * 10**9)).value
    ino = cluster.metadata.run(Create(ROOT, b"file", 0o644, access=READ | WRITE), session=session).ino
    cluster.metadata.run(Write(ino, tuple(slices)), session=session)
    cluster.metadata.end_session(session)
    cluster.eventually(settled)
    assert Tree(cluster.metadata).stat(b"/file").attr.size_bytes == 6_000_000
    looked_at(cluster, slices)
    cluster.kill_server(1)
    cluster.readable(slices)  # at once: nobody has said yet that it is gone
    more = cluster.written(5, 100_000)
    cluster.leader().kill()  # the care goes on elsewhere
    cluster.eventually(lambda status: [one.disk.health for one in status.disks] == ["up", "out", "up"])
    status = cluster.eventually(lambda status: settled(status) and status.repair.exposure == {1: 25})
    assert status.repair.rebuilt_shards + status.repair.copied_shards > 0 and not status.trouble
    cluster.readable([*slices, *more])
    told = cluster.command("status", code=3)
    assert [one["disk"]["health"] for one in told["cluster"]["disks"]] == ["up", "out", "up"]


def looked_at(cluster: Cluster, slices: list[Slice]) -> None:
    """Ask the commands about a cluster that is well."""
    assert cluster.command("status")["leader"] == cluster.leader().address
    listed = cluster.command("disks")["disks"]
    assert [(one["disk"]["host"], one["shards"] > 0) for one in listed] == [("h0", True), ("h1", True), ("h2", True)]
    explained = cluster.command("explain", "/file")["slices"]
    assert [one["slice"]["id"] for one in explained] == [data.id for data in slices]
    assert {shard["state"] for one in explained for shard in one["shards"]} == {"in place"}
    (one,) = cluster.command("explain", "--slice", str(slices[3].id))["slices"]
    assert one == explained[3]
    (form,) = cluster.command("what-if", "--lose-disk", "0")["forms"]
    assert (form["code"], form["bytes"], form["lost_bytes"]) == ("2", 6_000_000, 0)
    assert 0 < form["moved_bytes"] <= 6_000_000
    (form,) = cluster.command("what-if", "--lose-host", "h0", "--lose-host", "h1", code=3)["forms"]
    assert form["lost_bytes"] > 0
    assert cluster.command("repair", "--pause")["paused"] is True
    killed = cluster.leader()
    killed.kill()
    assert cluster.command("repair")["paused"] is True, "whoever leads next pauses, too"
    killed.start()
    assert cluster.command("repair", "--resume")["paused"] is False
    assert cluster.command("rebalance", "--dry-run")["pools"][0]["slots"] > 0
    assert cluster.command("maintenance", "2", "--minutes", "5")["disks"] == [2]
    cluster.eventually(lambda status: status.disks[2].disk.spared_until_ns > 0)
    cluster.command("maintenance", "--host", "h2", "--undo")
    drained(cluster)


def drained(cluster: Cluster) -> None:
    """Empty a disk, and use it again."""
    assert cluster.command("drain", "2")["draining"] is True
    cluster.eventually(lambda status: settled(status) and status.disks[2].shards == 0)
    assert cluster.command("what-if", "--lose-host", "h2")["forms"][0]["moved_bytes"] == 0
    cluster.command("drain", "2", "--undo")
    cluster.eventually(lambda status: settled(status) and status.disks[2].shards > 0)
    cluster.command("rebalance")
    cluster.eventually(settled)
