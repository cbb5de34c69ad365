"""The promises that the simulated cluster is held against."""

import errno
from typing import Any

from fs_cluster_clients import BLOCK_BYTES, BLOCKS_MAX, OPTIONS, File, check_content, listed
from fs_cluster_fibers import MS, SECOND, FiberLanes, Process

from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.client.client import Client
from stoker.fs.cluster.placing import Places
from stoker.fs.disk.interface import ShardId
from stoker.fs.journal.entries import Transaction
from stoker.fs.journal.member import Role
from stoker.fs.master.remote import RemoteMetadata
from stoker.fs.meta import fsck
from stoker.fs.meta.calls import READ, Lookup
from stoker.fs.meta.cluster_map import unpack_map_row
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.keys import CLUSTER_MAP, number_in
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import Shape
from stoker.fs.place import ClusterMap
from stoker.fs.place.map import unpack_map

FSCK_EVERY_NS = 4 * SECOND


class Checks:
    """Sees all there is, as no part of the cluster does."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.records: dict[int, bytes] = {}
        self.map_epoch = 0
        self.map: ClusterMap | None = None
        self._epochs: dict[int, int] = {}
        self._looked_ns = 0
        self._whole_since = 0

    # -- at each event

    def each_event(self) -> None:
        """Hold what is cheap to see."""
        now_ns = self.world.loop.now_ns
        masters = self.world.masters
        first, second = masters
        if first.core.member.role is second.core.member.role is Role.LEADING:
            valid = [one.name for one in masters if one.process.alive and one.core.member.valid(now_ns)]
            assert len(valid) <= 1, f"{valid} count their reads as fresh at once"
        if now_ns - self._looked_ns >= FSCK_EVERY_NS:
            self._looked_ns = now_ns
            for master in masters:
                if master.process.alive and master.core.member.number:
                    faults = fsck(master.core.copy)
                    assert faults == [], faults
            self._maps_go_on()

    def _maps_go_on(self) -> None:
        for owner in (*self.world.users, *self.world.masters, self.world.collector):
            maps = owner.maps
            known = maps.known if maps is not None else None
            if known is not None:
                assert known.epoch >= self._epochs.get(id(maps), 0), "a map is older than the one known before"
                assert known.epoch <= self.map_epoch, "a map is known that was never put"
                self._epochs[id(maps)] = known.epoch

    def applied(self, done: Transaction, writes: dict[bytes, bytes | None]) -> None:
        """Take a transaction that a master has applied: all apply the same, in the same order."""
        before = self.records.setdefault(done.revision, done.record)
        assert before == done.record, f"two masters hold different transactions for revision {done.revision}"
        if done.revision != len(self.records) or getattr(self, "_newest", 0) >= done.revision:
            return
        self._newest = done.revision
        self.world.note(f"revision {done.revision}: {len(writes)} writes")
        for key, value in writes.items():
            if key[:1] == b"r":
                self._referred(number_in(key), key, value)
            elif key == CLUSTER_MAP:
                self._mapped(value)

    def _mapped(self, value: bytes | None) -> None:
        assert value is not None
        epoch, data = unpack_map_row(value)
        assert epoch > self.map_epoch, f"map of epoch {epoch} is put over that of {self.map_epoch}"
        self.map_epoch, self.map = epoch, unpack_map(data)
        told = [
            f"{d.id}:{d.health}{'-' if d.draining else ''}" for d in self.map.disks if d.health != "up" or d.draining
        ]
        self.world.note(f"map {epoch}: {len(self.map.disks)} disks, {' '.join(told)}")

    def _referred(self, slice_id: int, key: bytes, value: bytes | None) -> None:
        new = slice_id not in self.world.references and value is not None
        self.world.reference(key, slice_id, value)
        if new:
            data = self.world.references[slice_id]
            there, needed = len(self.indexes(data, durable=True)), self.shape(data).needed
            lost = self.world.destroyed[slice_id]
            assert there + lost >= needed, f"slice {slice_id} is shown with {there} durable shards of {needed} promised"

    # -- shards

    def shape(self, data: Slice) -> Shape:
        """Return the shards that a slice has."""
        found: Shape = self.world.classes[data.storage_class].shape(data.size_bytes)
        return found

    def indexes(self, data: Slice, *, durable: bool = False, without: Any = None) -> set[int]:
        """Return which of a slice's shards are sound somewhere."""
        found = set()
        for index in range(self.shape(data).width):
            shard = ShardId(data.id, data.generation, index)
            for server in self.world.servers.values():
                kept = server.disk.kept.get(shard)
                if kept is not None and kept.sound and (kept.durable or not durable) and kept is not without:
                    found.add(index)
                    break
        return found

    def changed(self, shard: ShardId) -> None:
        """See Witness: what is shown can be read."""
        data = self.world.references.get(shard.slice_id)
        if data is not None:
            there = len(self.indexes(data))
            assert there >= self.shape(data).k, f"slice {data.id} has {there} shards left and cannot be read"

    def removing(self, shard: ShardId, source: str) -> None:
        """See Witness: garbage is what nobody shows."""
        if source == "gc":
            assert shard.slice_id not in self.world.references, f"{shard} is shown, and {source} removes it"
        self.world.note(f"{source} removes {shard}")

    # -- when all is calm

    def missing_to_whole(self) -> str:
        """Say what is not as it should be yet, empty when all is: leader, map, every shard where it belongs."""
        world = self.world
        leaders = [one for one in world.masters if one.core.member.valid(world.loop.now_ns)]
        if not leaders or self.map is None:
            return "nobody leads, or there is no map"
        by_name = {disk.uuid: disk for disk in self.map.disks}
        for server in world.servers.values():
            disk = by_name.get(server.disk.uuid)
            if disk is None or disk.health != "up" or disk.draining or disk.full or disk.read_only:
                return f"{server.process.name} is {disk}"
        places = Places(self.map, lambda number: world.classes[number])
        servers = {server.disk.uuid: server for server in world.servers.values()}
        for data in world.references.values():
            for index, number in enumerate(places.of(data).row):
                disk = self.map.by_id.get(number)
                server = servers.get(disk.uuid) if disk is not None else None
                kept = server.disk.kept.get(ShardId(data.id, data.generation, index)) if server else None
                if kept is None or not kept.sound:
                    return f"shard {index} of slice {data.id} is not where it belongs, disk {number}"
        moving = sum(len(pool.before) for pool in self.map.pools)
        return f"{moving} groups have not settled" if moving else ""

    def missing_to_tidy(self) -> str:
        """Say what is left over, empty when nothing is: shards of slices that nobody shows."""
        world = self.world
        left = {
            shard.slice_id for server in world.servers.values() for shard in server.disk.kept
            if shard.slice_id not in world.references
        }  # fmt: skip
        if left:
            return f"slices {sorted(left)[:10]} are garbage and still there"
        return self.missing_to_whole()

    # -- at the end

    def final(self) -> None:
        """All copies are the same, and hold what was acknowledged; every byte reads."""
        world = self.world
        self._wait_for_equal()
        contents = []
        for master in world.masters:
            with master.core.copy.snapshot() as snapshot:
                contents.append((master.core.member.number, snapshot.revision, snapshot.scan(b"")))
        assert all(one == contents[0] for one in contents), [one[:2] for one in contents]
        faults = fsck(world.masters[0].core.copy)
        assert faults == [], faults
        for key, value in sorted(dict(contents[0][2]).items()):
            world.digest.update(key + value)
        reader = Process("reader")
        fiber = world.loop.spawn(reader, lambda: self._read_all(reader))
        for _ in range(30):
            world.loop.run(world.loop.now_ns + (0 if fiber.done() else SECOND))
        assert fiber.done(), "the last reader does not come to an end"
        fiber.result()

    def _wait_for_equal(self) -> None:
        """Let standbys come to where the leader is, at a moment when nothing is under way."""
        for _ in range(2000):
            if len({one.core.member.number for one in self.world.masters}) == 1:
                return
            self.world.loop.run(self.world.loop.now_ns + 5 * MS)

    def _read_all(self, process: Process) -> None:
        metadata = RemoteMetadata([one.name for one in self.world.masters])
        maps = MapSource(metadata)
        maps.refresh()
        lanes = FiberLanes(self.world.loop, process)
        store = self.world.store_for(process, maps, ClassesByNumber(metadata), lanes)
        sleep = self.world.loop.sleep
        client = Client(
            metadata, store, OPTIONS, threads=False, clock=self.world.wall_ns, pause=lambda s: sleep(int(s * 1e9))
        )  # fmt: skip
        for user in self.world.users:
            folder = self.world.folders.get(user.process.name)
            if folder is None:
                continue
            names = listed(client, folder)
            for file in user.files:
                self._read_one(client, folder, file, names)
            known = {name for file in user.files for name in (file.name, *file.other_names)}
            assert names <= known, f"names that nobody made: {names - known}"

    def _read_one(self, client: Client, folder: int, file: File, names: set[bytes]) -> None:
        there = [name for name in (file.name, *file.other_names) if name in names]
        if file.state == "there":
            assert there == [file.name], f"file {file.number} {file.name!r} was acknowledged and is not there"
        elif file.state == "gone":
            assert not there, f"file {file.number} was removed and is there as {there}"
        assert len(there) <= 1, f"file {file.number} has the names {there}"
        for name in there:
            handle = client.open(client.ask(Lookup(folder, name)).ino, READ)
            try:
                data = bytes(handle.read(0, (BLOCKS_MAX + 8) * BLOCK_BYTES))
            except MetaError as error:
                raise AssertionError(
                    f"file {file.number} cannot be read: {errno.errorcode.get(error.errno)} {error}"
                ) from error
            handle.close()
            check_content(file, data, file.floors)
            self.world.count("files at the end")
