"""Files by paths, one and many at once."""

import errno
import io
from collections.abc import Iterator

import pytest
from client_place import Clients

from stoker.core.errors import CorruptError
from stoker.fs.client import FileTree
from stoker.fs.client.many import BATCH_FILES
from stoker.fs.meta import MetaError
from stoker.fs.meta.calls import Caller


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


@pytest.fixture
def tree(clients: Clients) -> FileTree:
    return FileTree(clients.client())


def fails(number: int, call: object, *arguments: object, **named: object) -> None:
    with pytest.raises(MetaError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    assert caught.value.errno == number, caught.value


def test_files_are_written_and_read_whole(tree: FileTree) -> None:
    tree.makedirs("/a/b")
    assert tree.write_bytes("/a/b/f", b"hello", permissions=0o600).attr.mode & 0o777 == 0o600
    assert tree.read_bytes("/a/b/f") == b"hello"
    assert tree.stat("/a/b/f").attr.size_bytes == 5
    tree.write_bytes("/a/b/f", (part for part in (b"ab", b"", bytearray(b"cd"), memoryview(b"e"))))
    assert tree.read_bytes("/a/b/f") == b"abcde"
    big = bytes(range(256)) * 20_000
    tree.write_bytes("/a/big", (big, big))
    assert tree.read_bytes("/a/big") == big + big
    assert tree.client.counters()["stored_slices"] == 2 + 3
    fails(errno.EEXIST, tree.write_bytes, "/a/big", b"x", exclusive=True)
    fails(errno.ENOENT, tree.write_bytes, "/no/f", b"x")
    fails(errno.EISDIR, tree.write_bytes, "/a/b", b"x")
    fails(errno.EISDIR, tree.write_bytes, "/a/b/", b"x")
    fails(errno.ENOENT, tree.read_bytes, "/a/none")
    fails(errno.EISDIR, tree.read_bytes, "/a/b")
    tree.write_bytes("/empty", b"")
    assert tree.read_bytes("/empty") == b""


def test_symbolic_links_are_followed_to_read_and_to_write(tree: FileTree) -> None:
    tree.makedirs("/a")
    tree.symlink("a/target", "/link")
    fails(errno.ENOENT, tree.read_bytes, "/link")
    tree.write_bytes("/link", b"through")
    assert tree.read_bytes("/a/target") == tree.read_bytes("/link") == b"through"
    with tree.open("/link", "ab") as file:
        file.write(b"!")
    assert tree.read_bytes("/a/target") == b"through!"
    tree.symlink("loop", "/loop")
    fails(errno.ELOOP, tree.write_bytes, "/loop", b"x")
    fails(errno.ELOOP, tree.read_bytes, "/loop")


def test_open_files_do_as_pythons_own(tree: FileTree) -> None:
    with tree.open("/f", "w+b") as file:
        assert (file.readable(), file.writable(), file.seekable()) == (True, True, True)
        assert file.write(b"0123456789") == 10
        assert file.seek(-4, io.SEEK_END) == 6
        assert file.read(2) == b"67"
        assert file.tell() == 8
        file.seek(1)
        into = bytearray(3)
        assert file.readinto(into) == 3
        assert into == b"123"
        fails(errno.EINVAL, file.seek, -1)
    with io.BufferedReader(tree.open("/f")) as buffered:
        assert buffered.readline() == b"0123456789"
    with tree.open("/f", "r+b") as file:
        file.write(b"ab")
    with tree.open("/f", "ab") as file:
        file.write(b"X")
        file.fsync()
    assert tree.read_bytes("/f") == b"ab23456789X"
    with tree.open("/f", "wb") as file:
        fails(errno.EBADF, file.read, 1)
    assert tree.read_bytes("/f") == b""
    fails(errno.EEXIST, tree.open, "/f", "xb")
    fails(errno.EINVAL, tree.open, "/f", "r")
    fails(errno.ENOENT, tree.open, "/none")


def test_many_files_cost_few_round_trips_and_keep_their_order(clients: Clients, tree: FileTree) -> None:
    tree.makedirs("/d/e")
    paths = [f"/d/{'e/' if n % 3 else ''}{n}" for n in range(300)]
    for number, path in enumerate(paths):
        tree.write_bytes(path, b"%d" % number * (number % 7))
    with clients.client() as other:
        clients.store.calls.clear()
        submitted = clients.metadata.submitted
        got = FileTree(other).read_many(reversed(paths))
        assert clients.metadata.submitted - submitted == 1
        assert clients.store.calls["read"] == 1
    assert got == [b"%d" % n * (n % 7) for n in reversed(range(300))]
    assert len(paths) < BATCH_FILES


def test_each_file_of_many_has_its_own_error(clients: Clients, tree: FileTree) -> None:
    tree.mkdir("/d", 0o755)
    for name in "abc":
        tree.write_bytes(f"/d/{name}", name.encode(), permissions=0o644)
    tree.write_bytes("/d/secret", b"s", permissions=0o600)
    tree.symlink("b", "/d/link")
    slices = sorted(clients.slices.inventory(), key=lambda data: data.id)
    clients.slices.remove([slices[2]])
    unshown = tree.open("/d/a", "ab")
    unshown.write(b"+")
    asked = ["/d/a", "/d/none", "/none/x", "/d/link", "/d/c", "/d", "/d/", "/d/a/x", "/d/../d/b", "/d/b"]
    got = tree.read_many(asked)
    unshown.close()
    told = [one.errno if isinstance(one, MetaError) else bytes(one) for one in got]
    assert told == [
        b"a+",
        errno.ENOENT,
        errno.ENOENT,
        b"b",
        errno.EIO,
        errno.EISDIR,
        errno.EISDIR,
        errno.ENOTDIR,
        b"b",
        b"b",
    ]
    other = FileTree(tree.client, Caller(5, 5))
    told = [one.errno if isinstance(one, MetaError) else bytes(one) for one in other.read_many(["/d/b", "/d/secret"])]
    assert told == [b"b", errno.EACCES]


def test_many_files_are_in_memory_a_window_at_a_time(clients: Clients, tree: FileTree) -> None:
    paths = [f"/{n}" for n in range(20)]
    for path in paths:
        tree.write_bytes(path, b"x" * 1000)
    with clients.client(cache_bytes=0) as other:
        clients.store.calls.clear()
        each = FileTree(other).read_each(iter(paths), window_bytes=3500)
        next(each)
        assert other.counters()["fetched_bytes"] == 3000
        assert [len(one) for one in each if not isinstance(one, MetaError)] == [1000] * 19
        assert clients.store.calls["read"] == 7


def test_a_damaged_slice_fails_its_file_and_no_other_of_the_same_read(clients: Clients, tree: FileTree) -> None:
    for name in "abc":
        tree.write_bytes(f"/{name}", name.encode())
    with clients.client(cache_bytes=0) as other:
        left = [2]

        def fault(verb: str) -> CorruptError | None:
            left[0] -= verb == "read"
            return CorruptError("rot", where="slice 2") if left[0] in (1, -1) and verb == "read" else None

        clients.store.fault = fault
        got = FileTree(other).read_many(["/a", "/b", "/c"])
    assert [one if isinstance(one, MetaError) else bytes(one) for one in got][::2] == [b"a", b"c"]
    assert isinstance(got[1], MetaError)
    assert "slice 2" in str(got[1])


def test_walking_yields_every_directory_once(tree: FileTree) -> None:
    tree.makedirs("/a/b/c")
    tree.makedirs("/a/d")
    tree.write_bytes("/a/f", b"")
    tree.symlink("/a", "/a/d/up")
    assert list(tree.walk("/a")) == [
        (b"/a", [b"b", b"d"], [b"f"]),
        (b"/a/b", [b"c"], []),
        (b"/a/b/c", [], []),
        (b"/a/d", [], [b"up"]),
    ]


def test_files_made_in_one_directory_ask_for_it_once_and_follow_where_it_goes(clients: Clients) -> None:
    one, other = clients.client(), clients.client()
    tree, elsewhere = FileTree(one), FileTree(other)
    tree.mkdir("/a")
    tree.write_bytes("/a/0", b"0")
    before = clients.metadata.asked
    for n in range(1, 6):
        tree.write_bytes(f"/a/{n}", b"%d" % n, exclusive=True)
    assert clients.metadata.asked == before  # but for what is submitted
    tree.rename("/a", "/b")
    with pytest.raises(MetaError) as caught:
        tree.write_bytes("/a/6", b"6")
    assert caught.value.errno == errno.ENOENT
    tree.write_bytes("/b/6", b"6")
    elsewhere.remove_tree("/b")
    elsewhere.mkdir("/b")
    tree.write_bytes("/b/7", b"7")  # the directory that was known is gone
    assert elsewhere.read_bytes("/b/7") == b"7"
    elsewhere.rename("/b", "/c")
    clients.wait(1.1)
    with pytest.raises(MetaError):
        tree.write_bytes("/b/8", b"8")


def test_a_symbolic_link_at_the_end_is_followed_and_in_a_strict_client_nothing_is_believed(clients: Clients) -> None:
    tree, elsewhere = FileTree(clients.client(strict=True)), FileTree(clients.client())
    tree.mkdir("/a")
    tree.symlink("target", "/a/link")
    tree.write_bytes("/a/link", b"through")
    assert tree.read_bytes("/a/target") == b"through"
    elsewhere.rename("/a", "/b")
    with pytest.raises(MetaError):
        tree.write_bytes("/a/x", b"x")
