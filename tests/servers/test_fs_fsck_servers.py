"""`stoker fs fsck` of a volume that masters serve, over real processes with planted damage."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from benchmarks.fsfailover import MasterProcess
from chunk_servers import chunk_server

from stoker.core.errors import StokerError
from stoker.fs.care import open_cluster
from stoker.fs.disk.interface import ShardId
from stoker.fs.journal.servers import EtcdServers, etcd_program, free_ports
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import BeginSession, EndSession, Lookup, MakeClass, Mkdir, Peek, TakeSlices
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT, attr_key
from stoker.fs.meta.records import pack_attr, unpack_attr
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)"),
]


class Cluster:
    """An etcd, two masters, three disks, and files in two copies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disks = folder, [folder / f"disk{number}" for number in range(3)]
        with ExitStack() as held:
            self.etcd = held.enter_context(EtcdServers(folder / "etcd", members=1))
            self.place = f"etcd://{self.etcd.addresses}/volume"
            with Volume.format(self.place) as volume:
                uuid = volume.settings.uuid
                volume.run(MakeClass(StorageClass(0, "pair", 1, 1, domain="disk")))
            self.masters = [MasterProcess(self.etcd.addresses, "volume", folder, port) for port in free_ports(2)]
            for master in self.masters:
                held.callback(master.kill)
            self.start()
            self.addresses = [master.address for master in self.masters]
            self.url = f"master://{','.join(self.addresses)}/volume"
            held.enter_context(
                chunk_server(
                    self.disks,
                    "--volume",
                    uuid,
                    "--masters",
                    ",".join(self.addresses),
                    "--host-name",
                    "h",
                    "--scrub",
                    "0",
                )
            )
            told = lambda: json.loads(self.run("disks", "--masters", ",".join(self.addresses), "--json"))  # noqa: E731
            eventually(lambda: sum(one["disk"]["health"] == "up" for one in told()["disks"]) == 3)
            self.run("class", "set", self.url, "/", "pair")
            self._held = held.pop_all()

    def start(self) -> None:
        for master in self.masters:
            master.start()
        eventually(lambda: sorted(self.roles()) == ["follows", "leads"])

    def roles(self) -> list[str]:
        return [ask_status(master.address, token=None).role for master in self.masters]

    def run(self, *words: str, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("stoker")), "fs", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def fsck(self, *words: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("fsck", self.url, "--json", *words, code=code))
        return found

    def put(self, name: str, data: bytes) -> None:
        (self.folder / "local").write_bytes(data)
        self.run("put", self.url, str(self.folder / "local"), f"/{name}")

    def close(self) -> None:
        self._held.close()


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except StokerError as error:
            assert time.monotonic() < until, error
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("fsck"))
    yield made
    made.close()


def shards_of(store: Any, data: Slice) -> list[tuple[int, ShardId]]:
    found = store.look(data)[1].disks
    return [(disk, ShardId(data.id, data.generation, index)) for index, disks in found.items() for disk in disks]


def test_a_volume_in_use_is_sound_and_masters_go_on(cluster: Cluster) -> None:
    for number in range(3):
        cluster.put(f"f{number}", bytes([number]) * 2_000_000)
    stop, made = threading.Event(), []

    def work() -> None:
        with RemoteMetadata(cluster.addresses) as metadata:
            while not stop.is_set():
                metadata.run(Mkdir(ROOT, b"d%05d" % len(made), 0o755))
                made.append(time.monotonic())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        told = cluster.fsck("--deep")
    finally:
        stop.set()
        worker.join()
    assert told["sound"]
    assert told["cluster"]["slices"] == 3
    assert told["cluster"]["bytes"] == 6_000_000
    assert len(made) > 20
    assert max(b - a for a, b in itertools.pairwise(made)) < 2, "nobody waited for it"
    leads = next(master.address for master in cluster.masters if ask_status(master.address, token=None).role == "leads")
    assert told["master"] != leads, "the one that stands by was asked"


def test_lost_slices_orphans_and_damaged_shards_are_named(cluster: Cluster) -> None:
    cluster.put("lost", b"l" * 2_000_000)
    cluster.put("damaged", b"d" * 2_000_000)
    with RemoteMetadata(cluster.addresses) as metadata:
        store = open_cluster(metadata)
        try:
            slices = {}
            for name in (b"lost", b"damaged"):
                ino = metadata.run(Lookup(ROOT, name)).ino
                slices[name] = metadata.run(Peek(ino)).shown[0].extent.slice
            for disk, shard in shards_of(store, slices[b"lost"]):
                store.targets(disk).remove([shard])
            session = metadata.run(BeginSession(10**12)).value
            first = metadata.run(TakeSlices(1), session=session).value
            store.write(Slice(first, 1, 5000, 0), [bytes(5000)], durable=True)
            metadata.run(EndSession(session))
        finally:
            store.close()
    damage(cluster.disks, b"d" * 1000)
    told = cluster.fsck("--bytes", code=3)
    lost = slices[b"lost"]
    assert [fault["where"] for fault in told["faults"]] == [f"slice {lost.id}.{lost.generation} of /lost"]
    assert told["cluster"]["orphans"] == 1
    assert told["cluster"]["orphan_bytes"] == 5000
    deep = cluster.fsck("--deep", code=3)["faults"]
    assert sorted(fault["rule"] for fault in deep) == [
        "shards are those that were stored", "slices that files show are on disks",
    ]  # fmt: skip
    assert any(fault["where"].endswith("of /damaged") for fault in deep)
    assert "1 orphans" in cluster.run("fsck", cluster.url, "--bytes", code=3)


def damage(disks: list[Path], seen: bytes) -> None:
    """Change a byte of one shard that lies in a file of its own and holds these bytes."""
    for disk in disks:
        for path in disk.rglob("*.shard"):
            held = path.read_bytes()
            if seen in held:
                place = held.index(seen) + 500
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(b"?")
                return
    raise AssertionError("no such shard")


def test_a_row_that_is_wrong_is_found(cluster: Cluster) -> None:
    for master in cluster.masters:
        master.kill()
    engine = open_engine(cluster.place)
    try:
        attr = unpack_attr(engine.get(attr_key(ROOT)) or b"")
        attr.nlink += 5
        engine.txn(None, {attr_key(ROOT): pack_attr(attr)})
    finally:
        engine.close()
    cluster.start()
    told = cluster.fsck(code=3)
    assert [fault["rule"] for fault in told["faults"]] == ["links are counted"]
    assert told["inodes"] is None
