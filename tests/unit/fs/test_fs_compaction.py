"""Files that are overwritten in small pieces show few slices, and the bytes that were written."""

import errno
import random
from collections.abc import Iterator

import pytest
from client_place import Clients

from stoker.core.errors import StoreError
from stoker.fs.client import FileTree, OpenFile
from stoker.fs.client.compaction import SLICES_MAX, compact
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.meta.calls import READ, Compact, GetAttr, Peek
from stoker.fs.meta.slices import Extent, Slice, covered, same_ends

UNIT = 512


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def write(handle: OpenFile, content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data
    handle.write(offset, data)
    handle.flush()


def shown(clients: Clients, ino: int) -> int:
    return len(clients.metadata.run(Peek(ino)).shown)


@pytest.mark.parametrize("seed", range(3))
def test_random_small_writes_show_few_slices_and_what_was_written(clients: Clients, seed: int) -> None:
    chance = random.Random(seed)
    one = clients.client()
    handle, content = clients.file(one), bytearray()
    base = chance.choice([0, PIECE_BYTES - 100 * UNIT, 16 * PIECE_BYTES - 100 * UNIT])
    for _ in range(500):
        offset = base + chance.randrange(200) * UNIT
        write(handle, content, offset, chance.randbytes(chance.randrange(1, 3 * UNIT)))
    assert one.counters()["compacted"] > 0
    assert shown(clients, handle.ino) <= 2 * SLICES_MAX + 10
    assert bytes(handle.read(0, 1 << 30)) == content
    assert clients.shown(handle.ino) == content
    handle.close()
    clients.place.sound()


def test_holes_stay_and_nothing_that_can_be_seen_changes(clients: Clients) -> None:
    one = clients.client()
    handle, content = clients.file(one), bytearray()
    for place in [*range(100), *range(200, 300)]:
        if place == 250:
            before = clients.metadata.run(GetAttr(handle.ino)).attr
        write(handle, content, place * UNIT, b"%03d" % place * (UNIT // 3) + b"..")
    assert one.counters()["compacted"] == 1
    assert before.version + 50 == clients.metadata.run(GetAttr(handle.ino)).attr.version
    spans = covered([found.extent for found in clients.metadata.run(Peek(handle.ino)).shown])
    assert spans == [(0, 100 * UNIT), (200 * UNIT, 300 * UNIT)]
    assert clients.shown(handle.ino) == content
    clients.place.sound()


def test_many_small_islands_are_left_alone(clients: Clients) -> None:
    one = clients.client()
    handle, content = clients.file(one), bytearray()
    for place in range(SLICES_MAX + 1):
        write(handle, content, 2 * place * UNIT, bytes([1 + place % 255]) * UNIT)
    assert one.counters()["compacted"] == 0
    assert clients.shown(handle.ino) == content


def test_who_reads_from_slices_that_are_gone_looks_again(clients: Clients) -> None:
    one, two = clients.client(), clients.client()
    handle, content = clients.file(one), bytearray()
    for place in range(SLICES_MAX - 1):
        write(handle, content, place * UNIT, bytes([1 + place]) * UNIT)
    reader = two.open(handle.ino, READ)
    assert reader.read(0, 1)
    old = {found.extent.slice for found in clients.metadata.run(Peek(handle.ino)).shown}
    assert compact(one.works, handle.ino, handle.session, 0)
    assert shown(clients, handle.ino) == 1
    clients.slices.remove(list(old))
    assert bytes(reader.read(0, 1 << 20)) == content


def test_a_store_that_fails_leaves_all_as_it_was(clients: Clients) -> None:
    one = clients.client(attempts=1)
    handle, content = clients.file(one), bytearray()
    for place in range(SLICES_MAX - 1):
        write(handle, content, place * UNIT, bytes([1 + place]) * UNIT)
    handle.write(0, b"one more")
    content[:8] = b"one more"
    writes = clients.store.calls["write"]
    clients.store.fault = lambda verb: (
        StoreError("full") if verb == "write" and clients.store.calls["write"] > writes + 1 else None
    )
    handle.flush()
    assert clients.store.calls["write"] == writes + 2, "it was tried"
    assert one.counters()["compacted"] == 0
    assert clients.shown(handle.ino) == content
    clients.place.sound()


def test_what_has_changed_meanwhile_or_is_not_the_same_is_refused(clients: Clients) -> None:
    place = clients.place
    one = clients.client()
    FileTree(one).write_bytes("/f", b"12345678")
    session = place.session()
    ino = place.file(b"f", session)
    version = place.volume.run(GetAttr(ino)).attr.version
    [same, short] = place.slices(8, 7)
    whole = {"session": session}
    place.refused(errno.EAGAIN, Compact(ino, 0, 8, version + 1, ((0, same),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 8, version, ((0, short),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 8, version, ((1, same),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 4, version, ((0, same),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, -8, 8, version, ((0, same),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 1 << 60, version, ((0, same),)), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 8, version, ()), **whole)
    place.refused(errno.EINVAL, Compact(ino, 0, 8, version, ((0, Slice(1 << 40, 0, 8)),)), **whole)
    place.refused(errno.ESTALE, Compact(ino, 0, 8, version, ((0, same),)))
    place.volume.run(Compact(ino, 0, 8, version, ((0, same),)), session=session)
    [now] = place.volume.run(Peek(ino)).shown
    assert now.extent.slice == same
    place.sound()


def test_lists_are_compared_from_both_ends() -> None:
    a, b, c, d = (Extent(n, n + 1, 0, 9, 0, 1) for n in range(4))
    assert same_ends([a, b, d], [a, c, d]) == (1, 1)
    assert same_ends([a, b], [a, b]) == (2, 0)
    assert same_ends([a, a], [a]) == (1, 0)
    assert same_ends([], [a]) == (0, 0)
    assert covered([a, b, d]) == [(0, 2), (3, 4)]
