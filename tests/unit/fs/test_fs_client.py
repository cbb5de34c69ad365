"""A client's open files: what is seen when, and by whom; what is bounded; what becomes of errors."""

import errno
import os
import threading
from collections.abc import Iterator

import pytest
from client_place import Clients

from stoker.core.errors import CorruptError, StoreError, TransientError, UnavailableError
from stoker.fs.client import Client, ClientOptions, FileTree
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.client.packs import LOOSE_BYTES_MAX
from stoker.fs.meta import MetaError
from stoker.fs.meta.calls import (
    KEEP_SIZE,
    PUNCH_HOLE,
    READ,
    WRITE,
    Caller,
    CopyRange,
    Create,
    Fallocate,
    GetAttr,
    Lookup,
    Put,
    ReadDir,
    SetAttr,
    SetLock,
    SetXattr,
    Unlink,
)
from stoker.fs.meta.keys import ROOT


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


def refused(number: int, call: object, *arguments: object, **named: object) -> MetaError:
    with pytest.raises(MetaError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    assert caught.value.errno == number, caught.value
    return caught.value


def test_what_is_written_is_seen_at_once_by_this_client_and_after_closing_by_others(clients: Clients) -> None:
    one = clients.client()
    handle, again = clients.file(one), None
    again = one.open(handle.ino, READ)
    handle.write(3, b"abc")
    assert bytes(again.read(0, 100)) == b"\0\0\0abc"
    assert clients.size(one, handle.ino) == 6
    assert one.ask(Lookup(ROOT, b"f")).attr.size_bytes == 6
    assert [e.attr.size_bytes for e in one.ask(ReadDir(ROOT, plus=True)).entries if e.attr] == [6]
    assert clients.shown(handle.ino) == b""
    handle.close()
    assert clients.shown(handle.ino) == b"\0\0\0abc"
    assert bytes(again.read(0, 100)) == b"\0\0\0abc"
    refused(errno.EBADF, handle.read, 0, 1)
    refused(errno.EBADF, again.write, 0, b"x")
    again.close()


def test_times_of_change_are_those_of_the_write_not_of_the_flush(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    clients.wait(1)
    handle.write(0, b"abc")
    written_ns = clients.place.now_ns
    clients.wait(1)
    before = one.ask(GetAttr(handle.ino)).attr
    handle.fsync()
    after = one.ask(GetAttr(handle.ino)).attr
    assert before.mtime_ns == after.mtime_ns == written_ns
    handle.write(0, b"x")
    one.ask(SetAttr(handle.ino, mtime_ns=5))  # what a copy that keeps times does before it closes
    handle.close()
    assert one.ask(GetAttr(handle.ino)).attr.mtime_ns == 5


def test_neighbours_and_overwrites_become_one_slice_and_a_long_stream_pieces_shown_by_one_request(
    clients: Clients,
) -> None:
    one = clients.client()
    handle = clients.file(one)
    for place in (4, 0, 2, 2, 0):
        handle.write(place, bytes([place + 65]) * 2)
    handle.fsync()
    assert one.counters()["stored_slices"] == 1
    assert clients.shown(handle.ino) == b"AACCEE"
    version = one.ask(GetAttr(handle.ino)).attr.version
    block = bytes(range(256)) * 4096
    for number in range(9):
        handle.write(number << 20, block)
    handle.close()
    assert one.counters()["stored_slices"] == 4
    assert one.ask(GetAttr(handle.ino)).attr.version == version + 1
    assert clients.shown(handle.ino) == block * 9


def test_appends_of_two_clients_stay_whole(clients: Clients) -> None:
    one, two = clients.client(), clients.client()
    first = clients.file(one)
    second = two.open(first.ino, WRITE)
    assert first.write(0, b"aa", append=True) == 0
    assert first.write(0, b"bb", append=True) == 2
    assert second.write(0, b"cc", append=True) == 0
    assert bytes(first.read(0, 9)) == b"aabb"
    second.fsync()
    first.close()
    second.write(0, b"dd", append=True)
    second.close()
    assert clients.shown(first.ino) == b"ccaabbdd"


def test_appending_and_writing_take_turns_in_order(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    handle.write(0, b"0123")
    assert handle.write(0, b"ab", append=True) == 4
    handle.write(5, b"X")
    assert handle.write(0, b"cd", append=True) == 6
    assert bytes(handle.read(0, 99)) == b"0123aXcd"
    handle.close()
    assert clients.shown(handle.ino) == b"0123aXcd"


def test_a_strict_client_sees_and_shows_everything_at_once(clients: Clients) -> None:
    one, two = clients.client(strict=True), clients.client(strict=True)
    first = clients.file(one)
    second = two.open(first.ino, READ | WRITE)
    first.write(0, b"hello")
    assert bytes(second.read(0, 9)) == b"hello"
    assert second.write(0, b"!", append=True) == 5
    assert first.write(0, b"?", append=True) == 6
    assert bytes(first.read(0, 9)) == bytes(second.read(0, 9)) == b"hello!?"
    second.close()
    first.close()


def test_opening_again_and_a_passed_time_show_what_others_wrote(clients: Clients) -> None:
    one, two = clients.client(attribute_seconds=3.0), clients.client()
    reader = clients.file(one)
    writer = two.open(reader.ino, WRITE)
    assert bytes(reader.read(0, 9)) == b""
    writer.write(0, b"abc")
    writer.fsync()
    assert bytes(reader.read(0, 9)) == b""  # believed for 3 seconds
    clients.wait(4)
    assert bytes(reader.read(0, 9)) == b"abc"
    writer.write(0, b"x")
    writer.fsync()
    again = one.open(reader.ino, READ)
    assert bytes(again.read(0, 9)) == bytes(reader.read(0, 9)) == b"xbc"
    for handle in (reader, again, writer):
        handle.close()


def test_sizes_holes_and_copies_come_after_what_was_written(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    handle.write(0, b"0123456789")
    one.ask(SetAttr(handle.ino, size_bytes=6))
    assert bytes(handle.read(0, 99)) == b"012345"
    handle.write(8, b"89")
    one.ask(Fallocate(handle.ino, PUNCH_HOLE | KEEP_SIZE, 1, 2))
    assert bytes(handle.read(0, 99)) == b"0\0\x00345\0\x0089"
    target = clients.file(one, b"copy")
    assert one.ask(CopyRange(handle.ino, 3, target.ino, 1, 99)).value == 7
    assert bytes(target.read(0, 99)) == b"\x00345\0\x0089"
    truncated = one.open(handle.ino, WRITE, truncate=True)
    assert bytes(handle.read(0, 99)) == b""
    for each in (handle, target, truncated):
        each.close()


def test_who_reads_alone_reads_on_when_the_name_is_gone(clients: Clients) -> None:
    one, two = clients.client(), clients.client(attribute_seconds=0.0)
    tree = FileTree(one)
    inos = [tree.write_bytes(f"/{name}", name.encode() * 5).ino for name in "abcd"]
    submitted = clients.metadata.submitted
    mine, replaced, theirs, locked = (
        client.open(ino, READ) for client, ino in zip((one, one, two, one), inos, strict=True)
    )
    again = one.open(inos[0], READ)
    assert bytes(mine.read(0, 9)) == b"aaaaa"
    assert clients.metadata.submitted == submitted  # opening to read costs no transaction
    assert clients.place.volume.run(GetAttr(inos[0])).attr.opens == 0
    tree.unlink("/a")
    tree.write_bytes("/new", b"n")
    tree.rename("/new", "/b")
    tree.unlink("/c")
    assert clients.place.volume.run(GetAttr(inos[0])).attr.opens == 1
    one.ask(SetLock(inos[3], 7, True, whole=True))
    clients.wait(30)
    for handle, content in ((mine, b"a"), (again, b"a"), (replaced, b"b"), (theirs, b"c"), (locked, b"d")):
        assert bytes(handle.read(1, 9)) == content * 4
    for handle in (mine, replaced, theirs, again, locked):
        handle.close()
    for ino in inos[:3]:
        refused(errno.ENOENT, clients.place.volume.run, GetAttr(ino))
    refused(errno.ENOENT, one.open, inos[0], READ)


def test_data_and_holes_are_found_in_what_is_written_too(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one, access=WRITE)
    handle.write(0, b"a" * 10)
    handle.fsync()
    handle.write(100, b"b" * 10)
    places = [handle.seek(at, how) for how in (os.SEEK_DATA, os.SEEK_HOLE) for at in (0, 5, 10, 100, 109)]
    assert places == [0, 5, 100, 100, 109, 10, 10, 10, 110, 110]
    refused(errno.ENXIO, handle.seek, 110, os.SEEK_DATA)
    refused(errno.EINVAL, handle.seek, 0, os.SEEK_SET)
    handle.close()


def test_the_memory_for_written_bytes_is_bounded(clients: Clients) -> None:
    one = clients.client(buffer_bytes=1 << 20, commit_bytes=1 << 30)
    handles = [clients.file(one, b"%d" % number) for number in range(4)]
    block = b"x" * (96 << 10)
    for turn in range(12):
        for handle in handles:
            handle.write(turn * len(block), block)
            assert one.counters()["waiting_bytes"] <= 1 << 20
    facts = one.counters()
    assert (1 << 20) - len(block) < facts["waiting_bytes_peak"] <= 1 << 20
    assert facts["relieved"] > 0
    for handle in handles:
        handle.close()
        assert clients.shown(handle.ino) == block * 12
    assert one.counters()["waiting_bytes"] == 0


def test_writers_wait_while_the_store_does_and_the_bound_holds(clients: Clients) -> None:
    one = clients.client(threads=True, buffer_bytes=8 << 20, commit_bytes=4 << 20)
    handles = [clients.file(one, b"%d" % number) for number in range(3)]
    clients.store.gate = threading.Event()
    block = b"y" * (1 << 20)

    def work(number: int) -> None:
        for turn in range(8):
            handles[number].write(turn << 20, block)
        handles[number].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    threads[0].join(0.3)
    assert any(thread.is_alive() for thread in threads)  # 24 MiB cannot be waiting in 8
    assert one.counters()["waiting_bytes"] <= 8 << 20
    clients.store.gate.set()
    for thread in threads:
        thread.join(30)
    clients.store.gate = None
    assert one.counters()["waiting_bytes_peak"] <= 8 << 20
    assert all(clients.shown(handle.ino) == block * 8 for handle in handles)


def test_old_bytes_are_shown_by_themselves(clients: Clients) -> None:
    one = clients.client(flush_seconds=5)
    handle = clients.file(one)
    handle.write(0, b"abc")
    clients.wait(4)
    one.tick()
    assert clients.shown(handle.ino) == b""
    clients.wait(2)
    one.tick()
    assert clients.shown(handle.ino) == b"abc"
    handle.close()


# -- errors


def test_a_full_store_is_told_and_what_was_written_stays_until_there_is_room(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    clients.slices.capacity_bytes = 5
    handle.write(0, b"0123456789")
    refused(errno.ENOSPC, handle.fsync)
    refused(errno.ENOSPC, handle.fsync)  # still not durable: to say nothing would be a lie
    assert bytes(handle.read(0, 99)) == b"0123456789"
    clients.slices.capacity_bytes = 100
    handle.fsync()
    assert clients.shown(handle.ino) == b"0123456789"
    clients.slices.capacity_bytes = 10
    handle.write(0, b"more")
    refused(errno.ENOSPC, handle.close)
    handle.close()  # told once, and closed
    assert one.counters()["dropped_bytes"] == 4
    assert clients.shown(handle.ino) == b"0123456789"


def test_a_writer_hears_of_a_full_store_when_the_memory_is_full_too(clients: Clients) -> None:
    one = clients.client(buffer_bytes=1000)
    handle = clients.file(one)
    clients.slices.capacity_bytes = 0
    handle.write(0, b"x" * 900)
    refused(errno.ENOSPC, handle.write, 900, b"y" * 200)
    clients.slices.capacity_bytes = None
    assert handle.write(900, b"y" * 200) == 900
    handle.close()
    assert clients.shown(handle.ino) == b"x" * 900 + b"y" * 200


def test_passing_failures_are_tried_again_a_bounded_number_of_times(clients: Clients) -> None:
    one = clients.client(attempts=4, pause_seconds=0.5)
    handle = clients.file(one)
    handle.write(0, b"abc")
    left = [3]

    def fault(verb: str) -> TransientError | None:
        left[0] -= verb == "write"
        return TransientError("not now") if verb == "write" and left[0] >= 0 else None

    clients.store.fault = fault
    handle.fsync()
    assert clients.pauses == [0.5, 1.0, 2.0]
    clients.store.fault = lambda verb: UnavailableError("store is gone") if verb == "write" else None
    handle.write(0, b"xyz")
    clients.store.calls.clear()
    told = refused(errno.EIO, handle.fsync)
    assert clients.store.calls["write"] == 4
    assert "store is gone" in str(told)
    clients.store.fault = lambda verb: None
    handle.close()
    assert clients.shown(handle.ino) == b"xyz"


@pytest.mark.parametrize(("count", "failing"), [(3, "write"), (LOOSE_BYTES_MAX + 1, "make_durable")])
def test_bytes_that_a_disk_could_not_keep_are_stored_anew(clients: Clients, count: int, failing: str) -> None:
    one = clients.client()
    handle = clients.file(one)
    handle.write(0, b"a" * count)
    clients.store.fault = lambda verb: StoreError("fsync failed") if verb == failing else None
    refused(errno.EIO, handle.fsync)
    assert clients.shown(handle.ino) == b""
    clients.store.fault = lambda verb: None
    clients.slices.lose_power()
    handle.fsync()
    clients.slices.lose_power()
    assert clients.shown(handle.ino) == b"a" * count
    handle.close()


def test_damaged_missing_and_short_slices_are_errors_that_name_them(clients: Clients) -> None:
    one = clients.client(cache_bytes=0, readahead_bytes=0)
    handle = clients.file(one)
    handle.write(0, b"abc")
    handle.fsync()
    clients.store.fault = lambda verb: (
        CorruptError("bytes are not those stored", where="slice 1") if verb == "read" else None
    )
    assert "slice 1" in str(refused(errno.EIO, handle.read, 0, 3))
    clients.store.fault = lambda verb: None
    clients.store.short = True
    refused(errno.EIO, handle.read, 0, 3)
    clients.store.short = False
    clients.slices.remove(list(clients.slices.inventory()))
    assert "slice 1" in str(refused(errno.EIO, handle.read, 0, 3))
    handle.close()


def test_a_lost_session_refuses_loudly_and_the_next_file_gets_a_new_one(clients: Clients) -> None:
    one = clients.client(session_seconds=60)
    handle = clients.file(one)
    number = one.session.number
    handle.write(0, b"abc")
    clients.wait(61)
    refused(errno.ESTALE, handle.write, 0, b"x")
    refused(errno.ESTALE, handle.read, 0, 1)
    refused(errno.ESTALE, handle.fsync)
    refused(errno.ESTALE, handle.close)
    assert one.counters()["waiting_bytes"] == 0
    assert one.counters()["sessions_lost"] == 1
    again = one.open(handle.ino, READ | WRITE)
    assert again.session != number
    assert bytes(again.read(0, 9)) == b""
    again.write(0, b"new")
    again.close()
    assert clients.shown(handle.ino) == b"new"


def test_a_session_lives_while_it_is_renewed(clients: Clients) -> None:
    one = clients.client(session_seconds=60)
    handle = clients.file(one)
    for _ in range(9):
        clients.wait(20)
        one.tick()
    handle.write(0, b"abc")
    handle.close()
    assert one.counters()["sessions_lost"] == 0


def test_a_client_with_threads_renews_its_session_and_leaves_none_behind() -> None:
    clients = Clients()
    before = threading.active_count()
    one = Client(clients.place.volume, clients.store, ClientOptions(session_seconds=0.09))
    for _ in range(200):
        if one.counters()["session_renewals"] >= 2:
            break
        threading.Event().wait(0.02)
    assert one.counters()["session_renewals"] >= 2
    one.close()
    assert threading.active_count() == before


def test_what_the_metadata_refuses_for_good_is_told_to_each_handle_once(clients: Clients) -> None:
    metadata = clients.metadata
    one = clients.client()
    handle = clients.file(one)
    other = one.open(handle.ino, WRITE)
    handle.write(0, b"abc")
    metadata.refusal = errno.EIO
    clients.wait(6)
    one.flush_old()
    metadata.refusal = 0
    late = one.open(handle.ino, WRITE)
    refused(errno.EIO, handle.fsync)
    handle.fsync()
    refused(errno.EIO, other.close)
    late.close()
    handle.close()
    assert one.counters()["dropped_bytes"] == 3
    refused(errno.EFBIG, clients.file(one, b"g").write, 2**58 - 5, b"0123456789")


def test_an_answer_that_got_lost_is_asked_for_and_nothing_is_shown_twice(clients: Clients) -> None:
    one = clients.client(attempts=2)
    handle = clients.file(one)
    other = one.open(handle.ino, READ | WRITE)
    for append in (False, True):
        handle.write(0, b"abc", append=append)
        clients.metadata.lose_answers = 1
        handle.fsync()
    other.write(0, b"def", append=True)
    clients.metadata.lose_answers = 1
    other.close()
    handle.close()
    impatient = clients.client(attempts=1)
    last = impatient.open(handle.ino, WRITE)
    last.write(0, b"x", append=True)
    clients.metadata.lose_answers = 1
    refused(errno.EIO, last.fsync)
    last.fsync()
    last.close()
    assert clients.shown(handle.ino) == b"abcabcdefx"


def test_put_makes_and_replaces_a_whole_file_in_one_step(clients: Clients) -> None:
    one = clients.client()
    made = one.put(Put(ROOT, b"w", 0o640, ()), [b"abc", b"", b"defg"])
    assert (made.made, made.attr.size_bytes, made.attr.mode & 0o777) == (True, 7, 0o640)
    assert clients.shown(made.ino) == b"abcdefg"
    reader = one.open(made.ino, READ)
    again = one.put(Put(ROOT, b"w", 0o600, ()), [b"xy"])
    assert (again.made, again.ino, again.attr.size_bytes) == (False, made.ino, 2)
    assert bytes(reader.read(0, 99)) == b"xy"
    reader.close()
    refused(errno.EEXIST, one.put, Put(ROOT, b"w", 0o600, (), exclusive=True), [b"z"])
    refused(errno.EACCES, one.put, Put(ROOT, b"w", 0o600, ()), [b"z"], caller=Caller(5, 5))
    assert one.put(Put(ROOT, b"empty", 0o600, ()), []).attr.size_bytes == 0


def test_small_files_of_many_threads_share_their_commits(clients: Clients) -> None:
    one = clients.client(threads=True)
    clients.store.gate = threading.Event()

    def work(number: int) -> None:
        one.put(Put(ROOT, b"%d" % number, 0o600, ()), [b"abc"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    clients.store.gate.set()
    for thread in threads:
        thread.join(30)
    facts = one.counters()
    assert facts["commits_served"] == 12
    assert facts["commits"] <= 12
    assert clients.store.calls["write"] == facts["commits"]


def test_a_whole_piece_is_stored_before_anybody_asks(clients: Clients) -> None:
    one = clients.client()
    handle = clients.file(one)
    handle.write(0, b"z" * (PIECE_BYTES + 1))
    assert one.counters()["stored_slices"] == 1
    handle.close()
    with clients.client() as other:
        refused(errno.EINVAL, other.create, Create(ROOT, b"q", 0o600))


def test_a_put_whose_bytes_cannot_be_kept_is_refused_as_any_other(clients: Clients) -> None:
    one = clients.client()
    clients.store.fault = lambda verb: UnavailableError("disks are gone") if verb == "write" else None
    told = refused(errno.EIO, lambda: one.put(Put(ROOT, b"never", 0o600, ()), [b"abc"]))
    assert "disks are gone" in str(told)
    refused(errno.ENOENT, lambda: one.ask(Lookup(ROOT, b"never")))


def test_a_file_is_closed_in_the_session_with_what_is_committed_next(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = clients.client(threads=True), clients.client()
    monkeypatch.setattr(one.works.commits, "settle", lambda: None)  # the client's own thread would be too early
    handle = clients.file(one)
    ino = handle.ino
    handle.write(0, b"abc")
    handle.fsync()
    submitted = clients.metadata.submitted
    handle.close()
    assert clients.metadata.submitted == submitted
    assert other.ask(GetAttr(ino)).attr.opens == 1
    other.ask(Unlink(ROOT, b"f"))
    assert clients.place.volume.run(GetAttr(ino)).attr.nlink == 0
    one.put(Put(ROOT, b"next", 0o600, ()), [b"x"])
    refused(errno.ENOENT, lambda: clients.place.volume.run(GetAttr(ino)))


def test_closing_is_not_put_off_where_a_lock_goes_with_it_nor_without_threads(clients: Clients) -> None:
    one, plain = clients.client(threads=True), clients.client()
    handle = clients.file(one)
    one.ask(SetLock(handle.ino, 7, exclusive=True, whole=True))
    handle.close(owner=7)
    plain.ask(SetLock(clients.file(plain).ino, 8, exclusive=True, whole=True))
    assert one.works.commits.put_off == 0
    assert clients.place.volume.run(GetAttr(handle.ino)).attr.opens == 1  # the other's
    again = clients.file(one, b"g")
    ino = again.ino
    again.close()
    assert one.works.commits.put_off + (1 - clients.place.volume.run(GetAttr(ino)).attr.opens) == 1
    one.works.commits.settle()
    assert clients.place.volume.run(GetAttr(ino)).attr.opens == 0


def test_many_closed_files_do_not_wait_for_ever(clients: Clients) -> None:
    one = clients.client(threads=True)
    for number in range(200):
        clients.file(one, b"%d" % number).close()
    assert one.works.commits.put_off < 64


def test_a_session_that_ends_closes_what_was_put_off(clients: Clients) -> None:
    one = clients.client(threads=True)
    handle = clients.file(one)
    handle.close()
    one.close()
    assert clients.place.volume.run(GetAttr(handle.ino)).attr.opens == 0


def test_attributes_tell_of_extended_ones_while_they_are_believed(clients: Clients) -> None:
    one, strict = clients.client(), clients.client(strict=True)
    handle, same = clients.file(one), strict.open(2, READ)
    assert one.has_no_xattr(handle.ino)
    assert not strict.has_no_xattr(handle.ino)
    assert not one.has_no_xattr(handle.ino + 1)
    one.ask(SetXattr(handle.ino, b"user.a", b"1"))
    assert not one.has_no_xattr(handle.ino)
    handle.attributes()
    assert not one.has_no_xattr(handle.ino)
    clients.wait(2)
    assert not one.has_no_xattr(handle.ino)
    same.close()
    handle.close()
