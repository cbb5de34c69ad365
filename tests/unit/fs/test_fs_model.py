"""A volume and a plain directory of this machine do the same: the same errno for each step, the same tree behind it."""

import errno
import itertools
import os
import shutil
import stat
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from real_tree import IS_ROOT, RealTree, VolumeTree, callers, real_picture, volume_picture

from stoker.fs.meta import MetaError, Tree, Volume, fsck
from stoker.fs.meta.acl import ACCESS_NAME, DEFAULT_NAME
from stoker.fs.meta.calls import Caller

NAMES = [b"a", b"b", b"c", b"dir", b"n" * 255]
BAD_NAMES = [b"", b"n" * 256, b".", b"a/", b"dir/", b"/".join([b"x" * 200] * 21)]
MODES = [0o755, 0o700, 0o777, 0o750, 0o070, 0o007, 0o555, 0o644, 0o000, 0o2775, 0o1775, 0o4755, 0o6711]
paths = st.one_of(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(b"/".join),
    st.sampled_from(BAD_NAMES),
)
points = st.one_of(st.sampled_from(NAMES), st.sampled_from([b"a/b", b"dir/a", b"dir", b"absent/x", b"./b"]))
who = st.sampled_from(callers())
modes = st.sampled_from(MODES)
owners = st.sampled_from([None, 0, 1000, 1001, 1002]) if IS_ROOT else st.sampled_from([None, os.geteuid()])
groups = st.sampled_from([None, 0, 1000, 1001, 1002]) if IS_ROOT else st.sampled_from([None, os.getegid()])


xattrs = st.sampled_from([b"user.a", b"user.b", b"trusted.a", b"user.", b"odd.a", ACCESS_NAME, DEFAULT_NAME])
LOOKS = ("stat", "readlink", "listdir", "access", "getxattr", "listxattr")
NO_ID = 0xFFFFFFFF


def packed(entries: list[tuple[int, int, int]]) -> bytes:
    """Linux's bytes of an access control list: tag, permissions, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@st.composite
def access_lists(draw: st.DrawFn) -> bytes:
    """A list that is mostly a good one."""
    bits = st.sampled_from([0, 1, 4, 5, 6, 7])
    entries = [(1, draw(bits), NO_ID)]
    entries += [(2, draw(bits), uid) for uid in sorted(draw(st.sets(st.sampled_from([1000, 1001]))))]
    entries += [(4, draw(bits), NO_ID)]
    entries += [(8, draw(bits), gid) for gid in sorted(draw(st.sets(st.sampled_from([1000, 1002]))))]
    if len(entries) > 2 or draw(st.booleans()):
        entries.append((16, draw(bits), NO_ID))
    entries.append((32, draw(bits), NO_ID))
    if draw(st.integers(0, 9)) == 0:
        entries.pop(draw(st.integers(0, len(entries) - 1)))
    return packed(entries)


lists = access_lists()


@cache
def supports(device: int, folder: Path, name: bytes, value: bytes) -> bool:
    """Tell whether the file system under the folder takes an extended attribute."""
    probe = folder / "probe"
    probe.mkdir()
    try:
        os.setxattr(probe, name, value)
    except OSError:
        return False
    finally:
        probe.rmdir()
    return True


def has_xattrs(inside: Path) -> bool:
    return supports(0, Path(tempfile.gettempdir()), b"user.probe", b"") and inside.is_dir()


def has_lists(inside: Path) -> bool:
    good = packed([(1, 7, NO_ID), (2, 7, 1000), (4, 7, NO_ID), (16, 7, NO_ID), (32, 7, NO_ID)])
    return supports(0, Path(tempfile.gettempdir()), ACCESS_NAME, good) and inside.is_dir()


class Model(RuleBasedStateMachine):
    """Each rule does one thing in both worlds."""

    def __init__(self) -> None:
        super().__init__()
        # Not a folder of pytest's: those are closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-model-"))
        self.inside = self.folder / "root"
        self.inside.mkdir()
        self.folder.chmod(0o755)
        self.inside.chmod(0o777)
        me = Caller(os.geteuid(), os.getegid())
        self.volume = Volume.format("memory://", mode=0o777, owner=me)

    def teardown(self) -> None:
        try:
            assert volume_picture(Tree(self.volume)) == real_picture(self.inside) or not IS_ROOT
        finally:
            for path in self.inside.rglob("*"):
                if stat.S_ISDIR(path.lstat().st_mode):
                    path.chmod(0o700)
            shutil.rmtree(self.folder)

    def both(self, caller: Caller, verb: str, *arguments: Any) -> None:
        real = outcome(RealTree(self.inside, caller), verb, *arguments)
        ours = outcome(VolumeTree(Tree(self.volume, caller)), verb, *arguments)
        assert ours == real, (verb, arguments, caller)
        if verb not in LOOKS:
            assert fsck(self.volume.engine) == []

    @rule(caller=who, path=paths, mode=modes)
    def create(self, caller: Caller, path: bytes, mode: int) -> None:
        self.both(caller, "create", path, mode)

    @rule(caller=who, path=paths, mode=modes)
    def mkdir(self, caller: Caller, path: bytes, mode: int) -> None:
        self.both(caller, "mkdir", path, mode & 0o1777)

    @rule(caller=who, path=paths, mode=modes, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, 0]))
    def mknod(self, caller: Caller, path: bytes, mode: int, kind: int) -> None:
        self.both(caller, "mknod", path, kind | mode)

    @rule(caller=who, points_to=points, path=paths)
    def symlink(self, caller: Caller, points_to: bytes, path: bytes) -> None:
        self.both(caller, "symlink", points_to, path)

    @rule(source=paths, path=paths)
    def link(self, source: bytes, path: bytes) -> None:
        # As the first caller alone: Linux's protected_hardlinks is a rule of the kernel, not of a file system.
        self.both(callers()[0], "link", source, path)

    @rule(caller=who, path=paths)
    def unlink(self, caller: Caller, path: bytes) -> None:
        self.both(caller, "unlink", path)

    @rule(caller=who, path=paths)
    def rmdir(self, caller: Caller, path: bytes) -> None:
        self.both(caller, "rmdir", path)

    @rule(caller=who, source=paths, goal=paths, flags=st.sampled_from([0, 0, 0, 1, 2, 3]))
    def rename(self, caller: Caller, source: bytes, goal: bytes, flags: int) -> None:
        self.both(caller, "rename", source, goal, flags)

    @rule(caller=who, path=paths, mode=modes)
    def chmod(self, caller: Caller, path: bytes, mode: int) -> None:
        self.both(caller, "chmod", path, mode)

    @rule(caller=who, path=paths, uid=owners, gid=groups)
    def chown(self, caller: Caller, path: bytes, uid: int | None, gid: int | None) -> None:
        if uid is not None or gid is not None:
            self.both(caller, "chown", path, uid, gid)

    @rule(caller=who, path=paths, size_bytes=st.sampled_from([0, 1, 4096, 100_000_000, -1]))
    def truncate(self, caller: Caller, path: bytes, size_bytes: int) -> None:
        self.both(caller, "truncate", path, size_bytes)

    @rule(caller=who, path=paths, times_ns=st.sampled_from([None, (0, 1), (2**31 * 10**9 + 1, 2**32 * 10**9 + 7)]))
    def utime(self, caller: Caller, path: bytes, times_ns: tuple[int, int] | None) -> None:
        self.both(caller, "utime", path, times_ns)

    @rule(caller=who, path=paths, follow=st.booleans())
    def stat(self, caller: Caller, path: bytes, follow: bool) -> None:
        self.both(caller, "stat", path, follow)

    @rule(caller=who, path=paths)
    def readlink(self, caller: Caller, path: bytes) -> None:
        self.both(caller, "readlink", path)

    @rule(caller=who, path=paths)
    def listdir(self, caller: Caller, path: bytes) -> None:
        self.both(caller, "listdir", path)

    @rule(caller=who, path=paths, name=xattrs, value=st.sampled_from([b"", b"1"]), flags=st.sampled_from([0, 0, 1, 2]))
    def setxattr(self, caller: Caller, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        if has_xattrs(self.inside):
            self.both(caller, "setxattr", path, name, value, flags)

    @rule(caller=who, path=paths, name=st.sampled_from([ACCESS_NAME, DEFAULT_NAME]), value=lists)
    def set_list(self, caller: Caller, path: bytes, name: bytes, value: bytes) -> None:
        if has_lists(self.inside):
            self.both(caller, "setxattr", path, name, value, 0)

    @rule(caller=who, path=paths, name=xattrs)
    def removexattr(self, caller: Caller, path: bytes, name: bytes) -> None:
        if has_xattrs(self.inside):
            self.both(caller, "removexattr", path, name)

    @rule(caller=who, path=paths, name=xattrs)
    def getxattr(self, caller: Caller, path: bytes, name: bytes) -> None:
        if has_xattrs(self.inside):
            self.both(caller, "getxattr", path, name)

    @rule(caller=who, path=paths)
    def listxattr(self, caller: Caller, path: bytes) -> None:
        if has_xattrs(self.inside):
            self.both(caller, "listxattr", path)

    @rule(caller=who, path=paths, mask=st.sampled_from([1, 2, 4, 6, 7]))
    def access(self, caller: Caller, path: bytes, mask: int) -> None:
        real = outcome(RealTree(self.inside, caller), "access", path, mask)
        ours = outcome(VolumeTree(Tree(self.volume, caller)), "access", path, mask)
        assert (ours is True) == (real is True), (path, mask, caller)


def outcome(tree: Any, verb: str, *arguments: Any) -> Any:
    """What came back, or the errno."""
    try:
        told = getattr(tree, verb)(*arguments)
    except (OSError, MetaError) as error:
        return ("errno", error.errno)
    return told if verb in LOOKS else None


def check(examples: int, steps: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            database=None,
            derandomize=derandomize,
        ),
    )


# What Linux answers to renames whose last name is a dot or two: without flags, with NOREPLACE, EXCHANGE, and both.
DOTS = [b".", b"..", b"dir/.", b"dir/..", b"dir/inner/.", b"./"]
PLAIN = [b"dir", b"file", b"absent", b"dir/absent", b"dir/"]
BEHIND_A_FILE, BEHIND_NOTHING = [b"file/.", b"file/.."], [b"absent/.", b"absent/a"]
BUSY = (errno.EBUSY, errno.EBUSY, errno.EBUSY, errno.EINVAL)
TAKEN = (errno.EBUSY, errno.EEXIST, errno.EBUSY, errno.EINVAL)
NO_FOLDER = (errno.ENOTDIR, errno.ENOTDIR, errno.ENOTDIR, errno.EINVAL)
MISSING = (errno.ENOENT, errno.ENOENT, errno.ENOENT, errno.EINVAL)


@pytest.mark.parametrize(
    ("sources", "goals", "expected"),
    [
        (DOTS, DOTS, BUSY),
        (DOTS, PLAIN, BUSY),
        (PLAIN, DOTS, TAKEN),
        (DOTS + PLAIN, BEHIND_A_FILE, NO_FOLDER),
        (DOTS + PLAIN, BEHIND_NOTHING, MISSING),
        (BEHIND_A_FILE, DOTS + PLAIN + BEHIND_A_FILE + BEHIND_NOTHING, NO_FOLDER),
        (BEHIND_NOTHING, DOTS + PLAIN + BEHIND_A_FILE + BEHIND_NOTHING, MISSING),
    ],
)
def test_renames_of_dots_are_refused_as_linux_does(
    tmp_path: Path, sources: list[bytes], goals: list[bytes], expected: tuple[int, ...]
) -> None:
    me = callers()[0]
    real = RealTree(tmp_path, me)
    ours = VolumeTree(Tree(Volume.format("memory://", mode=0o777, owner=me), me))
    for tree in (real, ours):
        tree.mkdir(b"dir", 0o755)
        tree.mkdir(b"dir/inner", 0o755)
        tree.create(b"file", 0o644)
    for source, goal, flags in itertools.product(sources, goals, range(4)):
        answers = [outcome(tree, "rename", source, goal, flags) for tree in (real, ours)]
        assert answers == [("errno", expected[flags])] * 2, (source, goal, flags)


def test_a_volume_does_what_a_directory_does() -> None:
    check(40, 50, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_volume_does_what_a_directory_does_for_long() -> None:
    check(600, 80, derandomize=False)
