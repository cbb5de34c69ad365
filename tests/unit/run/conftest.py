"""The dataset that runs read, and the proof that they leave nothing behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conducted import make_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a small dataset."""
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No child process and no descriptor may be left by a run."""
    # What other tests' libraries keep running (a fork server, say) is not a run's.
    children = set(psutil.Process().children(recursive=True))
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(psutil.Process().children(recursive=True)) - children == set()
    left = {fd: _target(fd) for fd in set(os.listdir("/proc/self/fd")) - before}
    assert not [name for name in left.values() if "eventfd" in name or "socket" in name or ".jsonl" in name]


def _target(descriptor: str) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""
