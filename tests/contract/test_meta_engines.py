"""Our engines of metadata keep the contract."""

import sqlite3
from pathlib import Path

import lmdb

from stoker.testing.meta_contract import MetaEngineContract


class TestMemory(MetaEngineContract):
    def url(self, folder: Path) -> str:
        return f"memory://{folder}"


class TestSqlite(MetaEngineContract):
    survives = True

    def url(self, folder: Path) -> str:
        return f"sqlite://{folder}/volume.db"

    def data_file(self, folder: Path) -> Path:
        return folder / "volume.db"

    def make_foreign(self, folder: Path) -> None:
        with sqlite3.connect(self.data_file(folder)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        connection.close()

    def make_newer(self, folder: Path) -> None:
        with sqlite3.connect(self.data_file(folder)) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()


class TestLmdb(MetaEngineContract):
    survives = True

    def url(self, folder: Path) -> str:
        return f"lmdb://{folder}/volume"

    def data_file(self, folder: Path) -> Path:
        return folder / "volume" / "data.mdb"

    def make_foreign(self, folder: Path) -> None:
        with lmdb.open(str(folder / "volume"), max_dbs=1) as env, env.begin(write=True) as txn:
            txn.put(b"theirs", b"1")

    def make_newer(self, folder: Path) -> None:
        with lmdb.open(str(folder / "volume"), max_dbs=3) as env:
            about = env.open_db(b"about")
            with env.begin(write=True, db=about) as txn:
                txn.put(b"version", (99).to_bytes(4, "big"))
