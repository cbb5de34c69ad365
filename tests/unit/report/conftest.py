"""Saved runs to report on."""

from pathlib import Path

import pytest
import runs

from stoker.core.result import Result


@pytest.fixture(scope="session")
def template_result() -> Result:
    """The realistic result; never changed by a test."""
    return runs.realistic_result()


@pytest.fixture
def run_folder(tmp_path: Path, template_result: Result) -> Path:
    """A run folder with result and series."""
    return runs.save_run(tmp_path, template_result)
