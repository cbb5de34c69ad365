"""Slices by reference: writes, appends, holes, copies, truncation, against a file of bytes; and who may write."""

import errno
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fs_place import Place

from stoker.fs.meta.calls import (
    KEEP_SIZE,
    PUNCH_HOLE,
    READ,
    WRITE,
    ZERO_RANGE,
    Caller,
    Close,
    CopyRange,
    Create,
    Fallocate,
    ForgetFreed,
    GetAttr,
    ListFreed,
    Open,
    ReadExtents,
    Reclaim,
    SetAttr,
    Unlink,
    Usage,
    Write,
)
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import CHUNK_BYTES, Slice, unpack_extents


class Bytes:
    """What a file should read as: for each block the slice and the place in it, in a dictionary by offset."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.blocks: dict[int, tuple[int, int]] = {}
        self.size = 0

    def write(self, offset: int, data: Slice) -> None:
        for place in range(0, data.size_bytes, self.block):
            self.blocks[offset + place] = (data.id, place)
        self.size = max(self.size, offset + data.size_bytes)

    def cut(self, start: int, end: int) -> None:
        self.blocks = {at: what for at, what in self.blocks.items() if not start <= at < end}

    def resize(self, size: int) -> None:
        self.cut(size, 1 << 60)
        self.size = size

    def copy(self, source: "Bytes", start: int, to: int, length: int) -> None:
        length = min(length, source.size - start)
        if length > 0:
            taken = {at - start + to: what for at, what in source.blocks.items() if start <= at < start + length}
            self.cut(to, to + length)
            self.blocks |= taken
            self.size = max(self.size, to + length)


def read(place: Place, ino: int, session: int, block: int) -> tuple[dict[int, tuple[int, int]], int]:
    """What the volume says that a file reads as, in the same form."""
    answer = place.volume.run(ReadExtents(ino, 0, 1 << 50), session=session)
    found = {}
    for shown in answer.shown:
        for step in range(0, shown.extent.length, block):
            found[shown.offset_bytes + step] = (shown.extent.id, shown.extent.offset + step)
    return found, answer.size_bytes


@pytest.mark.parametrize("seed", range(6))
def test_files_read_as_what_was_done_to_them(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    block = CHUNK_BYTES // 4
    session = place.session()
    inodes = [place.file(name, session) for name in (b"one", b"two")]
    models = [Bytes(block), Bytes(block)]
    for _ in range(120):
        which = chance.randrange(2)
        ino, model = inodes[which], models[which]
        start, length = chance.randrange(20) * block, chance.randrange(1, 9) * block
        kind = chance.choice(["write", "append", "punch", "zero", "grow", "truncate", "copy"])
        if kind in ("write", "append"):
            data = place.slices(*[chance.randrange(1, 5) * block for _ in range(chance.randrange(1, 3))])
            at = place.volume.run(Write(ino, data, start, append=kind == "append"), session=session).value
            assert at == (model.size if kind == "append" else start)
            for one in data:
                model.write(at, one)
                at += one.size_bytes
        elif kind in ("punch", "zero"):
            mode = PUNCH_HOLE | KEEP_SIZE if kind == "punch" else ZERO_RANGE
            place.volume.run(Fallocate(ino, mode, start, length), session=session)
            model.cut(start, start + length)
            model.size = max(model.size, start + length) if kind == "zero" else model.size
        elif kind == "grow":
            place.volume.run(Fallocate(ino, 0, start, length), session=session)
            model.size = max(model.size, start + length)
        elif kind == "truncate":
            place.volume.run(SetAttr(ino, size_bytes=start, opened=True), session=session)
            model.resize(start)
        elif which or not 0 <= start - length < length:
            source = chance.randrange(2)
            if source == which:
                continue
            to = chance.randrange(20) * block
            copied = place.volume.run(CopyRange(inodes[source], start, ino, to, length), session=session).value
            assert copied == max(min(length, models[source].size - start), 0)
            model.copy(models[source], start, to, length)
        assert read(place, ino, session, block) == (model.blocks, model.size)
        place.sound()
    place.volume.end_session(session)
    for name in (b"one", b"two"):
        place.volume.run(Unlink(ROOT, name))
    assert place.volume.run(Usage()).bytes == 0
    freed = place.volume.run(ListFreed(limit=10_000)).slices
    assert freed and not place.volume.engine.scan(b"r"), "nothing refers to any slice"
    place.volume.run(ForgetFreed(tuple(one.slice.id for one in freed)))
    assert not place.volume.run(ListFreed()).slices


def test_appends_of_many_clients_share_no_byte(place: Place) -> None:
    ino = place.file(b"log", place.session())
    barrier = threading.Barrier(4)

    def client(number: int) -> list[tuple[int, int]]:
        session = place.session()
        place.volume.run(Open(ino, WRITE), session=session)
        barrier.wait()
        done = []
        for _ in range(25):
            data = place.slices(100 + number)
            done.append((place.volume.run(Write(ino, data, append=True), session=session).value, 100 + number))
        return done

    with ThreadPoolExecutor(4) as pool:
        parts = sorted(part for done in pool.map(client, range(4)) for part in done)
    ends = [start + length for start, length in parts]
    assert [start for start, _ in parts] == [0, *ends[:-1]]
    assert place.volume.run(GetAttr(ino)).attr.size_bytes == ends[-1]


def test_what_is_hidden_is_freed_in_the_same_transaction(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    first, second, third = place.slices(1000, 400, 600)
    place.volume.run(Write(ino, (first,)), session=session)
    place.volume.run(Write(ino, (second,)), session=session)
    assert place.volume.run(ListFreed()).slices == ()
    place.volume.run(Write(ino, (third,), 400), session=session)
    freed = place.volume.run(ListFreed()).slices
    assert [(one.slice.id, one.ino, one.time_ns) for one in freed] == [(first.id, ino, place.now_ns)]


def test_bad_slices_are_refused(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    (used,) = place.slices(10)
    place.volume.run(Write(ino, (used,)), session=session)
    fresh = place.slices(10)[0]
    for data in (
        (), (used,), (fresh, fresh), (Slice(fresh.id, 0, 0),), (Slice(fresh.id, 0, CHUNK_BYTES + 1),),
        (Slice(fresh.id + 1, 0, 10),), (Slice(0, 0, 10),), (Slice(fresh.id, -1, 10),),
    ):  # fmt: skip
        place.refused(errno.EINVAL, Write(ino, data), session=session)
    place.refused(errno.EFBIG, Write(ino, (fresh,), 2**58), session=session)
    place.refused(errno.EINVAL, Write(ino, (fresh,), -1), session=session)


def test_a_slice_may_cross_the_grid_and_a_far_offset_costs_nothing(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    place.volume.run(Write(ino, place.slices(CHUNK_BYTES), CHUNK_BYTES - 10), session=session)
    place.volume.run(Write(ino, place.slices(5), 2**58 - 5), session=session)
    shown = place.volume.run(ReadExtents(ino, 0, 2**58), session=session).shown
    assert [(one.offset_bytes, one.extent.offset, one.extent.length) for one in shown] == [
        (CHUNK_BYTES - 10, 0, 10), (CHUNK_BYTES, 10, CHUNK_BYTES - 10), (2**58 - 5, 0, 5),
    ]  # fmt: skip
    place.volume.run(Fallocate(ino, PUNCH_HOLE | KEEP_SIZE, 0, 2**58), session=session)
    assert place.volume.run(ReadExtents(ino, 0, 2**58), session=session).shown == ()


def test_writing_needs_a_file_that_is_open_to_write(place: Place) -> None:
    session, other = place.session(), place.session()
    ino = place.file(b"f", session, READ)
    data = place.slices(10)
    for request in (Write(ino, data), Fallocate(ino, 0, 0, 1), SetAttr(ino, size_bytes=1, opened=True)):
        place.refused(errno.EBADF, request, session=session)
        place.refused(errno.EBADF, request, session=other)
    place.refused(errno.EBADF, ReadExtents(ino, 0, 1), session=other)
    place.refused(errno.EBADF, Close(ino, WRITE), session=session)
    place.refused(errno.EISDIR, Open(ROOT, WRITE), session=session)
    place.refused(errno.ESTALE, Open(ino, READ), session=12345)
    mode_less = place.volume.run(Create(ROOT, b"locked", 0)).ino
    place.refused(errno.EACCES, Open(mode_less, READ), session=session, caller=Caller(1000, 1000))


def test_modes_of_fallocate(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    place.volume.run(Fallocate(ino, KEEP_SIZE, 0, 100), session=session)
    assert place.volume.run(GetAttr(ino)).attr.size_bytes == 0
    for number, request in (
        (errno.EOPNOTSUPP, Fallocate(ino, PUNCH_HOLE, 0, 1)),
        (errno.EOPNOTSUPP, Fallocate(ino, 8, 0, 1)),
        (errno.EINVAL, Fallocate(ino, 0, 0, 0)),
        (errno.EINVAL, Fallocate(ino, 0, -1, 10)),
        (errno.EFBIG, Fallocate(ino, 0, 2**58, 1)),
    ):
        place.refused(number, request, session=session)


def test_a_copy_onto_itself_must_not_overlap(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    place.volume.run(Write(ino, place.slices(1000)), session=session)
    place.refused(errno.EINVAL, CopyRange(ino, 0, ino, 500, 600), session=session)
    assert place.volume.run(CopyRange(ino, 0, ino, 1000, 5000), session=session).value == 1000
    assert place.volume.run(CopyRange(ino, 5000, ino, 0, 10), session=session).value == 0
    assert place.volume.run(GetAttr(ino)).attr.size_bytes == 2000


def test_a_writer_takes_the_bits_of_privilege(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    for caller, left in ((Caller(), 0o6777), (Caller(1000, 1000), 0o777)):
        place.volume.run(SetAttr(ino, mode=0o6777))
        place.volume.run(Write(ino, place.slices(1)), session=session, caller=caller)
        assert place.volume.run(GetAttr(ino)).attr.mode & 0o7777 == left


def test_a_large_file_is_freed_in_pieces(place: Place) -> None:
    session = place.session()
    ino = place.file(b"big", session)
    for chunk in range(600):
        place.volume.run(Write(ino, place.slices(1), chunk * CHUNK_BYTES), session=session)
    place.volume.end_session(session)
    place.volume.run(Unlink(ROOT, b"big"))
    place.sound()
    assert place.volume.run(Usage()).bytes == 0
    left = len(place.volume.engine.scan(b"r"))
    assert 0 < left < 600
    steps = 1
    while place.volume.run(Reclaim(limit=100)).more:
        place.sound()
        steps += 1
    assert steps >= left // 100
    assert not place.volume.engine.scan(b"r")
    assert not place.volume.engine.scan(b"d")


def test_a_chunk_in_many_pieces_is_kept_in_one_row(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    for number in range(50):
        place.volume.run(Write(ino, place.slices(10), number * 20), session=session)
    rows = [value for key, value in place.volume.engine.scan(b"i") if key[9:10] == b"C"]
    assert len(rows) == 1
    assert len(unpack_extents(rows[0])) == 50
    for _ in range(2):  # one slice over all
        place.volume.run(Write(ino, place.slices(1000)), session=session)
    assert len(place.volume.run(ListFreed()).slices) == 51
