"""An etcd of three members for the tests of this folder, and names of volumes that nobody else has."""

import secrets
from collections.abc import Iterator

import pytest

from stoker.fs.journal.servers import EtcdServers, etcd_program


@pytest.fixture(scope="module")
def etcd_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    """Three members."""
    if etcd_program() is None:
        pytest.skip("etcd is not installed (apt install etcd-server)")
    with EtcdServers(tmp_path_factory.mktemp("etcd")) as started:
        yield started


def new_name() -> str:
    """Return a volume's name."""
    return "v" + secrets.token_hex(6)
