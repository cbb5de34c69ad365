"""Hosts for the tests: made once, removed at the end with everything that runs there."""

from collections.abc import Iterator

import lab as hosts_lab
import pytest

from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts_lab.Lab]:
    """Three hosts, each with an SSH server."""
    reason = hosts_lab.missing()
    if reason:
        pytest.skip(reason)
    made = hosts_lab.Lab(tmp_path_factory.mktemp("lab"), hosts=3)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small dataset."""
    folder = tmp_path_factory.mktemp("dataset") / "data"
    store = open_store(str(folder), create=True)
    generate(store, DatasetSpec(format="npz", files=96, record_length_bytes=4096.0))
    store.close()
    return str(folder)


@pytest.fixture
def ssh_here(lab: hosts_lab.Lab, monkeypatch: pytest.MonkeyPatch) -> hosts_lab.Lab:
    """The hosts, as this very process reaches them."""
    for name in ("STOKER_SSH_CONFIG", "STOKER_SSH_KNOWN_HOSTS"):
        monkeypatch.setenv(name, lab.environment()[name])
    return lab
