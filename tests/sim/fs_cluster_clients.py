"""Clients of the simulated cluster: the real client, driven by a fiber, and what it may find.

Each file is written by one client and read by all. Every block of it carries a stamp: which file, which block, and
which writing. A writing that was acknowledged is a floor: nobody who opens the file behind it may find an older one.
"""

import errno
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fs_cluster_fibers import MS, SECOND, FiberLanes, Process

from stoker.core.errors import StokerError
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.client.client import Client
from stoker.fs.client.garbage import Removed, collect_garbage
from stoker.fs.client.options import ClientOptions
from stoker.fs.master.remote import RemoteMetadata
from stoker.fs.meta.calls import READ, WRITE, Create, GetMap, Lookup, Mkdir, Put, PutMap, ReadDir, Rename, SetClass
from stoker.fs.meta.calls import Unlink as UnlinkName
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.keys import ROOT
from stoker.fs.place.changing import with_disks
from stoker.fs.place.map import pack_map, unpack_map

BLOCK_BYTES = 4096
BLOCKS_MAX = 10
GRACE_SECONDS = 4.0
_STAMP = struct.Struct(">4sIII")
OPTIONS = ClientOptions(
    session_seconds=8.0, slice_numbers=8, flush_seconds=1.0, threads=1, attempts=4, pause_seconds=0.05,
    attribute_seconds=0.3, cache_bytes=64 << 10, block_bytes=8192, readahead_bytes=0,
)  # fmt: skip


def block_of(file: int, block: int, writing: int) -> bytes:
    """Return the bytes of a block."""
    return _STAMP.pack(b"blk:", file, block, writing) * (BLOCK_BYTES // _STAMP.size)


@dataclass
class File:
    """A file as the world knows it: which writings each block may show."""

    number: int
    owner: str
    name: bytes
    state: str = "maybe"  # there, maybe, gone
    writing: int = 0
    blocks: int = 0
    tried: dict[int, list[int]] = field(default_factory=dict)
    floors: dict[int, int] = field(default_factory=dict)
    other_names: list[bytes] = field(default_factory=list)

    def attempt(self, blocks: list[int]) -> int:
        """Note that blocks are being written; return the number of the writing."""
        self.writing += 1
        for block in blocks:
            self.tried.setdefault(block, []).append(self.writing)
        self.blocks = max(self.blocks, max(blocks) + 1)
        return self.writing

    def acknowledge(self, blocks: list[int], writing: int) -> None:
        """Note that a writing was acknowledged."""
        for block in blocks:
            self.floors[block] = max(self.floors.get(block, 0), writing)


def check_content(file: File, data: bytes, floors: dict[int, int]) -> None:
    """Hold what was read against what may be there: `floors` are from before it was opened."""
    for block in range(max(file.blocks, -(-len(data) // BLOCK_BYTES))):
        got = data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        floor = floors.get(block, 0)
        where = f"file {file.number} block {block}"
        if not got or got == bytes(len(got)):
            assert not floor, f"{where}: acknowledged writing {floor} is not there, {len(got)} bytes of zeros"
            continue
        assert len(got) == BLOCK_BYTES, f"{where} has {len(got)} bytes"
        mark, number, place, writing = _STAMP.unpack_from(got)
        assert mark == b"blk:" and got == got[: _STAMP.size] * (BLOCK_BYTES // _STAMP.size), f"{where} is torn"
        assert (number, place) == (file.number, block), f"{where} shows block {place} of file {number}"
        assert writing in file.tried.get(block, ()), f"{where} shows writing {writing} that never was"
        assert writing >= floor, f"{where} shows writing {writing}, behind it {floor} was acknowledged"


class User:
    """A client process: crashes, begins anew, and works on its files and those of others."""

    def __init__(self, world: Any, process: Process, storage_class: int) -> None:
        self.world = world
        self.loop = world.loop
        self.process = process
        self.storage_class = storage_class
        self.files: list[File] = []
        self.maps: MapSource | None = None
        self.finished_ops = 0
        self.begin()

    def begin(self) -> None:
        """Begin a life."""
        self.world.actor(self.process, self.live)

    # -- its life

    def opened(self) -> tuple[RemoteMetadata, Any]:
        """Return the metadata and the store, once the cluster has a map."""
        while True:
            try:
                metadata = RemoteMetadata([m.name for m in self.world.masters], patience_seconds=3.0)
                metadata._secret = self.process.name.encode().ljust(16, b"-")
                self.maps = MapSource(metadata)
                if self.maps.refresh() is not None:
                    break
            except StokerError:
                pass
            self.loop.sleep(200 * MS)
        self.world.actor(self.process, self._keep_fresh)
        lanes = FiberLanes(self.loop, self.process)
        return metadata, self.world.store_for(self.process, self.maps, ClassesByNumber(metadata), lanes)

    def _keep_fresh(self) -> None:
        maps = self.maps
        assert maps is not None
        while True:
            self.loop.sleep(self.world.chance.randint(300 * MS, 700 * MS))
            with suppress(StokerError):
                maps.refresh()

    def live(self) -> None:
        """Work until the world wants no more."""
        metadata, store = self.opened()
        client = None
        while client is None:
            with suppress(StokerError):
                client = Client(metadata, store, OPTIONS, threads=False, clock=self.world.wall_ns, pause=self.pause)
        folder = self._folder(client)
        while not self.world.quiet:
            self.loop.sleep(self.world.chance.randint(5 * MS, 150 * MS) * (1 if self.world.faults else 6))
            client.tick()
            try:
                self._something(client, folder)
            except MetaError as error:
                self.world.count(f"errno {errno.errorcode.get(error.errno, error.errno)}")
            except StokerError as error:
                self.world.count(type(error).__name__)
            self.finished_ops += 1
        with suppress(StokerError):
            client.close()

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.sleep(int(seconds * 1e9))

    def _folder(self, client: Client) -> int:
        name = self.process.name.encode()
        while True:
            try:
                try:
                    ino = client.ask(Lookup(ROOT, name)).ino
                except MetaError:
                    ino = client.ask(Mkdir(ROOT, name, 0o755)).ino
                client.ask(SetClass(ino, self.storage_class))
                self.world.folders[self.process.name] = ino
                return ino
            except StokerError:
                self.loop.sleep(100 * MS)

    # -- what it does

    def _something(self, client: Client, folder: int) -> None:
        chance = self.world.chance
        roll = chance.random()
        mine = [file for file in self.files if file.state == "there"]
        if roll < 0.25 or not mine:
            self._make(client, folder)
        elif roll < 0.32:
            self._put(client, folder)
        elif roll < 0.55:
            self._overwrite(client, chance.choice(mine), folder)
        elif roll < 0.63 and len(mine) > 3:
            self._unlink(client, chance.choice(mine), folder)
        elif roll < 0.68:
            self._rename(client, chance.choice(mine), folder)
        elif roll < 0.72:
            self._hold(client)
        else:
            self._read(client)

    def _new_file(self) -> File:
        self.world.file_count += 1
        file = File(self.world.file_count, self.process.name, b"f%d" % self.world.file_count)
        self.files.append(file)
        return file

    def _some_blocks(self, most: int) -> list[int]:
        count = self.world.chance.choice([1, 1, 2, 5, most])
        return list(range(min(count, most)))

    def _make(self, client: Client, folder: int) -> None:
        file = self._new_file()
        try:
            _, handle = client.create(Create(folder, file.name, 0o644, exclusive=True, access=READ | WRITE))
        except MetaError as error:
            assert error.errno != errno.EEXIST, f"{file.name!r} was made twice"
            raise
        file.state = "there"
        self._write(file, handle, self._some_blocks(BLOCKS_MAX))

    def _write(self, file: File, handle: Any, blocks: list[int]) -> None:
        writing = file.attempt(blocks)
        try:
            for block in blocks:
                handle.write(block * BLOCK_BYTES, block_of(file.number, block, writing))
            if self.world.chance.random() < 0.5:
                handle.fsync()
                file.acknowledge(blocks, writing)
        except StokerError:
            with suppress(StokerError):
                handle.close()
            raise
        handle.close()
        file.acknowledge(blocks, writing)
        self.world.count("acknowledged writings")

    def _put(self, client: Client, folder: int) -> None:
        file = self._new_file()
        blocks = self._some_blocks(BLOCKS_MAX)
        writing = file.attempt(blocks)
        data = b"".join(block_of(file.number, block, writing) for block in blocks)
        client.put(Put(folder, file.name, 0o644, ()), [data])
        file.state = "there"
        file.acknowledge(blocks, writing)
        self.world.count("puts")

    def _overwrite(self, client: Client, file: File, folder: int) -> None:
        ino = client.ask(Lookup(folder, file.name)).ino
        handle = client.open(ino, READ | WRITE)
        start = self.world.chance.randint(0, max(file.blocks - 1, 0))
        self._write(file, handle, [start + block for block in self._some_blocks(4)])

    def _unlink(self, client: Client, file: File, folder: int) -> None:
        file.state = "maybe"
        client.ask(UnlinkName(folder, file.name))
        file.state = "gone"
        self.world.count("unlinked")

    def _rename(self, client: Client, file: File, folder: int) -> None:
        self.world.file_count += 1
        before, after = file.name, b"r%d" % self.world.file_count
        file.state = "maybe"
        file.other_names.append(after)
        client.ask(Rename(folder, before, folder, after))
        file.other_names.remove(after)
        file.name, file.state = after, "there"
        self.world.count("renamed")

    def _any_file(self) -> File | None:
        files = [file for user in self.world.users for file in user.files if file.state == "there"]
        return self.world.chance.choice(files) if files else None

    def _read(self, client: Client) -> None:
        file = self._any_file()
        if file is None:
            return
        floors, name = dict(file.floors), file.name
        try:
            handle = client.open(client.ask(Lookup(self.world.folders[file.owner], name)).ino, READ)
        except MetaError as error:
            stays = file.state == "there" and file.name == name
            assert error.errno != errno.ENOENT or not stays, f"file {file.number} is not there"
            raise
        try:
            data = bytes(handle.read(0, (BLOCKS_MAX + 8) * BLOCK_BYTES))
        finally:
            with suppress(StokerError):
                handle.close()
        check_content(file, data, floors)
        self.world.count("reads")

    def _hold(self, client: Client) -> None:
        """Open a file, and read it only after a while, whatever became of its name: the grace keeps its bytes."""
        file = self._any_file()
        if file is None:
            return
        floors = dict(file.floors)
        opened_ns = self.loop.now_ns
        handle = client.open(client.ask(Lookup(self.world.folders[file.owner], file.name)).ino, READ)
        try:
            self.loop.sleep(self.world.chance.randint(200, 1500) * MS)
            data = bytes(handle.read(0, (BLOCKS_MAX + 8) * BLOCK_BYTES))
        except MetaError as error:
            within = self.loop.now_ns - opened_ns < 0.5 * GRACE_SECONDS * SECOND
            lost = "no such slice" in str(error) and within
            assert not lost, f"file {file.number} was open and its bytes are gone: {error}"
            raise
        finally:
            with suppress(StokerError):
                handle.close()
        check_content(file, data, floors)
        self.world.count("held reads")


class Collector(User):
    """Collects garbage over and over."""

    grace_seconds = GRACE_SECONDS

    def live(self) -> None:
        """Work until the world's end."""
        metadata, store = self.opened()
        while True:
            self.loop.sleep(self.world.chance.randint(SECOND, 4 * SECOND))
            try:
                done = collect_garbage(
                    metadata, store, self.grace_seconds, now_ns=self.world.wall_ns(), tell=self._tell
                )  # fmt: skip
            except StokerError:
                self.world.count("collections refused")
            else:
                self.world.count("collections")
                self.world.count("collected", done.freed + done.lost)

    def _tell(self, removed: Removed) -> None:
        assert removed.slice.id not in self.world.references, f"{removed} is shown and would be removed"


class Operator(User):
    """Drains disks and takes that back, as who runs the cluster does."""

    def live(self) -> None:
        """Work until the world wants no more."""
        metadata, _ = self.opened()
        while self.world.faults:
            self.loop.sleep(self.world.chance.randint(SECOND, 5 * SECOND))
            with suppress(StokerError):
                self.turn(metadata)

    def turn(self, metadata: RemoteMetadata, *, only_back: bool = False) -> None:
        """Have a disk drained, or no longer."""
        if not only_back and not self.world.faults:
            return
        cluster = unpack_map(metadata.run(GetMap(0)).data)
        drained = [disk for disk in cluster.disks if disk.draining]
        some = drained or ([] if only_back else [self.world.chance.choice(cluster.disks)])
        if not some:
            return
        self.loop.sleep(self.world.chance.randint(MS, 400 * MS))
        made = with_disks(cluster, [msgspec.structs.replace(disk, draining=not disk.draining) for disk in some])
        metadata.run(PutMap(cluster.epoch, made.epoch, pack_map(made)))
        self.world.count("drained" if not drained else "taken back")


def listed(client: Client, folder: int) -> set[bytes]:
    """Return the names in a folder."""
    names: set[bytes] = set()
    after = b""
    while entries := client.ask(ReadDir(folder, after, 100)).entries:
        names |= {entry.name for entry in entries}
        after = entries[-1].name
    return names
