"""A place that is sound when the test is over, and how calls fail."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs_place import Place

from stoker.fs.meta import MetaError


@pytest.fixture
def place() -> Iterator[Place]:
    """A place that is sound when the test is over."""
    made = Place()
    yield made
    made.sound()


@pytest.fixture
def fails() -> Callable[..., None]:
    """Assert that a call of a `Tree` fails with an errno."""

    def check(number: int, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        with pytest.raises(MetaError) as caught:
            call(*arguments, **named)
        assert caught.value.errno == number, caught.value

    return check


@pytest.fixture
def index_folder() -> Iterator[Path]:
    """Return a folder for the index, in memory where there is one: a test opens thousands."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder)
