"""A fresh place for every test's commands."""

from pathlib import Path

import pytest
from dlio_commands import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty folder to run commands in."""
    return Place(tmp_path)
