"""A chunk server and its client over real sockets: damage, copies, fences, hostile servers."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chunk_places import VOLUME, Served, cut_short, damage, header_of
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import (
    CorruptError,
    DeniedError,
    NotFoundError,
    StokerError,
    UnavailableError,
    UsageError,
)
from stoker.fs.chunk import Target
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.cells import covering_runs, cut
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.reporting import Reporter
from stoker.fs.chunk.supervisor import Restarts
from stoker.fs.chunk.upkeep import Upkeep, scrub_pace
from stoker.fs.disk import Disk, ShardId, ShardPage
from stoker.fs.wire import Connection, Operation, Peer, RpcServer
from stoker.fs.wire.messages import pack

SHARD = ShardId(9, 1, 3)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "disk") as started:
        yield started


@pytest.mark.parametrize("size", [20_000, 3 << 20])
def test_a_flipped_bit_is_told_with_shard_cell_and_disk(served: Served, size: int) -> None:
    data = os.urandom(size)
    served.target.put(header_of(SHARD, data), [data], durable=True)
    damage(served.folder, data, 9000)
    assert served.target.get(SHARD, [(0, 8192)])[0] == data[:8192]  # another cell is sound
    with pytest.raises(CorruptError) as told:
        served.target.get(SHARD, [(8200, 5000)])
    assert "9.1.3" in str(told.value) and "cell 2" in str(told.value)
    assert served.disk.disk in str(told.value) or str(served.folder) in str(told.value)
    assert served.target.status().bad_shards == 1
    assert served.target.listing(None, 10).bad == [SHARD]
    assert served.target.check(SHARD) == 2


def test_a_shard_whose_file_ends_early_is_corrupt_and_ends_nothing_else(served: Served) -> None:
    data, sound = os.urandom(3 << 20), os.urandom(5000)
    served.target.put(header_of(SHARD, data), [data], durable=True)
    served.target.put(header_of(ShardId(1, 1, 1), sound), [sound], durable=True)
    cut_short(served.folder, data, 1 << 20)
    with pytest.raises(CorruptError, match=r"9\.1\.3"):
        served.target.get(SHARD, [(0, 3 << 20)])
    assert served.target.get(ShardId(1, 1, 1), [(0, 5000)])[0] == sound


def test_damage_on_the_way_is_asked_for_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(20_000)
    served.target.put(header_of(SHARD, data), [data], durable=True)
    peer = served.target._peer
    real, spoiled = peer.call, []

    def call(operation: Any, *arguments: Any, **named: Any) -> Any:
        answer, payload = real(operation, *arguments, **named)
        if operation is ops.GET and len(spoiled) < times:
            spoiled.append(1)
            payload[5] ^= 1
        return answer, payload

    monkeypatch.setattr(peer, "call", call)
    times = 1
    assert served.target.get(SHARD, [(0, 20_000)])[0] == data
    times = 3
    with pytest.raises(CorruptError, match=r"damaged on the way .*9\.1\.3"):
        served.target.get(SHARD, [(0, 20_000)])


def test_a_shard_is_pulled_by_the_disk_that_wants_it(tmp_path: Path) -> None:
    with Served(tmp_path / "one") as one, Served(tmp_path / "two") as two:
        data = os.urandom(300_001)
        one.target.put(header_of(SHARD, data), [data], durable=True)
        two.target.pull(SHARD, one.address, durable=True)
        two.target.pull(SHARD, one.address, durable=True)
        assert two.disk.get(SHARD, [(0, 300_001)])[0] == data
        assert two.disk.header(SHARD) == one.disk.header(SHARD)
        with pytest.raises(NotFoundError):
            two.target.pull(ShardId(5, 5, 5), one.address, durable=True)
        damage(one.folder, data, 5)
        two.target.remove([SHARD])
        with pytest.raises(CorruptError, match=one.address):
            two.target.pull(SHARD, one.address, durable=True)
        with pytest.raises(NotFoundError):
            two.target.header(SHARD)
        with pytest.raises(UsageError, match="address is not readable"):
            two.target.pull(SHARD, "nowhere", durable=True)
    with Served(tmp_path / "three") as three, pytest.raises(UnavailableError, match=one.address):
        three.target.pull(SHARD, one.address, durable=True)


def test_scrubbing_is_set_from_afar(served: Served) -> None:
    served.target.scrub(5_000_000)
    served.target.scrub(0)
    assert served.paces == [5_000_000, 0]


def test_large_listings_come_in_pages_that_fit(served: Served) -> None:
    for number in range(1500):
        served.disk.put(header_of(ShardId(2**63 + number, 2**63, 250), b"x"), [b"x"], durable=False)
    page = served.target.listing(None, 10**9)
    assert len(page.headers) == ops.PAGE_MAX and page.more
    assert len(served.target.listing(page.headers[-1].shard, 1000).headers) == 476


def test_too_much_at_once_is_refused(served: Served) -> None:
    many = [ShardId(1, 1, 1)] * (ops.SHARDS_AT_ONCE_MAX + 1)
    with Peer(served.address) as peer:
        for operation, request in (
            (ops.SYNC, ops.Shards(many)),
            (ops.REMOVE, ops.Shards(many)),
            (ops.GET, ops.Get(SHARD, [(0, 1)] * (ops.RANGES_AT_ONCE_MAX + 1))),
            (ops.LISTING, ops.List(None, ops.PAGE_MAX + 1)),
        ):
            with pytest.raises(UsageError, match="too much is asked for at once"):
                peer.call(operation, request)
        with pytest.raises(UsageError, match="empty"):
            peer.call(ops.LISTING, ops.List(None, 0))
    served.target.remove(many)  # the client cuts it up


def test_another_volume_is_not_let_in(served: Served) -> None:
    other = "11111111-2222-3333-4444-555555555555"
    with Target(served.address, volume=other) as target, pytest.raises(DeniedError, match="another volume"):
        target.status()


def test_requests_that_are_none_end_no_server(served: Served) -> None:
    data = b"x" * 9000
    served.target.put(header_of(SHARD, data), [data], durable=True)
    chance = random.Random(5)
    bodies = [
        (ops.PUT, ops.Put(header_of(SHARD, data), True)),
        (ops.GET, ops.Get(SHARD, [(0, 9000)])),
        (ops.SYNC, ops.Shards([SHARD])),
        (ops.LISTING, ops.List(SHARD, 5)),
        (ops.PULL, ops.Pull(SHARD, served.address, True)),
        (ops.SCRUB, ops.Scrub(5)),
    ]
    with Connection(served.address) as connection:
        for _ in range(300):
            operation, request = chance.choice(bodies)
            body = bytearray(pack(request))
            for _ in range(chance.randint(1, 4)):
                body[chance.randrange(len(body))] = chance.choice(
                    [0, 0x7F, 0x80, 0xC0, 0xC1, 0xFF, chance.randrange(256)]
                )
            raw = Operation(operation.code, "raw", msgspec.Raw, msgspec.Raw, payload_bytes_max=9000, own_checksums=True)
            try:
                connection.call(raw, msgspec.Raw(bytes(body)), answer_bytes_max=9000)
            except StokerError as error:
                assert "failed at the server" not in str(error), (operation, bytes(body))
        assert served.target.get(SHARD, [(0, 9000)])[0] == data
        assert connection.usable


# -- hostile servers


@pytest.mark.parametrize(
    "told",
    [
        ops.Cells(4096, 20_000, [(0, b"\0" * 20)]),  # checksums that do not fit
        ops.Cells(4096, 20_000, [(1, b"\0" * 20)]),
        ops.Cells(4096, 20_000, [(0, b"\0" * 21)]),
        ops.Cells(4096, 20_000, []),
        ops.Cells(0, 20_000, [(0, b"\0" * 20)]),
        ops.Cells(4096, 2**62, [(0, b"\0" * 20)]),
        ops.Cells(4096, 100, [(0, b"\0" * 4)]),
    ],
)
def test_answers_that_lie_are_corrupt(told: ops.Cells) -> None:
    handlers = {
        ops.GET: lambda asked, payload, asker: (told, [bytes(20_000)] if asker.within_seconds else ()),
        ops.CHECK: lambda asked, payload, asker: (ops.Checked(None), ()),
    }
    operation = ops.GET
    before, operation.answer_bytes_max = operation.answer_bytes_max, 1 << 20
    try:
        with RpcServer(handlers) as server, Target(f"127.0.0.1:{server.address[1]}") as target:
            refused(CorruptError, lambda: target.get(SHARD, [(0, 20_000)]))
    finally:
        operation.answer_bytes_max = before


@pytest.mark.parametrize("wrong", ["backwards", "endless", "again", "foreign"])
def test_listings_that_lie_are_refused(wrong: str) -> None:
    headers = [header_of(ShardId(number, 1, 0), b"x") for number in (1, 2)]
    pages = {
        "backwards": ShardPage(headers[::-1], [], False, True),
        "endless": ShardPage([], [], True, True),
        "again": ShardPage(headers, [], False, True),
        "foreign": ShardPage([header_of(ShardId(3, 1, 0), b"x").__class__(**_fields("../"))], [], False, True),
    }
    handlers = {ops.LISTING: lambda asked, payload, asker: (pages[wrong], ())}
    with RpcServer(handlers) as server, Target(f"127.0.0.1:{server.address[1]}") as target:
        refused((CorruptError, UsageError), lambda: target.listing(ShardId(1, 1, 0), 10))


def refused(kinds: Any, ask: Callable[[], object]) -> None:
    with pytest.raises(kinds):
        ask()


def _fields(volume: str) -> dict[str, Any]:
    header = header_of(ShardId(3, 1, 0), b"x")
    return {name: getattr(header, name) for name in header.__struct_fields__} | {"volume": volume}


# -- cells


@given(st.data())
def test_cells_cover_ranges_and_nothing_more(data: st.DataObject) -> None:
    cell_bytes = data.draw(st.integers(1, 9))
    shard = bytes(range(data.draw(st.integers(0, 60))))
    span = st.integers(0, len(shard)).flatmap(lambda a: st.integers(0, len(shard) - a).map(lambda n: (a, n)))
    ranges = data.draw(st.lists(span, max_size=5))
    runs = covering_runs(ranges, cell_bytes, len(shard))
    wanted = {byte // cell_bytes for offset, length in ranges for byte in range(offset, offset + length)}
    assert [cell for run in runs for cell in range(run.first, run.end)] == sorted(wanted)
    assert all(first.end < second.first for first, second in itertools.pairwise(runs))
    payload = b"".join(shard[run.start : run.stop] for run in runs)
    assert [bytes(part) for part in cut(memoryview(payload), runs, ranges)] == [shard[a : a + n] for a, n in ranges]


# -- fences and signs of life


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_server_without_a_master_refuses_writes(tmp_path: Path) -> None:
    clock = Clock()
    fence = Fence(clock, active=True, seconds=5.0)
    data = b"x" * 5000
    with Served(tmp_path / "disk", fence=fence) as served:
        target = Target(served.address, within_seconds=0.2)
        writes = [
            lambda: target.put(header_of(SHARD, data), [data], durable=True),
            lambda: target.remove([SHARD]),
            lambda: target.pull(SHARD, served.address, durable=True),
        ]
        for write in writes:
            with pytest.raises(UnavailableError, match="without contact to a master"):
                write()
        fence.heard(clock.now)
        clock.now += 4.9
        writes[0]()
        clock.now += 0.2
        for write in writes:
            with pytest.raises(UnavailableError):
                write()
        assert target.get(SHARD, [(0, 5000)])[0] == data  # reading hurts nobody
        target.close()


def test_masters_hear_how_a_disk_fares_and_keep_it_writable(served: Served) -> None:
    clock = Clock()
    heard: list[ops.Heartbeat] = []
    handlers = {ops.HEARTBEAT: lambda asked, payload, asker: (heard.append(asked), (ops.Noted(), ()))[1]}
    with RpcServer(handlers) as master:
        there = Peer(f"127.0.0.1:{master.address[1]}", role="chunk")
        gone = Peer("127.0.0.1:1")
        fence = Fence(clock, active=True)
        reporter = Reporter([gone, there], served.address, served.disk.status, fence, clock)
        assert not reporter.tell(gone) and fence.closed
        assert reporter.tell(there) and not fence.closed
        reporter.start()
        reporter.stop()
    assert heard[0].status.disk == served.disk.disk and heard[0].address == served.address
    assert [beat.seq for beat in heard] == sorted({beat.seq for beat in heard})
    assert not heard[0].leaving and heard[-1].leaving
    clock.now += 6
    assert fence.closed


def test_processes_that_die_are_started_again_ever_later() -> None:
    restarts = Restarts()
    now, pauses = 0.0, []
    for _ in range(8):
        restarts.started(now)
        now += 1
        again = restarts.died(now)
        pauses.append(again - now)
        now = again
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    restarts.started(now)
    assert restarts.died(now + 100) == now + 100.5 and restarts.count == 9


def test_upkeep_scrubs_at_its_pace_and_finds_damage(tmp_path: Path) -> None:
    with Disk.make(tmp_path / "disk", VOLUME) as disk:
        data = random.Random(1).randbytes(50_000)
        for number in range(10):
            disk.put(header_of(ShardId(number, 1, 0), data), [data], durable=True)
        upkeep = Upkeep(disk, 100_000)
        upkeep.step()
        assert 100_000 <= disk.status().scrub.checked_bytes < 200_000
        upkeep.set_pace(0)
        before = disk.status().scrub.checked_bytes
        for _ in range(30):
            upkeep.step()
        assert disk.status().scrub.checked_bytes == before
    assert scrub_pace(0) == 1 << 20 and scrub_pace(14 * 86_400 * (8 << 20)) == 8 << 20


def test_a_fence_that_nobody_asked_for_never_closes() -> None:
    fence = Fence(lambda: 1e9, active=False)
    fence.check("put")
    assert not fence.closed


def test_a_server_that_is_gone_is_told_within_its_time() -> None:
    with Target("127.0.0.1:1", within_seconds=0.5) as target, pytest.raises(StokerError, match=r"127\.0\.0\.1:1"):
        target.status()
