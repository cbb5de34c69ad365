"""Joining a store by name and by descriptor, leaving it, and what is left of it: nothing."""

import array
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from kill_harness import in_child, was_killed

from stoker.core.errors import AlreadyExistsError, UsageError
from stoker.pages import ChecksumError, FormatError, OutOfSpace, PageNotFound, PagesError, Store
from stoker.pages.arena.layout import encode_static
from stoker.pages.arena.mapping import FOLDER, PREFIX
from stoker.pages.store import memory_arena
from stoker.pages.sweeping import sweep_dead

SMALL = {"size_bytes": 1 << 18, "pages_max": 64, "log_bytes": 64 << 10}
IN_FOLDER = {**SMALL, "segment_bytes": 1 << 17}
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def name() -> str:
    return f"test-{uuid4().hex}"


def left_of(name: str) -> list[Path]:
    """Return the files in shared memory with this name, published or not."""
    return list(FOLDER.glob(f"*{PREFIX}{name}*"))


def descriptors_of(*names: str) -> list[str]:
    """Return what our open descriptors with one of these names lead to; those of other tests do not count."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return sorted(target for target in found if any(name in target for name in names))


def test_an_unrelated_process_joins_by_name(name: str) -> None:
    with Store.open(name=name, **SMALL) as store:
        page = store.allocate(64, name="shared")
        script = f"""
from stoker.pages import Store
with Store.attach({name!r}) as store:
    page = store.page("shared")
    assert page.size_bytes == 64
    page.write(b"from elsewhere".ljust(64))
"""
        subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
        assert bytes(page.read()).strip() == b"from elsewhere"
        assert left_of(name), "the other process was not the last"
        assert not store.verify()
    assert not left_of(name)


def test_a_descriptor_is_enough_whether_inherited_or_sent() -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(64, name="shared")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        script = """
import array, socket, sys
from stoker.pages import Store
with Store.attach(int(sys.argv[1])) as store:
    store.page("shared").write_at(0, b"inherited")
with socket.socket(fileno=int(sys.argv[2])) as door:
    _, given, _, _ = door.recvmsg(1, socket.CMSG_SPACE(4))
    sent = array.array("i", given[0][2])[0]
    with Store.attach(sent) as store:
        store.page("shared").write_at(32, b"sent")
"""
        command = [sys.executable, "-c", script, str(store.descriptor), str(theirs.fileno())]
        with ours, theirs:
            child = subprocess.Popen(command, pass_fds=(store.descriptor, theirs.fileno()))
            rights = array.array("i", [store.descriptor]).tobytes()
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            assert child.wait() == 0
        assert bytes(page.read()) == b"inherited".ljust(32, b"\0") + b"sent".ljust(32, b"\0")
        assert not store.verify()


def test_only_its_user_may_open_the_memory(name: str, tmp_path: Path) -> None:
    with Store.open(name=name, **SMALL):
        assert [stat.S_IMODE(path.stat().st_mode) for path in left_of(name)] == [0o600]
    with Store.open(tmp_path / "s", **IN_FOLDER) as store:
        assert [stat.S_IMODE(path.stat().st_mode) for path in left_of(store.name)] == [0o600]


def test_a_memory_without_a_name_cannot_be_cut_short() -> None:
    with Store.open(**SMALL) as store, pytest.raises(PermissionError):
        os.ftruncate(store.descriptor, 4096)


def test_a_killed_process_leaves_what_a_sweep_removes(name: str) -> None:
    def work(tell: Callable[[], None]) -> None:
        store = Store.open(name=name, **SMALL)
        store.allocate(64)
        os.kill(os.getpid(), signal.SIGKILL)

    assert was_killed(in_child(work)[0])
    assert left_of(name)
    assert name in sweep_dead()
    assert not left_of(name)


def test_a_sweep_leaves_living_stores_and_those_with_a_folder(name: str, tmp_path: Path) -> None:
    script = f"""
import os, signal
from stoker.pages import Store
store = Store.open({str(tmp_path / "s")!r}, size_bytes=1 << 18, pages_max=64, segment_bytes=1 << 17, durability="none")
store.allocate(64, name="kept")
print(store.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    with Store.open(name=name, **SMALL):
        gone = sweep_dead()
        assert name not in gone
        assert done.stdout.strip() not in gone
    with Store.open(tmp_path / "s") as store:
        assert store.page("kept").size_bytes == 64


def test_a_store_that_is_being_made_is_not_swept(name: str) -> None:
    arena = memory_arena(name, 1 << 18, 64, 64 << 10)
    assert not [gone for gone in sweep_dead() if name in gone]
    arena.publish()
    assert name not in sweep_dead()
    Store(arena).close()
    assert not left_of(name)


def test_openings_that_fail_leave_nothing(name: str, tmp_path: Path) -> None:
    with Store.open(name=name, **SMALL) as store:
        before, files = descriptors_of(name, str(tmp_path)), set(FOLDER.iterdir())
        for _ in range(3):
            with pytest.raises(AlreadyExistsError):
                Store.open(name=name, **SMALL)
            with pytest.raises(UsageError):
                Store.open(name="../outside")
            with pytest.raises(UsageError):
                Store.open(tmp_path / "s", durability="bogus")
            with pytest.raises(PageNotFound):
                Store.attach(f"{name}-not")
            with pytest.raises(FormatError):
                Store.attach(os.memfd_create(f"empty-{name}"))
        assert {path for path in FOLDER.iterdir() if PREFIX in path.name} <= files
        gc.collect()
        left = descriptors_of(name, str(tmp_path))
        assert [target for target in left if "empty" not in target] == before
        assert len(left) == len(before) + 3  # those of the empty files above, which stay their opener's
        assert len(left_of(name)) == 1
        assert not store.verify()


def test_memory_beyond_a_limit_is_told_and_leaves_nothing(name: str) -> None:
    script = f"""
import resource, signal
from stoker.pages import Store, OutOfSpace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for given in ({name!r}, ""):
    try:
        Store.open(name=given, size_bytes=8 << 20)
    except OutOfSpace as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("shared memory for pages is full") == 2
    assert not left_of(name)


def test_a_forked_child_neither_uses_nor_closes_the_store_of_its_parent(name: str) -> None:
    with Store.open(name=name, **SMALL) as store:
        page = store.allocate(64)
        with store.snapshot() as snapshot:

            def work(tell: Callable[[], None]) -> None:
                snapshot.close()
                store.close()
                try:
                    page.free()
                except PagesError:
                    tell()

            assert in_child(work) == (0, 1)
            page.write(b"a" * 64)
            assert bytes(snapshot.view(page.id)) == bytes(64)
        assert left_of(name)
        assert not store.verify()
    assert not left_of(name)


def test_a_name_that_was_taken_away_is_no_store(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between finding the name and entering the table the last process may have left."""
    store = Store.open(name=name, **SMALL)
    from stoker.pages import open_store as store_module

    attach = store_module.attach_mapping

    def late(where: str | int) -> object:
        mapping = attach(where)
        store.close()
        return mapping

    monkeypatch.setattr(store_module, "attach_mapping", late)
    with pytest.raises(PageNotFound, match="any more"):
        Store.attach(name)
    assert not left_of(name)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (lambda head: b"NOTPAGES" + head[8:], FormatError, "no arena"),
        (lambda head: head[:8] + b"\2" + head[9:], FormatError, "unknown version"),
        (lambda head: head[:90] + bytes([head[90] ^ 1]) + head[91:], ChecksumError, "damaged"),
        (lambda head: head[:100], FormatError, "no arena"),
    ],
)
def test_a_damaged_header_is_refused(
    name: str, change: Callable[[bytes], bytes], kind: type[PagesError], sentence: str, tmp_path: Path
) -> None:
    with Store.open(name=name, **SMALL) as store:
        head = encode_static(store.arena.geometry)
        path = FOLDER / f"{PREFIX}{name}-damaged"
        short = len(change(head)) < len(head)
        path.write_bytes(change(head).ljust(0 if short else store.arena.geometry.arena_bytes, b"\0"))
        try:
            with pytest.raises(kind, match=sentence):
                Store.attach(f"{name}-damaged")
        finally:
            path.unlink()
    with Store.open(tmp_path / "s", **IN_FOLDER) as store:
        store.allocate(64, name="kept").write(b"x" * 64)
        shared = store.name
    damaged = FOLDER / f"{PREFIX}{shared}"
    damaged.write_bytes(change(head).ljust(0 if short else 4096, b"\0"))
    try:
        with pytest.raises(kind, match="shared memory of the store is damaged"):
            Store.open(tmp_path / "s")
    finally:
        damaged.unlink()
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("kept").read()) == b"x" * 64


def test_a_shortened_file_is_refused(name: str) -> None:
    with Store.open(name=name, **SMALL) as store:
        whole = bytes(store.arena.mapping.data)
    path = FOLDER / f"{PREFIX}{name}"
    try:
        for length in (0, 255, 4096, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises((FormatError, ChecksumError)):
                Store.attach(name)
    finally:
        path.unlink()


def test_a_process_without_the_folder_never_overwrites_what_is_not_written_out(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", durability="none", **IN_FOLDER) as store:
        page = store.allocate(8000, name="a")
        with Store.attach(store.name) as other, pytest.raises(OutOfSpace, match="path of its folder"):
            for index in range(100):
                other.write(page.id, bytes([index + 1]) * 8000)
        kept = bytes(page.read())
        store.sync()
        assert not store.verify()
    with Store.open(tmp_path / "s") as store:
        assert bytes(store.page("a").read()) == kept


def test_a_process_without_the_folder_that_leaves_last_leaves_the_memory(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from stoker.pages import Store
store = Store.open({str(tmp_path / "s")!r}, durability="none", size_bytes=1 << 18, pages_max=64, segment_bytes=1 << 17)
ready, go = os.pipe()
if not os.fork():
    os.close(go)
    with Store.attach(store.name) as joined:
        os.read(ready, 1)  # until the parent is dead
        joined.allocate(64, name="late")
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    with Store.open(tmp_path / "s") as store:
        assert store.page("late").size_bytes == 64
        assert not store.verify()


def test_what_another_process_committed_last_is_not_lost_with_it(tmp_path: Path) -> None:
    """One closes; the other commits without a flush and is killed before the first looks whether it is the last."""
    store = Store.open(tmp_path / "s", durability="none", **IN_FOLDER)
    page = store.allocate(64, name="a")

    def work(tell: Callable[[], None]) -> None:
        other = Store.attach(store.arena.mapping.descriptor)
        other.write(page.id, b"last" * 16)
        os.kill(os.getpid(), signal.SIGKILL)

    detach = store.arena.detach

    def leave(*, unlink: bool = False) -> bool:
        assert was_killed(in_child(work)[0])
        return detach(unlink=unlink)

    store.arena.detach = leave  # type: ignore[method-assign]
    store.close()
    with Store.open(tmp_path / "s") as again:
        assert bytes(again.page("a").read()) == b"last" * 16
