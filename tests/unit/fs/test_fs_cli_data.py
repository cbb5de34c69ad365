"""`stoker fs put`, `get`, `cat`, `gc` and what `fsck` says of bytes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.cli.main import run
from stoker.fs.disk.interface import ShardId
from stoker.fs.doors.places import opened_place
from stoker.fs.meta.calls import BeginSession, Put, TakeSlices
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
from stoker.fs.store.local import LocalStore

Stoker = Callable[..., tuple[int, str, str]]
VOLUME = "sqlite://volume.db?sync=off"


@pytest.fixture
def stoker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Stoker:
    """Run a command in a folder of its own, where a volume is: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        code = run(["fs", *words])
        told = capfdbinary.readouterr()
        return code, told.out.decode(), told.err.decode()

    assert call("format", VOLUME)[0] == 0
    return call


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    (folder / "sub").mkdir(parents=True)
    (folder / "f").write_bytes(b"content\n")
    (folder / "f").chmod(0o640)
    (folder / "sub" / "g").write_bytes(os.urandom(100_000))
    (folder / "link").symlink_to("sub/g")
    os.mkfifo(folder / "fifo")
    return folder


def test_a_directory_goes_in_and_comes_out_the_same(stoker: Stoker, local: Path, tmp_path: Path) -> None:
    code, out, _ = stoker("put", VOLUME, "local", "--recursive", "--json")
    told = json.loads(out)
    assert (code, told["files"], told["folders"], told["links"], told["bytes"]) == (0, 2, 2, 1, 100_008)
    assert told["skipped"] == ["local/fifo"]
    assert stoker("cat", VOLUME, "/local/f", "/local/f")[1] == "content\ncontent\n"
    assert stoker("get", VOLUME, "/local", "back", "--recursive")[0] == 0
    assert (tmp_path / "back/f").read_bytes() == b"content\n"
    assert (tmp_path / "back/f").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "back/sub/g").read_bytes() == (local / "sub/g").read_bytes()
    assert os.readlink(tmp_path / "back/link") == "sub/g"
    assert not list(tmp_path.rglob("*.new"))
    assert stoker("get", VOLUME, "/local/sub/g")[0] == 0
    assert (tmp_path / "g").stat().st_size == 100_000
    assert stoker("fsck", VOLUME, "--deep")[:2] == (0, "sound, 6 inodes\n")


def test_what_cannot_be_copied_is_told(stoker: Stoker, local: Path, tmp_path: Path) -> None:
    assert stoker("put", VOLUME, "local")[0] == 2
    assert stoker("put", VOLUME, "none")[0] == 2
    assert stoker("put", VOLUME, "local/f", "/no/where")[0] == 1
    assert stoker("get", VOLUME, "/")[0] == 2
    assert stoker("get", VOLUME, "/none")[0] == 1
    assert stoker("cat", VOLUME, "/")[0] == 1
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trap").symlink_to("elsewhere")
    assert stoker("put", VOLUME, "local/f", "/trap")[0] == 0
    assert stoker("put", VOLUME, "local/f", "--data", "no/such/folder")[0] == 1
    assert stoker("format", "sqlite://other.db")[0] == 0
    code, _, err = stoker("put", "sqlite://other.db", "local/f", "--data", "volume.db.data")
    assert (code, "another volume" in err) == (2, True)


def test_garbage_is_named_and_removed(stoker: Stoker, local: Path) -> None:
    stoker("put", VOLUME, "local/f", "/f")
    ino = json.loads(stoker("stat", VOLUME, "/f", "--json")[1])["inode"]
    stoker("put", VOLUME, "local/sub/g", "/f")
    assert stoker("gc", VOLUME)[1] == "removed: 0 slices, 0 B; 1 wait for their grace\n"
    told = json.loads(stoker("gc", VOLUME, "--grace", "0s", "--dry-run", "--json")[1])
    assert [(one["why"], one["inode"], one["bytes"]) for one in told["removed"]] == [("freed", ino, 8)]
    assert f"freed by inode {ino} at" in stoker("gc", VOLUME, "--grace", "0s")[1]
    assert json.loads(stoker("gc", VOLUME, "--grace", "0s", "--json")[1])["removed"] == []
    assert stoker("fsck", VOLUME, "--bytes")[0] == 0


def test_what_is_left_of_sparse_packs_is_stored_anew(stoker: Stoker) -> None:
    with opened_place(VOLUME) as place:
        session = place.volume.run(BeginSession(10**12)).value
        number = place.volume.run(TakeSlices(1), session=session).value
        data = Slice(number, 0, 8000)
        place.store.write(data, [b"%d" % n * 1000 for n in range(8)], durable=True)
        for n in range(8):
            put = Put(ROOT, b"%d" % n, 0o644, (data,), parts=((n * 1000, 1000),))
            place.volume.run(put, session=session)
        place.volume.end_session(session)
    for n in range(6):
        assert stoker("rm", VOLUME, f"/{n}")[0] == 0
    words = ("gc", VOLUME, "--grace", "0s", "--json")
    none = {"packs": 0, "unchanged": 0, "moved_bytes": 0, "freed_bytes": 0, "after": 0}
    assert json.loads(stoker(*words, "--sparse", "0.2")[1])["repacked"] == none
    assert json.loads(stoker(*words, "--sparse", "0")[1])["repacked"] == none
    assert json.loads(stoker(*words, "--repack-bytes", "0")[1])["repacked"] == none
    told = json.loads(stoker(*words, "--dry-run")[1])
    assert (told["repacked"], told["freed"]) == (none | {"packs": 1, "moved_bytes": 2000, "freed_bytes": 8000}, 0)
    told = stoker("gc", VOLUME, "--grace", "0s")[1]
    assert "emptied: 1 packs of 7.81 KiB, of which 1.95 KiB showed" in told and "removed: 1 slices" in told
    assert stoker("cat", VOLUME, "/6", "/7")[1] == "6" * 1000 + "7" * 1000
    assert stoker("fsck", VOLUME, "--bytes")[0] == 0


def test_bytes_that_are_gone_are_a_fault(stoker: Stoker, local: Path) -> None:
    stoker("put", VOLUME, "local/f", "/f")
    store = LocalStore(Path("volume.db.data"))
    (data,) = store.inventory()
    store.disk.remove([ShardId(data.id, data.generation, 0)])
    store.close()
    assert stoker("fsck", VOLUME)[0] == 0
    code, out, _ = stoker("fsck", VOLUME, "--bytes")
    assert (code, "slices that files show are in the store" in out) == (3, True)
    assert stoker("cat", VOLUME, "/f")[0] == 1
