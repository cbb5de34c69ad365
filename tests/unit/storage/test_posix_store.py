"""What only a folder can get wrong: full disks, shrinking files, links, killed writers, the page cache."""

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stoker.core.errors import DeniedError, NoSpaceError, NotFoundError, ShortReadError, StoreError, UsageError
from stoker.core.units import GiB, KiB, MiB
from stoker.storage.api import Store, SupportsCache, SupportsSweep
from stoker.storage.backends.page_cache import cached_bytes_by_mapping
from stoker.storage.backends.posix import PosixStore
from stoker.storage.base import TEMPORARY_SUFFIX
from stoker.storage.buffers import aligned_view
from stoker.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PosixStore]:
    store = open_store(f"file://{tmp_path}")
    assert isinstance(store, PosixStore)
    yield store
    store.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# full disks and limits


def test_a_full_disk_leaves_the_old_object_and_nothing_else(tiny_disk: Path) -> None:
    store = open_store(f"file://{tiny_disk}")
    store.put("object", b"old")
    for write in (lambda: store.put("object", bytes(2 * MiB)), lambda: store.put("other", bytes(2 * MiB))):
        with pytest.raises(NoSpaceError, match="no space left"):
            write()
    assert names(tiny_disk) == ["object"]
    assert (tiny_disk / "object").read_bytes() == b"old"
    store.close()


def test_a_file_size_limit_is_no_space(store: PosixStore, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KiB, hard))
    try:
        with pytest.raises(NoSpaceError, match="limit"):
            store.put("object", bytes(MiB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_missing_rights_are_denied(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "object").write_bytes(b"x")
    program = (
        "import os, sys\n"
        "from stoker.core.errors import DeniedError\n"
        "from stoker.storage.opening import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "os.geteuid() or os.seteuid(65534)\n"
        "for action in (store.stat, store.open_read, lambda key: store.put(key, b'x'), store.delete):\n"
        "    try: action('locked/object')\n"
        "    except DeniedError as error: print(error)\n"
    )
    os.chmod(tmp_path / "locked", 0o000)
    try:
        done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    finally:
        os.chmod(tmp_path / "locked", 0o755)
    assert done.stdout.count("permissions forbid it") == 4


# writers that die, files that change


def test_a_writer_killed_in_the_middle_leaves_no_object(store: PosixStore, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from stoker.storage.opening import open_store\n"
        "def parts():\n"
        "    yield b'x' * 100_000\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "open_store(sys.argv[1]).put_parts('object', parts())\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert len(names(tmp_path)) == 1
    assert list(store.list()) == []
    with pytest.raises(NotFoundError):
        store.stat("object")
    store.put("object", b"again")
    assert [info.key for info in store.list()] == ["object"]


def test_names_of_temporary_files_are_no_keys(store: PosixStore) -> None:
    with pytest.raises(UsageError, match="temporary"):
        store.put("folder/.0123456789ab.stoker-tmp", b"x")


@pytest.mark.parametrize("left_bytes", [0, 1, 5000, 99_999])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(store: PosixStore, tmp_path: Path, left_bytes: int) -> None:
    (tmp_path / "object").write_bytes(b"x" * 100_000)
    with store.open_read("object") as reader:
        os.truncate(tmp_path / "object", left_bytes)
        with pytest.raises(ShortReadError, match="ended early"):
            reader.read_into(aligned_view(100_000))


def test_a_file_beyond_two_gibibytes_is_read_at_its_end(store: PosixStore, tmp_path: Path) -> None:
    with (tmp_path / "object").open("wb") as file:
        file.seek(3 * GiB)
        file.write(b"end")
    assert store.stat("object").size_bytes == 3 * GiB + 3
    assert bytes(store.get_range("object", 3 * GiB - 1)) == b"\0end"


@pytest.mark.parametrize(("query", "files", "folders"), [("full", 1, 1), ("data", 0, 0), ("none", 0, 0)])
def test_a_put_syncs_what_it_says(
    query: str, files: int, folders: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    store = open_store(f"file://{tmp_path}?fsync={query}&io=plain")
    store.put("object", b"x")
    assert (synced.count("file"), synced.count("folder")) == (files, folders)
    store.put("a/b/object", b"x")
    assert synced.count("folder") == folders * 4  # the new entries `a` and `b`, and the object's own
    store.close()


# links and other things that are not objects


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return a root with links to a file and a folder outside, and to a folder inside."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "folder" / "object").write_bytes(b"x")
    (root / "file-link").symlink_to(outside / "secret")
    (root / "folder-link").symlink_to(outside)
    (root / "inner-link").symlink_to(root / "folder")
    return root


@pytest.mark.parametrize("old_kernel", [False, True])
def test_links_are_not_followed(linked: Path, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_kernel:
        monkeypatch.setattr("stoker.storage.backends.beneath._offers_openat2", lambda folder: False)
    store = open_store(f"file://{linked}")
    for key in ("file-link", "folder-link/secret", "inner-link/object"):
        for action in (store.open_read, store.get_range):
            with pytest.raises(DeniedError, match="symbolic links"):
                action(key)
        with pytest.raises((DeniedError, NotFoundError)):
            store.stat(key)
    for key in ("folder-link/new", "folder-link/below/new", "folder-link/secret"):
        with pytest.raises(DeniedError, match="symbolic links"):
            store.put(key, b"x")
        with pytest.raises(DeniedError, match="symbolic links"):
            store.delete(key)
    assert [info.key for info in store.list()] == ["folder/object"]
    with pytest.raises(DeniedError, match="symbolic links"):
        list(store.list("folder-link/"))
    assert names(linked.parent / "outside") == ["secret"]
    assert (linked.parent / "outside" / "secret").read_bytes() == b"secret"
    store.close()


def test_a_put_replaces_a_link_and_not_its_target(linked: Path) -> None:
    store = open_store(f"file://{linked}")
    store.put("file-link", b"new")
    assert not (linked / "file-link").is_symlink()
    assert (linked.parent / "outside" / "secret").read_bytes() == b"secret"
    store.close()


def test_the_root_itself_may_be_a_link(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "door").symlink_to(linked)
    store = open_store(f"file://{tmp_path}/door")
    assert bytes(store.get_range("folder/object")) == b"x"
    store.close()


def test_a_pipe_is_no_object_and_does_not_block(store: PosixStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for action in (store.stat, store.open_read, store.evict, store.cached_bytes):
        with pytest.raises(NotFoundError, match="pipe"):
            action("pipe")
    assert list(store.list()) == []


def test_a_folder_or_an_object_in_the_way_is_told(store: PosixStore, tmp_path: Path) -> None:
    store.put("folder/object", b"x")
    with pytest.raises(StoreError, match="a folder stands where"):
        store.put("folder", b"x")
    with pytest.raises(StoreError, match="an object stands where"):
        store.put("folder/object/below", b"x")
    store.delete("folder")
    assert names(tmp_path) == ["folder", "folder/object"]


def test_a_closed_store_says_so(store: PosixStore) -> None:
    store.close()
    with pytest.raises(StoreError, match="store is closed"):
        store.stat("object")


def test_open_files_are_closed_again(store: PosixStore, tmp_path: Path) -> None:
    def opened() -> tuple[list[str], int]:
        """Return the open files below the root, and how many descriptors there are of any kind."""
        found = []
        for number in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # the listing's own
                found.append(os.readlink(f"/proc/self/fd/{number}"))
        return sorted(name for name in found if name.startswith(str(tmp_path))), len(found)

    store.put("a/object", b"x" * 10)
    gc.collect()  # what earlier tests left behind is not this one's
    below, in_all = opened()
    for _ in range(3):
        store.put("a/b/c/object", b"x")
        store.rename("a/b/c/object", "a/d/object")
        store.get_range("a/object")
        store.stat("a/object")
        store.cached_bytes("a/object")
        store.evict("a/object")
        store.delete("a/d/object")
        list(store.list())
        for failing in (lambda: store.open_read("a/object", length_bytes=99), lambda: store.open_read("a")):
            with pytest.raises(StoreError):
                failing()
    still_below, still_in_all = opened()
    assert still_below == below
    assert still_in_all <= in_all  # those of earlier tests may go meanwhile


# the page cache


def on_a_device(store: Store) -> bool:
    return store.capabilities.cache_evictable


def test_reading_fills_the_cache_and_evicting_empties_it(store: PosixStore) -> None:
    if not on_a_device(store):
        pytest.skip("temporary files lie in memory")
    assert isinstance(store, SupportsCache)
    data = os.urandom(256 * KiB + 7)
    store.put("object", data)
    store.evict("object")
    if store.cached_bytes("object") is None:
        pytest.skip("the kernel does not tell what is cached")
    assert store.cached_bytes("object") == 0
    store.get_range("object")
    assert store.cached_bytes("object") == len(data)
    assert store.cached_bytes("object", 4096, 4096) == 4096
    store.evict("object")
    store.get_range("object", 128 * KiB, 4096)
    assert store.cached_bytes("object") == 4096, "a range must not pull in its neighbours"


def test_both_ways_to_ask_the_cache_agree(store: PosixStore, tmp_path: Path) -> None:
    store.put("object", os.urandom(100_000))
    store.evict("object")
    store.get_range("object", 40_960, 8192)
    with (tmp_path / "object").open("rb") as file:
        for offset_bytes, length_bytes in ((0, 100_000), (40_960, 4096), (0, 4096), (41_000, 10)):
            by_mapping = cached_bytes_by_mapping(file.fileno(), offset_bytes, length_bytes)
            assert by_mapping == store.cached_bytes("object", offset_bytes, length_bytes)


def test_an_empty_object_has_nothing_cached(store: PosixStore) -> None:
    store.put("object", b"")
    assert store.cached_bytes("object") == 0


def test_folders_made_by_two_writers_at_once_are_shared(store: PosixStore) -> None:
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def write(number: int) -> None:
        start.wait()
        try:
            for depth in range(10):
                store.put(f"{depth}/a/b/{number}", b"x")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.list())) == 40


def test_sweep_removes_unfinished_files_and_empty_folders_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("keep/a/file", b"data")
    store.put("gone/deep/file", b"data")
    store.delete("gone/deep/file")
    (tmp_path / "keep" / "a" / f".x{TEMPORARY_SUFFIX}").write_bytes(b"torn")
    (tmp_path / "keep" / "link").symlink_to(tmp_path / "keep" / "a")
    assert isinstance(store, SupportsSweep)
    assert store.sweep("gone/deep") == 2
    assert store.sweep("keep") == 1
    assert store.sweep("absent") == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "file", "keep", "link"]
    inside = open_store(f"file://{tmp_path}?prefix=keep")
    inside.delete("a/file")
    assert isinstance(inside, SupportsSweep)
    assert inside.sweep("a") == 1
    assert not (tmp_path / "keep" / "a").exists()
