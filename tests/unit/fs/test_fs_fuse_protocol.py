"""The kernel's FUSE protocol as bytes: what is agreed on, what is answered, and that nothing sent ends the server."""

import errno
import fcntl
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse_kernel import Kernel, lock_body, request

from stoker.core.errors import StoreError
from stoker.fs.fuse import answers
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.dispatch import HANDLERS
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.requests import FORMS, Head
from stoker.fs.fuse.state import Callers
from stoker.fs.meta.records import Attr


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


# -- bytes


def test_sizes_are_those_of_the_kernels_header() -> None:
    sizes = {
        p.IN_HEADER: 40, p.OUT_HEADER: 16, p.ATTR: 88, p.ENTRY_OUT: 40, p.ATTR_OUT: 16, p.OPEN_OUT: 16,
        p.STATFS_OUT: 80,
        p.LOCK: 24, p.DIRENT: 24, p.INIT_OUT: 64, p.STATX_OUT: 32, p.STATX_BODY: 256, p.INVAL_INODE: 24,
    }  # fmt: skip
    assert {form.format: form.size for form in sizes} == {form.format: size for form, size in sizes.items()}
    requests = {
        p.GETATTR: 16, p.SETATTR: 88, p.MKNOD: 16, p.MKDIR: 8, p.RENAME: 8, p.RENAME2: 16, p.LINK: 8, p.OPEN: 8,
        p.READ: 40, p.WRITE: 40, p.RELEASE: 24, p.FSYNC: 16, p.SETXATTR: 8, p.GETXATTR: 8, p.FLUSH: 24, p.SETLK: 48,
        p.ACCESS: 8, p.CREATE: 16, p.INTERRUPT: 8, p.BATCH_FORGET: 8, p.FALLOCATE: 32, p.LSEEK: 24, p.STATX: 24,
        p.COPY_FILE_RANGE: 56, p.FORGET: 8, p.READDIR: 40, p.READDIRPLUS: 40,
    }  # fmt: skip
    assert {code: FORMS[code].fields.size for code in requests} == requests
    assert set(FORMS) == set(HANDLERS)


def test_an_entry_is_these_bytes() -> None:
    attr = Attr(0o100644, 1000, 100, 2, 5, 0, 1, 1_500_000_001, -1, 3 * 10**9, 0)
    assert answers.entry(7, attr, (1, 0), (0, 500_000_000)).hex() == (
        "0700000000000000010000000000000001000000000000000000000000000000000000000065cd1d"
        "070000000000000005000000000000000100000000000000"
        "0100000000000000ffffffffffffffff03000000000000000165cd1dffc99a3b00000000"
        "a481000002000000e803000064000000000000000010000000000000"
    )  # fmt: skip
    assert answers.dirent(9, 3, b"abc", 8).hex() == (
        "0900000000000000030000000000000003000000080000006162630000000000"
    )  # fmt: skip
    assert b"".join(answers.refusal(5, errno.ENOENT)).hex() == "10000000feffffff0500000000000000"
    assert b"".join(answers.inval_inode(9, -1, 0)).hex() == (
        "280000000200000000000000000000000900000000000000ffffffffffffffff0000000000000000"
    )  # fmt: skip


def test_greeting_takes_what_is_wanted_of_what_is_offered(kernel: Kernel) -> None:
    assert kernel.error == 0
    major, minor, readahead, flags, background, _, max_write, gran, pages, _, flags2 = p.INIT_OUT.unpack(kernel.init)
    assert (major, minor, readahead, max_write, gran, pages) == (7, 40, 131072, 1 << 20, 1, 256)
    assert (flags | flags2 << 32, background > 1) == (p.WANTED, True)
    few = struct.pack("=IIII", 7, 31, 4096, p.ASYNC_READ | p.BIG_WRITES)
    assert p.INIT_OUT.unpack(kernel.done(p.INIT, 0, few))[:4] == (7, 31, 4096, p.ASYNC_READ | p.BIG_WRITES)


def test_greeting_refuses_an_old_kernel_and_lets_a_newer_one_ask_again(kernel: Kernel) -> None:
    assert kernel.ask(p.INIT, 0, struct.pack("=IIII", 7, 30, 0, 0))[0] == errno.EPROTO
    assert kernel.ask(p.INIT, 0, b"\x07\0\0\0")[0] == errno.EPROTO
    assert p.INIT_OUT.unpack(kernel.done(p.INIT, 0, struct.pack("=IIII", 8, 0, 0, 0)))[:2] == (7, 40)
    assert kernel.dispatcher.greeting is None
    assert kernel.ask(p.GETATTR, 1, bytes(16))[0] == errno.EIO  # nothing is served before the greeting


# -- hostile requests


def test_whatever_is_sent_is_answered_and_the_next_request_is_served(kernel: Kernel) -> None:
    rng = random.Random(20)
    ino, number = kernel.made(b"there")
    for opcode in [*FORMS, 0, 7, 37, 39, 40, 41, 48, 51, 200, 4096, 2**32 - 1]:
        if opcode in (p.INIT, p.SETLKW):
            continue
        for size in (0, 1, 7, 8, 16, 39, 40, 88, 200, 5000):
            for node in (0, 1, ino, 2**64 - 1):
                body = rng.randbytes(size) if size % 2 else struct.pack("=Q", number) + bytes(size)
                unique = rng.getrandbits(63)
                answer = kernel.give(request(opcode, unique, node, body))
                assert (answer is None) == (opcode in p.SILENT)
                if answer is not None:
                    data = b"".join(answer.buffers)
                    length, error, told = p.OUT_HEADER.unpack_from(data)
                    assert (length, told) == (len(data), unique)
                    assert -error in errno.errorcode or not error
                    assert opcode in HANDLERS or -error == errno.ENOSYS
        kernel.done(p.GETATTR, 1, bytes(16))
    for text in kernel.complaints:
        assert "Error: " not in text, text  # none is a mistake of ours


@pytest.mark.parametrize("message", [b"", b"\0" * 39, b"\xff" * 40, b"\0" * 5000, request(1, 1, 1, b"a\0")[:-1]])
def test_bytes_that_are_no_request_are_told_and_passed_over(kernel: Kernel, message: bytes) -> None:
    assert kernel.give(message) is None
    assert kernel.complaints == [f"the kernel sent {len(message)} bytes that are no request"]


def test_lengths_that_a_request_tells_are_not_believed(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    write = struct.pack("=QQIIQII", number, 0, 1 << 30, 0, 0, 0, 0)
    assert kernel.ask(p.WRITE, ino, write + b"data")[0] == errno.EINVAL
    assert kernel.ask(p.SETXATTR, ino, struct.pack("=II", 5000, 0) + b"user.a\0short")[0] == errno.EINVAL
    assert kernel.ask(p.LOOKUP, 1, b"no end")[0] == errno.EINVAL
    assert kernel.ask(p.LOOKUP, 1, b"x" * 5000 + b"\0")[0] == errno.ENAMETOOLONG
    assert kernel.ask(p.LOOKUP, 1, b"x" * 256 + b"\0")[0] == errno.ENAMETOOLONG
    assert kernel.ask(p.RENAME, 1, struct.pack("=Q", 1) + b"one\0two")[0] == errno.EINVAL
    assert kernel.ask(p.BATCH_FORGET, 0, struct.pack("=II", 2**32 - 1, 0) + bytes(24)) == (-1, b"")
    assert kernel.ask(p.READ, ino, struct.pack("=QQIIQII", number, 0, 2**32 - 1, 0, 0, 0, 0)) == (0, b"")


def test_what_one_handle_is_another_is_not(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    other, _ = kernel.made(b"g")
    folder = struct.unpack_from("=Q", kernel.done(p.OPENDIR, 1, bytes(8)))[0]
    read = lambda handle: struct.pack("=QQIIQII", handle, 0, 100, 0, 0, 0, 0)  # noqa: E731
    assert kernel.ask(p.READ, other, read(number))[0] == errno.EBADF
    assert kernel.ask(p.READ, 1, read(folder))[0] == errno.EBADF
    assert kernel.ask(p.READDIR, 1, read(number))[0] == errno.EBADF
    assert kernel.ask(p.READDIR, ino, read(folder))[0] == errno.EBADF
    assert kernel.ask(p.READ, ino, read(12345))[0] == errno.EBADF
    release = struct.pack("=QIIQ", number, 0, 0, 0)
    assert kernel.ask(p.RELEASE, ino, release) == (0, b"")
    assert kernel.ask(p.RELEASE, ino, release)[0] == errno.EBADF


def test_a_mount_to_read_refuses_every_change() -> None:
    kernel = Kernel(MountOptions(read_only=True))
    try:
        assert kernel.ask(p.MKDIR, 1, struct.pack("=II", 0o755, 0) + b"d\0")[0] == errno.EROFS
        kernel.done(p.STATFS, 1)
    finally:
        kernel.close()


# -- what the kernel is told, it forgets


def test_lookups_are_counted_and_forgotten(kernel: Kernel) -> None:
    ino, _ = kernel.made(b"f")
    kernel.done(p.LOOKUP, 1, b"f\0")
    assert kernel.state.inodes.count(ino) == 2
    kernel.ask(p.FORGET, ino, struct.pack("=Q", 1))
    assert kernel.state.inodes.count(ino) == 1
    kernel.ask(p.BATCH_FORGET, 0, struct.pack("=II", 1, 0) + struct.pack("=QQ", ino, 5))
    assert (kernel.state.inodes.count(ino), len(kernel.state.inodes)) == (0, 0)


def test_an_answer_that_the_kernel_does_not_take_is_taken_back(kernel: Kernel) -> None:
    body = struct.pack("=IIII", os.O_CREAT | os.O_RDWR, 0o100644, 0, 0) + b"f\0"
    answer = kernel.give(request(p.CREATE, 99, 1, body))
    assert (len(kernel.state.inodes), len(kernel.state.handles)) == (1, 1)
    answer.undo()
    assert (len(kernel.state.inodes), len(kernel.state.handles)) == (0, 0)
    ino = struct.unpack_from("=Q", kernel.done(p.LOOKUP, 1, b"f\0"))[0]
    kernel.give(request(p.OPEN, 101, ino, struct.pack("=II", 0, 0))).undo()
    folder = struct.unpack_from("=Q", kernel.done(p.OPENDIR, 1, bytes(8)))[0]
    listing = kernel.give(request(p.READDIRPLUS, 103, 1, struct.pack("=QQIIQII", folder, 0, 4096, 0, 0, 0, 0)))
    assert kernel.state.inodes.count(ino) == 2
    listing.undo()
    assert (kernel.state.inodes.count(ino), len(kernel.state.handles)) == (1, 1)


# -- directories


def test_a_directory_is_read_on_whatever_is_removed_meanwhile(kernel: Kernel) -> None:
    names = [f"{index:04}".encode() for index in range(700)]
    for name in names:
        kernel.done(p.MKDIR, 1, struct.pack("=II", 0o755, 0) + name + b"\0")
    number = struct.unpack_from("=Q", kernel.done(p.OPENDIR, 1, bytes(8)))[0]
    seen: list[bytes] = []
    places: dict[bytes, int] = {}
    offset = 0
    while found := kernel.listed(number, offset, 600, plus=len(seen) % 3 == 0):
        seen += [name for name, _, _ in found]
        places |= {name: after for name, _, after in found}
        offset = found[-1][2]
        if found[0][0] not in (b".", b".."):
            kernel.done(p.RMDIR, 1, found[0][0] + b"\0")
    assert seen == [b".", b"..", *names]
    left = [name for name, _, _ in kernel.listed(number, 0, 1 << 20)][2:]
    assert 0 < len(left) < len(names)
    behind = [name for name, _, _ in kernel.listed(number, 2 + 100, 1 << 20)]
    assert behind == left[100:]
    body = struct.pack("=QQIIQII", number, 10**9, 4096, 0, 0, 0, 0)
    assert kernel.ask(p.READDIR, 1, body)[0] == errno.EINVAL
    body = struct.pack("=QQIIQII", number, 0, 16, 0, 0, 0, 0)
    assert kernel.ask(p.READDIR, 1, body)[0] == errno.EINVAL  # not even one name fits


# -- locks


def test_who_waits_for_a_lock_gets_it_when_it_is_free_and_can_be_interrupted(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    assert kernel.ask(p.SETLK, ino, lock_body(number, 1, fcntl.F_WRLCK, 0, 9))[0] == 0
    assert kernel.ask(p.SETLK, ino, lock_body(number, 2, fcntl.F_RDLCK, 5, 20))[0] == errno.EAGAIN
    held = p.LOCK.unpack(kernel.done(p.GETLK, ino, lock_body(number, 2, fcntl.F_RDLCK, 5, 20)))
    assert held == (0, 9, fcntl.F_WRLCK, 77)
    assert kernel.ask(p.SETLKW, ino, lock_body(number, 2, fcntl.F_WRLCK, 5, 20)) == (-1, b"")
    first = kernel.unique
    assert kernel.ask(p.SETLKW, ino, lock_body(number, 3, fcntl.F_WRLCK, 5, 20)) == (-1, b"")
    second = kernel.unique
    kernel.ask(p.INTERRUPT, 0, struct.pack("=Q", second))
    assert kernel.later == [(second, errno.EINTR)]
    assert kernel.ask(p.SETLK, ino, lock_body(number, 1, fcntl.F_UNLCK))[0] == 0
    deadline = time.monotonic() + 20
    while len(kernel.later) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert kernel.later[1] == (first, 0)
    assert kernel.ask(p.FLUSH, ino, struct.pack("=QIIQ", number, 0, 0, 2))[0] == 0  # owner 2 closes: its locks go
    assert kernel.ask(p.SETLK, ino, lock_body(number, 4, fcntl.F_WRLCK, 5, 20))[0] == 0


def test_an_interrupt_that_comes_before_the_wait_counts(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    kernel.done(p.SETLK, ino, lock_body(number, 1, fcntl.F_WRLCK))
    kernel.ask(p.INTERRUPT, 0, struct.pack("=Q", kernel.unique + 4))
    assert kernel.ask(p.SETLKW, ino, lock_body(number, 2, fcntl.F_WRLCK))[0] == errno.EINTR


def test_those_who_would_wait_for_each_other_are_told(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    kernel.done(p.SETLK, ino, lock_body(number, 1, fcntl.F_WRLCK, 0, 0))
    kernel.done(p.SETLK, ino, lock_body(number, 2, fcntl.F_WRLCK, 1, 1))
    assert kernel.ask(p.SETLKW, ino, lock_body(number, 1, fcntl.F_WRLCK, 1, 1))[0] == -1
    assert kernel.ask(p.SETLKW, ino, lock_body(number, 2, fcntl.F_WRLCK, 0, 0))[0] == errno.EDEADLK


def test_a_lock_has_a_kind_and_an_end(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    assert kernel.ask(p.SETLK, ino, lock_body(number, 1, 9))[0] == errno.EINVAL
    assert kernel.ask(p.SETLK, ino, lock_body(number, 1, fcntl.F_WRLCK, 5, 4))[0] == errno.EINVAL
    assert kernel.ask(p.SETLK, ino, lock_body(number, 1, fcntl.F_WRLCK, 0, 2**64 - 1))[0] == errno.EINVAL
    assert kernel.ask(p.GETLK, ino, lock_body(number, 1, fcntl.F_UNLCK))[0] == errno.EINVAL


# -- opening


def test_opening_drops_what_the_kernel_believes_of_data_that_others_changed(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")
    opened = lambda: p.OPEN_OUT.unpack(kernel.done(p.OPEN, ino, struct.pack("=II", os.O_RDWR, 0)))[1]  # noqa: E731
    assert opened() == p.FOPEN_KEEP_CACHE
    assert kernel.notices == []
    with kernel.volume.session() as other:
        kernel.volume.submit([])
        from stoker.fs.meta.calls import Fallocate, Open

        kernel.volume.run(Open(ino, 2), session=other)
        kernel.volume.run(Fallocate(ino, 0, 0, 100), session=other)
    assert opened() == 0
    assert kernel.notices == [b"".join(answers.inval_inode(ino, -1, 0))]
    assert opened() == p.FOPEN_KEEP_CACHE
    append = p.OPEN_OUT.unpack(kernel.done(p.OPEN, ino, struct.pack("=II", os.O_WRONLY | os.O_APPEND, 0)))[1]
    assert append & p.FOPEN_DIRECT_IO
    assert number


def test_a_page_of_a_map_that_is_written_through_a_file_opened_to_append_keeps_its_place(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    write = lambda offset, flags: struct.pack("=QQIIQII", number, offset, 4, flags, 0, 0, 0) + b"data"  # noqa: E731
    for offset, flags in ((0, 0), (0, 0), (1, p.WRITE_CACHE)):
        kernel.done(p.WRITE, ino, write(offset, flags))
    assert kernel.done(p.READ, ino, struct.pack("=QQIIQII", number, 0, 100, 0, 0, 0, 0)) == b"ddataata"


# -- callers and failures


def test_groups_of_a_process_are_read_and_believed_for_a_second(tmp_path: Path) -> None:
    now = 0.0
    callers = Callers(clock=lambda: now, proc=tmp_path)
    head = Head(1, 1, 1, 1000, 100, 42)
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "status").write_text("Name:\tx\nGroups:\t4 24 x\n")
    assert callers.of(head).groups == (4, 24)
    (tmp_path / "42" / "status").write_text("Groups:\t\n")
    assert callers.of(head).groups == (4, 24)
    now = 1.5
    assert callers.of(head).groups == ()
    assert callers.of(Head(1, 1, 1, 1000, 100, 43)).groups == ()
    assert callers.of(Head(1, 1, 1, 0, 5, 42)).gid == 5


def test_a_failing_store_is_an_error_of_the_request_and_is_told(kernel: Kernel) -> None:
    ino, number = kernel.made(b"f")

    def broken(*_: object, **__: object) -> None:
        raise StoreError("disk is broken", where="disk 3")

    write, kernel.client.store.write = kernel.client.store.write, broken  # type: ignore[method-assign,assignment]
    kernel.done(p.WRITE, ino, struct.pack("=QQIIQII", number, 0, 4, 0, 0, 0, 0) + b"data")
    assert kernel.ask(p.FSYNC, ino, struct.pack("=QII", number, 0, 0))[0] == errno.EIO
    assert "disk is broken" in kernel.complaints[0]
    kernel.client.store.write = write  # type: ignore[method-assign]
    kernel.done(p.FSYNC, ino, struct.pack("=QII", number, 0, 0))
