"""A cluster of real processes on loopback: etcd servers, masters, chunk servers of one disk each, a metalogger."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import InterruptedRunError, NotFoundError, StokerError
from stoker.core.units import MiB
from stoker.fs.care.maps import MapSource
from stoker.fs.care.messages import CARE_OF, CareOf, CareStatus
from stoker.fs.care.opening import open_cluster
from stoker.fs.chunk.disk_process import DiskTask
from stoker.fs.chunk.reporting import Place
from stoker.fs.client import Client, FileTree
from stoker.fs.client.options import ClientOptions
from stoker.fs.demo.children import Child, command
from stoker.fs.journal.servers import EtcdServers, free_ports
from stoker.fs.master.remote import RemoteMetadata, ask_status
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import MakeClass, SetClass
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.storage_class import StorageClass, coded

START_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.05
_DISK_PROGRAM: Final = ("-P", "-m", "stoker.fs.chunk.disk_process")
_LOOPBACK: Final = "127.0.0.1"
TWO_COPIES: Final = "copies"
EIGHT_AND_FOUR: Final = "8+4"


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are of each, and when care gives up a silent disk. Classes need as many disks as they are wide.

    `master_hosts` and `disk_hosts` are addresses of this machine to listen on, one for each, instead of loopback.
    """

    disks: int = 12
    masters: int = 2
    metalogger: bool = True
    classes: tuple[StorageClass, ...] = (coded(TWO_COPIES, 1, 1), coded(EIGHT_AND_FOUR, 8, 4))
    down_after_seconds: float = 2.0
    out_after_seconds: float = 600.0
    master_hosts: tuple[str, ...] = ()
    disk_hosts: tuple[str, ...] = ()


_USUAL: Final = ClusterOptions()


class LoopbackCluster:
    """A cluster that lives in one folder until `close`, which leaves no process. For one thread, but for `care`."""

    def __init__(
        self, folder: Path, options: ClusterOptions = _USUAL, stop_wanted: Callable[[], bool] = lambda: False
    ) -> None:  # fmt: skip
        self.folder, self.options, self._stop_wanted = folder, options, stop_wanted
        self.token = secrets.token_urlsafe(24)
        self.token_file = folder / "token"
        self.name = "demo"
        self.volume = ""
        self.masters: dict[str, Child] = {}
        self.disks: list[Child] = []
        self.metalogger: Child | None = None
        self._metadata: RemoteMetadata | None = None
        self._held = ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    # -- the start

    def _start(self) -> None:
        """Start all: what takes long to come up is started first, and waited for last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.token_file.touch(mode=0o600, exist_ok=False)
        self.token_file.write_text(self.token)
        (self.folder / "etcd").mkdir()
        self.etcd = EtcdServers(self.folder / "etcd")
        self._held.callback(self.etcd.close)
        for number in range(self.options.disks):
            self.disks.append(self._spawn_disk(number))
        self.etcd.wait()
        with Volume.format(f"etcd://{self.etcd.addresses}/{self.name}", name=self.name, mode=0o1777) as made:
            self.volume = made.settings.uuid
            self._make_classes(made)  # before masters lead: they look for new ones every few seconds only
        hosts = self.options.master_hosts or (_LOOPBACK,) * self.options.masters
        addresses = [f"{host}:{port}" for host, port in zip(hosts, free_ports(len(hosts)), strict=True)]
        self.masters.update((address, self._spawn_master(address)) for address in addresses)
        for number in range(self.options.disks):
            self.disks[number].tell(self._task(number))
        if self.options.metalogger:
            self.metalogger = self._spawn_metalogger()
        self._await_whole()

    def _make_classes(self, volume: Volume) -> None:
        numbers = {one.name: volume.run(MakeClass(one)).value for one in self.options.classes}
        if TWO_COPIES in numbers:
            volume.run(SetClass(ROOT, numbers[TWO_COPIES]))

    def _await_whole(self) -> None:
        """Wait for every process, and for a map in which all disks and classes stand."""
        until = time.monotonic() + START_SECONDS
        for child in self.children():
            child.ready(until, self._stop_wanted)
        self._metadata = RemoteMetadata(list(self.masters), token=self.token)
        self.wait_until(self._is_whole, until - time.monotonic(), "disks are not in the map")

    def _is_whole(self) -> bool:
        try:
            cluster = MapSource(self.metadata)()
        except NotFoundError:
            return False
        up = sum(disk.health == "up" for disk in cluster.disks)
        widths = {pool.width for pool in cluster.pools}
        wanted = {one.k + one.m for one in self.options.classes}
        return up == self.options.disks and wanted <= widths

    def wait_until(self, holds: Callable[[], bool], seconds: float, otherwise: str) -> float:
        """Wait until something holds; return how many seconds it took. Raises StokerError when it does not in time."""
        began = time.monotonic()
        while True:
            with suppress(StokerError):  # who is asked may have been killed: it is asked again
                if holds():
                    return time.monotonic() - began
            if self._stop_wanted():
                raise InterruptedRunError("demo was stopped")
            if time.monotonic() > began + seconds:
                raise StokerError(otherwise, expected=f"within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _spawn(self, name: str, *words: str) -> Child:
        child = Child(name, command("fs", *words), self.folder / f"{name}.log", token=self.token)
        self._held.callback(child.close)
        return child

    def _spawn_disk(self, number: int) -> Child:
        (self.folder / f"disk{number}").mkdir(exist_ok=True)
        child = Child(f"disk{number}", _DISK_PROGRAM, self.folder / f"disk{number}.log")
        self._held.callback(child.close)
        return child

    def _task(self, number: int) -> bytes:
        hosts = self.options.disk_hosts or (_LOOPBACK,) * self.options.disks
        task = DiskTask(
            folder=str(self.folder / f"disk{number}"), host=hosts[number], port=0, volume=self.volume, token=self.token,
            masters=tuple(self.masters), reserve_bytes=1 * MiB, workers=4, place=Place(f"host{number}", "", "", ""),
        )  # fmt: skip
        return msgspec.json.encode(task) + b"\n"

    def _spawn_master(self, address: str) -> Child:
        name = f"master-{address.rpartition(':')[2]}"
        return self._spawn(
            name, "master", "--etcd", self.etcd.addresses, "--volume", self.name, "--state", str(self.folder / name),
            "--snapshots", f"file://{self.folder}/snapshots", "--listen", address, "--json",
            "--down-after", f"{self.options.down_after_seconds:g}",
            "--out-after", f"{self.options.out_after_seconds:g}",
        )  # fmt: skip

    def _spawn_metalogger(self) -> Child:
        return self._spawn(
            "metalogger", "metalogger", "--etcd", self.etcd.addresses, "--volume", self.name,
            "--state", str(self.folder / "metalogger"), "--archive", f"file://{self.folder}/archive", "--json",
        )  # fmt: skip

    # -- what it is

    @property
    def metadata(self) -> RemoteMetadata:
        """Return a connection to the masters."""
        assert self._metadata is not None
        return self._metadata

    @property
    def url(self) -> str:
        """Return the volume's URL."""
        return f"master://{','.join(self.masters)}/{self.name}"

    def children(self) -> list[Child]:
        """Return our processes, but those of etcd."""
        others = [self.metalogger] if self.metalogger is not None else []
        return [*self.masters.values(), *self.disks, *others]

    def care(self) -> CareStatus:
        """Ask the leading master how the cluster is. Raises UnavailableError."""
        return self.metadata.converse(CARE_OF, CareOf())

    def leader(self) -> str:
        """Return the address of the master that leads, empty while none does."""
        for address, child in self.masters.items():
            with suppress(StokerError):
                if child.runs and ask_status(address, token=self.token).role == "leads":
                    return address
        return ""

    @contextmanager
    def tree(self, options: ClientOptions | None = None) -> Iterator[FileTree]:
        """Give the volume's files through connections of their own, which know nothing yet."""
        with ExitStack() as held:
            metadata = held.enter_context(RemoteMetadata(list(self.masters), token=self.token))
            store = open_cluster(metadata, token=self.token)
            held.callback(store.close)
            client = held.enter_context(Client(metadata, store, options or ClientOptions()))
            yield FileTree(client)

    # -- bad days

    def kill_master(self, address: str) -> None:
        """Kill a master."""
        self.masters[address].kill()

    def start_master(self, address: str) -> None:
        """Start a master again, over what it has."""
        self.masters[address] = self._spawn_master(address)
        self.masters[address].ready(time.monotonic() + START_SECONDS, self._stop_wanted)

    def kill_disk(self, number: int) -> None:
        """Kill a chunk server."""
        self.disks[number].kill()

    def kill_everything(self) -> None:
        """Kill masters, chunk servers and the metalogger, all before any is waited for; etcd stays."""
        for child in self.children():
            with suppress(ProcessLookupError):
                child.process.kill()
        for child in self.children():
            child.kill()

    def start_disks(self, numbers: list[int]) -> None:
        """Start chunk servers again over what they have, and wait until they are in the map."""
        self._respawn_disks(numbers)
        self.wait_until(self._is_whole, START_SECONDS, "disks did not come back")

    def _respawn_disks(self, numbers: list[int]) -> None:
        for number in numbers:
            self.disks[number] = self._spawn_disk(number)
            self.disks[number].tell(self._task(number))
        until = time.monotonic() + START_SECONDS
        for number in numbers:
            self.disks[number].ready(until, self._stop_wanted)

    def start_everything(self) -> None:
        """Start what `kill_everything` killed, over what it has."""
        self.masters.update({address: self._spawn_master(address) for address in self.masters})
        self._respawn_disks(list(range(self.options.disks)))
        for child in self.masters.values():
            child.ready(time.monotonic() + START_SECONDS, self._stop_wanted)
        self.wait_until(self._is_whole, START_SECONDS, "disks did not come back")

    def close(self) -> None:
        """End everything: clients' connections, chunk servers, masters, etcd. Closing twice is harmless."""
        if self._metadata is not None:
            self._metadata.close()
        for child in self.children():
            child.ask_to_end()
        with ThreadPoolExecutor(max(1, len(self.children()))) as pool:
            list(pool.map(Child.close, self.children()))
        self._held.close()

    def __enter__(self) -> "LoopbackCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
