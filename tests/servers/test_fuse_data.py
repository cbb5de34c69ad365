"""Bytes on mounts under random load, and under programs that many trust: fio, git, SQLite, LMDB, pjdfstest."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_place import NEEDS_ETCD, cluster_in
from fuse_fsx import Exercise
from fuse_place import Mounts, mounted, need_fuse, sound

from stoker.fs.demo.show import mounted as cluster_mounted
from stoker.fs.journal.servers import EtcdServers, etcd_program

pytestmark = pytest.mark.timeout(7200)
FSX_STEPS = int(os.environ.get("STOKER_FSX_STEPS", "1000000"))


@pytest.fixture
def hold_seconds() -> float:
    """Return how long names of directories are held; tests that are about it give it themselves."""
    return 0.0


HELD = pytest.mark.parametrize("hold_seconds", [0.0, 3.0], ids=["asking", "holding"])


@pytest.fixture
def mounts(tmp_path: Path, hold_seconds: float) -> Iterator[Mounts]:
    with mounted(tmp_path, 2, hold_seconds=hold_seconds) as given:
        yield given
        given.stop()
        sound(given.url)


@pytest.mark.parametrize("count", [1, 2])
def test_a_file_is_what_was_written(mounts: Mounts, count: int) -> None:
    Exercise(mounts.points[:count], seed=count).run(150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 2])
def test_a_file_is_what_was_written_a_million_times(mounts: Mounts, count: int, seed: int) -> None:
    exercise = Exercise(mounts.points[:count], seed=100 * count + seed)
    exercise.run(FSX_STEPS // 10)
    exercise.close()


# -- suites and programs from elsewhere


@pytest.mark.slow
@HELD
def test_pjdfstest_passes_whole(mounts: Mounts) -> None:
    _pass_pjdfstest(mounts.points[0])


@pytest.mark.slow
@NEEDS_ETCD
def test_pjdfstest_passes_whole_over_masters(tmp_path: Path) -> None:
    """As users mount a cluster: names are held, and files made without asking."""
    need_fuse()
    with (
        cluster_in(tmp_path / "cluster") as cluster,
        cluster_mounted(cluster, tmp_path / "mount", lambda: False, "--allow-other"),
    ):
        _pass_pjdfstest(tmp_path / "mount")


@pytest.mark.slow
def test_pjdfstest_passes_whole_over_a_journal_in_etcd(tmp_path: Path) -> None:
    if etcd_program() is None:
        pytest.skip("etcd is not installed: apt install etcd-server")
    (tmp_path / "etcd").mkdir()
    with EtcdServers(tmp_path / "etcd") as servers:
        servers.wait()
        with mounted(tmp_path, url=f"etcd://{servers.addresses}/pjdfstest") as mounts:
            _pass_pjdfstest(mounts.points[0])


def _pass_pjdfstest(point: Path) -> None:
    """STOKER_PJDFSTEST names a checkout of github.com/pjd/pjdfstest, built: `tests/` and the program beside it."""
    suite = os.environ.get("STOKER_PJDFSTEST", "")
    if not suite or not (Path(suite) / "pjdfstest").exists() or not shutil.which("prove"):
        pytest.skip("STOKER_PJDFSTEST does not name a built pjdfstest, or there is no prove")
    point.parent.chmod(0o755)
    done = subprocess.run(["prove", "-r", f"{suite}/tests"], cwd=point, capture_output=True, text=True, timeout=7200)
    assert "Result: PASS" in done.stdout, done.stdout[-5000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("Files="))
    assert int(told.split("Tests=")[1].split(",")[0]) > 8000


@pytest.mark.slow
@pytest.mark.parametrize("size", ["512", "4k", "64k", "1m", "4m"])
def test_fio_reads_what_it_wrote(mounts: Mounts, size: str) -> None:
    fio = shutil.which("fio") or pytest.skip("there is no fio")
    total = "4m" if size == "512" else "16m" if size == "4k" else "64m"
    words = [
        fio, "--name=verify", f"--filename={mounts.points[0]}/fio", f"--size={total}", f"--bs={size}", "--rw=randrw",
        "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--ioengine=psync", "--end_fsync=1", "--fallocate=none",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
@HELD
def test_git_clones_and_checks_a_repository(mounts: Mounts) -> None:
    git = shutil.which("git") or pytest.skip("there is no git")
    source = Path(__file__).parents[2]
    words = [git, "clone", "-q", "--no-hardlinks", f"file://{source}", str(mounts.points[0] / "clone")]
    subprocess.run(words, check=True, capture_output=True, timeout=1200)
    clone = str(mounts.points[0] / "clone")
    subprocess.run([git, "-C", clone, "fsck", "--full", "--strict"], check=True, capture_output=True, timeout=1200)
    told = subprocess.run([git, "-C", clone, "status", "--porcelain"], check=True, capture_output=True, timeout=600)
    assert told.stdout == b""
    subprocess.run([git, "-C", clone, "gc", "-q"], check=True, capture_output=True, timeout=1200)
    subprocess.run([git, "-C", clone, "fsck", "--full"], check=True, capture_output=True, timeout=1200)


@pytest.mark.slow
@HELD
def test_sqlite_is_whole_on_two_mounts(mounts: Mounts) -> None:
    path = mounts.points[0] / "t.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (who TEXT, n INTEGER)")
    program = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=120, isolation_level=None)
for n in range(100):
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO t VALUES (?, ?)", (sys.argv[2], n))
    database.execute("COMMIT")
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(point / "t.db"), f"{point.name}{index}"])
        for point in mounts.points
        for index in range(2)
    ]
    assert [writer.wait(600) for writer in writers] == [0] * 4
    for point in mounts.points:
        database = sqlite3.connect(point / "t.db")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*), count(DISTINCT who) FROM t").fetchall() == [(400, 4)]
        database.close()


@pytest.mark.slow
def test_lmdb_is_whole(mounts: Mounts) -> None:
    lmdb = pytest.importorskip("lmdb")
    folder = mounts.points[0] / "lmdb"
    rows = {b"%06d" % index: os.urandom(index % 900) for index in range(5000)}
    with lmdb.open(str(folder), map_size=64 << 20) as environment:
        for start in range(0, 5000, 500):
            with environment.begin(write=True) as transaction:
                for key in list(rows)[start : start + 500]:
                    transaction.put(key, rows[key])
    there = str(mounts.points[1] / "lmdb")
    with lmdb.open(there, map_size=64 << 20, readonly=True, lock=False) as environment, environment.begin() as seen:
        assert dict(seen.cursor()) == rows
