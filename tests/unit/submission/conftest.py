"""One package for all tests that only look at it; whoever spoils one takes a copy."""

import shutil
from pathlib import Path

import ours
import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole package; only to be read."""
    folder = tmp_path_factory.mktemp("package")
    return ours.package(folder / "tree", folder / "evidence")


@pytest.fixture
def tree(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the package."""
    return Path(shutil.copytree(made, tmp_path / "tree"))
