"""Files on a real mount, as any program sees them: names, links, locks, attributes, lists, holes, maps, two mounts."""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse_place import Mounts, mounted, need_fuse, sound

from stoker.core.errors import UsageError
from stoker.fs.fuse.mounting import DEVICE, unmount
from stoker.fs.fuse.table import mount_at, refuse_taken

_libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    with mounted(tmp_path_factory.mktemp("mounts"), 2) as given:
        yield given
        given.stop()
        sound(given.url)


@pytest.fixture
def one(mounts: Mounts, request: pytest.FixtureRequest) -> Path:
    folder = mounts.points[0] / request.node.name
    folder.mkdir()
    return folder


@pytest.fixture
def two(mounts: Mounts, one: Path) -> Path:
    return mounts.points[1] / one.name


def fails(number: int, call: object, *arguments: object, **named: object) -> None:
    with pytest.raises(OSError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    assert caught.value.errno == number, caught.value


def renameat2(source: Path, target: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# -- names


def test_names_links_and_renames(one: Path) -> None:
    (one / "a" / "b").mkdir(parents=True)
    (one / "f").write_bytes(b"hello")
    os.link(one / "f", one / "a" / "g")
    os.symlink("../f", one / "a" / "s")
    assert (one / "a" / "s").read_bytes() == b"hello"
    assert (one / "f").stat().st_nlink == 2
    assert (one / "f").stat().st_ino == (one / "a" / "g").stat().st_ino
    fails(errno.EEXIST, renameat2, one / "f", one / "a" / "g", RENAME_NOREPLACE)
    renameat2(one / "a", one / "f", RENAME_EXCHANGE)
    assert (one / "a").read_bytes() == b"hello"
    assert sorted(os.listdir(one / "f")) == ["b", "g", "s"]
    fails(errno.EINVAL, os.rename, one / "f", one / "f" / "b" / "x")
    fails(errno.ENOTEMPTY, os.rmdir, one / "f")
    fails(errno.ENAMETOOLONG, (one / ("n" * 256)).touch)
    os.mkfifo(one / "fifo")
    os.mknod(one / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert os.major((one / "null").stat().st_rdev) == 1
    assert stat.S_ISFIFO((one / "fifo").stat().st_mode)
    assert (one.parent / one.name / "a").stat().st_nlink == 2


def test_many_names_are_listed_while_they_are_removed(one: Path) -> None:
    names = {f"{index:05}" for index in range(600)}
    for name in names:
        (one / name).touch()
    seen = set()
    with os.scandir(one) as entries:
        for entry in entries:
            seen.add(entry.name)
            os.unlink(entry.path)
    assert seen == names
    assert os.listdir(one) == []


def test_a_file_lives_on_without_a_name_while_it_is_open(one: Path, two: Path) -> None:
    (one / "f").write_bytes(b"still here")
    with (one / "f").open("rb") as file, (two / "f").open("rb") as other:
        (two / "f").unlink()
        assert os.listdir(one) == []
        assert os.read(file.fileno(), 100) == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.pread(other.fileno(), 100, 0) == b"still here"
    folder = os.open(one, os.O_RDONLY)
    try:
        one.rmdir()
        fails(errno.ESTALE, os.fstat, folder)
        fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    finally:
        os.close(folder)


def test_another_user_may_do_what_the_modes_allow(one: Path) -> None:
    (one / "secret").write_text("s")
    (one / "secret").chmod(0o600)
    (one / "group").write_text("g")
    (one / "group").chmod(0o040)
    os.chown(one / "group", 0, 4321)
    program = """
import os, sys
os.setgroups([int(g) for g in sys.argv[2:]]); os.setgid(65534); os.setuid(65534)
try: print(open(sys.argv[1]).read(), end="")
except PermissionError: print("refused", end="")
"""

    def read_as(path: Path, *groups: int) -> str:
        words = [sys.executable, "-c", program, path.name, *map(str, groups)]
        return subprocess.run(words, cwd=one, capture_output=True, text=True, check=True).stdout

    assert read_as(one / "secret") == "refused"
    assert read_as(one / "group") == "refused"
    assert read_as(one / "group", 4321) == "g"


# -- attributes


def test_times_modes_and_owners(one: Path) -> None:
    path = one / "f"
    path.touch()
    for moment in (0, -1, 1_500_000_000_123_456_789, 2**32 * 10**9 + 7, -5 * 10**9 - 3):
        os.utime(path, ns=(moment, moment + 1))
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (moment, moment + 1)
    path.chmod(0o4755)
    os.chown(path, 5, 6)
    told = path.stat()
    assert (told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)) == (5, 6, 0o755)
    before = one.stat().st_mtime_ns
    (one / "g").touch()
    assert one.stat().st_mtime_ns > before
    usage = os.statvfs(one)
    assert usage.f_namemax == 255
    assert usage.f_bavail > 0


def test_extended_attributes(one: Path) -> None:
    path = one / "f"
    path.touch()
    os.setxattr(path, "user.a", b"value")
    os.setxattr(path, "trusted.b", b"x" * 60_000)
    assert os.getxattr(path, "user.a") == b"value"
    assert sorted(os.listxattr(path)) == ["trusted.b", "user.a"]
    fails(errno.EEXIST, os.setxattr, path, "user.a", b"", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, "user.c", b"", os.XATTR_REPLACE)
    os.removexattr(path, "user.a")
    fails(errno.ENODATA, os.getxattr, path, "user.a")
    fails(errno.EOPNOTSUPP, os.setxattr, path, "other.a", b"")


def test_access_lists_decide_and_are_inherited(one: Path) -> None:
    entries = lambda *rows: struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)  # noqa: E731
    none = 2**32 - 1
    acl = entries((1, 7, none), (2, 4, 65534), (4, 0, none), (16, 4, none), (32, 0, none))
    path = one / "f"
    path.write_text("listed")
    os.setxattr(path, "system.posix_acl_access", acl)
    assert stat.S_IMODE(path.stat().st_mode) == 0o740
    assert os.getxattr(path, "system.posix_acl_access") == acl
    program = "import os,sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); print(open(sys.argv[1]).read())"
    words = [sys.executable, "-c", program, path.name]
    assert subprocess.run(words, cwd=one, capture_output=True, text=True).stdout == "listed\n"
    path.chmod(0o700)
    assert b"Permission" in subprocess.run(words, cwd=one, capture_output=True).stderr
    os.setxattr(one, "system.posix_acl_default", acl)
    (one / "child").touch(0o666)
    inherited = struct.unpack_from("<HHI", os.getxattr(one / "child", "system.posix_acl_access"), 4 + 8)
    assert inherited == (2, 4, 65534)


# -- bytes


def test_holes_allocation_and_copies_by_reference(one: Path) -> None:
    path = one / "f"
    with path.open("w+b") as file:
        handle = file.fileno()
        os.pwrite(handle, b"end", 3 << 20)
        assert os.pread(handle, 10, 5) == bytes(10)
        assert os.lseek(handle, 0, os.SEEK_DATA) == 3 << 20
        assert os.lseek(handle, 0, os.SEEK_HOLE) == 0
        assert os.lseek(handle, 3 << 20, os.SEEK_HOLE) == (3 << 20) + 3
        fails(errno.ENXIO, os.lseek, handle, 4 << 20, os.SEEK_DATA)
        os.posix_fallocate(handle, 0, 5 << 20)
        assert os.fstat(handle).st_size == 5 << 20
        os.pwrite(handle, b"x" * 100_000, 0)
        _libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        assert _libc.fallocate(handle, 3, 1000, 5000) == 0
        assert os.pread(handle, 7000, 0) == b"x" * 1000 + bytes(5000) + b"x" * 1000
        os.ftruncate(handle, 50)
        os.ftruncate(handle, 100)
        assert os.pread(handle, 200, 0) == b"x" * 50 + bytes(50)
    with path.open("rb") as source, (one / "copy").open("w+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 1 << 20, 0, 10) == 100
        assert os.pread(target.fileno(), 200, 0) == bytes(10) + b"x" * 50 + bytes(50)


def test_a_map_is_the_file(one: Path) -> None:
    path = one / "f"
    path.write_bytes(bytes(20_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 20_000) as mapped:
        mapped[5000:5005] = b"mmap!"
        mapped.flush()
        assert os.pread(file.fileno(), 5, 5000) == b"mmap!"
        os.pwrite(file.fileno(), b"write", 9000)
        assert mapped[9000:9005] == b"write"
    assert path.read_bytes()[5000:5005] == b"mmap!"


def test_what_one_mount_closed_the_other_opens(one: Path, two: Path) -> None:
    for index in range(30):
        data = os.urandom(index * 700 + 1)
        (one / "f").write_bytes(data)
        assert (two / "f").read_bytes() == data
        (two / "f").write_bytes(data[::-1] + b"more")
        assert (one / "f").read_bytes() == data[::-1] + b"more"


def test_lines_appended_by_two_mounts_are_all_there(one: Path, two: Path) -> None:
    program = """
import sys
file = open(sys.argv[1], "ab", buffering=0)
for index in range(200):
    file.write(b"%s %4d\\n" % (sys.argv[2].encode(), index))
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(folder / "log"), name])
        for folder in (one, two)
        for name in (f"{folder.parent.name}-a", f"{folder.parent.name}-b")
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    lines = (one / "log").read_text().splitlines()
    expected = [f"mount{m}-{w} {i:4}" for m in (0, 1) for w in "ab" for i in range(200)]
    assert sorted(lines) == sorted(expected)
    assert (two / "log").read_text().splitlines() == lines


# -- locks


def test_locks_of_two_mounts_see_each_other(one: Path, two: Path) -> None:
    (one / "f").touch()
    with (one / "f").open("r+b") as mine, (two / "f").open("r+b") as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX)
        fails(errno.EAGAIN, fcntl.flock, theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
        taken = threading.Event()
        waiter = threading.Thread(target=lambda: (fcntl.flock(theirs, fcntl.LOCK_EX), taken.set()))
        waiter.start()
        assert not taken.wait(0.1)
        fcntl.flock(mine, fcntl.LOCK_UN)
        assert taken.wait(20)
        waiter.join()
        fcntl.flock(theirs, fcntl.LOCK_UN)
        fcntl.lockf(mine, fcntl.LOCK_EX, 10, 0)
        fcntl.lockf(mine, fcntl.LOCK_SH, 10, 100)
        program = """
import fcntl, sys
f = open(sys.argv[1], "r+b")
fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 100)
try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)
except OSError as e: print(e.errno)
"""
        words = [sys.executable, "-c", program, str(two / "f")]
        child = subprocess.run(words, capture_output=True, text=True, check=True)
        assert child.stdout == f"{errno.EAGAIN}\n"


def test_who_gets_a_lock_sees_what_was_written_under_it(one: Path, two: Path) -> None:
    (one / "f").write_bytes(bytes(8))
    handles = [os.open(folder / "f", os.O_RDWR) for folder in (one, two)]
    for turn in range(40):
        handle = handles[turn % 2]
        fcntl.lockf(handle, fcntl.LOCK_EX)
        assert int.from_bytes(os.pread(handle, 8, 0), "big") == turn
        os.pwrite(handle, (turn + 1).to_bytes(8, "big"), 0)
        os.pwrite(handle, b"x", 8 + turn)
        assert os.fstat(handle).st_size == 9 + turn
        fcntl.lockf(handle, fcntl.LOCK_UN)
    for handle in handles:
        os.close(handle)


def test_a_program_that_waits_for_a_lock_can_be_killed(one: Path) -> None:
    (one / "f").touch()
    with (one / "f").open("r+b") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX)
        program = "import fcntl,sys; f=open(sys.argv[1],'r+b'); print('open',flush=True); fcntl.lockf(f,fcntl.LOCK_EX)"
        waiter = subprocess.Popen([sys.executable, "-c", program, str(one / "f")], stdout=subprocess.PIPE)
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == b"open\n"
        time.sleep(0.1)
        waiter.send_signal(signal.SIGTERM)
        assert waiter.wait(20) == -signal.SIGTERM
        waiter.stdout.close()
        fcntl.lockf(mine, fcntl.LOCK_UN)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- mounts come and go


def test_a_taken_place_is_refused_and_a_killed_server_can_be_cleaned_up(tmp_path: Path) -> None:
    with mounted(tmp_path) as mounts:
        point = mounts.points[0]
        (point / "f").write_text("kept")
        with pytest.raises(UsageError, match="a volume is mounted there already"):
            refuse_taken(point)
        os.kill(mounts.process.pid, signal.SIGKILL)
        mounts.process.wait()
        fails(errno.ENOTCONN, os.listdir, point)
        with pytest.raises(UsageError, match="stoker fs umount"):
            refuse_taken(point)
        assert unmount(point).kind == "fuse.stoker"
        assert mount_at(point) is None
        with pytest.raises(UsageError, match="no volume is mounted there"):
            unmount(point)


def test_a_server_that_is_told_to_end_unmounts_though_it_is_in_use(tmp_path: Path) -> None:
    with mounted(tmp_path) as mounts:
        handle = os.open(mounts.points[0] / "f", os.O_CREAT | os.O_RDWR)
        os.write(handle, b"x" * 5000)
        mounts.process.send_signal(signal.SIGTERM)
        assert mounts.process.wait(30) == 0
        assert mount_at(mounts.points[0]) is None
        fails(errno.ENOTCONN, os.fstat, handle)
        fails(errno.ENOTCONN, os.close, handle)
        sound(mounts.url)


def test_who_is_not_root_mounts_by_the_helper_and_shuts_others_out() -> None:
    if shutil.which("fusermount3") is None:
        pytest.skip("there is no fusermount3 (package fuse3)")
    need_fuse()
    if DEVICE.stat().st_mode & 0o006 != 0o006:
        pytest.skip(f"{DEVICE} is not open to all")
    uid = 65534
    with tempfile.TemporaryDirectory() as name, mounted(Path(name), uid=uid) as mounts:
        program = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chdir(sys.argv[1])
open("f", "w").write("mine")
os.link("f", "g")
print(os.stat("g").st_uid, os.stat("g").st_nlink, open("g").read())
"""
        words = [sys.executable, "-c", program, str(mounts.points[0])]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.stdout == f"{uid} 2 mine\n", done.stderr
        fails(errno.EACCES, os.listdir, mounts.points[0])  # not even root may look in
        found = mount_at(mounts.points[0])
        assert found is not None
        assert found.kind == "fuse.stoker"
        mounts.stop()
        assert mounts.process.returncode == 0
        assert mount_at(mounts.points[0]) is None
        sound(mounts.url)
