"""Folders in memory, and the proof that no thread is left."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """Return a folder on a file system in memory."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test must end the threads of its ranks."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("stoker-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name
