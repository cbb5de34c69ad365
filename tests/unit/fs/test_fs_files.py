"""Volumes' files: made beside others, left by others, written by others."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.fs.meta import Tree, Volume, fsck
from stoker.fs.meta.calls import Call, Create, SetXattr
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT

URLS = ["sqlite://{}/volume.db", "lmdb://{}/volume"]
_KILLED = """
import os, sys
from stoker.fs.meta import Tree, Volume
volume = Volume.open(sys.argv[1])
Tree(volume).mkdir("/old")
os._exit(9)
"""


@pytest.mark.parametrize("url", URLS)
def test_a_transaction_larger_than_the_history_leaves_a_volume_that_opens(tmp_path: Path, url: str) -> None:
    at = url.format(tmp_path)
    with Volume.format(at) as volume:
        volume.run(Create(ROOT, b"f", 0o644))
        volume.submit([Call(SetXattr(2, b"user.%d" % number, bytes(60_000))) for number in range(300)])
        revision = volume.engine.revision()
        assert volume.engine.changes(revision) == []
    with Volume.open(at) as volume:
        assert fsck(volume.engine) == []
        assert len(Tree(volume).listxattr("/f")) == 300


def test_a_log_that_is_left_of_an_earlier_file_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/volume.db"
    Volume.format(url).close()
    assert subprocess.run([sys.executable, "-c", _KILLED, url], check=False).returncode == 9
    (tmp_path / "volume.db").unlink()
    with pytest.raises(UsageError, match=r"left of an earlier file.*volume\.db-"):
        Volume.format(url)
    assert not (tmp_path / "volume.db").exists()
    for remains in tmp_path.iterdir():
        remains.unlink()
    with Volume.format(url) as volume:
        assert Tree(volume).listdir("/") == []


@pytest.mark.parametrize("url", URLS)
def test_two_who_make_a_volume_at_once_do_not_overwrite_each_other(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = url.format(tmp_path)
    is_dir = Path.is_dir

    def late(path: Path) -> bool:
        """Let another one make the volume, and use it, behind the check that nothing is there."""
        monkeypatch.setattr(Path, "is_dir", is_dir)
        with Volume.format(at) as first:
            Tree(first).mkdir("/acknowledged")
        return path.is_dir()

    monkeypatch.setattr(Path, "is_dir", late)
    with pytest.raises(UsageError, match="taken"):
        Volume.format(at)
    with Volume.open(at) as volume:
        assert Tree(volume).listdir("/") == [b"acknowledged"]
    assert [one for one in os.listdir(tmp_path) if one.endswith(".new")] == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE pairs",
        "DELETE FROM about",
        "UPDATE about SET value='x'",
        "DROP TABLE history",
        "UPDATE pairs SET v='text'",
    ],
)
def test_a_sqlite_file_with_other_tables_is_refused_in_a_sentence(tmp_path: Path, change: str) -> None:
    url = f"sqlite://{tmp_path}/volume.db"
    Volume.format(url).close()
    with sqlite3.connect(tmp_path / "volume.db") as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(StokerError), Volume.open(url) as volume:
        Tree(volume).mkdir("/d")


@pytest.mark.parametrize("facts", [None, b"short"])
def test_an_lmdb_folder_without_its_facts_is_refused_in_a_sentence(tmp_path: Path, facts: bytes | None) -> None:
    lmdb = pytest.importorskip("lmdb")
    url = f"lmdb://{tmp_path}/volume"
    Volume.format(url).close()
    with lmdb.open(str(tmp_path / "volume"), max_dbs=3) as env, env.begin(write=True, db=env.open_db(b"about")) as txn:
        if facts is None:
            txn.delete(b"facts")
        else:
            txn.put(b"facts", facts)
    with pytest.raises(CorruptError, match="not readable"):
        Volume.open(url)


def test_an_lmdb_value_without_its_revision_is_told(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    url = f"lmdb://{tmp_path}/volume"
    open_engine(url, create=True).close()
    with lmdb.open(str(tmp_path / "volume"), max_dbs=3) as env, env.begin(write=True, db=env.open_db(b"pairs")) as txn:
        txn.put(b"k", b"v")
    with open_engine(url) as engine, pytest.raises(StokerError, match="no revision"):
        engine.bulk_load([(b"a", b"b")])


def test_an_lmdb_map_that_another_process_outgrew_is_told_with_its_remedy(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/volume"
    Volume.format(url).close()
    script = (
        "import sys\nfrom stoker.fs.meta.engines.urls import open_engine\n"
        "with open_engine(sys.argv[1]) as engine: engine.txn(None, {b'z%d' % n: bytes(60_000) for n in range(100)})\n"
    )
    with Volume.open(url + "?map_bytes=1MiB") as volume:
        subprocess.run([sys.executable, "-c", script, url], check=True)
        with pytest.raises(StokerError, match="map_bytes=1TiB"):
            Tree(volume).listdir("/")
