"""Many shards by one request, and requests that no thread waits for: damage, older servers, time, lost connections."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chunk_places import VOLUME, Served, cut_short, damage, header_of
from fs_cluster import CLASSES, content

from stoker.core.errors import CorruptError, NotFoundError, StokerError, TransientError, UnavailableError, UsageError
from stoker.fs.chunk import Target
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.many import cells_of
from stoker.fs.chunk.service import ChunkService
from stoker.fs.cluster import ClusterStore, ThreadLanes
from stoker.fs.disk import Disk, ShardId
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.interface import Found, Outcome, Wanted
from stoker.fs.meta.slices import Slice
from stoker.fs.place import Disk as MapDisk
from stoker.fs.place import new_map
from stoker.fs.store.interface import SliceRange
from stoker.fs.wire import Connection, RpcServer
from stoker.fs.wire.keys import client_tls, server_tls
from stoker.fs.wire.messages import pack, unpack
from wire_certificates import Authority


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "disk") as started:
        yield started


def stored(served: Served, sizes: Sequence[int], first: int = 1) -> dict[ShardId, bytes]:
    """Shards of these sizes, small and large, on the disk."""
    shards = {ShardId(number, 1, 0): os.urandom(size) for number, size in enumerate(sizes, first)}
    for shard, data in shards.items():
        served.target.put(header_of(shard, data), [data], durable=True)
    return shards


def whole(shards: dict[ShardId, bytes]) -> list[Wanted]:
    return [Wanted(shard, [(0, len(data))], True, -(-len(data) // 4096) * 4096) for shard, data in shards.items()]


def begun(target: Target, wanted: Sequence[Wanted]) -> list[Outcome]:
    """Ask without a thread that waits, as a cluster's client does."""
    request = target.begin_get_many(wanted)
    assert request is not None
    until = time.monotonic() + 20
    while not request.done():
        assert time.monotonic() < until
        time.sleep(0.001)
    return request.again() if request.lost else request.result()


ASKING: list[Callable[[Target, Sequence[Wanted]], list[Outcome]]] = [Target.get_many, begun]


def parts(outcome: Outcome) -> list[bytes]:
    assert isinstance(outcome, Found), outcome
    return [bytes(part) for part in outcome.parts]


@pytest.mark.parametrize("ask", ASKING)
def test_a_damaged_shard_among_sound_ones_is_told_and_the_others_are_given(
    served: Served, ask: Callable[..., list[Outcome]]
) -> None:
    shards = stored(served, [20_000, 3 << 20, 20_001, 9_000, 100_000, 5])
    names, datas = list(shards), list(shards.values())
    damage(served.folder, datas[0], 9_000)
    damage(served.folder, datas[4], 70_000)
    cut_short(served.folder, datas[1], 1 << 20)
    wanted = [*whole(shards), Wanted(ShardId(99, 1, 0), [(0, 1)], room_bytes=4096)]
    wanted.append(Wanted(names[3], [(8_999, 2)], room_bytes=4096))
    wanted.append(Wanted(names[0], [(0, 4096), (13_000, 10)], room_bytes=8192))
    found = ask(served.target, wanted)
    assert [type(one) for one in found] == [
        CorruptError, CorruptError, Found, Found, CorruptError, Found, NotFoundError, UsageError, Found,
    ]  # fmt: skip
    assert "1.1.0" in str(found[0]) and "cell 2" in str(found[0]) and "99.1.0" in str(found[6])
    assert [parts(found[at]) for at in (2, 3, 5)] == [[datas[2]], [datas[3]], [datas[5]]]
    assert parts(found[8]) == [datas[0][:4096], datas[0][13_000:13_010]]  # its sound cells
    assert served.target.status().bad_shards == 3


@pytest.mark.parametrize("ask", ASKING)
def test_one_shard_is_asked_for_by_itself(served: Served, ask: Callable[..., list[Outcome]]) -> None:
    shards = stored(served, [20_000, 3 << 20])
    for one, data in zip(whole(shards), shards.values(), strict=True):
        found = ask(served.target, [one])[0]
        assert isinstance(found, Found) and found.header is not None and parts(found) == [data]
        assert found.header == msgspec.structs.replace(served.disk.header(one.shard), volume="", crcs=b"")


def test_more_than_one_answer_holds_comes_in_several(served: Served) -> None:
    data = os.urandom(3000)
    shards = {ShardId(number, 1, 0): data for number in range(ops.GET_MANY_SHARDS_MAX + 40)}
    for shard in shards:
        served.disk.put(header_of(shard, data), [data], durable=False)
    assert [parts(one) for one in served.target.get_many(whole(shards))] == [[data]] * len(shards)
    assert served.target.get_many([]) == []
    large = stored(served, [3 << 20] * 4, first=1000)
    assert [parts(one) for one in served.target.get_many(whole(large))] == [[data] for data in large.values()]


def test_what_finds_no_room_in_the_answer_is_asked_for_by_itself(served: Served) -> None:
    shards = stored(served, [300_000, 200_000, 300_000])
    wanted = [one._replace(room_bytes=170_000) for one in whole(shards)]
    for ask in ASKING:
        assert [parts(one) for one in ask(served.target, wanted)] == [[data] for data in shards.values()]


def test_too_many_at_once_are_refused(served: Served) -> None:
    one = ops.Get(ShardId(1, 1, 0), [(0, 1)])
    with Connection(served.address) as connection:
        for many in ([one] * (ops.GET_MANY_SHARDS_MAX + 1), [ops.Get(one.shard, [(0, 1)] * 600)] * 2):
            with pytest.raises(UsageError, match="too much is asked for at once"):
                connection.call(ops.GET_MANY, ops.GetMany(many))


@pytest.mark.parametrize("ask", ASKING)
def test_damage_on_the_way_is_asked_for_again(
    served: Served, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., list[Outcome]]
) -> None:
    shards = stored(served, [20_000, 20_000])
    real, spoiled = Connection._settle, []

    def settle(connection: Connection, number: int, head: Any, buffer: memoryview) -> None:
        if len(buffer) >= 40_000 and not spoiled:
            spoiled.append(1)
            buffer[-5] ^= 1
        real(connection, number, head, buffer)

    monkeypatch.setattr(Connection, "_settle", settle)
    assert [parts(one) for one in ask(served.target, whole(shards))] == [[data] for data in shards.values()]
    assert spoiled and served.target.status().bad_shards == 0


def test_under_tls_it_is_the_same(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    with Disk.make(tmp_path / "disk", VOLUME) as disk:
        service = ChunkService(disk, Fence(lambda: 0.0, active=False), Target, lambda pace: None)
        shards = {ShardId(number, 1, 0): os.urandom(50_000 * number) for number in range(1, 30)}
        with (
            RpcServer(service.handlers(), tls=server_tls(*authority.issue("server"))) as server,
            Target(f"127.0.0.1:{server.address[1]}", tls=client_tls(authority.path)) as target,
        ):
            for shard, data in shards.items():
                target.put(header_of(shard, data), [data], durable=False)
            assert [parts(one) for one in target.get_many(whole(shards))] == [[data] for data in shards.values()]


# -- older and hostile servers


def as_before(service: ChunkService) -> dict[Any, Any]:
    """The handlers of a server that neither knows GET_MANY nor tells of headers with the cells."""
    handlers = dict(service.handlers())
    get = handlers.pop(ops.GET)
    del handlers[ops.GET_MANY]

    def plain(asked: ops.Get, payload: memoryview, asker: Any) -> Any:
        cells, spans = get(asked, payload, asker)
        return ops.Cells(cells.cell_bytes, cells.shard_bytes, cells.runs), spans

    return {**handlers, ops.GET: plain}


@pytest.mark.parametrize("ask", ASKING)
def test_older_servers_are_asked_one_by_one(tmp_path: Path, ask: Callable[..., list[Outcome]]) -> None:
    with Disk.make(tmp_path / "disk", VOLUME) as disk:
        service = ChunkService(disk, Fence(lambda: 0.0, active=False), Target, lambda pace: None)
        with RpcServer(as_before(service)) as server, Target(f"127.0.0.1:{server.address[1]}") as target:
            shards = {ShardId(number, 1, 0): os.urandom(5_000) for number in range(3)}
            for shard, data in shards.items():
                target.put(header_of(shard, data), [data], durable=False)
            found = ask(target, whole(shards))
            assert [parts(one) for one in found] == [[data] for data in shards.values()]
            headers = [one.header for one in found if isinstance(one, Found)]
            assert headers == [disk.header(shard) for shard in shards]
            assert [parts(one) for one in target.get_many(whole(shards))] == [[data] for data in shards.values()]


def test_what_is_told_with_the_cells_may_be_left_out() -> None:
    before = bytes.fromhex("83aa63656c6c5f6279746573cd1000ab73686172645f627974657302a472756e73919200c40401020304")
    assert unpack(before, ops.Cells) == ops.Cells(4096, 2, [(0, b"\1\2\3\4")])
    now = pack(cells_of(header_of(ShardId(1, 2, 3), b"ab"), [(0, b"\1\2\3\4")]))
    assert now == bytes.fromhex(
        "87aa63656c6c5f6279746573cd1000ab73686172645f627974657302a472756e73919200c40401020304"
        "ad73746f726167655f636c61737300a16b01a16d00ab736c6963655f627974657302"
    )
    older = msgspec.defstruct("Cells", [("cell_bytes", int), ("shard_bytes", int), ("runs", list[tuple[int, bytes]])])
    assert unpack(now, older).runs == [(0, b"\1\2\3\4")]  # type: ignore[attr-defined]
    assert pack(ops.GetMany([ops.Get(ShardId(1, 2, 3), [(4, 5)])])) == bytes.fromhex(
        "81a677616e7465649182a57368617264"
        "83a8736c6963655f696401aa67656e65726174696f6e02a5696e64657803a672616e67657391920405"
    )


@pytest.mark.parametrize("wrong", ["few", "nothing", "short", "long", "sizes", "runs", "header"])
def test_answers_about_many_that_lie_are_corrupt(wrong: str) -> None:
    data = os.urandom(8192)
    header = header_of(ShardId(1, 1, 0), data)
    cells = cells_of(header, [(0, header.crcs)])
    two = [ops.OneOfMany(cells), ops.OneOfMany(cells)]
    told = {
        "few": (two[:1], data), "nothing": ([two[0], ops.OneOfMany()], data), "short": (two, data),
        "long": (two, 2 * data + b"x"),
        "sizes": ([two[0], ops.OneOfMany(msgspec.structs.replace(cells, cell_bytes=0))], 2 * data),
        "runs": ([two[0], ops.OneOfMany(msgspec.structs.replace(cells, runs=[(1, header.crcs)]))], 2 * data),
        "header": ([two[0], ops.OneOfMany(ops.Cells(4096, 8192, [(0, header.crcs)]))], 2 * data),
    }[wrong]  # fmt: skip
    handlers = {ops.GET_MANY: lambda asked, payload, asker: (ops.ManyCells(told[0]), [told[1]])}
    wanted = [one._replace(room_bytes=10_000) for one in whole({ShardId(1, 1, 0): data, ShardId(2, 1, 0): data})]
    with RpcServer(handlers) as server, Target(f"127.0.0.1:{server.address[1]}") as target, pytest.raises(CorruptError):
        target.get_many(wanted)


# -- requests that no thread waits for


class Cluster:
    """Two copies on three disks behind sockets, and a store whose lanes count what they run."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.served = [stack.enter_context(Served(folder / f"d{number}")) for number in range(3)]
        self.targets: dict[int, Target] = {}
        for number, one in enumerate(self.served):
            self.targets[number] = stack.enter_context(Target(one.address, volume=VOLUME, within_seconds=2.0))
        self.map = new_map([MapDisk(number, 100, f"h{number}") for number in range(3)], CLASSES.values())
        self.lanes = Counted()
        self.store = ClusterStore(
            VOLUME, lambda: self.map, self.targets.__getitem__, CLASSES.__getitem__, self.lanes
        )  # fmt: skip
        stack.callback(self.store.close)


class Counted(ThreadLanes):
    """Lanes that count calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def begin(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        return super().begin(call)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


SLICES = [Slice(number, 1, 3_000 + number, 2) for number in range(1, 200)]


def readable(store: ClusterStore, slices: Sequence[Slice]) -> None:
    found = store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
    assert [bytes(part) for part in found] == [content(data) for data in slices]


def test_only_what_must_wait_takes_a_lane(cluster: Cluster) -> None:
    for data in SLICES:
        cluster.store.write(data, [content(data)], durable=False)
    cluster.store.make_durable(SLICES)
    readable(cluster.store, SLICES)
    assert 1 <= cluster.lanes.calls <= 12  # the connections had to be made, and a few waited for that


def test_servers_that_end_under_way_cost_no_slice(cluster: Cluster) -> None:
    for data in SLICES:
        cluster.store.write(data, [content(data)], durable=False)
    wrong: list[BaseException] = []
    over = threading.Event()

    def reading() -> None:
        try:
            while not over.is_set():
                readable(cluster.store, SLICES)
            readable(cluster.store, SLICES)  # whatever was read before, this one is without the server
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    cluster.served[1].server.close(0.0)
    over.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    cluster.store.close()  # waits for those that nobody waits for any more
    assert cluster.store.counts().failed_by_disk.keys() == {1}


def test_a_shard_that_rots_is_read_from_the_other_copy_and_told(cluster: Cluster) -> None:
    for data in SLICES[:20]:
        cluster.store.write(data, [content(data)], durable=True)
    damage(cluster.served[0].folder, next(content(one) for one in SLICES[:20] if held_by(cluster, 0, one)), 1)
    for _ in range(4):  # which copy is asked first follows from the slice's number: one of them is the damaged one
        readable(cluster.store, SLICES[:20])
    damaged = next(one for one in SLICES[:20] if held_by(cluster, 0, one))
    first = cluster.store._holders.places().of(damaged).row[damaged.id % 2]
    assert cluster.store.counts().corrupt_by_disk.get(0, 0) == (4 if first == 0 else 0)


def held_by(cluster: Cluster, disk: int, data: Slice) -> bool:
    return disk in cluster.store._holders.places().of(data).row


def test_an_answer_that_does_not_come_is_given_up_in_time() -> None:
    gate = threading.Event()
    data = b"x" * 5000
    header = header_of(ShardId(1, 1, 0), data)

    def waits(asked: Any, payload: memoryview, asker: Any) -> Any:
        assert gate.wait(20)
        return ops.Nothing(), ()

    handlers = {ops.PUT: waits, ops.SYNC: lambda asked, payload, asker: (ops.Nothing(), ())}
    with RpcServer(handlers) as server, Target(f"127.0.0.1:{server.address[1]}", within_seconds=0.3) as target:
        assert target.begin_sync([]) is None  # there is no connection: somebody must wait for that
        target.sync([ShardId(1, 1, 0)])
        late = target.begin_put(header, [data], durable=False)
        assert late is not None and not late.done()
        time.sleep(0.35)
        assert late.done() and not late.lost
        with pytest.raises(UnavailableError, match="no answer in time"):
            late.result()
        gate.set()
        quick = target.begin_sync([ShardId(1, 1, 0)])
        assert quick is not None and quick.future.result(10)
        assert quick.result() is None


def test_a_server_that_says_to_come_again_is_asked_again() -> None:
    asked_times: list[int] = []

    def refuses_once(asked: Any, payload: memoryview, asker: Any) -> Any:
        asked_times.append(1)
        if len(asked_times) == 2:
            raise TransientError("not now")
        return ops.Nothing(), ()

    with RpcServer({ops.SYNC: refuses_once}) as server, Target(f"127.0.0.1:{server.address[1]}") as target:
        target.sync([ShardId(1, 1, 0)])
        request = target.begin_sync([ShardId(1, 1, 0)])
        assert request is not None
        with pytest.raises(TransientError):
            request.future.result(10)
        assert request.lost
        request.again()
    assert len(asked_times) == 3


def test_a_full_window_is_no_reason_to_wait() -> None:
    gate = threading.Event()

    def waits(asked: Any, payload: memoryview, asker: Any) -> Any:
        assert gate.wait(20)
        return ops.Nothing(), ()

    data = os.urandom(60 << 20)
    header = msgspec.structs.replace(
        header_of(ShardId(1, 1, 0), b"x"), cell_bytes=1 << 20, slice_bytes=len(data), shard_bytes=len(data),
        crcs=cell_crcs([data], 1 << 20),
    )  # fmt: skip
    handlers = {ops.PUT: waits, ops.SYNC: lambda asked, payload, asker: (ops.Nothing(), ())}
    with RpcServer(handlers) as server, Target(f"127.0.0.1:{server.address[1]}") as target:
        target.sync([ShardId(1, 1, 0)])
        requests = [target.begin_put(header, [data], durable=False) for _ in range(3)]
        assert [request is None for request in requests] == [False, False, True]
        gate.set()
        for request in requests[:2]:
            assert request is not None and request.future.result(20)


def test_errors_of_a_holder_come_by_its_task(cluster: Cluster) -> None:
    cluster.store.write(SLICES[0], [content(SLICES[0])], durable=True)
    other = msgspec.structs.replace(SLICES[0], size_bytes=2_000)
    with pytest.raises(StokerError, match="another size"):
        cluster.store.read([SliceRange(SLICES[1], 0, 1), SliceRange(other, 0, 10)][1:])
    with pytest.raises(NotFoundError):
        cluster.store.read([SliceRange(SLICES[1], 0, 1)])
