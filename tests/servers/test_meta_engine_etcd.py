"""The engine `etcd-journal` keeps the engines' contract, over a real etcd of three members."""

import json
from pathlib import Path

import lmdb
import pytest

from stoker.core.errors import StokerError, UsageError
from stoker.fs.journal.servers import EtcdServers
from stoker.fs.meta.engines.urls import open_engine
from stoker.testing.meta_contract import MetaEngineContract


@pytest.mark.slow
class TestEtcdJournal(MetaEngineContract):
    survives = True
    disposable = True

    @pytest.fixture(autouse=True)
    def place(self, etcd_servers: EtcdServers) -> None:
        self.addresses = etcd_servers.addresses

    def url(self, folder: Path) -> str:
        return f"etcd://{self.addresses}/{folder.name}-{hash(folder) & 0xFFFFFF:x}?state={folder}/volume"

    def data_file(self, folder: Path) -> Path:
        inside = folder / "volume" / "copy" / "data.mdb"
        return inside if inside.exists() else folder / "volume" / "data.mdb"

    def make_foreign(self, folder: Path) -> None:
        open_engine(self.url(folder).partition("?")[0], create=True).close()
        with lmdb.open(str(folder / "volume"), max_dbs=1) as env, env.begin(write=True) as txn:
            txn.put(b"theirs", b"1")

    def make_newer(self, folder: Path) -> None:
        facts = folder / "volume" / "journal.json"
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"version": 99}))

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such option"):
            open_engine(self.url(tmp_path) + "&snyc=full", create=True)
        with pytest.raises(StokerError):
            open_engine(self.url(tmp_path))
