"""Folders on particular kinds of file system."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.core.errors import PreflightError
from stoker.storage.opening import open_store


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """Return a folder on a file system in memory."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def direct_folder(tmp_path: Path) -> Path:
    """Return a folder that takes O_DIRECT."""
    try:
        open_store(f"direct://{tmp_path}").close()
    except PreflightError as error:
        pytest.skip(f"temporary files lie where O_DIRECT is refused: {error}")
    return tmp_path
