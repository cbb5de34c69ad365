"""What the model test does not reach: the root's `..`, symbolic links, inheritance, lists, cursors, times."""

import errno
import stat
import struct
from collections.abc import Callable

import pytest
from fs_place import Place

from stoker.fs.meta.acl import ACCESS_NAME, DEFAULT_NAME
from stoker.fs.meta.calls import (
    XATTR_CREATE,
    XATTR_REPLACE,
    Create,
    Link,
    Lookup,
    Mkdir,
    Mknod,
    ReadDir,
    Rename,
    Rmdir,
    SetAttr,
    Symlink,
    Unlink,
)
from stoker.fs.meta.keys import ROOT

Fails = Callable[..., None]


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Linux's bytes of a list: tag, permissions, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO_ID = 0xFFFFFFFF
FULL = acl((1, 7, NO_ID), (2, 4, 1001), (4, 5, NO_ID), (8, 6, 2000), (16, 6, NO_ID), (32, 0, NO_ID))


def test_dots_and_the_root(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.mkdir("/a")
    tree.mkdir("/a/b")
    assert tree.stat("/a/b/../..").ino == ROOT == tree.stat("/../..").ino == tree.stat("/").ino
    assert tree.stat("a/./b/..").ino == tree.stat("/a").ino
    fails(errno.EBUSY, tree.rmdir, "/")
    fails(errno.EINVAL, tree.rmdir, "/a/.")
    fails(errno.ENOTEMPTY, tree.rmdir, "/a/b/..")
    fails(errno.EEXIST, tree.mkdir, "/a/..")
    fails(errno.EBUSY, tree.rename, "/a/b/..", "/c")
    fails(errno.ENOENT, tree.stat, "")
    for name in (b"", b"a/b", b"a\0b", b"n" * 256):
        number = {0: errno.ENOENT, 256: errno.ENAMETOOLONG}.get(len(name), errno.EINVAL)
        place.refused(number, Mkdir(ROOT, name, 0o755))
        place.refused(number, Lookup(ROOT, name))


@pytest.mark.parametrize(
    "request_",
    [Create(99, b"x", 0o644), Mkdir(99, b"x", 0o755), Unlink(99, b"x"), Rmdir(99, b"x"), Lookup(99, b"x"),
     Link(99, ROOT, b"x"), Rename(99, b"x", ROOT, b"y"), SetAttr(99, mode=0), ReadDir(99), Symlink(99, b"x", b"y")],
    ids=lambda request: type(request).__name__,
)  # fmt: skip
def test_an_inode_that_is_not_there_is_enoent(place: Place, request_: object) -> None:
    place.refused(errno.ENOENT, request_)  # type: ignore[arg-type]


def test_symbolic_links_are_followed_up_to_forty(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.mkdir("/dir")
    tree.create("/dir/file")
    tree.symlink("dir", "/to-dir")
    tree.symlink("/to-dir/file", "/dir/deep")
    assert tree.stat("/to-dir/deep").ino == tree.stat("/dir/file").ino
    tree.symlink("l1", "/l0")
    for number in range(1, 40):
        tree.symlink(f"l{number + 1}", f"/l{number}")
    tree.symlink("dir", "/l40")
    assert tree.stat("/l1").ino == tree.stat("/dir").ino
    fails(errno.ELOOP, tree.stat, "/l0")
    tree.symlink("me", "/me")
    fails(errno.ELOOP, tree.stat, "/me")
    fails(errno.ELOOP, tree.listdir, "/me/x")
    assert tree.readlink("/me") == b"me"
    fails(errno.EINVAL, tree.readlink, "/dir")
    fails(errno.ENOENT, tree.symlink, "", "/empty")
    fails(errno.ENAMETOOLONG, tree.symlink, "x" * 4096, "/long")
    tree.symlink("x" * 4095, "/long")
    fails(errno.ENAMETOOLONG, tree.stat, "/" + "y" * 4095)


def test_a_directory_never_moves_below_itself(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.makedirs("/a/b/c")
    tree.makedirs("/x/y")
    fails(errno.EINVAL, tree.rename, "/a", "/a/b/c/a")
    fails(errno.EINVAL, tree.rename, "/a", "/a/a")
    fails(errno.ENOTEMPTY, tree.rename, "/a/b/c", "/a")
    fails(errno.EINVAL, tree.rename, "/a/b", "/a", 2)
    tree.rename("/a/b", "/x/y", 2)
    assert tree.listdir("/x/y") == [b"c"]
    assert tree.listdir("/a/b") == []
    assert tree.stat("/x/y/..").ino == tree.stat("/x").ino


def test_a_directory_gives_its_group(place: Place) -> None:
    tree = place.tree()
    tree.mkdir("/shared")
    tree.chown("/shared", None, 2000)
    tree.chmod("/shared", 0o2777)
    user = place.tree(1000)
    user.umask = 0
    user.mkdir("/shared/dir", 0o755)
    user.create("/shared/file", 0o2775)
    attr = tree.stat("/shared/dir").attr
    assert (attr.gid, attr.mode & 0o7777) == (2000, 0o2755)
    attr = tree.stat("/shared/file").attr
    assert (attr.gid, attr.mode & 0o7777) == (2000, 0o775), "the bit is not given to who is not in the group"


def test_devices_are_the_superusers(place: Place) -> None:
    device = stat.S_IFCHR | 0o600
    place.refused(errno.EPERM, Mknod(ROOT, b"null", device, 0x103), caller=place.tree(1000).caller)
    place.volume.run(Mknod(ROOT, b"null", device, 0x103))
    attr = place.tree().stat("/null").attr
    assert (attr.mode, attr.rdev) == (stat.S_IFCHR | 0o600, 0x103)
    place.refused(errno.EPERM, Mknod(ROOT, b"dir", stat.S_IFDIR | 0o755))
    place.refused(errno.EINVAL, Mknod(ROOT, b"link", stat.S_IFLNK | 0o755))


def test_times_keep_their_nanoseconds_and_their_centuries(place: Place) -> None:
    tree = place.tree()
    tree.create("/file")
    for times in ((2**31 * 10**9 + 1, 2**32 * 10**9 + 999_999_999), (-1, -(10**18)), (0, 1)):
        tree.utime("/file", times)
        attr = tree.stat("/file").attr
        assert (attr.atime_ns, attr.mtime_ns) == times
    tree.utime("/file", (10**30, -(10**30)))
    attr = tree.stat("/file").attr
    assert (attr.atime_ns, attr.mtime_ns) == (2**63 - 1, -(2**63))
    place.now_ns += 5
    tree.utime("/file")
    assert tree.stat("/file").attr.mtime_ns == place.now_ns


def test_what_changes_a_directory_changes_its_time(place: Place) -> None:
    tree = place.tree()
    tree.mkdir("/d")
    tree.mkdir("/e")
    for change in (
        lambda: tree.create("/d/f"), lambda: tree.link("/d/f", "/d/g"), lambda: tree.rename("/d/g", "/d/h"),
        lambda: tree.rename("/d/h", "/e/h"), lambda: tree.unlink("/d/f"), lambda: tree.mkdir("/d/sub"),
        lambda: tree.rmdir("/d/sub"), lambda: tree.symlink("x", "/d/s"),
    ):  # fmt: skip
        place.now_ns += 1000
        change()
        attr = tree.stat("/d").attr
        assert (attr.mtime_ns, attr.ctime_ns) == (place.now_ns, place.now_ns)
    assert tree.stat("/e").attr.mtime_ns < place.now_ns


def test_a_cursor_stays_right_while_the_directory_changes(place: Place) -> None:
    tree = place.tree()
    for number in range(100):
        tree.create(f"/f{number:03}")
    seen, after = [], b""
    while True:
        listing = place.volume.run(ReadDir(ROOT, after, 10, plus=True))
        seen += [entry.name for entry in listing.entries]
        if not listing.more:
            break
        after = listing.entries[-1].name
        tree.unlink(f"/{after.decode()}")  # the cursor itself goes
        tree.create(f"/a{len(seen):03}")  # behind us
    assert seen == [b"f%03d" % number for number in range(100)]


# -- extended attributes and lists


def test_extended_attributes(place: Place, fails: Fails) -> None:
    tree, user = place.tree(), place.tree(1000)
    tree.create("/file", 0o644)
    tree.setxattr("/file", b"user.a", b"1", XATTR_CREATE)
    tree.setxattr("/file", b"trusted.b", bytes(65536))
    fails(errno.EEXIST, tree.setxattr, "/file", b"user.a", b"2", XATTR_CREATE)
    fails(errno.ENODATA, tree.setxattr, "/file", b"user.c", b"2", XATTR_REPLACE)
    fails(errno.E2BIG, tree.setxattr, "/file", b"user.c", bytes(65537))
    for name in (b"", b"user." + b"x" * 251):
        fails(errno.ERANGE, tree.setxattr, "/file", name, b"")
    fails(errno.EINVAL, tree.setxattr, "/file", b"user.", b"")
    for name in (b"other.a", b"user", b"system.x"):
        fails(errno.EOPNOTSUPP, tree.setxattr, "/file", name, b"")
    fails(errno.EACCES, user.setxattr, "/file", b"user.a", b"")
    fails(errno.EPERM, user.setxattr, "/file", b"trusted.a", b"")
    assert user.listxattr("/file") == (b"user.a",)
    assert tree.listxattr("/file") == (b"trusted.b", b"user.a")
    assert user.getxattr("/file", b"user.a") == b"1"
    fails(errno.ENODATA, user.getxattr, "/file", b"trusted.b")
    tree.symlink("file", "/link")
    fails(errno.EPERM, tree.setxattr, "/link", b"user.a", b"", follow=False)
    tree.removexattr("/file", b"user.a")
    tree.removexattr("/file", b"trusted.b")
    fails(errno.ENODATA, tree.removexattr, "/file", b"user.a")
    assert tree.listxattr("/file") == ()


def test_a_list_of_names_stays_within_what_can_be_returned(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.create("/file")
    with pytest.raises(Exception, match="ENOSPC"):
        for number in range(400):
            tree.setxattr("/file", b"user.%03d" % number + b"x" * 240, b"")
    assert sum(len(name) + 1 for name in tree.listxattr("/file")) <= 65536


def test_an_access_list_decides(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.create("/file", 0o640)
    tree.chown("/file", 1000, 1000)
    tree.setxattr("/file", ACCESS_NAME, FULL)
    assert tree.stat("/file").attr.mode & 0o777 == 0o760, "the mask is the group's bits"
    allowed = {
        (1000,): (4, 2, 1), (1001,): (4,), (1002, 1000): (4,), (1003, 1003, 2000): (4, 2), (1004,): (),
        (1001, 1001, 2000): (4,),
    }  # fmt: skip
    for who, may in allowed.items():
        caller = place.tree(*who)
        assert [mask for mask in (4, 2, 1) if caller.access("/file", mask)] == list(may), who
    tree.chmod("/file", 0o700)
    assert not place.tree(1001).access("/file", 4)
    assert tree.getxattr("/file", ACCESS_NAME) == FULL.replace(
        struct.pack("<HHI", 16, 6, NO_ID), struct.pack("<HHI", 16, 0, NO_ID)
    )
    fails(errno.EPERM, place.tree(1001).setxattr, "/file", ACCESS_NAME, FULL)
    tree.setxattr("/file", ACCESS_NAME, acl((1, 6, NO_ID), (4, 4, NO_ID), (32, 4, NO_ID)))
    assert tree.stat("/file").attr.mode & 0o777 == 0o644
    fails(errno.ENODATA, tree.getxattr, "/file", ACCESS_NAME)
    tree.removexattr("/file", ACCESS_NAME)
    tree.setxattr("/file", ACCESS_NAME, FULL)
    tree.setxattr("/file", ACCESS_NAME, b"")
    assert tree.listxattr("/file") == ()


def test_a_default_list_is_inherited_and_the_umask_is_not_asked(place: Place, fails: Fails) -> None:
    tree = place.tree()
    tree.mkdir("/d", 0o755)
    tree.setxattr("/d", DEFAULT_NAME, FULL)
    tree.umask = 0o077
    tree.create("/d/file", 0o666)
    tree.mkdir("/d/sub", 0o777)
    assert tree.stat("/d/file").attr.mode & 0o777 == 0o660
    assert tree.getxattr("/d/sub", DEFAULT_NAME) == FULL
    assert place.tree(1001).access("/d/file", 4)
    assert not place.tree(1001).access("/d/file", 2)
    tree.symlink("x", "/d/link")
    assert tree.stat("/d/link", follow=False).attr.mode & 0o777 == 0o777
    fails(errno.EACCES, tree.setxattr, "/d/file", DEFAULT_NAME, FULL)


@pytest.mark.parametrize(
    "bad",
    [b"\2", acl((1, 7, NO_ID)), FULL + b"x", acl((4, 7, 0), (1, 7, 0), (32, 7, 0)),
     acl((1, 7, 0), (4, 7, 0), (32, 8, 0)),
     acl((1, 7, 0), (2, 7, 5), (4, 7, 0), (32, 7, 0)), acl((1, 7, 0), (1, 7, 0), (4, 7, 0), (32, 7, 0)),
     acl((1, 7, 0), (2, 7, 5), (2, 6, 5), (4, 7, 0), (16, 7, 0), (32, 7, 0)), acl((3, 7, 0), (4, 7, 0), (32, 7, 0))],
)  # fmt: skip
def test_a_malformed_list_is_refused(place: Place, fails: Fails, bad: bytes) -> None:
    tree = place.tree()
    tree.create("/file")
    fails(errno.EINVAL, tree.setxattr, "/file", ACCESS_NAME, bad)
    fails(errno.EOPNOTSUPP, tree.setxattr, "/file", ACCESS_NAME, b"\1" + FULL[1:])
    assert tree.listxattr("/file") == ()
