"""A place that is sound when the test is over, and how calls fail."""

from collections.abc import Callable, Iterator
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
