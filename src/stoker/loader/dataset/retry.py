"""Repeating what a store cannot repeat by itself: a put whose parts were used up."""

from collections.abc import Callable
from typing import Final, TypeVar

from stoker.core.clock import sleep
from stoker.core.errors import TransientError

T = TypeVar("T")

ATTEMPTS_MAX: Final = 3
_PAUSE_SECONDS: Final = 0.1


def repeat(action: Callable[[], T]) -> tuple[T, int]:
    """Return what `action` returns, and how often it was repeated after a TransientError: twice at most."""
    for attempt in range(ATTEMPTS_MAX - 1):
        try:
            return action(), attempt
        except TransientError:
            sleep(_PAUSE_SECONDS * 2**attempt)
    return action(), ATTEMPTS_MAX - 1
