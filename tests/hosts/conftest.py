"""Hosts for the tests: made once, removed at the end with everything that runs there."""

from collections.abc import Iterator

import lab as hosts_lab
import pytest


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


@pytest.fixture
def ssh_here(lab: hosts_lab.Lab, monkeypatch: pytest.MonkeyPatch) -> hosts_lab.Lab:
    """The hosts, as this very process reaches them."""
    for name in ("STOKER_SSH_CONFIG", "STOKER_SSH_KNOWN_HOSTS"):
        monkeypatch.setenv(name, lab.environment()[name])
    return lab
